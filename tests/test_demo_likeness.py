"""Learning without forgetting: what is held to another model, and what is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is for training only; pip install '.[train]'")

from demo import losses, sizes  # noqa: E402
from demo.batches import Rows  # noqa: E402
from demo.likeness import likeness_losses  # noqa: E402
from demo.twin import Twin  # noqa: E402

POSITIONS = torch.tensor([12, 8, 16])


def batch(bound: list[int]) -> Any:
    """Three clips of 6, 4 and 8 vectors, each behind one token and with an answer of two."""
    ids, targets = torch.full((3, 13), 5), torch.full((3, 13), -100)
    targets[:, 10:12] = 7
    rows = Rows(ids, targets, torch.full((3, 13, 2), -1), torch.zeros(3, 13), torch.tensor([1, 1, 1]))
    return SimpleNamespace(bound=torch.tensor(bound, dtype=torch.long), positions=POSITIONS, rows=rows)


def heard(twin: Twin, mel: Any) -> tuple[Any, Any]:
    vectors = twin.audio(mel, POSITIONS)
    rows = batch([]).rows
    return vectors, twin(rows.ids, rows.spans, vectors, POSITIONS // 2)[0]


@pytest.fixture(scope="module")
def twins() -> tuple[Twin, Twin]:
    torch.manual_seed(0)
    return Twin(), Twin()


def test_a_model_is_like_itself_whatever_it_makes_of_other_sounds(twins: tuple[Twin, Twin]) -> None:
    """Row 1 is no speech: its vectors and states are spoilt, as are all vectors behind the clips' ends."""
    twin, mel = twins[0], torch.randn(3, 80, 32)
    vectors, hidden = (part.detach().clone() for part in heard(twin, mel))
    vectors[1], hidden[1], vectors[0, 6:] = 9.0, 9.0, 9.0
    found = likeness_losses(twin, twin, batch([0, 2]), mel, (vectors, hidden), half=False)
    assert found["vectors"].item() < 1e-8 and abs(found["answers"].item()) < 1e-6


def test_vectors_are_compared_as_a_share_of_their_square(twins: tuple[Twin, Twin]) -> None:
    twin, mel = twins[0], torch.randn(3, 80, 32)
    vectors, hidden = heard(twin, mel)
    found = likeness_losses(twin, twin, batch([0]), mel, (1.5 * vectors, hidden), half=False)
    assert found["vectors"].item() == pytest.approx(0.25, rel=1e-4)


def test_scores_are_compared_where_an_answer_stands(twins: tuple[Twin, Twin]) -> None:
    """The mean over two places of sum p log(p / q), worked here in float64, q even: its states are 0."""
    (twin, like), mel = twins, torch.randn(3, 80, 32)
    vectors, hidden = heard(twin, mel)
    _, was = heard(like, mel)
    p = torch.softmax(was[2, 10:12].double() @ like.wte.weight.double().T, -1)
    expected = (p * (p.log() + torch.tensor(float(sizes.padded_vocabulary())).double().log())).sum(-1).mean()
    found = likeness_losses(twin, like, batch([2]), mel, (vectors, torch.zeros_like(hidden)), half=False)
    assert found["answers"].item() == pytest.approx(expected.item(), rel=1e-3)


def test_scores_are_free_where_the_answer_is_taught(twins: tuple[Twin, Twin]) -> None:
    (twin, like), mel, one = twins, torch.randn(3, 80, 32), batch([0, 2])
    vectors, hidden = heard(twin, mel)
    one.rows.weights[0] = 1.0
    other = hidden + torch.tensor([9.0, 0.0, 0.0])[:, None, None]
    held, same = (likeness_losses(twin, like, one, mel, (vectors, states), half=False)["answers"] for states in (hidden, other))
    assert held > 0 and torch.equal(held, same)
    one.rows.weights[2] = 1.0
    assert likeness_losses(twin, like, one, mel, (vectors, hidden), half=False)["answers"] == 0


def test_the_model_that_is_kept_to_stays(twins: tuple[Twin, Twin]) -> None:
    (twin, like), mel = twins, torch.randn(3, 80, 32)
    found = likeness_losses(twin, like, batch([0, 1, 2]), mel, heard(twin, mel), half=False)
    sum(found.values()).backward()
    assert twin.audio.conv1.weight.grad.abs().sum() > 0 and twin.h[0].mlp.w1.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in like.parameters())


@pytest.mark.parametrize("half", [False, True])
def test_the_twin_hears_rooms_and_other_throats_and_the_other_model_plain_clips(monkeypatch: pytest.MonkeyPatch, half: bool) -> None:
    heard_, ears = {}, {name: Twin() for name in ("twin", "like")}
    for name, twin in ears.items():
        twin.audio.register_forward_pre_hook(lambda _, inputs, name=name: heard_.update({name: inputs[0]}))
    mels, one = losses.Mels(torch.randn(3, 80, 32), torch.randn(3, 80, 32)), batch([0, 2])
    one.told, one.spoken, one.notes, one.scenes = one.bound, [[1], [2]], [], []
    monkeypatch.setattr(losses, "other_throats", lambda mel, speech: mel + 1.0)
    run = SimpleNamespace(**ears, blank=torch.nn.Linear(sizes.HIDDEN, 1))
    found = losses.losses(run, one, mels, None, half)
    assert torch.equal(heard_["twin"], mels.heard + 1.0) and torch.equal(heard_["like"], mels.plain[[0, 2]])
    assert all(found[name].isfinite() and found[name].dtype == torch.float32 for name in ("vectors", "answers"))


def test_nothing_is_held_where_nobody_speaks(twins: tuple[Twin, Twin]) -> None:
    twin, mel = twins[0], torch.randn(3, 80, 32)
    assert likeness_losses(twin, twin, batch([]), mel, heard(twin, mel), half=False) == {}
