"""The nine tasks of the base model, one table: which tags ask for it, how long an answer may be, how it is scored.

The tags form a hierarchy (arXiv 2311.07919, section 3.2): start, audio language, task, text language, timestamps or not, output
instruction. Prompts, limits and scoring are those of the original's evaluation scripts; all are greedy, first token not the end token.
"""

from __future__ import annotations

from dataclasses import dataclass

from qwenaudio_np.errors import UsageError, shown
from qwenaudio_np.special_tokens import LANGUAGES

STYLES = {"clotho": "caption_clotho", "audiocaps": "caption_audiocaps", "plain": "caption_plain"}


@dataclass(frozen=True)
class Task:
    """`tags` has the fields {language}, {text_language}, {question} and {style}; those it names may be chosen."""

    summary: str
    tags: str
    max_new_tokens: int
    scored_by: str


TASKS = {
    "asr": Task(
        "speech recognition",
        "<|startoftranscript|><|{language}|><|transcribe|><|{text_language}|><|notimestamps|><|wo_itn|>",
        256,
        "word error rate; Chinese: character error rate",
    ),
    "translate": Task(
        "speech-to-text translation",
        "<|startoftranscript|><|{language}|><|translate|><|{text_language}|><|notimestamps|><|itn|>",
        256,
        "sacrebleu corpus BLEU (tokenizers: zh, ja-mecab, else 13a)",
    ),
    "timestamps": Task(
        "speech recognition with word timestamps",
        "<|startoftranscript|><|{language}|><|transcribe|><|{text_language}|><|timestamps|><|0.00|>",
        256,
        "average absolute shift of word boundaries; character error rate",
    ),
    "caption": Task(
        "audio captioning",
        "<|startofanalysis|><|unknown|><|caption|><|{text_language}|><|notimestamps|><|{style}|>",
        30,
        "CIDEr, SPICE, SPIDEr",
    ),
    "scene": Task(
        "acoustic scene classification",
        "<|startofanalysis|><|unknown|><|keyword|><|en|><|notimestamps|><|scene|>",
        10,
        "exact match",
    ),
    "emotion": Task(
        "speech emotion recognition",
        "<|startofanalysis|><|{language}|><|keyword|><|en|><|notimestamps|><|emotion_recognition|>",
        4,
        "exact match",
    ),
    "question": Task(
        "audio question answering",
        "<|startofanalysis|><|{language}|><|question|>{question}<|answer|>",
        4,
        "exact match",
    ),
    "vocal": Task(
        "vocal sound classification",
        "<|startofanalysis|><|{language}|><|keyword|><|en|><|notimestamps|><|vocal_classification|>",
        4,
        "exact match",
    ),
    "notes": Task(
        "music note analysis",
        "<|startofanalysis|><|unknown|><|keyword|><|en|><|notimestamps|><|note_analysis|>",
        30,
        "instrument and pitch: exact match; qualities: mean average precision",
    ),
}


def task_prompt(
    name: str, language: str | None = None, text_language: str | None = None, question: str | None = None, style: str | None = None
) -> tuple[str, Task]:
    """The row of tags that asks for a task, and the task's entry. Raises UsageError for anything the table does not know.

    language: of the sound (default en; `unknown` is allowed). text_language: of the answer (default: that of the sound).
    """
    task = TASKS.get(name)
    if task is None:
        raise UsageError(f"unknown task {shown(name)}, expected one of: {', '.join(TASKS)}")
    _check_choices(name, task, {"language": language, "text_language": text_language, "question": question, "style": style})
    if "{question}" in task.tags and not question:
        raise UsageError(f"task {name} needs a question: --question TEXT")
    if name == "translate" and not text_language:
        raise UsageError(f"task translate needs the language to translate into: --text-language, one of: {', '.join(LANGUAGES)}")
    language = language or "en"
    text_language = text_language or (language if language in LANGUAGES else "en")
    return task.tags.format(language=language, text_language=text_language, question=question, style=STYLES[style or "clotho"]), task


def _check_choices(name: str, task: Task, given: dict[str, str | None]) -> None:
    """Each given option must be one that this task's tags have a place for, with a value that has a tag."""
    allowed = {"language": (*LANGUAGES, "unknown"), "text_language": (*LANGUAGES, "zh_tr"), "style": tuple(STYLES)}
    for option, value in given.items():
        if value is None:
            continue
        flag = "--" + option.replace("_", "-")
        if "{" + option + "}" not in task.tags:
            raise UsageError(f"{flag} does nothing for task {name}; leave it out")
        if option in allowed and value not in allowed[option]:
            raise UsageError(f"{flag} is {shown(value)}, expected one of: {', '.join(allowed[option])}")
