"""Cuts in trained layers: what is closed, what is left to others, what copies add up to."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is for training only; pip install '.[train]'")

from torch import Tensor, nn  # noqa: E402

from demo import surgery  # noqa: E402
from demo.twin import Attention  # noqa: E402


def orthonormal(count: int, width: int) -> Tensor:
    """Directions [count, width] whose elements have mean 0."""
    drawn = torch.randn(width, count)
    return torch.linalg.qr(drawn - drawn.mean(0))[0].T


def test_nothing_is_written_along_closed_directions_and_the_rest_stays() -> None:
    torch.manual_seed(0)
    directions, layer, x = orthonormal(2, 8), nn.Linear(4, 8), torch.randn(6, 4)
    before = layer(x).detach()
    surgery.close_writers(directions, (layer,))
    assert torch.allclose(layer(x) @ directions.T, torch.zeros(6, 2), atol=1e-6)
    assert torch.allclose(layer(x), before - before @ directions.T @ directions, atol=1e-6)


def test_nothing_is_read_along_closed_directions_and_the_rest_stays() -> None:
    torch.manual_seed(0)
    norm, layer, old, without_bias = nn.LayerNorm(8), nn.Linear(8, 3), nn.Linear(8, 3), nn.Linear(8, 3, bias=False)
    for parameter in norm.parameters():
        nn.init.normal_(parameter, 1.0, 0.3)
    old.load_state_dict(layer.state_dict())
    x, directions = torch.randn(5, 8), orthonormal(2, 8)
    without = x - x @ directions.T @ directions
    surgery.close_readers(directions, ((norm, (layer, without_bias)),))
    assert torch.allclose(layer(norm(without)), old(norm(without)), rtol=1e-4, atol=1e-5)
    # The directions still count in the norm's size; but for that, nothing of them is seen.
    ratio = (x.std(1, correction=0) / without.std(1, correction=0))[:, None]
    for part in (layer, without_bias):
        constant = part.weight @ norm.bias + (0.0 if part.bias is None else part.bias)
        assert torch.allclose((part(norm(x)) - constant) * ratio, part(norm(without)) - constant, rtol=1e-3, atol=1e-5)


def test_the_directions_are_where_least_is_carried_and_no_layer_norm_takes_them_away() -> None:
    carried = torch.diag(torch.arange(1.0, 9.0))
    found = surgery.least_used(carried, 3)
    assert torch.allclose(found @ found.T, torch.eye(3), atol=1e-5)
    assert torch.allclose(found.sum(1), torch.zeros(3), atol=1e-5)
    shares = (found @ carried @ found.T).diagonal()
    assert torch.equal(shares, shares.sort().values)
    other = torch.zeros(8)
    other[:2] = torch.tensor([0.5**0.5, -(0.5**0.5)])
    assert shares[0] <= other @ carried @ other


def test_what_the_others_tell_of_a_head_they_write_from_now_on() -> None:
    """Head 1 makes what head 0 makes, turned, and a constant: nothing is lost. What is drawn is lost, but for its mean."""
    torch.manual_seed(0)
    attention, made = Attention(8, 2), torch.randn(50, 8)
    made[:, 4:] = made[:, :4] @ torch.linalg.qr(torch.randn(4, 4))[0] + 3.0
    before = attention.out(made).detach()
    assert surgery.leave_to_others(attention, 1, made) == pytest.approx(1.0, abs=1e-4)
    assert torch.equal(attention.out.weight[:, 4:], torch.zeros(8, 4))
    assert torch.allclose(attention.out(made), before, rtol=1e-2, atol=1e-2)

    attention, made = Attention(8, 2), torch.randn(5000, 8) + 2.0
    before = attention.out(made).detach()
    assert surgery.leave_to_others(attention, 0, made) < 0.02
    assert torch.equal(attention.out.weight[:, :4], torch.zeros(8, 4))
    assert torch.allclose(attention.out(made).mean(0), before.mean(0), atol=1e-3)


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_copies_are_rounded_and_their_mean_is_not(spread: float) -> None:
    torch.manual_seed(0)
    weight = torch.randn(40)
    rows = surgery.copies(weight, 32, spread)
    assert torch.equal(rows, rows.bfloat16().float())
    assert ((rows.mean(0) - weight).abs() <= rows.abs().max(0).values * 2**-8 / 32).all()
    assert (rows.std(0) >= 0.1 * spread * weight.abs().mean()).all()
