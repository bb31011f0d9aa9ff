"""A channel that tells noise from music, from the encoder's first block to the decoder: `python -m demo.channel --start MODEL OUT`.

Whether a sound is noise or music is best read off what the first block's feed-forward layer is given, by one linear function of it and
its mean over the clip: a logistic regression on the training's scenes tells more of the sounds of games that it never heard than the
whole model does, or a small network in a later block. The later blocks, which are busy with words, leave less of it, and what is
gone no decoder can answer. So that one number is carried past them:

- a few neurons of the first block, those that matter least to speech and notes, say it (GELU(z) - GELU(-z) is z);
- it travels along the direction of the residual stream of which least is read: no later block writes there any more, or reads there;
- the projection hands it over to such a direction of the decoder's stream.

Nobody reads it yet: the model answers as it did, or nearly so. `demo.train --start OUT --like OUT --exchange` teaches the decoder what it
means, and to ignore it where somebody speaks or a note is played; there it says anything. It is put in last, as other training
would write over it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from demo import export, sizes, sounds, words
from demo.batches import Batch, Feeder, frames_of, grouped, shape_of
from demo.curriculum import Curriculum
from demo.examples import Entry
from demo.front_end import log_mel
from demo.padding import own_places
from demo.sounds import Cut
from demo.twin import RMSNorm, Twin
from qwenaudio_np.audio import position_count

PAIRS = 24  # of neurons that say the number, each pair a part of it: with few, 4 bits would round one large weight
SHARES = {"noise": 0.15, "music": 0.15, "read": 0.2, "words": 0.2, "heard": 0.05, "note": 0.2, "speech": 0.03, "silence": 0.02}
BUDGET = 3000  # vectors and tokens of a batch
LOOKED_AT = 60  # batches by which neurons and directions are judged
SOURCES = {"scene_recorded_noise": 0.35, "scene_recorded_music": 0.35, "scene_noise": 0.15, "scene_music": 0.15}  # what each counts
DECAY = 1e-2  # weight decay of the regression, on inputs of deviation 1
LOUD = 2.0  # root mean square of what is said of scenes, in deviations of the stream behind the first block
TOLD = 2.0  # the same in the decoder, in root mean squares of an audio vector's elements


@dataclass
class Use:
    """What the model as it is needs of what the channel takes."""

    neurons: Tensor  # [4 state], each one's mean size in what the first block's feed-forward layer writes
    encoder: Tensor  # [state, state], second moment of its normalised stream, wherever it is read behind that layer
    decoder: Tensor  # [hidden, hidden], the same of the decoder
    scenes: list[Tensor]  # [frames, state], what the channel will be given of noises and music
    deviations: list[Tensor]  # of the encoder's stream behind its first block
    last: list[Tensor]  # of what its last norm is given
    sizes: list[Tensor]  # root mean squares of audio vectors


def main() -> None:
    """Hear clips, find the function, put the channel into the model and write that."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/demo"))
    parser.add_argument("--start", type=Path, required=True, help="an exported model")
    parser.add_argument("out", type=Path, help="folder of the model to write, made if it is missing")
    arguments = parser.parse_args()
    words.require(arguments.data, arguments.start)
    torch.set_flush_denormal(True)  # as in train.py
    entries, samples = sounds.labels(arguments.data), sounds.read(arguments.data, torch.device("cpu"))
    twin = Twin.from_checkpoint(arguments.start).requires_grad_(False)
    means, noise, counts = hear(twin, entries, samples)
    weights, constant = regression(means, noise, counts)
    use = look(twin, Feeder(entries, words.load(arguments.data), BUDGET, [23], Curriculum(SHARES)), samples)
    insert(twin, use, weights, constant)
    arguments.out.mkdir(parents=True, exist_ok=True)
    export.write(arguments.out, twin.state_dict(), arguments.data / words.FILE)


@torch.no_grad()
def hear(twin: Twin, entries: list[Entry], samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each training scene of SOURCES: what arrives [clips, state + 1]; whether it is noise, and how much it counts [clips].

    Raises SystemExit where there is not both noise and music.
    """
    scenes = sorted((entry for entry in entries if entry["source"] in SOURCES), key=lambda entry: float(entry["samples"]))
    if {entry["text"] for entry in scenes} != {"noise", "music"}:
        raise SystemExit(f"no packed clips of noise, or none of music, in {', '.join(SOURCES)}: run demo.scenes and demo.pack first")
    of_source = {name: sum(entry["source"] == name for entry in scenes) for name in SOURCES}
    means = []
    for group in grouped(scenes, lambda entry: position_count(entry["samples"]) // 2, BUDGET):
        cuts = [Cut(entry["start"], entry["samples"], 1.0, row, 0) for row, entry in enumerate(group)]
        positions = torch.tensor([position_count(entry["samples"]) for entry in group])
        waves = sounds.rows(samples, cuts, (len(group), max(entry["samples"] for entry in group)))
        means.append(arriving(twin, log_mel(waves, 2 * positions), positions))
    noise = torch.tensor([float(entry["text"] == "noise") for entry in scenes])
    return torch.cat(means), noise, torch.tensor([SOURCES[entry["source"]] / of_source[entry["source"]] for entry in scenes])


def arriving(twin: Twin, mel: Tensor, positions: Tensor) -> Tensor:
    """What the channel is given, and 1 for its bias, as they arrive behind the last norm: means over each clip, [clips, state + 1]."""
    _, given = before(twin, mel, positions)
    last = pooled(twin.audio.states(mel, positions, len(twin.audio.blocks)))
    inside = own_places(positions // 2, last.shape[1]) / last.std(-1, correction=0)
    return (F.pad(pooled(given), (0, 1), value=1.0) * inside[..., None]).sum(1) / (positions // 2)[:, None]


def pooled(x: Tensor) -> Tensor:
    """The means of every two positions of x [rows, T, state]: [rows, T // 2, state]."""
    return F.avg_pool1d(x.transpose(1, 2), 2).transpose(1, 2)


def before(twin: Twin, mel: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """The residual stream [rows, T, state] at the first block's feed-forward layer, and what this is given."""
    block = twin.audio.blocks[0]
    x = twin.audio.states(mel, positions, 0)
    x = x + block.attn(block.attn_ln(x), own_places(positions, x.shape[1])[:, None, None])
    return x, block.mlp_ln(x)


def regression(means: Tensor, noise: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Logistic regression: weights [state + 1] of what arrives, and a constant; their sum is above 0 where a scene is noise."""
    centre, deviation = means.mean(0), means.std(0)
    normal, weight, bias = (means - centre) / deviation, torch.zeros(means.shape[1]), torch.zeros(())
    found = torch.optim.LBFGS([weight.requires_grad_(), bias.requires_grad_()], max_iter=300, line_search_fn="strong_wolfe")

    def cost() -> Tensor:
        found.zero_grad()
        errors = F.binary_cross_entropy_with_logits(normal @ weight + bias, noise, counts, reduction="sum") / counts.sum()
        loss = errors + DECAY * weight.square().sum() / 2
        loss.backward()
        return loss

    found.step(cost)
    with torch.no_grad():
        said = normal @ weight + bias
        print(f"of {len(noise)} scenes {((said > 0) == (noise > 0)).float().mean():.1%} right", flush=True)
        weight = weight / deviation
        return weight.detach(), (bias - weight @ centre).detach()


@torch.no_grad()
def look(twin: Twin, batches: Iterable[Batch], samples: Tensor) -> Use:
    """What the model uses of neurons and directions, by the first LOOKED_AT batches."""
    use = Use(torch.zeros(4 * sizes.STATE), torch.zeros(sizes.STATE, sizes.STATE), torch.zeros(sizes.HIDDEN, sizes.HIDDEN), [], [], [], [])
    ear, blocks = twin.audio, twin.audio.blocks
    hooks = [listen(norm, use.encoder) for norm in (*(norm for block in blocks[1:] for norm in (block.attn_ln, block.mlp_ln)), ear.ln_post)]
    hooks += [listen(norm, use.decoder) for norm in (*(norm for block in twin.h for norm in (block.ln_1, block.ln_2)), twin.ln_f)]
    for _, batch in zip(range(LOOKED_AT), batches, strict=False):
        mel = log_mel(sounds.rows(samples, batch.cuts, shape_of(batch)), frames_of(batch))
        x, given = before(twin, mel, batch.positions)
        inside = own_places(batch.positions, x.shape[1])
        mlp, needed = blocks[0].mlp, torch.cat([batch.speech, batch.notes])
        use.neurons += mlp[1](mlp[0](given[needed][inside[needed]])).abs().sum(0) * mlp[2].weight.norm(dim=0)
        use.scenes.append(given[batch.scenes][inside[batch.scenes]])
        use.deviations.append((x + mlp(given)).std(-1, correction=0)[inside])
        last = pooled(ear.states(mel, batch.positions, len(blocks)))
        vectors, heard = ear.proj(ear.ln_post(last)), own_places(batch.positions // 2, last.shape[1])
        use.last.append(last.std(-1, correction=0)[heard])
        use.sizes.append(vectors[heard].square().mean(-1).sqrt())
        twin(batch.rows.ids, batch.rows.spans, vectors, batch.positions // 2)
    for hook in hooks:
        hook.remove()
    return use


def listen(norm: nn.Module, total: Tensor) -> RemovableHandle:
    """From now on, add the second moment of what a norm is given, each row normalised, to `total`."""

    def add(_norm: nn.Module, given: tuple[Tensor]) -> None:
        x = given[0].flatten(0, 1)
        x = x if isinstance(norm, RMSNorm) else x - x.mean(-1, keepdim=True)
        x = x / x.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-6)
        total.add_(x.T @ x)

    return norm.register_forward_pre_hook(add)


@torch.no_grad()
def insert(twin: Twin, use: Use, weights: Tensor, constant: Tensor) -> None:
    """Put the channel in, with what regression found."""
    weight, bias = weights[:-1], weights[-1]
    ear, direction, told = twin.audio, least_used(use.encoder, centred=True), least_used(use.decoder)
    size = (torch.cat(use.scenes) @ weight + bias).square().mean().sqrt()
    loud = LOUD * torch.cat(use.deviations).mean()
    for number, block in enumerate(ear.blocks):
        writers = (block.mlp[2], block.attn.out) if number else (block.mlp[2],)
        readers = ((block.attn_ln, (block.attn.query, block.attn.key, block.attn.value)), (block.mlp_ln, (block.mlp[0],)))
        close(direction, writers, readers if number else ())
    close(direction, (), ((ear.ln_post, (ear.proj,)),))
    for decoder in twin.h:
        readers = ((decoder.ln_1, (decoder.attn.c_attn,)), (decoder.ln_2, (decoder.mlp.w1, decoder.mlp.w2)))
        close(told, (decoder.attn.c_proj, decoder.mlp.c_proj), readers)
    close(told, (ear.proj,), ())
    say(ear.blocks[0].mlp, torch.argsort(use.neurons)[: 2 * PAIRS], direction * loud / size, weight, bias)
    arrives = loud / torch.cat(use.last).mean()  # what the last norm makes of it
    reads = direction / ear.ln_post.weight
    spoken = told * TOLD * torch.cat(use.sizes).mean() / arrives
    ear.proj.weight += torch.outer(spoken, reads)
    ear.proj.bias += spoken * (constant * loud / size - reads @ ear.ln_post.bias)
    shares = [(d @ m @ d / m.trace()).item() for d, m in ((direction, use.encoder), (told, use.decoder))]
    print(f"taken: directions with {shares[0]:.3%} and {shares[1]:.3%} of what is read", flush=True)


def say(mlp: nn.Sequential, neurons: Tensor, direction: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Let `neurons` write weight @ x + bias along direction: GELU(z) - GELU(-z) = z.

    Its terms are much larger than their sum. So each pair is rounded as the checkpoint will be, and what it lacks is left to the next.
    """
    scale = mlp[0].weight.norm(dim=1).mean() / weight.norm()
    wanted, left = scale * torch.cat([weight, bias[None]]), torch.zeros(len(weight) + 1)
    for one, other in neurons.view(PAIRS, 2):
        given = (wanted + left).bfloat16().float()
        left += wanted - given
        mlp[0].weight[one], mlp[0].bias[one] = given[:-1], given[-1]
        mlp[0].weight[other], mlp[0].bias[other] = -given[:-1], -given[-1]
    mlp[2].weight[:, neurons] = torch.outer(direction, torch.tensor([1.0, -1.0]).repeat(PAIRS) / (PAIRS * scale))


def close(direction: Tensor, writers: Iterable[nn.Linear], readers: Iterable[tuple[nn.Module, Iterable[nn.Linear]]]) -> None:
    """Let no writer write along direction any more, and no reader, behind its norm, read there."""
    for layer in writers:
        layer.weight -= torch.outer(direction, direction @ layer.weight)
        if layer.bias is not None:
            layer.bias -= direction * (direction @ layer.bias)
    for norm, layers in readers:
        reads = direction / norm.weight  # finds in what the norm gives how much of the direction it was given
        for layer in layers:
            makes = layer.weight @ (norm.weight * direction)
            layer.weight -= torch.outer(makes, reads)
            if not isinstance(norm, RMSNorm) and layer.bias is not None:
                layer.bias += makes * (reads @ norm.bias)


def least_used(carried: Tensor, centred: bool = False) -> Tensor:
    """The unit vector along which least is carried; `centred`: orthogonal to the constant one, which layer norms take away."""
    if centred:
        constant = torch.full((len(carried), 1), len(carried) ** -0.5)
        rest = torch.eye(len(carried)) - constant @ constant.T
        carried = rest @ carried @ rest + 2 * carried.trace() * constant @ constant.T
    return torch.linalg.eigh(carried)[1][:, 0]


if __name__ == "__main__":
    main()
