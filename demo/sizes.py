"""The sizes of the embedded model, in one place: its config.json is written from here, and the twin is built from the same numbers."""

from __future__ import annotations

from typing import Any

from qwenaudio_np.special_tokens import AUDIO_START, SPECIAL_TOKENS

RANKS = 768  # ordinary tokens: 256 bytes and 512 merges learned from the training text
WHISPER_BLOCKS = 4  # tiny.en's own
MORE_BLOCKS = 4  # behind them
STATE = 384  # width of the encoder (tiny.en)
ENCODER_HEADS = 6
HIDDEN = 256  # width of the decoder
LAYERS = 4
HEADS = 4  # of 64, as in Whisper
INNER = 768  # rows of w1 and of w2
EPSILON = 1e-6


def config() -> dict[str, Any]:
    """config.json in the original's layout. `intermediate_size` is the sum of w1's and w2's rows, as there."""
    return {
        "architectures": ["QWenLMHeadModel"],
        "model_type": "qwen",
        "vocab_size": padded_vocabulary(),
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 2 * INNER,
        "layer_norm_epsilon": EPSILON,
        "max_position_embeddings": 8192,
        "seq_length": 2048,
        "rotary_emb_base": 10000,
        "rotary_pct": 1.0,
        "kv_channels": HIDDEN // HEADS,
        "use_dynamic_ntk": True,
        "use_logn_attn": True,
        "no_bias": True,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "audio": {
            "n_mels": 80,
            "n_ctx": 1500,
            "n_state": STATE,
            "n_head": ENCODER_HEADS,
            "n_layer": WHISPER_BLOCKS + MORE_BLOCKS,
            "output_dim": HIDDEN,
            "avg_pool": True,
            "add_audio_bos_eos_token": True,
            "audio_start_id": RANKS + SPECIAL_TOKENS.index(AUDIO_START),
        },
    }


def padded_vocabulary() -> int:
    """Rows of the embedding: ranks and special tokens, rounded up to a multiple of 64 as in the original."""
    return -(-(RANKS + len(SPECIAL_TOKENS)) // 64) * 64
