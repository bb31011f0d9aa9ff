"""The text decoder at the published widths, a few blocks of it: every weight type, and llama.cpp where it is installed.

    python benchmarks/decoder.py [--blocks N] [--threads N] [--json]

Made-up weights with a vocabulary of 1024 ids, so that nearly all of the work is in the blocks. Decoding (16 tokens behind a prompt of
171) is related to plain memory reading, prefill of those 171 positions to NumPy's float32 product. Each computes the logits of every
position; they are compared with the reference backend's before they count. llama.cpp cannot run the whole model, but these blocks it
can: it gets the same weights as a GGUF file (the extra `peers`).
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import llama_peer
import measure
import numpy as np

import qwenaudio_np
from qwenaudio_np import kernels
from qwenaudio_np.ceilings import Ceilings
from qwenaudio_np.config import TextConfig, parse_config
from qwenaudio_np.convert.random_checkpoint import LEARNED_RANKS, SIZES, Size, config_fields, generation_fields, random_vocabulary
from qwenaudio_np.convert.random_values import random_pieces
from qwenaudio_np.convert.safetensors_writer import TensorSpec, plan_shards, write_shards
from qwenaudio_np.convert.vocabulary import write_vocabulary
from qwenaudio_np.names import EMBEDDING, expected_tensors
from qwenaudio_np.options import whole_number

PROMPT, NEW = 171, 16  # positions of a prompt about a 6 s clip, and tokens decoded behind it
WIDTHS = replace(SIZES["layer"], ranks=LEARNED_RANKS, vocab_size=1024)
# RMS of the error over that of the logits: what rounding allows, and what 8 and 4 bits of every product do to random weights. 4 bits say
# little about which weight went where; llama.cpp gets its weights by one piece of code, which the 8 bits before them check.
TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-4, "int8": 0.04, "int4": 0.5}

# One timed pass: logits [PROMPT + NEW, vocabulary], seconds of the prefill, seconds per decoded token.
Pass = Callable[[], tuple[np.ndarray, float, float]]


@dataclass(frozen=True)
class Measure:
    """What every implementation is held against."""

    want: np.ndarray  # logits [PROMPT + NEW, vocabulary] of the reference backend
    text: TextConfig
    ceilings: Ceilings
    repeats: int

    def line(self, name: str, tolerance: float, nbytes: int, once: Pass) -> dict[str, Any]:
        """Validate a first pass, time more of them (medians, of the ratios, too). `nbytes` of weights are read for each token."""
        error = measure.validate(name, once()[0], self.want, tolerance, typical=True)
        runs = [self.ceilings.beside(lambda: once()[1:]) for _ in range(self.repeats)]
        reading = statistics.median(nbytes / token / beside for (_, token), beside, _ in runs)
        product = statistics.median(self.operations / prefill / beside for (prefill, _), _, beside in runs)
        prefill, token = (statistics.median(run[0][i] for run in runs) for i in range(2))
        return {
            "implementation": name,
            "ms/token": token * 1e3,
            "GB/s": nbytes / token / 1e9,
            "over memory reading": reading,
            "prefill ms": prefill * 1e3,
            "Gop/s": self.operations / prefill / 1e9,
            "over NumPy product": product,
            "weights MB": nbytes / 1e6,
            "error/RMS": error,
        }

    @property
    def operations(self) -> float:
        """Multiplications and additions of the prefill: products of all rows, causal attention, all logits."""
        h, text = self.text.hidden_size, self.text
        block = 2 * (4 * h * h + 3 * h * text.ff_size) + 2 * PROMPT * h
        return PROMPT * (text.num_hidden_layers * block + 2 * h * text.vocab_size)


def main() -> None:
    """Print a row per implementation and type of weights."""
    parser = measure.parser(__doc__ or "")
    parser.add_argument("--blocks", type=whole_number(1), default=2, metavar="N", help="blocks, of the decoder's 32 (default 2)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), replace(WIDTHS, decoder_layers=options.blocks))
        measure.report(list(lines(folder, options.repeats, options.threads)), options.json)


def lines(folder: str, repeats: int, threads: int | None) -> Iterator[dict[str, Any]]:
    """Ours by type of weights, then llama.cpp's, each with how much faster than it ours of so many bits is."""
    model = qwenaudio_np.load(folder, backend="reference", threads=threads)
    text = model.config.text
    ids = np.random.default_rng(0).integers(0, text.vocab_size, PROMPT + NEW).tolist()
    against = Measure(run(model, ids)[0], text, Ceilings(PROMPT, text.hidden_size, text.ff_size, threads), repeats)
    ours = {}
    for weights, tolerance in TOLERANCE.items():
        made = qwenaudio_np.load(folder, weights=weights, threads=threads)
        nbytes = sum(weight.nbytes for name, weight in made.weights.items() if name != EMBEDDING)
        ours[weights] = against.line(f"qwenaudio_np, {weights}", tolerance, nbytes, lambda made=made: run(made, ids))
        yield {**ours[weights], **compared(ours[weights], None)}
    if measure.peer("llama_cpp", "llama.cpp (llama-cpp-python)") and measure.peer("gguf", "gguf"):
        for kind, weights in llama_peer.KINDS.items():
            nbytes = llama_peer.write(f"{folder}/model.gguf", model, kind)
            peer = llama_peer.Peer(f"{folder}/model.gguf", len(ids), threads or kernels.get_threads())
            line = against.line(f"llama.cpp, {kind}", TOLERANCE[weights], nbytes, lambda peer=peer: peer.run(ids, PROMPT))
            peer.close()
            yield {**line, **compared(line, ours[weights])}


def compared(line: dict[str, Any], ours: dict[str, Any] | None) -> dict[str, float]:
    """How many times faster ours is than a peer's line."""
    stages = {"ours faster, decoding": "ms/token", "ours faster, prefill": "prefill ms"}
    return {name: line[stage] / ours[stage] if ours else float("nan") for name, stage in stages.items()}


def run(model: qwenaudio_np.QwenAudio, ids: list[int]) -> tuple[np.ndarray, float, float]:
    """One pass of ours over PROMPT and NEW ids."""
    begin = time.perf_counter()
    hidden, cache = model.prefill(model.embed(ids[:PROMPT]))
    rows = [model.logits(hidden)]
    filled = time.perf_counter()
    rows += [model.step(token, cache)[None] for token in ids[PROMPT:]]
    return np.concatenate(rows), filled - begin, (time.perf_counter() - filled) / (len(ids) - PROMPT)


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
