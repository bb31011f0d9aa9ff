"""What the program says about a checkpoint and about an answer, as data and as lines."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from qwenaudio_np import __version__
from qwenaudio_np.cache import usually_kept
from qwenaudio_np.checkpoint import DEFAULT_POSITIONS, MAX_INDEX_BYTES, checkpoint_files, checkpoint_summary
from qwenaudio_np.config import ModelConfig, read_json
from qwenaudio_np.errors import FormatError, shown, shown_size
from qwenaudio_np.memory import available_bytes, cache_bytes, needed_bytes
from qwenaudio_np.request import Result
from qwenaudio_np.shards import MANIFEST


def result_report(result: Result) -> dict[str, Any]:
    """The object that --json prints. `positions` are a clip's encoder positions, `tokens` its places in the prompt."""
    return {
        "text": result.text,
        "token_ids": result.token_ids,
        "prompt_ids": result.prompt_ids,
        "audio": [
            {"path": clip.path, "seconds": clip.seconds, "positions": clip.positions, "tokens": clip.vectors + 2} for clip in result.clips
        ],
        "stop": result.stop_reason,
        "timings": {stage: round(seconds, 6) for stage, seconds in result.timings.items()},
        "tokens_per_second": round(result.tokens_per_second, 3),
        **result.labels,
        "version": __version__,
    }


def summary_line(result: Result) -> str:
    """One line for people: where the time went."""
    stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in result.timings.items())
    speed = f", {result.tokens_per_second:.1f} tokens/s" if result.tokens_per_second else ""
    names = ", ".join(f"{name} {value if value.isalnum() else shown(value)}" for name, value in result.labels.items())
    return f"{len(result.prompt_ids)} + {len(result.token_ids)} tokens ({result.stop_reason}); {stages}{speed}; {names}"


def checkpoint_report(folder: str, config: ModelConfig) -> dict[str, Any]:
    """Sizes, types, parameters, memory and switches of a checkpoint folder, from its config and headers alone."""
    summary = checkpoint_summary(folder, config)
    text = config.text
    kept = usually_kept(np.float32, summary.quantised)
    lengths = sorted({min(DEFAULT_POSITIONS, text.max_position_embeddings), text.max_position_embeddings})
    return {
        "model": folder,
        "files": [asdict(file) for file in summary.files],
        "parameters": {"encoder": summary.encoder_parameters, "decoder": summary.decoder_parameters},
        "weight_bytes": summary.weight_bytes,
        "memory_bytes": {
            "needed_by_positions": {str(length): needed_bytes(config, summary.weight_bytes, length, kv=kept) for length in lengths},
            "cache_per_position": cache_bytes(text, 1, kept.itemsize),
            "available_now": available_bytes(),
        },
        "decoder": asdict(text),
        "encoder": asdict(config.audio) if config.audio else None,
        "generation": asdict(config.generation),
        "switched_on": _switches(config),
        "converted": _origin(Path(folder)),
    }


def encoder_report(folder: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The same of a folder that holds an encoder alone, whose config.json has `fields`: it cannot run, so no memory and no switches."""
    files = [asdict(file) for file in checkpoint_files(folder)]
    return {"model": folder, "files": files, "encoder": fields.get("audio"), "converted": _origin(Path(folder))}


def encoder_lines(report: dict[str, Any]) -> list[str]:
    """An encoder report for people."""
    lines = [f"{shown(report['model'])}: an encoder without a decoder", *_file_lines(report)]
    return [*lines, f"encoder: {shown(json.dumps(report['encoder']))}", *_origin_lines(report)]


def report_lines(report: dict[str, Any]) -> list[str]:
    """A checkpoint report for people."""
    encoder, decoder = report["parameters"]["encoder"], report["parameters"]["decoder"]
    counts = f"{encoder + decoder:,} parameters (encoder {encoder:,}, decoder {decoder:,})"
    lines = [f"{shown(report['model'])}: {counts}, {shown_size(report['weight_bytes'])} of weights"]
    lines += _file_lines(report)
    memory = report["memory_bytes"]
    lines += [f"memory: {shown_size(needed)} for {length} positions" for length, needed in memory["needed_by_positions"].items()]
    lines.append(f"memory: {shown_size(memory['cache_per_position'])} of that for the keys and values of each position")
    if memory["available_now"] is not None:
        lines.append(f"memory: {shown_size(memory['available_now'])} available now")
    for part in ("encoder", "decoder", "generation"):
        fields = report[part]
        lines.append(f"{part}: " + (", ".join(f"{name} {value}" for name, value in fields.items()) if fields else "none (text only)"))
    return [*lines, *(f"on: {line}" for line in report["switched_on"]), *_origin_lines(report)]


def _file_lines(report: dict[str, Any]) -> list[str]:
    types = [", ".join(f"{number} x {dtype}" for dtype, number in file["dtypes"].items()) for file in report["files"]]
    return [f"  {file['name']}  {shown_size(file['nbytes'])}  {told}" for file, told in zip(report["files"], types, strict=True)]


def _origin_lines(report: dict[str, Any]) -> list[str]:
    origin = report["converted"]
    if not origin:
        return []
    first = f"converted by version {shown(origin['version'])}, weights {shown(origin['options'].get('weights'))}, from:"
    sources = (f"  {shown(one['name'])}  {shown_size(one['bytes'])}  sha256 {shown(one['sha256'])}" for one in origin["sources"])
    return [first, *sources]


def _origin(folder: Path) -> dict[str, Any] | None:
    """What manifest.json says about where a converted checkpoint came from; None without one. Raises FormatError if it is damaged."""
    if not (folder / MANIFEST).exists():
        return None
    fields = read_json(folder / MANIFEST, MAX_INDEX_BYTES)
    origin = {name: fields.get(name) for name in ("version", "options", "sources")}
    sources, wanted = origin["sources"], {"role": str, "name": str, "bytes": int, "sha256": str}
    good = type(sources) is list and type(origin["options"]) is dict
    if not good or not all(type(s) is dict and {key: type(value) for key, value in s.items()} == wanted for s in sources or ()):
        raise FormatError(f"{shown(folder / MANIFEST)} does not describe its sources; delete it, or convert the checkpoint again")
    return origin


def _switches(config: ModelConfig) -> list[str]:
    """What this config makes the network do, in words."""
    text, audio = config.text, config.audio
    told = {
        f"dynamic NTK: prompts past {text.seq_length} positions stretch the rotary base": text.use_dynamic_ntk,
        f"logn: queries past position {text.seq_length} are scaled": text.use_logn_attn,
        f"rotary on {text.rotary_dim} of {text.head_dim} values of a head": text.rotary_dim < text.head_dim,
        "lm_head tied to the word embedding": text.tie_word_embeddings,
        "sound: pairs of positions averaged": bool(audio and audio.avg_pool),
        "sound: two learned rows around each clip": bool(audio and audio.add_audio_bos_eos_token),
        "chat: ChatML prompts by default": config.generation.chat_format == "chatml",
    }
    return [line for line, on in told.items() if on]
