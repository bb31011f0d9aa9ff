"""The same model, its weights so large and in such places that few bits round them less: `python -m demo.few_bits --start MODEL OUT`.

With 8 and 4 bits 32 neighbours of a row share a scale, so the largest of them decides how coarsely all are rounded. Two changes of the
encoder keep large ones together, and leave what it computes as it is:

- What a norm makes of a channel is multiplied by a number, and what reads that channel divided by it, so that the columns of the reading
  layers become about equally large. A norm may silence a channel (0.0006 where others have 10), and what is to read it all the same, as
  surgery.py lets it, has weights of hundreds. The number is a power of two: no result in float32 or bfloat16 changes in a single bit.
- The neurons of a feed-forward layer stand in the order of how much they write, so that the loud ones that branch.py and whole_clip.py
  put there share their scales with each other. Sums are taken in another order, which changes their last bits.

It comes last of all: of a model and what it became by this there is no mean (`demo.export --twin`), as their neurons stand in other places.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from demo import export, words
from demo.surgery import readers
from demo.twin import Twin


def main() -> None:
    """Write the model anew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", type=Path, required=True, help="an exported model")
    parser.add_argument("out", type=Path, help="folder of the model to write, made if it is missing")
    arguments = parser.parse_args()
    if not (arguments.start / words.FILE).exists():
        raise SystemExit(f"no {arguments.start / words.FILE}: {arguments.start} is no exported model")
    twin = Twin.from_checkpoint(arguments.start).requires_grad_(False)
    arrange(twin)
    arguments.out.mkdir(parents=True, exist_ok=True)
    export.write(arguments.out, twin.state_dict(), arguments.start / words.FILE)


def arrange(twin: Twin) -> None:
    """Both changes, in all of the encoder. The decoder's weights have no such outliers: there they bring nothing."""
    ear = twin.audio
    for block in ear.blocks:
        for norm, layers in readers(block):
            even_columns(norm, layers)
        order_neurons(block.mlp[0], block.mlp[2])
    even_columns(ear.ln_post, (ear.proj,))


@torch.no_grad()
def even_columns(norm: nn.LayerNorm, layers: Iterable[nn.Linear]) -> None:
    """Move a power of two of each column of the layers that read `norm` into it, so that the columns are about equally large."""
    layers = tuple(layers)
    sizes = torch.cat([layer.weight for layer in layers]).norm(dim=0).clamp(min=1e-9)  # of a column of zeros too there is a logarithm
    powers = torch.exp2(torch.round(torch.log2(sizes / sizes.median())))
    norm.weight *= powers
    norm.bias *= powers
    for layer in layers:
        layer.weight /= powers


@torch.no_grad()
def order_neurons(reads: nn.Linear, writes: nn.Linear) -> None:
    """Put a feed-forward layer's neurons in the order of the size of their columns in `writes`."""
    order = torch.argsort(writes.weight.norm(dim=0), stable=True)
    reads.weight.copy_(reads.weight[order])
    reads.bias.copy_(reads.bias[order])
    writes.weight.copy_(writes.weight[:, order])


if __name__ == "__main__":
    main()
