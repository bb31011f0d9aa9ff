"""What the vectors of scenes are taught: the names of kinds of sound, read off their mean."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is for training only; pip install '.[train]'")

from demo.examples import SCENE  # noqa: E402
from demo.kinds import KINDS, kind_ids, kind_loss  # noqa: E402
from tests.byte_tokenizer import BYTES  # noqa: E402


def test_the_kinds_are_those_that_the_questions_name() -> None:
    assert all(kind in SCENE[-1] for kind in KINDS)


def test_the_mean_of_a_scenes_vectors_is_read_through_the_kinds_names() -> None:
    """Two scenes behind a clip that is none: one of zeros, one whose vectors say its kind; padding counts for nothing."""
    vectors = torch.zeros(3, 4, 8)
    vectors[2, :2, KINDS.index("noise")] = 40.0
    vectors[2, 2:] = torch.arange(8) * 99.0
    vectors[0] = 7.0
    batch = SimpleNamespace(
        positions=torch.tensor([8, 8, 4]),
        scenes=torch.tensor([1, 2]),
        kinds=torch.tensor([KINDS.index("music"), KINDS.index("noise")]),
        kind_names=[[number] for number in range(len(KINDS))],
    )
    twin = SimpleNamespace(wte=SimpleNamespace(weight=torch.eye(8)))
    assert kind_loss(twin, batch, vectors).item() == pytest.approx(math.log(len(KINDS)) / 2, rel=1e-5)


def test_kinds_are_told_apart_by_their_names() -> None:
    assert kind_ids(BYTES) == [[*kind.encode()] for kind in KINDS]
