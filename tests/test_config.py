"""config.json and generation_config.json: what is read, and one clear line for everything that cannot be.

Nothing here allocates: a config is judged before any tensor is made, so sizes beyond all memory cost nothing.
"""

from __future__ import annotations

import time
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path
from typing import Any

import pytest

import qwenaudio_np
from qwenaudio_np.config import GenerationConfig, parse_config
from qwenaudio_np.errors import FormatError, MismatchError, QwenAudioError, UnsupportedError
from tests.make_checkpoint import AUDIO, TEXT, make_checkpoint

FIELDS: dict[str, Any] = {**TEXT, "audio": {**AUDIO, "output_dim": 24}}
ABSENT = object()
HUGE = 10**400  # JSON can write it, a float cannot hold it


def named(value: object) -> str:
    """A test's id that does not fill the screen."""
    return "10^400" if value == HUGE else repr(value)


def changed(name: str, value: Any) -> dict[str, Any]:
    """A good config with one field replaced, or taken out; `audio.x` is a field of the audio section."""
    fields = {**FIELDS, "audio": dict(FIELDS["audio"])}
    section, _, field = name.rpartition(".")
    place = fields[section] if section else fields
    place[field] = value
    if value is ABSENT:
        del place[field]
    return fields


def refused(fields: dict[str, Any], error: type[QwenAudioError], *words: str, generation: dict[str, Any] | None = None) -> str:
    """The message: one line that holds all of `words`."""
    with pytest.raises(error) as caught:
        parse_config(fields, generation, where="config.json")
    message = str(caught.value)
    assert "\n" not in message and message.isascii()
    assert not [word for word in words if word not in message], message
    return message


# ---- what is read


def test_every_field_is_read() -> None:
    config = parse_config({**FIELDS, "layer_norm_epsilon": 3e-6, "rotary_emb_base": 5000, "rotary_pct": 0.5, "use_logn_attn": False})
    assert asdict(config.text) == {
        "vocab_size": 3784, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "ff_size": 26, "layer_norm_epsilon": 3e-6,
        "max_position_embeddings": 600, "seq_length": 16, "rotary_emb_base": 5000.0, "rotary_pct": 0.5, "use_dynamic_ntk": True,
        "use_logn_attn": False, "tie_word_embeddings": False,
    }  # fmt: skip
    assert config.audio is not None
    assert asdict(config.audio) == {**AUDIO, "output_dim": 24}
    assert (config.text.head_dim, config.text.rotary_dim, config.audio.head_dim) == (12, 6, 8)
    assert type(config.text.rotary_emb_base) is float


def test_fields_that_may_be_absent() -> None:
    """The values of the original's QWenConfig."""
    needed = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    text = parse_config({name: TEXT[name] for name in needed}).text
    assert (text.layer_norm_epsilon, text.max_position_embeddings, text.seq_length) == (1e-6, 8192, 2048)
    assert (text.rotary_emb_base, text.rotary_pct) == (10000.0, 1.0)
    assert (text.use_dynamic_ntk, text.use_logn_attn, text.tie_word_embeddings) == (True, True, False)


def test_published_sizes() -> None:
    published = {**TEXT, "vocab_size": 155947, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
                 "intermediate_size": 22016, "kv_channels": 128, "seq_length": 2048, "max_position_embeddings": 8192}  # fmt: skip
    audio = {"n_mels": 80, "n_ctx": 1500, "n_state": 1280, "n_head": 20, "n_layer": 32, "output_dim": 4096, "audio_start_id": 155163}
    config = parse_config({**published, "audio": audio})
    assert (config.text.ff_size, config.text.head_dim, config.text.rotary_dim) == (11008, 128, 128)
    assert config.audio is not None and config.audio.head_dim == 64
    assert config.audio.avg_pool and config.audio.add_audio_bos_eos_token


def test_without_audio_section() -> None:
    assert parse_config(dict(TEXT)).audio is None
    assert parse_config({**TEXT, "audio": None}).audio is None


def test_unknown_fields_are_ignored() -> None:
    assert parse_config({**FIELDS, "torch_dtype": "bfloat16", "auto_map": {}, "fp16": True}) == parse_config(FIELDS)


def test_records_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        parse_config(FIELDS).text.seq_length = 1  # type: ignore[misc]


def test_generation_config() -> None:
    assert parse_config(FIELDS).generation == GenerationConfig("raw", 512, 6144)
    given = {"chat_format": "chatml", "max_new_tokens": 7, "max_window_size": 100, "top_p": 0.5}
    assert parse_config(FIELDS, given).generation == GenerationConfig("chatml", 7, 100)


@pytest.mark.parametrize(
    ("name", "value"), [("max_new_tokens", 0), ("max_window_size", -1), ("max_new_tokens", True), ("max_new_tokens", "9")]
)
def test_sizes_of_generation(name: str, value: Any) -> None:
    refused(FIELDS, FormatError, "generation_config.json", name, str(value), generation={name: value})


def test_null_is_as_if_left_out() -> None:
    parsed = parse_config({**FIELDS, "model_type": None}, {"chat_format": None, "max_window_size": None})
    assert parsed.generation == GenerationConfig()


@pytest.mark.parametrize("value", ["ChatML", "", 3, ["raw"]])
def test_other_chat_formats(value: Any) -> None:
    refused(FIELDS, UnsupportedError, "generation_config.json", "chat_format", "'raw' or 'chatml'", generation={"chat_format": value})


# ---- sizes and numbers that cannot be

SIZES = [
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings", "seq_length",
    "kv_channels", "audio.n_mels", "audio.n_ctx", "audio.n_state", "audio.n_head", "audio.n_layer", "audio.output_dim",
    "audio.audio_start_id",
]  # fmt: skip


@pytest.mark.parametrize("value", [0, -1, "24", 24.0, True, [24], {}, 10**18, HUGE, float("nan"), float("inf")], ids=named)
@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_is_none(name: str, value: Any) -> None:
    refused(changed(name, value), FormatError, name.rpartition(".")[2], "expected a whole number from 1 to")


@pytest.mark.parametrize("name", ["num_hidden_layers", "audio.n_layer"])
def test_a_billion_layers(name: str) -> None:
    begin = time.process_time()
    refused(changed(name, 10**9), FormatError, "1000000000", "from 1 to 1024")
    assert time.process_time() - begin < 1.0


@pytest.mark.parametrize("value", [0, -1e-6, "1e-6", True, [], float("nan"), float("inf"), float("-inf"), HUGE], ids=named)
@pytest.mark.parametrize("name", ["layer_norm_epsilon", "rotary_emb_base", "rotary_pct"])
def test_a_number_that_cannot_be(name: str, value: Any) -> None:
    refused(changed(name, value), FormatError, name, "expected a number above")


@pytest.mark.parametrize(
    ("name", "value"), [("layer_norm_epsilon", 1.5), ("rotary_emb_base", 1), ("rotary_emb_base", 1e13), ("rotary_pct", 1.01)]
)
def test_a_number_out_of_range(name: str, value: float) -> None:
    refused(changed(name, value), FormatError, name, repr(value), "expected a number above")


FLAGS = ["use_dynamic_ntk", "use_logn_attn", "tie_word_embeddings", "no_bias", "use_cache_quantization",
         "audio.avg_pool", "audio.add_audio_bos_eos_token"]  # fmt: skip


@pytest.mark.parametrize("value", [0, 1, "true", "", [], 1.0], ids=repr)
@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_that_is_none(name: str, value: Any) -> None:
    refused(changed(name, value), FormatError, name.rpartition(".")[2], "expected true or false")


@pytest.mark.parametrize("name", ["hidden_size", "vocab_size", "intermediate_size", "audio.n_state", "audio.audio_start_id"])
@pytest.mark.parametrize("value", [ABSENT, None], ids=["absent", "null"])
def test_a_size_that_is_missing(name: str, value: Any) -> None:
    refused(changed(name, value), FormatError, name.rpartition(".")[2], "is missing")


@pytest.mark.parametrize("value", [["n_mels"], "audio", 5, True])
def test_an_audio_section_that_is_no_object(value: Any) -> None:
    refused({**FIELDS, "audio": value}, FormatError, "audio", "expected an object")


@pytest.mark.parametrize("value", [{}, [], "", 0, False], ids=repr)
def test_an_empty_audio_section_is_not_taken_for_none(value: Any) -> None:
    """Otherwise a damaged config would quietly become a text-only model's."""
    refused({**FIELDS, "audio": value}, FormatError, "audio")


# ---- values that do not go together


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("hidden_size", 25, ("25", "num_attention_heads 2")),
        ("num_attention_heads", 5, ("24", "5")),
        ("kv_channels", 11, ("kv_channels 11", "24")),
        ("intermediate_size", 51, ("51", "even")),
        ("audio.n_head", 3, ("n_state 16", "n_head 3")),
        ("audio.output_dim", 32, ("output_dim is 32", "hidden_size is 24")),
        ("audio.audio_start_id", 3783, ("3783", "vocab_size")),
        ("vocab_size", 3777, ("3776", "vocab_size")),
    ],
)
def test_values_that_disagree(name: str, value: int, words: tuple[str, ...]) -> None:
    refused(changed(name, value), MismatchError, *words)


def test_an_odd_encoder_width() -> None:
    fields = {**FIELDS, "audio": {**FIELDS["audio"], "n_state": 15, "n_head": 3}}
    refused(fields, MismatchError, "n_state 15", "even")


@pytest.mark.parametrize(("share", "rotated"), [(0.1, 1), (0.25, 3), (0.2, 2)])
def test_a_share_that_cannot_be_rotated(share: float, rotated: int) -> None:
    """Of head width 12: 1 and 3 values cannot be paired; with 2, NTK's exponent d / (d - 2) divides by zero."""
    refused(changed("rotary_pct", share), UnsupportedError, f"rotates {rotated} values", "at least 4")


def test_logn_needs_a_logarithm_that_is_not_zero() -> None:
    refused(changed("seq_length", 1), UnsupportedError, "seq_length is 1")
    assert parse_config({**FIELDS, "seq_length": 1, "use_logn_attn": False}).text.seq_length == 1


@pytest.mark.parametrize("value", ["qwen2", "llama", "", 7, ["qwen"]])
def test_other_model_types(value: Any) -> None:
    refused(changed("model_type", value), UnsupportedError, "model_type", "expected 'qwen'")


@pytest.mark.parametrize(("name", "value"), [("no_bias", False), ("use_cache_quantization", True)])
def test_settings_that_would_change_the_arithmetic(name: str, value: bool) -> None:
    refused(changed(name, value), UnsupportedError, name)


def test_a_vocabulary_too_small_for_the_special_ids(tmp_path: Path) -> None:
    """256 ranks and 208 special tokens need 464 rows."""
    folder = make_checkpoint(tmp_path, audio={"none": True}, vocab_size=463)
    with pytest.raises(MismatchError, match=r"464.*463"):
        qwenaudio_np.load(folder, backend="reference")


def test_messages_escape_what_the_file_says() -> None:
    message = refused(changed("model_type", "x\n\x1b[31m\u202e"), UnsupportedError)
    assert r"x\n\x1b[31m\u202e" in message
