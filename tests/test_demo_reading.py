"""Text that nobody has read aloud: what an imagined clip holds, and what its vectors are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is for training only; pip install '.[train]'")

from demo import sizes  # noqa: E402
from demo.examples import GRID  # noqa: E402
from demo.reading import SILENT, Imagination, Reader, imagined, imagined_clip  # noqa: E402
from demo.texts import is_held_out  # noqa: E402
from qwenaudio_np.special_tokens import AUDIO_START  # noqa: E402
from qwenaudio_np.tokenizer import Tokenizer  # noqa: E402

MODEL = Path(__file__).parents[1] / "qwenaudio_np" / "embedded_model"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(MODEL / "qwen.tiktoken")


def test_an_imagined_clip_says_its_text(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without mishearing, its tokens in a row are the text's, and each word's time holds that word's tokens."""
    monkeypatch.setattr("demo.reading.MISHEARD", 0.0)
    monkeypatch.setattr("demo.reading.LEFT_OUT", 0.0)
    text = "he was not an ill disposed young man"
    entry, said = imagined_clip(text, tokenizer, np.random.default_rng(1))
    assert entry["text"] == text and [word for word, _, _ in entry["words"]] == text.split()
    for number, (word, start, end) in enumerate(entry["words"]):
        inside = said[round(start / GRID) : round(end / GRID)]
        expected = tokenizer.encode(" " * (number > 0) + word)
        assert list(dict.fromkeys(token for token in inside if token != SILENT)) == list(dict.fromkeys(expected))
    assert said[0] == said[-1] == SILENT


def test_readings_are_prompts_about_imagined_clips(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.reading.STRINGS", 0.0)
    texts = [text for number in range(60) if not is_held_out(text := f"number {number} of the sentences")]
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "prose.tsv").write_text("".join(f"{text}\t{text}.\n" for text in texts), "utf-8")
    (tmp_path / "text" / "examples.tsv").write_text("", "utf-8")
    reading = next(iter(Reader(tmp_path, tokenizer, 700, [0])))
    rows = reading.rows
    assert len(rows.ids) == len(reading.counts) == len(reading.tokens) > 3
    for ids, span, count, tokens in zip(rows.ids, rows.spans, reading.counts, reading.tokens, strict=True):
        assert ids[span] == tokenizer.special_ids[AUDIO_START]
        assert (tokens[count:] == SILENT).all()
        assert len(ids) > span + 1 + count
    said = [tokenizer.decode([id_ for id_ in row.tolist() if 0 <= id_ < sizes.RANKS]) for row in rows.targets]
    assert all(any(text in answer for text in texts) for answer in said)
    row, place = (rows.heard[..., 0] >= 0).nonzero(as_tuple=True)
    first, last = rows.heard[row, place].unbind(-1)
    assert len(row) and (rows.spans[row] < first).all() and (first <= last).all() and (last <= rows.spans[row] + reading.counts[row]).all()


def test_an_imagined_row_has_a_share_of_what_was_wrong_with_one_clip() -> None:
    """Vector by vector, as far as that clip goes; here the error of clip c at vector n is 100 c + n + 1, and c is 0 or 1."""
    torch.manual_seed(0)
    imagination = Imagination()
    wrong = (100.0 * torch.arange(2)[:, None, None] + torch.arange(1, 4)[None, :, None]).expand(2, 3, sizes.HIDDEN)
    tokens = torch.tensor([[3, SILENT, 5, 2, SILENT]] * 8)
    with torch.no_grad():
        more = imagined(imagination, tokens, wrong) - imagination(tokens)
    assert torch.allclose(more[:, 3:], torch.zeros(1), atol=1e-4)
    for row in more[:, :3, 0]:
        ratio = (row[1] / row[0]).item()  # (100 c + 2) / (100 c + 1)
        clip = 0 if ratio > 1.5 else 1
        share = row[0].item() / (100 * clip + 1)
        assert 0 <= share <= 1
        assert row.tolist() == pytest.approx([share * (100 * clip + place) for place in (1, 2, 3)], rel=1e-2)


def test_an_imagined_vector_depends_on_its_neighbours_alone() -> None:
    """What is said further away than both convolutions reach, or behind the end, changes nothing."""
    torch.manual_seed(0)
    imagination, tokens = Imagination(), torch.randint(0, sizes.RANKS, (1, 20))
    other = tokens.clone()
    other[0, 14] = SILENT
    same = (imagination(tokens) - imagination(other)).abs().amax(-1)[0] < 1e-6
    assert same.tolist() == [abs(place - 14) > 6 for place in range(20)]
