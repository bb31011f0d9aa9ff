"""Reading a pickle whole with the restricted reader, and the one line that it says instead."""

from __future__ import annotations

from typing import Any

import pytest

from qwenaudio_np.convert.state_objects import tensor_names
from qwenaudio_np.convert.state_pickle import read_pickle
from qwenaudio_np.errors import FormatError


def read(data: bytes) -> Any:
    value, end = read_pickle(data, "'file'")
    assert end == len(data)
    return value


def refused(data: bytes, error: type[Exception] = FormatError) -> str:
    with pytest.raises(error) as caught:
        tensor_names(read(data), "'file'")
    message = str(caught.value)
    assert message.startswith("'file': ") and "\n" not in message and message.isprintable() and len(message) < 500
    return message
