"""A head of the encoder that hears the whole clip and tells noise from music: `python -m demo.whole_clip --start MODEL OUT`.

What a model has learned about the sounds of the training it knows by heart; the sounds of games that it never heard are told apart better
by a logistic regression on the mean, over the clip, of what an early block's attention is given. So that regression is put into the model,
as weights that nobody trains (pooling_head.py):

- a head of the third block, for which the others can stand in, looks everywhere alike: with queries and keys of 0 attention is the mean.
  Half of its numbers are the log odds a that a clip is noise rather than music, half the log odds b that it is either, and not speech, a
  note or silence;
- what the head writes, at every place of the clip, travels along two directions of the residual stream that are little used;
- a few neurons of the fifth block multiply: GELU(6b + a) - GELU(6b - a) is 2a where b is well above 0, and 0 where it is well below. Of
  speech and notes nothing is said;
- that travels along a third direction, and the projection adds it to the audio vectors in the direction that parts the two answers and
  moves those about speech and notes little (sensitivity.py).

It is put in last, as training that goes on would write along the directions; behind it the encoder stays still (`demo.train --still 8`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from demo import export, pooling_head, sounds, words
from demo.backgrounds import places
from demo.batches import Batch, Feeder, grouped
from demo.curriculum import Curriculum
from demo.examples import Entry
from demo.front_end import log_mel
from demo.kinds import KINDS
from demo.pooling_head import STRENGTH, Score, given
from demo.sounds import Cut
from demo.train import spectrograms
from demo.twin import Twin
from qwenaudio_np.audio import position_count

SOURCES = {"scene_recorded_noise": 0.35, "scene_recorded_music": 0.35, "scene_noise": 0.15, "scene_music": 0.15}  # what each counts
SHARES = {"noise": 0.16, "music": 0.16, "read": 0.13, "words": 0.2, "heard": 0.08, "note": 0.2, "speech": 0.03, "silence": 0.04}
BUDGET = 3000  # vectors and tokens of a batch
LISTENED = 120  # batches by which scenes are told from the rest
PARTED, EITHER = 1e-2, 1e-3  # weight decay of the two regressions, on inputs of deviation 1
NOTES = 20.0  # how much more a note counts than speech: all of it counts as much as all noise and music


def main() -> None:
    """Hear clips, find the two regressions, put them into the model and write that."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/demo"))
    parser.add_argument("--start", type=Path, required=True, help="an exported model")
    parser.add_argument("--strength", type=float, default=STRENGTH, help="how loudly the head says it (default: %(default)s)")
    parser.add_argument("out", type=Path, help="folder of the model to write, made if it is missing")
    arguments = parser.parse_args()
    words.require(arguments.data, arguments.start)
    torch.manual_seed(1)
    torch.set_flush_denormal(True)  # as in train.py
    twin = Twin.from_checkpoint(arguments.start).requires_grad_(False)
    entries, samples = sounds.labels(arguments.data), sounds.read(arguments.data, torch.device("cpu"))
    parted = parting(twin, entries, samples)
    batches = partial(Feeder, sounds.with_silences(entries, samples), words.load(arguments.data), BUDGET)
    either = telling(twin, batches([29], Curriculum(SHARES)), entries, samples)
    use = pooling_head.look(twin, batches([31], Curriculum(SHARES)), samples)
    scenes = Curriculum(dict.fromkeys(SHARES, 0.0) | {"noise": 0.5, "music": 0.5})
    pooling_head.insert(twin, parted, either, use, arguments.strength)
    pooling_head.set_right(twin, parted, use, batches([37], scenes), samples)
    arguments.out.mkdir(parents=True, exist_ok=True)
    export.write(arguments.out, twin.state_dict(), arguments.data / words.FILE)


@torch.no_grad()
def parting(twin: Twin, entries: list[Entry], samples: Tensor) -> Score:
    """The log odds that a scene is noise rather than music, by all training scenes of SOURCES, whole and as they are.

    Raises SystemExit where there is not both.
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
        means.append(given(twin, log_mel(waves, 2 * positions), positions))
    noise = torch.tensor([float(entry["text"] == "noise") for entry in scenes])
    counts = torch.tensor([SOURCES[entry["source"]] / of_source[entry["source"]] for entry in scenes])
    return regression("noise or music", torch.cat(means), noise, counts, PARTED)


@torch.no_grad()
def telling(twin: Twin, batches: Iterable[Batch], entries: list[Entry], samples: Tensor) -> Score:
    """The log odds that a clip is noise or music rather than anything else, heard as in training and as it was recorded."""
    behind, means, told, counts = places(entries, samples.device), [], [], []
    asked = torch.tensor([kind in ("noise", "music") for kind in KINDS])
    for _, batch in zip(range(LISTENED), batches, strict=False):
        either, count = torch.zeros(len(batch.samples)), torch.ones(len(batch.samples))
        either[batch.scenes] = asked[batch.kinds].float()
        count[batch.notes] = NOTES
        for mel in spectrograms(samples, behind, batch):
            means.append(given(twin, mel, batch.positions))
            told.append(either)
            counts.append(count)
    either, count = torch.cat(told), torch.cat(counts)
    size = torch.where(either > 0, either.sum(), (1 - either).sum()).clamp(min=1)
    return regression("these or not", torch.cat(means), either, count / size, EITHER)


def regression(name: str, means: Tensor, yes: Tensor, counts: Tensor, decay: float) -> Score:
    """Logistic regression of means [clips, state]; each clip counts as much as `counts` says."""
    centre, deviation = means.mean(0), means.std(0) + 1e-3
    normal, weight, bias = (means - centre) / deviation, torch.zeros(means.shape[1]), torch.zeros(())
    found = torch.optim.LBFGS([weight.requires_grad_(), bias.requires_grad_()], max_iter=400, line_search_fn="strong_wolfe")

    def cost() -> Tensor:
        found.zero_grad()
        errors = F.binary_cross_entropy_with_logits(normal @ weight + bias, yes, counts, reduction="sum") / counts.sum()
        loss = errors + decay * weight.square().sum() / 2
        loss.backward()
        return loss

    with torch.enable_grad():
        found.step(cost)
    with torch.no_grad():
        right = ((normal @ weight + bias > 0) == (yes > 0)).float().mean()
        print(f"{name}: of {len(yes)} clips {right:.1%} right", flush=True)
        return Score(weight / deviation, bias - (weight / deviation) @ centre)


if __name__ == "__main__":
    main()
