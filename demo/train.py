"""Train the twin: `python -m demo.train --data build/demo --out build/demo/twin.pt --minutes 240`.

Packed clips are cut, augmented and turned into mel spectrograms on the device of the training, a GPU if there is one; other processes
draw the clips and write their prompts. Muon trains the blocks' matrices, AdamW the rest; the parts that Whisper brought learn slowly.
The learning rate follows the clock: up, and down a cosine until the minutes are over. Stopped and started again, training goes on from
the last minute's mark; `--minutes` may be changed then. What is heard, taught and held: curriculum.py; what is learned: losses.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from demo import curriculum, sizes, sounds, whisper, words
from demo.augment import augment, covered
from demo.backgrounds import add_backgrounds, places
from demo.batches import Batch, Feeder, frames_of, shape_of
from demo.curriculum import Curriculum
from demo.front_end import log_mel
from demo.losses import Mels, losses
from demo.muon import Muon
from demo.progress import Means, Run, schedule
from demo.reading import Imagination, Reader, Reading
from demo.twin import Twin, first_parts
from qwenaudio_np.options import whole_number

BLOCKS = ("audio.blocks.", "audio.proj.", "h.")  # whose matrices Muon trains; AdamW has the embeddings, norms and biases
WHISPERS = ("audio.ln_post.", *first_parts(sizes.WHISPER_BLOCKS))
WHISPERS_SHARE = 0.15  # of the learning rate: what Whisper learned from people must not be lost on synthetic voices
SETTLING = 40  # first steps of a run that begins from a model, which has no blank and no imagination: these learn alone, and quickly
LIKELY_BLANK = 10.0  # CTC's score for it, to begin with: about what a trained one has
REPORT_EVERY = 50  # steps
AHEAD = 4  # batches that each process has ready


class Training(Run):
    """The twin, CTC's score for "no token ends here" (hidden -> 1), what imagines clips, and their optimisers."""

    def __init__(self, twin: Twin, device: torch.device, like: Twin | None = None) -> None:
        self.device = device
        self.like = like.to(device).requires_grad_(False) if like else None
        self.twin, self.blank = twin.to(device), nn.Linear(sizes.HIDDEN, 1, device=device)
        self.imagination = Imagination().to(device)
        matrices: dict[bool, list[tuple[nn.Parameter, int]]] = {True: [], False: []}  # those of Whisper's, and the rest
        others: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, parameter in self.twin.named_parameters():
            old = name.startswith(WHISPERS)
            if name.startswith(BLOCKS) and parameter.ndim == 2:
                matrices[old].append((parameter, 3 if "c_attn" in name else 1))  # query, key and value are three
            else:
                others[old].append(parameter)
        slow: dict[str, Any] = {"times": WHISPERS_SHARE, "weight_decay": 0.0}
        parts: list[dict[str, Any]] = [{"params": [p for p, _ in matrices[False]]}, {"params": [p for p, _ in matrices[True]], **slow}]
        muon = Muon(parts, dict(matrices[False] + matrices[True]), momentum=0.95, weight_decay=0.05)
        thrown_away = [{"params": [*part.parameters()], "times": times} for part, times in ((self.blank, 20.0), (self.imagination, 4.0))]
        groups = [{"params": others[False]}, {"params": others[True], **slow}, *thrown_away]
        adam = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
        super().__init__({"twin": self.twin, "blank": self.blank, "imagination": self.imagination, "muon": muon, "adam": adam})


def main() -> None:
    """Train until the minutes are over."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/demo"))
    parser.add_argument("--out", type=Path, help="the run's mark; default: twin.pt of the data folder")
    parser.add_argument("--minutes", type=float, default=240.0, help="how long in all (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=1.2e-3, help="largest learning rate (default: %(default)s)")
    help_budget = "audio vectors and tokens of a step; 32000 on a large GPU (default: %(default)s)"
    parser.add_argument("--budget", type=int, default=2400, help=help_budget)
    parser.add_argument("--processes", type=whole_number(1), default=1, help="that get steps ready (default: %(default)s)")
    parser.add_argument("--start", type=Path, help="an exported model to begin from, instead of Whisper's encoder")
    parser.add_argument("--like", type=Path, help="an exported model whose answers to speech are kept to")
    curriculum.add_arguments(parser)
    parser.add_argument("--bfloat16", action="store_true", help="layers in bfloat16: faster where the processor knows it; always on a GPU")
    arguments = parser.parse_args()
    if arguments.start and not arguments.out:
        parser.error("--start needs --out: a mark of another run, twin.pt of the data folder, would be gone on from instead")
    if arguments.hold and not arguments.like:
        parser.error("--hold needs --like: the model whose answers are held")
    if arguments.free and not dict(arguments.shares).get("free"):
        parser.error("--free needs --shares free=NUMBER: nothing of these sources would be heard")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    arguments.out = arguments.out or arguments.data / "twin.pt"
    arguments.curriculum = curriculum.from_arguments(arguments, alone=arguments.like is None)
    arguments.half = arguments.bfloat16 or device.type == "cuda"
    torch.set_flush_denormal(True)  # attention that looks at one place is next to nothing everywhere else
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.manual_seed(1)
    if device.type == "cuda":
        torch.set_num_threads(1)  # the other cores get steps ready
    words.require(arguments.data, arguments.start, arguments.like)
    begin, like = (Twin.from_checkpoint(folder) if folder else None for folder in (arguments.start, arguments.like))
    run = Training(begin or new_twin(), device, like)
    run.load(arguments.out)
    if arguments.start and not run.step:
        nn.init.constant_(run.blank.bias, LIKELY_BLANK)
    run.parts["muon"].precision = torch.bfloat16 if arguments.half else torch.float32
    torch.manual_seed(1 + run.step)
    with suppress(KeyboardInterrupt):
        train(run, arguments)
        run.save(arguments.out)


def new_twin() -> Twin:
    """The twin with Whisper's encoder, and more blocks that begin as copies of its last one, adding nothing yet."""
    twin = Twin()
    weights = {name: torch.from_numpy(array) for name, array in whisper.read_encoder(whisper.default_file()).items()}
    last = f"blocks.{sizes.WHISPER_BLOCKS - 1}."
    for number in range(sizes.WHISPER_BLOCKS, sizes.WHISPER_BLOCKS + sizes.MORE_BLOCKS):
        copy = {name.replace(last, f"blocks.{number}."): array.clone() for name, array in weights.items() if name.startswith(last)}
        silent = (f"blocks.{number}.attn.out.", f"blocks.{number}.mlp.2.")
        weights |= {name: torch.zeros_like(array) if name.startswith(silent) else array for name, array in copy.items()}
    missing, unexpected = twin.audio.load_state_dict(weights, strict=False)
    assert not unexpected and all(name.startswith(("proj", "audio_bos")) for name in missing), (missing, unexpected)
    return twin


class Steps(IterableDataset[tuple[Batch, Reading | None]]):
    """What each process gets ready, without end: other clips and texts in every one."""

    def __init__(self, data: Path, entries: list[dict[str, Any]], budget: int, seed: int, course: Curriculum) -> None:
        self.data, self.entries, self.budget, self.seed, self.course = data, entries, budget, seed, course

    def __iter__(self) -> Iterator[tuple[Batch, Reading | None]]:
        worker = get_worker_info()
        seed, tokenizer = [self.seed, worker.id if worker else 0], words.load(self.data)
        texts = Reader(self.data, tokenizer, self.budget // 2, seed) if self.course.imagines else repeat(None)
        return zip(Feeder(self.entries, tokenizer, self.budget, seed, self.course), texts, strict=False)


def train(run: Training, arguments: argparse.Namespace) -> None:
    """Steps until the minutes are over."""
    entries = sounds.labels(arguments.data)
    heard, behind = sounds.read(arguments.data, run.device), places(entries, run.device)
    entries = sounds.with_silences(entries, heard)
    print(f"{len(entries)} clips, {sounds.total_hours(entries):.1f} hours, on {run.device}", flush=True)
    steps = Steps(arguments.data, entries, arguments.budget, run.step, arguments.curriculum)
    ready = DataLoader(steps, batch_size=None, num_workers=arguments.processes, prefetch_factor=AHEAD, collate_fn=tuple)
    means, seconds, before = Means(), 0.0, run.minutes
    for batch, reading in ready:
        seconds += float(batch.samples.sum()) / sounds.RATE
        on_device = batch.to(run.device)
        texts = reading.to(run.device) if reading else None
        one_step(run, on_device, texts, spectrograms(heard, behind, on_device), means, arguments)
        if run.step % REPORT_EVERY == 0:
            speed = seconds / (60 * (run.minutes - before))
            print(f"{run.minutes:.2f} min, step {run.step}: {means.shown()}, {speed:.0f} x real time", flush=True)
            seconds, before = 0.0, run.minutes
        run.save_now_and_then(arguments.out)
        if run.minutes >= arguments.minutes:
            return


def one_step(run: Training, batch: Batch, reading: Reading | None, mels: Mels, means: Means, arguments: argparse.Namespace) -> None:
    """One step of all optimisers."""
    course: Curriculum = arguments.curriculum
    course.let_learn(run.twin, settling=bool(arguments.start) and run.step < SETTLING)
    found = losses(run, batch, mels, reading, arguments.half)
    loss = torch.stack([course.weights[name] * part for name, part in found.items()]).sum()
    run.learn(loss, arguments.rate * schedule(run.minutes / arguments.minutes), [run.twin])
    means.add(found)


@torch.no_grad()
def spectrograms(heard: Tensor, behind: dict[str, Tensor], batch: Batch) -> Mels:
    """What is heard in a step; `heard` are all sounds there are, `behind` says which may be behind speech."""
    frames = frames_of(batch)
    plain = sounds.rows(heard, batch.cuts, shape_of(batch))
    waves = add_backgrounds(plain, batch, heard, behind)
    return Mels(covered(log_mel(augment(waves, batch.samples, batch.kept), frames), frames, batch.kept), log_mel(plain, frames))


if __name__ == "__main__":
    main()
