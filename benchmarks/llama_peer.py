"""llama.cpp as a peer of decoder.py: the same blocks as a GGUF file, through gguf and llama-cpp-python.

Its architecture "qwen" is Qwen-7B, up to seq_length positions (it has neither dynamic NTK nor logn). w2 of the original is its gate.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import qwenaudio_np
from qwenaudio_np.ops import widen

KINDS = {"int8": "Q8_0", "int4": "Q4_0"}  # our types of weights, and its of as many bits, in groups of 32 as well
_NAMES = {
    "transformer.wte.weight": "token_embd.weight",
    "transformer.ln_f.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_BLOCK_NAMES = {
    "ln_1.weight": "attn_norm.weight",
    "attn.c_attn.weight": "attn_qkv.weight",
    "attn.c_attn.bias": "attn_qkv.bias",
    "attn.c_proj.weight": "attn_output.weight",
    "ln_2.weight": "ffn_norm.weight",
    "mlp.w1.weight": "ffn_up.weight",
    "mlp.w2.weight": "ffn_gate.weight",
    "mlp.c_proj.weight": "ffn_down.weight",
}


def write(path: str, model: qwenaudio_np.QwenAudio, kind: str) -> int:
    """Write the decoder of `model`, its matrices as `kind`, and return the bytes of weights that one token reads."""
    import gguf

    text = model.config.text
    writer = gguf.GGUFWriter(path, "qwen")
    writer.add_context_length(text.max_position_embeddings)
    writer.add_block_count(text.num_hidden_layers)
    writer.add_embedding_length(text.hidden_size)
    writer.add_feed_forward_length(2 * text.ff_size)  # w1 and w2 together
    writer.add_head_count(text.num_attention_heads)
    writer.add_rope_freq_base(text.rotary_emb_base)
    writer.add_rope_dimension_count(text.rotary_dim)
    writer.add_layer_norm_rms_eps(text.layer_norm_epsilon)
    writer.add_tokenizer_model("none")  # ids in, logits out
    writer.add_vocab_size(text.vocab_size)
    read = 0
    for name, theirs, weight in _tensors(model):
        data, quantised = weight, gguf.GGMLQuantizationType.F32
        if weight.ndim == 2:
            quantised = gguf.GGMLQuantizationType[kind]
            data = gguf.quants.quantize(weight, quantised)
        writer.add_tensor(theirs, data, raw_dtype=quantised)
        read += 0 if name == "transformer.wte.weight" else data.nbytes
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return read


def _tensors(model: qwenaudio_np.QwenAudio) -> Iterator[tuple[str, str, np.ndarray]]:
    """(name here, name there, values in float32)"""
    names = dict(_NAMES)
    for i in range(model.config.text.num_hidden_layers):
        names |= {f"transformer.h.{i}.{ours}": f"blk.{i}.{theirs}" for ours, theirs in _BLOCK_NAMES.items()}
    for ours, theirs in names.items():
        yield ours, theirs, widen(model.weights[ours], np.dtype(np.float32))


class Peer:
    """An open GGUF file. llama.cpp's own messages stay away."""

    def __init__(self, path: str, positions: int, threads: int) -> None:
        import llama_cpp

        options: dict[str, Any] = {"n_threads": threads, "n_threads_batch": threads, "n_batch": positions, "n_ubatch": positions}
        self._model = llama_cpp.Llama(path, n_ctx=positions, logits_all=True, verbose=False, **options)

    def prefill(self, ids: list[int]) -> np.ndarray:
        """ids [length], the first of all -> logits [length, vocabulary]"""
        self._model.reset()
        self._model.eval(ids)
        return self._model.scores[: len(ids)]

    def step(self, token: int) -> np.ndarray:
        """One more id -> the logits of the one after it, [vocabulary]"""
        self._model.eval([token])
        return self._model.scores[self._model.n_tokens - 1]

    def close(self) -> None:
        """Give its memory back."""
        self._model.close()
