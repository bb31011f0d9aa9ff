"""What the training loops in demo/ are made of: saving and going on, the learning rate, and each loss against a case worked by hand."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is for training only; pip install '.[train]'")

from demo import sizes, train, tune  # noqa: E402
from demo.progress import LEAST_RATE, Means, Run, schedule  # noqa: E402
from demo.twin import Frozen, Twin  # noqa: E402
from qwenaudio_np.special_tokens import SPECIAL_TOKENS, timestamp_token  # noqa: E402


def new_line() -> tuple[Any, Run]:
    line = torch.nn.Linear(2, 1)
    return line, Run({"line": line, "optimiser": torch.optim.SGD(line.parameters(), momentum=0.5)})


def test_a_run_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    line, run = new_line()
    run.learn(line(torch.ones(2)).sum(), 0.1, [line])
    run.save(tmp_path / "run.pt")
    other, again = new_line()
    again.load(tmp_path / "run.pt")
    assert (again.step, again.epoch) == (1, 1)
    for each, its in ((line, run), (other, again)):
        its.learn(each(torch.ones(2)).sum(), 0.1, [each])
    assert torch.equal(line.weight, other.weight)  # the momentum was saved too
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


def test_without_a_save_a_run_begins(tmp_path: Path) -> None:
    _, run = new_line()
    run.load(tmp_path / "run.pt")
    assert (run.step, run.epoch) == (0, 0)


def test_a_step_is_no_longer_than_a_gradient_of_one() -> None:
    line, run = new_line()
    before = line.weight.detach().clone(), line.bias.detach().clone()
    run.learn(1000 * line(torch.ones(2)).sum(), 0.1, [line])
    moved = torch.cat([(line.weight - before[0]).flatten(), line.bias - before[1]])
    assert moved.norm().item() == pytest.approx(0.1, rel=1e-4)


def test_the_rate_goes_up_a_line_and_down_a_cosine() -> None:
    assert [schedule(step, 100, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert schedule(50, 100, 4) == pytest.approx((1 + LEAST_RATE) / 2)
    assert schedule(100, 100, 4) == schedule(200, 100, 4) == LEAST_RATE


def test_means_are_over_the_steps_that_had_the_number() -> None:
    means = Means()
    for numbers in ({"a": 1.0, "b": 4.0}, {"a": 2.0}):
        means.add({name: torch.tensor(number) for name, number in numbers.items()})
    assert means.shown() == "a 1.500, b 4.000"
    assert means.shown() == ""


def batch(**parts: Any) -> Any:
    return SimpleNamespace(**{name: torch.tensor(part) for name, part in parts.items()})


class Scores:
    """Stands for the twin: its hidden states are the scores already."""

    def logits(self, hidden: Any) -> Any:
        return hidden


def test_the_answers_loss_is_taken_over_answer_tokens_alone() -> None:
    hidden = torch.zeros(1, 3, sizes.padded_vocabulary())
    hidden[0, 1, 7] = 5.0
    loss = train.answer_loss(Scores(), batch(targets=[[-100, 7, -100]]), hidden)
    assert loss.item() == pytest.approx(math.log(1 + (sizes.padded_vocabulary() - 1) * math.exp(-5.0)), rel=1e-5)


def test_a_times_loss_is_spread_over_its_neighbours() -> None:
    """The least loss of a time is reached by scores that are spread as TIME_BLUR is, and is that spread's entropy."""
    at = [sizes.RANKS + SPECIAL_TOKENS.index(timestamp_token(1.0 + 0.04 * step)) for step in range(-2, 3)]
    hidden = torch.full((1, 1, sizes.padded_vocabulary()), -40.0)
    hidden[0, 0, at] = torch.tensor(train.TIME_BLUR).log()
    entropy = -sum(share * math.log(share) for share in train.TIME_BLUR)
    assert train.answer_loss(Scores(), batch(targets=[[at[2]]]), hidden).item() == pytest.approx(entropy, rel=1e-5)


def test_the_times_on_the_grid_are_tokens() -> None:
    rows = train.time_rows()
    assert [SPECIAL_TOKENS[row - sizes.RANKS] for row in (rows[0], rows[1], rows[-1])] == ["<|0.00|>", "<|0.04|>", "<|30.00|>"]


def test_a_vectors_place_is_its_time() -> None:
    """Vectors that lie on their times' embeddings, far from all others, cost what the blur takes from its middle; padding costs nothing."""
    scale = 30.0
    twin = SimpleNamespace(wte=SimpleNamespace(weight=torch.eye(sizes.padded_vocabulary())))
    vectors = scale * torch.eye(sizes.padded_vocabulary())[train.time_rows()[2:5]][None]
    whole = torch.cat([torch.zeros_like(vectors[:, :2]), vectors], 1)  # vectors 2, 3 and 4 are right
    loss = train.place_loss(twin, batch(positions=[10]), whole)
    right, nowhere = scale * (1 - train.TIME_BLUR[2]), math.log(len(train.time_rows()))
    assert loss.item() == pytest.approx((3 * right + 2 * nowhere) / 5, rel=1e-5)
    assert train.place_loss(twin, batch(positions=[4]), whole).item() == pytest.approx(nowhere, rel=1e-5)


def test_the_listening_loss_is_the_share_of_the_right_vectors() -> None:
    """Looks are even over four positions; two of them are right, then one, then nothing is asked."""
    looks = torch.full((1, 3, 4), math.log(0.25))
    twin = SimpleNamespace(looks=lambda listening: looks)
    loss = train.listening_loss(twin, batch(heard=[[[1, 2], [3, 3], [-1, -1]]]), torch.zeros(1, 4, 2))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-6)
    assert train.listening_loss(twin, batch(heard=[[[-1, -1]]]), torch.zeros(1, 4, 2)).item() == 0.0


def test_the_listening_head_looks_back_only_and_gives_all_it_has() -> None:
    torch.manual_seed(0)
    looks = Twin().looks(torch.randn(2, 5, sizes.HIDDEN)).exp()
    assert looks.shape == (2, 5, 5) and torch.allclose(looks.sum(-1), torch.ones(2, 5))
    assert torch.equal(looks.triu(1), torch.zeros(2, 5, 5))


def test_the_listening_head_is_one_of_the_blocks_own() -> None:
    """Its looks, laid over the head's values, are that head's part of what the block's attention adds."""
    from demo.twin import LISTENING_BLOCK, LISTENING_HEAD, rotary_tables

    torch.manual_seed(0)
    twin, x = Twin(), torch.randn(1, 6, sizes.HIDDEN)
    block, width = twin.h[LISTENING_BLOCK], sizes.HIDDEN // sizes.HEADS
    head = slice(LISTENING_HEAD * width, (LISTENING_HEAD + 1) * width)
    values = block.attn.c_attn(block.ln_1(x))[..., 2 * sizes.HIDDEN :][..., head]
    part = twin.looks(x).exp() @ values @ block.attn.c_proj.weight[:, head].T
    whole = block.attn(block.ln_1(x), *rotary_tables(6))
    with torch.no_grad():
        block.attn.c_proj.weight[:, head] = 0.0
    assert torch.allclose(whole - block.attn(block.ln_1(x), *rotary_tables(6)), part, atol=1e-5)


def test_what_has_not_moved_costs_nothing_and_the_rest_in_its_own_spread() -> None:
    """With every column two spreads away, the mean square is 4."""
    torch.manual_seed(0)
    before = Frozen().eval()
    sounds = SimpleNamespace(random=np.random.default_rng(0), draw=lambda count, seconds, latest: ([], torch.randn(2, 80, 20)))
    spread = torch.full((sizes.STATE,), 0.5)
    assert tune.moved(before, before, sounds, spread).item() == 0.0
    away = SimpleNamespace(stream=lambda mel: before.stream(mel) + 1.0)
    assert tune.moved(away, before, sounds, spread).item() == pytest.approx(4.0, rel=1e-4)
