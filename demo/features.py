"""Run the frozen part of the encoder once over every clip and keep the result: `python -m demo.features --data build/demo`.

clips/SOURCE.jsonl and its sound files -> features/SOURCE.bin (float16 rows of 384, one clip after the other) and
features/SOURCE.jsonl (the clip's entry with "row", "positions", and word times moved by what augmentation put in front). Clips that
have been done are not done again, so it may run while more clips are being written, and go on after it was stopped.

Training clips are augmented; every tenth reading clip is joined with the next ones of its source, so that long recordings are heard too.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import zlib
from collections.abc import Iterator
from itertools import chain, repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from demo import sizes, whisper
from demo.augment import add_noise, augment
from demo.clip_store import RATE, read_labels
from demo.twin import Frozen
from qwenaudio_np.audio import position_count
from qwenaudio_np.mel import mel_filters

JOINED_EVERY = 10
LONGEST = 29 * RATE
ENCODER = "encoder.pt"  # what tune.py writes
TIMES = ".times.jsonl"  # end of the name of what times.py writes

Entry = dict[str, Any]


def main() -> None:
    """Every source that has clips without features; two processes, each with one thread and its own sources."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/demo"), help="folder of clips/ and features/")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", nargs="+", metavar="SOURCE", help="these sources, in this order")
    parser.add_argument("--bfloat16", action="store_true", help="matrix products in bfloat16: faster where the processor knows it")
    arguments = parser.parse_args()
    (arguments.data / "features").mkdir(exist_ok=True)
    sources = arguments.only or sorted(path.stem for path in (arguments.data / "clips").glob("*.jsonl"))
    jobs = [(arguments.data, source, arguments.bfloat16) for source in sources]
    with get_context("spawn").Pool(arguments.processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for source, count in pool.imap_unordered(_extract, jobs):
            print(f"{source}: {count} clips", flush=True)


def _extract(job: tuple[Path, str, bool]) -> tuple[str, int]:
    data, source, bfloat16 = job
    entries, out = read_labels(data / "clips" / f"{source}.jsonl"), data / "features" / f"{source}.jsonl"
    frozen = load_frozen(data)
    width = sizes.STATE * np.dtype(np.float16).itemsize
    with open(data / "features" / f"{source}.bin", "ab") as rows, open(out, "a") as lines:
        fcntl.flock(rows, fcntl.LOCK_EX)  # workers of a run that was stopped may still be at it
        done = read_labels(out)
        row = done[-1]["row"] + done[-1]["positions"] if done else 0
        rows.truncate(row * width)  # a clip half written when a run was stopped
        for index in range(len(done), len(entries)):
            entry, wave = clip(data, source, entries, index)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                features = encode(frozen, wave)
            rows.write(features.tobytes())
            rows.flush()
            lines.write(json.dumps(entry | {"row": row, "positions": len(features)}) + "\n")
            lines.flush()
            row += len(features)
    return source, len(entries) - len(done)


def load_frozen(data: Path) -> Frozen:
    """The encoder as tune.py left it, rounded to bfloat16 as it will be stored."""
    tuned = torch.load(data / ENCODER, weights_only=True)["tuned"]
    rounded = {name.removeprefix("encoder."): array.bfloat16().float() for name, array in tuned.items() if name.startswith("encoder.")}
    frozen = Frozen()
    frozen.load_state_dict(rounded)
    return frozen.eval()


def whisper_encoder() -> Frozen:
    """Whisper tiny.en's convolutions, positions and blocks."""
    encoder = Frozen()
    weights = whisper.read_encoder(whisper.default_file())
    encoder.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items() if not name.startswith("ln_post")})
    return encoder


@torch.inference_mode()
def encode(frozen: Frozen, wave: np.ndarray) -> np.ndarray:
    """[samples] -> float16 [T, state], the stream before the trained blocks."""
    return frozen(log_mel(wave)).float().numpy().astype(np.float16)


def log_mel(wave: np.ndarray) -> torch.Tensor:
    """[samples] -> [80, 2T]: qwenaudio_np.mel.log_mel, of which only the frames that the encoder sees are computed.

    The maximum over the whole padded 30 s is that of these frames: what lies behind is silence.
    """
    frames = 2 * position_count(len(wave))
    padded = np.pad(np.pad(wave, (0, 800)), (200, 0), mode="reflect").astype(np.float64)
    hann = torch.hann_window(400, dtype=torch.float64)
    spectrum = torch.stft(torch.from_numpy(padded), 400, 160, window=hann, center=False, return_complex=True)
    mel = torch.from_numpy(mel_filters(80).copy()) @ spectrum[:, :frames].abs() ** 2
    log = mel.clamp(min=1e-10).log10()
    return ((torch.maximum(log, log.max() - 8.0) + 4.0) / 4.0).float()


def clip(data: Path, source: str, entries: list[Entry], index: int) -> tuple[Entry, np.ndarray]:
    """The clip's entry and waveform as they are trained on."""
    entry = dict(entries[index])
    random = np.random.default_rng([zlib.crc32(source.encode()), index])
    wave = _read(data, entry)
    if entry["split"] == "test":
        return entry, wave
    if entry["kind"] == "read" and not entry["words"] and index % JOINED_EVERY == 0:
        entry, wave = _joined(data, entries, index, random)
    shift = 0.0
    if entry["kind"] == "note":  # nothing that changes how loud it is: that tells the velocity
        wave = add_noise(wave, random, loudest=25.0, quietest=50.0).astype(np.float32) if random.random() < 0.3 else wave
    elif entry["text"] != "silence":
        wave, shift = augment(wave, random)
    if entry["words"]:
        entry["words"] = [[word, start + shift, end + shift] for word, start, end in entry["words"]]
    return entry, wave


def _joined(data: Path, entries: list[Entry], index: int, random: np.random.Generator) -> tuple[Entry, np.ndarray]:
    """A clip and one to four that follow it in its source, with pauses."""
    waves, texts = [_read(data, entries[index])], [entries[index]["text"]]
    for other in entries[index + 1 : index + 1 + random.integers(1, 5)]:
        wave, pause = _read(data, other), np.zeros(round(random.uniform(0.1, 0.9) * RATE), np.float32)
        if other["split"] != "train" or other["words"] or sum(map(len, waves)) + len(pause) + len(wave) > LONGEST - 1.2 * RATE:
            break
        waves += [pause, wave]
        texts.append(other["text"])
    return {**entries[index], "text": " ".join(texts)}, np.concatenate(waves)


def _read(data: Path, entry: Entry) -> np.ndarray:
    wave, rate = soundfile.read(data / entry["file"], dtype="float32")
    if rate != RATE or wave.ndim != 1:
        raise SystemExit(f"{entry['file']} has {rate} Hz and shape {wave.shape}, expected 16000 Hz mono")
    return wave


def stored(data: Path) -> Iterator[tuple[Entry, np.ndarray]]:
    """Every clip's entry and its float16 features [T, state], mapped from disk, with the words' times that times.py found."""
    for path in sorted((data / "features").glob("*.bin")):
        times = path.with_name(path.stem + TIMES)
        found = read_labels(times) if times.exists() else []
        for (entry, rows), more in zip(stored_source(data, path.stem), chain(found, repeat({})), strict=False):  # times may be fewer
            yield entry | more, rows


def stored_source(data: Path, source: str) -> Iterator[tuple[Entry, np.ndarray]]:
    """The same of one source, with the times that its synthesiser told and no others."""
    path = data / "features" / f"{source}.jsonl"
    entries = read_labels(path) if path.exists() else []
    if not entries:
        return
    count = entries[-1]["row"] + entries[-1]["positions"]  # more may be on their way
    rows = np.memmap(path.with_suffix(".bin"), np.float16, "r", shape=(count, sizes.STATE))
    for entry in entries:
        yield entry, rows[entry["row"] : entry["row"] + entry["positions"]]


if __name__ == "__main__":
    main()
