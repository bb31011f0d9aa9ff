"""A branch of the encoder that tells noise from music: `python -m demo.branch --data build/demo --start MODEL OUT`.

What the first blocks make of a sound tells the two apart by a plain mean over time. The later blocks, which are busy with words, leave
less of it, and what is gone no decoder can answer. So a few neurons of the feed-forward layer of block BLOCK, those that matter least to
speech and notes, are taught that one thing by themselves. What they find is written along one direction of the residual stream, along
which hardly anything comes to them and no later block writes any more. The projection adds it to the audio vectors in the direction that
parts the two answers and moves those about speech and notes little (sensitivity.py). Where somebody speaks, and of a single note, the
branch is taught to say nothing: what the model makes of these stays as it was but for the neurons and the direction that were taken. It is
put in last: training that goes on behind it leaves the encoder still (`demo.train --still 8`), or the later blocks write along its
direction again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demo import export, sensitivity, sizes, sounds, surgery, words
from demo.batches import Batch, Feeder, frames_of, shape_of
from demo.curriculum import Curriculum
from demo.front_end import log_mel
from demo.kinds import KINDS
from demo.padding import own_places
from demo.twin import Twin

BLOCK = 2  # whose feed-forward layer has the branch: the third
NEURONS = 96  # of its 1536
SHARES = {"noise": 0.42, "music": 0.4, "read": 0.03, "words": 0.03, "heard": 0.02, "note": 0.08, "speech": 0.01, "silence": 0.01}
BUDGET = 3000  # vectors and tokens of a batch
LOOKED_AT = 60  # batches by which neurons and directions are judged
EPOCHS, ROWS, RATE = 14, 256, 2e-3  # passes over what was heard, clips of a step, largest learning rate
DECAY, DROPPED, QUIET = 0.1, 0.1, 0.1  # weight decay; share of the inputs left out; what a square counts where nothing is to be said
LOUD = 1.0  # how much of the residual stream's deviation the branch writes on noises and music; at less, 4 bits harm the projection
TOLD = torch.tensor([{"noise": 1, "music": 0}.get(kind, -1) for kind in KINDS])
STRENGTH = 1.5  # how much the branch's score, log odds, counts in the answers' difference, which is log odds too


@dataclass(frozen=True)
class Heard:
    """Clips as the branch hears them."""

    states: Tensor  # [frames, state], what the feed-forward layer of block BLOCK is given
    counts: Tensor  # [clips], how many frames each one has
    told: Tensor  # [clips], 1 noise, 0 music, -1 anything else


@dataclass
class Use:
    """How much the model as it was needs of what the branch takes: sums over frames."""

    neurons: Tensor  # [4 state], each one's mean size in what is written
    carried: Tensor  # [state, state], second moment of the stream that comes to the branch, and of what the blocks from BLOCK on write
    deviation: list[Tensor]  # of the last block's states behind the pooling, of noises and music
    asked: list[Tensor]  # [clips, hidden], what parts noise from music: gradients (sensitivity.py)
    others: list[Tensor]  # [clips, hidden], of the answers about notes and speech


def main() -> None:
    """Hear clips, teach the branch, put it into the model and write that."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/demo"))
    parser.add_argument("--start", type=Path, required=True, help="an exported model")
    parser.add_argument("--hours", type=float, default=21.0, help="of sound that is heard (default: %(default)s)")
    parser.add_argument("--strength", type=float, default=STRENGTH, help="how loudly the branch says it (default: %(default)s)")
    parser.add_argument("out", type=Path, help="folder of the model to write, made if it is missing")
    arguments = parser.parse_args()
    words.require(arguments.data, arguments.start)
    torch.manual_seed(1)
    torch.set_flush_denormal(True)  # as in train.py
    twin = Twin.from_checkpoint(arguments.start).requires_grad_(False)
    with torch.no_grad():
        heard, use = listen(twin, arguments.data, arguments.hours)
    branch = teach(heard)
    with torch.no_grad():
        insert(twin, branch, heard, use, arguments.strength)
    arguments.out.mkdir(parents=True, exist_ok=True)
    export.write(arguments.out, twin.state_dict(), arguments.data / words.FILE)


def listen(twin: Twin, data: Path, hours: float) -> tuple[Heard, Use]:
    """What the branch will be given of so many hours of sound; what the model uses, by the first of them."""
    seconds, parts = 0.0, []
    use = Use(torch.zeros(4 * sizes.STATE), torch.zeros(sizes.STATE, sizes.STATE), [], [], [])
    for number, (batch, mel) in enumerate(steps(data)):
        inside = own_places(batch.positions, mel.shape[2] // 2)
        x, given = before(twin, mel, batch.positions)
        if number < LOOKED_AT:
            look(twin, x, given, inside, batch, use)
        told = torch.full((len(batch.samples),), -1)
        told[batch.scenes] = TOLD[batch.kinds]
        parts.append((given[inside].half(), inside.sum(1), told))
        seconds += float(batch.samples.sum()) / sounds.RATE
        if seconds > 3600 * hours:
            break
    return Heard(*map(torch.cat, zip(*parts, strict=True))), use


def steps(data: Path) -> Iterator[tuple[Batch, Tensor]]:
    """Batches as in training, without end, and the clips' mel as they are: with rooms, microphones and noise fewer were told apart."""
    entries, samples = sounds.labels(data), sounds.read(data, torch.device("cpu"))
    for batch in Feeder(entries, words.load(data), BUDGET, [23], Curriculum(SHARES)):
        yield batch, log_mel(sounds.rows(samples, batch.cuts, shape_of(batch)), frames_of(batch))


def before(twin: Twin, mel: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """The residual stream [rows, T, state] at block BLOCK's feed-forward layer, and what this is given."""
    block = twin.audio.blocks[BLOCK]
    x = twin.audio.states(mel, positions, BLOCK)
    mask = own_places(positions, x.shape[1])[:, None, None]
    x = x + block.attn(block.attn_ln(x), mask)
    return x, block.mlp_ln(x)


def look(twin: Twin, x: Tensor, given: Tensor, inside: Tensor, batch: Batch, use: Use) -> None:
    """Add one batch to what is used."""
    mlp, mask = twin.audio.blocks[BLOCK].mlp, inside[:, None, None]
    needed = torch.cat([batch.speech, batch.notes])
    active = mlp[1](mlp[0](given[needed][inside[needed]])).abs().sum(0)
    use.neurons += active * mlp[2].weight.norm(dim=0)
    use.carried += moment(x[inside])  # what earlier blocks left along the direction would be read with what the branch says
    write = mlp(given)
    for block in twin.audio.blocks[BLOCK + 1 :]:
        use.carried += moment(write[inside])
        x = x + write
        write = block.attn(block.attn_ln(x), mask)
        use.carried += moment(write[inside])
        x = x + write
        write = block.mlp(block.mlp_ln(x))
    use.carried += moment(write[inside])
    pooled = F.avg_pool1d((x + write).transpose(1, 2), 2).transpose(1, 2)
    use.deviation.append(pooled.std(-1, correction=0)[batch.scenes][inside[batch.scenes, 1::2]])
    asked, others = sensitivity.gradients(twin, batch, twin.audio.proj(twin.audio.ln_post(pooled)))
    use.asked.append(asked)
    use.others.append(others)


def moment(x: Tensor) -> Tensor:
    """x [frames, state] -> [state, state]."""
    return x.T @ x


def teach(heard: Heard) -> nn.Sequential:
    """The branch: [frames, state] -> scores [frames, 1], whose mean over a clip tells noise (above 0) from music; near 0 for the rest."""
    branch = nn.Sequential(nn.Linear(sizes.STATE, NEURONS), nn.GELU(), nn.Linear(NEURONS, 1, bias=False))
    clips, steps_ = heard.states.split(heard.counts.tolist()), -(-len(heard.told) // ROWS)
    adam = torch.optim.AdamW(branch.parameters(), weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, RATE, EPOCHS * steps_)
    for epoch in range(EPOCHS):
        sums = torch.zeros(3)
        for chosen in torch.randperm(len(clips)).split(ROWS):
            counts, told = heard.counts[chosen], heard.told[chosen]
            which = torch.repeat_interleave(torch.arange(len(chosen)), counts)
            scores = branch(F.dropout(torch.cat([clips[k] for k in chosen]).float(), DROPPED))[:, 0]
            means = torch.zeros(len(chosen)).index_add(0, which, scores) / counts
            asked, quiet = told >= 0, told[which] < 0
            # Sums over counts of at least 1: the last clips of a pass may be few, and none of them asked, or none quiet.
            cost = F.binary_cross_entropy_with_logits(means[asked], told[asked].float(), reduction="sum") / asked.sum().clamp(min=1)
            square = scores[quiet].square().sum() / quiet.sum().clamp(min=1)
            right = ((means > 0) == told)[asked].sum() / asked.sum().clamp(min=1)
            loss = cost + QUIET * square
            adam.zero_grad()
            loss.backward()
            adam.step()
            schedule.step()
            sums += torch.stack([cost, square, right]).detach()
        cost, square, right = sums / steps_
        print(f"epoch {epoch + 1}: cross entropy {cost:.3f}, right {right:.3f}, square elsewhere {square:.3f}", flush=True)
    return branch.requires_grad_(False)


def insert(twin: Twin, branch: nn.Sequential, heard: Heard, use: Use, strength: float) -> None:
    """Put the branch in place of the neurons that matter least, and carry what it says along the direction that carries least."""
    blocks, ear = twin.audio.blocks, twin.audio
    rarely = torch.argsort(use.neurons)[:NEURONS]
    direction = least_used(use.carried)
    for number, block in enumerate(blocks[BLOCK:]):
        surgery.close_writers(direction[None], (block.mlp[2], *((block.attn.out,) if number else ())))
    deviation = torch.cat(use.deviation).mean()
    scenes = torch.repeat_interleave(heard.told >= 0, heard.counts)
    loud = LOUD * deviation / branch(heard.states[scenes][:200_000].float()).square().mean().sqrt()
    mlp = blocks[BLOCK].mlp
    mlp[0].weight[rarely], mlp[0].bias[rarely] = branch[0].weight, branch[0].bias
    mlp[2].weight[:, rarely] = torch.outer(direction, loud * branch[2].weight[0])
    told = strength * deviation / loud * sensitivity.direction(torch.cat(use.asked), torch.cat(use.others))
    reads = direction / ear.ln_post.weight
    ear.proj.weight += torch.outer(told, reads)
    ear.proj.bias -= told * (reads @ ear.ln_post.bias)
    share = (use.neurons[rarely].sum() / use.neurons.sum()).item(), (direction @ use.carried @ direction / use.carried.trace()).item()
    print(f"taken: {NEURONS} neurons with {share[0]:.2%} of what is written, a direction with {share[1]:.2%} of all", flush=True)


def least_used(carried: Tensor) -> Tensor:
    """The unit vector [state], orthogonal to the constant one that layer norms take away, along which least is carried."""
    return surgery.least_used(carried, 1)[0]


if __name__ == "__main__":
    main()
