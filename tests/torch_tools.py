"""Reading files of torch.save whole: their tensors, or the one line with which they are refused."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qwenaudio_np.convert.source_file import open_source_file
from qwenaudio_np.convert.torch_files import TorchFile, read_torch_file
from qwenaudio_np.errors import FormatError
from tests.torch_fixtures import state, tensor

GOOD = state({"w": tensor()})
SIX = struct.pack("<6f", *range(6))
STORAGES = {"0": (6, SIX)}


def read(path: Path) -> tuple[TorchFile, dict[str, np.ndarray]]:
    """The file's description and its tensors, checksums checked."""
    with open_source_file(path) as file:
        content = read_torch_file(file)
        file.sha256(content.regions)
        arrays = {}
        for name, layout in content.tensors.items():
            blocks = list(file.rows(layout))
            arrays[name] = np.concatenate(blocks) if blocks else np.empty(0)
    return content, arrays


def refuser(folder: Path) -> Callable[..., str]:
    """A function that writes a file there, expects that it is refused, and gives what is said."""

    def check(data: bytes, error: type[Exception] = FormatError) -> str:
        path = folder / "model.bin"
        path.write_bytes(data)
        with pytest.raises(error) as caught:
            read(path)
        message = str(caught.value)
        assert "model.bin" in message and message.isprintable() and len(message) < 500
        return message

    return check
