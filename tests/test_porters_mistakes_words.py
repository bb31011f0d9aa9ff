"""The mistakes that ports of this model make, one test each.

Every test says two things. The package equals a twin written without it, in float64 to rounding: so the package does not make
the mistake. And the twin that makes exactly this mistake is far away: so the data would show it.
"""

from __future__ import annotations

import functools
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import qwenaudio_np
from qwenaudio_np import ops as reference
from qwenaudio_np.config import load_config
from qwenaudio_np.decoder import decode, logn_factors, ntk_alpha
from qwenaudio_np.errors import MismatchError
from qwenaudio_np.prompt import PromptWarning, base_prompt
from tests.make_checkpoint import START, all_logits, as_it_is, distance, make_checkpoint, open_model
from tests.naive_front_end import log_mel, position_count, vector_count
from tests.naive_network import MISTAKES, NaiveNetwork

GOLDEN = Path(__file__).resolve().parent / "golden"
FOLDER = GOLDEN / "short_context_bf16" / "checkpoint"  # seq_length 64: NTK and logn act early
CASE = GOLDEN / "short_context_bf16" / "cases" / "chat_two_audios"  # 89 positions, two clips of different odd lengths
SAME = 1e-10  # of the RMS: rounding of float64, with room
FAR = 1e-3  # ten times what float32 is allowed to be off

pytestmark = pytest.mark.usefixtures("golden")


@functools.cache
def _request() -> tuple[list[int], list[np.ndarray]]:
    case = json.loads((CASE / "case.json").read_text(encoding="utf-8"))
    return case["input_ids"], [_clip(Path(name).name) for name in case["audio"]]


@functools.cache
def _clip(name: str) -> np.ndarray:
    return soundfile.read(GOLDEN / "audio" / name)[0]


@functools.cache
def _twin(mistake: str | None = None) -> NaiveNetwork:
    """A twin that has read the whole request; what flowed through it is in its taps."""
    twin = NaiveNetwork(FOLDER, mistake)
    ids, clips = _request()
    twin.taps["logits"] = twin.logits(ids, clips)
    return twin


@functools.cache
def _package(ops: Any) -> np.ndarray:
    return all_logits(open_model(FOLDER, ops), *_request())


def check(ops: Any, mistake: str, far: float = FAR) -> None:
    """The package equals the right twin everywhere, and the mistake moves the last position's logits by more than `far`."""
    found, right, wrong = _package(ops), _twin().taps["logits"], _twin(mistake).taps["logits"]
    made = distance(found[-1], wrong[-1]) < SAME
    assert distance(found, right) < SAME, f"the package makes this very mistake: {MISTAKES[mistake]}" if made else "another mistake"
    assert distance(wrong[-1], right[-1]) > far, f"the request does not notice: {MISTAKES[mistake]}"


def check_mel(waveform: np.ndarray, mistake: str, far: float = 0.01) -> None:
    """The same for the log-mel spectrogram, in its own units (the log10 of the power, divided by 4)."""
    found = _package_mel(waveform)
    right = log_mel(waveform)
    assert np.abs(found - right).max() < SAME
    assert np.abs(log_mel(waveform, mistake=mistake) - right).max() > far, f"the clip does not notice: {MISTAKES[mistake]}"


def _package_mel(waveform: np.ndarray) -> np.ndarray:
    from qwenaudio_np.mel import log_mel as package_log_mel

    return package_log_mel(waveform, 80, np.float64)


# ---- the ruler itself


@pytest.mark.parametrize("case", ["text_only", "length_129", "asr_tone", "chat_two_audios"])
def test_the_twin_is_right(case: str) -> None:
    """The twin computes what the original computes in float64 (with audio: to float32's rounding of the original's mel)."""
    from safetensors.numpy import load_file

    facts = json.loads((CASE.parent / case / "case.json").read_text(encoding="utf-8"))
    clips = [_clip(Path(name).name) for name in facts["audio"]]
    found = NaiveNetwork(FOLDER).logits(facts["input_ids"], clips)
    expected = load_file(CASE.parent / case / "expected.safetensors")["decoder.logits_f64"]
    assert distance(found[-4:], expected) < (5e-5 if clips else 1e-11)


def test_every_mistake_of_the_twin_has_a_test_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert not [name for name in MISTAKES if f'"{name}"' not in text]


# ---- sound


def test_gelu_is_exact_not_tanh(ops: Any) -> None:
    check(ops, "tanh_gelu")


def test_mel_frames_are_centred() -> None:
    check_mel(_clip("speech.flac"), "mel_not_centred", far=0.1)


def test_mel_window_is_periodic() -> None:
    check_mel(_clip("speech.flac"), "mel_symmetric_window")


def test_mel_filters_have_equal_area() -> None:
    check_mel(_clip("speech.flac"), "mel_filters_not_normalised", far=0.1)


def test_mel_maximum_is_over_the_padded_thirty_seconds() -> None:
    """A burst in the last samples is heard only by frame 54, centred on sample 8640: the clip's own frames, 0..53, end at 8680."""
    waveform = 1e-4 * np.sin(np.arange(8780.0))
    assert 2 * position_count(len(waveform)) == 54
    waveform[8700:] *= 5e3
    check_mel(waveform, "mel_maximum_of_clip", far=0.1)


def test_the_waveform_is_padded_not_the_features(ops: Any) -> None:
    check_mel(_clip("tone.wav"), "features_padded", far=0.1)
    check(ops, "features_padded")


def test_position_count_for_odd_lengths(ops: Any) -> None:
    clips = _request()[1]
    assert [len(clip) // 160 % 2 for clip in clips] == [1, 1], "both clips have an odd number of frames"
    check(ops, "positions_rounded_down")


@pytest.mark.parametrize(("samples", "positions", "vectors"), [(480, 2, 1), (799, 2, 1), (800, 3, 1), (1120, 4, 2), (480_000, 1500, 750)])
def test_lengths_worked_by_hand(samples: int, positions: int, vectors: int) -> None:
    """480 samples are 3 frames; frames 0 and 2 start positions; one pair. 800 are 5 frames: 0, 2, 4; still one pair."""
    clip = as_it_is(np.full(samples, 0.1))
    assert (clip.positions, clip.vectors) == (positions, vectors)
    assert (position_count(samples), vector_count(positions)) == (positions, vectors)


def test_vector_count_for_odd_positions(ops: Any) -> None:
    sounds = open_model(FOLDER, ops).encode_audio([as_it_is(clip) for clip in _request()[1]])
    assert [position_count(len(clip)) for clip in _request()[1]] == [27, 25]
    assert [len(sound) for sound in sounds] == [13 + 2, 12 + 2]
    assert [len(sound) for sound in NaiveNetwork(FOLDER, "vectors_rounded_up").encode(_request()[1])] == [14, 13]


def test_positions_past_a_shorter_clip_are_not_attended_to(ops: Any) -> None:
    check(ops, "encoder_mask_not_applied")


def test_silence_after_a_clip_is_not_attended_to(ops: Any, tmp_path: Path) -> None:
    """The same mistake with one clip: computing the padded 30 s whole (here an encoder of 100 positions) without a mask."""
    folder = make_checkpoint(tmp_path, audio={"n_ctx": 100})
    tone = _clip("tone.wav")
    found = open_model(folder, ops).encode_audio([as_it_is(tone)])[0][1:-1]
    right, wrong = NaiveNetwork(folder).encode([tone])[0], NaiveNetwork(folder, "thirty_seconds_unmasked").encode([tone])[0]
    assert distance(found, right) < SAME
    assert distance(wrong, right) > 0.1


def test_encoder_key_projection_has_no_bias(ops: Any, tmp_path: Path) -> None:
    """A key bias would move all scores of a row alike, which softmax cancels: no output can show it (the twin proves that here),
    only the tensors can. So none is read, and a checkpoint that holds one is refused."""
    assert distance(NaiveNetwork(FOLDER, "key_bias").encode(_request()[1])[0], NaiveNetwork(FOLDER).encode(_request()[1])[0]) < SAME
    model = open_model(FOLDER, ops)
    model.weights = asked = _NamesAskedFor(model.weights)
    model.encode_audio([as_it_is(clip) for clip in _request()[1]])
    assert "transformer.audio.blocks.1.attn.query.bias" in asked.names
    assert not [name for name in asked.names if name.endswith("attn.key.bias")]
    folder = make_checkpoint(tmp_path, extra={"transformer.audio.blocks.0.attn.key.bias": np.ones(16)})
    with pytest.raises(MismatchError, match=r"attn\.key\.bias"):
        qwenaudio_np.load(folder, backend="reference")


class _NamesAskedFor(dict[str, np.ndarray]):
    """Weights that remember which of them were read."""

    def __init__(self, weights: Any) -> None:
        super().__init__(weights)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> np.ndarray:
        self.names.add(name)
        return super().__getitem__(name)


def test_pooling_comes_before_ln_post(ops: Any) -> None:
    check(ops, "pool_after_ln_post")


def test_learned_rows_are_not_forgotten(ops: Any) -> None:
    check(ops, "bos_eos_forgotten")


def test_learned_rows_stand_over_the_tags_not_beside_them(ops: Any) -> None:
    check(ops, "bos_eos_beside_tags")


def test_clips_of_one_prompt_are_cut_at_the_longest(ops: Any) -> None:
    check(ops, "clips_one_by_one")


# ---- words


def test_rotary_pairs_halves_not_neighbours(ops: Any) -> None:
    check(ops, "interleaved_rotary")


def test_silu_is_on_w2_not_w1(ops: Any) -> None:
    check(ops, "silu_on_w1")


def test_intermediate_size_is_the_sum_of_two_halves(tmp_path: Path) -> None:
    """intermediate_size 52 means w1 and w2 of 26 rows each; a checkpoint with 52 each is refused."""
    folder = make_checkpoint(tmp_path / "halved")
    assert load_config(folder).text.ff_size == 26
    assert open_model(folder, reference).weights["transformer.h.0.mlp.w1.weight"].shape == (26, 24)
    wide = {f"transformer.h.{i}.mlp.{name}.weight": np.ones((52, 24)) for i in range(2) for name in ("w1", "w2")}
    folder = make_checkpoint(tmp_path / "whole", extra=wide)
    with pytest.raises(MismatchError, match=r"\[52, 24\].*\[26, 24\]"):
        qwenaudio_np.load(folder, backend="reference")


def test_ntk_alpha_of_the_prefill_is_kept_while_decoding(ops: Any) -> None:
    """60 positions of prompt, then 10 one by one, across seq_length 64: alpha stays 1, where the length so far would give 3."""
    ids = _request()[0][-70:]
    assert START not in ids
    ids = [id_ if id_ < 600 else 7 for id_ in ids]  # plain words: no audio
    model = open_model(FOLDER, ops)
    _, cache = model.prefill(model.embed(ids[:60]))
    found = np.array([model.step(token, cache) for token in ids[60:]])
    assert (ntk_alpha(60, model.config.text), ntk_alpha(70, model.config.text)) == (1.0, 3.0)
    right = NaiveNetwork(FOLDER).logits(ids, prefill=60)[60:]
    wrong = NaiveNetwork(FOLDER, "ntk_alpha_recomputed").logits(ids, prefill=60)[60:]
    assert distance(found, right) < SAME
    assert distance(wrong[:4], right[:4]) < SAME, "up to seq_length there is nothing to tell apart"
    assert min(distance(wrong[k], right[k]) for k in range(4, 10)) > 0.1


def test_logn_stretches_queries_not_keys(ops: Any) -> None:
    check(ops, "logn_on_keys")


def test_logn_counts_positions_from_one(ops: Any) -> None:
    check(ops, "logn_zero_based")


def test_logn_base_is_seq_length(ops: Any) -> None:
    check(ops, "logn_base")


def test_logn_comes_after_rotary(ops: Any) -> None:
    """A rotation is linear, so the order moves only the last bit: the twin shows that no tolerance can tell. What can be told
    is the bits: in float32 the queries that reach attention are exactly the rotated ones times the factor."""
    assert distance(_twin("logn_before_rotary").taps["logits"], _twin().taps["logits"]) < SAME
    spy = _Spy(ops)
    model = open_model(FOLDER, spy, np.float32)
    model.prefill(model.embed([5 * i % 600 for i in range(90)]))
    factors = logn_factors(np.arange(90), model.config.text, np.dtype(np.float32))[:, None]
    assert factors[63] == 1.0 < factors[64]
    for layer in range(2):
        queries_in, queries_out = spy.rotated[2 * layer]  # queries first, then keys
        assert np.array_equal(spy.attended[layer][0], queries_out * factors)
        assert np.array_equal(spy.attended[layer][1], spy.rotated[2 * layer + 1][1]), "keys are not stretched"
        assert not np.array_equal(queries_in[:, 64:] * factors[64:], queries_in[:, 64:])


class _Spy:
    """A backend that remembers what went through `rotary` and `attention`."""

    def __init__(self, ops: Any) -> None:
        self.ops = ops
        self.rotated: list[tuple[np.ndarray, np.ndarray]] = []
        self.attended: list[tuple[np.ndarray, np.ndarray]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ops, name)

    def rotary(self, x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
        out = self.ops.rotary(x, cos, sin)
        self.rotated.append((x.copy(), out.copy()))
        return out

    def attention(self, q: np.ndarray, k: np.ndarray, v: np.ndarray, causal: bool) -> np.ndarray:
        self.attended.append((q.copy(), k.copy()))
        return self.ops.attention(q, k, v, causal)


def test_rms_norm_multiplies_by_the_weight_last(ops: Any) -> None:
    """The original normalises in float32, casts back, then multiplies by the weight. In float32 only the order of the products
    is left of that: (x * r) * w, not (x * w) * r. Squares of these small integers and their mean are exact, so the bits are known."""
    x = np.array([[3.0, -5.0, 7.0, 11.0, -13.0, 17.0, 19.0, -23.0]], np.float32)
    weight = np.array([1.1, 0.3, -0.7, 1.3, 0.9, 1.7, -2.3, 0.1], np.float32)
    eps = 0.5
    mean = (9 + 25 + 49 + 121 + 169 + 289 + 361 + 529) / 8
    r = np.float32(1.0) / np.sqrt(np.float32(mean + eps))
    right, wrong = (x * r) * weight, (x * weight) * r
    assert np.float32(mean + eps) == mean + eps and not np.array_equal(right, wrong)
    assert np.array_equal(ops.rms_norm(x, weight, eps), right)


def test_decoding_in_pieces_keeps_logn_and_rotary_absolute(ops: Any) -> None:
    """A decoded token takes its absolute position, not its place in the piece at hand."""
    model = open_model(FOLDER, ops)
    x = model.embed([3 * i % 600 for i in range(80)])
    whole, cache = model.prefill(x)
    cache.truncate(70)
    last = decode(x[70:], cache, model.weights, model.config.text, ops)
    assert distance(last, whole[70:]) < SAME


# ---- ids


def test_special_ids_follow_the_ranks_of_the_file(tmp_path: Path) -> None:
    """600 ranks: `<|endoftext|>` is 600, the first id after them, and `<audio>` 3520 places on; a config one off is refused."""
    ids = open_model(FOLDER, reference).tokenizer.special_ids
    published = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "[[[AUDIO:modality]]]": 151851, "<|startoftranscript|>": 151852,
                 "<|en|>": 151859, "<|30.00|>": 154871, "<|wo_itn|>": 154877, "<audio>": 155163, "</audio>": 155164}  # fmt: skip
    assert {name: ids[name] for name in published} == {name: id_ - 151643 + 600 for name, id_ in published.items()}
    for path in FOLDER.iterdir():
        shutil.copy(path, tmp_path)
    config = json.loads((FOLDER / "config.json").read_text())
    for wrong in (4119, 4121):
        config["audio"]["audio_start_id"] = wrong
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(MismatchError, match=f"{wrong}.*4120"):
            qwenaudio_np.load(tmp_path, backend="reference")


def test_startoftranscription_is_not_a_token() -> None:
    """The README of Qwen-Audio writes `<|startoftranscription|>`; the token is `<|startoftranscript|>`."""
    tokenizer = open_model(FOLDER, reference).tokenizer
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert base_prompt(tokenizer, "<|startoftranscript|>").ids == (809,)
    with pytest.warns(PromptWarning, match="startoftranscription"):
        ids = base_prompt(tokenizer, "<|startoftranscription|>").ids
    assert len(ids) > 5 and max(ids) < 600, "read as plain text"
    assert "<|startoftranscription|>" not in tokenizer.special_ids
