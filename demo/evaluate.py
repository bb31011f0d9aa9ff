"""What the exported model can do, on clips it never learned from: `python -m demo.evaluate --data build/demo MODEL`.

Every clip whose split is "test" goes through the package itself, greedily, as a user would ask; the table counts clips and words.
Errors are word errors (substituted, inserted, left out) over the words that were said.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

import qwenaudio_np
from demo.alignment import boundary_shifts, timed_words, word_errors
from demo.clip_store import TRANSCRIBED, read_labels
from demo.examples import TRANSCRIBE, WHEN, Entry, said_once
from demo.word_strings import STRING_WORDS, TELEPHONE_WORDS
from qwenaudio_np.special_tokens import TAG_SHAPE
from qwenaudio_np.tasks import task_prompt

PEOPLE = ("asterisk_words", "asterisk_prompts", "klettres", "ktuberling", "librivox", "sphinx_words")
NEAR = 0.2  # seconds that a start or an end may be off in a second turn; that the answer names the word of the question is no feat
WHEN_ANSWERED = re.compile(r'The word "(?P<word>.*)" starts at <\|(?P<start>[\d.]+)\|> seconds and ends at <\|(?P<end>[\d.]+)\|> seconds\.')


@dataclass
class Score:
    """Sums of one row of the table."""

    clips: int = 0
    words: int = 0
    errors: int = 0
    shifts: list[float] = field(default_factory=list)  # seconds, one per boundary of a matched word
    right: Counter[str] = field(default_factory=Counter)

    def add(self, other: Score) -> None:
        """Count another row's clips too."""
        self.clips, self.words, self.errors = self.clips + other.clips, self.words + other.words, self.errors + other.errors
        self.shifts += other.shifts
        self.right.update(other.right)


Job = tuple[argparse.Namespace, str]  # the command line, and the source to score


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/demo"))
    parser.add_argument("--weights", help="float32, bfloat16, int8 or int4 (default: as stored)")
    parser.add_argument("--limit", type=int, help="most clips of one source, evenly spread over it (default: all)")
    parser.add_argument("--sources", nargs="*", help="only these")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--show", action="store_true", help="print every answer that is wrong")
    parser.add_argument("model", type=Path)
    arguments = parser.parse_args()
    sources = arguments.sources or [path.stem for path in sorted((arguments.data / "clips").glob("*.jsonl"))]
    if missing := [source for source in sources if not (arguments.data / "clips" / f"{source}.jsonl").exists()]:
        raise SystemExit(f"{arguments.data / 'clips'}: nothing of {', '.join(missing)}; demo/README.md has the commands that write clips")
    scores: dict[str, Score] = defaultdict(Score)
    with get_context("spawn").Pool(arguments.processes) as pool:
        for found in pool.imap_unordered(score_source, [(arguments, source) for source in sources], chunksize=1):
            for row, score in found.items():
                scores[row].add(score)
    if not scores:
        raise SystemExit(f"{arguments.data / 'clips'}: no clips for a test; demo/README.md has the commands that write them")
    print(table(scores))


def score_source(job: Job) -> dict[str, Score]:
    """The rows of one source's test clips, and the sums over all synthetic voices and all people."""
    arguments, source = job
    scores: dict[str, Score] = defaultdict(Score)
    entries = [entry for entry in read_labels(arguments.data / "clips" / f"{source}.jsonl") if entry["split"] == "test"]
    if not entries:
        return {}
    model = qwenaudio_np.load(arguments.model, weights=arguments.weights, threads=1)
    for entry in evenly(entries, arguments.limit):
        ask = {"read": _score_speech, "words": _score_speech, "note": _score_note, "scene": _score_scene}[entry["kind"]]
        score, wrong = ask(model, str(arguments.data / entry["file"]), entry)
        for row in rows(entry, source):
            scores[row].add(score)
        if once := said_once(entry["words"] or []):
            people = "people" if source in PEOPLE else "synthetic voices"
            scores[f"second turn: {people}"].add(score_second_turn(model, str(arguments.data / entry["file"]), once[len(once) // 2]))
        if arguments.show and wrong:
            print(f"{entry['file']}: {wrong}", flush=True)
    return dict(scores)


def evenly(entries: list[Entry], limit: int | None) -> list[Entry]:
    """At most `limit` of them, from the first to the last."""
    count = min(limit or len(entries), len(entries))
    return [entries[k * len(entries) // count] for k in range(count)]


def rows(entry: Entry, source: str) -> list[str]:
    """The rows of the table that a clip counts in."""
    part = f", {entry['part']}" if entry.get("part") else ""
    if entry["kind"] not in TRANSCRIBED:
        return [f"{entry['kind']}: {source}{part}", f"{entry['kind']}: all"]
    total, said = f"{entry['kind']}: all {'people' if source in PEOPLE else 'synthetic voices'}", entry["text"].split()
    if entry["kind"] == "words" and source in PEOPLE and not STRING_WORDS.issuperset(said):
        total = f"words: people, {'telephone words' if (STRING_WORDS | TELEPHONE_WORDS).issuperset(said) else 'other words'}"
    alone = ["words: all people, a word alone"] if total == "words: all people" and len(said) == 1 else []
    return [f"{entry['kind']}: {source}{part}", total, *alone]


def run_task(model: Any, name: str, sound: str | np.ndarray) -> str:
    """The model's answer to a task of the base form, about a file or samples [n] at 16 kHz."""
    tags, task = task_prompt(name)
    return str(model.generate(tags, sound, format="base", max_new_tokens=task.max_new_tokens, min_new_tokens=1).text)


def _score_speech(model: Any, sound: str, entry: Entry) -> tuple[Score, str]:
    said = entry["text"].split()
    heard = TAG_SHAPE.sub(" ", run_task(model, "asr", sound)).split()
    score = Score(1, len(said), word_errors(said, heard))
    if entry["words"]:
        timed = timed_words("<|0.00|>" + run_task(model, "timestamps", sound))
        score.shifts = boundary_shifts([tuple(word) for word in entry["words"]], timed)
    return score, f"{' '.join(said)!r} heard as {' '.join(heard)!r}" if score.errors else ""


def score_second_turn(model: Any, sound: str, asked: tuple[str, float, float]) -> Score:
    """A chat: what is said, and then when one word is said."""
    chat = model.chat()
    chat.ask(TRANSCRIBE[0], audio=[sound])
    answer = WHEN_ANSWERED.fullmatch(chat.ask(WHEN[0].format(word=asked[0])).text)
    if not answer or answer["word"] != asked[0]:
        return Score(clips=1, right=Counter(word=False, times=False))
    shifts = [abs(float(answer[name]) - time) for name, time in zip(("start", "end"), asked[1:], strict=True)]
    return Score(clips=1, shifts=shifts, right=Counter(word=True, times=max(shifts) <= NEAR))


def _score_note(model: Any, sound: str, entry: Entry) -> tuple[Score, str]:
    answer = run_task(model, "notes", sound)
    right = {name: f"<|midi_{name}_{entry[name]}|>" in answer for name in ("pitch", "velocity")}
    right["instrument"] = answer.endswith(f"<|instrument|>{entry['instrument']}")
    wrong = "" if all(right.values()) else f"{entry['pitch']}, {entry['velocity']}, {entry['instrument']} heard as {answer}"
    return Score(clips=1, right=Counter(right)), wrong


def _score_scene(model: Any, sound: str, entry: Entry) -> tuple[Score, str]:
    answer = run_task(model, "scene", sound)
    right = answer == entry["text"]
    return Score(clips=1, right=Counter(scene=right)), "" if right else f"{entry['text']} heard as {answer!r}"


def table(scores: dict[str, Score]) -> str:
    """The scores as a Markdown table."""
    lines = ["| clips | count | words | word errors | word boundaries | right |", "|---|---|---|---|---|---|"]
    for row, score in sorted(scores.items()):
        errors = f"{100 * score.errors / score.words:.1f} %" if score.words else ""
        shift = f"{1000 * np.mean(score.shifts):.0f} ms" if score.shifts else ""
        right = ", ".join(f"{name} {100 * count / score.clips:.1f} %" for name, count in score.right.items())
        lines.append(f"| {row} | {score.clips} | {score.words or ''} | {errors} | {shift} | {right} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
