"""Copies of the tiny golden checkpoint to break: changing their tensors and their index, and loading them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from qwenaudio_np.checkpoint import INDEX_FILE, Weights, load_weights
from qwenaudio_np.config import load_config
from qwenaudio_np.errors import QwenAudioError

GOLDEN = Path(__file__).parent / "golden"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
LN = "transformer.ln_f.weight"


def copy_of_tiny(folder: Path) -> Path:
    """A checkpoint to break."""
    return Path(shutil.copytree(GOLDEN / "tiny" / "checkpoint", folder / "checkpoint", copy_function=shutil.copyfile))


def load(folder: Path) -> Weights:
    return load_weights(folder, load_config(GOLDEN / "tiny" / "checkpoint"))


def edit_shard(folder: Path, shard: str, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    """Rewrite a shard through the reference library after changing its tensors."""
    tensors = safetensors.numpy.load_file(folder / shard)
    change(tensors)
    safetensors.numpy.save_file(tensors, folder / shard)


def edit_map(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Rewrite the index after changing its weight_map."""
    index = json.loads((folder / INDEX_FILE).read_text())
    change(index["weight_map"])
    (folder / INDEX_FILE).write_text(json.dumps(index))


def refused(folder: Path, kind: type[QwenAudioError], *said: str) -> None:
    """Loading raises exactly this class, in one line that says all of this."""
    with pytest.raises(QwenAudioError) as caught:
        load(folder)
    message = str(caught.value)
    assert type(caught.value) is kind, message
    assert "\n" not in message and message.isascii()
    for part in said:
        assert part in message
