"""The parts of the recipe in demo/ that need no PyTorch and no synthesiser."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from demo import real, sizes, whisper, words
from demo.alignment import boundary_shifts, matched, timed_words, word_errors
from demo.examples import chat_example, grid_time, note_answer, said_once, task_example, timestamps_answer, when_answer
from qwenaudio_np.config import parse_config
from qwenaudio_np.special_tokens import AUDIO_PLACEHOLDER, SPECIAL_TOKENS
from tests.byte_tokenizer import BYTES


@pytest.mark.parametrize(
    "said, heard, errors",
    [("a b c", "a b c", 0), ("a b c", "a x c", 1), ("a b c", "a c", 1), ("a c", "a b c", 1), ("", "a b", 2), ("a b", "b a", 2)],
)
def test_word_errors_by_hand(said: str, heard: str, errors: int) -> None:
    assert word_errors(said.split(), heard.split()) == errors


def test_matched_words_by_hand() -> None:
    assert matched(["one", "two", "three", "four"], ["one", "too", "three", "extra", "four"]) == [(0, 0), (2, 2), (3, 4)]


def test_timed_words_are_read_back_as_they_were_written() -> None:
    said = [("three", 0.52, 0.88), ("five", 0.88, 1.2), ("two", 1.48, 1.8)]
    text = timestamps_answer(said)
    assert text == "<|sil|><|0.52|>three<|0.88|>five<|1.20|><|sil|><|1.48|>two<|1.80|>"
    assert timed_words("<|0.00|>" + text) == said


def test_times_fall_on_the_grid_and_words_never_run_backwards() -> None:
    assert grid_time(0.99) == "<|1.00|>"
    assert timestamps_answer([("a", 0.01, 0.03), ("b", 0.03, 0.05)]) == "a<|0.04|>b<|0.08|>"


def test_boundary_shifts_by_hand() -> None:
    said, heard = [("a", 0.0, 1.0), ("b", 1.0, 2.0)], [("a", 0.1, 0.9), ("x", 1.0, 2.0)]
    assert boundary_shifts(said, heard) == pytest.approx([0.1, 0.1])


def test_an_example_is_prompt_answer_and_end() -> None:
    example = task_example("asr", "hi", 3, BYTES)
    assert example.ids[example.answer :] == [*b"hi", BYTES.special_ids["<|endoftext|>"]]
    assert example.ids.count(BYTES.special_ids[AUDIO_PLACEHOLDER]) == 3


def test_a_second_turn_keeps_the_clip_in_the_first() -> None:
    example = chat_example("when?", when_answer("b", 0.4, 0.8), 3, BYTES, earlier=[("what?", "b")])
    text = BYTES.decode(example.ids)
    assert text.index("</audio>") < text.index("what?") < text.index("when?")
    assert text.endswith('The word "b" starts at <|0.40|> seconds and ends at <|0.80|> seconds.<|im_end|>')
    assert BYTES.decode(example.ids[slice(*example.earlier[0])]) == "b<|im_end|>" and example.ids[: example.earlier[0][0]][-10:] == [
        *b"assistant\n"
    ]


def test_every_answer_of_a_longer_chat_is_marked_in_order() -> None:
    answers = [when_answer("a", 0.0, 0.4), when_answer("b", 0.4, 0.8), when_answer("a", 0.0, 0.4)]
    example = chat_example("when?", answers[-1], 3, BYTES, earlier=[("what?", "a b"), *[("when?", answer) for answer in answers[:2]]])
    marked = [BYTES.decode(example.ids[slice(*span)]) for span in (*example.earlier, (example.answer, len(example.ids)))]
    assert marked == [f"{answer}<|im_end|>" for answer in ("a b", *answers)]


def test_only_a_word_that_was_said_once_is_asked_about() -> None:
    said = [("two", 0.0, 0.2), ("one", 0.3, 0.5), ("two", 0.6, 0.8)]
    assert said_once(said) == [("one", 0.3, 0.5)] and said_once([]) == []


def test_notes_are_answered_in_tokens() -> None:
    answer = note_answer({"pitch": 60, "velocity": 100, "instrument": "flute"})
    ids = BYTES.encode(answer, allowed_special="all")
    assert len(ids) == 5 + len("flute") and BYTES.decode(ids) == answer


def test_the_sizes_make_a_config_that_the_package_reads() -> None:
    config = parse_config(sizes.config())
    assert config.audio is not None and config.audio.n_layer == sizes.WHISPER_BLOCKS + sizes.MORE_BLOCKS
    assert config.text.ff_size == sizes.INNER and config.text.head_dim == 64
    assert config.text.vocab_size >= sizes.RANKS + len(SPECIAL_TOKENS)


def test_the_encoder_is_read_from_a_file_of_named_arrays(tmp_path: Path) -> None:
    """A CTranslate2 file of one layer, written here byte by byte from the description of the format."""
    random = np.random.default_rng(5)
    layer = "encoder/layer_0/"
    arrays = {"encoder/" + name: random.standard_normal((2, 2)).astype(np.float16) for name in whisper.TOP_PARTS}
    arrays |= {layer + name: random.standard_normal((2, 2)).astype(np.float16) for name in whisper.LAYER_PARTS}
    arrays[layer + "self_attention/linear_0/weight"] = np.arange(12, dtype=np.float32).reshape(6, 2)
    arrays[layer + "self_attention/linear_0/bias"] = np.array([1, 2, 0, 0, 5, 6], np.float32)
    path = tmp_path / "model.bin"
    head = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(arrays))
    path.write_bytes(head + b"".join(variable(name, array) for name, array in arrays.items()))
    found = whisper.read_encoder(path)
    assert found["blocks.0.attn.query.weight"].tolist() == [[0, 1], [2, 3]]
    assert found["blocks.0.attn.key.weight"].tolist() == [[4, 5], [6, 7]]
    assert found["blocks.0.attn.value.bias"].tolist() == [5, 6]
    assert "blocks.0.attn.key.bias" not in found
    np.testing.assert_array_equal(found["conv1.weight"], arrays["encoder/conv1/weight"])


def text(words: str) -> bytes:
    return struct.pack("<H", len(words) + 1) + words.encode() + b"\0"


def variable(name: str, array: np.ndarray) -> bytes:
    code = {"float32": 0, "float16": 4}[array.dtype.name]
    shape = struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
    return text(name) + shape + struct.pack("<BI", code, array.nbytes) + array.tobytes()


def test_a_model_with_another_vocabulary_is_not_gone_on_from(tmp_path: Path) -> None:
    data, model = tmp_path / "data", tmp_path / "model"
    for folder, bytes_ in ((data, b"YQ== 0\n"), (model, b"Yg== 0\n")):
        folder.mkdir()
        (folder / words.FILE).write_bytes(bytes_)
    with pytest.raises(SystemExit, match=r"to go on from .*model, copy its file there"):
        words.require(data, None, model)
    with pytest.raises(SystemExit, match=r"typo is no exported model"):
        words.require(data, tmp_path / "typo")
    with pytest.raises(SystemExit, match=r"run python -m demo.words first"):
        words.load(tmp_path)


def test_recordings_whose_package_is_missing_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ASTERISK", "ASTERISK_TEXT", "KLETTRES", "KTUBERLING", "SPHINX"):
        monkeypatch.setattr(real, name, tmp_path / "nothing")
    real.asterisk_texts.cache_clear()
    monkeypatch.setattr("sys.argv", ["real", "--data", str(tmp_path)])
    with pytest.raises(SystemExit, match=f"nothing, or not all, of {', '.join(real.SOURCES)}: install the Debian packages"):
        real.main()


@pytest.mark.parametrize("path", [path for path in sorted(Path(real.__file__).parent.glob("*.py")) if "\ndef main(" in path.read_text()])
def test_every_command_of_the_recipe_runs_when_it_is_called(path: Path) -> None:
    assert path.read_text().endswith('\n\nif __name__ == "__main__":\n    main()\n')
