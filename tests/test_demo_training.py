"""What the training loops in demo/ are made of: saving and going on, the learning rate, and each loss against a case worked by hand."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is for training only; pip install '.[train]'")

from demo import export, restart, sizes, train, tune  # noqa: E402
from demo.batches import Rows  # noqa: E402
from demo.progress import LEAST_RATE, Means, Run, schedule  # noqa: E402
from demo.reading import Imagination, Reading  # noqa: E402
from demo.twin import Frozen, Twin, rotary_tables  # noqa: E402
from qwenaudio_np.embedded import FOLDER  # noqa: E402
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
    from demo.twin import LISTENING_BLOCK, LISTENING_HEAD

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


class Ear(torch.nn.Module):
    """Stands for the twin: the real one, without the encoder's blocks, which read a file of Whisper's."""

    def __init__(self) -> None:
        super().__init__()
        self.twin, self.imagination = Twin(), Imagination()


def spoken(clips: int, positions: int) -> Any:
    return SimpleNamespace(speech=torch.arange(clips), positions=torch.full((clips,), positions), spoken=[[1, 2]] * clips)


def reading() -> Reading:
    ids = torch.zeros(1, 12, dtype=torch.long)
    targets, heard = torch.full((1, 12), -100), torch.full((1, 12, 2), -1)
    targets[0, 9], heard[0, 9] = 5, torch.tensor([2, 3])
    return Reading(Rows(ids, targets, heard, torch.tensor([0])), torch.tensor([[5, -1, 6, -1]]), torch.tensor([4]))


def test_ctc_is_taken_per_token_and_is_zero_where_nobody_speaks() -> None:
    """Two frames for two tokens leave one path: the loss is its two scores over two tokens."""
    scores = torch.full((1, 2, sizes.RANKS + 1), 0.0).log_softmax(-1)
    loss = train.ctc_loss(scores, SimpleNamespace(spoken=[[1, 2]], speech=torch.tensor([0]), positions=torch.tensor([4])))
    assert loss.item() == pytest.approx(math.log(sizes.RANKS + 1), rel=1e-5)
    assert train.ctc_loss(scores[:0], SimpleNamespace(spoken=[])).item() == 0.0


def test_reading_teaches_the_decoder_and_imagining_the_imagination_alone() -> None:
    torch.manual_seed(0)
    run, vectors = Ear(), torch.randn(2, 6, sizes.HIDDEN, requires_grad=True)
    found = train.reading_losses(run, reading(), spoken(2, 10), vectors, torch.randn(2, 6, sizes.RANKS + 1))
    assert set(found) == {"reading", "following", "imagining"}
    (found["reading"] + found["following"]).backward(retain_graph=True)
    assert run.twin.h[0].mlp.w1.weight.grad.abs().sum() > 0 and run.twin.wte.weight.grad.abs().sum() > 0
    assert vectors.grad is None and all(parameter.grad is None for parameter in run.imagination.parameters())
    found["imagining"].backward()
    assert vectors.grad is None and all(parameter.grad is not None for parameter in run.imagination.parameters())


def test_nobody_speaks_so_nothing_is_read() -> None:
    batch = spoken(0, 10)
    assert train.reading_losses(Ear(), reading(), batch, torch.randn(2, 6, sizes.HIDDEN), torch.randn(0, 6, sizes.RANKS + 1)) == {}


def test_what_lies_behind_a_clips_end_changes_no_loss() -> None:
    vectors, scores = torch.randn(1, 8, sizes.HIDDEN), torch.randn(1, 8, sizes.RANKS + 1)
    run, found = Ear(), []
    for _ in range(2):
        torch.manual_seed(0)
        found.append(train.reading_losses(run, reading(), spoken(1, 10), vectors.clone(), scores.clone()))
        vectors[:, 5:], scores[:, 5:] = 99.0, scores[:, 5:].flip(-1)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_every_parameter_has_one_optimiser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "new_twin", Twin)
    run = train.Training()
    trained = [parameter for name in ("muon", "adam") for group in run.parts[name].param_groups for parameter in group["params"]]
    own = [parameter for part in (run.twin, run.blank, run.imagination) for parameter in part.parameters()]
    assert len(trained) == len(own) and {id(parameter) for parameter in trained} == {id(parameter) for parameter in own}
    by_muon = {id(parameter) for parameter in run.parts["muon"].param_groups[0]["params"]}
    names = [name for name, parameter in run.twin.named_parameters() if id(parameter) in by_muon]
    assert "h.3.mlp.w1.weight" in names and "audio.blocks.5.attn.out.weight" in names and "audio.proj.weight" in names
    assert "wte.weight" not in names and not any(name.endswith("bias") for name in names)


def test_a_group_may_have_some_times_the_rate() -> None:
    line = torch.nn.Linear(1, 1)
    groups = [{"params": [line.weight]}, {"params": [line.bias], "times": 4.0}]
    run, before = Run({"line": line, "one": torch.optim.SGD(groups)}), [line.weight.item(), line.bias.item()]
    run.learn(0.1 * line(torch.ones(1)).sum(), 1.0, [line])
    assert [before[0] - line.weight.item(), before[1] - line.bias.item()] == pytest.approx([0.1, 0.4], rel=1e-4)


def test_a_file_of_another_form_is_named(tmp_path: Path) -> None:
    torch.save({"twin": {}, "step": 1, "epoch": 1}, tmp_path / "old.pt")
    _, run = new_line()
    with pytest.raises(SystemExit, match=r"old\.pt lacks line, optimiser"):
        run.load(tmp_path / "old.pt")


def test_a_checkpoint_fills_the_twin_and_what_it_lacks_adds_nothing() -> None:
    torch.manual_seed(0)
    trained = {name: torch.randn_like(array) for name, array in Twin().state_dict().items() if not name.startswith("h.3.")}
    twin = Twin()
    restart.put_into(twin, trained)
    assert all(torch.equal(twin.state_dict()[name], array) for name, array in trained.items())
    x = torch.randn(1, 5, sizes.HIDDEN)
    assert torch.equal(twin.h[3](x, *rotary_tables(5)), x)


def test_a_checkpoint_of_a_larger_twin_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no place for h\.9\.ln_1\.weight"):
        restart.put_into(Twin(), Twin().state_dict() | {"h.9.ln_1.weight": torch.zeros(1)})


def test_the_halves_of_the_embedded_model_are_a_frozen_encoder_and_a_twin() -> None:
    frozen, trained = restart.halves(FOLDER)
    Frozen().load_state_dict(frozen)
    Twin().load_state_dict(trained)


def test_the_mean_of_twins_is_taken_number_by_number() -> None:
    twins = [{"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([3.0, 8.0])}]
    assert export.mean(twins)["a"].tolist() == [2.0, 5.0]
    assert export.mean(twins[:1])["a"].tolist() == [1.0, 2.0]


def test_a_step_in_bfloat16_sees_what_the_step_before_it_learned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Autocast keeps rounded copies of the weights; they must not outlive the step. Two steps down a slope of 1 at a rate of 0.5."""
    line, run = new_line()
    run.twin, line.bias.data[:] = line, 0.0
    line.weight.data[:] = 2.0
    shown: list[float] = []

    def losses(run: Any, batch: Any, reading: Any) -> Any:
        found = line(torch.tensor([0.5, 0.5])).sum()
        shown.append(found.item())
        return {"answer": found}

    monkeypatch.setattr(train, "losses", losses)
    monkeypatch.setattr(train, "schedule", lambda *_: 1.0)
    feeder = SimpleNamespace(epoch=lambda number: iter([batch(positions=[50])] * 2))
    arguments = SimpleNamespace(bfloat16=True, read_every=1, rate=0.5, steps=2, out=tmp_path / "run.pt")
    train.one_epoch(run, feeder, iter([None] * 2), arguments)
    assert shown[0] == 2.0 and shown[1] < 1.5
