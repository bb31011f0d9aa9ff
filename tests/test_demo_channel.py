"""The channel that tells noise from music: what is found, what it takes, and how what it says reaches the decoder."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is for training only; pip install '.[train]'")
pytest.importorskip("scipy", reason="for training only; pip install '.[train]'")

from torch import nn  # noqa: E402

from demo import channel, exchange, pack, sizes  # noqa: E402
from demo.clip_store import RATE, ClipStore  # noqa: E402
from demo.kinds import KINDS  # noqa: E402
from demo.twin import RMSNorm, Twin  # noqa: E402
from qwenaudio_np.embedded import FOLDER  # noqa: E402
from tests.test_demo_first_blocks import data  # noqa: E402


def test_the_regression_finds_what_parts_noise_from_music() -> None:
    """Noise lies at +1 of the first number, music at -1; a music that is wrong does not count."""
    torch.manual_seed(0)
    noise = torch.arange(200) % 2.0
    means = 3.0 + torch.randn(200, 8)
    means[:, 0] = 5.0 + 0.3 * (2 * noise - 1)
    noise[0] = 1.0
    weight, constant = channel.regression(means, noise, torch.tensor([0.0] + 199 * [1.0]))
    said = means @ weight + constant
    assert ((said > 0) == (noise > 0))[1:].all() and said[0] < 0
    assert weight[0] > 0 and (weight[0] * means[:, 0].std()).item() > 3 * (weight[1:] * means[:, 1:].std(0)).abs().max().item()


def test_the_direction_is_where_least_is_read_and_no_layer_norm_takes_it_away() -> None:
    read = torch.diag(torch.arange(1.0, 9.0))
    assert torch.equal(channel.least_used(read).abs(), torch.eye(8)[0])
    direction = channel.least_used(read, centred=True)
    assert direction.norm() == pytest.approx(1.0) and direction.sum() == pytest.approx(0.0, abs=1e-6)
    other = torch.zeros(8)
    other[:2] = torch.tensor([0.5**0.5, -(0.5**0.5)])
    assert direction @ read @ direction <= other @ read @ other


@pytest.mark.parametrize("norm", [nn.LayerNorm(8), RMSNorm()], ids=["layer norm", "RMS norm"])
def test_a_closed_direction_is_neither_written_nor_read_and_the_rest_stays(norm: nn.Module) -> None:
    torch.manual_seed(0)
    width = norm.weight.shape[0]
    for parameter in norm.parameters():
        nn.init.normal_(parameter, 1.0, 0.3)
    x, direction = torch.randn(5, width), torch.randn(width)
    direction -= direction.mean()
    direction /= direction.norm()
    writer, reader, old = nn.Linear(4, width), nn.Linear(width, 3), nn.Linear(width, 3)
    old.load_state_dict(reader.state_dict())
    without = x - torch.outer(x @ direction, direction)
    with torch.no_grad():
        channel.close(direction, (writer,), ((norm, (reader,)),))
        written = writer(torch.randn(6, 4))
        assert torch.allclose(written @ direction, torch.zeros(6), atol=1e-5)
        assert torch.allclose(reader(norm(without)), old(norm(without)), rtol=1e-4, atol=1e-4)
        makes = reader(norm(x)) - reader.bias, reader(norm(without)) - reader.bias
    # The direction still counts in the norm's size; but for that, nothing of it is seen.
    ratio = x.std(1, correction=0) / without.std(1, correction=0) if isinstance(norm, nn.LayerNorm) else x.norm(dim=1) / without.norm(dim=1)
    constant = reader.weight @ norm.bias if isinstance(norm, nn.LayerNorm) else torch.zeros(3)
    assert torch.allclose((makes[0] - constant) * ratio[:, None], makes[1] - constant, rtol=1e-3, atol=1e-4)


def test_what_the_channel_says_reaches_the_vectors_untouched() -> None:
    """Behind the last block the direction holds what it held before, and what is said; the vectors hold only that along theirs."""
    torch.manual_seed(0)
    twin = Twin.from_checkpoint(FOLDER).requires_grad_(False)
    mel, positions = 0.1 * torch.randn(2, 80, 40), torch.tensor([20, 20])
    weights, constant = torch.randn(sizes.STATE + 1), torch.tensor(0.7)
    encoder, decoder = (part @ part.T for part in (torch.randn(sizes.STATE, 999), torch.randn(sizes.HIDDEN, 999)))
    one, heard = [torch.tensor([1.0])], [torch.randn(9, sizes.STATE)]
    use = channel.Use(torch.arange(4.0 * sizes.STATE), encoder, decoder, heard, one, one, one)
    channel.insert(twin, use, weights, constant)
    direction, told = channel.least_used(use.encoder, centred=True), channel.least_used(use.decoder)
    x, given = channel.before(twin, mel, positions)
    last = twin.audio.states(mel, positions, len(twin.audio.blocks))
    weight, bias = weights[:-1], weights[-1]
    loud = channel.LOUD / (use.scenes[0] @ weight + bias).square().mean().sqrt()
    said = loud * (given @ weight + bias)
    assert torch.allclose(last @ direction, x @ direction + said, rtol=1e-3, atol=1e-3)
    pooled = last.unflatten(1, (-1, 2)).mean(2)
    arrived = (pooled @ direction) / pooled.std(-1, correction=0) + loud * constant
    assert torch.allclose(twin.audio(mel, positions) @ told, arrived * channel.TOLD / channel.LOUD, rtol=1e-3, atol=1e-3)
    assert torch.allclose(exchange.channel_of(twin).abs(), told.abs(), atol=1e-3)
    # What a clip's vectors hold in the mean is what was fitted.
    score = channel.arriving(twin, mel, positions) @ weights + constant
    left = (x.unflatten(1, (-1, 2)).mean(2) @ direction / pooled.std(-1, correction=0)).mean(1)
    heard = (twin.audio(mel, positions) @ told).mean(1)
    assert torch.allclose(heard, (loud * score + left) * channel.TOLD / channel.LOUD, rtol=1e-3, atol=1e-3)
    for block in twin.h:
        assert torch.allclose(block.attn.c_attn.weight @ (block.ln_1.weight * told), torch.zeros(3 * sizes.HIDDEN), atol=1e-4)
        assert torch.allclose(told @ block.mlp.c_proj.weight, torch.zeros(sizes.INNER), atol=1e-4)


def test_from_packed_clips_to_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = data(tmp_path)
    monkeypatch.setattr(channel, "BUDGET", 300)
    monkeypatch.setattr(channel, "LOOKED_AT", 6)
    monkeypatch.setattr(sys, "argv", ["channel", "--data", str(folder), "--start", str(FOLDER), str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="no packed clips of noise"):
        channel.main()
    random = np.random.default_rng(0)
    for number in range(3):
        add(folder, "scene_noise", "noise", number, 0.1 * random.standard_normal(RATE // 2).clip(-1, 1))
        add(folder, "scene_music", "music", number, 0.1 * np.sin(np.arange(RATE) * (0.1 + 0.1 * number)))
    channel.main()
    told = capsys.readouterr().out
    assert "of 6 scenes" in told and "taken: directions with" in told
    new, old = Twin.from_checkpoint(tmp_path / "out").state_dict(), Twin.from_checkpoint(FOLDER).state_dict()
    assert all(tensor.isfinite().all() for tensor in new.values())
    changed = {name for name, tensor in new.items() if not torch.equal(tensor, old[name])}
    assert "audio.proj.weight" in changed and "audio.blocks.0.mlp.0.weight" in changed and "h.0.attn.c_attn.weight" in changed
    assert not {name for name in changed if name.startswith(("wte", "ln_f", "audio.conv", "audio.blocks.0.attn"))}


def test_a_model_without_a_channel_is_said_to_have_none() -> None:
    with pytest.raises(SystemExit, match=r"run python -m demo\.channel first"):
        exchange.channel_of(Twin())


def test_noises_and_music_keep_nothing_but_what_the_channel_says() -> None:
    """Row 0 speaks, rows 1 and 3 are noise and music of other lengths; what lies behind a clip's end stays."""
    torch.manual_seed(0)
    vectors, told = torch.randn(4, 6, sizes.HIDDEN), torch.eye(sizes.HIDDEN)[5]
    kinds = torch.tensor([KINDS.index(kind) for kind in ("noise", "silence", "music")])
    batch = SimpleNamespace(scenes=torch.tensor([1, 2, 3]), kinds=kinds, positions=torch.tensor([12, 8, 12, 12]))
    rest = torch.arange(sizes.HIDDEN) != 5
    lent = set()
    for _ in range(20):
        found = exchange.exchanged(vectors, batch, told)
        assert torch.equal(found[[0, 2]], vectors[[0, 2]]) and torch.equal(found[1, 4:], vectors[1, 4:])
        assert torch.allclose(found[..., 5], vectors[..., 5], atol=1e-5)
        others = {"itself": vectors[1, :4], "the other": vectors[3, :4]}
        lent |= {name for name, other in others.items() if torch.allclose(found[1, :4][:, rest], other[:, rest], atol=1e-5)}
        assert torch.allclose(found[3], vectors[3], atol=1e-5)  # none is as long
    assert lent == {"itself", "the other"}


def add(folder: Path, source: str, text: str, number: int, wave: np.ndarray) -> None:
    """One more packed scene."""
    ClipStore(folder, source).write(number, wave, kind="scene", text=text, voice="v", split="train")
    pack.write((folder, source, 0))
    pack.write_labels(folder, source)
