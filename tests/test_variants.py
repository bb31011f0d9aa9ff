"""Every setting of the config that changes the arithmetic: package against twin, both backends, float64 and float32."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwenaudio_np.config import load_config
from qwenaudio_np.errors import MismatchError
from tests.make_checkpoint import END, PLACEHOLDER, START, all_logits, as_it_is, distance, make_checkpoint, open_model
from tests.naive_network import NaiveNetwork

NO_AUDIO = {"none": True}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no_pooling": {"audio": {"avg_pool": False}},
    "no_learned_end_rows": {"audio": {"add_audio_bos_eos_token": False}},
    "neither": {"audio": {"avg_pool": False, "add_audio_bos_eos_token": False}},
    "no_ntk": {"use_dynamic_ntk": False},
    "no_logn": {"use_logn_attn": False},
    "neither_ntk_nor_logn": {"use_dynamic_ntk": False, "use_logn_attn": False},
    "half_rotary": {"rotary_pct": 0.5, "hidden_size": 32},
    "other_rotary_base": {"rotary_emb_base": 500.5},
    "large_eps": {"layer_norm_epsilon": 0.1},
    "tied": {"tie_word_embeddings": True},
    "text_only": {"audio": NO_AUDIO},
    "text_only_tied": {"audio": NO_AUDIO, "tie_word_embeddings": True, "vocab_size": 464},
    "float16": {"dtype": "float16"},
    "bfloat16": {"dtype": "bfloat16"},
    "float64": {"dtype": "float64"},
    "short_encoder": {"audio": {"n_ctx": 20}},
    "long_context": {"seq_length": 2048},
    "one_head_one_layer": {"num_attention_heads": 1, "num_hidden_layers": 1, "audio": {"n_head": 1, "n_layer": 1}},
    "many_heads": {"num_attention_heads": 6, "audio": {"n_head": 8}},
    "odd_encoder": {"audio": {"n_state": 14, "n_head": 7, "n_mels": 40}},
    "odd_decoder": {"hidden_size": 30, "num_attention_heads": 5, "intermediate_size": 14},
    "wider_encoder": {"hidden_size": 8, "vocab_size": 4001, "audio": {"n_state": 40, "n_head": 4, "n_layer": 3, "n_mels": 128}},
}


@functools.cache
def _waveforms() -> tuple[np.ndarray, ...]:
    """Two clips of different lengths, 20 and 13 positions (both pooled with a remainder or not), in int16 steps."""
    rng = np.random.default_rng(5)
    return tuple(np.rint(3000 * rng.standard_normal(samples)) / 32768 for samples in (6500, 4100))


def _request(config: dict[str, Any]) -> tuple[list[int], tuple[np.ndarray, ...]]:
    words = [17 * i % 256 for i in range(24)]
    if config.get("audio") == NO_AUDIO:
        return words * 2, ()
    return [START, *[PLACEHOLDER] * 10, END, *words[:12], START, *[PLACEHOLDER] * 6, END, *words[12:]], _waveforms()


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """name -> (folder, the twin's logits), each made once."""

    @functools.cache
    def make(name: str) -> tuple[Path, np.ndarray]:
        folder = make_checkpoint(tmp_path_factory.mktemp(name), **VARIANTS[name])
        return folder, NaiveNetwork(folder).logits(*_request(VARIANTS[name]))

    return make


@pytest.mark.parametrize("name", VARIANTS)
def test_float64_equals_the_twin(name: str, cases: Any, ops: Any) -> None:
    folder, expected = cases(name)
    found = all_logits(open_model(folder, ops, np.float64), *_request(VARIANTS[name]))
    assert found.dtype == np.float64
    assert distance(found, expected) < 1e-10


@pytest.mark.parametrize("name", VARIANTS)
def test_float32_is_close(name: str, cases: Any, ops: Any) -> None:
    folder, expected = cases(name)
    found = all_logits(open_model(folder, ops, np.float32), *_request(VARIANTS[name]))
    assert found.dtype == np.float32
    assert distance(found, expected) < 1e-4


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in ("plain", "text_only", "text_only_tied", "short_encoder")])
def test_the_setting_matters(name: str, cases: Any) -> None:
    """Otherwise the tests above could not notice that it is ignored. (A text-only checkpoint has another request, and a
    shorter encoder the same arithmetic as long as the clip fits.)"""
    plain, other = cases("plain")[1], cases(name)[1]
    assert plain.shape != other.shape or distance(other, plain) > (1e-4 if name == "float16" else 1e-9 if name == "float64" else 1e-3)


def test_without_pooling_the_first_rows_are_taken(tmp_path: Path, ops: Any) -> None:
    """The original counts N vectors whether it pools or not, so without pooling it keeps rows 0 .. N-1 of T and drops the others."""
    folder = make_checkpoint(tmp_path, audio={"avg_pool": False, "add_audio_bos_eos_token": False})
    taps: dict[str, np.ndarray] = {}
    sounds = open_model(folder, ops).encode_audio([as_it_is(waveform) for waveform in _waveforms()], lambda name, x: taps.update({name: x}))
    assert [taps[f"audio.{k}.blocks.1"].shape for k in range(2)] == [(20, 16), (13, 16)]
    assert [len(sound) for sound in sounds] == [10, 6]


def test_without_learned_rows_the_tags_keep_their_word_embeddings(tmp_path: Path, ops: Any) -> None:
    folder = make_checkpoint(tmp_path, audio={"add_audio_bos_eos_token": False})
    model = open_model(folder, ops)
    assert "transformer.audio.audio_bos_eos_token.weight" not in model.weights
    sounds = model.encode_audio([as_it_is(_waveforms()[1])])
    x = model.embed([START, *[PLACEHOLDER] * 6, END], sounds)
    table = model.weights["transformer.wte.weight"].astype(np.float64)
    assert np.array_equal(x[0], table[START]) and np.array_equal(x[7], table[END])
    assert np.array_equal(x[1:7], sounds[0])


def test_tied_embeddings_need_no_head_in_the_file(tmp_path: Path, ops: Any) -> None:
    model = open_model(make_checkpoint(tmp_path, tie_word_embeddings=True), ops)
    assert model.weights["lm_head.weight"] is model.weights["transformer.wte.weight"]


def test_part_of_a_head_is_rotated(tmp_path: Path) -> None:
    """rotary_pct 0.5 of head width 16: the first 8 values; 0.25 of 12 would be 3, an odd number, which cannot be paired."""
    assert load_config(make_checkpoint(tmp_path, hidden_size=32, rotary_pct=0.5)).text.rotary_dim == 8


def test_a_clip_that_the_encoder_has_no_positions_for(tmp_path: Path, ops: Any) -> None:
    model = open_model(make_checkpoint(tmp_path, audio={"n_ctx": 19}), ops)
    with pytest.raises(MismatchError, match=r"20.*19"):
        model.encode_audio([as_it_is(_waveforms()[0])])
