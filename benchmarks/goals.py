"""The goals for speed, size and start on two cores with AVX512-VNNI, and where table.py finds what was measured for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FULL = 8e9  # parameters from which on a checkpoint is of the full size
TIMES, GB, SECONDS, TOKENS = "x", "GB", "s", "tokens/s"
_SMALLER_IS_BETTER = (GB, SECONDS)


@dataclass(frozen=True)
class Goal:
    """A bound that shall hold, one to aim for (None: none is set), and the benchmark's line and column with the figure."""

    what: str
    least: float | None
    aim: float | None
    unit: str
    line: dict[str, str]  # the line is the first whose values begin with these
    column: str
    peer: str = "such line"

    def find(self, lines: list[dict[str, Any]]) -> float | None:
        """The figure, None where there is no such line or it was not measured."""
        fits = (line for line in lines if all(str(line.get(name, "")).startswith(value) for name, value in self.line.items()))
        value = next(fits, {}).get(self.column)
        return None if value is None else float(value)

    def met(self, value: float | None) -> str:
        """Which of the two bounds a figure meets: "aim", "least" or "no"; nothing where there is no figure or no bound."""
        if value is None or self.least is None or self.aim is None:
            return ""
        sign = -1 if self.unit in _SMALLER_IS_BETTER else 1
        return "aim" if sign * value >= sign * self.aim else "least" if sign * value >= sign * self.least else "no"


def _ours(weights: str) -> dict[str, str]:
    return {"implementation": f"qwenaudio_np, {weights}"}


def _decoding(weights: str) -> Goal:
    return Goal(f"decoding, {weights}: over plain memory reading", 0.85, 0.95, TIMES, _ours(weights), "over memory reading")


def _prefill(weights: str, least: float, aim: float) -> Goal:
    return Goal(f"prefill of 171, {weights}: over NumPy's float32 product", least, aim, TIMES, _ours(weights), "over NumPy product")


def _llama(kind: str, stage: str) -> Goal:
    what = f"{stage} beside llama.cpp's {kind}"
    return Goal(what, None, None, TIMES, {"implementation": f"llama.cpp, {kind}"}, f"ours faster, {stage}", "llama.cpp")


# Benchmark -> its goals, in the order of the table.
OPERATIONS = {
    "decoder": [
        *(_decoding(weights) for weights in ("int4", "int8", "bfloat16")),
        *(_prefill(weights, 2.0, 3.0) for weights in ("int4", "int8")),
        *(_prefill(weights, 0.9, 1.2) for weights in ("bfloat16", "float32")),
        *(_llama(kind, stage) for kind in ("Q4_0", "Q8_0") for stage in ("decoding", "prefill")),
    ],
    "encoder": [
        Goal("encoder, 30 s, int8: faster than PyTorch float32", 1.8, 3.0, TIMES, _ours("int8"), "times faster than PyTorch", "PyTorch"),
    ],
    "attention": [
        Goal(
            "attention of the encoder, 30 s: faster than PyTorch",
            1.0,
            1.5,
            TIMES,
            {"shape": "encoder, 30 s"},
            "times faster than PyTorch",
            "PyTorch",
        ),
    ],
    "start": [
        Goal("tiny model, second run: start to text", 2.0, 1.0, SECONDS, {"run": "second"}, "seconds"),
        Goal("tiny model, first run ever, compiling included", 30.0, 12.0, SECONDS, {"run": "first"}, "seconds"),
    ],
}

# Columns of request.py, with the bounds of the full size by type of weights.
_REQUEST = {
    ("most resident memory", "peak GB", GB): {"int4": (6.5, 5.5), "bfloat16": (24.0, 24.0)},
    ("loading", "load s", SECONDS): {"int4": (3.0, 1.0)},
    ("encoder + prefill", "encoder + prefill s", SECONDS): {"int4": (10.0, 6.0)},
    ("decoding", "tokens/s", TOKENS): {"int4": (3.5, 4.7)},
}
_FROM_MEMORY = {"bfloat16": (0.8, 0.95)}


def request(weights: str, parameters: int) -> list[Goal]:
    """The goals of a whole request about 5.9 s of speech, 30 new tokens; without bounds but for the full size."""
    return [
        Goal(f"{_named(weights, parameters)}: {what}", *_bounds(bounds, weights, parameters), unit, {}, column)
        for (what, column, unit), bounds in _REQUEST.items()
    ]


def decoding(weights: str, parameters: int) -> list[Goal]:
    """The goal of `qwenaudio-np bench`: decoding with all layers and the whole vocabulary."""
    what = f"{_named(weights, parameters)}: decoding over plain memory reading"
    return [Goal(what, *_bounds(_FROM_MEMORY, weights, parameters), TIMES, {"stage": "decoding"}, "ratio")]


def _named(weights: str, parameters: int) -> str:
    return f"request, {parameters / 1e9:.1f} B parameters, {weights}"


def _bounds(bounds: dict[str, tuple[float, float]], weights: str, parameters: int) -> tuple[float | None, float | None]:
    return bounds.get(weights, (None, None)) if parameters >= FULL else (None, None)
