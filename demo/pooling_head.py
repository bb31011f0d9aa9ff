"""How the head that hears the whole clip (whole_clip.py) is put into a model, and what of the model it takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demo import sensitivity, sizes, sounds, surgery
from demo.batches import Batch, frames_of, shape_of
from demo.front_end import log_mel
from demo.padding import own_places
from demo.twin import Twin

BLOCK, HEAD, GATE = 2, 1, 4  # the third block's second head; the fifth block's neurons
PAIRS = 8  # of neurons
LOOKED_AT = 40  # batches by which what the model uses is judged, and by which what arrives is set right
CONVOLUTIONS = 100.0  # how much what the convolutions leave along a direction counts beside what later blocks read there: it stays
PARTS = (0.25, 0.15)  # deviations of the stream that one unit of each log odds is
OPEN, SHUT = 6.0, 1.5  # how much the second counts in the gate, and what is taken off it: a loud first one must not open the gate itself
LOUD = 0.3  # deviations of the last block's stream that one unit is
SPREAD = 0.3  # see surgery.copies
STRENGTH = 1.25  # how much the log odds count in the answers' difference, log odds too; louder, some noises get nonsense for an answer
NEAR = 2.0  # log odds of the clips by which what arrives is set right


@dataclass(frozen=True)
class Score:
    """Log odds: the mean over a clip of what the head is given, times a weight [state], and a constant."""

    weight: Tensor
    constant: Tensor


def square() -> Tensor:
    """Zeros [state, state]."""
    return torch.zeros(sizes.STATE, sizes.STATE)


@dataclass
class Use:
    """What the model as it is needs of what is taken, by batches as in training."""

    made: list[Tensor] = field(default_factory=list)  # [frames, state], what the heads of BLOCK make
    left: Tensor = field(default_factory=square)  # second moment of what the convolutions leave
    early: Tensor = field(default_factory=square)  # of what is read from the second block to GATE, normalised
    late: Tensor = field(default_factory=square)  # the same behind it
    neurons: Tensor = field(default_factory=lambda: torch.zeros(4 * sizes.STATE))  # each one's mean size in what GATE's layer writes
    deviations: dict[str, list[Tensor]] = field(default_factory=lambda: {"block": [], "gate": [], "last": []})  # of the stream
    asked: list[Tensor] = field(default_factory=list)  # gradients, see sensitivity.py
    others: list[Tensor] = field(default_factory=list)

    def directions(self) -> Tensor:
        """Three that are little used [3, state]: two of them up to GATE, the third behind it too."""
        early = self.early / self.early.trace() + CONVOLUTIONS * self.left / self.left.trace()
        first = surgery.least_used(early, 2)
        third = surgery.least_used(early + self.late / self.late.trace() + first.T @ first, 1)
        return torch.cat([first, third])

    def deviation(self, where: str) -> Tensor:
        """The mean one."""
        return torch.cat(self.deviations[where]).mean()


def given(twin: Twin, mel: Tensor, positions: Tensor) -> Tensor:
    """The means over each clip of what the attention of BLOCK is given: [clips, state]."""
    x = twin.audio.blocks[BLOCK].attn_ln(twin.audio.states(mel, positions, BLOCK))
    return (x * own_places(positions, x.shape[1])[..., None]).sum(1) / positions[:, None]


def clips(batches: Iterable[Batch], samples: Tensor) -> Iterator[tuple[Batch, Tensor]]:
    """LOOKED_AT batches, each with its clips' mel as they are."""
    for _, batch in zip(range(LOOKED_AT), batches, strict=False):
        yield batch, log_mel(sounds.rows(samples, batch.cuts, shape_of(batch)), frames_of(batch))


@torch.no_grad()
def look(twin: Twin, batches: Iterable[Batch], samples: Tensor) -> Use:
    """What the model uses of heads, neurons and directions, and what moves its answers."""
    use, ear = Use(), twin.audio
    out, written = ear.blocks[BLOCK].attn.out, ear.blocks[GATE].mlp[2]
    first, norms = ear.blocks[0].attn_ln, [norm for block in ear.blocks[1:] for norm in (block.attn_ln, block.mlp_ln)]
    for batch, mel in clips(batches, samples):
        inside = own_places(batch.positions, mel.shape[2] // 2)
        with watched([out, written, first, *norms]) as taken:
            last = behind_the_pool(twin, mel, batch.positions)
        use.left += moment(taken[first][inside])
        heard = last[own_places(batch.positions // 2, last.shape[1])]
        read = [taken[norm][inside] for norm in norms]
        for total, streams_ in ((use.early, read[: 2 * GATE]), (use.late, [*read[2 * GATE :], heard])):
            for x in streams_:
                total += moment(x / x.std(-1, correction=0, keepdim=True))
        use.made.append(taken[out][inside])
        use.neurons += taken[written][inside].abs().sum(0) * written.weight.norm(dim=0)
        streams = {"block": taken[ear.blocks[BLOCK].mlp_ln][inside], "gate": taken[ear.blocks[GATE].mlp_ln][inside], "last": heard}
        for name, x in streams.items():
            use.deviations[name].append(x.std(-1, correction=0))
        asked, others = sensitivity.gradients(twin, batch, ear.proj(ear.ln_post(last)))
        use.asked.append(asked)
        use.others.append(others)
    return use


@contextmanager
def watched(layers: list[nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """What each layer is given last."""
    taken: dict[nn.Module, Tensor] = {}
    hooks = [layer.register_forward_pre_hook(lambda layer, given: taken.__setitem__(layer, given[0])) for layer in layers]
    try:
        yield taken
    finally:
        for hook in hooks:
            hook.remove()


def behind_the_pool(twin: Twin, mel: Tensor, positions: Tensor) -> Tensor:
    """What the last norm is given: [clips, T // 2, state]."""
    return F.avg_pool1d(twin.audio.states(mel, positions, len(twin.audio.blocks)).transpose(1, 2), 2).transpose(1, 2)


def moment(x: Tensor) -> Tensor:
    """x [frames, state], its mean over the state taken off -> [state, state]."""
    x = x - x.mean(-1, keepdim=True)
    return x.T @ x


@torch.no_grad()
def insert(twin: Twin, parted: Score, either: Score, use: Use, strength: float) -> None:
    """Put the head, the neurons and the direction into the model."""
    ear, directions = twin.audio, use.directions()
    told = surgery.leave_to_others(ear.blocks[BLOCK].attn, HEAD, torch.cat(use.made))
    clear(twin, directions)
    pool(twin, parted, either, use, directions)
    gate(twin, use, directions)
    reads = directions[2] / ear.ln_post.weight
    says = strength / LOUD * sensitivity.direction(torch.cat(use.asked), torch.cat(use.others))
    ear.proj.weight += torch.outer(says, reads)
    ear.proj.bias -= says * (reads @ ear.ln_post.bias)
    parts = zip(directions, (use.early, use.early, use.late), strict=True)
    shares = ", ".join(f"{(direction @ read @ direction / read.trace()).item():.3%}" for direction, read in parts)
    print(f"taken: a head of which the others write {told:.1%}, directions with {shares} of what is read", flush=True)


def clear(twin: Twin, directions: Tensor) -> None:
    """Nothing else is written along the directions where they are used, and nothing is read there but what is meant to be."""
    ear, first, last = twin.audio, directions[:2], directions[2:]
    for number, block in enumerate(ear.blocks):
        attention, feed_forward = surgery.readers(block)
        surgery.close_writers(last, (block.attn.out, block.mlp[2]))
        if number > GATE:
            surgery.close_readers(last, (attention, feed_forward))
        else:  # behind GATE what the head wrote is next to nothing beside the stream
            surgery.close_writers(first, (block.attn.out, block.mlp[2]) if number < GATE else (block.attn.out,))
        if BLOCK <= number <= GATE:
            surgery.close_readers(first, (feed_forward,) if number == BLOCK else (attention, feed_forward))
    surgery.close_readers(last, ((ear.ln_post, (ear.proj,)),))


def pool(twin: Twin, parted: Score, either: Score, use: Use, directions: Tensor) -> None:
    """The head: half of its numbers are copies of one score, half of the other."""
    attention, width = twin.audio.blocks[BLOCK].attn, sizes.STATE // sizes.ENCODER_HEADS
    own = slice(HEAD * width, (HEAD + 1) * width)
    attention.query.weight[own], attention.query.bias[own], attention.key.weight[own] = 0.0, 0.0, 0.0
    for k, (score, part) in enumerate(zip((parted, either), PARTS, strict=True)):
        half = slice(own.start + k * width // 2, own.start + (k + 1) * width // 2)
        writes = part * use.deviation("block") * directions[k]
        attention.value.weight[half], attention.value.bias[half] = surgery.copies(score.weight, width // 2, SPREAD), 0.0
        attention.out.weight[:, half] = (writes / (width // 2))[:, None]
        attention.out.bias += score.constant * writes


def gate(twin: Twin, use: Use, directions: Tensor) -> None:
    """The neurons: GELU(OPEN (b - SHUT) + a) - GELU(OPEN (b - SHUT) - a), a and b as the head wrote them, is 2a or 0."""
    block, ratio = twin.audio.blocks[GATE], use.deviation("block") / use.deviation("gate")
    parted, either = (direction / (part * ratio) for direction, part in zip(directions, PARTS, strict=False))
    writes = LOUD * use.deviation("last") / (2 * PAIRS) * directions[2]
    for one, other in torch.argsort(use.neurons)[: 2 * PAIRS].view(PAIRS, 2):
        for neuron, sign in ((one, 1.0), (other, -1.0)):
            reads = (sign * parted + OPEN * either) / block.mlp_ln.weight
            block.mlp[0].weight[neuron], block.mlp[0].bias[neuron] = reads, -(reads @ block.mlp_ln.bias) - OPEN * SHUT
            block.mlp[2].weight[:, neuron] = sign * writes


@torch.no_grad()
def set_right(twin: Twin, parted: Score, use: Use, batches: Iterable[Batch], samples: Tensor) -> None:
    """What the convolutions left along the directions moves what arrives of scenes that are hard to tell: so much is taken off."""
    ear, (one, _, three) = twin.audio, use.directions()
    wanted, arrived = [], []
    for batch, mel in clips(batches, samples):
        last = behind_the_pool(twin, mel, batch.positions)
        inside = own_places(batch.positions // 2, last.shape[1])
        says = (last @ three) / last.std(-1, correction=0) / LOUD
        arrived.append((says * inside).sum(1) / inside.sum(1))
        wanted.append(given(twin, mel, batch.positions) @ parted.weight + parted.constant)
    said, meant = torch.cat(arrived), torch.cat(wanted)
    near = meant.abs() < NEAR
    off = (said - meant)[near].mean() if near.any() else torch.zeros(())
    ear.blocks[BLOCK].attn.out.bias -= off * PARTS[0] * use.deviation("block") * one
    print(f"of {len(said)} scenes {((said > 0) == (meant > 0)).float().mean():.1%} arrive as they were told, {off:+.2f} off", flush=True)
