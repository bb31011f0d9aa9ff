"""The list of tensors, against checkpoints that the original wrote and against the published size."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from qwenaudio_np.config import ModelConfig, load_config, parse_config
from qwenaudio_np.names import expected_tensors, is_ignored, optional_tensors

GOLDEN = Path(__file__).parent / "golden"

PUBLISHED: dict[str, Any] = {
    "vocab_size": 155_947,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_size": 22_016,
    "audio": {
        **{"n_mels": 80, "n_ctx": 1500, "n_state": 1280, "n_head": 20, "n_layer": 32},
        **{"output_dim": 4096, "audio_start_id": 155_163},
    },
}


def with_text(config: ModelConfig, **changes: Any) -> ModelConfig:
    return dataclasses.replace(config, text=dataclasses.replace(config.text, **changes))


@pytest.mark.parametrize("name", ["tiny", "short_context_bf16"])
def test_names_and_shapes_of_the_originals_checkpoints(name: str) -> None:
    folder = GOLDEN / name / "checkpoint"
    stored = {}
    for path in folder.glob("*.safetensors"):  # read without the code under test
        data = path.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        stored |= {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    assert expected_tensors(load_config(folder)) == stored


def test_published_size() -> None:
    """0.64 billion weights in the encoder and 7.75 in the decoder, worked out by hand from the published widths."""
    shapes = expected_tensors(parse_config(PUBLISHED))
    encoder = sum(math.prod(shape) for name, shape in shapes.items() if name.startswith("transformer.audio."))
    decoder = sum(math.prod(shape) for shape in shapes.values()) - encoder
    block = 4 * 1280**2 + 3 * 1280 + 2 * 4 * 1280**2 + 5 * 1280 + 4 * 1280  # attention, its biases, mlp, its biases, two norms
    around = (80 * 3 + 1) * 1280 + (3 * 1280 + 1) * 1280 + 1500 * 1280 + 2 * 1280 + 1281 * 4096 + 2 * 4096
    assert encoder == 32 * block + around == 642_039_808
    layer = 3 * 4096**2 + 3 * 4096 + 4096**2 + 3 * 4096 * 11_008 + 2 * 4096
    assert decoder == 32 * layer + 2 * 155_947 * 4096 + 4096 == 7_754_182_656
    assert len(shapes) == 5 + 32 * 15 + 5 + 1 + 32 * 8 + 1 + 1


def test_key_has_no_bias_and_the_decoder_one_bias_a_block() -> None:
    names = list(expected_tensors(parse_config(PUBLISHED)))
    assert not [name for name in names if name.endswith("key.bias")]
    decoder = [name for name in names if not name.startswith("transformer.audio.")]
    assert [name for name in decoder if name.endswith("bias")] == [f"transformer.h.{i}.attn.c_attn.bias" for i in range(32)]


def test_order_is_that_of_the_data() -> None:
    names = list(expected_tensors(parse_config(PUBLISHED)))
    path = ["audio.conv1.weight", "audio.conv2.weight", "audio.positional_embedding", "audio.blocks.0.attn_ln.weight"]
    path += ["audio.blocks.31.mlp.2.weight", "audio.ln_post.weight", "audio.proj.weight", "audio.audio_bos_eos_token.weight"]
    path += ["wte.weight", "h.0.ln_1.weight", "h.31.mlp.c_proj.weight", "ln_f.weight"]
    places = [names.index("transformer." + name) for name in path] + [names.index("lm_head.weight")]
    assert places == sorted(places) and places[0] == 0 and places[-1] == len(names) - 1


def test_without_audio_section() -> None:
    full, text = parse_config(PUBLISHED), parse_config({**PUBLISHED, "audio": None})
    left_out = expected_tensors(full).keys() - expected_tensors(text).keys()
    assert left_out == {name for name in expected_tensors(full) if ".audio." in name}


def test_without_bos_and_eos_rows() -> None:
    config = parse_config({**PUBLISHED, "audio": {**PUBLISHED["audio"], "add_audio_bos_eos_token": False}})
    left_out = expected_tensors(parse_config(PUBLISHED)).keys() - expected_tensors(config).keys()
    assert left_out == {"transformer.audio.audio_bos_eos_token.weight"}


def test_tied_embeddings_make_the_output_head_optional() -> None:
    config = parse_config(PUBLISHED)
    tied = with_text(config, tie_word_embeddings=True)
    assert "lm_head.weight" in expected_tensors(config) and not optional_tensors(config)
    assert "lm_head.weight" not in expected_tensors(tied)
    assert optional_tensors(tied) == {"lm_head.weight": (155_947, 4096)}


@pytest.mark.parametrize(
    "name",
    [
        *("transformer.rotary_emb.inv_freq", "transformer.h.0.attn.rotary_emb.inv_freq", "transformer.h.31.attn.masked_bias"),
        *("transformer.h.2.attn.bias", "transformer.h.2.attn.logn_tensor", "transformer.logn_tensor"),
    ],
)
def test_known_buffers_are_ignored(name: str) -> None:
    assert is_ignored(name)


@pytest.mark.parametrize(
    "name",
    [
        *("transformer.h.0.attn.c_attn.bias", "transformer.h.0.attn.c_proj.bias", "transformer.h.0.mlp.bias", "transformer.h.x.attn.bias"),
        *("transformer.h.0.attn.bias.more", "rotary_emb.inv_freq", "transformer.audio.blocks.0.attn.key.bias", "xtransformer.logn_tensor"),
    ],
)
def test_nothing_else_is_ignored(name: str) -> None:
    assert not is_ignored(name)


def test_no_expected_tensor_is_ignored() -> None:
    assert not [name for name in expected_tensors(parse_config(PUBLISHED)) if is_ignored(name)]
