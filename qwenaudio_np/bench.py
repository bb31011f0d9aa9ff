"""How fast a checkpoint runs here, stage by stage, beside what the machine can do at most.

Nothing is timed before it was compared with ops.py: one matrix of every kind that the checkpoint holds, on random rows.
"""

from __future__ import annotations

import re
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qwenaudio_np import ops
from qwenaudio_np.audio import SAMPLE_RATE, clip_from_array
from qwenaudio_np.ceilings import Ceilings
from qwenaudio_np.errors import NumericsError, UsageError, value_of
from qwenaudio_np.generate import generate_ids
from qwenaudio_np.ops import Weight
from qwenaudio_np.prepare import Prepared, prepare
from qwenaudio_np.quantised import LANES, Quantised
from qwenaudio_np.sampler import greedy

if TYPE_CHECKING:
    from qwenaudio_np.model import QwenAudio

TOLERANCE = 1e-4  # of the RMS, between a backend and ops.py, as for the golden cases
PROMPT = "what does the person say?"


@dataclass(frozen=True)
class Stage:
    """One line of the result, medians of all runs. `amount` is operations for encoder and prefill, bytes of weights for decoding."""

    stage: str
    seconds: float
    amount: float
    unit: str  # "op" or "B"
    ceiling: float  # per second, beside the runs: NumPy's float32 product, or plain memory reading
    ratio: float  # of each run's rate over the ceiling beside it

    @property
    def rate(self) -> float:
        """Amount per second."""
        return self.amount / self.seconds


def check_sizes(seconds: float, new_tokens: int, repeats: int) -> None:
    """Raise UsageError for what cannot be timed."""
    if repeats < 1 or new_tokens < 2 or not 0.03 <= seconds <= 30:
        given = f"{value_of(repeats)} repeats, {value_of(new_tokens)} new tokens and {value_of(seconds)} seconds"
        raise UsageError(f"bench needs at least 1 repeat, 2 new tokens and 0.03 to 30 seconds of sound, got {given}")


def bench(
    model: QwenAudio,
    seconds: float = 5.9,
    new_tokens: int = 16,
    repeats: int = 3,
    threads: int | None = None,
    warmed: Callable[[], None] = lambda: None,
) -> list[Stage]:
    """Encoder, prefill and decoding of a request about `seconds` of noise, medians of `repeats` runs.

    `warmed` is called after a run that is not timed, before what the ceilings read and multiply takes memory.
    Raises NumericsError if the products of the backend do not agree with those of ops.py. A text-only checkpoint has no encoder to time.
    """
    check_sizes(seconds, new_tokens, repeats)
    validate(model)
    text, hearing = model.config.text, model.config.audio is not None
    noise = 0.1 * np.random.default_rng(0).standard_normal(int(seconds * SAMPLE_RATE))
    ready = prepare(model, PROMPT, [clip_from_array(noise.astype(np.float32), SAMPLE_RATE)] if hearing else [])
    length = len(ready.prompt.ids)
    _timed_run(model, ready, new_tokens)  # it may compile
    warmed()
    ceilings = Ceilings(length, text.hidden_size, text.ff_size, threads)
    runs = [ceilings.beside(lambda: _timed_run(model, ready, new_tokens)) for _ in range(repeats)]
    (encode, prefill, decode), reading, product = zip(*(run[0] for run in runs), strict=True), *list(zip(*runs, strict=True))[1:]
    stages = [
        _stage(f"prefill of {length}", prefill, _prefill_operations(model, length), "op", product),
        _stage("decoding, per token", decode, _bytes_per_token(model), "B", reading),
    ]
    if hearing:
        clip = ready.clips[0]
        stages.insert(0, _stage(f"encoder, {clip.seconds:.1f} s", encode, _encoder_operations(model, clip.positions), "op", product))
    return stages


def _stage(name: str, seconds: tuple[float, ...], amount: float, unit: str, ceilings: tuple[float, ...]) -> Stage:
    """From the seconds of all runs, and the ceiling beside each."""
    ratios = [amount / each / ceiling for each, ceiling in zip(seconds, ceilings, strict=True)]
    return Stage(name, statistics.median(seconds), amount, unit, statistics.median(ceilings), statistics.median(ratios))


def validate(model: QwenAudio) -> None:
    """Compare the backend's linear with that of ops.py on one matrix of every kind, 1 row and 20. Raises NumericsError."""
    rng = np.random.default_rng(0)
    matrices = {name: weight for name, weight in model.weights.items() if name.endswith(".weight") and len(weight.shape) == 2}
    kinds = {re.sub(r"\.\d+\.", ".", name): name for name in matrices}  # the same of another block
    for name in kinds.values():
        weight = first_rows(matrices[name], 64) if name.startswith(("lm_head", "transformer.wte")) else matrices[name]
        for rows in (1, 20):
            x = rng.standard_normal((rows, weight.shape[1])).astype(model.dtype)
            want = ops.linear(x, weight)
            error = np.abs(model.ops.linear(x, weight) - want).max() / (np.sqrt(np.square(want).mean()) or 1.0)  # all may be 0
            if not error <= TOLERANCE:
                raise NumericsError(f"{name}: the backend is {error:.1e} of the RMS off ops.py, expected {TOLERANCE:.0e}; not timed")


def first_rows(weight: Weight, count: int) -> Weight:
    """As stored: a quantised weight in whole blocks."""
    if not isinstance(weight, Quantised) or len(weight) <= count:
        return weight if len(weight) <= count else weight[:count]
    offsets = None if weight.offsets is None else weight.offsets[: count // LANES]
    return Quantised(weight.bits, (count, weight.shape[1]), weight.codes[: count // LANES], weight.scales[: count // LANES], offsets)


def _timed_run(model: QwenAudio, ready: Prepared, new_tokens: int) -> tuple[float, float, float]:
    """Seconds of encoder and prefill, and per token of decoding."""
    begin = time.perf_counter()
    sounds = model.encode_audio(ready.clips)
    encoded = time.perf_counter()
    hidden, cache = model.prefill(model.embed(ready.prompt.ids, sounds))
    logits = model.logits(hidden[-1:])[0]
    filled = time.perf_counter()
    steps = sum(1 for _ in generate_ids(model, logits, cache, greedy, (), new_tokens)) - 1  # the first id needs no step
    if not steps:
        raise UsageError(f"a prompt of {cache.length} positions leaves this model none to decode; choose a shorter --seconds")
    return encoded - begin, filled - encoded, (time.perf_counter() - filled) / steps


def _encoder_operations(model: QwenAudio, positions: int) -> float:
    """Multiplications and additions of the products and attention of one clip."""
    audio = model.config.audio
    assert audio is not None
    s, t = audio.n_state, positions
    convolutions = 2 * 3 * (audio.n_mels * s * 2 * t + s * s * t)
    return convolutions + audio.n_layer * (2 * t * 12 * s * s + 4 * t * t * s) + t * s * audio.output_dim


def _prefill_operations(model: QwenAudio, length: int) -> float:
    """The same of a prompt: products of all rows, causal attention, and the output head for the last row."""
    text = model.config.text
    h = text.hidden_size
    layer = 2 * length * (4 * h * h + 3 * h * text.ff_size) + 2 * length * length * h
    return text.num_hidden_layers * layer + 2 * h * text.vocab_size


def _bytes_per_token(model: QwenAudio) -> float:
    """Weights that one step reads: all of the decoder's but the word embedding, of which it reads one row."""
    return sum(weight.nbytes for name, weight in model.weights.items() if not name.startswith(("transformer.audio.", "transformer.wte.")))


def instructions(model: QwenAudio) -> dict[str, str]:
    """Which instructions multiply small whole numbers, where the backend has a choice of them."""
    choice = getattr(model.ops, "get_isa", None)
    return {} if choice is None else {"instructions": choice()}


def peak_resident() -> int | None:
    """Bytes of the most memory this process has held, mapped files that were read included; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, Linux kilobytes


def lines(stages: list[Stage]) -> list[str]:
    """The result for people."""
    told = []
    for stage in stages:
        what = "operations/s" if stage.unit == "op" else "B/s of weights"
        ceiling = "NumPy's float32 product" if stage.unit == "op" else "plain memory reading"
        speed = f"{1 / stage.seconds:7.2f} tokens/s, " if stage.unit == "B" else ""
        told.append(
            f"{stage.stage:24} {stage.seconds:9.3f} s  {speed}{stage.rate / 1e9:7.1f} G{what}, "
            f"{stage.ratio:.2f} of {ceiling} ({stage.ceiling / 1e9:.1f} G)"
        )
    return told
