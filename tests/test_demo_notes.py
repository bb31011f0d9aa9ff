"""What a note's vectors are taught themselves, by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is for training only; pip install '.[train]'")

from demo import sizes  # noqa: E402
from demo.music import FAMILIES  # noqa: E402
from demo.notes import KEYS, PITCHES, VELOCITIES, family_ids, note_loss, played  # noqa: E402
from qwenaudio_np.special_tokens import SPECIAL_TOKENS  # noqa: E402
from tests.byte_tokenizer import BYTES  # noqa: E402

FLUTE = {"pitch": 69, "velocity": 25, "instrument": "flute"}


def test_pitches_and_velocities_are_tokens() -> None:
    assert SPECIAL_TOKENS[PITCHES - sizes.RANKS + 69] == "<|midi_pitch_69|>"
    assert SPECIAL_TOKENS[VELOCITIES - sizes.RANKS + 25] == "<|midi_velocity_25|>"


def test_a_note_is_its_pitch_its_velocity_and_its_family() -> None:
    assert played(FLUTE) == [69, 25, list(FAMILIES).index("flute")]


def test_the_mean_of_a_notes_vectors_is_read_through_the_embeddings() -> None:
    """Two notes behind a clip that is none: one of silence, one whose vectors are what its answer says; padding counts for nothing."""
    weight = torch.eye(sizes.padded_vocabulary())
    families = [[number] for number in range(len(FAMILIES))]
    right = played(FLUTE)
    vectors = torch.zeros(3, 4, sizes.padded_vocabulary())
    vectors[2, :2] = 40.0 * (weight[PITCHES + right[0]] + weight[VELOCITIES + right[1]] + weight[right[2]])
    vectors[2, 2:] = 99.0
    twin, played_ = SimpleNamespace(wte=SimpleNamespace(weight=weight)), torch.tensor([right, right])
    batch = SimpleNamespace(positions=torch.tensor([8, 8, 4]), notes=torch.tensor([1, 2]), played=played_, families=families)
    nothing_known = 2 * math.log(KEYS) + math.log(len(FAMILIES))
    assert note_loss(twin, batch, vectors).item() == pytest.approx(nothing_known / 2, rel=1e-5)


def test_families_are_told_apart_by_their_names() -> None:
    assert family_ids(BYTES) == [[*name.encode()] for name in FAMILIES]
