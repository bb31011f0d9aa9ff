"""The small trained model inside the package: the numbers of its PyTorch twin, right words, tags that steer.

The twin's numbers were stored by `python -m demo.fixture`; no PyTorch is needed here. How good the model is over many clips is measured by
`python -m demo.evaluate`, and stands in DEMO_MODEL.md; here a few clips show that all of it still works.
"""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path

import numba
import numpy as np
import pytest
from safetensors.numpy import load_file

import qwenaudio_np
from demo.alignment import timed_words, word_errors
from demo.evaluate import WHEN_ANSWERED
from qwenaudio_np import embedded
from qwenaudio_np.model import QwenAudio
from qwenaudio_np.tasks import task_prompt
from tests.cli_tools import Run, runner

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
TWIN = load_file(ROOT / "tests" / "fixtures" / "embedded_model.safetensors")
CLIP = EXAMPLES / "ill_disposed.flac"  # a real person's voice
FLUTE = EXAMPLES / "flute.flac"
DIGITS = EXAMPLES / "digits.flac"  # "six nine four", another real person
DIGIT_TIMES = [0.18, 0.75, 1.09, 1.76, 1.95, 2.58]  # where each word starts and ends, in seconds, from how the clip was joined
SAID = ["he", "was", "not", "an", "ill", "disposed", "young", "man"]
AMIABLE = EXAMPLES / "amiable.flac"
AMIABLE_SAID = ["he", "might", "even", "have", "been", "made", "amiable", "himself"]


@pytest.fixture(scope="module", params=["reference", "numba"])
def each(request: pytest.FixtureRequest) -> QwenAudio:
    return qwenaudio_np.load(embedded.FOLDER, backend=request.param)


@pytest.fixture(scope="module")
def model() -> QwenAudio:
    return qwenaudio_np.load(embedded.FOLDER)


@pytest.fixture()
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv(embedded.VARIABLE, raising=False)
    return runner(capsys)


def ask(model: QwenAudio, task: str, clip: Path | np.ndarray = CLIP) -> str:
    tags, limits = task_prompt(task)
    return model.generate(tags, clip, format="base", max_new_tokens=limits.max_new_tokens, min_new_tokens=1).text


def test_the_package_computes_what_the_twin_computed(each: QwenAudio) -> None:
    """Float32 sums in other orders differ by some 1e-6 of the largest value; 1e-4 is far above that, and far below any mistake."""
    found = qwenaudio_np.trace(each, prompt=task_prompt("asr")[0], audio=[CLIP], format="base")
    assert found["prompt.ids"].tolist() == TWIN["ids"].tolist()
    for ours, theirs in ((found["audio.0.proj"], TWIN["vectors"]), (found["decoder.logits"][-1], TWIN["logits"])):
        assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT is set: the kernels are plain Python and NumPy")
def test_a_new_token_takes_no_memory_but_its_logits(model: QwenAudio) -> None:
    """No weight is widened or copied, no row of the cache moves: besides the logits there are a few rows of activations at a time.

    A step reads 9 MB of weights and 0.8 MB of keys and values. The logits are the caller's, who may keep those of every step.
    """
    _, cache = model.prefill(model.embed([1] * 100))
    model.step(5, cache)  # what is made once is made
    tracemalloc.start()
    try:
        for _ in range(3):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            logits = model.step(5, cache)
            after, peak = tracemalloc.get_traced_memory()
            assert peak - before <= logits.nbytes + 16_000
            assert after - before <= logits.nbytes + 8_000
            del logits
    finally:
        tracemalloc.stop()


def test_it_is_an_ordinary_folder_of_at_most_40_megabytes() -> None:
    sizes = {path.name: path.stat().st_size for path in embedded.FOLDER.iterdir()}
    assert sizes.keys() == {"config.json", "generation_config.json", "qwen.tiktoken", "model.safetensors"}
    assert sum(sizes.values()) <= 40e6


def test_the_tags_steer(model: QwenAudio) -> None:
    """One clip, four rows of tags, four kinds of answer."""
    words = ask(model, "asr")
    assert re.fullmatch(r"[a-z' ]+", words)
    timed = timed_words("<|0.00|>" + ask(model, "timestamps"))
    times = [time for _, start, end in timed for time in (start, end)]
    assert times and max(times) <= 3.2  # the clip has 3 s
    assert ask(model, "scene") == "speech"
    assert ask(model, "notes").startswith("<|pitch|>")


def test_most_words_of_a_persons_sentences_are_right(model: QwenAudio) -> None:
    """Two sentences of eight words from the novel that training left out."""
    errors = word_errors(SAID, ask(model, "asr").split()) + word_errors(AMIABLE_SAID, ask(model, "asr", AMIABLE).split())
    assert errors <= 5


def test_digits_of_a_person_are_all_right_and_come_one_after_the_other(model: QwenAudio) -> None:
    assert ask(model, "asr", DIGITS) == "six nine four"
    timed = timed_words("<|0.00|>" + ask(model, "timestamps", DIGITS))
    assert [word for word, _, _ in timed] == ["six", "nine", "four"]
    times = [time for _, start, end in timed for time in (start, end)]
    assert times == sorted(times)
    assert np.abs(np.array(times) - DIGIT_TIMES).mean() <= 0.08  # two steps of the grid


def test_a_note_has_pitch_velocity_and_instrument(model: QwenAudio) -> None:
    form = r"<\|pitch\|><\|midi_pitch_69\|><\|velocity\|><\|midi_velocity_\d+\|><\|instrument\|>flute"
    assert re.fullmatch(form, ask(model, "notes", FLUTE))


@pytest.mark.parametrize("scene, loudness", [("silence", 0.0), ("silence", 1e-4), ("noise", 0.1)])
def test_silence_and_noise_are_no_speech(model: QwenAudio, scene: str, loudness: float) -> None:
    clip = loudness * np.random.default_rng(1).standard_normal(48000).astype(np.float32)
    assert ask(model, "scene", clip) == scene


def test_a_chat_says_words_and_then_when(model: QwenAudio) -> None:
    chat = model.chat()
    assert chat.ask("what does the person say?", audio=[CLIP]).text.startswith('The person says: "he was not')
    answer = chat.ask('when does the person say "young"?').text
    assert re.fullmatch(r'The word "young" starts at <\|\d+\.\d\d\|> seconds and ends at <\|\d+\.\d\d\|> seconds\.', answer)


def test_the_readme_shows_what_the_chat_answers(model: QwenAudio) -> None:
    """It stands in a comment, which no other test compares."""
    (line,) = re.findall(r'chat\.ask\((\'.*\')\)\.text\)  # (.*)', (ROOT / "README.md").read_text("utf-8"))
    chat = model.chat()
    chat.ask("what does the person say?", audio=[DIGITS])
    assert chat.ask(line[0].strip("'")).text == line[1]


def test_a_chat_says_when_a_word_was_said(model: QwenAudio) -> None:
    off = []
    for word, (start, end) in zip(("six", "nine", "four"), zip(DIGIT_TIMES[::2], DIGIT_TIMES[1::2], strict=True), strict=True):
        chat = model.chat()
        chat.ask("what does the person say?", audio=[DIGITS])
        answer = WHEN_ANSWERED.fullmatch(chat.ask(f'when does the person say "{word}"?').text)
        assert answer and answer["word"] == word
        off += [abs(float(answer["start"]) - start), abs(float(answer["end"]) - end)]
    assert np.mean(off) <= 0.1


def test_the_command_answers_without_a_model_named_and_says_which_one_does(run: Run) -> None:
    done = run("--input", CLIP, "--prompt", "what does the person say?")
    assert done.status == 0 and done.out.startswith('The person says: "')
    assert done.err.startswith("the small embedded model answers") and done.err.count("\n") == 1
    assert run("--input", CLIP, "--prompt", "what does the person say?", "--quiet").err == ""


def test_another_model_is_named_by_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(embedded.VARIABLE, str(ROOT / "tests" / "golden" / "tiny" / "checkpoint"))
    assert "embedded" not in run("--prompt", "hello", "--max-new-tokens", "1").err


@pytest.mark.parametrize("weights, share", [("int8", 0.99), ("int4", 0.9)])
def test_quantised_weights_keep_the_best_tokens(model: QwenAudio, weights: str, share: float) -> None:
    """Where the model is sure of itself (a token has at least half of the probability): how often the best token stays the best."""
    smaller = qwenaudio_np.load(embedded.FOLDER, weights=weights)
    same: list[bool] = []
    for clip in sorted(EXAMPLES.glob("*.flac")):
        for task in ("asr", "timestamps", "scene"):
            prompt = qwenaudio_np.trace(model, prompt=task_prompt(task)[0], audio=[clip], format="base")["prompt.ids"].tolist()
            answer = model.generate(task_prompt(task)[0], clip, format="base").token_ids
            ids, begin = prompt + answer, len(prompt) - 1
            full, small = (qwenaudio_np.trace(m, ids=ids, audio=[clip])["decoder.logits"][begin:] for m in (model, smaller))
            sure = np.exp(full - full.max(1, keepdims=True)).sum(1) <= 2.0  # 1 / the best token's probability
            same += (full.argmax(1) == small.argmax(1))[sure].tolist()
    assert len(same) >= 80 and np.mean(same) >= share
