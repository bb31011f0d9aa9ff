"""A slow, obvious float64 twin of the whole network: waveforms and ids in, logits out.

It shares no code with the package: loops over heads and positions, each formula written out, no cache. Where the package
takes a short cut that should be exact, the twin goes the original's long way: it computes the positions past a clip's end,
zeroes them and masks them as keys. `mistake` makes exactly one known mistake, None makes none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.make_checkpoint import read_weights
from tests.naive_front_end import FRONT_END_MISTAKES, Array, log_mel, position_count, vector_count

NETWORK_MISTAKES = {
    "tanh_gelu": "GELU by its tanh approximation instead of erf",
    "encoder_mask_not_applied": "positions past a shorter clip's end take part in attention",
    "thirty_seconds_unmasked": "1500 positions are computed for every clip, none masked",
    "clips_one_by_one": "each clip is cut at its own end, not at the longest clip's of the same prompt",
    "key_bias": "the query's bias is added to the keys too",
    "pool_after_ln_post": "ln_post first, then the average over pairs",
    "bos_eos_forgotten": "the audio tags keep their word embeddings",
    "bos_eos_beside_tags": "the two learned rows stand inside the tags instead of over them",
    "interleaved_rotary": "value 2i is paired with 2i + 1 instead of i with i + d/2",
    "silu_on_w1": "silu(w1(h)) * w2(h)",
    "ntk_alpha_recomputed": "every decoded position takes the alpha of the length so far, not of the prefill",
    "logn_on_keys": "keys are stretched instead of queries",
    "logn_before_rotary": "queries are stretched before they are rotated",
    "logn_base": "log(i) / log(2048) whatever seq_length is",
    "logn_zero_based": "position i counted from 0",
}
MISTAKES = FRONT_END_MISTAKES | NETWORK_MISTAKES


class NaiveNetwork:
    """A checkpoint folder as a function. After a call, `taps` holds what flowed through it."""

    def __init__(self, folder: Path, mistake: str | None = None) -> None:
        if mistake is not None and mistake not in MISTAKES:
            raise ValueError(f"unknown mistake {mistake!r}")
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        self.weights = read_weights(folder)
        self.mistake = mistake
        self.taps: dict[str, Array] = {}

    def logits(self, ids: Sequence[int], waveforms: Sequence[Array] = (), prefill: int | None = None) -> Array:
        """[length, vocabulary]. The first `prefill` ids (default: all) were the prompt, the others were decoded one by one."""
        x = self.embed(list(ids), self.encode(waveforms))
        x = self.decode(x, len(x) if prefill is None else prefill)
        head = "transformer.wte.weight" if self.config["tie_word_embeddings"] else "lm_head.weight"
        return np.array([self.weights[head] @ row for row in x])

    def encode(self, waveforms: Sequence[Array]) -> list[Array]:
        """The clips of one prompt -> [N, hidden] each, without the learned end rows."""
        counts = [position_count(len(waveform), self.mistake) for waveform in waveforms]
        sounds = []
        for k, (waveform, own) in enumerate(zip(waveforms, counts, strict=True)):
            computed = own if self.mistake == "clips_one_by_one" else max(counts)
            if self.mistake == "thirty_seconds_unmasked":
                computed = self.config["audio"]["n_ctx"]
            mel = log_mel(waveform, self.config["audio"]["n_mels"], self.mistake)
            self.taps[f"audio.{k}.mel"] = mel[:, : 2 * own]
            sounds.append(self.encode_one(mel[:, : 2 * computed], own, f"audio.{k}."))
        return sounds

    def encode_one(self, mel: Array, own: int, tap: str) -> Array:
        """mel [mels, 2 * computed], `own` of whose positions are the clip's -> [N, hidden]."""
        x = self.convolve(mel, "transformer.audio.conv1", stride=1)
        self.taps[tap + "conv1"] = x[: 2 * own].T
        x = self.convolve(self.gelu(x).T, "transformer.audio.conv2", stride=2)
        self.taps[tap + "conv2"] = x[:own].T
        x = self.gelu(x) + self.weights["transformer.audio.positional_embedding"][: len(x)]
        if self.mistake != "thirty_seconds_unmasked":
            x[own:] = 0.0
        seen = len(x) if self.mistake in ("encoder_mask_not_applied", "thirty_seconds_unmasked") else own
        for layer in range(self.config["audio"]["n_layer"]):
            x = self.encoder_block(x, f"transformer.audio.blocks.{layer}.", seen)
            self.taps[f"{tap}blocks.{layer}"] = x[:own]
        x = self.pool_and_normalise(x[:own])
        self.taps[tap + "ln_post"] = x
        x = self.linear(x, "transformer.audio.proj", bias=True)
        self.taps[tap + "proj"] = x
        return x

    def convolve(self, x: Array, name: str, stride: int) -> Array:
        """x [in, frames] -> [ceil(frames / stride), out], positions first."""
        weight, bias = self.weights[name + ".weight"], self.weights[name + ".bias"]
        padded = np.pad(x, ((0, 0), (1, 1)))
        rows = []
        for t in range(0, x.shape[1], stride):
            rows.append(weight[:, :, 0] @ padded[:, t] + weight[:, :, 1] @ padded[:, t + 1] + weight[:, :, 2] @ padded[:, t + 2] + bias)
        return np.array(rows)

    def gelu(self, x: Array) -> Array:
        if self.mistake == "tanh_gelu":
            return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
        return np.array([0.5 * v * (1.0 + math.erf(v / math.sqrt(2.0))) for v in x.ravel().tolist()]).reshape(x.shape)

    def encoder_block(self, x: Array, prefix: str, seen: int) -> Array:
        """x [computed, state] -> the same; positions from `seen` on are masked as keys."""
        h = self.layer_norm(x, prefix + "attn_ln")
        q = self.linear(h, prefix + "attn.query", bias=True)
        k = self.linear(h, prefix + "attn.key", bias=False)
        v = self.linear(h, prefix + "attn.value", bias=True)
        if self.mistake == "key_bias":
            k = k + self.weights[prefix + "attn.query.bias"]
        width = x.shape[1] // self.config["audio"]["n_head"]
        mixed = np.zeros_like(x)
        for head in range(self.config["audio"]["n_head"]):
            part = slice(head * width, (head + 1) * width)
            for t in range(len(x)):
                scores = (k[:seen, part] * width**-0.25) @ (q[t, part] * width**-0.25)
                mixed[t, part] = softmax(scores) @ v[:seen, part]
        x = x + self.linear(mixed, prefix + "attn.out", bias=True)
        h = self.gelu(self.linear(self.layer_norm(x, prefix + "mlp_ln"), prefix + "mlp.0", bias=True))
        return x + self.linear(h, prefix + "mlp.2", bias=True)

    def pool_and_normalise(self, x: Array) -> Array:
        """x [T, state] -> [N, state]"""
        count = vector_count(len(x), self.mistake)
        if self.mistake == "pool_after_ln_post":
            x = self.layer_norm(x, "transformer.audio.ln_post")
        if self.config["audio"]["avg_pool"]:
            x = np.array([x[2 * n : 2 * n + 2].mean(axis=0) for n in range(count)])
        return x[:count] if self.mistake == "pool_after_ln_post" else self.layer_norm(x[:count], "transformer.audio.ln_post")

    def linear(self, x: Array, name: str, bias: bool) -> Array:
        weight = self.weights[name + ".weight"]
        shift = self.weights[name + ".bias"] if bias else np.zeros(len(weight))
        return np.array([weight @ row + shift for row in x])

    def layer_norm(self, x: Array, name: str) -> Array:
        rows = []
        for row in x:
            mean = row.sum() / len(row)
            variance = ((row - mean) ** 2).sum() / len(row)
            rows.append((row - mean) / math.sqrt(variance + 1e-5) * self.weights[name + ".weight"] + self.weights[name + ".bias"])
        return np.array(rows)

    def embed(self, ids: list[int], sounds: list[Array]) -> Array:
        """ids [length] -> [length, hidden], spans between audio tags replaced."""
        table, rows, place, k = self.weights["transformer.wte.weight"], [], 0, 0
        start = self.config["audio"]["audio_start_id"] if self.config.get("audio") else None
        while place < len(ids):
            if ids[place] != start:
                rows.append(table[ids[place]])
                place += 1
                continue
            rows += self.span(table[start], table[start + 1], list(sounds[k]))
            place = ids.index(start + 1, place) + 1
            k += 1
        self.taps["decoder.embed"] = np.array(rows)
        return self.taps["decoder.embed"]

    def span(self, opening: Array, closing: Array, sound: list[Array]) -> list[Array]:
        """The rows of one clip; `opening` and `closing` are the word embeddings of its tags."""
        if not self.config["audio"]["add_audio_bos_eos_token"] or self.mistake == "bos_eos_forgotten":
            return [opening, *sound, closing]
        begin, end = self.weights["transformer.audio.audio_bos_eos_token.weight"]
        if self.mistake == "bos_eos_beside_tags":
            return [opening, begin, *sound, end, closing]
        return [begin, *sound, end]

    def decode(self, x: Array, prefill: int) -> Array:
        """x [length, hidden] -> [length, hidden] after ln_f."""
        for layer in range(self.config["num_hidden_layers"]):
            prefix = f"transformer.h.{layer}."
            mixed = self.causal_attention(self.rms_norm(x, prefix + "ln_1"), prefix + "attn.", prefill)
            x = x + self.linear(mixed, prefix + "attn.c_proj", bias=False)
            h = self.rms_norm(x, prefix + "ln_2")
            w1, w2 = self.linear(h, prefix + "mlp.w1", bias=False), self.linear(h, prefix + "mlp.w2", bias=False)
            gated = silu(w1) * w2 if self.mistake == "silu_on_w1" else w1 * silu(w2)
            x = x + self.linear(gated, prefix + "mlp.c_proj", bias=False)
            self.taps[f"decoder.h.{layer}"] = x
        self.taps["decoder.ln_f"] = self.rms_norm(x, "transformer.ln_f")
        return self.taps["decoder.ln_f"]

    def rms_norm(self, x: Array, name: str) -> Array:
        eps = self.config["layer_norm_epsilon"]
        return np.array([row / math.sqrt((row**2).sum() / len(row) + eps) * self.weights[name + ".weight"] for row in x])

    def causal_attention(self, h: Array, prefix: str, prefill: int) -> Array:
        """h [length, hidden] -> [length, hidden]"""
        hidden, heads = self.config["hidden_size"], self.config["num_attention_heads"]
        qkv = self.linear(h, prefix + "c_attn", bias=True)
        width = hidden // heads
        mixed = np.zeros_like(h)
        for head in range(heads):
            q, k, v = (qkv[:, which * hidden + head * width :][:, :width] for which in range(3))
            queries = np.array([self.query(row, p, prefill) for p, row in enumerate(q)])
            keys = np.array([self.key(row, p, prefill) for p, row in enumerate(k)])
            for p in range(len(h)):
                scores = keys[: p + 1] @ queries[p] / math.sqrt(width)
                mixed[p, head * width : (head + 1) * width] = softmax(scores) @ v[: p + 1]
        return mixed

    def query(self, row: Array, p: int, prefill: int) -> Array:
        if self.mistake == "logn_on_keys":
            return self.rotate(row, p, prefill)
        if self.mistake == "logn_before_rotary":
            return self.rotate(row * self.logn(p), p, prefill)
        return self.rotate(row, p, prefill) * self.logn(p)

    def key(self, row: Array, p: int, prefill: int) -> Array:
        rotated = self.rotate(row, p, prefill)
        return rotated * self.logn(p) if self.mistake == "logn_on_keys" else rotated

    def rotate(self, row: Array, p: int, prefill: int) -> Array:
        """One head's values at position p, the first d of them turned in pairs."""
        d = int(len(row) * self.config["rotary_pct"])
        alpha = self.alpha(max(prefill, p + 1) if self.mistake == "ntk_alpha_recomputed" else prefill)
        base = self.config["rotary_emb_base"] * alpha ** (d / (d - 2))
        turned = row.copy()
        for i in range(d // 2):
            angle = p * base ** (-2.0 * i / d)
            a, b = (2 * i, 2 * i + 1) if self.mistake == "interleaved_rotary" else (i, i + d // 2)
            turned[a] = row[a] * math.cos(angle) - row[b] * math.sin(angle)
            turned[b] = row[b] * math.cos(angle) + row[a] * math.sin(angle)
        return turned

    def alpha(self, length: int) -> float:
        if not self.config["use_dynamic_ntk"]:
            return 1.0
        return max(2.0 ** math.ceil(math.log2(length / self.config["seq_length"]) + 1) - 1.0, 1.0)

    def logn(self, p: int) -> float:
        """The stretch of the query at position p, counted from 0."""
        i, trained = (p if self.mistake == "logn_zero_based" else p + 1), self.config["seq_length"]
        if not self.config["use_logn_attn"] or i <= trained:
            return 1.0
        return math.log(i) / math.log(2048 if self.mistake == "logn_base" else trained)


def softmax(scores: Array) -> Array:
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def silu(x: Array) -> Array:
    return x / (1.0 + np.exp(-x))
