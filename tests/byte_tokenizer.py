"""A tokenizer without merges: every byte is a token, its rank its value."""

from __future__ import annotations

from qwenaudio_np.tokenizer import Tokenizer

BYTES = Tokenizer({bytes([value]): value for value in range(256)})
