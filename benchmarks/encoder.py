"""The audio encoder on a clip, at the published widths and 2 of its 32 blocks: every weight type, and PyTorch where it is installed.

    python benchmarks/encoder.py [--threads N] [--json]

The checkpoint is made on the way, in a temporary folder of 3.5 GB. PyTorch computes the same blocks in float32 (the extra `peers`);
its result is compared with ours before it is timed. It is timed anew in the rounds of every weight type.
"""

from __future__ import annotations

import statistics
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any

import measure
import numpy as np

import qwenaudio_np
from qwenaudio_np.audio import SAMPLE_RATE, Clip, clip_from_array
from qwenaudio_np.ceilings import PAUSE
from qwenaudio_np.convert.random_checkpoint import write_random_checkpoint
from qwenaudio_np.mel import log_mel
from qwenaudio_np.ops import widen

Encoder = Callable[[], np.ndarray]  # the clip -> [vectors + 2, hidden]

SECONDS = 30
TOLERANCE = {"bfloat16": 1e-4, "float32": 1e-4, "int8": 0.05, "int4": 0.5}  # of the RMS; what 8 and 4 bits of every product allow


def main() -> None:
    """Print a row per implementation."""
    options = measure.arguments(__doc__ or "")
    noise = 0.1 * np.random.default_rng(0).standard_normal(SECONDS * SAMPLE_RATE)
    clip = clip_from_array(noise.astype(np.float32), SAMPLE_RATE)
    with tempfile.TemporaryDirectory() as folder:
        write_random_checkpoint(f"{folder}/layer", "layer")
        reference = qwenaudio_np.load(f"{folder}/layer", backend="reference", threads=options.threads)
        (want,) = reference.encode_audio([clip])
        torch = measure.peer("torch", "PyTorch")
        theirs = torch_encoder(torch, reference, clip, options.threads) if torch else None
        rows = list(lines(f"{folder}/layer", clip, want, theirs, options))
    measure.report(rows, options.json)


def lines(folder: str, clip: Clip, want: np.ndarray, theirs: Encoder | None, options: Namespace) -> Iterator[dict[str, Any]]:
    """Ours by type of weights, each in turn with theirs, whose own line has the median of all those rounds."""
    theirs_error = measure.validate("PyTorch", theirs(), want, TOLERANCE["float32"]) if theirs else 0.0
    theirs_took: list[float] = []
    for weights, tolerance in TOLERANCE.items():
        model = qwenaudio_np.load(folder, weights=weights, threads=options.threads)
        error = measure.validate(weights, model.encode_audio([clip])[0], want, tolerance)
        turns: dict[str, Callable[[], object]] = {"ours": lambda model=model: model.encode_audio([clip])}
        rounds = measure.in_turn(turns | ({"PyTorch": theirs} if theirs else {}), options.repeats, PAUSE)
        others = rounds.get("PyTorch", [])
        theirs_took += others
        yield _line(f"qwenaudio_np, {weights}", rounds["ours"], measure.ratio(others, rounds["ours"]), error)
    if theirs:
        yield _line("PyTorch, float32", theirs_took, 1.0, theirs_error)


def _line(implementation: str, took: list[float], faster: float, error: float) -> dict[str, Any]:
    seconds = statistics.median(took)
    return {"implementation": implementation, "seconds": seconds, "error/RMS": error, "times faster than PyTorch": faster}


def torch_encoder(torch: Any, model: Any, clip: Clip, threads: int | None) -> Encoder:
    """The same clip through the same weights in PyTorch, written as its users would."""
    F = torch.nn.functional
    if threads:
        torch.set_num_threads(threads)
    prefix, config = "transformer.audio.", model.config.audio
    w = {
        name[len(prefix) :]: torch.from_numpy(widen(weight, np.dtype(np.float32)).copy())
        for name, weight in model.weights.items()
        if name.startswith(prefix)
    }

    def attend(block: str, h: Any) -> Any:
        q, k, v = (
            F.linear(h, w[f"{block}.attn.{part}.weight"], w.get(f"{block}.attn.{part}.bias"))
            .view(1, len(h), config.n_head, -1)
            .transpose(1, 2)
            for part in ("query", "key", "value")
        )
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(h.shape)
        return F.linear(out, w[f"{block}.attn.out.weight"], w[f"{block}.attn.out.bias"])

    @torch.no_grad()
    def encode() -> np.ndarray:
        mel = torch.from_numpy(log_mel(clip.waveform))[None]
        x = F.gelu(F.conv1d(mel, w["conv1.weight"], w["conv1.bias"], padding=1))
        x = F.gelu(F.conv1d(x, w["conv2.weight"], w["conv2.bias"], stride=2, padding=1))[0].T + w["positional_embedding"]
        for layer in range(config.n_layer):
            block = f"blocks.{layer}"
            x = x + attend(block, F.layer_norm(x, x.shape[1:], w[f"{block}.attn_ln.weight"], w[f"{block}.attn_ln.bias"]))
            h = F.layer_norm(x, x.shape[1:], w[f"{block}.mlp_ln.weight"], w[f"{block}.mlp_ln.bias"])
            h = F.gelu(F.linear(h, w[f"{block}.mlp.0.weight"], w[f"{block}.mlp.0.bias"]))
            x = x + F.linear(h, w[f"{block}.mlp.2.weight"], w[f"{block}.mlp.2.bias"])
        x = F.layer_norm(F.avg_pool1d(x.T[None], 2)[0].T, x.shape[1:], w["ln_post.weight"], w["ln_post.bias"])
        begin, end = w["audio_bos_eos_token.weight"]
        return torch.cat([begin[None], F.linear(x, w["proj.weight"], w["proj.bias"]), end[None]]).numpy()

    return encode


if __name__ == "__main__":
    main()
