"""The verbs that make, check and fetch checkpoints, one function each: options in, exit status out."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from qwenaudio_np import console
from qwenaudio_np.errors import shown


def convert(arguments: Namespace) -> int:
    """Convert a checkpoint to a folder of safetensors."""
    from qwenaudio_np.convert.converter import convert_checkpoint

    shows = console.Progress(arguments.verbose, arguments.quiet)
    with _telling_what_is_kept(arguments.folder), _bar("convert", shows) as advance:
        result = convert_checkpoint(
            arguments.source,
            arguments.folder,
            from_=arguments.from_,
            weights=arguments.weights,
            shard_size=arguments.shard_size,
            config=arguments.config,
            audio_from=arguments.audio_from,
            seed=arguments.seed,
            force=arguments.force,
            progress=advance,
        )
    for warning in result.warnings:
        console.say(f"warning: {warning}")
    files = result.manifest["files"].values()
    shows(f"{shown(arguments.folder)}: {len(result.manifest['tensors'])} tensors, {sum(file['bytes'] for file in files) / 1e9:.3f} GB")
    return 0


def verify(arguments: Namespace) -> int:
    """Say whether a checkpoint folder is what it should be; status 1 if not."""
    from qwenaudio_np.convert.verify import verify_checkpoint

    shows = console.Progress(arguments.verbose, arguments.quiet)
    with _bar("verify", shows) as advance:
        report = verify_checkpoint(arguments.folder, arguments.against, progress=advance)
    lines = [f"wrong: {problem}" for problem in report.problems]
    lines += [f"{entry.name}: differs by up to {entry.largest:.3g}, by {entry.mean:.3g} on average" for entry in report.differences]
    unhashed = "no manifest.json, so no hashes to check" if report.ok else "hashes not checked"
    hashes = "hashes checked" if report.hashed else unhashed
    compared = f", {report.compared} compared with the source" if arguments.against is not None else ""
    state = "good" if report.ok else "not good"
    files = "1 file" if report.files == 1 else f"{report.files} files"
    lines.append(f"{shown(arguments.folder)} is {state}: {report.tensors} tensors in {files}, {hashes}{compared}")
    console.put("\n".join(lines) + "\n")
    return 0 if report.ok else 1


def download(arguments: Namespace) -> int:
    """Fetch a checkpoint from the Hugging Face hub."""
    from qwenaudio_np.convert.download import download as fetch

    shows = console.Progress(arguments.verbose, arguments.quiet)
    done = fetch(
        arguments.repository,
        arguments.folder,
        revision=arguments.revision,
        progress=lambda name, number, count: shows(f"{number} of {count}: {name}"),
    )
    shows(f"{shown(arguments.folder)}: commit {done.commit}")
    return 0


def random_checkpoint(arguments: Namespace) -> int:
    """Make a checkpoint with random weights."""
    from qwenaudio_np.convert.random_checkpoint import write_random_checkpoint

    shows = console.Progress(arguments.verbose, arguments.quiet)
    with _bar(arguments.size, shows) as advance:
        write_random_checkpoint(arguments.folder, arguments.size, arguments.seed, arguments.dtype, progress=advance, force=arguments.force)
    shows(f"{shown(arguments.folder)}: random weights, so what this model says means nothing")
    return 0


@contextmanager
def _telling_what_is_kept(folder: str) -> Iterator[None]:
    """Ctrl-C in this block says what it leaves behind, and what that is good for."""
    from qwenaudio_np.convert.workplace import what_is_kept

    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(*filter(None, [what_is_kept(Path(folder).absolute())])) from None


@contextmanager
def _bar(label: str, shows: console.Progress) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with rate and time left, and the function (bytes done, bytes in all) that moves it."""
    from tqdm import tqdm

    with tqdm(unit="B", unit_scale=True, unit_divisor=1000, disable=not shows.shown, desc=label, file=console.Careless()) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance
