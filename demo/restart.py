"""Begin from a checkpoint instead of from Whisper: `python -m demo.restart MODEL --data build/demo`, instead of demo.tune and demo.words.

Writes encoder.pt (the blocks that stay as they are) and qwen.tiktoken into the data folder, so that demo.features makes what the
checkpoint's trained blocks are used to; `python -m demo.train --start MODEL` then goes on from those.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from demo import words
from demo.features import ENCODER
from demo.twin import Frozen, Twin


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/demo"))
    parser.add_argument("model", type=Path)
    arguments = parser.parse_args()
    arguments.data.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(arguments.model / words.FILE, arguments.data / words.FILE)
    frozen = {f"encoder.{name}": array for name, array in halves(arguments.model)[0].items()}
    torch.save({"tuned": frozen}, arguments.data / ENCODER)


def halves(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of an exported checkpoint under the names of `Frozen` and of `Twin`."""
    stored = {name.removeprefix("transformer."): array.float() for name, array in load_file(folder / "model.safetensors").items()}
    frozen = {name: stored.pop(f"audio.{name}") for name in Frozen().state_dict()}
    return frozen, stored


def put_into(twin: Twin, trained: dict[str, Tensor]) -> None:
    """What a checkpoint was taught, into a twin that may have more blocks: those begin as additions of nothing.

    Raises:
        ValueError: the checkpoint holds what the twin has no place for.
    """
    missing, unexpected = twin.load_state_dict(trained, strict=False)
    if unexpected:
        raise ValueError(f"the twin has no place for {', '.join(sorted(unexpected))}")
    with torch.no_grad():
        for name in missing:
            if name.endswith("c_proj.weight"):
                twin.get_parameter(name).zero_()


if __name__ == "__main__":
    main()
