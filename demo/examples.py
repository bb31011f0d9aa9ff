"""What is asked about a clip, and the right answer: the paper's multi-task recipe on this model's kinds of clips.

One clip serves several tasks, told apart by the tags alone (base form), or by a question (chat form). Prompts are built by the
package's own prompt.py and tasks.py, so that training and use cannot differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.random import Generator

from demo.clip_store import TRANSCRIBED
from qwenaudio_np.prompt import Turn, base_prompt, chat_prompt
from qwenaudio_np.special_tokens import ENDOFTEXT, IM_END, timestamp_token
from qwenaudio_np.tasks import task_prompt
from qwenaudio_np.tokenizer import Tokenizer

Entry = dict[str, Any]
GRID = 0.04  # seconds; times are taught in steps of one audio vector

# What is asked about speech: the first two only where word times are known; of the rest, so many in chat form.
TIMESTAMPS, SECOND_TURN, CHAT = 0.25, 0.25, 0.4
SPEECH_AS_SCENE = 0.06  # how often speech is asked about like any other sound
MOST_ASKED = 4  # of a clip's words in one chat: to find a word by what it is takes many more questions than to follow a transcript

TRANSCRIBE = (
    "what does the person say?",
    "What does the person say?",
    "what does the speaker say?",
    "what is said?",
    "what is being said in this recording?",
    "transcribe the speech",
    "Transcribe this audio.",
    "write down what you hear",
)
WHEN = ('when does the person say "{word}"?', 'When is "{word}" said?', 'at what time is the word "{word}" said?')
SCENE = ("what do you hear?", "What kind of sound is this?", "is this speech, music, noise or silence?")
NOTE = ("what instrument is it?", "Which instrument plays this note?", "which note is played, and on what?")


@dataclass(frozen=True)
class Example:
    """Token ids [length], the answer and its end token last; `answer` is where the answer begins.

    The answers of earlier turns have their own beginnings and ends: they are right answers too.
    """

    ids: list[int]
    answer: int
    earlier: tuple[tuple[int, int], ...] = ()


def examples(entry: Entry, vectors: int, tokenizer: Tokenizer, random: Generator) -> Example:
    """One of the clip's tasks, drawn at random."""
    if entry["kind"] in TRANSCRIBED and random.random() < SPEECH_AS_SCENE:
        return _scene(entry | {"text": "speech"}, vectors, tokenizer, random)
    ask = {"note": _note, "scene": _scene}.get(entry["kind"], speech_example)
    return ask(entry, vectors, tokenizer, random)


def task_example(name: str, answer: str, vectors: int, tokenizer: Tokenizer) -> Example:
    """A task of the base form: the clip, its row of tags, the answer, end of text."""
    tags, _ = task_prompt(name)
    ids = list(base_prompt(tokenizer, tags, (vectors,)).ids)
    return _with_answer(ids, answer, ENDOFTEXT, tokenizer)


def chat_example(question: str, answer: str, vectors: int, tokenizer: Tokenizer, earlier: Sequence[tuple[str, str]] = ()) -> Example:
    """The clip with the question, in ChatML; or with the first of the earlier questions, which stand before it with their answers."""
    history = [Turn(asked, () if number else (vectors,), answered) for number, (asked, answered) in enumerate(earlier)]
    prompt = chat_prompt(tokenizer, history, Turn(question, () if earlier else (vectors,)))
    example = _with_answer(list(prompt.ids), answer, IM_END, tokenizer)
    spans, now = [], 0
    for _, answered in earlier:
        said = [*tokenizer.encode(answered, allowed_special="all"), tokenizer.special_ids[IM_END]]
        now = next(k for k in range(now, len(example.ids)) if example.ids[k : k + len(said)] == said)
        spans.append((now, now + len(said)))
    return replace(example, earlier=tuple(spans))


def transcript_answer(text: str) -> str:
    """The chat form of a transcript, as the published model words it."""
    return f'The person says: "{text}".'


def when_answer(word: str, start: float, end: float) -> str:
    """The chat form of one word's times."""
    return f'The word "{word}" starts at {grid_time(start)} seconds and ends at {grid_time(end)} seconds.'


def timestamps_answer(words: list[tuple[str, float, float]]) -> str:
    """Words between their boundaries; the prompt has opened the first segment at 0. Silence of a grid step or more is a segment."""
    text, now = "", 0
    for word, start, end in words:
        first, last = max(round(start / GRID), now), max(round(end / GRID), round(start / GRID) + 1)
        if first > now:
            text += f"<|sil|>{grid_time(first * GRID)}"
        now = max(last, first + 1)
        text += word + grid_time(now * GRID)
    return text


def said_once(words: list[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """Those of a clip's timed words that can be asked about: which one is meant is clear."""
    spoken = [word for word, _, _ in words]
    return [timed for timed in words if spoken.count(timed[0]) == 1]


def note_answer(entry: Entry) -> str:
    """Pitch, velocity and instrument of one note."""
    return f"<|pitch|><|midi_pitch_{entry['pitch']}|><|velocity|><|midi_velocity_{entry['velocity']}|><|instrument|>{entry['instrument']}"


def grid_time(seconds: float) -> str:
    """The time's token, on the grid."""
    return timestamp_token(min(round(seconds / GRID) * GRID, 30.0))


def _with_answer(ids: list[int], answer: str, end: str, tokenizer: Tokenizer) -> Example:
    return Example([*ids, *tokenizer.encode(answer, allowed_special="all"), tokenizer.special_ids[end]], len(ids))


def speech_example(entry: Entry, vectors: int, tokenizer: Tokenizer, random: Generator) -> Example:
    """One of the tasks that ask what is said, or when."""
    words, text, draw = entry["words"] or [], entry["text"], random.random()
    if words and draw < TIMESTAMPS:
        return task_example("timestamps", timestamps_answer(words), vectors, tokenizer)
    once = said_once(words)
    if once and draw < TIMESTAMPS + SECOND_TURN:
        turns = [(str(random.choice(TRANSCRIBE)), transcript_answer(text))]
        for k in random.permutation(len(once))[: random.integers(1, MOST_ASKED + 1)]:
            turns.append((str(random.choice(WHEN)).format(word=once[k][0]), when_answer(*once[k])))
        return chat_example(*turns[-1], vectors, tokenizer, turns[:-1])
    if random.random() < CHAT:
        return chat_example(str(random.choice(TRANSCRIBE)), transcript_answer(text), vectors, tokenizer)
    return task_example("asr", text, vectors, tokenizer)


def _note(entry: Entry, vectors: int, tokenizer: Tokenizer, random: Generator) -> Example:
    """A note is music too, and nobody speaks in it."""
    draw = random.random()
    if draw < 0.15:
        answer = f"The instrument is {entry['instrument']}; the note is <|midi_pitch_{entry['pitch']}|>."
        return chat_example(str(random.choice(NOTE)), answer, vectors, tokenizer)
    if draw < 0.28:
        return _scene(entry | {"text": "music"}, vectors, tokenizer, random)
    return task_example("notes", note_answer(entry), vectors, tokenizer)


def _scene(entry: Entry, vectors: int, tokenizer: Tokenizer, random: Generator) -> Example:
    """Sound that is not speech also has an honest answer to a question about speech."""
    scene, draw = entry["text"], random.random()
    if draw < 0.2:
        return chat_example(str(random.choice(SCENE)), scene, vectors, tokenizer)
    if draw < 0.35 and scene != "speech":
        return chat_example(str(random.choice(TRANSCRIBE)), f"Nobody speaks: this is {scene}.", vectors, tokenizer)
    return task_example("scene", scene, vectors, tokenizer)
