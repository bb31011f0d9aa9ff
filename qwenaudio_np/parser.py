"""What is typed -> the options of one verb; the verbs, their help pages and examples. Nothing here imports NumPy."""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from qwenaudio_np import __version__, console
from qwenaudio_np.errors import UsageError, shown
from qwenaudio_np.options import (
    add_bench_options,
    add_convert_options,
    add_download_options,
    add_info_options,
    add_random_checkpoint_options,
    add_run_options,
    add_trace_options,
    add_verify_options,
)
from qwenaudio_np.tasks import TASKS

PROGRAM = "qwenaudio-np"
EXAMPLES = "examples:\n"
RUN_USAGE = f"{PROGRAM} [run] [--model DIR] [--input FILE ...] (--prompt TEXT | --task NAME) [options]"
_TASK_LINES = "".join(f"  {name:<12}{task.summary}\n" for name, task in TASKS.items())
RUN_TASKS = f"tasks (the small embedded model knows asr, timestamps, scene and notes):\n{_TASK_LINES}\n"
RUN_EXAMPLES = f"""\
{EXAMPLES}  {PROGRAM} --input 1272-128104-0000.flac --prompt "what does the person say?"
  {PROGRAM} --input speech.wav --task timestamps
  {PROGRAM} --model Qwen-Audio-Chat -i a.wav b.wav -p "Which is louder?" --json
  {PROGRAM} --model Qwen-Audio -i speech.mp3 --task translate --language de --text-language en
  ffmpeg -i film.mp4 -f wav - | {PROGRAM} --model Qwen-Audio -i - --task caption -o caption.txt
"""
TRACE_USAGE = f"{PROGRAM} trace [--model DIR] [--input FILE ...] (--prompt TEXT | --task NAME | --ids FILE) --output FILE [options]"
TRACE_EXAMPLES = f"""\
{EXAMPLES}  {PROGRAM} trace -i speech.wav -p "what does the person say?" -o trace.safetensors
  {PROGRAM} trace --model Qwen-Audio -i speech.wav --ids ids.json --dtype float64 --steps 8 -o trace.safetensors
"""
INFO_USAGE = f"{PROGRAM} info DIR [--json]"
INFO_EXAMPLES = f"""\
{EXAMPLES}  {PROGRAM} info Qwen-Audio-Chat
  {PROGRAM} info build/tiny --json
"""
BENCH_USAGE = f"{PROGRAM} bench [--model DIR] [--weights W] [--threads N] [options]"
BENCH_EXAMPLES = f"""\
{EXAMPLES}  {PROGRAM} bench --model build/layer --weights int8
"""
CONVERT_USAGE = f"{PROGRAM} convert SOURCE DIR [--weights TYPE] [--config DIR] [--audio-from FILE] [options]"
CONVERT_EXAMPLES = f"""\
{EXAMPLES}  {PROGRAM} convert Qwen-Audio-Chat-bin Qwen-Audio-Chat
  {PROGRAM} convert Qwen-7B Untrained --audio-from large-v2.pt --weights bfloat16
"""
VERIFY_USAGE = f"{PROGRAM} verify DIR [--against SOURCE]"
VERIFY_EXAMPLES = f"""\
{EXAMPLES}  {PROGRAM} verify Qwen-Audio-Chat --against Qwen-Audio-Chat-bin
"""
DOWNLOAD_USAGE = f"{PROGRAM} download REPOSITORY DIR [--revision NAME]"
DOWNLOAD_EXAMPLES = f"""\
{EXAMPLES}  {PROGRAM} download Qwen/Qwen-Audio-Chat Qwen-Audio-Chat-bin
"""
RANDOM_USAGE = f"{PROGRAM} random-checkpoint DIR [--size tiny|layer|full] [options]"
RANDOM_EXAMPLES = f"""\
{EXAMPLES}  {PROGRAM} random-checkpoint build/tiny --size tiny --seed 1
  {PROGRAM} random-checkpoint build/layer --size layer --dtype float16
"""
SHORT_USAGE = f"""\
usage: {RUN_USAGE}
       {PROGRAM} trace | info | bench | convert | verify | download | random-checkpoint ...
       {PROGRAM} --help   shows the verbs and examples"""


class Verb(NamedTuple):
    """What the help pages say of a verb, and the function that adds its options."""

    add_options: Callable[[ArgumentParser], None]
    summary: str
    usage: str
    examples: str
    more: str = ""  # before the examples


VERBS = {
    "run": Verb(add_run_options, "answer a prompt about sound files (the default verb)", RUN_USAGE, RUN_EXAMPLES, RUN_TASKS),
    "trace": Verb(
        add_trace_options, "write every tensor of a run to a file, to check another implementation against", TRACE_USAGE, TRACE_EXAMPLES
    ),
    "info": Verb(add_info_options, "what a checkpoint folder holds and needs", INFO_USAGE, INFO_EXAMPLES),
    "bench": Verb(add_bench_options, "time every stage here, beside what this machine can do at most", BENCH_USAGE, BENCH_EXAMPLES),
    "convert": Verb(
        add_convert_options, "any checkpoint in, a folder of safetensors out; runs no code from it", CONVERT_USAGE, CONVERT_EXAMPLES
    ),
    "verify": Verb(add_verify_options, "check every byte and value of a checkpoint folder", VERIFY_USAGE, VERIFY_EXAMPLES),
    "download": Verb(add_download_options, "fetch a checkpoint from the Hugging Face hub", DOWNLOAD_USAGE, DOWNLOAD_EXAMPLES),
    "random-checkpoint": Verb(
        add_random_checkpoint_options, "make a checkpoint with random weights, for tests and timing", RANDOM_USAGE, RANDOM_EXAMPLES
    ),
}


def parse(words: Sequence[str]) -> Namespace:
    """Words -> the options of one verb, named in `verb`; without a verb it is `run`.

    Raises UsageError for anything that is not understood. --help and --version print and end with SystemExit, as argparse does.
    """
    first = words[0].replace("_", "-")
    if first in ("-h", "--help", "--version"):
        return _top_parser().parse_args([first])
    if first not in VERBS and not first.startswith("-"):
        raise UsageError(
            f"unknown verb {shown(words[0])}, expected one of: {', '.join(VERBS)}; a sound file goes behind --input (see {PROGRAM} --help)"
        )
    verb, rest = (first, words[1:]) if first in VERBS else ("run", words)
    return _verb_parser(verb).parse_args(with_hyphens(rest))


def with_hyphens(words: Sequence[str]) -> list[str]:
    """`--max_new_tokens` means `--max-new-tokens`; values, and everything behind a lone `--`, stay as they are."""
    end = words.index("--") if "--" in words else len(words)
    return [re.sub(r"^--[a-z_]+(?=$|=)", lambda name: name[0].replace("_", "-"), word) for word in words[:end]] + list(words[end:])


class _Parser(ArgumentParser):
    """Wrong usage is an exception like every other error, and so is a help page that cannot be printed."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")

    def _print_message(self, message: str, file: object = None) -> None:
        console.put(message)


class _HelpFormatter(RawDescriptionHelpFormatter):
    """Room for the longest option, so that its help begins on the same line."""

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog, max_help_position=28, **settings)


def _top_parser() -> ArgumentParser:
    width = max(map(len, VERBS))
    verbs = "".join(f"  {name:<{width}}  {verb.summary}\n" for name, verb in VERBS.items())
    examples = "".join(verb.examples.removeprefix(EXAMPLES) for verb in VERBS.values())
    parser = _Parser(
        prog=PROGRAM,
        usage=f"{RUN_USAGE}\n       {PROGRAM} VERB --help   shows the options of a verb",
        description="Qwen-Audio on a CPU: sound and text in, text out.",
        epilog=f"verbs:\n{verbs}\n{EXAMPLES}{examples}",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    return parser


def _verb_parser(verb: str) -> ArgumentParser:
    about = VERBS[verb]
    parser = _Parser(
        prog=f"{PROGRAM} {verb}",
        usage=about.usage,
        description=about.summary[0].upper() + about.summary[1:] + ".",
        epilog=about.more + about.examples,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    about.add_options(parser)
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    parser.set_defaults(verb=verb)
    return parser
