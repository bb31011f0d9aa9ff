"""The audio encoder on a clip, at the published widths and 2 of its 32 blocks: every weight type, and PyTorch where it is installed.

    python benchmarks/encoder.py [--threads N] [--json]

The checkpoint is made on the way, in a temporary folder of 3.5 GB. PyTorch computes the same blocks in float32 (the extra `peers`);
its result is compared with ours before it is timed.
"""

from __future__ import annotations

import tempfile
from typing import Any

import measure
import numpy as np

import qwenaudio_np
from qwenaudio_np.audio import SAMPLE_RATE, clip_from_array
from qwenaudio_np.ceilings import PAUSE, median_seconds
from qwenaudio_np.convert.random_checkpoint import write_random_checkpoint

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
        lines: list[dict[str, Any]] = []
        for weights in TOLERANCE:
            model = qwenaudio_np.load(f"{folder}/layer", weights=weights, threads=options.threads)
            error = measure.validate(weights, model.encode_audio([clip])[0], want, TOLERANCE[weights])
            seconds = median_seconds(lambda model=model: model.encode_audio([clip]), options.repeats, PAUSE)
            lines.append({"implementation": f"qwenaudio_np, {weights}", "seconds": seconds, "error/RMS": error})
        if measure.peer("torch", "PyTorch"):
            lines.append(torch_line(reference, clip, want, options.repeats, options.threads))
    theirs = lines[-1]["seconds"] if lines[-1]["implementation"].startswith("PyTorch") else float("nan")
    measure.report([{**line, "times faster than PyTorch": theirs / line["seconds"]} for line in lines], options.json)


def torch_line(model: Any, clip: Any, want: np.ndarray, repeats: int, threads: int | None) -> dict[str, Any]:
    """The same clip through the same weights in PyTorch, written as its users would."""
    import torch
    import torch.nn.functional as F

    from qwenaudio_np.mel import log_mel
    from qwenaudio_np.ops import widen

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

    def encode() -> Any:
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
        return torch.cat([begin[None], F.linear(x, w["proj.weight"], w["proj.bias"]), end[None]])

    with torch.no_grad():
        error = measure.validate("PyTorch", encode().numpy(), want, TOLERANCE["float32"])
        seconds = median_seconds(encode, repeats, PAUSE)
    return {"implementation": f"PyTorch {torch.__version__}, float32", "seconds": seconds, "error/RMS": error}


if __name__ == "__main__":
    main()
