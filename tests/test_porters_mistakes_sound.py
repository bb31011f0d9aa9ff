"""The mistakes that ports of this model make with sound, one test each, from samples to vectors. mistake_tools.py says how they show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwenaudio_np
from qwenaudio_np.errors import MismatchError
from tests.make_checkpoint import as_it_is, distance, make_checkpoint, open_model
from tests.mistake_tools import FOLDER, SAME, check, check_mel, read_clip, the_request
from tests.naive_front_end import position_count, vector_count
from tests.naive_network import NaiveNetwork

pytestmark = pytest.mark.usefixtures("golden")


def test_gelu_is_exact_not_tanh(ops: Any) -> None:
    check(ops, "tanh_gelu")


def test_mel_frames_are_centred() -> None:
    check_mel(read_clip("speech.flac"), "mel_not_centred", far=0.1)


def test_mel_window_is_periodic() -> None:
    check_mel(read_clip("speech.flac"), "mel_symmetric_window")


def test_mel_filters_have_equal_area() -> None:
    check_mel(read_clip("speech.flac"), "mel_filters_not_normalised", far=0.1)


def test_mel_maximum_is_over_the_padded_thirty_seconds() -> None:
    """A burst in the last samples is heard only by frame 54, centred on sample 8640: the clip's own frames, 0..53, end at 8680."""
    waveform = 1e-4 * np.sin(np.arange(8780.0))
    assert 2 * position_count(len(waveform)) == 54
    waveform[8700:] *= 5e3
    check_mel(waveform, "mel_maximum_of_clip", far=0.1)


def test_the_waveform_is_padded_not_the_features(ops: Any) -> None:
    check_mel(read_clip("tone.wav"), "features_padded", far=0.1)
    check(ops, "features_padded")


def test_position_count_for_odd_lengths(ops: Any) -> None:
    clips = the_request()[1]
    assert [len(clip) // 160 % 2 for clip in clips] == [1, 1], "both clips have an odd number of frames"
    check(ops, "positions_rounded_down")


@pytest.mark.parametrize(("samples", "positions", "vectors"), [(480, 2, 1), (799, 2, 1), (800, 3, 1), (1120, 4, 2), (480_000, 1500, 750)])
def test_lengths_worked_by_hand(samples: int, positions: int, vectors: int) -> None:
    """480 samples are 3 frames; frames 0 and 2 start positions; one pair. 800 are 5 frames: 0, 2, 4; still one pair."""
    clip = as_it_is(np.full(samples, 0.1))
    assert (clip.positions, clip.vectors) == (positions, vectors)
    assert (position_count(samples), vector_count(positions)) == (positions, vectors)


def test_vector_count_for_odd_positions(ops: Any) -> None:
    sounds = open_model(FOLDER, ops).encode_audio([as_it_is(clip) for clip in the_request()[1]])
    assert [position_count(len(clip)) for clip in the_request()[1]] == [27, 25]
    assert [len(sound) for sound in sounds] == [13 + 2, 12 + 2]
    assert [len(sound) for sound in NaiveNetwork(FOLDER, "vectors_rounded_up").encode(the_request()[1])] == [14, 13]


def test_positions_past_a_shorter_clip_are_not_attended_to(ops: Any) -> None:
    check(ops, "encoder_mask_not_applied")


def test_silence_after_a_clip_is_not_attended_to(ops: Any, tmp_path: Path) -> None:
    """The same mistake with one clip: computing the padded 30 s whole (here an encoder of 100 positions) without a mask."""
    folder = make_checkpoint(tmp_path, audio={"n_ctx": 100})
    tone = read_clip("tone.wav")
    found = open_model(folder, ops).encode_audio([as_it_is(tone)])[0][1:-1]
    right, wrong = NaiveNetwork(folder).encode([tone])[0], NaiveNetwork(folder, "thirty_seconds_unmasked").encode([tone])[0]
    assert distance(found, right) < SAME
    assert distance(wrong, right) > 0.1


def test_encoder_key_projection_has_no_bias(ops: Any, tmp_path: Path) -> None:
    """A key bias would move all scores of a row alike, which softmax cancels: no output can show it (the twin proves that here),
    only the tensors can. So none is read, and a checkpoint that holds one is refused."""
    assert distance(NaiveNetwork(FOLDER, "key_bias").encode(the_request()[1])[0], NaiveNetwork(FOLDER).encode(the_request()[1])[0]) < SAME
    model = open_model(FOLDER, ops)
    model.weights = asked = _NamesAskedFor(model.weights)
    model.encode_audio([as_it_is(clip) for clip in the_request()[1]])
    assert "transformer.audio.blocks.1.attn.query.bias" in asked.names
    assert not [name for name in asked.names if name.endswith("attn.key.bias")]
    folder = make_checkpoint(tmp_path, extra={"transformer.audio.blocks.0.attn.key.bias": np.ones(16)})
    with pytest.raises(MismatchError, match=r"attn\.key\.bias"):
        qwenaudio_np.load(folder, backend="reference")


class _NamesAskedFor(dict[str, np.ndarray]):
    """Weights that remember which of them were read."""

    def __init__(self, weights: Any) -> None:
        super().__init__(weights)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> np.ndarray:
        self.names.add(name)
        return super().__getitem__(name)


def test_pooling_comes_before_ln_post(ops: Any) -> None:
    check(ops, "pool_after_ln_post")


def test_learned_rows_are_not_forgotten(ops: Any) -> None:
    check(ops, "bos_eos_forgotten")


def test_learned_rows_stand_over_the_tags_not_beside_them(ops: Any) -> None:
    check(ops, "bos_eos_beside_tags")


def test_clips_of_one_prompt_are_cut_at_the_longest(ops: Any) -> None:
    check(ops, "clips_one_by_one")
