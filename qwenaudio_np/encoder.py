"""The audio encoder (the ear): log-mel spectrogram -> rows that stand among the decoder's word embeddings.

A Whisper-large-v2 encoder, then an average over pairs of positions, `ln_post` and a projection to the decoder's width.
Source: audio.py of Qwen-Audio, class AudioEncoder; "Robust Speech Recognition via Large-Scale Weak Supervision", section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qwenaudio_np.audio import position_count, vector_count
from qwenaudio_np.backends import Ops
from qwenaudio_np.config import AudioConfig
from qwenaudio_np.errors import MismatchError
from qwenaudio_np.ops import Array, widen
from qwenaudio_np.wiring import Tap, Weights, ignore, require_finite, split_heads, under


def visible_frames(samples: Sequence[int]) -> list[int]:
    """How many mel frames the convolutions see of each clip of ONE prompt, from the clips' lengths in samples.

    Clips of a prompt are not independent: the original cuts all their spectrograms at the end of the longest one. So at the last frame
    of a shorter clip the first convolution sees one more frame, of the padding (half its window may still be sound); at the last frame
    of the longest it sees a zero.
    """
    own = [2 * position_count(n) for n in samples]
    return [min(frames + 1, max(own)) for frames in own]


def encode_clip(visible: Array, samples: int, weights: Weights, config: AudioConfig, ops: Ops, tap: Tap = ignore) -> Array:
    """visible [mels, 2T] (or one frame more, which only the last position sees) -> [vectors + 2, hidden].

    Only the clip's own T positions are computed. The original computes the longest clip's T for every clip of the prompt, and masks
    those past a clip's own away as keys: no valid position changes by it.
    """
    positions = position_count(samples)
    if positions > config.n_ctx:
        raise MismatchError(f"a clip of {positions} positions is longer than this encoder's {config.n_ctx} (n_ctx); cut it shorter")
    tap("mel", visible[:, : 2 * positions])
    x = _convolve(visible, positions, weights, ops, tap)  # [T, state]
    for layer in range(config.n_layer):
        x = _block(x, f"transformer.audio.blocks.{layer}.", weights, config, ops)
        require_finite(x[-1], f"encoder block {layer}")
        tap(f"blocks.{layer}", x)
    sound = _project(x, vector_count(samples), weights, config, ops, tap)
    require_finite(sound, "the encoder's projection")
    return sound


def _convolve(visible: Array, positions: int, weights: Weights, ops: Ops, tap: Tap) -> Array:
    """visible [mels, frames] -> [positions, state]: two convolutions with GELU, then the sinusoids are added."""
    w = under("transformer.audio.", weights)
    x = ops.conv1d(visible, w("conv1.weight"), w("conv1.bias"), stride=1)[:, : 2 * positions]  # [state, 2T]
    tap("conv1", x)
    x = ops.conv1d(ops.gelu(x), w("conv2.weight"), w("conv2.bias"), stride=2)  # [state, T]
    tap("conv2", x)
    return np.ascontiguousarray(ops.gelu(x).T) + widen(w("positional_embedding")[:positions], x.dtype)  # [T, state]


def _block(x: Array, prefix: str, weights: Weights, config: AudioConfig, ops: Ops) -> Array:
    """x [T, state] -> [T, state]: attention and a feed-forward part, each after a LayerNorm and added to the stream."""
    w = under(prefix, weights)
    h = ops.layer_norm(x, w("attn_ln.weight"), w("attn_ln.bias"))
    query = w("attn.query.weight"), w("attn.query.bias")
    key = w("attn.key.weight"), None  # no bias: it would move all scores of a row alike
    value = w("attn.value.weight"), w("attn.value.bias")
    q, k, v = (split_heads(part, config.n_head) for part in ops.linears(h, query, key, value))  # [heads, T, head_dim] each
    # The original scales q and k by head_dim^-1/4 each, which is the usual head_dim^-1/2 of the scores.
    x = x + ops.linear(ops.attention(q, k, v, causal=False), w("attn.out.weight"), w("attn.out.bias"))
    h = ops.layer_norm(x, w("mlp_ln.weight"), w("mlp_ln.bias"))
    h = ops.gelu(ops.linear(h, w("mlp.0.weight"), w("mlp.0.bias")))  # [T, 4 * state]
    return x + ops.linear(h, w("mlp.2.weight"), w("mlp.2.bias"))


def _project(x: Array, vectors: int, weights: Weights, config: AudioConfig, ops: Ops, tap: Tap) -> Array:
    """x [T, state] -> [vectors + 2, hidden]: pool, THEN normalise, THEN project, then the two learned rows around them."""
    w = under("transformer.audio.", weights)
    # Without pooling the original still keeps only `vectors` rows, because its tokenizer counts them as if pooled.
    x = ops.average_pool(x) if config.avg_pool else x[:vectors]  # [vectors, state]
    x = ops.layer_norm(x, w("ln_post.weight"), w("ln_post.bias"))
    tap("ln_post", x)
    x = ops.linear(x, w("proj.weight"), w("proj.bias"))  # [vectors, hidden]
    tap("proj", x)
    if not config.add_audio_bos_eos_token:
        return x
    begin, end = widen(w("audio_bos_eos_token.weight"), x.dtype)  # [hidden] each
    return np.concatenate([begin[None], x, end[None]])
