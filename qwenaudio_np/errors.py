"""The errors a user can meet.

Every message is one line that says what is wrong, what was found, what was expected and what to do.
The command line prints it after `error: ` and exits with the class's status; nothing else is printed.
"""

from __future__ import annotations

from collections.abc import Mapping

LONGEST_SHOWN = 1000  # characters of a name in a message


class QwenAudioError(Exception):
    """Base of every error this package raises on purpose."""

    exit_status = 1


class UsageError(QwenAudioError):
    """The request itself is wrong: an unknown task, a bad option, audio tags typed into a prompt."""

    exit_status = 2


class FormatError(QwenAudioError):
    """A file is not what its name or place says: broken JSON, a cut shard, a bad vocabulary line."""


class UnsafeError(FormatError):
    """A file asks for something that is never done: a path outside the folder, code to run."""


class UnsupportedError(QwenAudioError):
    """Well formed, but a value or format that this package does not implement."""


class MismatchError(QwenAudioError):
    """Two things that must agree do not: tensors and config, vocabulary and `audio_start_id`."""


class ResourceError(QwenAudioError):
    """What the system refuses or lacks: memory, disk space, a network, a library that only one verb needs."""


class AudioError(QwenAudioError):
    """A sound file that cannot be used: not audio, empty, too short, not finite."""


class BackendError(QwenAudioError):
    """The chosen backend cannot run here, for example because the package is not installed."""


class NumericsError(QwenAudioError):
    """NaN or infinity out of the network (broken weights, not a broken prompt), or kernels that disagree with ops.py."""


def value_of(value: object) -> str:
    """A value from outside as it would be written: numbers bare (NumPy's too), text in quotes, on one line."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    try:
        return shown_text(ascii(value))
    except ValueError:  # Python's limit for the digits of a whole number
        return f"{kind_of(value)} of too many digits to show"


def shown(name: object) -> str:
    """A name from outside (path, tensor, tag), quoted and escaped so that it stays on one line."""
    return shown_text(ascii(str(name)))


def shown_text(text: str) -> str:
    """`text`, or its beginning where it is so long that it would hide the message."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}... ({len(text)} characters)"


def shown_size(count: int) -> str:
    """A number of bytes in the largest unit that it fills: "1.50 GB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} bytes"


def require_text(options: Mapping[str, object]) -> None:
    """Raise UsageError for an option that is neither text nor left out: what comes from Python may be anything."""
    for name, text in options.items():
        if text is not None and not isinstance(text, str):
            raise UsageError(f"{name} is {kind_of(text)}, expected text")


def kind_of(value: object) -> str:
    """The name of a value's type with its article: "an int", "a str"."""
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"
