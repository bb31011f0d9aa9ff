"""The head that hears the whole clip: what the regressions find, and how what they say reaches the audio vectors."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is for training only; pip install '.[train]'")
pytest.importorskip("scipy", reason="for training only; pip install '.[train]'")

from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from demo import pack, pooling_head, sensitivity, sizes, surgery, whole_clip  # noqa: E402
from demo.clip_store import RATE, ClipStore  # noqa: E402
from demo.pooling_head import BLOCK, GATE, LOUD, PAIRS, PARTS, Score, Use  # noqa: E402
from demo.twin import Twin  # noqa: E402
from qwenaudio_np.embedded import FOLDER  # noqa: E402
from tests.test_demo_first_blocks import data  # noqa: E402

POSITIONS = torch.tensor([20, 12])


def test_the_regression_finds_what_parts_the_two(capsys: pytest.CaptureFixture[str]) -> None:
    """One lies at +1 of the first number, the other at -1; a clip that is wrong does not count."""
    torch.manual_seed(0)
    yes = torch.arange(200) % 2.0
    means = 3.0 + torch.randn(200, 8)
    means[:, 0] = 5.0 + 0.3 * (2 * yes - 1)
    yes[0] = 1.0
    score = whole_clip.regression("these", means, yes, torch.tensor([0.0] + 199 * [1.0]), 1e-2)
    said = means @ score.weight + score.constant
    assert ((said > 0) == (yes > 0))[1:].all() and said[0] < 0
    sizes_ = score.weight.abs() * means.std(0)
    assert score.weight[0] > 0 and sizes_[0] > 3 * sizes_[1:].max()
    assert capsys.readouterr().out == "these: of 200 clips 99.5% right\n"


def use() -> Use:
    """As if something had been looked at."""
    found = Use(made=[torch.randn(500, sizes.STATE)], neurons=torch.arange(4.0 * sizes.STATE))
    for moments in (found.left, found.early, found.late):
        drawn = torch.randn(sizes.STATE, 999)
        moments += drawn @ drawn.T
    found.deviations = {"block": [torch.tensor([0.5, 0.7])], "gate": [torch.tensor([1.5])], "last": [torch.tensor([7.0])]}
    found.asked, found.others = [torch.randn(1, sizes.HIDDEN)], [torch.randn(9, sizes.HIDDEN)]
    return found


def scores() -> tuple[Score, Score]:
    """Two, of about log odds' size."""
    first, second = (Score(torch.randn(sizes.STATE) / 10, torch.tensor(constant)) for constant in (0.7, -0.4))
    return first, second


def streams(twin: Twin, mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The residual stream behind the convolutions, at GATE's feed-forward layer, and at the end."""
    gate = twin.audio.blocks[GATE].mlp_ln
    with pooling_head.watched([gate]) as taken:
        end = twin.audio.states(mel, POSITIONS, len(twin.audio.blocks))
    return twin.audio.states(mel, POSITIONS, 0), taken[gate], end


def test_what_the_head_says_reaches_the_vectors_as_it_was_said() -> None:
    torch.manual_seed(0)
    twin, looked, (parted, either) = Twin.from_checkpoint(FOLDER).requires_grad_(False), use(), scores()
    pooling_head.insert(twin, parted, either, looked, 1.5)
    mel, (one, two, three) = 0.1 * torch.randn(2, 80, 40), looked.directions()
    mel[1, :, 24:] = 0.0
    first, gate, end = streams(twin, mel)
    means = pooling_head.given(twin, mel, POSITIONS)
    for direction, score, part in ((one, parted, PARTS[0]), (two, either, PARTS[1])):
        said = (means @ score.weight + score.constant)[:, None] * part * 0.6  # at every place of the clip the same
        assert torch.allclose(gate @ direction, first @ direction + said, rtol=1e-3, atol=1e-3)

    block = twin.audio.blocks[GATE]
    a, b = (gate @ d / gate.std(-1, correction=0) / (part * 0.6 / 1.5) for d, part in ((one, PARTS[0]), (two, PARTS[1])))
    passed = F.gelu(pooling_head.OPEN * b + a) - F.gelu(pooling_head.OPEN * b - a)
    assert torch.allclose(end @ three, first @ three + LOUD * 7.0 / 2 * passed, rtol=1e-3, atol=1e-3)
    closed = block.mlp[0].weight[2 * PAIRS :] @ (block.mlp_ln.weight * torch.stack([one, two])).T
    assert torch.allclose(closed, torch.zeros_like(closed), atol=1e-4)

    last = pooling_head.behind_the_pool(twin, mel, POSITIONS)
    says = 1.5 / LOUD * sensitivity.direction(looked.asked[0], looked.others[0])
    arrived = (last @ three) / last.std(-1, correction=0)
    without = twin.audio.proj(twin.audio.ln_post(last)) - arrived[..., None] * says
    surgery.close_readers(looked.directions()[2:], ((twin.audio.ln_post, (twin.audio.proj,)),))
    assert torch.allclose(twin.audio.proj(twin.audio.ln_post(last)), without, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("open_", [True, False])
def test_the_gate_passes_on_what_is_asked_and_nothing_else(open_: bool) -> None:
    """b is far above 0, or far below; a is what it is."""
    torch.manual_seed(0)
    twin, looked, (parted, either) = Twin.from_checkpoint(FOLDER).requires_grad_(False), use(), scores()
    mel = 0.1 * torch.randn(2, 80, 40)
    pooling_head.insert(twin, parted, Score(0 * either.weight, torch.tensor(40.0 if open_ else -40.0)), looked, 1.5)
    first, gate, end = streams(twin, mel)
    one, _, three = looked.directions()
    a = gate @ one / gate.std(-1, correction=0) / (PARTS[0] * 0.6 / 1.5)
    assert torch.allclose((end - first) @ three, LOUD * 7.0 * a * open_, rtol=1e-3, atol=1e-2)


def test_from_packed_clips_to_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = data(tmp_path)
    for module, name, value in ((whole_clip, "BUDGET", 300), (whole_clip, "LISTENED", 4), (pooling_head, "LOOKED_AT", 6)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(sys, "argv", ["whole_clip", "--data", str(folder), "--start", str(FOLDER), str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="no packed clips of noise"):
        whole_clip.main()
    random = np.random.default_rng(0)
    for number in range(3):
        add(folder, "scene_noise", "noise", number, 0.1 * random.standard_normal(RATE // 2).clip(-1, 1))
        add(folder, "scene_music", "music", number, 0.1 * np.sin(np.arange(RATE) * (0.1 + 0.1 * number)))
    whole_clip.main()
    told = capsys.readouterr().out
    assert "noise or music: of 6 clips" in told and "taken: a head of which" in told and "arrive as they were told" in told
    new, old = Twin.from_checkpoint(tmp_path / "out").state_dict(), Twin.from_checkpoint(FOLDER).state_dict()
    changed = {name for name, tensor in new.items() if not torch.equal(tensor, old[name])}
    assert all(tensor.isfinite().all() for tensor in new.values())
    assert {"audio.proj.weight", f"audio.blocks.{BLOCK}.attn.value.weight", f"audio.blocks.{GATE}.mlp.0.weight"} <= changed
    assert not {name for name in changed if name.startswith(("h.", "wte", "audio.conv"))}
    width = sizes.STATE // sizes.ENCODER_HEADS
    own = slice(pooling_head.HEAD * width, (pooling_head.HEAD + 1) * width)
    for name in ("query.weight", "query.bias", "key.weight"):
        assert not new[f"audio.blocks.{BLOCK}.attn.{name}"][own].any()


def add(folder: Path, source: str, text: str, number: int, wave: np.ndarray) -> None:
    """One more packed scene."""
    ClipStore(folder, source).write(number, wave, kind="scene", text=text, voice="v", split="train")
    pack.write((folder, source, 0))
    pack.write_labels(folder, source)
