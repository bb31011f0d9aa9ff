"""Weights arranged for few bits: the model computes the same, and 4 bits lose less of it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is for training only; pip install '.[train]'")

from torch import Tensor, nn  # noqa: E402

from demo import export, few_bits  # noqa: E402
from demo.surgery import readers  # noqa: E402
from demo.twin import Twin  # noqa: E402
from qwenaudio_np.embedded import FOLDER  # noqa: E402
from qwenaudio_np.quantised import dequantise, quantise  # noqa: E402


def four_bits(weight: Tensor) -> Tensor:
    return torch.from_numpy(dequantise(quantise(np.ascontiguousarray(weight.detach().numpy()), 4)))


def norm_and_layers() -> tuple[nn.LayerNorm, tuple[nn.Linear, nn.Linear]]:
    """A norm that silences every eighth channel, and two layers that read these as loudly as the others."""
    torch.manual_seed(0)
    norm, layers = nn.LayerNorm(64), (nn.Linear(64, 16), nn.Linear(64, 8, bias=False))
    nn.init.normal_(norm.bias)
    with torch.no_grad():
        norm.weight[::8] = 1e-3
        norm.bias[::8] *= 1e-3
        for layer in layers:
            layer.weight[:, ::8] *= 1e3
    return norm, layers


def test_even_columns_change_no_bit_of_what_is_read() -> None:
    norm, layers = norm_and_layers()
    x = torch.randn(5, 64)
    before = [layer(norm(x)) for layer in layers]
    few_bits.even_columns(norm, iter(layers))
    assert all(torch.equal(layer(norm(x)), was) for layer, was in zip(layers, before, strict=True))
    sizes = torch.cat([layer.weight for layer in layers]).norm(dim=0)
    assert sizes.max() / sizes.min() <= 2.0  # each is rounded to a power of two of the middle one, half of one at most on both sides


def test_four_bits_lose_less_of_even_columns() -> None:
    """A loud column makes its 31 neighbours coarse; what the norm leaves of it is no louder than they are."""
    lost = []
    for even in (False, True):
        norm, (layer, other) = norm_and_layers()
        if even:
            few_bits.even_columns(norm, (layer, other))
        given = norm(torch.randn(100, 64))
        rounded = given @ (four_bits(layer.weight) - layer.weight).T
        lost.append((rounded.square().sum() / (given @ layer.weight.T).square().sum()).item())
    assert lost[1] < 0.02 < 1.0 < lost[0]  # 7 % of Gaussian weights' size are lost, 0.5 % of their square


def test_a_column_of_zeros_stays_one() -> None:
    norm, layers = nn.LayerNorm(8), (nn.Linear(8, 4),)
    with torch.no_grad():
        layers[0].weight[:, 3] = 0.0
    x = torch.randn(2, 8)
    before = layers[0](norm(x))
    few_bits.even_columns(norm, layers)
    assert torch.equal(layers[0](norm(x)), before)
    assert torch.isfinite(norm.weight).all()


def test_neurons_stand_in_order_and_write_the_same() -> None:
    torch.manual_seed(0)
    reads, writes, x = nn.Linear(6, 32), nn.Linear(32, 6), torch.randn(4, 6)
    before = writes(nn.functional.gelu(reads(x)))
    few_bits.order_neurons(reads, writes)
    assert torch.allclose(writes(nn.functional.gelu(reads(x))), before, atol=1e-5)
    sizes = writes.weight.norm(dim=0)
    assert torch.equal(sizes, sizes.sort().values)


def test_the_command_writes_a_model_that_hears_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["few_bits", "--start", str(FOLDER), str(tmp_path / "out")])
    few_bits.main()
    was, now = Twin.from_checkpoint(FOLDER), Twin.from_checkpoint(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in FOLDER.iterdir())
    mel, positions = torch.randn(2, 80, 200), torch.tensor([100, 60])
    with torch.no_grad():
        expected, found = was.audio(mel, positions), now.audio(mel, positions)
    assert ((found - expected).norm() / expected.norm()).item() < 1e-4  # float32 sums in another order
    for block in now.audio.blocks:
        for _, layers in readers(block):
            sizes = torch.cat([layer.weight for layer in layers]).norm(dim=0)
            assert sizes.max() / sizes.median() < 2.0
    again = now.state_dict()
    few_bits.arrange(now)
    assert all(torch.equal(tensor, now.state_dict()[name]) for name, tensor in again.items())
    assert export.tensors(again).keys() == export.tensors(was.state_dict()).keys()


def test_a_missing_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["few_bits", "--start", str(tmp_path / "none"), str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="no exported model"):
        few_bits.main()
    assert not (tmp_path / "out").exists()
