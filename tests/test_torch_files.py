"""Files of torch.save, zip and older: values as PyTorch reads them, and every way the container can lie."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qwenaudio_np.convert import source_file
from qwenaudio_np.convert.source_file import Layout, open_source_file
from qwenaudio_np.convert.torch_files import TorchFile, read_torch_file
from qwenaudio_np.errors import FormatError, MismatchError, QwenAudioError, UnsafeError, UnsupportedError
from tests.torch_fixtures import BITS, FOLDER, archive, machine, number, older, state, storage, tensor, text, torch_zip, variety

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


@pytest.fixture()
def refused(tmp_path: Path) -> Callable[..., str]:
    def check(data: bytes, error: type[Exception] = FormatError) -> str:
        path = tmp_path / "model.bin"
        path.write_bytes(data)
        with pytest.raises(error) as caught:
            read(path)
        message = str(caught.value)
        assert "model.bin" in message and message.isprintable() and len(message) < 500
        return message

    return check


# --- what PyTorch writes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["zip.bin", "zip_protocol_4.bin", "older.bin", "plain_dict.bin"])
def test_every_kind_of_tensor_as_pytorch_reads_it(name: str) -> None:
    """All element types; tied, shared, strided, transposed, permuted, empty, without axes; parameters; NaN and -0."""
    content, arrays = read(FOLDER / name)
    expected = list(variety())
    assert [entry[0] for entry in expected] == list(content.tensors)
    for tensor_name, dtype, shape, bits in expected:
        layout = content.tensors[tensor_name]
        assert (layout.dtype, list(layout.shape)) == (dtype, shape)
        assert arrays[tensor_name].astype(arrays[tensor_name].dtype).tobytes() == np.array(bits, BITS[dtype]).tobytes(), tensor_name


def test_shared_storages_are_one_place() -> None:
    content, _ = read(FOLDER / "zip.bin")
    tensors = content.tensors
    assert tensors["plain"] == tensors["shared_with_plain"]
    assert tensors["rows_of_plain"].begin == tensors["plain"].begin + 6 * 4


def test_whisper_states_its_sizes() -> None:
    for name in ("whisper.pt", "whisper_older.pt"):
        content, _ = read(FOLDER / name)
        assert content.dims is not None and content.dims["n_audio_state"] == 8 and len(content.dims) == 10
        assert content.tensors["encoder.conv1.weight"].shape == (8, 5, 3)


def test_golden_shards(golden: Path) -> None:
    """The same weights as torch.save and as safetensors: the same bytes."""
    folder = golden / "short_context_bf16"
    from tests.make_checkpoint import read_weights

    expected = read_weights(folder / "checkpoint")
    found: dict[str, np.ndarray] = {}
    for path in sorted((folder / "checkpoint_bin").glob("*.bin")):
        found |= read(path)[1]
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        wide = (found[name].astype(np.uint32) << 16).view(np.float32)
        np.testing.assert_array_equal(wide, values, strict=False)


def test_hand_made_files_read_like_real_ones(tmp_path: Path) -> None:
    for data in (torch_zip(GOOD, {"0": SIX}), older(GOOD, STORAGES)):
        (tmp_path / "m.bin").write_bytes(data)
        content, arrays = read(tmp_path / "m.bin")
        assert content.dims is None
        np.testing.assert_array_equal(arrays["w"], np.arange(6, dtype=np.float32).reshape(2, 3))


def test_older_storages_lie_in_the_order_of_their_list(tmp_path: Path) -> None:
    pickle = state({"b": tensor(storage("20", 1), 0, (1,), (1,)), "a": tensor(storage("100", 2), 0, (2,), (1,))})
    (tmp_path / "m.bin").write_bytes(older(pickle, {"100": (2, struct.pack("<2f", 1, 2)), "20": (1, struct.pack("<f", 3))}))
    _, arrays = read(tmp_path / "m.bin")
    assert arrays["a"].tolist() == [1, 2] and arrays["b"].tolist() == [3]


# --- views are read in bounded memory ----------------------------------------------------------------------------------


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


# --- zip: one way to read it ---------------------------------------------------------------------------------------------


def patched(data: bytes, old: bytes, new: bytes, count: int = 1) -> bytes:
    assert data.count(old) >= 1 and len(old) == len(new)
    return data.replace(old, new, count)


ZIP = torch_zip(GOOD, {"0": SIX})
END = ZIP.rindex(b"PK\x05\x06")
DIRECTORY = ZIP.index(b"PK\x01\x02")


def last_field(offset: int, value: bytes) -> bytes:
    """The end record with bytes replaced."""
    return ZIP[: END + offset] + value + ZIP[END + offset + len(value) :]


def central_field(offset: int, value: bytes, name: bytes = b"archive/data/0") -> bytes:
    """A field of the central entry of a record, replaced."""
    at = ZIP.index(name, DIRECTORY) - 46 + offset
    return ZIP[:at] + value + ZIP[at + len(value) :]


def with_link() -> bytes:
    info = zipfile.ZipInfo("archive/data/0")
    info.external_attr = 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", GOOD)
        file.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def with_comment() -> bytes:
    inner = torch_zip(GOOD, {"0": SIX})
    return last_field(20, struct.pack("<H", len(inner))) + inner


def with_junk() -> bytes:
    """Something before the archive, and places that count it in."""
    buffer = io.BytesIO(b"#!/bin/sh\n")
    with zipfile.ZipFile(buffer, "a") as file:
        for name, data in {"a/data.pkl": GOOD, "a/data/0": SIX}.items():
            file.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def with_overlap() -> bytes:
    """Record 1 lies within the bytes of record 0, header and all; every name, size and checksum is right."""
    alone = archive({"a/data/1": SIX})
    inner = alone[: alone.index(b"PK\x01\x02")]
    both = state({"v": tensor(storage("0", len(inner) // 2, "HalfStorage"), 0, (1,), (1,)), "w": tensor(storage("1"))})
    whole = archive({"a/data.pkl": both, "a/data/0": inner, "a/data/1": SIX})
    entry = whole.index(b"a/data/1", whole.index(b"PK\x01\x02")) - 46
    return whole[: entry + 42] + struct.pack("<I", whole.index(inner)) + whole[entry + 46 :]


def with_gap(between: bytes, before: bytes = b"PK\x01\x02") -> bytes:
    """Bytes in front of the list of records, or of a record; every place that is stated counts them in."""
    at = ZIP.index(before)
    moved = bytearray(ZIP[:at] + between + ZIP[at:])
    directory = DIRECTORY + len(between)
    struct.pack_into("<I", moved, moved.rindex(b"PK\x05\x06") + 16, directory)
    entry = directory
    while moved[entry : entry + 4] == b"PK\x01\x02":
        (header,), lengths = struct.unpack_from("<I", moved, entry + 42), struct.unpack_from("<3H", moved, entry + 28)
        struct.pack_into("<I", moved, entry + 42, header + len(between) * (header >= at))
        entry += 46 + sum(lengths)
    return bytes(moved)


SECOND = ZIP[ZIP.index(b"PK\x03\x04", 4) :][:60]  # the header of the record behind the pickle
TWICE = struct.pack("<I", zlib.crc32(b"3\n")), struct.pack("<I", 2), struct.pack("<Q", 2)  # of the last record, its version


@pytest.mark.parametrize("descriptor", [b"PK\x07\x08" + TWICE[0] + 2 * TWICE[1], b"PK\x07\x08" + TWICE[0] + 2 * TWICE[2]])
def test_descriptors_of_either_width(descriptor: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(with_gap(descriptor))
    np.testing.assert_array_equal(read(path)[1]["w"], np.arange(6, dtype=np.float32).reshape(2, 3))


ZIPS: dict[str, tuple[bytes, type[QwenAudioError]]] = {
    "a gap before the list": (with_gap(b"hidden"), FormatError),
    "a gap between records": (with_gap(b"hidden", SECOND), FormatError),
    "a record that is not listed": (with_gap(archive({"archive/data/7": SIX})[: 30 + 14 + 24]), FormatError),
    "a descriptor of another checksum": (with_gap(b"PK\x07\x08" + bytes(4) + 2 * TWICE[1]), FormatError),
    "a descriptor of another size": (with_gap(b"PK\x07\x08" + TWICE[0] + TWICE[1] + bytes(4)), FormatError),
    "two descriptors": (with_gap(2 * (b"PK\x07\x08" + TWICE[0] + 2 * TWICE[1])), FormatError),
    "junk before": (b"junk" + ZIP, FormatError),
    "zeros before": (bytes(100) + ZIP, FormatError),
    "a script before": (with_junk(), FormatError),
    "junk after": (ZIP + b"junk", FormatError),
    "comment with a second archive": (with_comment(), FormatError),
    "comment announced": (last_field(20, b"\x01\x00"), FormatError),
    "two disks": (last_field(4, b"\x01\x00"), FormatError),
    "fewer records than there are": (last_field(8, b"\x02\x00\x02\x00"), FormatError),
    "more records than there are": (last_field(8, b"\x09\x00\x09\x00"), FormatError),
    "no records": (b"PK\x05\x06" + bytes(18), FormatError),
    "directory size": (last_field(12, b"\x01"), FormatError),
    "directory place": (last_field(16, b"\x01"), FormatError),
    "60,000 records": (last_field(8, struct.pack("<2H", 60000, 60000)), FormatError),
    "two folders": (archive({"a/data.pkl": GOOD, "b/data/0": SIX}), FormatError),
    "two pickles in two folders": (archive({"a/data.pkl": GOOD, "b/data.pkl": GOOD, "a/data/0": SIX}), FormatError),
    "no folder": (archive({"data.pkl": GOOD, "data/0": SIX}), FormatError),
    "no pickle": (archive({"a/data/0": SIX}), FormatError),
    "a parent folder": (archive({"../data.pkl": GOOD}), UnsafeError),
    "a way out": (archive({"a/data.pkl": GOOD, "a/../../x": SIX}), UnsafeError),
    "an absolute name": (archive({"/etc/passwd": GOOD}), UnsafeError),
    "a drive": (archive({"C:/data.pkl": GOOD}), UnsafeError),
    "a backslash": (archive({"a\\..\\data.pkl": GOOD}), UnsafeError),
    "an unknown record": (archive({"a/data.pkl": GOOD, "a/data/0": SIX, "a/run.py": b"x"}), FormatError),
    "a link": (with_link(), UnsafeError),
    "local name differs": (patched(ZIP, b"archive/data/0", b"archive/data/1"), FormatError),
    "local size differs": (ZIP.replace(struct.pack("<2I", 24, 24), struct.pack("<2I", 20, 20), 1), FormatError),
    "local method": (ZIP.replace(b"PK\x03\x04\x14\x00\x00\x00\x00\x00", b"PK\x03\x04\x14\x00\x00\x00\x08\x00", 1), FormatError),
    "compressed": (archive({"a/data.pkl": GOOD, "a/data/0": bytes(24)}, compression=zipfile.ZIP_DEFLATED), UnsupportedError),
    "a bomb": (archive({"a/data.pkl": GOOD, "a/data/0": bytes(1 << 20)}, compression=zipfile.ZIP_DEFLATED), UnsupportedError),
    "LZMA": (archive({"a/data.pkl": GOOD, "a/data/0": bytes(24)}, compression=zipfile.ZIP_LZMA), UnsupportedError),
    "encrypted": (central_field(8, b"\x01\x00"), UnsupportedError),
    "method 99": (central_field(10, b"\x63\x00"), UnsupportedError),
    "size of 4 GB": (central_field(20, b"\xfe\xff\xff\xff\xfe\xff\xff\xff"), FormatError),
    "zip64 size without its field": (central_field(20, b"\xff\xff\xff\xff\xff\xff\xff\xff"), FormatError),
    "two sizes": (central_field(20, struct.pack("<2I", 24, 23)), FormatError),
    "place past the end": (central_field(42, b"\xff\xff\xff\x7f"), FormatError),
    "a record within another": (with_overlap(), FormatError),
    "two records in one place": (central_field(42, bytes(4)), FormatError),
    "wrong checksum of a storage": (central_field(16, b"abcd"), FormatError),
    "wrong checksum of the pickle": (central_field(16, b"abcd", b"archive/data.pkl"), FormatError),
    "changed weights": (patched(ZIP, SIX, SIX[::-1]), FormatError),
    "byte order big": (torch_zip(GOOD, {"0": SIX}).replace(b"little", b"BIGGER"), FormatError),  # its checksum no longer fits
    "storage missing": (torch_zip(GOOD, {}), MismatchError),
    "storage too short": (torch_zip(GOOD, {"0": SIX[:-1]}), MismatchError),
    "storage too long": (torch_zip(GOOD, {"0": SIX + b"\0"}), MismatchError),
    "storage that no tensor uses": (torch_zip(GOOD, {"0": SIX, "1": b"payload"}), MismatchError),
    "second pickle after the first": (torch_zip(GOOD + GOOD, {"0": SIX}), FormatError),
}


@pytest.mark.parametrize("case", ZIPS)
def test_bad_archives(case: str, refused: Callable[..., str]) -> None:
    refused(*ZIPS[case])


@pytest.mark.parametrize("folder", ["12:30", "run 1: best", "m..v2", "...", "m\xf6del"])
def test_folders_named_after_any_file(folder: str, tmp_path: Path) -> None:
    """PyTorch calls the folder like the file it was told to write."""
    path = tmp_path / "model.bin"
    path.write_bytes(torch_zip(GOOD, {"0": SIX}, folder=folder))
    assert list(read(path)[1]) == ["w"]


def test_what_is_said_of_folders_and_kinds(refused: Callable[..., str]) -> None:
    assert "in 2 folders, expected one" in refused(*ZIPS["two folders"])
    assert "has no data.pkl" in refused(*ZIPS["no pickle"])
    assert "'w' is an int, expected a tensor" in refused(torch_zip(state({"w": number(5)})), FormatError)
    assert "'w' is a NoneType" in refused(torch_zip(state({"w": b"N"})), FormatError)


def test_a_name_given_twice(refused: Callable[..., str]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file, pytest.warns(UserWarning, match="Duplicate"):
        for data in (GOOD, b"other"):
            file.writestr("a/data.pkl", data)
    assert "twice" in refused(buffer.getvalue())


@pytest.mark.parametrize("order", [b"big", b"middle"])
def test_other_byte_order(order: bytes, refused: Callable[..., str]) -> None:
    records = {"a/data.pkl": GOOD, "a/byteorder": order, "a/data/0": SIX}
    assert "byte order" in refused(archive(records), UnsupportedError)


def test_an_archive_without_byte_order_is_little_endian(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(archive({"a/data.pkl": GOOD, "a/data/0": SIX}))
    assert read(tmp_path / "m.bin")[1]["w"].sum() == 15


def test_torchscript_and_modules_are_named(refused: Callable[..., str]) -> None:
    assert "TorchScript" in refused((FOLDER / "script.pt").read_bytes(), UnsupportedError)
    assert "torch.nn.modules.linear.Linear" in refused((FOLDER / "whole_module.bin").read_bytes(), UnsafeError)


def test_every_cut_of_a_real_archive(refused: Callable[..., str]) -> None:
    whole = (FOLDER / "zip.bin").read_bytes()
    for length in range(1, len(whole), 37):
        refused(whole[:length])


OTHER_FILES = {
    "git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "HTML": b"<!DOCTYPE html><html></html>",
    "Entry not found": b"Entry not found",
    "gzip": b"\x1f\x8b\x08" + bytes(50),
    "7z": b"7z\xbc\xaf\x27\x1c" + bytes(50),
    "RAR": b"Rar!\x1a\x07" + bytes(50),
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(50),
    "GGUF": b"GGUF" + bytes(50),
    "tar": bytes(257) + b"ustar\x0000" + bytes(300),
    "no file of torch.save": bytes(600),
}


@pytest.mark.parametrize("what", OTHER_FILES)
def test_other_files_are_called_by_their_name(what: str, refused: Callable[..., str]) -> None:
    expected = {"git-lfs": "git-lfs", "HTML": "HTML", "Entry not found": "error message", "tar": "tar archive"}.get(what, what)
    assert expected in refused(OTHER_FILES[what], QwenAudioError)


# --- the older format ----------------------------------------------------------------------------------------------------

CALL = b"\x80\x02cos\nsystem\n(" + text("true") + b"tR."
OLDER: dict[str, tuple[bytes, type[QwenAudioError]]] = {
    "hidden behind a magic number that is computed": (older(GOOD, STORAGES, magic=CALL), UnsafeError),
    "payload in the protocol": (older(GOOD, STORAGES, protocol=CALL), UnsafeError),
    "payload in the facts about the machine": (older(GOOD, STORAGES, machine=CALL), UnsafeError),
    "payload in the state dict": (older(CALL, STORAGES), UnsafeError),
    "payload in the list of storages": (older(GOOD, STORAGES, keys=CALL), UnsafeError),
    "another magic number": (older(GOOD, STORAGES, magic=b"\x80\x02K\x01."), FormatError),
    "True as protocol": (older(GOOD, STORAGES, protocol=b"\x80\x02\x88."), UnsupportedError),
    "another protocol": (older(GOOD, STORAGES, protocol=b"\x80\x02K\x01."), UnsupportedError),
    "big-endian": (older(GOOD, STORAGES, machine=machine(little=False)), UnsupportedError),
    "machine is a number": (older(GOOD, STORAGES, machine=b"\x80\x02K\x01."), UnsupportedError),
    "keys are no list": (older(GOOD, STORAGES, keys=b"\x80\x02K\x01."), MismatchError),
    "keys are numbers": (older(GOOD, STORAGES, keys=b"\x80\x02](K\x00e."), MismatchError),
    "key missing": (older(GOOD, STORAGES, keys=b"\x80\x02]."), MismatchError),
    "key twice": (older(GOOD, STORAGES, keys=b"\x80\x02](" + text("0") * 2 + b"e."), MismatchError),
    "another count": (older(GOOD, {"0": (5, SIX)}), MismatchError),
    "a count below 0": (older(GOOD, {"0": (-6, SIX)}), MismatchError),
    "data too short": (older(GOOD, {"0": (6, SIX[:-1])}), FormatError),
    "data too long": (older(GOOD, {"0": (6, SIX + b"x")}), FormatError),
    "no storages": (older(GOOD, {}, keys=b"\x80\x02](" + text("0") + b"e."), FormatError),
    "a bare pickle": (GOOD, FormatError),
}


@pytest.mark.parametrize("case", OLDER)
def test_bad_files_of_the_older_format(case: str, refused: Callable[..., str]) -> None:
    message = refused(*OLDER[case])
    assert ("os.system" in message) == (OLDER[case][1] is UnsafeError)


def test_every_cut_of_a_real_older_file(refused: Callable[..., str]) -> None:
    whole = (FOLDER / "older.bin").read_bytes()
    for length in range(1, len(whole), 13):
        refused(whole[:length])


# --- Whisper's sizes -----------------------------------------------------------------------------------------------------

DIMS = ("n_mels", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer", "n_vocab", "n_text_ctx", "n_text_state", "n_text_head")
DIMS += ("n_text_layer",)


def whisper_with(**replaced: bytes) -> bytes:
    values = {name: number(2) for name in DIMS} | replaced
    dims = b"}(" + b"".join(text(name) + code for name, code in values.items() if code) + b"u"
    return torch_zip(state({"dims": dims, "model_state_dict": b"}(" + text("w") + tensor() + b"u"}), {"0": SIX})


@pytest.mark.parametrize(
    "replaced",
    [
        *[{"n_mels": number(0)}, {"n_mels": number(1 << 40)}, {"n_mels": b"\x88"}, {"n_mels": text("2")}, {"n_mels": b""}],
        *[{"extra": number(1)}, {"n_audio_layer": number(100_000)}, {"n_mels": CALL[2:-1]}],
    ],
)
def test_impossible_sizes(replaced: dict[str, bytes], refused: Callable[..., str]) -> None:
    refused(whisper_with(**replaced))


def test_sizes_missing(refused: Callable[..., str]) -> None:
    refused(torch_zip(state({"model_state_dict": b"}(" + text("w") + tensor() + b"u"}), {"0": SIX}))


def test_checksum_is_the_usual_one() -> None:
    """zlib's CRC-32 is what zip uses; the check value of its definition."""
    assert zlib.crc32(b"123456789") == 0xCBF43926
