"""Which tensors a checkpoint holds: names and shapes, worked out from the config alone.

Names and layout are those of the original's state dict (modeling_qwen.py and audio.py of Qwen-Audio).
A linear layer stores [out, in]; a convolution stores [out, in, 3]. The order is that of the data flow.

    encoder   conv1 [state, mels, 3] -> blocks -> ln_post [state] -> proj [hidden, state]
    decoder   wte [vocabulary, hidden] -> h.{i} -> ln_f [hidden] -> lm_head [vocabulary, hidden]
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from qwenaudio_np.config import AudioConfig, ModelConfig, TextConfig

Shape = tuple[int, ...]

AUDIO_PREFIX = "transformer.audio."
EMBEDDING = "transformer.wte.weight"
OUTPUT_HEAD = "lm_head.weight"

# Buffers that some versions of the original saved with the weights. They follow from the config, so nothing
# is lost by not reading them: rotary frequencies, the causal mask and its fill value, the logn table.
_IGNORED = re.compile(
    r"transformer\.(h\.\d+\.attn\.)?rotary_emb\.inv_freq"
    r"|transformer\.(h\.\d+\.attn\.)?logn_tensor"
    r"|transformer\.h\.\d+\.attn\.(bias|masked_bias)"
)


def expected_tensors(config: ModelConfig) -> dict[str, Shape]:
    """Name -> shape of every tensor that a checkpoint with this config must hold, in the order of the data flow."""
    tensors: dict[str, Shape] = {}
    if config.audio:
        tensors.update(_encoder(config.audio))
    tensors.update(_decoder(config.text))
    if not config.text.tie_word_embeddings:
        tensors[OUTPUT_HEAD] = (config.text.vocab_size, config.text.hidden_size)
    return tensors


def optional_tensors(config: ModelConfig) -> dict[str, Shape]:
    """Name -> shape of tensors that may be stored but are not read: with tied embeddings `lm_head` is `wte`."""
    if config.text.tie_word_embeddings:
        return {OUTPUT_HEAD: (config.text.vocab_size, config.text.hidden_size)}
    return {}


def is_ignored(name: str) -> bool:
    """Whether a stored tensor is one of the known buffers that follow from the config."""
    return _IGNORED.fullmatch(name) is not None


def _encoder(audio: AudioConfig) -> Iterator[tuple[str, Shape]]:
    state, hidden = audio.n_state, audio.output_dim
    yield AUDIO_PREFIX + "conv1.weight", (state, audio.n_mels, 3)
    yield AUDIO_PREFIX + "conv1.bias", (state,)
    yield AUDIO_PREFIX + "conv2.weight", (state, state, 3)
    yield AUDIO_PREFIX + "conv2.bias", (state,)
    yield AUDIO_PREFIX + "positional_embedding", (audio.n_ctx, state)
    for i in range(audio.n_layer):
        yield from _encoder_block(f"{AUDIO_PREFIX}blocks.{i}.", state)
    yield AUDIO_PREFIX + "ln_post.weight", (state,)
    yield AUDIO_PREFIX + "ln_post.bias", (state,)
    yield AUDIO_PREFIX + "proj.weight", (hidden, state)
    yield AUDIO_PREFIX + "proj.bias", (hidden,)
    if audio.add_audio_bos_eos_token:
        yield AUDIO_PREFIX + "audio_bos_eos_token.weight", (2, hidden)


def _encoder_block(prefix: str, state: int) -> Iterator[tuple[str, Shape]]:
    yield prefix + "attn_ln.weight", (state,)
    yield prefix + "attn_ln.bias", (state,)
    yield prefix + "attn.query.weight", (state, state)
    yield prefix + "attn.query.bias", (state,)
    yield prefix + "attn.key.weight", (state, state)  # no bias: softmax would cancel it
    yield prefix + "attn.value.weight", (state, state)
    yield prefix + "attn.value.bias", (state,)
    yield prefix + "attn.out.weight", (state, state)
    yield prefix + "attn.out.bias", (state,)
    yield prefix + "mlp_ln.weight", (state,)
    yield prefix + "mlp_ln.bias", (state,)
    yield prefix + "mlp.0.weight", (4 * state, state)
    yield prefix + "mlp.0.bias", (4 * state,)
    yield prefix + "mlp.2.weight", (state, 4 * state)
    yield prefix + "mlp.2.bias", (state,)


def _decoder(text: TextConfig) -> Iterator[tuple[str, Shape]]:
    hidden, inner = text.hidden_size, text.ff_size
    yield EMBEDDING, (text.vocab_size, hidden)
    for i in range(text.num_hidden_layers):
        prefix = f"transformer.h.{i}."
        yield prefix + "ln_1.weight", (hidden,)
        yield prefix + "attn.c_attn.weight", (3 * hidden, hidden)  # rows: all of q, all of k, all of v
        yield prefix + "attn.c_attn.bias", (3 * hidden,)
        yield prefix + "attn.c_proj.weight", (hidden, hidden)
        yield prefix + "ln_2.weight", (hidden,)
        yield prefix + "mlp.w1.weight", (inner, hidden)
        yield prefix + "mlp.w2.weight", (inner, hidden)
        yield prefix + "mlp.c_proj.weight", (hidden, inner)
    yield "transformer.ln_f.weight", (hidden,)
