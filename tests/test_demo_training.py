"""What is learned in a training step: each loss against a case worked by hand, who is trained by what, and one whole step."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is for training only; pip install '.[train]'")

from demo import export, losses, pack, sizes, sounds, train, words  # noqa: E402
from demo.backgrounds import places  # noqa: E402
from demo.batches import Rows  # noqa: E402
from demo.clip_store import ClipStore  # noqa: E402
from demo.curriculum import WEIGHTS, Curriculum  # noqa: E402
from demo.progress import Means  # noqa: E402
from demo.reading import TEXTS, Imagination, Reading  # noqa: E402
from demo.twin import Twin, rotary_tables  # noqa: E402
from qwenaudio_np.embedded import FOLDER  # noqa: E402
from qwenaudio_np.special_tokens import SPECIAL_TOKENS, timestamp_token  # noqa: E402

PLAYED = {"pitch": 69, "velocity": 25, "instrument": "flute"}
TIMED = [["one", 0.1, 0.6], ["two", 0.8, 1.3]]


def batch(**parts: Any) -> Any:
    return SimpleNamespace(**{name: torch.tensor(part) for name, part in parts.items()})


class Scores:
    """Stands for the twin: its hidden states are the scores already."""

    def logits(self, hidden: Any) -> Any:
        return hidden


def test_the_answers_loss_is_taken_over_answer_tokens_alone() -> None:
    hidden = torch.zeros(1, 3, sizes.padded_vocabulary())
    hidden[0, 1, 7] = 5.0
    right = math.log(1 + (sizes.padded_vocabulary() - 1) * math.exp(-5.0))
    for weight in (1.0, 5.0):
        asked = batch(targets=[[-100, 7, -100]], weights=[[9.0, weight, 9.0]])
        assert losses.answer_loss(Scores(), asked, hidden).item() == pytest.approx(weight * right, rel=1e-5)


def test_a_times_loss_is_spread_over_its_neighbours() -> None:
    """The least loss of a time is reached by scores that are spread as TIME_BLUR is, and is that spread's entropy."""
    at = [sizes.RANKS + SPECIAL_TOKENS.index(timestamp_token(1.0 + 0.04 * step)) for step in range(-2, 3)]
    hidden = torch.full((1, 1, sizes.padded_vocabulary()), -40.0)
    hidden[0, 0, at] = torch.tensor(losses.TIME_BLUR).log()
    entropy = -sum(share * math.log(share) for share in losses.TIME_BLUR)
    assert losses.answer_loss(Scores(), batch(targets=[[at[2]]], weights=[[1.0]]), hidden).item() == pytest.approx(entropy, rel=1e-5)


def test_the_times_on_the_grid_are_tokens() -> None:
    rows = losses.time_rows()
    assert [SPECIAL_TOKENS[row - sizes.RANKS] for row in (rows[0], rows[1], rows[-1])] == ["<|0.00|>", "<|0.04|>", "<|30.00|>"]


def test_a_vectors_place_is_its_time() -> None:
    """Vectors that lie on their times' embeddings, far from all others, cost what the blur takes from its middle; padding costs nothing."""
    scale = 30.0
    twin = SimpleNamespace(wte=SimpleNamespace(weight=torch.eye(sizes.padded_vocabulary())))
    vectors = scale * torch.eye(sizes.padded_vocabulary())[losses.time_rows()[2:5]][None]
    whole = torch.cat([torch.zeros_like(vectors[:, :2]), vectors], 1)  # vectors 2, 3 and 4 are right
    loss = losses.place_loss(twin, batch(positions=[10]), whole)
    right, nowhere = scale * (1 - losses.TIME_BLUR[2]), math.log(len(losses.time_rows()))
    assert loss.item() == pytest.approx((3 * right + 2 * nowhere) / 5, rel=1e-5)
    assert losses.place_loss(twin, batch(positions=[4]), whole).item() == pytest.approx(nowhere, rel=1e-5)


def test_answers_that_nobody_told_neither_count_nor_thin_out_the_others() -> None:
    loss = torch.tensor([1.0, 5.0, 3.0])
    assert losses.mean_that_counts(loss, torch.tensor([1.0, 0.0, 20.0])).item() == pytest.approx(61.0 / 2)
    assert losses.mean_that_counts(loss, torch.zeros(3)).item() == 0.0


def test_the_listening_loss_is_the_share_of_the_right_vectors() -> None:
    """Looks are even over four positions; two of them are right, then one, then nothing is asked."""
    looks = torch.full((1, 3, 4), math.log(0.25))
    twin = SimpleNamespace(looks=lambda listening: looks)
    asked = batch(heard=[[[1, 2], [3, 3], [-1, -1]]], weights=[[1.0, 5.0, 9.0]])
    loss = losses.listening_loss(twin, asked, torch.zeros(1, 4, 2))
    assert loss.item() == pytest.approx((math.log(2) + 5 * math.log(4)) / 2, rel=1e-6)
    assert losses.listening_loss(twin, batch(heard=[[[-1, -1]]], weights=[[1.0]]), torch.zeros(1, 4, 2)).item() == 0.0


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


class Learner(torch.nn.Module):
    """What the losses are taken of."""

    def __init__(self) -> None:
        super().__init__()
        self.twin, self.imagination = Twin(), Imagination()


def spoken(clips: int, positions: int) -> Any:
    return SimpleNamespace(told=torch.arange(clips), positions=torch.full((clips,), positions), spoken=[[1, 2]] * clips)


def reading() -> Reading:
    ids = torch.zeros(1, 12, dtype=torch.long)
    targets, heard = torch.full((1, 12), -100), torch.full((1, 12, 2), -1)
    targets[0, 9], heard[0, 9] = 5, torch.tensor([2, 3])
    return Reading(Rows(ids, targets, heard, torch.ones(ids.shape), torch.tensor([0])), torch.tensor([[5, -1, 6, -1]]), torch.tensor([4]))


def test_ctc_is_taken_per_token_and_is_zero_where_nobody_speaks() -> None:
    """Two frames for two tokens leave one path: the loss is its two scores over two tokens."""
    scores = torch.full((1, 2, sizes.RANKS + 1), 0.0).log_softmax(-1)
    loss = losses.ctc_loss(scores, SimpleNamespace(spoken=[[1, 2]], told=torch.tensor([0]), positions=torch.tensor([4])))
    assert loss.item() == pytest.approx(math.log(sizes.RANKS + 1), rel=1e-5)
    assert losses.ctc_loss(scores[:0], SimpleNamespace(spoken=[])).item() == 0.0


def test_reading_teaches_the_decoder_and_imagining_the_imagination_alone() -> None:
    torch.manual_seed(0)
    run, vectors = Learner(), torch.randn(2, 6, sizes.HIDDEN, requires_grad=True)
    found = losses.reading_losses(run, reading(), spoken(2, 10), vectors, torch.randn(2, 6, sizes.RANKS + 1))
    assert set(found) == {"reading", "following", "imagining"}
    (found["reading"] + found["following"]).backward(retain_graph=True)
    assert run.twin.h[0].mlp.w1.weight.grad.abs().sum() > 0 and run.twin.wte.weight.grad.abs().sum() > 0
    assert vectors.grad is None and all(parameter.grad is None for parameter in run.imagination.parameters())
    found["imagining"].backward()
    assert vectors.grad is None and all(parameter.grad is not None for parameter in run.imagination.parameters())


def test_nobody_speaks_so_nothing_is_read() -> None:
    batch = spoken(0, 10)
    assert losses.reading_losses(Learner(), reading(), batch, torch.randn(2, 6, sizes.HIDDEN), torch.randn(0, 6, sizes.RANKS + 1)) == {}


def test_what_lies_behind_a_clips_end_changes_no_loss() -> None:
    vectors, scores = torch.randn(1, 8, sizes.HIDDEN), torch.randn(1, 8, sizes.RANKS + 1)
    run, found = Learner(), []
    for _ in range(2):
        torch.manual_seed(0)
        found.append(losses.reading_losses(run, reading(), spoken(1, 10), vectors.clone(), scores.clone()))
        vectors[:, 5:], scores[:, 5:] = 99.0, scores[:, 5:].flip(-1)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_every_parameter_has_one_optimiser() -> None:
    run = train.Training(Twin(), torch.device("cpu"))
    trained = [parameter for name in ("muon", "adam") for group in run.parts[name].param_groups for parameter in group["params"]]
    own = [parameter for part in (run.twin, run.blank, run.imagination) for parameter in part.parameters()]
    assert len(trained) == len(own) and {id(parameter) for parameter in trained} == {id(parameter) for parameter in own}
    fast, slow = (
        [name for name, parameter in run.twin.named_parameters() if any(parameter is each for each in group["params"])]
        for group in run.parts["muon"].param_groups
    )
    assert "h.3.mlp.w1.weight" in fast and "audio.blocks.5.attn.out.weight" in fast and "audio.proj.weight" in fast
    assert "audio.blocks.3.attn.out.weight" in slow and len(slow) == 6 * sizes.WHISPER_BLOCKS
    assert "wte.weight" not in fast + slow and not any(name.endswith("bias") for name in fast + slow)


def test_the_embedded_model_is_a_twin() -> None:
    twin = Twin.from_checkpoint(FOLDER)
    again = {name.removeprefix("transformer."): array for name, array in export.tensors(twin.state_dict()).items()}
    assert all(torch.equal(array.float(), again[name].float()) for name, array in twin.state_dict().items())


def test_the_mean_of_twins_is_taken_number_by_number() -> None:
    twins = [{"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([3.0, 8.0])}]
    assert export.mean(twins)["a"].tolist() == [2.0, 5.0]
    assert export.mean(twins[:1])["a"].tolist() == [1.0, 2.0]


def test_a_mark_and_an_exported_model_are_read_alike(tmp_path: Path) -> None:
    weights = Twin.from_checkpoint(FOLDER).state_dict()
    torch.save({"twin": weights}, tmp_path / "twin.pt")
    for path in (FOLDER, tmp_path / "twin.pt"):
        found = export.read(path)
        assert found.keys() == weights.keys() and all(torch.equal(found[name], weights[name]) for name in weights)


def test_a_run_from_a_model_teaches_what_the_model_lacks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    run = train.Training(Twin(), torch.device("cpu"))
    arguments = SimpleNamespace(start=FOLDER, rate=0.1, minutes=1.0, half=False, curriculum=Curriculum())
    moves: list[tuple[bool, bool]] = []
    for step in (0, train.SETTLING):
        run.step, before = step, (run.twin.wte.weight.clone(), run.blank.weight.clone())
        monkeypatch.setattr(train, "losses", lambda *_: {"ctc": run.blank(run.twin.wte.weight[:3]).sum()})
        monkeypatch.setattr(train, "schedule", lambda share: 1.0)
        train.one_step(run, None, None, None, Means(), arguments)
        moves.append(tuple(not torch.equal(*pair) for pair in zip(before, (run.twin.wte.weight, run.blank.weight), strict=True)))
    assert moves == [(False, True), (True, True)]


def test_a_run_from_a_model_has_a_mark_of_its_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["train", "--start", str(FOLDER)])
    with pytest.raises(SystemExit, match="2"):
        train.main()
    assert "--start needs --out" in capsys.readouterr().err


def test_a_step_learns_from_speech_notes_scenes_and_text(tmp_path: Path) -> None:
    """From packed clips and lines of text to changed weights, with every loss there is."""
    sound = 0.3 * np.sin(np.arange(24000) / 9.0)
    for source, kind, text, more in (("a", "words", "one two", {}), ("b", "note", "flute", PLAYED), ("c", "scene", "noise", {})):
        ClipStore(tmp_path, source).write(0, sound, kind=kind, text=text, voice="v", split="train", **more)
        (tmp_path / "packs").mkdir(exist_ok=True)
        pack.write((tmp_path, source, 0))
        pack.write_labels(tmp_path, source)
    (tmp_path / "text").mkdir()
    for name in TEXTS:
        (tmp_path / "text" / f"{name}.tsv").write_text("".join(f"line {number} of it\tLine.\n" for number in range(40)))
    like = Twin.from_checkpoint(FOLDER)
    run = train.Training(Twin(), torch.device("cpu"), like)
    samples = sounds.read(tmp_path, torch.device("cpu"))
    shutil.copy(FOLDER / words.FILE, tmp_path / words.FILE)
    ready = iter(train.Steps(tmp_path, [entry | {"words": TIMED} for entry in sounds.labels(tmp_path)], 400, 0, Curriculum()))
    before, means = [parameter.clone() for parameter in run.twin.parameters()], Means()
    arguments = SimpleNamespace(start=None, rate=1e-3, minutes=60.0, half=False, curriculum=Curriculum())
    for _ in range(60):  # a step of all kinds of clips comes soon
        if len(means.values) == len(WEIGHTS):
            break
        batch, reading = next(ready)
        mels = train.spectrograms(samples, places([], run.device), batch)
        train.one_step(run, batch, reading, mels, means, arguments)
    assert means.values.keys() == WEIGHTS.keys() and all(torch.stack(values).isfinite().all() for values in means.values.values())
    assert all(not torch.equal(*pair) for pair in zip(before, run.twin.parameters(), strict=True))
    assert all(torch.equal(*pair) for pair in zip(like.parameters(), Twin.from_checkpoint(FOLDER).parameters(), strict=True))
