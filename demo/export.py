"""The trained twin as a checkpoint in the original's layout: `python -m demo.export --data build/demo OUT`.

Writes config.json, generation_config.json, qwen.tiktoken and model.safetensors (bfloat16).
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from demo import sizes, words
from demo.twin import Twin

GENERATION = {"chat_format": "chatml", "max_new_tokens": 256, "max_window_size": 6144}


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/demo"))
    help_twin = "marks or exported models, of several the mean (default: twin.pt of the data folder)"
    parser.add_argument("--twin", type=Path, nargs="+", help=help_twin)
    parser.add_argument("out", type=Path, help="folder to write, made if it is missing")
    arguments = parser.parse_args()
    twins = arguments.twin or [arguments.data / "twin.pt"]
    words.require(arguments.data, *filter(Path.is_dir, twins))
    weights = [read(path) for path in twins]
    arguments.out.mkdir(parents=True, exist_ok=True)
    write(arguments.out, mean(weights), arguments.data / words.FILE)
    print(f"{arguments.out}: {sum(path.stat().st_size for path in arguments.out.iterdir()) / 1e6:.1f} MB")


def read(path: Path) -> dict[str, Tensor]:
    """A twin's weights, out of a training's mark or an exported model's folder. Raises SystemExit where there is neither."""
    if path.is_dir():
        return Twin.from_checkpoint(path).state_dict()
    if not path.exists():
        raise SystemExit(f"no {path}: run python -m demo.train first, or name an exported model")
    weights: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")["twin"]
    return weights


def mean(twins: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of twins' weights, number by number: of marks of one run, or of a model and what it became, it is often better than each."""
    return {name: torch.stack([twin[name] for twin in twins]).mean(0) for name in twins[0]}


def write(out: Path, twin: dict[str, Tensor], vocabulary: Path) -> None:
    """The four files of a checkpoint."""
    (out / "config.json").write_text(json.dumps(sizes.config(), indent=2) + "\n")
    (out / "generation_config.json").write_text(json.dumps(GENERATION, indent=2) + "\n")
    shutil.copyfile(vocabulary, out / words.FILE)
    save_file(dict(sorted(tensors(twin).items())), out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)  # safetensors makes it private


def tensors(twin: dict[str, Tensor]) -> dict[str, Tensor]:
    """The checkpoint's tensors: the twin's under their full names."""
    return {f"transformer.{name}": tensor.bfloat16().contiguous() for name, tensor in twin.items()}


if __name__ == "__main__":
    main()
