"""The text decoder (the tongue), Qwen-7B: embeddings [length, hidden] -> hidden states [length, hidden], keys and values kept in a cache.

Source: modeling_qwen.py of Qwen-Audio, classes QWenModel, QWenBlock, QWenAttention, QWenMLP, RotaryEmbedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from qwenaudio_np.backends import Ops
from qwenaudio_np.cache import KVCache
from qwenaudio_np.config import TextConfig
from qwenaudio_np.ops import Array, Weight
from qwenaudio_np.wiring import Tap, Weights, ignore, require_finite, split_heads, under


def decode(x: Array, cache: KVCache, weights: Weights, config: TextConfig, ops: Ops, tap: Tap = ignore) -> Array:
    """x [length, hidden], the positions that follow those in the cache -> [length, hidden], after all blocks and ln_f.

    The cache carries the NTK factor of its prefill (`ntk_alpha(length of the prompt)`); it grows by `length` positions.
    """
    positions = np.arange(cache.length, cache.length + len(x))
    cos, sin = rotary_tables(positions, cache.ntk_alpha, config, x.dtype)  # [length, rotary_dim]
    logn = logn_factors(positions, config, x.dtype)  # [length]
    if len(x) == 1 and x.dtype == np.float32 and cache.dtype in (np.float32, np.uint16) and hasattr(ops, "decoder_blocks"):
        streams = ops.decoder_blocks(x, cos, sin, logn, cache, weights, config)
    else:
        streams = blocks(x, cos, sin, logn, cache, weights, config, ops)
    for layer, x in enumerate(streams):
        tap(f"decoder.h.{layer}", x)
    cache.advance(len(x))
    x = ops.rms_norm(x, weights["transformer.ln_f.weight"], config.layer_norm_epsilon)
    tap("decoder.ln_f", x)
    return x


def blocks(
    x: Array, cos: Array, sin: Array, logn: Array, cache: KVCache, weights: Weights, config: TextConfig, ops: Ops
) -> Iterator[Array]:
    """x [length, hidden] -> [length, hidden] after each block"""
    for layer in range(config.num_hidden_layers):
        x = block(x, layer, cos, sin, logn, cache, under(f"transformer.h.{layer}.", weights), config, ops)
        yield x


def block(
    x: Array, layer: int, cos: Array, sin: Array, logn: Array, cache: KVCache, w: Callable[[str], Weight], config: TextConfig, ops: Ops
) -> Array:
    """x [length, hidden] -> [length, hidden]: attention and a feed-forward part, each after an RMSNorm and added to the stream."""
    h = ops.rms_norm(x, w("ln_1.weight"), config.layer_norm_epsilon)
    x = x + _attend(h, layer, cos, sin, logn, cache, w, config, ops)
    h = ops.rms_norm(x, w("ln_2.weight"), config.layer_norm_epsilon)
    x = x + _feed_forward(h, w, ops)
    require_finite(x[-1], f"decoder block {layer}")  # it sees all others: their NaN arrives there, if in the next block
    return x


def _attend(
    h: Array, layer: int, cos: Array, sin: Array, logn: Array, cache: KVCache, w: Callable[[str], Weight], config: TextConfig, ops: Ops
) -> Array:
    """h [length, hidden] -> [length, hidden]. Rows of c_attn: all of q, then all of k, then all of v."""
    qkv = ops.linear(h, w("attn.c_attn.weight"), w("attn.c_attn.bias"))  # [length, 3 * hidden]
    q, k, v = (split_heads(part, config.num_attention_heads) for part in np.split(qkv, 3, axis=1))  # [heads, length, head_dim] each
    # logn scales the queries only, and after the rotation (which, being linear, would allow either order but for the last bit).
    q = ops.rotary(q, cos, sin) * logn[:, None]
    keys, values = cache.append(layer, ops.rotary(k, cos, sin), v)  # [heads, total, head_dim]
    return ops.linear(ops.attention(q, keys, values, causal=True), w("attn.c_proj.weight"))


def _feed_forward(h: Array, w: Callable[[str], Weight], ops: Ops) -> Array:
    """h [length, hidden] -> [length, hidden] by way of [length, inner]: SwiGLU with the silu on w2."""
    value, gate = ops.linears(h, (w("mlp.w1.weight"), None), (w("mlp.w2.weight"), None))  # [length, inner] each
    return ops.linear(ops.gated_silu(value, gate), w("mlp.c_proj.weight"))


def ntk_alpha(length: int, config: TextConfig) -> float:
    """How much the rotary base is stretched for a prompt of `length` positions: 1 up to seq_length, then 3, 7, 15, ...

    2^ceil(log2(length / seq_length) + 1) - 1, at least 1: 2048 -> 1, 2049 -> 3, 4097 -> 7 for seq_length 2048.
    """
    if not config.use_dynamic_ntk or length <= config.seq_length:
        return 1.0
    return float(max(2 ** math.ceil(math.log(length / config.seq_length, 2) + 1) - 1, 1))


def rotary_tables(positions: np.ndarray, alpha: float, config: TextConfig, dtype: np.dtype) -> tuple[Array, Array]:
    """Cosines and sines of position * base'^(-2i/d), [length, rotary_dim] each, the angles repeated for both halves.

    d = rotary_dim, base' = base * alpha^(d / (d - 2)): NTK scaling, which slows the slow frequencies by alpha and leaves the fast ones.

    Angles are rounded to `dtype` before the cosine is taken, as the original does in float32: at position 8000 this moves
    them by up to 5e-4, so that "more exact" angles would be *further* from what the model was trained with.
    """
    d = config.rotary_dim
    base = config.rotary_emb_base * alpha ** (d / (d - 2))
    exponents = np.arange(0, d, 2, dtype=dtype) / d  # [d / 2]
    # The power in float64, rounded once: NumPy's in float32 is another on CPUs with AVX512, and one bit of it grows with the position.
    powers = np.power(np.asarray(base, dtype).astype(np.float64), exponents.astype(np.float64)).astype(dtype)
    frequencies = 1.0 / powers
    angles = np.outer(positions.astype(dtype), frequencies)  # [length, d / 2]
    angles = np.concatenate([angles, angles], axis=1)  # [length, d]
    return np.cos(angles), np.sin(angles)


def logn_factors(positions: np.ndarray, config: TextConfig, dtype: np.dtype) -> Array:
    """log(i) / log(seq_length) for the 1-based position i past seq_length, else 1: [length].

    More keys make softmax flatter; queries that grow with the logarithm of their number keep it sharp.
    """
    i = np.maximum(positions + 1, config.seq_length).astype(np.float64)
    factors = np.log(i) / math.log(config.seq_length) if config.use_logn_attn else np.ones(len(i))
    return factors.astype(dtype)
