"""The branch that tells noise from music: what it learns, what it takes, and how what it says reaches the audio vectors."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is for training only; pip install '.[train]'")
pytest.importorskip("scipy", reason="for training only; pip install '.[train]'")

from torch import nn  # noqa: E402

from demo import branch, sensitivity, sizes  # noqa: E402
from demo.twin import Twin  # noqa: E402
from qwenaudio_np.embedded import FOLDER  # noqa: E402
from tests.test_demo_first_blocks import data  # noqa: E402


def heard(clips: int, frames: int) -> branch.Heard:
    """Noise lies at +1 of the first number, music at -1, anything else at 0; the others are drawn."""
    told = torch.arange(clips) % 3 - 1
    states = torch.randn(clips * frames, sizes.STATE)
    states[:, 0] = torch.tensor([-1.0, 1.0, 0.0])[told].repeat_interleave(frames)
    return branch.Heard(states.half(), torch.full((clips,), frames), told)


def test_noise_and_music_are_told_apart_and_of_the_rest_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(branch, "RATE", 1e-2)
    clips = heard(300, 4)
    learned = branch.teach(clips)
    means = learned(clips.states.float())[:, 0].reshape(300, 4).mean(1)
    assert ((means[clips.told >= 0] > 0) == (clips.told[clips.told >= 0] == 1)).float().mean() > 0.95
    assert means[clips.told < 0].abs().mean() < 0.5 * means[clips.told >= 0].abs().mean()


def test_a_step_without_a_question_or_without_anything_else_is_reported_in_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(branch, "ROWS", 1)
    monkeypatch.setattr(branch, "EPOCHS", 1)
    branch.teach(heard(6, 3))
    told = capsys.readouterr().out
    assert "cross entropy 0." in told and "nan" not in told


def test_the_direction_is_where_least_is_carried_and_no_layer_norm_takes_it_away() -> None:
    carried = torch.diag(torch.arange(1.0, 9.0))
    direction = branch.least_used(carried)
    assert direction.norm() == pytest.approx(1.0) and direction.sum() == pytest.approx(0.0, abs=1e-6)
    other = torch.zeros(8)
    other[:2] = torch.tensor([0.5**0.5, -(0.5**0.5)])
    assert direction @ carried @ direction <= other @ carried @ other


def test_what_the_branch_says_reaches_the_end_and_the_vectors_untouched() -> None:
    """Behind the last block the direction holds what it held before block BLOCK, and the branch's score; the vectors move by that alone."""
    torch.manual_seed(0)
    twin, before = (Twin.from_checkpoint(FOLDER).requires_grad_(False) for _ in range(2))
    mel, positions = 0.1 * torch.randn(2, 80, 40), torch.tensor([20, 20])
    made = nn.Sequential(nn.Linear(sizes.STATE, branch.NEURONS), nn.GELU(), nn.Linear(branch.NEURONS, 1, bias=False)).requires_grad_(False)
    asked, others = torch.randn(1, sizes.HIDDEN), torch.randn(9, sizes.HIDDEN)
    use = branch.Use(torch.arange(4.0 * sizes.STATE), torch.eye(sizes.STATE), [torch.tensor([5.0])], [asked], [others])
    direction = branch.least_used(use.carried)
    branch.insert(twin, made, heard(9, 5), use, 4.0)
    x, given = branch.before(twin, mel, positions)
    assert torch.equal(x, branch.before(before, mel, positions)[0])
    mlp, old = twin.audio.blocks[branch.BLOCK].mlp, before.audio.blocks[branch.BLOCK].mlp
    assert torch.equal(mlp[0].weight[: branch.NEURONS], made[0].weight)
    assert torch.equal(mlp[0].weight[branch.NEURONS :], old[0].weight[branch.NEURONS :])
    loud = (mlp[2].weight[:, 0] @ direction) / made[2].weight[0, 0]
    last = twin.audio.states(mel, positions, len(twin.audio.blocks))
    assert torch.allclose(last @ direction, x @ direction + loud * made(given)[..., 0], rtol=1e-4, atol=1e-4)
    pooled = twin.audio.ln_post(last.unflatten(1, (-1, 2)).mean(2))
    moved = twin.audio(mel, positions) - before.audio.proj(pooled)
    normal = (last.unflatten(1, (-1, 2)).mean(2) @ direction) / last.unflatten(1, (-1, 2)).mean(2).std(-1, correction=0)
    told = 4.0 * 5.0 / loud * sensitivity.direction(asked, others)
    assert torch.allclose(moved, normal[..., None] * told, rtol=1e-3, atol=1e-4)


def test_from_packed_clips_to_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = data(tmp_path)
    monkeypatch.setattr(branch, "EPOCHS", 1)
    monkeypatch.setattr(branch, "BUDGET", 300)
    monkeypatch.setattr(sys, "argv", ["branch", "--data", str(folder), "--start", str(FOLDER), "--hours", "0.02", str(tmp_path / "out")])
    branch.main()
    told = capsys.readouterr().out
    assert "epoch 1: cross entropy" in told and f"taken: {branch.NEURONS} neurons" in told
    new, old = Twin.from_checkpoint(tmp_path / "out").state_dict(), Twin.from_checkpoint(FOLDER).state_dict()
    changed = {name for name, tensor in new.items() if not torch.equal(tensor, old[name])}
    assert all(tensor.isfinite().all() for tensor in new.values())
    assert "audio.proj.weight" in changed and f"audio.blocks.{branch.BLOCK}.mlp.0.weight" in changed
    assert not {name for name in changed if name.startswith(("h.", "wte", "audio.conv", "audio.blocks.0.", "audio.blocks.1."))}
