"""A decoder block for one token in one piece: the bits of the operations one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest

import qwenaudio_np
from qwenaudio_np import backends
from qwenaudio_np.cache import KVCache
from qwenaudio_np.decoder import decode
from qwenaudio_np.errors import NumericsError
from tests.cli_tools import TINY
from tests.kernel_parts import compiled_only, part

STEPS = 4
kernels: Any = backends.get("numba")


class OneByOne:
    """The compiled operations, but no block in one piece."""

    def __getattr__(self, name: str) -> Any:
        if name == "decoder_blocks":
            raise AttributeError(name)
        return getattr(kernels, name)


def steps(model: qwenaudio_np.QwenAudio) -> tuple[bytes, KVCache]:
    """The logits of some tokens behind a prompt."""
    _, cache = model.prefill(model.embed(list(range(1, 30))))
    return np.concatenate([model.step(token, cache) for token in range(30, 30 + STEPS)]).tobytes(), cache


def everything(cache: KVCache) -> bytes:
    return b"".join(array.tobytes() for layer in range(len(cache._keys)) for array in cache.view(layer))


@pytest.mark.parametrize("kv", ["float32", "bfloat16"])
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8", "int4"])
def test_the_bits_of_the_operations_one_by_one(weights: str, kv: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = qwenaudio_np.load(TINY, weights=weights, kv=kv)
    called: list[int] = []
    blocks = kernels.decoder_blocks
    monkeypatch.setattr(kernels, "decoder_blocks", lambda *all_: called.append(len(all_[0])) or blocks(*all_))
    logits, cache = steps(model)
    assert called == STEPS * [1]
    model.ops = OneByOne()  # type: ignore[assignment]
    expected, other = steps(model)
    assert logits == expected and everything(cache) == everything(other)


def test_whoever_looks_sees_what_comes_out_of_every_block() -> None:
    model, seen = qwenaudio_np.load(TINY, weights="int8"), []
    for _ in range(2):
        _, cache = model.prefill(model.embed([1, 2, 3]))
        told: dict[str, np.ndarray] = {}
        decode(model.look_up([4]), cache, model.weights, model.config.text, model.ops, told.__setitem__)
        seen.append({name: array.tobytes() for name, array in told.items()})
        model.ops = OneByOne()  # type: ignore[assignment]
    assert seen[0] == seen[1] and len(set(seen[0].values())) == model.config.text.num_hidden_layers + 1


@compiled_only
@pytest.mark.parametrize("weights", ["bfloat16", "int4"])
def test_any_number_of_threads_gives_the_same_bits(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part("parallel"), "INLINE", 0)
    model, results = qwenaudio_np.load(TINY, weights=weights), set()
    for threads in (1, 2, 3):
        monkeypatch.setattr(part("parallel"), "_threads", threads)
        results |= {steps(model)[0] for _ in range(2)}
    assert len(results) == 1


def test_matrices_of_several_kinds() -> None:
    """Whatever each matrix is stored as."""
    model = qwenaudio_np.load(TINY, weights="int8")
    other = qwenaudio_np.load(TINY, weights="bfloat16")
    model.weights = {name: (other if "attn.c_proj" in name or "w2" in name else model).weights[name] for name in model.weights}
    logits, _ = steps(model)
    model.ops = OneByOne()  # type: ignore[assignment]
    assert logits == steps(model)[0]


def test_a_cache_that_is_used_with_other_weights() -> None:
    first, second = (qwenaudio_np.load(TINY, weights=weights) for weights in ("float32", "int8"))
    _, cache = first.prefill(first.embed([1, 2, 3]))
    first.step(4, cache)
    cache.truncate(3)
    got = second.step(4, cache)
    cache.truncate(3)
    second.ops = OneByOne()  # type: ignore[assignment]
    assert (got == second.step(4, cache)).all()


@pytest.mark.parametrize("name", ["ln_1.weight", "attn.c_attn.bias", "mlp.w1.weight"])
def test_a_weight_that_is_replaced_counts_from_then_on(name: str) -> None:
    model = qwenaudio_np.load(TINY, weights="float32")
    _, cache = model.prefill(model.embed([1, 2, 3]))
    before = model.step(4, cache)
    spoilt(model, f"transformer.h.1.{name}", lambda weight: 2 * weight + 1)
    cache.truncate(3)
    got = model.step(4, cache)
    cache.truncate(3)
    model.ops = OneByOne()  # type: ignore[assignment]
    assert (got == model.step(4, cache)).all() and (got != before).any()


def spoilt(model: qwenaudio_np.QwenAudio, name: str, spoil: Callable[[Any], Any]) -> qwenaudio_np.QwenAudio:
    model.weights = {**model.weights, name: spoil(model.weights[name])}
    return model


def test_numbers_that_are_none_are_said_with_their_block() -> None:
    model = qwenaudio_np.load(TINY, weights="float32")
    _, cache = model.prefill(model.embed([1, 2, 3]))
    spoilt(model, "transformer.h.1.mlp.c_proj.weight", lambda weight: np.full_like(weight, np.nan))
    with pytest.raises(NumericsError, match=r"^non-finite activations after decoder block 1; the checkpoint is damaged there"):
        model.step(4, cache)


@pytest.mark.parametrize("name", ["attn.c_attn.weight", "attn.c_attn.bias", "mlp.c_proj.weight", "ln_1.weight", "ln_2.weight"])
def test_shapes_that_do_not_fit_are_refused(name: str) -> None:
    model = qwenaudio_np.load(TINY, weights="float32")
    _, cache = model.prefill(model.embed([1, 2, 3]))
    spoilt(model, f"transformer.h.0.{name}", lambda weight: weight[:-1])
    with pytest.raises(ValueError, match="has the shape"):
        model.step(4, cache)


@compiled_only
def test_values_are_kept_as_the_cache_keeps_them() -> None:
    store_as, definition = part("simd").store_as, part("simd_python").store_as

    @numba.njit
    def compiled(values: Any, kept: Any) -> None:
        for i in range(len(values)):
            store_as(values[i], kept, i)

    bits = np.random.default_rng(0).integers(0, 2**32, 5000, dtype=np.uint32)
    bits[:6] = 0x7F800000, 0xFF800000, 0x7F7FFFFF, 0x00008000, 0x7F808000, 0xFFFFFFFF  # infinities, overflow, a half, two kinds of NaN
    values = bits.view(np.float32)
    for kind in (np.float32, np.uint16):
        kept, expected = np.zeros(len(values), kind), np.zeros(len(values), kind)
        compiled(values, kept)
        for i, value in enumerate(values):
            definition(value, expected, i)
        assert kept.tobytes() == expected.tobytes()
