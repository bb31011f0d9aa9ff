"""Muon's steps, against singular value decompositions."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is for training only; pip install '.[train]'")

from demo.muon import Muon, orthogonalised  # noqa: E402


def test_newton_schulz_makes_all_singular_values_about_one() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, 16, 40) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    values = torch.linalg.svdvals(orthogonalised(matrices))
    assert values.min() > 0.6 and values.max() < 1.3


def test_bfloat16_is_precise_enough() -> None:
    torch.manual_seed(0)
    made = orthogonalised(torch.randn(2, 16, 40), torch.bfloat16)
    values = torch.linalg.svdvals(made)
    assert made.dtype == torch.float32 and values.min() > 0.6 and values.max() < 1.3


@pytest.mark.parametrize("shape", [(6, 8), (8, 6)])
def test_muon_steps_along_the_orthogonal_part(shape: tuple[int, int]) -> None:
    """The first step of a gradient U S V' goes along U V', AdamW's length per number, whatever S and the shape."""
    torch.manual_seed(0)
    gradient = torch.randn(shape)
    u, _, v = torch.linalg.svd(gradient, full_matrices=False)
    weight = torch.nn.Parameter(torch.zeros(shape))
    muon = Muon([{"params": [weight]}], {weight: 1}, momentum=0.95, weight_decay=0.0)
    muon.param_groups[0]["lr"] = 0.1
    weight.grad = gradient
    muon.step()
    assert torch.nn.functional.cosine_similarity(weight.flatten(), -(u @ v).flatten(), dim=0) > 0.97
    assert weight.square().mean().sqrt().item() == pytest.approx(0.1 * 0.2, rel=0.2)


def test_matrices_below_each_other_are_made_orthogonal_one_by_one() -> None:
    torch.manual_seed(0)
    gradient = torch.randn(12, 5) * torch.tensor([1.0, 50.0])[:, None].repeat_interleave(6, 0)
    both = torch.nn.Parameter(torch.zeros(12, 5))
    alone = [torch.nn.Parameter(torch.zeros(6, 5)) for _ in range(2)]
    for parameters, count in (([both], 2), (alone, 1)):
        muon = Muon([{"params": parameters}], dict.fromkeys(parameters, count), momentum=0.9, weight_decay=0.0)
        muon.param_groups[0]["lr"] = 1.0
        for number, parameter in enumerate(parameters):
            parameter.grad = gradient[6 * number : 6 * number + len(parameter)].clone()
        muon.step()
    assert torch.allclose(both, torch.cat(list(alone)), atol=1e-6)
