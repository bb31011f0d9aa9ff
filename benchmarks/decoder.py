"""The text decoder at the published widths, a few blocks of it: every weight type, and llama.cpp where it is installed.

    python benchmarks/decoder.py [--blocks N] [--threads N] [--json]

Made-up weights with a vocabulary of 1024 ids, so that nearly all of the work is in the blocks. Decoding (16 tokens behind a prompt of
171) is related to plain memory reading, prefill of those 171 positions to NumPy's float32 product. Each computes the logits of every
position; they are compared with the reference backend's before they count. llama.cpp cannot run the whole model, but these blocks it
can: it gets the same weights as a GGUF file (the extra `peers`), and takes turns with ours of as many bits.

Memory is read before and after every four tokens, NumPy multiplies before and after every prefill. Times are medians of all fours of
tokens and all prefills, and a ratio is the median of the ratios of each to what was measured around it, or to the peer's in that round.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import llama_peer
import measure
import numpy as np

import qwenaudio_np
from qwenaudio_np import kernels
from qwenaudio_np.cache import KVCache
from qwenaudio_np.ceilings import PAUSE, Product, Reading, around, seconds
from qwenaudio_np.config import parse_config
from qwenaudio_np.convert.random_checkpoint import LEARNED_RANKS, SIZES, Size, config_fields, generation_fields, random_vocabulary
from qwenaudio_np.convert.random_values import random_pieces
from qwenaudio_np.convert.safetensors_writer import TensorSpec, plan_shards, write_shards
from qwenaudio_np.convert.vocabulary import write_vocabulary
from qwenaudio_np.names import EMBEDDING, expected_tensors
from qwenaudio_np.options import whole_number

PROMPT, NEW = 171, 16  # positions of a prompt about a 6 s clip, and tokens decoded behind it
TOGETHER = 4  # tokens between two readings of memory
RESTING = 0.002  # seconds, after which our helper threads no longer watch for work
WIDTHS = replace(SIZES["layer"], ranks=LEARNED_RANKS, vocab_size=1024)
# RMS of the error over that of the logits: what rounding allows, and what 8 and 4 bits of every product do to random weights. 4 bits say
# little about which weight went where; llama.cpp gets its weights by one piece of code, which the 8 bits before them check.
TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-4, "int8": 0.04, "int4": 0.5}


class Decoder(Protocol):
    """What is measured. Each prefill begins anew."""

    def prefill(self, ids: list[int]) -> np.ndarray:
        """ids [length] -> logits [length, vocabulary]"""

    def step(self, token: int) -> np.ndarray:
        """One more id -> [vocabulary]"""


class Ours:
    """A model of ours, and the cache of its latest prefill."""

    def __init__(self, model: qwenaudio_np.QwenAudio) -> None:
        self.model, self.cache = model, KVCache(model.config.text)
        self.nbytes = sum(weight.nbytes for name, weight in model.weights.items() if name != EMBEDDING)  # read for each token

    def prefill(self, ids: list[int]) -> np.ndarray:
        hidden, self.cache = self.model.prefill(self.model.embed(ids))
        return self.model.logits(hidden)

    def step(self, token: int) -> np.ndarray:
        return self.model.step(token, self.cache)


@dataclass
class Timed:
    """Seconds, each beside what was measured around it: of prefills with operations per second, of single tokens with bytes per second."""

    prefills: list[tuple[float, float]] = field(default_factory=list)
    tokens: list[tuple[float, float]] = field(default_factory=list)


class Measure:
    """What every implementation is held against."""

    def __init__(self, reference: qwenaudio_np.QwenAudio, repeats: int, threads: int | None) -> None:
        self.text, self.repeats = reference.config.text, repeats
        self.ids = np.random.default_rng(0).integers(0, self.text.vocab_size, PROMPT + NEW).tolist()
        self.want = all_logits(Ours(reference), self.ids)  # [PROMPT + NEW, vocabulary]
        self._multiply, self._read = Product(PROMPT, self.text.hidden_size, self.text.ff_size), Reading(threads)
        self._read()  # its threads are there now

    def product(self) -> float:
        """Operations per second of NumPy's product now; its threads have come to rest afterwards."""
        rate = self._multiply.amount / statistics.median(seconds(self._multiply) for _ in range(3))
        time.sleep(PAUSE)
        return rate

    def reading(self) -> float:
        """Bytes per second of plain memory reading now, when helper threads have gone to sleep."""
        time.sleep(RESTING)
        return self._read.amount / seconds(self._read)

    def lines(self, decoders: dict[str, tuple[Decoder, int]], tolerance: float) -> list[dict[str, Any]]:
        """Validate all, and time them in turn. `decoders`: name -> decoder, and the bytes of weights that it reads for each token."""
        errors = {
            name: measure.validate(name, all_logits(decoder, self.ids), self.want, tolerance, typical=True)
            for name, (decoder, _) in decoders.items()
        }
        timed = {name: Timed() for name in decoders}
        for _ in range(self.repeats):
            for name, (decoder, _) in decoders.items():
                self._pass(decoder, timed[name])
        ours = next(iter(timed.values()))
        return [
            {**self._line(name, nbytes, timed[name]), "error/RMS": errors[name], **compared(timed[name], ours)}
            for name, (_, nbytes) in decoders.items()
        ]

    def _pass(self, decoder: Decoder, timed: Timed) -> None:
        timed.prefills.append(around(self.product, lambda: seconds(lambda: decoder.prefill(self.ids[:PROMPT]))))
        for first in range(PROMPT, PROMPT + NEW, TOGETHER):
            some = self.ids[first : first + TOGETHER]
            timed.tokens.append(around(self.reading, lambda some=some: seconds(lambda: [decoder.step(id_) for id_ in some]) / len(some)))

    def _line(self, name: str, nbytes: int, timed: Timed) -> dict[str, Any]:
        prefill, token = (statistics.median(took for took, _ in each) for each in (timed.prefills, timed.tokens))
        return {
            "implementation": name,
            "ms/token": token * 1e3,
            "GB/s": nbytes / token / 1e9,
            "over memory reading": statistics.median(nbytes / took / rate for took, rate in timed.tokens),
            "prefill ms": prefill * 1e3,
            "Gop/s": self.operations / prefill / 1e9,
            "over NumPy product": statistics.median(self.operations / took / rate for took, rate in timed.prefills),
            "weights MB": nbytes / 1e6,
        }

    @property
    def operations(self) -> float:
        """Multiplications and additions of the prefill: products of all rows, causal attention, all logits."""
        h, text = self.text.hidden_size, self.text
        block = 2 * (4 * h * h + 3 * h * text.ff_size) + 2 * PROMPT * h
        return PROMPT * (text.num_hidden_layers * block + 2 * h * text.vocab_size)


def all_logits(decoder: Decoder, ids: list[int]) -> np.ndarray:
    """One pass over PROMPT and NEW ids -> [PROMPT + NEW, vocabulary]"""
    return np.concatenate([decoder.prefill(ids[:PROMPT]), *(decoder.step(id_)[None] for id_ in ids[PROMPT:])])


def compared(line: Timed, ours: Timed) -> dict[str, float]:
    """How many times faster ours is than a peer, round by round."""
    stages = {"ours faster, decoding": "tokens", "ours faster, prefill": "prefills"}
    pairs = {name: [[took for took, _ in getattr(each, stage)] for each in (line, ours)] for name, stage in stages.items()}
    return {name: float("nan") if line is ours else measure.ratio(*pair) for name, pair in pairs.items()}


def main() -> None:
    """Print a row per implementation and type of weights."""
    parser = measure.parser(__doc__ or "")
    parser.add_argument("--blocks", type=whole_number(1), default=6, metavar="N", help="blocks, of the decoder's 32 (default 6)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), replace(WIDTHS, decoder_layers=options.blocks))
        measure.report(list(lines(folder, options.repeats, options.threads)), options.json)


def lines(folder: str, repeats: int, threads: int | None) -> Iterator[dict[str, Any]]:
    """Ours by type of weights, and behind each llama.cpp of so many bits, with how much faster than it ours is."""
    reference = qwenaudio_np.load(folder, backend="reference", threads=threads)
    against = Measure(reference, repeats, threads)
    peers = measure.peer("llama_cpp", "llama.cpp (llama-cpp-python)") and measure.peer("gguf", "gguf")
    for weights, tolerance in TOLERANCE.items():
        ours = Ours(qwenaudio_np.load(folder, weights=weights, threads=threads))
        decoders: dict[str, tuple[Decoder, int]] = {f"qwenaudio_np, {weights}": (ours, ours.nbytes)}
        if peers and (kind := llama_peer.KINDS.get(weights)):
            nbytes = llama_peer.write(f"{folder}/model.gguf", reference, kind)
            peer = llama_peer.Peer(f"{folder}/model.gguf", PROMPT + NEW, threads or kernels.get_threads())
            decoders[f"llama.cpp, {kind}"] = peer, nbytes
            yield from against.lines(decoders, tolerance)
            peer.close()
        else:
            yield from against.lines(decoders, tolerance)


def write_checkpoint(folder: Path, size: Size) -> None:
    """A text-only checkpoint of random weights in bfloat16."""
    fields = {name: value for name, value in config_fields(size).items() if name != "audio"}
    generation = generation_fields(size)
    tensors = [TensorSpec(name, "BF16", shape) for name, shape in expected_tensors(parse_config(fields, generation)).items()]
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "generation_config.json").write_text(json.dumps(generation))
    write_vocabulary(folder / "qwen.tiktoken", random_vocabulary(size.ranks))
    write_shards(folder, plan_shards(tensors, size.shard_bytes), lambda spec: random_pieces(spec.name, spec.shape, spec.dtype, 0))


if __name__ == "__main__":
    main()
