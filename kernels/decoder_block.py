"""`decoder.blocks` for one new token, each in one call of compiled code: the same kernels one after the other, and what NumPy does between.

A block's weights, 400 MB in bfloat16 or 126 MB in 4 bits, push Python's own data out of the caches as they are read, so that the dozen
Python calls of a block would take ten times as long: up to a fifth of a token. So Python prepares what stays the same of every
block once (`_Prepared`), and with each token the calls of all blocks before the first of them runs.

The numbers are those of the operations one by one, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from qwenaudio_np import ops
from qwenaudio_np.cache import KVCache
from qwenaudio_np.config import TextConfig
from qwenaudio_np.ops import Array, Stored, Weight
from qwenaudio_np.quantised import Quantised
from qwenaudio_np.wiring import Weights, non_finite, under

from . import activations, isa, linear_quantised, norms, parallel
from .arrays import readable, require_shape
from .attention import _one_by_one
from .compile_cache import inlined, kernel, made_once
from .linear import NO_BIAS, _dots, dots_plan
from .simd import store_as
from .team import settle

MATRICES = ("attn.c_attn", "attn.c_proj", "mlp.w1", "mlp.w2", "mlp.c_proj")
WEIGHTS = (*(f"{name}.weight" for name in MATRICES), "attn.c_attn.bias", "ln_1.weight", "ln_2.weight")
SHARED = 7  # operations of a block that are shared among threads
LARGEST = np.float32(np.finfo(np.float32).max)

_norm, _round = inlined(norms._rms_norm.piece), inlined(linear_quantised._quantise_rows.piece)


class _Prepared:
    """What stays the same from token to token: the weights of one block in the form that kernels take. They live as long as the cache."""

    def __init__(self, weights: tuple[Weight, ...], config: TextConfig, flow: _Flow) -> None:
        self.weights, self.isa = weights, isa.get_isa()
        hidden, inner = config.hidden_size, config.ff_size
        qkv = 3 * hidden
        shapes = (qkv, hidden), (hidden, hidden), (inner, hidden), (inner, hidden), (hidden, inner), (qkv,), (hidden,), (hidden,)
        for name, weight, shape in zip(WEIGHTS, weights, shapes, strict=True):
            require_shape(name, weight, shape)
        bias, *scales = (readable(ops.widen(weight, np.dtype(np.float32))) for weight in weights[5:])
        matrices = tuple(_matrix(weight, bias if i == 0 else NO_BIAS) for i, weight in enumerate(weights[:5]))
        sizes = (config.num_attention_heads, config.head_dim, -(-inner // activations.PIECE))
        self.kernel = _compiled(tuple(_kind(weight) for weight in weights[:5]), self.isa)
        self.arguments = (matrices, tuple(scales), np.float32(config.layer_norm_epsilon), flow.room, flow.rounded, sizes)
        self.cost = sum(math.prod(shape) for shape in shapes)

    def fits(self, weights: tuple[Weight, ...]) -> bool:
        """Whether these are the weights, and the instructions still those to be used."""
        return self.isa == isa.get_isa() and all(mine is given for mine, given in zip(self.weights, weights, strict=True))


class _Flow:
    """Room for what flows between the operations of a block, one for all blocks of a cache, and what was prepared of each block."""

    def __init__(self, config: TextConfig) -> None:
        hidden, inner = config.hidden_size, config.ff_size
        self.room = tuple(np.empty(size, np.float32) for size in (max(hidden, inner), 3 * hidden, hidden, inner, inner))
        self.rounded = linear_quantised.room(max(hidden, inner))
        self._blocks: dict[int, _Prepared] = {}

    def block(self, layer: int, w: Callable[[str], Weight], config: TextConfig) -> _Prepared:
        """What was prepared of a block, if these are still its weights; else anew."""
        weights = tuple(w(name) for name in WEIGHTS)
        if (made := self._blocks.get(layer)) is None or not made.fits(weights):
            made = self._blocks[layer] = _Prepared(weights, config, self)
        return made


_flows: WeakKeyDictionary[KVCache, _Flow] = WeakKeyDictionary()


def decoder_blocks(x: Array, cos: Array, sin: Array, logn: Array, cache: KVCache, weights: Weights, config: TextConfig) -> Iterator[Array]:
    """x [1, hidden] float32, the position behind those in the cache -> [1, hidden] after each block, as decoder.blocks; NumericsError as
    there.

    cos, sin [1, rotary_dim], logn [1]; the cache holds float32 or bfloat16. With the first result: ValueError for shapes that do not fit.
    """
    shapes = (1, config.hidden_size), (1, config.rotary_dim), (1, config.rotary_dim), (1,)
    for name, array, shape in zip(("x", "cos", "sin", "logn"), (x, cos, sin, logn), shapes, strict=True):
        require_shape(name, array, shape)
    if (flow := _flows.get(cache)) is None:
        flow = _flows[cache] = _Flow(config)
    stream, *turn = (np.ascontiguousarray(array).reshape(-1) for array in (x, cos, sin, logn))
    results, finite = np.empty((config.num_hidden_layers, config.hidden_size), np.float32), np.zeros(1, np.bool_)
    calls = []  # all of them before the first: afterwards Python has to come back from memory for each step
    for layer, result in enumerate(results):
        block = flow.block(layer, under(f"transformer.h.{layer}.", weights), config)
        kept = (array.reshape(-1) for array in cache.room(layer, 1))  # [heads * capacity * head_dim] each
        calls.append((block.kernel, (stream, *turn, *kept, cache.length, result, finite, *block.arguments), SHARED, block.cost))
        stream = result
    for layer, call in enumerate(calls):
        parallel.whole(*call)
        if not finite[0]:
            raise non_finite(f"decoder block {layer}")
        yield results[layer : layer + 1]


def _kind(weight: Weight) -> int:
    """8 or 4 for a quantised weight, else 0: Numba tells stored types apart by itself."""
    return weight.bits if isinstance(weight, Quantised) else 0


def _matrix(weight: Weight, bias: Stored) -> tuple[Any, ...]:
    """The arrays of a product with one row, the numbers that `_multiply` needs, and in how many pieces it comes."""
    if isinstance(weight, Quantised):
        arrays, shape, pieces, _ = linear_quantised.plan(weight, 1, 1)
        return (*arrays, bias), shape, pieces
    rows, pieces = dots_plan(weight, weight.shape[1])
    return (readable(weight), bias), (weight.shape[1], len(weight), rows), pieces


@made_once
def _multiply(bits: int, how: str) -> Any:
    """Compiled code for y = matrix x of one row x; `rounded` holds x in 8 bits where the weight is quantised."""
    if bits:
        by_blocks = linear_quantised._compiled(bits, 1, how)

        def multiply(board: Any, frame: Any, call: int, x: Array, rounded: tuple, matrix: tuple, y: Array) -> None:
            arrays, shape, pieces = matrix
            if not by_blocks(board, frame, call, 0, pieces, *rounded, *arrays, y, shape):
                settle(board)
    else:

        def multiply(board: Any, frame: Any, call: int, x: Array, rounded: tuple, matrix: tuple, y: Array) -> None:
            arrays, shape, pieces = matrix
            if not _dots(board, frame, call, 0, pieces, x[: shape[0]], *arrays, y, *shape):
                settle(board)

    multiply.__qualname__ += f" {bits} {how}"
    return inlined(multiply)


@made_once
def _compiled(kinds: tuple[int, ...], how: str) -> Any:
    """The block for weights of these kinds, in the order of MATRICES."""
    attend, feed_forward = _attend(kinds[:2], how), _feed_forward(kinds[2:], how)

    def block(
        board: Any, frame: Any, call: int, x: Array, cos: Array, sin: Array, logn: Array, keys: Any, values: Any, position: int,
        out: Array, finite: Any, matrices: tuple, scales: tuple, epsilon: float, room: tuple, rounded: tuple, sizes: tuple,
    ) -> bool:  # fmt: skip
        (heads, head_dim, pieces), (h, qkv, attended, value, gate) = sizes, room
        hidden = len(x)
        _norm(0, x, scales[0], epsilon, h[:hidden])
        flow, turn = (h, qkv, attended), (cos, sin, logn)
        attend(board, frame, call, flow, turn, keys, values, (position, heads, head_dim), matrices[:2], rounded)
        for i in range(hidden):
            out[i] = x[i] + h[i]
        _norm(0, out, scales[1], epsilon, h[:hidden])
        feed_forward(board, frame, call + 3 if call else 0, (h[:hidden], value, gate), h, pieces, matrices[2:], rounded)
        good = True
        for i in range(hidden):
            out[i] += h[i]
            good &= abs(out[i]) <= LARGEST  # not so for NaN and infinity
        finite[0] = good
        return True

    block.__qualname__ += f" {kinds} {how}"  # the name under which it is cached
    return kernel(block)


@made_once
def _attend(kinds: tuple[int, ...], how: str) -> Any:
    """Compiled code for `_attend` of decoder.py, in three calls: h [hidden] in flow -> the same place."""
    to_qkv, to_stream = (_multiply(kind, how) for kind in kinds)
    rounds_input, rounds_attended = (kind > 0 for kind in kinds)

    def attend(
        board: Any, frame: Any, call: int, flow: tuple, turn: tuple, keys: Any, values: Any, at: tuple, matrices: tuple, rounded: tuple
    ) -> None:
        (h, qkv, attended), (position, heads, head_dim) = flow, at
        hidden, step = heads * head_dim, 1 if call else 0  # without helpers every call has the number 0
        if rounds_input:
            _round(0, h[:hidden], hidden, 1, *rounded)
        to_qkv(board, frame, call, h, rounded, matrices[0], qkv)
        _keep(qkv, turn, keys, values, position, heads, head_dim)
        steps, shape = (len(keys) // heads, head_dim), (heads, 1, position + 1, head_dim)
        arrays = qkv, (head_dim, hidden), keys, steps, values, steps, attended
        if not _one_by_one(board, frame, call + step, 0, heads, *arrays, shape, position + 1):
            settle(board)
        if rounds_attended:
            _round(0, attended, hidden, 1, *rounded)
        to_stream(board, frame, call + 2 * step, attended, rounded, matrices[1], h)

    attend.__qualname__ += f" {kinds} {how}"
    return inlined(attend)


@made_once
def _feed_forward(kinds: tuple[int, ...], how: str) -> Any:
    """Compiled code for `_feed_forward` of decoder.py, in four calls: the first of flow -> y [hidden]."""
    to_value, to_gate, from_inner = (_multiply(kind, how) for kind in kinds)
    rounds_input, rounds_inner = kinds[0] > 0 or kinds[1] > 0, kinds[2] > 0

    def feed_forward(board: Any, frame: Any, call: int, flow: tuple, y: Array, pieces: int, matrices: tuple, rounded: tuple) -> None:
        h, value, gate = flow
        step = 1 if call else 0
        if rounds_input:
            _round(0, h, len(h), 1, *rounded)
        to_value(board, frame, call, h, rounded, matrices[0], value)
        to_gate(board, frame, call + step, h, rounded, matrices[1], gate)
        if not activations._gated_silu(board, frame, call + 2 * step, 0, pieces, value, gate, value):
            settle(board)
        if rounds_inner:
            _round(0, value, len(value), 1, *rounded)
        from_inner(board, frame, call + 3 * step, value, rounded, matrices[2], y)

    feed_forward.__qualname__ += f" {kinds} {how}"
    return inlined(feed_forward)


@inlined
def _keep(qkv: Array, turn: tuple, keys: Any, values: Any, position: int, heads: int, head_dim: int) -> None:
    """q in qkv [3 * heads * head_dim] is turned and scaled in place; k, turned, and v go to the cache at `position`."""
    cos, sin, logn = turn
    hidden, half = heads * head_dim, len(cos) // 2
    for head in range(heads):
        at = head * head_dim
        to = head * (len(keys) // heads) + position * head_dim
        for part in (at, hidden + at):  # as ops.rotary: the products are rounded before they are added
            for i in range(half):
                first, second = qkv[part + i], qkv[part + half + i]
                qkv[part + i] = first * cos[i] + -second * sin[i]
                qkv[part + half + i] = second * cos[half + i] + first * sin[half + i]
        for i in range(head_dim):
            qkv[at + i] *= logn[0]
            store_as(qkv[hidden + at + i], keys, to + i)
            store_as(qkv[2 * hidden + at + i], values, to + i)
