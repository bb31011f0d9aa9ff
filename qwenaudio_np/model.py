"""QwenAudio: the figure of the paper as code.

    clips -> encode_audio ┐
    prompt -> ids ------- embed -> prefill -> logits -> (sampler) -> id -> step -> logits -> ...

The class holds what does not change between requests: config, weights as stored, tokenizer, and the operations it runs on.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from qwenaudio_np.audio import Clip
from qwenaudio_np.backends import Ops
from qwenaudio_np.cache import KVCache, Past
from qwenaudio_np.chat import Chat
from qwenaudio_np.config import AudioConfig, ModelConfig
from qwenaudio_np.decoder import decode, ntk_alpha
from qwenaudio_np.encoder import encode_clip, visible_frames
from qwenaudio_np.errors import MismatchError, UsageError, value_of
from qwenaudio_np.mel import log_mel
from qwenaudio_np.ops import Array
from qwenaudio_np.prompt import find_spans
from qwenaudio_np.request import Result, answer
from qwenaudio_np.tokenizer import Tokenizer
from qwenaudio_np.wiring import Tap, Weights, ignore, prefixed

Sounds = MutableMapping[tuple[Clip, int], Array]


class QwenAudio:
    """A loaded model. `qwenaudio_np.load(folder)` makes one."""

    def __init__(
        self,
        config: ModelConfig,
        weights: Weights,
        tokenizer: Tokenizer,
        ops: Ops,
        dtype: type = np.float32,
        labels: dict[str, str] | None = None,
        kv: DTypeLike | None = None,
    ) -> None:
        self.config = config
        self.weights = weights
        self.tokenizer = tokenizer
        self.ops = ops
        self.dtype = np.dtype(dtype)
        self.kv = np.dtype(dtype if kv is None else kv)  # of cached keys and values; uint16 is bfloat16
        self.labels = labels or {}  # model, backend, weights, kv: what every result is marked with

    def audio_config(self) -> AudioConfig:
        """The encoder's config. Raises UsageError for a text-only checkpoint."""
        if self.config.audio is None:
            raise UsageError("this checkpoint is text-only (no audio section in config.json) and takes no --input; use a Qwen-Audio one")
        return self.config.audio

    def encode_audio(self, clips: Sequence[Clip], tap: Tap = ignore, known: Sounds | None = None) -> list[Array]:
        """The clips of one prompt -> for each [vectors + 2, hidden] (without learned end rows: [vectors, hidden]).

        `known` holds clips that were encoded before, by clip and frames seen of it; it is used and added to.
        """
        known = {} if known is None else known
        seen = list(zip(clips, visible_frames([len(clip.waveform) for clip in clips]), strict=True))
        for k, (clip, frames) in enumerate(seen):
            if (clip, frames) not in known:
                known[clip, frames] = self._encode(clip, frames, prefixed(f"audio.{k}.", tap))
        return [known[key] for key in seen]

    def _encode(self, clip: Clip, frames: int, tap: Tap) -> Array:
        """One clip, of whose log-mel the convolutions see `frames` frames -> [vectors + 2, hidden]"""
        config = self.audio_config()
        mel = log_mel(clip.waveform, config.n_mels, self.dtype)  # [mels, 3000]
        return encode_clip(mel[:, :frames], len(clip.waveform), self.weights, config, self.ops, tap)

    def embed(self, ids: Sequence[int], sounds: Sequence[Array] = ()) -> Array:
        """ids [length] -> [length, hidden]; the k-th span between audio tags is overwritten, tags included, by the k-th sound."""
        x = self.look_up(ids)  # [length, hidden]
        for (begin, end), sound in zip(self.spans(ids, [len(sound) for sound in sounds]), sounds, strict=True):
            x[begin:end] = sound
        return x

    def spans(self, ids: Sequence[int], rows: Sequence[int]) -> list[tuple[int, int]]:
        """Where in the ids the sounds go, of which the k-th has rows[k] rows. Raises MismatchError where they do not fit."""
        audio = self.config.audio
        spans = find_spans(ids, audio.audio_start_id) if audio else []
        if len(spans) != len(rows):
            raise MismatchError(f"the ids have {len(spans)} audio spans but {len(rows)} clips were given; they must be equal")
        if audio and not audio.add_audio_bos_eos_token:  # no learned end rows: the tags keep their word embeddings
            spans = [(begin + 1, end - 1) for begin, end in spans]
        for k, ((begin, end), count) in enumerate(zip(spans, rows, strict=True)):
            if end - begin != count:
                raise MismatchError(f"audio span {k + 1} has {end - begin} positions but its clip gives {count}; they must be equal")
        return spans

    def sound_rows(self, clip: Clip) -> int:
        """How many rows `encode_audio` makes of a clip."""
        return clip.vectors + (2 if self.audio_config().add_audio_bos_eos_token else 0)

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raise UsageError for no ids, for more than this model has positions, or for one without a row in the word embedding."""
        limit = self.config.text.max_position_embeddings
        if not 0 < len(ids) <= limit:
            advice = "shorten the text, give fewer clips or fewer turns" if len(ids) else "give some text, or a clip"
            raise UsageError(f"the prompt has {len(ids)} tokens, expected 1 to {limit} (max_position_embeddings); {advice}")
        if min(ids) < 0 or max(ids) >= self.config.text.vocab_size:
            least, most = value_of(min(ids)), value_of(max(ids))
            raise UsageError(f"token ids must be from 0 to {self.config.text.vocab_size - 1}, got {least} to {most}")

    def look_up(self, ids: Sequence[int]) -> Array:
        """ids [length] -> their rows of the word embedding, [length, hidden]. Raises UsageError as `check_ids` does."""
        self.check_ids(ids)
        return self.ops.embedding(self.weights["transformer.wte.weight"], np.asarray(ids, np.intp), self.dtype)

    def prefill(self, x: Array, tap: Tap = ignore, past: Past | None = None) -> tuple[Array, KVCache]:
        """x [length, hidden] of a whole prompt -> hidden states [length, hidden] after ln_f, and the filled cache.

        With the `past` of an earlier prompt, the first rows that both have in common are not computed again, and not returned; its cache is
        taken over, also where nothing is in common: two would have to find room at once.
        """
        alpha = ntk_alpha(len(x), self.config.text)
        shared = past.shared(x, alpha) if past else 0
        cache = past.cache if past else KVCache(self.config.text, self.kv)
        cache.truncate(shared)
        if past:
            past.inputs = past.inputs[:shared]  # if this is interrupted, they still are those of the cache
        cache.ntk_alpha = alpha
        return decode(x[shared:], cache, self.weights, self.config.text, self.ops, tap), cache

    def step(self, token: int, cache: KVCache) -> Array:
        """One more token [id] -> the logits of the one after it, [vocabulary]."""
        hidden = decode(self.look_up([token]), cache, self.weights, self.config.text, self.ops)
        return self.logits(hidden)[0]

    def logits(self, hidden: Array) -> Array:
        """hidden [length, hidden] -> [length, vocabulary]"""
        return self.ops.linear(hidden, self.weights["lm_head.weight"])

    def generate(self, prompt: str = "", audio: Any = (), **options: Any) -> Result:
        """One answer to a prompt about one clip or a list of them: paths, Clips, or float arrays at 16 kHz.

        `options`: task, language, text_language, question, style, format, system, history, max_new_tokens, min_new_tokens,
        temperature, top_k, top_p, seed, stream, ...; what they mean is said in `request.answer` and `prepare.prepare`.
        """
        return answer(self, prompt, audio, **options)

    def chat(self, system: str | None = None) -> Chat:
        """A conversation that remembers its turns: `chat.ask("what does the person say?", audio=["a.flac"])`."""
        return Chat(self, system)
