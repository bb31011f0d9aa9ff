"""What a scene's audio vectors are taught themselves, beside the answer: what kind of sound it is.

Without it the difference between music and noise is learned from one token of an answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from demo.notes import embedded, mean_vectors
from qwenaudio_np.tokenizer import Tokenizer

if TYPE_CHECKING:
    from demo.batches import Batch
    from demo.twin import Twin

KINDS = ("speech", "music", "noise", "silence")


def kind_loss(twin: Twin, batch: Batch, vectors: Tensor) -> Tensor:
    """Cross entropy of the mean of each scene's vectors, read through the embeddings of the kinds' names."""
    return F.cross_entropy(mean_vectors(batch, batch.scenes, vectors) @ embedded(twin, batch.kind_names).T, batch.kinds)


def kind_ids(tokenizer: Tokenizer) -> list[list[int]]:
    """The tokens of each kind's name."""
    return [tokenizer.encode(name) for name in KINDS]
