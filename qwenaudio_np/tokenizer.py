"""Text to token ids and back: Qwen's byte-level BPE with the special tokens of Qwen-Audio.

    tokenizer = Tokenizer.from_file("qwen.tiktoken")
    tokenizer.decode(tokenizer.encode("hello"))                             # "hello"
    tokenizer.encode("<|transcribe|>", allowed_special={"<|transcribe|>"})  # [151855]

Source: tokenization_qwen.py of Qwen-Audio; the ids are those of tiktoken.
"""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import index
from pathlib import Path

from qwenaudio_np import bpe
from qwenaudio_np.errors import UsageError, shown
from qwenaudio_np.special_tokens import SPECIAL_TOKENS, TAG_SHAPE
from qwenaudio_np.vocabulary import read_ranks

# Words repeat; remembering a bounded number of them saves most merges. Long pieces hardly ever repeat.
_CACHED_PIECES = 1 << 15
_CACHED_PIECE_LENGTH = 32


class Tokenizer:
    """A vocabulary: `n_ranks` ordinary tokens, ids from 0, then the special ones up to `n_vocab`.

    The rows of the model's embedding table beyond `n_vocab` are padding and have no token.
    """

    def __init__(self, ranks: Mapping[bytes, int], special_tokens: Sequence[str] = SPECIAL_TOKENS) -> None:
        """`ranks` as from `read_ranks`; a text-only Qwen-1 model has just `special_tokens.TEXT_TOKENS`."""
        self.n_ranks = len(ranks)
        self.n_vocab = self.n_ranks + len(special_tokens)
        self.special_ids: dict[str, int] = {name: self.n_ranks + place for place, name in enumerate(special_tokens)}
        self._ranks = ranks
        self._bytes_of = sorted(ranks, key=ranks.__getitem__) + [name.encode() for name in special_tokens]
        self._cached_ids = lru_cache(_CACHED_PIECES)(self._ids)

    @classmethod
    def from_file(cls, path: str | Path, special_tokens: Sequence[str] = SPECIAL_TOKENS) -> Tokenizer:
        """Read a vocabulary file in tiktoken's format; raises FormatError, naming the line, if anything is wrong with it."""
        return cls(read_ranks(path), special_tokens)

    def encode(self, text: str, allowed_special: Collection[str] = frozenset()) -> list[int]:
        """Ids of a text, normalised to NFC first.

        Special tokens in the text count only if named in `allowed_special` ("all": every one); any other is
        ordinary text. Half surrogates, which have no UTF-8 form, are joined or become U+FFFD, as tiktoken does.
        Raises UsageError for a name in `allowed_special` that is no special token.
        """
        allowed = self._allowed(allowed_special)
        text = _without_surrogates(unicodedata.normalize("NFC", text))
        ids: list[int] = []
        start = 0
        for match in TAG_SHAPE.finditer(text) if allowed else ():
            if match[0] in allowed:
                ids.extend(self._encode_ordinary(text[start : match.start()]))
                ids.append(self.special_ids[match[0]])
                start = match.end()
        ids.extend(self._encode_ordinary(text[start:]))
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; bytes that are not UTF-8 become U+FFFD. Raises UsageError for an id without a token."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of ids, special tokens in their written form. Raises UsageError for an id without a token."""
        return b"".join(map(self.token_bytes, ids))

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token. Raises UsageError for an id without a token."""
        if not 0 <= index(token_id) < self.n_vocab:
            raise UsageError(f"token id {token_id} is not in the vocabulary, expected 0 to {self.n_vocab - 1}")
        return self._bytes_of[token_id]

    def id_of(self, name: str) -> int:
        """The id of a special token by its written form, `id_of("<|im_end|>")`. Raises UsageError if there is none."""
        if name not in self.special_ids:
            raise UsageError(f"{shown(name)} is not a special token of this vocabulary; expected one such as '<|im_end|>'")
        return self.special_ids[name]

    def _allowed(self, names: Collection[str]) -> Collection[str]:
        if isinstance(names, str):  # a string is a collection of letters, which is never what was meant
            if names != "all":
                raise UsageError(f"allowed_special is {shown(names)}, expected a set of special tokens or 'all'")
            return self.special_ids.keys()
        for name in names:
            self.id_of(name)
        return names

    def _encode_ordinary(self, text: str) -> Iterator[int]:
        for piece in bpe.split(text):
            yield from self._cached_ids(piece) if len(piece) <= _CACHED_PIECE_LENGTH else self._ids(piece)

    def _ids(self, piece: str) -> list[int]:
        return bpe.merge(piece.encode(), self._ranks)


class StreamDecoder:
    """Decode ids one by one, for text that is shown while it is generated.

    A token may end within a character; such bytes wait for the next token. Everything that was returned, joined, is
    what `Tokenizer.decode` makes of all the ids at once (which takes no padding rows, see `push`).
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The text that this id completes, perhaps "". A padding row of the model becomes `<|unused_ID|>`.

        Raises UsageError for a negative id.
        """
        if token_id >= self._tokenizer.n_vocab:
            return self._utf8.decode(f"<|unused_{token_id}|>".encode())
        return self._utf8.decode(self._tokenizer.token_bytes(token_id))

    def flush(self) -> str:
        """U+FFFD for a character that was never completed, else ""; the decoder is then as new."""
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return rest


def _without_surrogates(text: str) -> str:
    """Join halves of surrogate pairs and replace lone ones, exactly as tiktoken's `Encoding.encode` does."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
