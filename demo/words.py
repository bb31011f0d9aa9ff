"""The model's own vocabulary file, learned from the prose, the strings and the questions: `python -m demo.words --data build/demo`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from convert.vocabulary import learn_vocabulary, write_vocabulary
from demo import examples, sizes
from demo.word_strings import word_string
from qwenaudio_np.tokenizer import Tokenizer

FILE = "qwen.tiktoken"


def main() -> None:
    """Write `qwen.tiktoken` into the data folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("build/demo"), help="folder of text/, which demo.speech wrote")
    data = parser.parse_args().data
    if not (data / "text" / "prose.tsv").exists():
        raise SystemExit(f"no text in {data / 'text'}: run python -m demo.speech first")
    prose = [line.split("\t")[0] for line in (data / "text" / "prose.tsv").read_text("utf-8").splitlines()]
    random = np.random.default_rng(3)
    strings = [" ".join(word_string(random)) for _ in range(len(prose) // 10)]
    write_vocabulary(data / FILE, learn_vocabulary("\n".join([*prose, *strings, *chat_phrases() * (len(prose) // 100)]), sizes.RANKS))


def chat_phrases() -> list[str]:
    """What surrounds questions and answers; often in the text, so that it becomes few tokens."""
    frame = ["You are a helpful assistant.", "system", "user", "assistant", "Audio 1:"]
    questions = [*examples.TRANSCRIBE, *examples.WHEN, *examples.SCENE, *examples.NOTE]
    answers = [examples.transcript_answer(""), 'The word "" starts at seconds and ends at', "Nobody speaks: this is music."]
    return [*frame, *questions, *answers, "The instrument is ; the note is"]


def load(data: Path) -> Tokenizer:
    """The tokenizer of the data folder's vocabulary. Raises SystemExit where there is none."""
    return Tokenizer.from_file(require(data))


def require(data: Path, *models: Path | None) -> Path:
    """The data folder's vocabulary file.

    Raises SystemExit where there is none, or where an exported model has another: its ids would be other words.
    """
    path = data / FILE
    if not path.exists():
        raise SystemExit(f"no {path}: run python -m demo.words first, or copy the one of the model that is gone on from")
    for model in filter(None, models):
        if not (model / FILE).exists():
            raise SystemExit(f"no {model / FILE}: {model} is no exported model")
        if (model / FILE).read_bytes() != path.read_bytes():
            raise SystemExit(f"{model / FILE} is not {path}: to go on from {model}, copy its file there")
    return path


if __name__ == "__main__":
    main()
