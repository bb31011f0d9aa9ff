"""The made-up values of random checkpoints: an integer hash of (seed, tensor name, index), exact in every language.

All arithmetic is on 64-bit unsigned integers, modulo 2^64. G is 0x9E3779B97F4A7C15.

    fnv(name)  FNV-1a over the UTF-8 bytes of the tensor's full name:
               h = 0xCBF29CE484222325, then for each byte h = (h xor byte) * 0x100000001B3
    mix(z)     the finaliser of splitmix64: z = (z xor z >> 30) * 0xBF58476D1CE4E5B9,
               z = (z xor z >> 27) * 0x94D049BB133111EB, z xor z >> 31
    key        mix(fnv(name) + seed * G)
    u(index)   mix(key + (index + 1) * G) >> 40: 24 bits; index counts the tensor's elements row by row from 0
    value      (offset + floor((u - 2^23) / 2^shift)) * 2^-exponent

A value is an integer below 2^24 times a power of two, so float32 holds it exactly; float16 and bfloat16 are that value
rounded once, to nearest, ties to even. Which numbers apply follows from the name and shape:

    tensor                                    offset  shift  exponent  range
    norm weights (other one-dimensional)        2^23      4        23  1 +- 2^-4
    biases                                         0      0        29  +- 2^-6
    wte, audio_bos_eos_token                       0      0        23  +- 1
    transformer.h.0.attn.c_attn.weight             0      0    21 + k  +- 2^(2-k)
    lm_head but for rows 256 to 511                0      0    26 + k  +- 2^(-3-k)
    other matrices and convolutions                0      0    23 + k  +- 2^-k, k = floor(log2(fan_in) / 2)

fan_in is the product of all sizes but the first, so a layer neither blows up nor dies out. The first block of the decoder
has sharp attention, which makes the answer depend on single positions; sharp attention in every block would magnify the
rounding of float32 until two correct programs disagree (1e-3 of the logits after 32 blocks; as it is, 4e-5). The rows 256
to 511 of lm_head are the learned tokens of every size: they alone win, so the two best are far apart, and what is
generated can be read.

Example: seed 7, tensor "transformer.audio.proj.weight" [.., 48], index 5: fnv = 0xF6968EF0B814E1C5,
key = 0x1A0D9F152ADA7187, mix(key + 6 G) = 0xA6A2E61A030F9EF8, u = 0xA6A2E6 = 10920678, u - 2^23 = 2532070, k = 2,
value = 2532070 * 2^-25 = 0.07546156644821167; in bfloat16 0.07568359375 (0x3D9B), in float16 0.075439453125 (0x2CD4).

The one exception is `positional_embedding`: no noise but the sinusoids of Whisper, computed in float64 and rounded once.
Row p holds sin(p * exp(-i * log(10000) / (state / 2 - 1))) in column i and the cosine in column state / 2 + i.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from qwenaudio_np.names import AUDIO_PREFIX, EMBEDDING, OUTPUT_HEAD

GOLDEN = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1
MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
SHARP = "transformer.h.0.attn.c_attn.weight"
LOUD_ROWS = (256, 512)  # of lm_head
BLOCK = 1 << 14  # values hashed at once: larger arrays leave the processor's cache, and get fresh pages from the system every time


class Rule(NamedTuple):
    """How 24 hashed bits become a value; see the table above. `quiet` is what exponent grows by outside LOUD_ROWS."""

    offset: int
    shift: int
    exponent: int
    quiet: int = 0


def rule_for(name: str, shape: tuple[int, ...]) -> Rule:
    """The table of the module's docstring."""
    if name.endswith(".bias"):
        return Rule(0, 0, 29)
    if len(shape) == 1:
        return Rule(1 << 23, 4, 23)
    if name in (EMBEDDING, AUDIO_PREFIX + "audio_bos_eos_token.weight"):
        return Rule(0, 0, 23)
    k = (math.prod(shape[1:]).bit_length() - 1) // 2
    if name == OUTPUT_HEAD:
        return Rule(0, 0, 23 + k, quiet=3)
    return Rule(0, 0, (21 if name == SHARP else 23) + k)


def tensor_key(seed: int, name: str) -> int:
    """Where in the hash a tensor's values begin."""
    fnv = 0xCBF29CE484222325
    for byte in name.encode():
        fnv = ((fnv ^ byte) * 0x100000001B3) & MASK
    z = (fnv + seed * GOLDEN) & MASK
    z = ((z ^ z >> 30) * MULTIPLIERS[0]) & MASK
    z = ((z ^ z >> 27) * MULTIPLIERS[1]) & MASK
    return z ^ z >> 31


def random_pieces(name: str, shape: tuple[int, ...], dtype: str, seed: int) -> Iterator[np.ndarray]:
    """A tensor's values in order, flat, at most BLOCK at a time but for the positions; dtype "F32", "F16" or "BF16" (as uint16)."""
    if name.endswith(".positional_embedding"):
        yield round_float64(sinusoids(*shape), dtype)
        return
    rule, key = rule_for(name, shape), tensor_key(seed, name)
    steps = np.arange(1, BLOCK + 1, dtype=np.uint64) * np.uint64(GOLDEN)
    total = math.prod(shape)
    for start in range(0, total, BLOCK):
        u = _hash24(steps[: total - start], (key + start * GOLDEN) & MASK)
        values = _values(u, rule)
        if rule.quiet:
            _quieten(values, 2.0**-rule.quiet, *(row * shape[1] - start for row in LOUD_ROWS))
        yield _round_float32(values, dtype)


def _hash24(steps: np.ndarray, key: int) -> np.ndarray:
    """steps = (index + 1) * G, uint64 [n] -> u, int32 [n].

    splitmix64's last step, z ^ z >> 31, is left out: it changes the lower 33 bits only, and the upper 24 are taken.
    """
    z = steps + np.uint64(key)
    scratch = np.empty_like(z)
    for shift, multiplier in zip((30, 27), MULTIPLIERS, strict=True):
        np.right_shift(z, np.uint64(shift), out=scratch)
        z ^= scratch
        z *= np.uint64(multiplier)
    z >>= np.uint64(40)
    return z.astype(np.int32)


def _values(u: np.ndarray, rule: Rule) -> np.ndarray:
    """u, int32 [n] -> float32 [n], exact."""
    u -= 1 << 23
    u >>= rule.shift  # of a negative number: towards minus infinity, which is the floor of the definition
    u += rule.offset
    values = u.astype(np.float32)
    values *= np.float32(2.0**-rule.exponent)
    return values


def _quieten(values: np.ndarray, factor: float, first: int, last: int) -> None:
    """Multiply everything outside values[first:last] by a power of two; the bounds may lie before or behind the values."""
    values[: max(first, 0)] *= np.float32(factor)
    values[max(last, 0) :] *= np.float32(factor)


def _round_float32(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 [n] -> as stored, to nearest even. A bfloat16 is the upper half of a float32's bits."""
    if dtype != "BF16":
        return values.astype({"F32": np.float32, "F16": np.float16}[dtype], copy=False)
    bits = values.view(np.uint32)
    odd = bits >> np.uint32(16)
    odd &= np.uint32(1)
    odd += np.uint32(0x7FFF)
    odd += bits
    odd >>= np.uint32(16)
    return odd.astype(np.uint16)


def round_float64(values: np.ndarray, dtype: str) -> np.ndarray:
    """float64 of any shape -> as stored, flat, in one rounding to nearest even (going through float32 would round twice)."""
    values = np.ascontiguousarray(values, np.float64).ravel()
    if dtype != "BF16":
        return values.astype({"F32": np.float32, "F16": np.float16}[dtype])
    bits = values.view(np.uint64)
    dropped = np.uint64(45)  # of 52 mantissa bits; bfloat16 keeps 7
    odd = (bits >> dropped) & np.uint64(1)
    bits = (bits + odd + np.uint64((1 << 44) - 1)) >> dropped << dropped
    return (bits.view(np.float64).astype(np.float32).view(np.uint32) >> np.uint32(16)).astype(np.uint16)


def sinusoids(positions: int, state: int) -> np.ndarray:
    """Whisper's position table, float64 [positions, state]: sines in the first half of the columns, cosines in the second.

    Source: model.py of Whisper, function sinusoids.
    """
    frequencies = np.exp(-np.arange(state // 2) * (math.log(10000.0) / (state // 2 - 1)))  # [state / 2]
    angles = np.arange(positions)[:, None] * frequencies  # [positions, state / 2]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
