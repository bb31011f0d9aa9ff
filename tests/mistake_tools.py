"""What tests of porters' mistakes share: one request, the package, and twins with and without a mistake.

Every test says two things. The package equals a twin written without it, in float64 to rounding: so the package does not make
the mistake. And the twin that makes exactly this mistake is far away: so the data would show it.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.make_checkpoint import all_logits, distance, open_model
from tests.naive_front_end import log_mel
from tests.naive_network import MISTAKES, NaiveNetwork

GOLDEN = Path(__file__).resolve().parent / "golden"
FOLDER = GOLDEN / "short_context_bf16" / "checkpoint"  # seq_length 64: NTK and logn act early
CASE = GOLDEN / "short_context_bf16" / "cases" / "chat_two_audios"  # 89 positions, two clips of different odd lengths
SAME = 1e-10  # of the RMS: rounding of float64, with room
FAR = 1e-3  # ten times what float32 is allowed to be off


@functools.cache
def the_request() -> tuple[list[int], list[np.ndarray]]:
    case = json.loads((CASE / "case.json").read_text(encoding="utf-8"))
    return case["input_ids"], [read_clip(Path(name).name) for name in case["audio"]]


@functools.cache
def read_clip(name: str) -> np.ndarray:
    return soundfile.read(GOLDEN / "audio" / name)[0]


@functools.cache
def twin_of(mistake: str | None = None) -> NaiveNetwork:
    """A twin that has read the whole request; what flowed through it is in its taps."""
    twin = NaiveNetwork(FOLDER, mistake)
    ids, clips = the_request()
    twin.taps["logits"] = twin.logits(ids, clips)
    return twin


@functools.cache
def _package(ops: Any) -> np.ndarray:
    return all_logits(open_model(FOLDER, ops), *the_request())


def check(ops: Any, mistake: str, far: float = FAR) -> None:
    """The package equals the right twin everywhere, and the mistake moves the last position's logits by more than `far`."""
    found, right, wrong = _package(ops), twin_of().taps["logits"], twin_of(mistake).taps["logits"]
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
