"""The mistakes that ports of this model make with words, one test each: the decoder, and ids. mistake_tools.py says how they show."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwenaudio_np
from qwenaudio_np import ops as reference
from qwenaudio_np.config import load_config
from qwenaudio_np.decoder import decode, logn_factors, ntk_alpha
from qwenaudio_np.errors import MismatchError
from qwenaudio_np.prompt import PromptWarning, base_prompt
from tests.make_checkpoint import START, distance, make_checkpoint, open_model
from tests.mistake_tools import FOLDER, SAME, check, the_request, twin_of
from tests.naive_network import NaiveNetwork

pytestmark = pytest.mark.usefixtures("golden")

# ---- words


def test_rotary_pairs_halves_not_neighbours(ops: Any) -> None:
    check(ops, "interleaved_rotary")


def test_silu_is_on_w2_not_w1(ops: Any) -> None:
    check(ops, "silu_on_w1")


def test_intermediate_size_is_the_sum_of_two_halves(tmp_path: Path) -> None:
    """intermediate_size 52 means w1 and w2 of 26 rows each; a checkpoint with 52 each is refused."""
    folder = make_checkpoint(tmp_path / "halved")
    assert load_config(folder).text.ff_size == 26
    assert open_model(folder, reference).weights["transformer.h.0.mlp.w1.weight"].shape == (26, 24)
    wide = {f"transformer.h.{i}.mlp.{name}.weight": np.ones((52, 24)) for i in range(2) for name in ("w1", "w2")}
    folder = make_checkpoint(tmp_path / "whole", extra=wide)
    with pytest.raises(MismatchError, match=r"\[52, 24\].*\[26, 24\]"):
        qwenaudio_np.load(folder, backend="reference")


def test_ntk_alpha_of_the_prefill_is_kept_while_decoding(ops: Any) -> None:
    """60 positions of prompt, then 10 one by one, across seq_length 64: alpha stays 1, where the length so far would give 3."""
    ids = the_request()[0][-70:]
    assert START not in ids
    ids = [id_ if id_ < 600 else 7 for id_ in ids]  # plain words: no audio
    model = open_model(FOLDER, ops)
    _, cache = model.prefill(model.embed(ids[:60]))
    found = np.array([model.step(token, cache) for token in ids[60:]])
    assert (ntk_alpha(60, model.config.text), ntk_alpha(70, model.config.text)) == (1.0, 3.0)
    right = NaiveNetwork(FOLDER).logits(ids, prefill=60)[60:]
    wrong = NaiveNetwork(FOLDER, "ntk_alpha_recomputed").logits(ids, prefill=60)[60:]
    assert distance(found, right) < SAME
    assert distance(wrong[:4], right[:4]) < SAME, "up to seq_length there is nothing to tell apart"
    assert min(distance(wrong[k], right[k]) for k in range(4, 10)) > 0.1


def test_logn_stretches_queries_not_keys(ops: Any) -> None:
    check(ops, "logn_on_keys")


def test_logn_counts_positions_from_one(ops: Any) -> None:
    check(ops, "logn_zero_based")


def test_logn_base_is_seq_length(ops: Any) -> None:
    check(ops, "logn_base")


def test_logn_comes_after_rotary(ops: Any) -> None:
    """A rotation is linear, so the order moves only the last bit: the twin shows that no tolerance can tell. What can be told
    is the bits: in float32 the queries that reach attention are exactly the rotated ones times the factor."""
    assert distance(twin_of("logn_before_rotary").taps["logits"], twin_of().taps["logits"]) < SAME
    spy = _Spy(ops)
    model = open_model(FOLDER, spy, np.float32)
    model.prefill(model.embed([5 * i % 600 for i in range(90)]))
    factors = logn_factors(np.arange(90), model.config.text, np.dtype(np.float32))[:, None]
    assert factors[63] == 1.0 < factors[64]
    for layer in range(2):
        queries_in, queries_out = spy.rotated[2 * layer]  # queries first, then keys
        assert np.array_equal(spy.attended[layer][0], queries_out * factors)
        assert np.array_equal(spy.attended[layer][1], spy.rotated[2 * layer + 1][1]), "keys are not stretched"
        assert not np.array_equal(queries_in[:, 64:] * factors[64:], queries_in[:, 64:])


class _Spy:
    """A backend that remembers what went through `rotary` and `attention`."""

    def __init__(self, ops: Any) -> None:
        self.ops = ops
        self.rotated: list[tuple[np.ndarray, np.ndarray]] = []
        self.attended: list[tuple[np.ndarray, np.ndarray]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ops, name)

    def rotary(self, x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
        out = self.ops.rotary(x, cos, sin)
        self.rotated.append((x.copy(), out.copy()))
        return out

    def attention(self, q: np.ndarray, k: np.ndarray, v: np.ndarray, causal: bool) -> np.ndarray:
        self.attended.append((q.copy(), k.copy()))
        return self.ops.attention(q, k, v, causal)


def test_rms_norm_multiplies_by_the_weight_last(ops: Any) -> None:
    """The original normalises in float32, casts back, then multiplies by the weight. In float32 only the order of the products
    is left of that: (x * r) * w, not (x * w) * r. Squares of these small integers and their mean are exact, so the bits are known."""
    x = np.array([[3.0, -5.0, 7.0, 11.0, -13.0, 17.0, 19.0, -23.0]], np.float32)
    weight = np.array([1.1, 0.3, -0.7, 1.3, 0.9, 1.7, -2.3, 0.1], np.float32)
    eps = 0.5
    mean = (9 + 25 + 49 + 121 + 169 + 289 + 361 + 529) / 8
    r = np.float32(1.0) / np.sqrt(np.float32(mean + eps))
    right, wrong = (x * r) * weight, (x * weight) * r
    assert np.float32(mean + eps) == mean + eps and not np.array_equal(right, wrong)
    assert np.array_equal(ops.rms_norm(x, weight, eps), right)


def test_decoding_in_pieces_keeps_logn_and_rotary_absolute(ops: Any) -> None:
    """A decoded token takes its absolute position, not its place in the piece at hand."""
    model = open_model(FOLDER, ops)
    x = model.embed([3 * i % 600 for i in range(80)])
    whole, cache = model.prefill(x)
    cache.truncate(70)
    last = decode(x[70:], cache, model.weights, model.config.text, ops)
    assert distance(last, whole[70:]) < SAME


# ---- ids


def test_special_ids_follow_the_ranks_of_the_file(tmp_path: Path) -> None:
    """600 ranks: `<|endoftext|>` is 600, the first id after them, and `<audio>` 3520 places on; a config one off is refused."""
    ids = open_model(FOLDER, reference).tokenizer.special_ids
    published = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "[[[AUDIO:modality]]]": 151851, "<|startoftranscript|>": 151852,
                 "<|en|>": 151859, "<|30.00|>": 154871, "<|wo_itn|>": 154877, "<audio>": 155163, "</audio>": 155164}  # fmt: skip
    assert {name: ids[name] for name in published} == {name: id_ - 151643 + 600 for name, id_ in published.items()}
    for path in FOLDER.iterdir():
        shutil.copy(path, tmp_path)
    config = json.loads((FOLDER / "config.json").read_text())
    for wrong in (4119, 4121):
        config["audio"]["audio_start_id"] = wrong
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(MismatchError, match=f"{wrong}.*4120"):
            qwenaudio_np.load(tmp_path, backend="reference")


def test_startoftranscription_is_not_a_token() -> None:
    """The README of Qwen-Audio writes `<|startoftranscription|>`; the token is `<|startoftranscript|>`."""
    tokenizer = open_model(FOLDER, reference).tokenizer
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert base_prompt(tokenizer, "<|startoftranscript|>").ids == (809,)
    with pytest.warns(PromptWarning, match="startoftranscription"):
        ids = base_prompt(tokenizer, "<|startoftranscription|>").ids
    assert len(ids) > 5 and max(ids) < 600, "read as plain text"
    assert "<|startoftranscription|>" not in tokenizer.special_ids
