"""The encoder: every stage against the twin, its lengths, and how the clips of one prompt depend on each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwenaudio_np.audio import Clip, load_clip
from qwenaudio_np.encoder import encode_clip
from qwenaudio_np.errors import MismatchError
from qwenaudio_np.mel import log_mel
from qwenaudio_np.model import QwenAudio
from tests.make_checkpoint import as_it_is, distance, make_checkpoint, open_model
from tests.naive_network import NaiveNetwork

STAGES = ["mel", "conv1", "conv2", "blocks.0", "blocks.1", "ln_post", "proj"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def model(folder: Path, ops: Any) -> QwenAudio:
    return open_model(folder, ops)


def noise(samples: int, seed: int = 0) -> Clip:
    return as_it_is(0.1 * np.random.default_rng(seed).standard_normal(samples))


def encode(model: QwenAudio, *clips: Clip) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """The clips' vectors, and all that was tapped on the way."""
    taps: dict[str, np.ndarray] = {}
    return model.encode_audio(clips, lambda name, x: taps.update({name: x.copy()})), taps


@pytest.mark.parametrize("samples", [(6500, 4100), (480,), (799, 640, 800), (4100, 4150)])
def test_every_stage_equals_the_twin(model: QwenAudio, folder: Path, samples: tuple[int, ...]) -> None:
    clips = [noise(n, n) for n in samples]
    sounds, taps = encode(model, *clips)
    twin = NaiveNetwork(folder)
    expected = twin.encode([clip.waveform for clip in clips])
    assert list(taps) == [f"audio.{k}.{stage}" for k in range(len(clips)) for stage in STAGES]
    for name, values in taps.items():
        assert distance(values, twin.taps[name]) < 1e-10, name
    for sound, vectors in zip(sounds, expected, strict=True):
        assert distance(sound[1:-1], vectors) < 1e-10


def test_real_speech_equals_the_twin(speech: Path, model: QwenAudio, folder: Path) -> None:
    clip = load_clip(speech)
    (sound,), _ = encode(model, clip)
    assert distance(sound[1:-1], NaiveNetwork(folder).encode([clip.waveform])[0]) < 1e-10


@pytest.mark.parametrize(
    ("samples", "positions", "vectors"), [(480, 2, 1), (799, 2, 1), (800, 3, 1), (959, 3, 1), (960, 3, 1), (1119, 3, 1), (1120, 4, 2)]
)
def test_shapes_for_short_clips(model: QwenAudio, samples: int, positions: int, vectors: int) -> None:
    (sound,), taps = encode(model, noise(samples))
    assert {name: values.shape for name, values in taps.items()} == {
        "audio.0.mel": (80, 2 * positions), "audio.0.conv1": (16, 2 * positions), "audio.0.conv2": (16, positions),
        "audio.0.blocks.0": (positions, 16), "audio.0.blocks.1": (positions, 16),
        "audio.0.ln_post": (vectors, 16), "audio.0.proj": (vectors, 24),
    }  # fmt: skip
    assert sound.shape == (vectors + 2, 24)


def test_a_whole_half_minute(tmp_path: Path, ops: Any) -> None:
    """1500 positions: there is no frame behind the last one to see."""
    model = open_model(make_checkpoint(tmp_path, audio={"n_layer": 1}), ops, np.float32)
    (sound,), taps = encode(model, noise(480_000))
    assert taps["audio.0.mel"].shape == (80, 3000) and sound.shape == (752, 24) and sound.dtype == np.float32


def test_learned_rows_stand_around_the_vectors(model: QwenAudio) -> None:
    (sound,), taps = encode(model, noise(4100))
    begin, end = model.weights["transformer.audio.audio_bos_eos_token.weight"].astype(np.float64)
    assert np.array_equal(sound[0], begin) and np.array_equal(sound[-1], end)
    assert np.array_equal(sound[1:-1], taps["audio.0.proj"])


def test_the_longest_clip_does_not_depend_on_the_others(model: QwenAudio) -> None:
    long, short = noise(6500, 1), noise(4100, 2)
    alone, _ = encode(model, long)
    together, _ = encode(model, short, long)
    assert np.array_equal(together[1], alone[0])


def test_a_shorter_clip_sees_one_frame_of_its_own_silence(model: QwenAudio) -> None:
    """Beside a longer clip the last position sees the next mel frame where, alone, it sees zeros: by how much longer the other
    is, does not matter, nor what is in it, nor in which order they stand."""
    short = noise(4100, 2)
    (alone,), alone_taps = encode(model, short)
    results = [encode(model, *clips) for clips in ((short, noise(4500, 3)), (short, noise(9000, 4)))]
    swapped, _ = encode(model, noise(9000, 4), short)
    (one, _), taps = results[0]
    assert np.array_equal(one, results[1][0][0]) and np.array_equal(one, swapped[1])
    assert distance(one, alone) > 1e-3
    moved = np.abs(taps["audio.0.conv1"] - alone_taps["audio.0.conv1"]).max(axis=0)
    assert moved[-1] > 1e-3 and moved[:-1].max() < 1e-12, "only the last frame's convolution differs"


def test_clips_of_equal_positions_are_independent(model: QwenAudio) -> None:
    """4100 and 4150 samples are both 13 positions, though not equally long."""
    clips = [noise(4100, 1), noise(4150, 2)]
    together, _ = encode(model, *clips)
    for clip, sound in zip(clips, together, strict=True):
        assert np.array_equal(encode(model, clip)[0][0], sound)


def test_attention_reaches_backwards_and_forwards(model: QwenAudio) -> None:
    """No causal mask: a change at the end of a clip moves its first position."""
    clip = noise(4100)
    changed = clip.waveform.copy()
    changed[-400:] *= -0.5
    (_, one), (_, other) = encode(model, clip), encode(model, as_it_is(changed))
    assert np.array_equal(one["audio.0.conv2"][:, 0], other["audio.0.conv2"][:, 0])
    assert np.abs(one["audio.0.blocks.0"][0] - other["audio.0.blocks.0"][0]).max() > 1e-6


def test_a_spectrogram_may_be_given_whole(model: QwenAudio) -> None:
    """Frames behind the one that the last position sees are not looked at."""
    clip, audio = noise(4100), model.config.audio
    assert audio is not None
    mel = log_mel(clip.waveform, 80, np.float64)
    whole, cut = (encode_clip(part, 4100, model.weights, audio, model.ops) for part in (mel, mel[:, :27]))
    assert distance(whole, cut) < 1e-13


def test_more_positions_than_the_encoder_has(tmp_path: Path, ops: Any) -> None:
    model = open_model(make_checkpoint(tmp_path, audio={"n_ctx": 12}), ops)
    assert len(encode(model, noise(12 * 320))[0][0]) == 8
    with pytest.raises(MismatchError, match=r"13.*12") as caught:
        encode(model, noise(4100))
    assert "\n" not in str(caught.value)
