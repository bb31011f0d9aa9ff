"""The verbs of the command line, one function each: options in, exit status out."""

from __future__ import annotations

import json
import os
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qwenaudio_np import backends, console
from qwenaudio_np.checkpoint_commands import convert, download, random_checkpoint, verify
from qwenaudio_np.config import ENCODER_TYPE, load_config, read_json
from qwenaudio_np.embedded import FOLDER as EMBEDDED
from qwenaudio_np.embedded import model_folder
from qwenaudio_np.errors import QwenAudioError, UsageError, shown
from qwenaudio_np.inputs import read_ids, read_request
from qwenaudio_np.loading import load
from qwenaudio_np.model import QwenAudio
from qwenaudio_np.outputs import check_output, require_regular, whole_file, write_text
from qwenaudio_np.report import checkpoint_report, encoder_lines, encoder_report, report_lines, result_report, summary_line
from qwenaudio_np.request import answer
from qwenaudio_np.sampler import Sampling
from qwenaudio_np.shards import INDEX_FILE, MANIFEST, SINGLE_FILE
from qwenaudio_np.tracing import describe, require_only_ids
from qwenaudio_np.tracing import trace as trace_request
from qwenaudio_np.vocabulary import VOCABULARY_FILE

PARTS = ("config.json", "generation_config.json", VOCABULARY_FILE, SINGLE_FILE, INDEX_FILE, MANIFEST)  # of a model, read from its folder


def run(arguments: Namespace) -> int:
    """Answer one request: text on stdout as it comes, or to --output, or as one JSON object."""
    _check_places(arguments)
    sampling = _sampling(arguments)
    progress = console.Progress(arguments.verbose, arguments.quiet)
    begin = time.perf_counter()
    request = read_request(arguments)
    _spare_history(arguments, request)
    reading = time.perf_counter() - begin
    model, loading = _open_model(arguments, progress)
    printer = console.Answer() if not arguments.json and arguments.output is None else None
    stream = printer.write if printer else None
    limits = {"max_new_tokens": arguments.max_new_tokens, "min_new_tokens": arguments.min_new_tokens}
    manners = {"progress": progress, "keep_interrupted": True, "force": arguments.force}
    try:
        result = answer(model, **request, **limits, **vars(sampling), stream=stream, **manners)
    except (QwenAudioError, MemoryError):
        if printer:
            printer.break_off()
        raise
    if result.stop_reason == "interrupted" and not result.token_ids:
        raise KeyboardInterrupt  # there is nothing to keep
    result.timings["audio"] += reading
    result.timings = {"load": loading, **result.timings, "total": result.timings["total"] + loading + reading}
    if printer:
        printer.close()
    else:
        _deliver(_json(result_report(result), arguments.output) if arguments.json else result.text, arguments.output)
    progress(summary_line(result))
    if result.stop_reason == "interrupted":
        console.say("interrupted; what was answered so far is kept")
        return console.INTERRUPTED
    return 0


def trace(arguments: Namespace) -> int:
    """Write every tensor of a run to a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    _check_places(arguments)
    require_regular(arguments.output)
    progress = console.Progress(arguments.verbose, arguments.quiet)
    ids = read_ids(arguments.ids) if arguments.ids is not None else None
    request = read_request(arguments, needs_prompt=ids is None)
    if ids is not None:
        require_only_ids(request)
    _spare_history(arguments, request)
    model, _ = _open_model(arguments, progress)
    progress("tracing")
    tensors = trace_request(model, ids, steps=arguments.steps, force=arguments.force, **request)
    with whole_file(arguments.output) as temporary:
        try:
            save_file(tensors, temporary, metadata=describe(model, tensors))
        except SafetensorError as error:  # the library's name for a full disk, too
            raise OSError(str(error)) from None
    progress(f"{len(tensors)} tensors, {sum(tensor.nbytes for tensor in tensors.values()) / 1e6:.1f} MB in {shown(arguments.output)}")
    return 0


def info(arguments: Namespace) -> int:
    """What a checkpoint folder holds, and what running it needs."""
    fields = read_json(Path(model_folder(arguments.model)) / "config.json")
    if fields.get("model_type") == ENCODER_TYPE:
        report, lines = encoder_report(arguments.model, fields), encoder_lines
    else:
        report, lines = checkpoint_report(arguments.model, load_config(arguments.model)), report_lines
    console.put((_json(report) if arguments.json else "\n".join(lines(report))) + "\n")
    return 0


def bench(arguments: Namespace) -> int:
    """Time encoder, prefill and decoding, and relate them to the machine's ceilings."""
    from qwenaudio_np import bench as benchmark

    progress = console.Progress(arguments.verbose, arguments.quiet)
    benchmark.check_sizes(arguments.seconds, arguments.max_new_tokens, arguments.repeats)
    model, loading = _open_model(arguments, progress)
    progress("validating against ops.py, then measuring; other work on this machine will show")
    peaks: list[int | None] = []
    options = (arguments.seconds, arguments.max_new_tokens, arguments.repeats, arguments.threads)
    stages = benchmark.bench(model, *options, warmed=lambda: peaks.append(benchmark.peak_resident()))
    labels = {**model.labels, **benchmark.instructions(model), "load": round(loading, 3), "peak_resident_bytes": peaks[0]}
    if arguments.json:
        told = [_json({**asdict(stage), "rate": stage.rate, "ratio": stage.ratio, **labels}) for stage in stages]
    else:
        told = [", ".join(f"{name} {value}" for name, value in labels.items()), *benchmark.lines(stages)]
    console.put("\n".join(told) + "\n")
    return 0


VERBS: dict[str, Callable[[Namespace], int]] = {
    "run": run,
    "trace": trace,
    "info": info,
    "bench": bench,
    "convert": convert,
    "verify": verify,
    "download": download,
    "random-checkpoint": random_checkpoint,
}


def _check_places(arguments: Namespace) -> None:
    """The things that can be wrong before anything is read: where the model is, where the output goes, who reads stdin."""
    folder = model_folder(arguments.model)
    if arguments.input.count("-") + (arguments.prompt == "-") > 1:
        raise UsageError("`-` (stdin) can be read only once; give the others as files")
    if arguments.output is None:
        console.put("")
        return
    files = [arguments.history, getattr(arguments, "ids", None), *arguments.input]
    weights = [entry.path for entry in os.scandir(folder)] if os.path.isdir(folder) else []
    check_output(arguments.output, [*weights, *(name for name in files if name is not None)])
    place, name = os.path.split(os.path.realpath(arguments.output))
    if place == os.path.realpath(folder) and name in PARTS:
        raise UsageError(f"--output {shown(arguments.output)} would become a part of the model in that folder; choose another name")


def _spare_history(arguments: Namespace, request: dict[str, Any]) -> None:
    """The output must not replace a sound file of an earlier turn, either."""
    if arguments.output is not None:
        check_output(arguments.output, [clip.path for turn in request["history"] for clip in turn["audio"]])


def _sampling(arguments: Namespace) -> Sampling:
    """The sampling options, with a warning where they do nothing."""
    given = {"--top-k": arguments.top_k, "--top-p": arguments.top_p, "--seed": arguments.seed}
    idle = [option for option, value in given.items() if value is not None]
    sampling = Sampling(arguments.temperature, arguments.top_k or 0, 1.0 if arguments.top_p is None else arguments.top_p, arguments.seed)
    if idle and sampling.temperature == 0:
        console.say(f"warning: {', '.join(idle)} without effect: every token is the best one unless --temperature is above 0")
    return sampling


def _open_model(arguments: Namespace, progress: console.Progress) -> tuple[QwenAudio, float]:
    """The model, and the seconds it took to open."""
    folder = model_folder(arguments.model)
    begin = time.perf_counter()
    if folder == EMBEDDED and not arguments.quiet:
        console.say("the small embedded model answers (what it can do: DEMO_MODEL.md); --model DIR names another")
    progress(f"opening {shown(folder)}")
    with console.leaving_at_once():
        backends.get(arguments.backend, arguments.threads)
    dtype = getattr(arguments, "dtype", "float32")
    last = -1

    def count(done: int, total: int) -> None:
        nonlocal last
        if last < (tenth := 10 * done // total) > 0:
            progress(f"{arguments.weights} weights made: {10 * tenth} %")
            last = tenth

    model = load(folder, arguments.backend, dtype, arguments.threads, arguments.force, arguments.weights, count, progress, arguments.kv)
    return model, time.perf_counter() - begin


def _json(report: dict[str, Any], output: str | None = None) -> str:
    """One line. Outside ASCII as it is, where the place it goes to can hold that; what would steer a terminal as an escape."""
    return console.plain_json(json.dumps(report, ensure_ascii=output is None and not console.writes_unicode()))


def _deliver(text: str, output: str | None) -> None:
    if output is None:
        console.put(text + "\n")
    else:
        write_text(output, text + "\n")
