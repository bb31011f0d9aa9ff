"""What a training loop needs besides its losses: saving and going on, the learning rate, means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is for training only; pip install '.[train]'")

from demo.progress import LEAST_RATE, WARM_UP, Means, Run, schedule  # noqa: E402


def new_line() -> tuple[Any, Run]:
    line = torch.nn.Linear(2, 1)
    return line, Run({"line": line, "optimiser": torch.optim.SGD(line.parameters(), momentum=0.5)})


def test_a_run_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    line, run = new_line()
    run.learn(line(torch.ones(2)).sum(), 0.1, [line])
    run.save(tmp_path / "run.pt")
    other, again = new_line()
    again.load(tmp_path / "run.pt")
    assert again.step == 1 and again.minutes >= run.minutes - 1e-3
    for each, its in ((line, run), (other, again)):
        its.learn(each(torch.ones(2)).sum(), 0.1, [each])
    assert torch.equal(line.weight, other.weight)  # the momentum was saved too
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


def test_without_a_save_a_run_begins(tmp_path: Path) -> None:
    _, run = new_line()
    run.load(tmp_path / "run.pt")
    assert run.step == 0 and run.minutes < 1


def test_a_step_is_no_longer_than_a_gradient_of_one() -> None:
    line, run = new_line()
    before = line.weight.detach().clone(), line.bias.detach().clone()
    run.learn(1000 * line(torch.ones(2)).sum(), 0.1, [line])
    moved = torch.cat([(line.weight - before[0]).flatten(), line.bias - before[1]])
    assert moved.norm().item() == pytest.approx(0.1, rel=1e-4)


def test_the_rate_goes_up_a_line_and_down_a_cosine() -> None:
    assert [schedule(share * WARM_UP) for share in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.0, 0.25, 0.5, 1.0])
    assert schedule((1 + WARM_UP) / 2) == pytest.approx((1 + LEAST_RATE) / 2)
    assert schedule(1.0) == schedule(2.0) == LEAST_RATE


def test_means_are_over_the_steps_that_had_the_number() -> None:
    means = Means()
    for numbers in ({"a": 1.0, "b": 4.0}, {"a": 2.0}):
        means.add({name: torch.tensor(number) for name, number in numbers.items()})
    assert means.shown() == "a 1.500, b 4.000"
    assert means.shown() == ""


def test_a_group_may_have_some_times_the_rate() -> None:
    line = torch.nn.Linear(1, 1)
    groups = [{"params": [line.weight]}, {"params": [line.bias], "times": 4.0}]
    run, before = Run({"line": line, "one": torch.optim.SGD(groups)}), [line.weight.item(), line.bias.item()]
    run.learn(0.1 * line(torch.ones(1)).sum(), 1.0, [line])
    assert [before[0] - line.weight.item(), before[1] - line.bias.item()] == pytest.approx([0.1, 0.4], rel=1e-4)


def test_a_file_of_another_form_is_named(tmp_path: Path) -> None:
    torch.save({"twin": {}, "step": 1, "minutes": 1.0}, tmp_path / "old.pt")
    _, run = new_line()
    with pytest.raises(SystemExit, match=r"old\.pt lacks line, optimiser"):
        run.load(tmp_path / "old.pt")


def test_a_mark_that_does_not_fit_is_named(tmp_path: Path) -> None:
    _, run = new_line()
    run.save(tmp_path / "old.pt")
    other = Run({"line": torch.nn.Linear(3, 1), "optimiser": run.parts["optimiser"]})
    with pytest.raises(SystemExit, match=r"old\.pt does not fit"):
        other.load(tmp_path / "old.pt")
