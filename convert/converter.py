"""Any checkpoint in, a verified folder of safetensors out: one tensor at a time, resumable, whole or not at all.

    open and check all sources -> decide what to write -> look for room -> hash the sources -> write shard after shard, hashing as it goes
    -> config, vocabulary, index -> manifest.json -> rename

Memory does not grow with the checkpoint: a block of rows (8 MiB) and its conversion; for a tensor that is stored transposed, that
tensor as it is stored besides.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qwenaudio_np import __version__
from qwenaudio_np.checkpoint import INDEX_FILE
from qwenaudio_np.errors import UsageError, shown
from qwenaudio_np.shards import MANIFEST

from .graft import graft
from .manifest import MANIFEST_FORMAT, PROGRESS, Finished, ShardHash, file_entry, is_intact, json_bytes, load_progress, write_json
from .progress import Advance, Progress, counted
from .recipe import CONFIG, OWN_FILES, Recipe, encoder_recipe, model_recipe, with_dtype
from .request import check_request, files_read, require_paths
from .safetensors_writer import Shard, TensorSpec, index_bytes, plan_shards, whole_file, write_safetensors
from .source_file import SourceFile
from .weight_source import WHISPER, WeightSource, open_weights
from .weight_types import AS_STORED, WEIGHT_TYPES, StoredTensor, finite
from .workplace import left_over, require_disk, workplace

SHARD_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Converted:
    """What a conversion made. `manifest` is manifest.json; `warnings` name tensors with NaN or infinity."""

    manifest: dict[str, Any]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Plan:
    """Everything that is decided before writing."""

    recipe: Recipe
    sources: tuple[tuple[str, WeightSource], ...]
    shards: list[Shard]
    origins: dict[str, tuple[str, StoredTensor]]  # stored tensor -> tensor of the recipe, conversion
    options: dict[str, Any]

    @property
    def source_files(self) -> list[SourceFile]:
        return [file for _, source in self.sources for file in source.files]

    @property
    def output_bytes(self) -> int:
        return sum(tensor.nbytes for shard in self.shards for tensor in shard.tensors)


def convert_checkpoint(
    source: str | Path,
    destination: str | Path,
    *,
    from_: str | None = None,
    weights: str | None = None,
    shard_size: int = SHARD_BYTES,
    config: str | Path | None = None,
    audio_from: str | Path | None = None,
    seed: int = 0,
    force: bool = False,
    progress: Progress | None = None,
) -> Converted:
    """Convert the checkpoint at `source` (a folder, or one weight file) to the folder `destination`.

    `from_` is one of weight_source.KINDS, by default what is found; `weights` one of WEIGHT_TYPES, by default as stored;
    `shard_size` the most bytes of tensors to a file; `config` a folder with config.json and vocabulary for a single file;
    `audio_from` a Whisper .pt file whose encoder is grafted on, with `seed` for what is made new; `force` replaces a checkpoint.
    Raises UsageError, UnsafeError, FormatError, UnsupportedError, MismatchError before anything is written; ResourceError (disk).
    """
    require_paths(source=source, destination=destination, config=config, audio_from=audio_from)
    origin, target = Path(source), Path(destination).absolute()
    check_request(origin, target, weights, shard_size, seed)
    with ExitStack() as stack:
        plan = _plan(stack, origin, Path(config) if config else None, Path(audio_from) if audio_from else None, from_, seed)
        plan = _with_shards(plan, weights, shard_size)
        read_from = files_read(plan.source_files, (folder for folder in (origin, config) if folder))
        with workplace(target, OWN_FILES, force, read_from, notes=PROGRESS) as folder:
            require_disk(folder, plan.output_bytes - left_over(target))  # hashing takes long
            return _fill(folder, plan, progress)


def _plan(stack: ExitStack, path: Path, config: Path | None, audio_from: Path | None, kind: str | None, seed: int) -> _Plan:
    """Open the sources and check them against their config."""
    source = stack.enter_context(open_weights(path, kind))
    options: dict[str, Any] = {"from": source.kind}
    if source.kind == WHISPER:
        if audio_from or config:
            raise UsageError(f"{shown(path)} is a Whisper checkpoint: name the decoder first, and this file with --audio-from")
        return _Plan(encoder_recipe(source), (("audio", source),), [], {}, options)
    folder = config or (path if path.is_dir() else None)
    if folder is None:
        raise UsageError(f"{shown(path)} is a single file; name the folder of its config.json and vocabulary with --config")
    recipe = model_recipe(source, folder)
    if audio_from is None:
        return _Plan(recipe, (("weights", source),), [], {}, options)
    audio = stack.enter_context(open_weights(audio_from, WHISPER))
    joint = graft(recipe, encoder_recipe(audio), audio.dims or {}, seed)
    return _Plan(joint, (("weights", source), ("audio", audio)), [], {}, options | {"audio_from": WHISPER, "seed": seed})


def _with_shards(plan: _Plan, weights: str | None, shard_size: int) -> _Plan:
    """The plan with every stored tensor in its shard."""
    as_type = WEIGHT_TYPES[weights] if weights else AS_STORED
    origins: dict[str, tuple[str, StoredTensor]] = {}
    for name, tensor in plan.recipe.tensors.items():
        origins |= {stored.spec.name: (name, stored) for stored in as_type(name, tensor.dtype, tensor.shape)}
    shards = plan_shards((stored.spec for _, stored in origins.values()), shard_size)
    options = plan.options | {"weights": weights or "as stored", "shard_size": shard_size}
    return _Plan(with_dtype(plan.recipe, weights), plan.sources, shards, origins, options)


def _fill(folder: Path, plan: _Plan, progress: Progress | None) -> Converted:
    """Write everything into `folder`, keeping the good shards of an earlier run of the same job."""
    advance = counted(progress, sum(file.size for file in plan.source_files) + plan.output_bytes)
    job = {"version": __version__, "options": plan.options, "sources": list(_hash_sources(plan, advance))}
    job["config"] = file_entry(json_bytes(plan.recipe.config))
    finished = _resume(folder, plan, job, advance)
    require_disk(folder, plan.output_bytes - sum(entry["bytes"] for entry in finished.files.values()))
    for shard in plan.shards:
        if shard.name not in finished.files:
            _write_shard(folder / shard.name, shard, plan, finished, advance)
            finished.save(folder, job)
    for _, source in plan.sources:
        source.require_unchanged()
    manifest = _write_rest(folder, plan, job, finished)
    warnings = (f"tensor {shown(name)} holds {count} values that are NaN or infinite" for name, count in finished.odd.items())
    return Converted(manifest, tuple(warnings))


def _hash_sources(plan: _Plan, advance: Advance) -> Iterator[dict[str, Any]]:
    """Everything that is read, for the manifest; weight files are read whole here, the checksums of their own records too."""
    for role, source in plan.sources:
        for file, regions in zip(source.files, source.regions, strict=True):
            yield {"role": role, "name": file.path.name, "bytes": file.size, "sha256": file.sha256(regions, advance)}
    small = [("index", name, data) for _, source in plan.sources for name, data in source.index.items()]
    small += [("config", name, data) for name, data in ({CONFIG: plan.recipe.stated} | plan.recipe.copied).items() if data]
    for role, name, data in small:
        yield {"role": role, "name": name, **file_entry(data)}


def _resume(folder: Path, plan: _Plan, job: dict[str, Any], advance: Advance) -> Finished:
    """The shards that are there and intact; everything else in the folder is deleted, but for the notes that speak of them.

    Those stay until new ones take their place: a run that is killed before its first own shard loses nothing.
    """
    found, kept = load_progress(folder, job), Finished()
    for shard in plan.shards:
        entry = found.files.get(shard.name)
        names = [tensor.name for tensor in shard.tensors]
        if entry and all(name in found.tensors for name in names) and is_intact(folder / shard.name, entry, advance):
            kept.files[shard.name] = entry
            kept.tensors |= {name: found.tensors[name] for name in names}
            origins = {plan.origins[name][0] for name in names}
            kept.odd |= {name: count for name, count in found.odd.items() if name in origins}
    wanted = {*kept.files, PROGRESS} if kept.files else set()
    for path in folder.iterdir():
        if path.name not in wanted:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return kept


def _write_shard(path: Path, shard: Shard, plan: _Plan, finished: Finished, advance: Advance) -> None:
    def pieces(spec: TensorSpec) -> Iterable[np.ndarray]:
        name, stored = plan.origins[spec.name]
        tensor = plan.recipe.tensors[name]
        return stored.encode(_watched(tensor.rows(), tensor.dtype, name, finished.odd))

    hashes = ShardHash(shard.tensors, pieces)
    write_safetensors(path, shard.tensors, hashes.pieces, advance)
    finished.files[shard.name] = hashes.entry
    finished.tensors |= hashes.tensors


def _watched(blocks: Iterator[np.ndarray], dtype: str, name: str, odd: dict[str, int]) -> Iterator[np.ndarray]:
    """Pass blocks on and count, by tensor, the values that are NaN or infinite."""
    count = 0
    for block in blocks:
        count += int(block.size - np.count_nonzero(finite(block, dtype)))
        if count:
            odd[name] = count
        yield block


def _write_rest(folder: Path, plan: _Plan, job: dict[str, Any], finished: Finished) -> dict[str, Any]:
    """The small files, the index, and last the manifest that makes the folder whole."""
    small = {CONFIG: json_bytes(plan.recipe.config), **plan.recipe.copied, INDEX_FILE: index_bytes(plan.shards)}
    for name, data in small.items():
        with whole_file(folder / name) as stream:
            stream.write(data)
    manifest = {
        "format": MANIFEST_FORMAT,
        "version": __version__,
        "options": job["options"],
        "sources": job["sources"],
        "files": {name: file_entry(data) for name, data in small.items()} | {s.name: finished.files[s.name] for s in plan.shards},
        "tensors": {tensor.name: finished.tensors[tensor.name] for shard in plan.shards for tensor in shard.tensors},
        "dropped": sorted(plan.recipe.dropped),
        "fresh": list(plan.recipe.fresh),
    }
    write_json(folder / MANIFEST, manifest)
    return manifest
