"""The small trained model inside the package, and which model answers when none is named.

It is an ordinary checkpoint folder: the loader has no special case for it. What it can do, and how it was made: DEMO_MODEL.md.
"""

from __future__ import annotations

import os
from pathlib import Path

from qwenaudio_np.errors import FormatError, UsageError, shown

FOLDER = Path(__file__).parent / "embedded_model"
VARIABLE = "QWENAUDIO_MODEL"


def model_folder(given: str | Path | None = None) -> str | Path:
    """The folder given, else that of the environment variable QWENAUDIO_MODEL, else the embedded model's.

    Raises UsageError for an empty name, and where the last is meant and the package was built without it; FormatError where the variable
    names a folder without a config, because whoever typed no path must be told where it came from.
    """
    if given is not None and not os.fspath(given):
        raise UsageError("the model's name is empty, expected a checkpoint folder; leave --model out for the default")
    if given:
        return given
    if named := os.environ.get(VARIABLE):
        if not os.path.exists(config := os.path.join(named, "config.json")):
            raise FormatError(f"cannot open {shown(config)}: no such file; check the path in the environment variable {VARIABLE}")
        return named
    if not (FOLDER / "config.json").is_file():
        raise UsageError(f"no model: this copy of the package has none embedded; name a checkpoint folder with --model DIR or {VARIABLE}")
    return FOLDER
