"""The command line: words in, an exit status out.

0: success. 1: any error but wrong usage. 2: wrong usage. 130: Ctrl-C (what was answered so far is kept).
Every error is one line on stderr. Nothing heavy is imported before the words are understood: --help is quick, --threads can
still tell NumPy how many threads to make, and Ctrl-C finds a program that can answer it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from qwenaudio_np import console
from qwenaudio_np.errors import QwenAudioError, ResourceError, shown

MIN_ADDRESS_SPACE = 200_000_000  # bytes


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. `argv` without the program's name (default: sys.argv[1:])."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        console.prepare_streams()
        return _obey([word for word in words if word != "--debug"])
    except KeyboardInterrupt as interruption:  # with what a verb says about the work it leaves
        return _complain("; ".join(["interrupted", *map(str, interruption.args)]), console.INTERRUPTED, debug)
    except BrokenPipeError:
        console.drop_unwritten(1)  # the reader (`| head`) has what it wanted
        return 0
    except QwenAudioError as error:
        return _complain(f"error: {error}", error.exit_status, debug)
    except MemoryError:
        return _complain("error: out of memory; close other programs, shorten the request, or use a smaller model", 1, debug)
    except ImportError as error:  # NumPy explains itself in a page of text; its last line has the cause
        cause = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        return _complain(f"error: a library cannot be loaded ({cause}); install this package again, or give it more memory", 1, debug)
    except OSError as error:
        place = f": {shown(os.fsdecode(error.filename))}" if isinstance(error.filename, (str, bytes)) else ""
        return _complain(f"error: {console.reason(error)}{place}", 1, debug)
    except Exception as error:  # a defect of this program: one line, with --debug in full
        advice = "" if debug else "; please report it, with the output of --debug"
        return _complain(f"error: internal: {type(error).__name__}: {error}{advice}", 1, debug)


def _obey(words: list[str]) -> int:
    """Do what the words ask for."""
    from qwenaudio_np.parser import SHORT_USAGE, parse

    if not words:
        console.say(SHORT_USAGE)
        return 2
    try:
        arguments = parse(words)
    except SystemExit:  # after --help and --version
        return 0
    _require_address_space()
    from qwenaudio_np.threads import limit_blas

    limit_blas(getattr(arguments, "threads", None))
    with console.leaving_at_once():  # an import that is interrupted half way can end in any exception
        from qwenaudio_np import commands
    with console.warnings_as_lines(), console.lost_interrupts_come_again():
        return commands.VERBS[arguments.verb](arguments)


def _require_address_space() -> None:
    """Without room for it, the library under NumPy ends the process with words of its own."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if 0 <= limit < MIN_ADDRESS_SPACE:  # RLIM_INFINITY is -1
        raise ResourceError(
            f"not enough memory: this process may have {limit / 1e6:.0f} MB (ulimit -v), "
            f"expected at least {MIN_ADDRESS_SPACE / 1e6:.0f} MB for NumPy alone; raise the limit"
        )


def _complain(line: str, status: int, debug: bool) -> int:
    if debug:
        import traceback

        console.say(traceback.format_exc().rstrip())
    console.say(console.one_line(line))
    return status


if __name__ == "__main__":
    sys.exit(main())
