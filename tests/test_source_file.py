"""Views of a file are read block by block: what NumPy sees, in bounded memory, and never the same bytes again and again."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from qwenaudio_np.convert import source_file
from qwenaudio_np.convert.source_file import Layout, open_source_file
from qwenaudio_np.errors import FormatError, UnsupportedError


@pytest.mark.parametrize("piece", [8, 40, 1 << 20])
@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        *[((4, 6), (6, 1)), ((6, 4), (1, 6)), ((2, 3, 4), (12, 4, 1)), ((4, 2, 3), (1, 12, 4)), ((3, 2), (8, 3)), ((2, 2), (0, 1))],
        *[((), ()), ((1, 24), (999, 1)), ((24,), (1,)), ((5,), (4,)), ((0, 3), (3, 1))],
    ],
)
def test_rows_against_numpy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple, strides: tuple, piece: int) -> None:  # type: ignore[type-arg]
    monkeypatch.setattr(source_file, "PIECE_BYTES", piece)
    values = np.arange(30, dtype="<f4")
    (tmp_path / "f").write_bytes(b"xyz" + values.tobytes())
    expected = np.lib.stride_tricks.as_strided(values[2:], shape, [4 * stride for stride in strides])
    with open_source_file(tmp_path / "f") as file:
        blocks = list(file.rows(Layout("F32", shape, strides, 3 + 2 * 4)))
    assert b"".join(block.tobytes() for block in blocks) == expected.tobytes()
    assert all(block.flags.c_contiguous and block.shape[1:] == (shape[1:] if shape else ()) for block in blocks)


def test_a_file_has_one_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of shards are open at once, and a process has 1,024 descriptors."""
    (tmp_path / "f").write_bytes(bytes(8))
    monkeypatch.setattr(os, "dup", lambda descriptor: pytest.fail("a second descriptor"))
    with open_source_file(tmp_path / "f") as file:
        descriptor = file._stream.fileno()
        assert os.fstat(descriptor).st_size == 8
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_scattered_tensor_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_file, "WIDE_BYTES", 64)
    (tmp_path / "f").write_bytes(bytes(4000))
    with open_source_file(tmp_path / "f") as file, pytest.raises(UnsupportedError, match="scattered"):
        list(file.rows(Layout("F32", (2, 2), (30, 500), 0)))


def test_reading_the_same_bytes_again_and_again_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 rows of 2 elements, 2001 apart, each row one element behind the last: 800 kB to be read for 8.4 kB."""
    monkeypatch.setattr(source_file, "WIDE_BYTES", 8004)
    monkeypatch.setattr(source_file, "SPARE_BYTES", 1000)
    (tmp_path / "f").write_bytes(bytes(8400))
    layout = Layout("F32", (100, 2), (1, 2000), 0)
    with open_source_file(tmp_path / "f") as file:
        with pytest.raises(UnsupportedError, match=r"tensor 'wide'.* 800400 bytes"):
            list(file.rows(layout, "wide"))
        monkeypatch.setattr(source_file, "SPARE_BYTES", 800_400)
        assert len(list(file.rows(layout, "wide"))) == 100


def test_a_transposed_tensor_is_held_once(tmp_path: Path) -> None:
    """32 MB, and beside it no more than blocks of 8 MiB."""
    rows, columns = 4000, 2000
    values = np.arange(rows * columns, dtype="<f4").reshape(columns, rows)
    (tmp_path / "f").write_bytes(values.tobytes())
    seen = 0
    with open_source_file(tmp_path / "f") as file:
        tracemalloc.start()
        try:
            for block in file.rows(Layout("F32", (rows, columns), (1, rows), 0)):
                assert block.nbytes <= 8 << 20 and np.array_equal(block, values.T[seen : seen + len(block)])
                seen += len(block)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert seen == rows and peak < 32_000_000 + 3 * (8 << 20)


def test_a_file_that_shrinks_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(4000))
    with open_source_file(path) as file:
        path.write_bytes(bytes(100))
        with pytest.raises(FormatError, match="shorter"):
            list(file.rows(Layout("F32", (1000,), (1,), 0)))
        with pytest.raises(FormatError, match="changed"):
            file.require_unchanged()
