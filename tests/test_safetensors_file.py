"""Reading one safetensors file: right for every file of the reference library, one clear error for everything else.

The `safetensors` library writes the good files; the bad ones are put together here byte by byte.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from qwenaudio_np.errors import FormatError, ResourceError, UnsupportedError
from qwenaudio_np.safetensors_file import SafetensorsFile, open_safetensors, read_header

ROOT = Path(__file__).resolve().parent.parent
GOOD = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "b": {"dtype": "U8", "shape": [3], "data_offsets": [8, 11]}}


def raw(header: Any, data: bytes = bytes(11), length: int | None = None) -> bytes:
    """A file from a header (JSON value, text or bytes) and data; `length` overrides what the first 8 bytes say."""
    if not isinstance(header, (bytes, str)):
        header = json.dumps(header)
    if isinstance(header, str):
        header = header.encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def changed(**fields: Any) -> dict[str, Any]:
    """GOOD with fields of its first tensor replaced."""
    return {**GOOD, "a": {**GOOD["a"], **fields}}


@pytest.fixture
def place(tmp_path: Path) -> Any:
    def write(data: bytes) -> Path:
        path = tmp_path / "x.safetensors"
        path.write_bytes(data)
        return path

    return write


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    arrays = {
        "matrix": rng.standard_normal((3, 5)).astype(np.float32),
        "half": rng.standard_normal((4,)).astype(np.float16),
        "double": rng.standard_normal((2, 1, 3)),
        "ids": rng.integers(-9, 9, (7,)),
        "bytes": rng.integers(0, 255, (3,)).astype(np.uint8),
        "flags": np.array([True, False]),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
    }
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})
    found = open_safetensors(path)
    assert found.keys() == arrays.keys()
    for name, expected in arrays.items():
        array = found[name].array
        assert array.dtype == expected.dtype and array.shape == expected.shape, name
        assert np.array_equal(array, expected), name
        assert not array.flags.writeable and array.flags.aligned
    assert read_header(path).metadata == {"format": "pt"}
    assert read_header(path).file_bytes == path.stat().st_size


def test_bfloat16_comes_as_its_bits(place: Any) -> None:
    # 1.0 is 0x3F800000 as float32, -2.0 is 0xC0000000; bfloat16 is the upper half.
    file = raw({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, bytes.fromhex("803f00c0"))
    stored = open_safetensors(place(file))["w"]
    assert stored.dtype == "BF16"
    assert stored.array.dtype == np.uint16
    assert stored.array.tolist() == [0x3F80, 0xC000]


@pytest.mark.parametrize("padding", range(8))
def test_any_header_length_gives_aligned_arrays(place: Any, padding: int) -> None:
    values = np.array([1.5, -2.0], np.float32)
    file = raw(json.dumps(GOOD) + " " * padding, values.tobytes() + b"\x01\x02\x03")
    stored = open_safetensors(place(file))
    assert stored["a"].array.flags.aligned and not stored["a"].array.flags.writeable
    assert stored["a"].array.tolist() == [1.5, -2.0]
    assert stored["b"].array.tolist() == [1, 2, 3]


def test_arrays_are_views_of_the_file_and_outlive_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}, b"abcd"))
    array = SafetensorsFile(path).tensor("a").array
    with open(path, "r+b") as stream:  # a change in the file shows in the array: nothing was copied
        stream.seek(-4, os.SEEK_END)
        stream.write(b"z")
    assert array.tobytes() == b"zbcd"


FAULTS: dict[str, tuple[bytes, str]] = {
    "one byte": (b"\x00", "1 bytes, too few"),
    "nine bytes": (bytes(9), "too few"),
    "zeros": (bytes(100), "header length 0"),
    "length past the end": (raw(GOOD, length=10_000), "cut short"),
    "length over the limit": (raw(GOOD, length=16_000_001), "header length 16000001"),
    "length 2^63": (raw(GOOD, length=1 << 63), "header length"),
    "length 2^64 - 1": (raw(GOOD, length=(1 << 64) - 1), "header length"),
    "not UTF-8": (raw(b'{"\xff":1}'), "header"),
    "byte order mark": (raw("\ufeff" + json.dumps(GOOD)), "expected '{'"),
    "leading space": (raw(" " + json.dumps(GOOD)), "expected '{'"),
    "a list": (raw("[1,2,3]"), "expected '{'"),
    "cut JSON": (raw('{"a":{"dtype"'), "not valid JSON"),
    "comment": (raw('{"a"/* */:1}'), "not valid JSON"),
    "trailing comma": (raw(json.dumps(GOOD)[:-1] + ",}"), "not valid JSON"),
    "second value": (raw(json.dumps(GOOD) + "{}"), "not valid JSON"),
    "trailing zeros": (raw(json.dumps(GOOD).encode() + b"\0\0"), "not valid JSON"),
    "NaN": (raw('{"a":NaN}'), "not valid JSON"),
    "deep nesting": (raw('{"a":' + "[" * 200_000 + "]" * 200_000 + "}"), "nested too deeply"),
    "5000 digits": (raw('{"a":{"dtype":"F32","shape":[' + "9" * 5000 + '],"data_offsets":[0,8]}}'), "not valid JSON"),
    "repeated tensor": (raw('{"a":{},"a":{}}'), "a key is repeated"),
    "repeated field": (raw('{"a":{"dtype":"F32","dtype":"F32"}}'), "a key is repeated"),
    "entry is null": (raw({"a": None}), "exactly dtype, shape and data_offsets"),
    "no dtype": (raw({"a": {"shape": [2], "data_offsets": [0, 8]}}), "exactly dtype, shape and data_offsets"),
    "extra field": (raw(changed(extra=1)), "exactly dtype, shape and data_offsets"),
    "dtype is a number": (raw(changed(dtype=5)), "dtype must be text"),
    "shape is a number": (raw(changed(shape=2)), "shape must be"),
    "shape with true": (raw(changed(shape=[2, True])), "shape must be"),
    "shape with float": (raw(changed(shape=[2.0])), "shape must be"),
    "shape with text": (raw(changed(shape=["2"])), "shape must be"),
    "negative shape": (raw(changed(shape=[-1, -2])), "shape must be"),
    "9 dimensions": (raw(changed(shape=[2] + [1] * 8)), "shape must be"),
    "shape overflows": (raw(changed(shape=[1 << 32, 1 << 32])), "needs"),
    "huge size": (raw(changed(shape=[10**4000])), "shape must be"),
    "shape too small": (raw(changed(shape=[1])), "needs 4 bytes, data_offsets give 8"),
    "one offset": (raw(changed(data_offsets=[8])), "data_offsets must be"),
    "offsets fall": (raw(changed(data_offsets=[8, 0])), "data_offsets must be"),
    "offset true": (raw(changed(data_offsets=[False, 8])), "data_offsets must be"),
    "offset past 2^64": (raw(changed(data_offsets=[1 << 64, (1 << 64) + 8])), "data_offsets must be"),
    "overlap": (raw({**GOOD, "b": {"dtype": "U8", "shape": [3], "data_offsets": [7, 10]}}), "overlaps the tensor before it"),
    "hole": (raw({**GOOD, "b": {"dtype": "U8", "shape": [2], "data_offsets": [9, 11]}}), "leaves a hole before it"),
    "does not begin at 0": (raw({"b": GOOD["b"]}), "leaves a hole before it"),
    "bytes left over": (raw(GOOD, bytes(12)), "its header describes"),
    "bytes missing": (raw(GOOD, bytes(10)), "its header describes"),
    "name with newline": (raw({"a\nb": GOOD["a"], "b": GOOD["b"]}), "printable"),
    "name with NUL": (raw({"a\0": GOOD["a"], "b": GOOD["b"]}), "printable"),
    "name with surrogate": (raw('{"\\ud800":{}}'), "printable"),
    "empty name": (raw({"": GOOD["a"], "b": GOOD["b"]}), "printable"),
    "long name": (raw({"n" * 513: GOOD["a"], "b": GOOD["b"]}), "printable"),
    "metadata is a list": (raw({"__metadata__": [], **GOOD}), "__metadata__"),
    "metadata is null": (raw({"__metadata__": None, **GOOD}), "__metadata__"),
    "metadata with a number": (raw({"__metadata__": {"x": 1}, **GOOD}), "__metadata__"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs pointer"),
    "HTML": (b"<!DOCTYPE html><html><body>404</body></html>", "HTML page"),
    "zip": (b"PK\x03\x04" + bytes(60), "convert it to safetensors"),
    "pickle": (b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01K\x01s.", "a pickle"),
    "GGUF": (b"GGUF\x03\0\0\0" + bytes(60), "GGUF"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_fault_is_one_clear_error(place: Any, case: str) -> None:
    data, said = FAULTS[case]
    path = place(data)
    for read in (read_header, open_safetensors):
        with pytest.raises(FormatError) as caught:
            read(path)
        message = str(caught.value)
        assert said in message
        assert "x.safetensors" in message
        assert "\n" not in message and message.isascii()


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F4", "C64", "f32", "", "x" * 1000])
def test_unknown_type_is_unsupported(place: Any, dtype: str) -> None:
    with pytest.raises(UnsupportedError, match=r"tensor 'a': dtype .* is not known, expected one of F64, F32"):
        read_header(place(raw(changed(dtype=dtype))))


def test_header_of_640_bytes_is_no_pickle(place: Any) -> None:
    """640 is 0x0280, so the file begins like a pickle of protocol 2."""
    text = json.dumps(GOOD)
    file = raw(text + " " * (640 - len(text)))
    assert file[:2] == b"\x80\x02"
    assert list(read_header(place(file)).tensors) == ["a", "b"]


def test_entries_come_in_the_order_of_their_bytes(place: Any) -> None:
    header = read_header(place(raw({"b": GOOD["b"], "a": GOOD["a"]})))
    assert list(header.tensors) == ["a", "b"]
    assert header.tensors["b"].end == header.file_bytes
    assert (header.tensors["b"].nbytes, header.tensors["a"].parameters) == (3, 2)


def test_no_tensors(place: Any) -> None:
    assert open_safetensors(place(raw("{}", b""))) == {}


def test_not_a_file(tmp_path: Path) -> None:
    for path, said in ((tmp_path, "directory"), (tmp_path / "none", "no such file"), (tmp_path / "a\0b", "not a valid file name")):
        with pytest.raises(FormatError, match=said):
            open_safetensors(path)
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(FormatError, match="empty"):
        read_header(tmp_path / "empty")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="not a regular file"):
        read_header(tmp_path / "pipe")


def test_large_sparse_header_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with open(path, "wb") as stream:
        stream.write(struct.pack("<Q", 16_000_001))
        stream.truncate(16_000_100)
    with pytest.raises(FormatError, match="header length 16000001"):
        read_header(path)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is enforced on Linux alone")
def test_no_room_to_map_is_a_resource_error(tmp_path: Path) -> None:
    size = 1 << 40
    header = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with open(tmp_path / "x.safetensors", "wb") as stream:  # sparse: takes no disk
        stream.write(struct.pack("<Q", len(header)) + header)
        stream.truncate(8 + len(header) + size)
    code = f"""
import resource
from qwenaudio_np.safetensors_file import open_safetensors
from qwenaudio_np.errors import ResourceError
resource.setrlimit(resource.RLIMIT_AS, (1 << 39, 1 << 39))
try:
    open_safetensors({str(tmp_path / "x.safetensors")!r})
except ResourceError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "not enough address space to map" in done.stdout, done.stderr


def test_running_out_of_memory_is_a_resource_error(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("qwenaudio_np.safetensors_file.parse_json", fail)
    with pytest.raises(ResourceError, match="not enough memory to open"):
        read_header(place(raw(GOOD)))
