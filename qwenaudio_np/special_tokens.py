"""The ordered table of special tokens.

The file `qwen.tiktoken` holds only the ordinary tokens, the *ranks*. The special tokens follow them: the id of a special
token is the number of ranks + its place in this table. With the published 151,643 ranks `<|endoftext|>` is 151643
and `</audio>` is 155164; a shorter file moves all of them down alike.

Source: tokenization_qwen.py of Qwen-Audio.
"""

from __future__ import annotations

import math
import re

from qwenaudio_np.errors import UsageError

ENDOFTEXT = "<|endoftext|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
AUDIO_START = "<audio>"
AUDIO_END = "</audio>"
AUDIO_PLACEHOLDER = "[[[AUDIO:modality]]]"

TIMESTAMPS_PER_SECOND = 100
MAX_TIMESTAMP = 30  # seconds: one clip

# Every special token looks like this, and none can begin inside another one.
TAG_SHAPE = re.compile(r"<\|[A-Za-z0-9_.]+\|>|</?audio>|\[\[\[AUDIO:modality\]\]\]")


def tag(name: str) -> str:
    """The written form of a tag: `tag("transcribe")` is `<|transcribe|>`."""
    return f"<|{name}|>"


def timestamp_token(seconds: float) -> str:
    """The token of a time within a clip, 0 to 30 s, to the nearest 0.01 s: `timestamp_token(2.33)` is `<|2.33|>`.

    Raises UsageError for a time outside that range or not a number.
    """
    steps = round(seconds * TIMESTAMPS_PER_SECOND) if math.isfinite(seconds) else -1
    if not 0 <= steps <= MAX_TIMESTAMP * TIMESTAMPS_PER_SECOND:
        raise UsageError(f"there is no timestamp token for {seconds} seconds; expected a time from 0 to {MAX_TIMESTAMP}")
    return _timestamp(steps)


def _timestamp(steps: int) -> str:
    return tag(f"{steps // TIMESTAMPS_PER_SECOND}.{steps % TIMESTAMPS_PER_SECOND:02d}")


def _tags(names: str) -> tuple[str, ...]:
    return tuple(tag(name) for name in names.split())


# ChatML and padding: all that a text-only Qwen-1 checkpoint has.
TEXT_TOKENS = (ENDOFTEXT, IM_START, IM_END, *(tag(f"extra_{i}") for i in range(205)))

LANGUAGES = ("en", "zh", "de", "es", "ko", "fr", "ja", "it")

_TIMESTAMPS = tuple(_timestamp(steps) for steps in range(MAX_TIMESTAMP * TIMESTAMPS_PER_SECOND + 1))

_NOTES = (
    *_tags("note_analysis pitch"),
    *(tag(f"midi_pitch_{k}") for k in range(128)),
    tag("velocity"),
    *(tag(f"midi_velocity_{k}") for k in range(128)),
    *_tags("sonic instrument speaker_meta song_meta"),
)

AUDIO_TOKENS = (
    AUDIO_PLACEHOLDER,
    *_tags("startoftranscript startofanalysis translate transcribe caption keyword unknown"),
    *(tag(language) for language in LANGUAGES),
    *_tags("zh_tr notimestamps sil timestamps"),
    *_TIMESTAMPS,
    *_tags("caption_audiocaps caption_clotho audioset_ontology caption_plain itn wo_itn"),
    *_tags("startofentityvalue endofentityvalue startofentitytype endofentitytype named_entity_recognition"),
    *_tags("audio_grounding startofword endofword delim emotion_recognition music_description"),
    *_NOTES,
    *_tags("question answer choice scene event vocal_classification speech_understanding"),
    *_tags("scenario action entities speech_edit"),
    AUDIO_START,
    AUDIO_END,
)

SPECIAL_TOKENS: tuple[str, ...] = TEXT_TOKENS + AUDIO_TOKENS

# What chat text may contain; the text tokens stay ordinary text there.
AUDIO_FAMILY: frozenset[str] = frozenset(AUDIO_TOKENS)
