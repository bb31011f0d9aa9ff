"""The synthesisers behind one interface: a voice says a line and returns 16 kHz samples, its own name, and word times where it knows them.

A voice draws whatever it varies (speaker, pace, pitch) from the generator it is given, so that a line and a seed give the same sound.
Programs of Debian: flite, festival, espeak-ng, RHVoice-test and pico2wave; the neural ones: neural_voices.py.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

RATE = 16000
Samples = npt.NDArray[np.float32]
WordTimes = list[tuple[str, float, float]]


@dataclass
class Speech:
    """What a voice said: samples at RATE, the speaker's name, and (word, start, end) in seconds where the synthesiser gives them."""

    samples: Samples
    speaker: str
    words: WordTimes | None = None


class Voice(Protocol):
    """One synthesiser with its speakers."""

    speakers: tuple[str, ...]

    def say(self, line: str, speaker: str, rng: np.random.Generator) -> Speech:
        """The line, spoken by one of `speakers`."""


def _read(path: Path) -> Samples:
    samples, rate = soundfile.read(path, dtype="float32")
    return at_rate(samples, rate)


def at_rate(samples: Samples, rate: int) -> Samples:
    return samples if rate == RATE else soxr.resample(samples, rate, RATE)


SAID = "said.wav"  # what the programs write


def _spoken(command: list[str], line: str, speaker: str, typed: str = "") -> Speech:
    """What a program writes to SAID for a line, which it may want to have `typed`.

    Raises ValueError where it writes nothing: there was nothing to say.
    """
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(command, input=typed, text=True, check=True, cwd=folder)
        if not Path(folder, SAID).exists():
            raise ValueError(f"{command[0]} has nothing to say for {line!r}")
        return Speech(_read(Path(folder, SAID)), speaker)


FLITE_PITCH = {"rms": 105.0, "awb": 125.0, "slt": 170.0, "kal16": 105.0}  # Hz, each speaker's own


class Flite:
    """Flite's voices, at 0.85 to 1.2 times their length and about their own pitch."""

    def __init__(self, speakers: tuple[str, ...]) -> None:
        self.speakers = speakers

    def say(self, line: str, speaker: str, rng: np.random.Generator) -> Speech:
        stretch, pitch = rng.uniform(0.85, 1.2), FLITE_PITCH[speaker] * rng.uniform(0.85, 1.2)
        settings = ["--setf", f"duration_stretch={stretch:.3f}", "--setf", f"int_f0_target_mean={pitch:.1f}"]
        return _spoken(["flite", "-voice", speaker, *settings, "-t", line, "-o", SAID], line, f"flite-{speaker}")


class Espeak:
    """espeak-ng, each speaker an accent with a variant ("en-gb-x-rp+f2"), at 135 to 200 words a minute."""

    def __init__(self, speakers: tuple[str, ...]) -> None:
        self.speakers = speakers

    def say(self, line: str, speaker: str, rng: np.random.Generator) -> Speech:
        pace, pitch = rng.integers(135, 200), rng.integers(30, 65)
        return _spoken(["espeak-ng", "-v", speaker, "-s", str(pace), "-p", str(pitch), "-w", SAID, "--", line], line, f"espeak-{speaker}")


class RHVoice:
    """RHVoice's speakers, at 0.8 to 1.25 times their pace and about their own pitch."""

    def __init__(self, speakers: tuple[str, ...]) -> None:
        self.speakers = speakers

    def say(self, line: str, speaker: str, rng: np.random.Generator) -> Speech:
        pace, pitch = rng.integers(80, 126), rng.integers(85, 119)  # percent
        command = ["RHVoice-test", "-p", speaker, "-r", str(pace), "-t", str(pitch), "-o", SAID]
        return _spoken(command, line, f"rhvoice-{speaker}", typed=line + "\n")


class Pico:
    """SVOX Pico, each speaker a language ("en-GB"), at 0.85 to 1.2 times its pace."""

    def __init__(self, speakers: tuple[str, ...]) -> None:
        self.speakers = speakers

    def say(self, line: str, speaker: str, rng: np.random.Generator) -> Speech:
        said = f'<speed level="{rng.integers(85, 121)}">{line}</speed>'
        return _spoken(["pico2wave", "-l", speaker, "-w", SAID, said], line, f"pico-{speaker}")


class Festival:
    """Festival's voices, one running program for each, with the times of the words."""

    def __init__(self, speakers: tuple[str, ...]) -> None:
        self.speakers = speakers
        self._programs: dict[str, subprocess.Popen[str]] = {}

    def say(self, line: str, speaker: str, rng: np.random.Generator) -> Speech:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "said.wav")
            answer = self._ask(speaker, SCHEME % (rng.uniform(0.85, 1.2), line, path))
            return Speech(_read(path), f"festival-{speaker}", [(word, float(start), float(end)) for word, start, end in answer])

    def _ask(self, speaker: str, scheme: str) -> list[list[str]]:
        if speaker not in self._programs:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self._programs[speaker] = subprocess.Popen(["festival", "--pipe"], text=True, bufsize=1, **pipes)  # type: ignore[call-overload]
            self._programs[speaker].stdin.write(f"(voice_{speaker})\n")  # type: ignore[union-attr]
        program = self._programs[speaker]
        assert program.stdin is not None and program.stdout is not None
        program.stdin.write(scheme)
        program.stdin.flush()
        answer = []
        while (line := program.stdout.readline().split()) != ["done"]:
            if not line and program.poll() is not None:
                raise RuntimeError(f"festival ended while voice {speaker} spoke")
            if line and line[0] == "word":
                answer.append(line[1:])
        return answer


SCHEME = """(Parameter.set 'Duration_Stretch %.3f) (set! said (utt.synth (Utterance Text "%s"))) (utt.save.wave said "%s" 'riff)
(mapcar (lambda (w) (format t "word %%s %%f %%f\\n" (item.name w) (item.feat w "word_start") (item.feat w "word_end")))
 (utt.relation.items said 'Word)) (format t "done\\n") (fflush nil)
"""
