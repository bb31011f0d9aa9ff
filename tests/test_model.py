"""QwenAudio: what it refuses, what it says about damaged weights, and that results belong to whoever got them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwenaudio_np.audio import Clip
from qwenaudio_np.errors import MismatchError, NumericsError, UsageError
from qwenaudio_np.model import QwenAudio
from tests.make_checkpoint import END, PLACEHOLDER, START, as_it_is, distance, make_checkpoint, open_model
from tests.naive_network import NaiveNetwork

SPAN = [START, *[PLACEHOLDER] * 6, END]  # a clip of 13 positions: 6 vectors and the two tags


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"), max_position_embeddings=40)


@pytest.fixture
def model(folder: Path, ops: Any) -> QwenAudio:
    return open_model(folder, ops)


def clip(samples: int = 4100, seed: int = 3) -> Clip:
    return as_it_is(0.1 * np.random.default_rng(seed).standard_normal(samples))


# ---- from sound and words to logits


def test_shapes_and_types_on_the_way(folder: Path, ops: Any) -> None:
    for dtype in (np.float32, np.float64):
        model = open_model(folder, ops, dtype)
        (sound,) = model.encode_audio([clip()])
        x = model.embed([7, *SPAN, 9], [sound])
        hidden, cache = model.prefill(x)
        logits = model.logits(hidden)
        step = model.step(11, cache)
        assert (sound.shape, x.shape, hidden.shape, logits.shape, step.shape) == ((8, 24), (10, 24), (10, 24), (10, 3784), (3784,))
        assert {array.dtype for array in (sound, x, hidden, logits, step)} == {np.dtype(dtype)}
        assert cache.length == 11 and cache.dtype == dtype


def test_each_span_takes_its_clip_in_order(model: QwenAudio, folder: Path) -> None:
    clips = [clip(4100, 1), clip(4100, 2)]
    ids = [7, *SPAN, 8, *SPAN, 9]
    sounds = model.encode_audio(clips)
    x = model.embed(ids, sounds)
    expected = NaiveNetwork(folder)
    assert distance(x, expected.embed(ids, expected.encode([c.waveform for c in clips]))) < 1e-12
    assert np.array_equal(x[1:9], sounds[0]) and np.array_equal(x[10:18], sounds[1])
    assert distance(model.embed(ids, sounds[::-1])[1:9], x[10:18]) == 0.0


def test_no_clips_is_not_an_error(model: QwenAudio) -> None:
    assert model.encode_audio([]) == []


def test_steps_equal_the_twin(model: QwenAudio, folder: Path) -> None:
    """8 words of prompt, 12 steps, across seq_length 16."""
    ids = [13 * i % 256 for i in range(20)]
    hidden, cache = model.prefill(model.embed(ids[:8]))
    logits = [*model.logits(hidden), *(model.step(token, cache) for token in ids[8:])]
    assert distance(np.array(logits), NaiveNetwork(folder).logits(ids, prefill=8)) < 1e-10


# ---- what is refused


@pytest.mark.parametrize(
    ("ids", "clips", "message"),
    [
        (SPAN, 2, r"1 audio spans but 2 clips"),
        (SPAN, 0, r"1 audio spans but 0 clips"),
        ([*SPAN, *SPAN], 1, r"2 audio spans but 1 clips"),
        ([5, 6], 1, r"0 audio spans but 1 clips"),
        ([START, *[PLACEHOLDER] * 5, END], 1, r"span 1 has 7 positions but its clip gives 8"),
        ([START, *[PLACEHOLDER] * 7, END], 1, r"span 1 has 9 positions but its clip gives 8"),
        ([*SPAN, START, END], 2, r"span 2 has 2 positions but its clip gives 8"),
        ([START, PLACEHOLDER], 1, r"<audio> at position 0 has no </audio>"),
        ([5, END], 0, r"unpaired audio tag 3777 at position 1"),
        ([START, START, END], 1, r"unpaired audio tag 3776 at position 1"),
    ],
)
def test_clips_that_do_not_fit_the_ids(model: QwenAudio, ids: list[int], clips: int, message: str) -> None:
    sounds = model.encode_audio([clip()] * clips)
    with pytest.raises(MismatchError, match=message) as caught:
        model.embed(ids, sounds)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], r"0 tokens, expected 1 to 40"),
        ([1] * 41, r"41 tokens, expected 1 to 40 \(max_position_embeddings\)"),
        ([5, -1], r"from 0 to 3783, got -1 to 5"),
        ([5, 3784], r"from 0 to 3783, got 5 to 3784"),
        ([2**70], r"from 0 to 3783"),
    ],
)
def test_ids_that_cannot_be(model: QwenAudio, ids: list[int], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        model.embed(ids)
    assert "\n" not in str(caught.value)


def test_the_longest_prompt_and_the_last_id_are_allowed(model: QwenAudio) -> None:
    assert model.embed([3783] * 40).shape == (40, 24)


def test_a_step_with_an_impossible_id(model: QwenAudio) -> None:
    _, cache = model.prefill(model.embed([1, 2]))
    with pytest.raises(UsageError, match="3784"):
        model.step(3784, cache)
    assert cache.length == 2


def test_generation_ends_at_the_last_position(model: QwenAudio) -> None:
    """38 positions of prompt leave room to feed two more ids, which makes three answers; what came before is kept."""
    found = model.generate("a" * 38, max_new_tokens=10, format="base")
    assert found.stop_reason == "context" and len(found.token_ids) == 3


def test_a_text_only_checkpoint_takes_no_sound(tmp_path: Path, ops: Any) -> None:
    model = open_model(make_checkpoint(tmp_path, audio={"none": True}), ops)
    with pytest.raises(UsageError, match="text-only"):
        model.encode_audio([clip()])
    with pytest.raises(MismatchError, match="0 audio spans but 1 clips"):
        model.embed([1, 2], [np.zeros((8, 24))])
    assert model.encode_audio([]) == []
    assert model.embed([START, END]).shape == (2, 24), "without an audio section these ids mean nothing special"


# ---- damaged weights


def planted(folder: Path, ops: Any, name: str, value: float, at: int = 0) -> QwenAudio:
    """The model with one value of one tensor replaced."""
    weights = np.array(open_model(folder, ops).weights[name])
    weights.flat[at] = value
    return open_model(folder, ops, np.float32, **{name.replace(".", "__"): weights})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("part", ["ln_1.weight", "attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight", "mlp.c_proj.weight"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_damaged_decoder_block_is_named(folder: Path, ops: Any, layer: int, part: str, value: float) -> None:
    model = planted(folder, ops, f"transformer.h.{layer}.{part}", value)
    with pytest.raises(NumericsError, match=f"decoder block {layer}") as caught:
        model.prefill(model.embed([1, 2, 3]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("part", ["attn_ln.weight", "attn.query.weight", "attn.value.bias", "mlp.2.bias"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_damaged_encoder_block_is_named(folder: Path, ops: Any, layer: int, part: str, value: float) -> None:
    model = planted(folder, ops, f"transformer.audio.blocks.{layer}.{part}", value)
    with pytest.raises(NumericsError, match=f"encoder block {layer}"):
        model.encode_audio([clip()])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_damaged_word_in_the_middle_is_noticed(folder: Path, ops: Any) -> None:
    """Only a block's last row is looked at; attention has brought the damage there."""
    model = planted(folder, ops, "transformer.wte.weight", np.nan, at=5 * 24)
    model.prefill(model.embed([1, 2, 3]))
    with pytest.raises(NumericsError, match="decoder block 0"):
        model.prefill(model.embed([1, 5, 3, 4]))


@pytest.mark.parametrize("name", ["lm_head.weight", "transformer.ln_f.weight"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_damaged_head_never_picks_a_token(folder: Path, ops: Any, name: str) -> None:
    with pytest.raises(NumericsError, match="logits"):
        planted(folder, ops, name, np.nan).generate("abc", format="base", max_new_tokens=1)


# ---- ownership


@pytest.fixture
def quick(folder: Path, ops: Any) -> QwenAudio:
    """In float32, where each backend has operations of its own."""
    return open_model(folder, ops, np.float32)


def test_results_own_their_memory(quick: QwenAudio) -> None:
    """Writing into a result changes neither another result nor the model."""
    clips = [clip(4100, 1), clip(6500, 2)]
    sounds = quick.encode_audio(clips)
    kept = [sound.copy() for sound in sounds]
    sounds[0][:] = np.nan
    assert np.array_equal(sounds[1], kept[1])
    assert np.array_equal(quick.encode_audio(clips)[0], kept[0])

    x = quick.embed([7, *SPAN], [kept[0]])
    x[:] = 0.0
    assert kept[0].any()
    assert np.array_equal(quick.embed([7, *SPAN], [kept[0]])[1:], kept[0])
    assert quick.embed([7]).any(), "the table of word embeddings is as it was"


def test_later_work_leaves_earlier_results_alone(quick: QwenAudio) -> None:
    x = quick.embed([1, 2, 3, 4])
    x_before = x.copy()
    hidden, cache = quick.prefill(x)
    logits = quick.logits(hidden)
    first = quick.step(5, cache)
    before = [array.copy() for array in (hidden, logits, first)]
    quick.step(6, cache)
    quick.prefill(quick.embed([9, 8, 7, 6]))
    assert all(np.array_equal(one, other) for one, other in zip((hidden, logits, first), before, strict=True))
    assert np.array_equal(x, x_before), "prefill does not write into its input"
    hidden[:] = 0.0
    assert np.array_equal(logits, before[1])


def test_the_same_input_gives_the_same_bits(quick: QwenAudio) -> None:
    ids = [7, *SPAN, 9]
    one, other = (quick.logits(quick.prefill(quick.embed(ids, quick.encode_audio([clip()])))[0]) for _ in range(2))
    assert np.array_equal(one, other)
