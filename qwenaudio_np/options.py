"""The options of each verb of the command line. Nothing here imports NumPy."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError, _ArgumentGroup
from collections.abc import Callable

from qwenaudio_np.errors import shown
from qwenaudio_np.special_tokens import LANGUAGES
from qwenaudio_np.tasks import TASKS


def whole_number(low: int) -> Callable[[str], int]:
    """An option's type: a whole number of at least `low`."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low:
            raise ArgumentTypeError(f"{shown(text)} is not a whole number of at least {low}")
        return value

    return convert


def byte_size(text: str) -> int:
    """An option's type: a number of bytes, with or without a unit: 2GB, 1.5 GB, 500MB, 64kB, 1000000."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?) ?(|B|kB|MB|GB|TB)", text, re.ASCII | re.IGNORECASE)
    if not match:
        raise ArgumentTypeError(f"{shown(text)} is not a size such as 500MB or 2GB")
    return int(float(match[1]) * 1000 ** ("B", "KB", "MB", "GB", "TB").index(match[2].upper() or "B"))


def add_run_options(parser: ArgumentParser) -> None:
    """Options of `run`."""
    _add_request_options(parser)
    _add_model_options(parser)
    add = parser.add_argument_group("generation (greedy unless --temperature is above 0)").add_argument
    add("-n", "--max-new-tokens", type=whole_number(1), metavar="N", help="longest answer (default: the task's, the chat model's, or 256)")
    add("--min-new-tokens", type=whole_number(0), metavar="N", help="no earlier end of the answer (default: 1 for a task, else 0)")
    add("--temperature", type=float, default=0.0, metavar="T", help="0 (default): always the best token; 1: as the model weighs them")
    add("--top-k", type=whole_number(0), metavar="K", help="draw from the K best tokens only (0: off, the default)")
    add("--top-p", type=float, metavar="P", help="draw from the best tokens of joint mass P (1: off, the default)")
    add("--seed", type=whole_number(0), metavar="N", help="makes draws repeatable")
    output = parser.add_argument_group("output (text on stdout, everything else on stderr)")
    output.add_argument("-o", "--output", metavar="FILE", help="write the answer to a file instead")
    output.add_argument("--json", action="store_true", help="one JSON object: text, token_ids, prompt_ids, audio, stop, timings, ...")
    _add_verbosity(output)


def add_trace_options(parser: ArgumentParser) -> None:
    """Options of `trace`."""
    _add_request_options(parser)
    _add_model_options(parser)
    group = parser.add_argument_group("trace")
    add, types = group.add_argument, ("float32", "float64")
    add("--ids", metavar="FILE.json", help="a JSON list of token ids instead of a prompt; its audio spans take --input in order")
    add("--dtype", choices=types, default="float32", metavar="TYPE", help="all arithmetic in float32 (default) or float64")
    add("--steps", type=whole_number(0), default=0, metavar="N", help="also generate up to N tokens greedily (default 0)")
    add("-o", "--output", metavar="FILE", required=True, help="where to write the tensors, a safetensors file")
    _add_verbosity(group)


def add_info_options(parser: ArgumentParser) -> None:
    """Options of `info`."""
    parser.add_argument("model", metavar="DIR", help="checkpoint folder")
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def add_bench_options(parser: ArgumentParser) -> None:
    """Options of `bench`."""
    _add_model_options(parser)
    add = parser.add_argument_group("bench").add_argument
    add("--seconds", type=float, default=5.9, metavar="S", help="length of the sound that is heard (default 5.9)")
    add("-n", "--max-new-tokens", type=whole_number(2), default=16, metavar="N", help="tokens to decode (default 16)")
    add("--repeats", type=whole_number(1), default=3, metavar="N", help="runs, of which the median counts (default 3)")
    add("--json", action="store_true", help="a JSON object per line")
    _add_verbosity(parser)


def add_convert_options(parser: ArgumentParser) -> None:
    """Options of `convert`."""
    add, kinds = parser.add_argument, ("safetensors", "pytorch", "whisper")
    types = ("float32", "float16", "bfloat16", "int8", "int4")
    add("source", metavar="SOURCE", help="checkpoint folder, or one .safetensors, .bin, .pt or .pth file")
    add("folder", metavar="DIR", help="folder to make; must not exist yet, or be an empty one")
    add("--from", dest="from_", choices=kinds, metavar="KIND", help="safetensors, pytorch or whisper (default: what is found)")
    add("--weights", choices=types, metavar="TYPE", help="store as float32, float16, bfloat16, int8 or int4 (default: as they are)")
    add("--shard-size", type=byte_size, default=2_000_000_000, metavar="SIZE", help="largest file, for example 500MB (default 2GB)")
    add("--config", metavar="DIR", help="folder of config.json and vocabulary, where SOURCE is a single file")
    add("--audio-from", metavar="FILE", help="put the encoder of this Whisper .pt file in front of a text model")
    add("--seed", type=whole_number(0), default=0, metavar="N", help="for what --audio-from has to make new (default 0)")
    add("--force", action="store_true", help="replace a checkpoint that is there already")
    _add_verbosity(parser)


def add_verify_options(parser: ArgumentParser) -> None:
    """Options of `verify`."""
    parser.add_argument("folder", metavar="DIR", help="checkpoint folder")
    parser.add_argument("--against", metavar="SOURCE", help="also compare every tensor with the one it was converted from")
    _add_verbosity(parser)


def add_download_options(parser: ArgumentParser) -> None:
    """Options of `download`."""
    parser.add_argument("repository", metavar="REPOSITORY", help="owner/name on the hub; only weights, config and vocabulary are fetched")
    parser.add_argument("folder", metavar="DIR", help="where to put the files; what is there already is kept")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit (default: the main branch)")
    _add_verbosity(parser)


def add_random_checkpoint_options(parser: ArgumentParser) -> None:
    """Options of `random-checkpoint`."""
    add, sizes, types = parser.add_argument, ("tiny", "layer", "full"), ("bfloat16", "float16", "float32")
    add("folder", metavar="DIR", help="folder to make; must not exist yet, or be an empty one")
    help_size = "tiny (default): in a second; layer: real widths, 2 + 2 layers; full: 8.4 B parameters"
    add("--size", choices=sizes, default="tiny", metavar="SIZE", help=help_size)
    add("--seed", type=whole_number(0), default=0, metavar="N", help="another seed, other weights (default 0)")
    add("--dtype", choices=types, default="bfloat16", metavar="TYPE", help="weights as bfloat16 (default), float16 or float32")
    add("--force", action="store_true", help="replace a checkpoint that is there already")
    _add_verbosity(parser)


def _add_request_options(parser: ArgumentParser) -> None:
    add = parser.add_argument_group("request").add_argument
    help_input = "sound files, any format and rate, 30 s each; - reads stdin"
    add("-i", "--input", nargs="+", action="extend", default=[], metavar="FILE", help=help_input)
    add("-p", "--prompt", metavar="TEXT", help="the question, or raw tags for a base model; - reads stdin")
    add("--task", metavar="NAME", help=f"instead of a prompt, one of: {', '.join(TASKS)}")
    add("--language", metavar="L", help=f"of the sound, for a task: {', '.join(LANGUAGES)} or unknown (default: en)")
    add("--text-language", metavar="L", help="of the answer, for a task (default: that of the sound)")
    add("--question", metavar="TEXT", help="what to ask, for --task question")
    add("--style", metavar="S", help="clotho (default), audiocaps or plain, for --task caption")
    add("--format", choices=("base", "chat"), metavar="F", help="layout of the prompt, base or chat (default: the checkpoint's)")
    add("--system", metavar="TEXT", help='system text of a chat (default "You are a helpful assistant.")')
    add("--history", metavar="FILE.json", help='earlier turns of a chat: [{"query": "", "audio": ["a.wav"], "answer": ""}]')


def _add_model_options(parser: ArgumentParser) -> None:
    add, backends = parser.add_argument_group("model").add_argument, ("reference", "numba")
    add("-m", "--model", metavar="DIR", help="checkpoint folder (default: that of QWENAUDIO_MODEL, else the small embedded model)")
    add("--backend", choices=backends, default="numba", metavar="B", help="numba (default): fast; reference: readable NumPy")
    help_weights = "float32, bfloat16, int8 or int4: convert them while loading (default: as stored)"
    add("--weights", choices=("float32", "bfloat16", "int8", "int4"), metavar="W", help=help_weights)
    help_kv = "keep keys and values as float32 or bfloat16 (default: bfloat16 beside int8 and int4 weights, else as the arithmetic)"
    add("--kv", choices=("float32", "bfloat16"), metavar="KV", help=help_kv)
    add("-t", "--threads", type=whole_number(1), metavar="N", help="threads to use, at most one for each core (default: all cores)")
    add("--force", action="store_true", help="go on although memory looks too small")


def _add_verbosity(parser: ArgumentParser | _ArgumentGroup) -> None:
    noise = parser.add_mutually_exclusive_group()
    noise.add_argument("-v", "--verbose", action="store_true", help="progress and timings even where stderr is not a terminal")
    noise.add_argument("-q", "--quiet", action="store_true", help="no progress and no timings, even on a terminal")
