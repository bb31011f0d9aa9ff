"""config.json and generation_config.json as frozen records, validated before anything is loaded.

The words used in every shape note of this package are introduced here, next to the field they stand for:

    encoder   [mels, frames] -> conv1 [state, frames] -> conv2 [state, positions] -> [positions, state] -> [vectors, hidden]
    decoder   [length, hidden] with [heads, length, head_dim] inside attention

Unknown fields are ignored unless they would change the arithmetic; those are errors.
Source: configuration_qwen.py of Qwen-Audio.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenaudio_np.errors import MismatchError, UnsupportedError, shown, value_of
from qwenaudio_np.json_fields import Fields, read_json

MAX_LAYERS = 1024
ENCODER_TYPE = "qwen_audio_encoder"  # `model_type` of a folder that holds an encoder alone
MAX_WIDTH = 1 << 20
MAX_VOCABULARY = 1 << 24
MAX_POSITIONS = 1 << 20


@dataclass(frozen=True)
class AudioConfig:
    """The `audio` section: a Whisper-style encoder. Lengths per clip: T positions, N vectors."""

    n_mels: int  # mels: rows of the log-mel spectrogram
    n_ctx: int  # most positions T of one clip, 1500 = 30 s
    n_state: int  # state: width of the encoder
    n_head: int  # heads of the encoder
    n_layer: int  # blocks of the encoder
    output_dim: int  # hidden: width of the decoder, which the projection must meet
    avg_pool: bool  # average pairs of positions before ln_post
    add_audio_bos_eos_token: bool  # wrap a clip's vectors in two learned rows
    audio_start_id: int  # id of `<audio>`; `</audio>` is the next one

    @property
    def head_dim(self) -> int:
        """Width of one encoder head."""
        return self.n_state // self.n_head


@dataclass(frozen=True)
class TextConfig:
    """The decoder, Qwen-1."""

    vocab_size: int  # rows of wte and lm_head, padding rows included
    hidden_size: int  # hidden: width of the residual stream
    num_hidden_layers: int  # blocks of the decoder
    num_attention_heads: int  # heads of the decoder
    ff_size: int  # inner: rows of w1 and of w2; `intermediate_size` in the file is the SUM of both
    layer_norm_epsilon: float  # eps inside RMSNorm
    max_position_embeddings: int  # most positions of prompt and answer together
    seq_length: int  # training length; dynamic NTK and logn act past it
    rotary_emb_base: float  # base of the rotary frequencies
    rotary_pct: float  # share of head_dim that is rotated
    use_dynamic_ntk: bool  # stretch the rotary base for prompts past seq_length
    use_logn_attn: bool  # scale queries past seq_length
    tie_word_embeddings: bool  # lm_head is wte

    @property
    def head_dim(self) -> int:
        """Width of one decoder head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def rotary_dim(self) -> int:
        """How many of a head's first values are rotated."""
        return self.head_dim if self.rotary_pct == 1.0 else int(self.head_dim * self.rotary_pct)


@dataclass(frozen=True)
class GenerationConfig:
    """What generation_config.json says about talking to the model.

    Its do_sample, top_k and top_p, with which the original's chat draws, are not read: answers are greedy unless a temperature is given.
    """

    chat_format: str = "raw"  # "raw": base model, tags; "chatml": chat model
    max_new_tokens: int = 512
    max_window_size: int = 6144  # tokens of system + history + turn at which old turns are dropped


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides which tensors exist and what is computed with them."""

    text: TextConfig
    audio: AudioConfig | None  # None: a text-only Qwen-1 checkpoint
    generation: GenerationConfig = GenerationConfig()


def load_config(folder: str | Path) -> ModelConfig:
    """Read config.json and, if present, generation_config.json of a checkpoint folder.

    Raises FormatError (missing, not JSON), UnsupportedError or MismatchError (values that cannot be).
    """
    folder = Path(folder)
    fields = read_json(folder / "config.json")
    generation_path = folder / "generation_config.json"
    generation = read_json(generation_path) if os.path.lexists(generation_path) else {}  # a link to nowhere is an error
    return parse_config(fields, generation, where=str(folder / "config.json"))


def parse_config(fields: dict[str, Any], generation: dict[str, Any] | None = None, where: str = "config.json") -> ModelConfig:
    """Build and check a ModelConfig from the parsed JSON of the two files."""
    read = Fields(fields, where)
    _refuse_other_arithmetic(read)
    text = _parse_text(read)
    audio = _parse_audio(Fields(fields["audio"], where + ": audio")) if fields.get("audio") is not None else None
    if audio and audio.output_dim != text.hidden_size:
        raise MismatchError(
            f"{shown(where)}: audio.output_dim is {audio.output_dim} but hidden_size is {text.hidden_size}; they must be equal"
        )
    if audio and audio.audio_start_id + 1 >= text.vocab_size:
        raise MismatchError(
            f"{shown(where)}: audio.audio_start_id is {audio.audio_start_id}, expected less than vocab_size - 1 = {text.vocab_size - 1}"
        )
    return ModelConfig(text, audio, _parse_generation(Fields(generation or {}, "generation_config.json")))


def _refuse_other_arithmetic(read: Fields) -> None:
    """Settings that the original's code knows and this package does not compute."""
    model_type = read.value("model_type", "qwen")
    if model_type == ENCODER_TYPE:
        raise UnsupportedError(
            f"{shown(read.where)}: model_type is {shown(model_type)}, an encoder without a decoder, expected a whole model; "
            "to make one, name the Whisper file that it came from: qwenaudio-np convert DECODER DIR --audio-from FILE"
        )
    if model_type != "qwen":
        raise UnsupportedError(
            f"{shown(read.where)}: model_type is {value_of(model_type)}, expected 'qwen' (Qwen-Audio or a Qwen-1 text model)"
        )
    if not read.flag("no_bias", True):
        raise UnsupportedError(f"{shown(read.where)}: no_bias is false, but only checkpoints without these biases (true) are known")
    if read.flag("use_cache_quantization", False):
        raise UnsupportedError(f"{shown(read.where)}: use_cache_quantization is true, expected false; set it to false in the file")


def _parse_text(read: Fields) -> TextConfig:
    hidden = read.size("hidden_size", MAX_WIDTH)
    heads = read.size("num_attention_heads", MAX_WIDTH)
    both = read.size("intermediate_size", 4 * MAX_WIDTH)
    if hidden % heads:
        raise MismatchError(f"{shown(read.where)}: hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
    channels = read.size("kv_channels", MAX_WIDTH, default=hidden // heads)
    if channels * heads != hidden:
        raise MismatchError(f"{shown(read.where)}: kv_channels {channels} x num_attention_heads {heads} must equal hidden_size {hidden}")
    if both % 2:
        raise MismatchError(f"{shown(read.where)}: intermediate_size {both} must be even: it is the sum of two equal halves")
    config = TextConfig(
        vocab_size=read.size("vocab_size", MAX_VOCABULARY),
        hidden_size=hidden,
        num_hidden_layers=read.size("num_hidden_layers", MAX_LAYERS),
        num_attention_heads=heads,
        ff_size=both // 2,
        layer_norm_epsilon=read.number("layer_norm_epsilon", 1e-6, low=0.0, high=1.0),
        max_position_embeddings=read.size("max_position_embeddings", MAX_POSITIONS, default=8192),
        seq_length=read.size("seq_length", 1 << 30, default=2048),
        rotary_emb_base=read.number("rotary_emb_base", 10000.0, low=1.0, high=1e12),
        rotary_pct=read.number("rotary_pct", 1.0, low=0.0, high=1.0),
        use_dynamic_ntk=read.flag("use_dynamic_ntk", True),
        use_logn_attn=read.flag("use_logn_attn", True),
        tie_word_embeddings=read.flag("tie_word_embeddings", False),
    )
    if config.rotary_dim % 2 or config.rotary_dim < 4:
        raise UnsupportedError(
            f"{shown(read.where)}: rotary_pct {config.rotary_pct} of head width {config.head_dim} rotates {config.rotary_dim} values, "
            "expected an even number of at least 4"
        )
    if config.use_logn_attn and config.seq_length < 2:
        raise UnsupportedError(f"{shown(read.where)}: seq_length is 1, expected at least 2 where use_logn_attn is true")
    return config


def _parse_audio(read: Fields) -> AudioConfig:
    config = AudioConfig(
        n_mels=read.size("n_mels", 1024),
        n_ctx=read.size("n_ctx", MAX_POSITIONS),
        n_state=read.size("n_state", MAX_WIDTH),
        n_head=read.size("n_head", MAX_WIDTH),
        n_layer=read.size("n_layer", MAX_LAYERS),
        output_dim=read.size("output_dim", MAX_WIDTH),
        avg_pool=read.flag("avg_pool", True),
        add_audio_bos_eos_token=read.flag("add_audio_bos_eos_token", True),
        audio_start_id=read.size("audio_start_id", MAX_VOCABULARY),
    )
    if config.n_state % config.n_head:
        raise MismatchError(f"{shown(read.where)}: n_state {config.n_state} is not a multiple of n_head {config.n_head}")
    if config.n_state % 2:
        raise MismatchError(f"{shown(read.where)}: n_state {config.n_state} must be even, for the sinusoids")
    return config


def _parse_generation(read: Fields) -> GenerationConfig:
    chat_format = read.value("chat_format", "raw")
    if chat_format not in ("raw", "chatml"):
        raise UnsupportedError(f"generation_config.json: chat_format is {value_of(chat_format)}, expected 'raw' or 'chatml'")
    return GenerationConfig(
        chat_format=chat_format,
        max_new_tokens=read.size("max_new_tokens", 1 << 30, default=512),
        max_window_size=read.size("max_window_size", 1 << 30, default=6144),
    )
