"""The decoder: the tables of angles and stretches by hand, then whole passes against the twin."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwenaudio_np.cache import KVCache
from qwenaudio_np.config import TextConfig, parse_config
from qwenaudio_np.decoder import decode, logn_factors, ntk_alpha, rotary_tables
from qwenaudio_np.model import QwenAudio
from tests.make_checkpoint import TEXT, distance, make_checkpoint, open_model
from tests.naive_network import NaiveNetwork

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


def text(**fields: Any) -> TextConfig:
    return parse_config({**TEXT, "seq_length": 2048, **fields}).text


# ---- NTK


@pytest.mark.parametrize(
    ("length", "alpha"),
    [(1, 1), (1024, 1), (2047, 1), (2048, 1), (2049, 3), (3000, 3), (4096, 3), (4097, 7), (6144, 7), (8192, 7), (8193, 15), (16384, 15)],
)
def test_alpha_of_a_prefill(length: int, alpha: int) -> None:
    assert ntk_alpha(length, text()) == alpha


@pytest.mark.parametrize("seq_length", [3, 16, 64, 1000, 2048])
def test_alpha_changes_exactly_after_each_doubling(seq_length: int) -> None:
    for doublings in range(1, 6):
        edge = seq_length * 2**doublings
        assert ntk_alpha(edge, text(seq_length=seq_length)) == 2 ** (doublings + 1) - 1
        assert ntk_alpha(edge + 1, text(seq_length=seq_length)) == 2 ** (doublings + 2) - 1


def test_alpha_is_one_without_ntk() -> None:
    assert ntk_alpha(8192, text(use_dynamic_ntk=False)) == 1.0


# ---- rotary


def test_angles_worked_by_hand() -> None:
    """Head width 4, base 100: frequencies 1 and 100^(-1/2) = 0.1, the angles of position 3 are 3 and 0.3, each standing twice."""
    config = text(hidden_size=8, num_attention_heads=2, rotary_emb_base=100)
    cos, sin = rotary_tables(np.array([0, 3]), 1.0, config, F64)
    assert np.allclose(cos, [[1.0] * 4, [math.cos(3), math.cos(0.3)] * 2], rtol=0, atol=1e-15)
    assert np.allclose(sin, [[0.0] * 4, [math.sin(3), math.sin(0.3)] * 2], rtol=0, atol=1e-15)


def test_alpha_stretches_the_base() -> None:
    """d = 4: base' = 100 * 3^(4/2) = 900, second frequency 1/30; the first is 1 whatever the base."""
    config = text(hidden_size=8, num_attention_heads=2, rotary_emb_base=100)
    cos, _ = rotary_tables(np.array([6]), 3.0, config, F64)
    assert np.allclose(cos, [[math.cos(6), math.cos(0.2)] * 2], rtol=0, atol=1e-15)


def test_only_a_part_of_the_head_has_angles() -> None:
    config = text(hidden_size=32, num_attention_heads=2, rotary_pct=0.5)
    assert rotary_tables(np.arange(5), 1.0, config, F64)[0].shape == (5, 8)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_tables_keep_the_type(dtype: np.dtype) -> None:
    assert {table.dtype for table in rotary_tables(np.arange(5), 3.0, text(), dtype)} == {dtype}
    assert logn_factors(np.arange(5), text(), dtype).dtype == dtype


def test_float32_angles_are_rounded_before_the_cosine() -> None:
    """As in the original: position times frequency, each float32, the product rounded. At position 8000 that is far from exact."""
    config = text(hidden_size=256)
    cos, _ = rotary_tables(np.array([8000]), 1.0, config, F32)
    frequency = np.float32(1.0) / np.power(np.float32(10000.0), np.float32(2.0) / np.float32(128.0))
    angle = np.float32(8000.0) * frequency
    assert angle.dtype == F32
    assert abs(float(cos[0, 1]) - math.cos(float(angle))) < 2e-7
    exact, _ = rotary_tables(np.array([8000]), 1.0, config, F64)
    assert 1e-5 < np.abs(cos - exact).max() < 1e-3


# ---- logn


def test_stretches_worked_by_hand() -> None:
    """Positions count from 1 and the stretch begins behind seq_length: positions 64, 65 and 4096 for seq_length 64."""
    found = logn_factors(np.array([0, 63, 64, 4095]), text(seq_length=64), F64)
    assert np.allclose(found, [1.0, 1.0, math.log(65) / math.log(64), 2.0], rtol=0, atol=1e-15)
    assert found[1] == 1.0 < found[2]


def test_no_stretch_without_logn() -> None:
    assert np.array_equal(logn_factors(np.arange(100), text(seq_length=16, use_logn_attn=False), F64), np.ones(100))


# ---- whole passes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("decoder"), audio={"none": True}, vocab_size=464)


@pytest.fixture
def model(folder: Path, ops: Any) -> QwenAudio:
    return open_model(folder, ops)


@pytest.mark.parametrize("length", [1, 2, 16, 17, 32, 33, 64, 65])
def test_every_block_equals_the_twin(model: QwenAudio, folder: Path, length: int) -> None:
    """Lengths on both sides of seq_length 16 and of its doublings."""
    ids = [(7 * i + 3) % 256 for i in range(length)]
    taps: dict[str, np.ndarray] = {}
    model.prefill(model.embed(ids), lambda name, x: taps.update({name: x.copy()}))
    twin = NaiveNetwork(folder)
    twin.logits(ids)
    assert list(taps) == ["decoder.h.0", "decoder.h.1", "decoder.ln_f"]
    for name, values in taps.items():
        assert distance(values, twin.taps[name]) < 1e-10, name


def test_nothing_looks_ahead(model: QwenAudio) -> None:
    ids = [(7 * i + 3) % 256 for i in range(24)]
    one, _ = model.prefill(model.embed(ids))
    other, _ = model.prefill(model.embed([*ids[:20], 1, 2, 3, 4]))
    assert distance(other[:20], one[:20]) < 1e-14
    assert min(distance(other[p], one[p]) for p in range(20, 24)) > 0.01


def test_everything_behind_is_seen(model: QwenAudio) -> None:
    ids = [(7 * i + 3) % 256 for i in range(24)]
    one, _ = model.prefill(model.embed(ids))
    other, _ = model.prefill(model.embed([ids[0] + 1, *ids[1:]]))
    assert min(distance(other[p], one[p]) for p in range(24)) > 1e-4


def test_scores_depend_on_distance_alone(tmp_path: Path, ops: Any) -> None:
    """Rotary angles are absolute, attention's result is relative: moved to later positions, up to seq_length, nothing changes."""
    model = open_model(make_checkpoint(tmp_path, audio={"none": True}, vocab_size=464, seq_length=512), ops)
    x = model.embed([5, 9, 200, 17, 80])
    one, _ = model.prefill(x)
    moved = _Later(model.config.text, 300)
    assert distance(decode(x, moved, model.weights, model.config.text, ops), one) < 1e-12


class _Later(KVCache):
    """A cache that calls its first position 300, and holds nothing before it."""

    def __init__(self, config: TextConfig, start: int) -> None:
        super().__init__(config, np.float64)
        self.length = start

    def append(self, layer: int, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return k, v


def test_rows_of_c_attn_are_all_queries_then_keys_then_values(tmp_path: Path, ops: Any) -> None:
    """One layer, weights so plain that the result is known: queries and keys are zero, so every position averages what it sees;
    the values are ten times the normed input; c_proj is the identity; the feed-forward part is off."""
    hidden = 8
    c_attn = np.concatenate([np.zeros((2 * hidden, hidden)), 10 * np.eye(hidden)])
    block = {"attn.c_attn.weight": c_attn, "attn.c_attn.bias": np.zeros(3 * hidden), "attn.c_proj.weight": np.eye(hidden),
             "ln_1.weight": np.ones(hidden), "mlp.c_proj.weight": np.zeros((hidden, 26))}  # fmt: skip
    extra = {f"transformer.h.0.{name}": values for name, values in block.items()} | {"transformer.ln_f.weight": np.ones(hidden)}
    folder = make_checkpoint(
        tmp_path, audio={"none": True}, extra=extra, vocab_size=464, hidden_size=hidden, num_attention_heads=2, num_hidden_layers=1
    )
    model = open_model(folder, ops)
    x = model.embed([1, 2, 3])
    taps: dict[str, np.ndarray] = {}
    model.prefill(x, lambda name, values: taps.update({name: values}))
    normed = np.array([row / math.sqrt(np.mean(row**2) + 1e-5) for row in x])
    expected = np.array([x[p] + 10 * normed[: p + 1].mean(axis=0) for p in range(3)])
    assert distance(taps["decoder.h.0"], expected) < 1e-12
