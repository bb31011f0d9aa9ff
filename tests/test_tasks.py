"""The rows of tags of the nine tasks, written out once more by hand from the published evaluation prompts."""

from __future__ import annotations

import re

import pytest

from qwenaudio_np.errors import UsageError
from qwenaudio_np.special_tokens import SPECIAL_TOKENS
from qwenaudio_np.tasks import LANGUAGES, STYLES, TASKS, task_prompt

WRITTEN_OUT = [
    ("asr", {}, "<|startoftranscript|><|en|><|transcribe|><|en|><|notimestamps|><|wo_itn|>", 256),
    ("asr", {"language": "zh"}, "<|startoftranscript|><|zh|><|transcribe|><|zh|><|notimestamps|><|wo_itn|>", 256),
    ("asr", {"language": "unknown"}, "<|startoftranscript|><|unknown|><|transcribe|><|en|><|notimestamps|><|wo_itn|>", 256),
    ("translate", {"language": "de", "text_language": "en"}, "<|startoftranscript|><|de|><|translate|><|en|><|notimestamps|><|itn|>", 256),
    ("timestamps", {}, "<|startoftranscript|><|en|><|transcribe|><|en|><|timestamps|><|0.00|>", 256),
    ("caption", {}, "<|startofanalysis|><|unknown|><|caption|><|en|><|notimestamps|><|caption_clotho|>", 30),
    ("caption", {"style": "audiocaps"}, "<|startofanalysis|><|unknown|><|caption|><|en|><|notimestamps|><|caption_audiocaps|>", 30),
    ("scene", {}, "<|startofanalysis|><|unknown|><|keyword|><|en|><|notimestamps|><|scene|>", 10),
    ("emotion", {}, "<|startofanalysis|><|en|><|keyword|><|en|><|notimestamps|><|emotion_recognition|>", 4),
    ("question", {"question": "Is it raining?"}, "<|startofanalysis|><|en|><|question|>Is it raining?<|answer|>", 4),
    ("vocal", {}, "<|startofanalysis|><|en|><|keyword|><|en|><|notimestamps|><|vocal_classification|>", 4),
    ("notes", {}, "<|startofanalysis|><|unknown|><|keyword|><|en|><|notimestamps|><|note_analysis|>", 30),
]


@pytest.mark.parametrize(("name", "options", "tags", "limit"), WRITTEN_OUT)
def test_tags(name: str, options: dict[str, str], tags: str, limit: int) -> None:
    text, task = task_prompt(name, **options)
    assert (text, task.max_new_tokens) == (tags, limit)


def test_there_are_nine_tasks() -> None:
    assert len(TASKS) == 9


def test_every_tag_exists() -> None:
    for task in TASKS.values():
        for language in LANGUAGES:
            for style in STYLES.values():
                text = task.tags.format(language=language, text_language=language, style=style, question="")
                assert set(re.findall(r"<\|.*?\|>", text)) <= set(SPECIAL_TOKENS)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sing", {}, "unknown task 'sing', expected one of: asr"),
        ("asr", {"language": "klingon"}, "--language is 'klingon', expected one of: en"),
        ("asr", {"text_language": "xx"}, "--text-language is 'xx'"),
        ("caption", {"style": "haiku"}, "--style is 'haiku', expected one of: clotho"),
        ("question", {}, "--question TEXT"),
        ("question", {"question": ""}, "--question TEXT"),
        ("translate", {"language": "de"}, "--text-language"),
        ("scene", {"language": "en"}, "--language does nothing for task scene"),
        ("asr", {"question": "why?"}, "--question does nothing for task asr"),
    ],
)
def test_wrong_choices(name: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        task_prompt(name, **options)
    assert message in str(error.value)
