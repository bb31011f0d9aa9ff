"""The loop: logits -> id -> logits -> ..., until a stop id or a limit."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import numpy as np

from qwenaudio_np.cache import KVCache
from qwenaudio_np.ops import Array
from qwenaudio_np.sampler import Sampler
from qwenaudio_np.special_tokens import ENDOFTEXT, IM_END, IM_START
from qwenaudio_np.tokenizer import Tokenizer

if TYPE_CHECKING:
    from qwenaudio_np.model import QwenAudio


def stop_ids(tokenizer: Tokenizer, chat_format: str) -> frozenset[int]:
    """Ids that end an answer. Base: `<|endoftext|>`. Chat: `<|im_end|>` and `<|im_start|>` too."""
    names = (ENDOFTEXT, IM_END, IM_START) if chat_format == "chatml" else (ENDOFTEXT,)
    return frozenset(tokenizer.special_ids[name] for name in names)


def generate_ids(
    model: QwenAudio, logits: Array, cache: KVCache, sampler: Sampler, stops: Collection[int], max_new_tokens: int, min_new_tokens: int = 0
) -> Iterator[tuple[int, Array]]:
    """Yield (id, the logits [vocabulary] it was picked from), the stop id included, beginning with a prompt's last logits.

    Ends after a stop id, after `max_new_tokens`, or when the cache holds max_position_embeddings positions; nothing is computed
    past what is yielded. The first `min_new_tokens` ids cannot be stop ids.
    """
    for count in range(max_new_tokens):
        token = sampler(forbid(logits, stops) if count < min_new_tokens else logits)
        yield token, logits
        if token in stops or count + 1 == max_new_tokens or cache.length >= model.config.text.max_position_embeddings:
            return
        logits = model.step(token, cache)


def stop_reason(ids: list[int], stops: Collection[int], max_new_tokens: int) -> str:
    """Why generation ended: "stop" (a stop id), "length" (max_new_tokens) or "context" (the model's last position)."""
    if ids and ids[-1] in stops:
        return "stop"
    return "length" if len(ids) >= max_new_tokens else "context"


def forbid(logits: Array, ids: Collection[int]) -> Array:
    """A copy of logits [vocabulary] in which `ids` cannot win."""
    logits = logits.copy()
    logits[list(ids)] = -np.inf
    return logits
