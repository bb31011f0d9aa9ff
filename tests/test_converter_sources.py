"""Sources that are something else than what was asked for: the message says what they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwenaudio_np.convert.converter import convert_checkpoint
from qwenaudio_np.errors import MismatchError, UsageError
from tests.conversion_tools import as_torch
from tests.make_checkpoint import make_checkpoint
from tests.torch_fixtures import FOLDER


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_a_quantised_source_is_called_so(tmp_path: Path, out: Path, weights: str) -> None:
    convert_checkpoint(make_checkpoint(tmp_path / "source"), tmp_path / "small", weights=weights)
    for options in ({}, {"weights": "float32"}, {"audio_from": FOLDER / "whisper.pt"}):
        with pytest.raises(UsageError, match=r"is quantised already \(it has '.*\.codes'\); convert the checkpoint"):
            convert_checkpoint(tmp_path / "small", out, **options)  # type: ignore[arg-type]
    assert not out.exists()


def test_what_is_no_whisper_checkpoint(tmp_path: Path, out: Path) -> None:
    source = as_torch(make_checkpoint(tmp_path / "source"), "zip")
    with pytest.raises(UsageError, match=r"is a folder, expected the \.pt file"):
        convert_checkpoint(source, out, audio_from=source)
    with pytest.raises(MismatchError, match=r"states no sizes \(dims\), expected a Whisper checkpoint"):
        convert_checkpoint(source, out, audio_from=source / "pytorch_model.bin")
    whisper = (FOLDER / "whisper_older.pt").read_bytes()
    at = whisper.index(b"n_audio_state") + len(b"n_audio_state")
    at = whisper.index(b"K\x08", at)
    (tmp_path / "wider.pt").write_bytes(whisper[:at] + b"K\x10" + whisper[at + 2 :])
    with pytest.raises(MismatchError, match=r"does the header \(dims\) of '.*wider\.pt' fit\?"):
        convert_checkpoint(tmp_path / "wider.pt", out)
    assert not out.exists()
