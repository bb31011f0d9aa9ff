"""The table of names: a bijection between upstream and ours, and complete."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qwenaudio_np.config import load_config
from qwenaudio_np.convert.names import QWEN, TABLE, WHISPER, encoder_tensors, from_upstream, to_upstream
from qwenaudio_np.names import expected_tensors
from tests.torch_fixtures import FOLDER

DIMS = {"n_mels": 5, "n_audio_ctx": 12, "n_audio_state": 8, "n_audio_head": 2, "n_audio_layer": 2}


@pytest.mark.parametrize("family", TABLE)
def test_both_ways_give_the_same_name(family: str, golden: Path) -> None:
    config = load_config(golden / "tiny" / "checkpoint")
    ours = list(expected_tensors(config))
    upstream = [to_upstream(family, name) for name in ours]
    known = [name for name in upstream if name is not None]
    assert len(set(known)) == len(known) > 0
    assert [from_upstream(family, name) for name in known] == [name for name, mapped in zip(ours, upstream, strict=True) if mapped]


def test_real_whisper_names_map_there_and_back() -> None:
    names = [name for name in json.loads((FOLDER / "whisper.json").read_text()) if name.startswith("encoder.")]
    ours = [from_upstream(WHISPER, name) for name in names]
    assert None not in ours and set(ours) == set(encoder_tensors(DIMS))
    assert [to_upstream(WHISPER, name or "") for name in ours] == names


def test_worked_examples() -> None:
    assert from_upstream(WHISPER, "encoder.blocks.31.attn.key.weight") == "transformer.audio.blocks.31.attn.key.weight"
    assert to_upstream(WHISPER, "transformer.audio.positional_embedding") == "encoder.positional_embedding"
    assert from_upstream(QWEN, "transformer.h.0.ln_1.weight") == "transformer.h.0.ln_1.weight"


@pytest.mark.parametrize("name", ["decoder.ln.weight", "encoder.proj.weight", "encoder.blocks.0.attn.key.bias", "encoder.x.weight"])
def test_what_has_no_place_here(name: str) -> None:
    assert from_upstream(WHISPER, name) is None


@pytest.mark.parametrize("name", ["proj.weight", "proj.bias", "audio_bos_eos_token.weight"])
def test_what_whisper_does_not_have(name: str) -> None:
    assert to_upstream(WHISPER, "transformer.audio." + name) is None


def test_encoder_shapes_are_those_of_the_package(golden: Path) -> None:
    """Two lists written independently: Whisper's sizes against the config's."""
    config = load_config(golden / "tiny" / "checkpoint")
    audio = config.audio
    assert audio is not None
    dims = {"n_mels": audio.n_mels, "n_audio_ctx": audio.n_ctx, "n_audio_state": audio.n_state, "n_audio_layer": audio.n_layer}
    whole = {name: shape for name, shape in expected_tensors(config).items() if name.startswith("transformer.audio.")}
    own = {name for name in whole if ".proj." in name or "bos_eos" in name}
    assert encoder_tensors(dims) == {name: shape for name, shape in whole.items() if name not in own}
