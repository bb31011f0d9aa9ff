"""Files of torch.save: values as PyTorch reads them; what is damaged, lies or is no state dict is refused. Zip: test_torch_zip.py."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qwenaudio_np.errors import FormatError, MismatchError, QwenAudioError, UnsafeError, UnsupportedError
from tests.torch_fixtures import BITS, FOLDER, machine, number, older, state, storage, tensor, text, torch_zip, variety
from tests.torch_tools import GOOD, SIX, STORAGES, read, refuser


@pytest.fixture()
def refused(tmp_path: Path) -> Callable[..., str]:
    return refuser(tmp_path)


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


# --- no state dict ---------------------------------------------------------------------------------------------------


def test_torchscript_and_modules_are_named(refused: Callable[..., str]) -> None:
    assert "TorchScript" in refused((FOLDER / "script.pt").read_bytes(), UnsupportedError)
    assert "torch.nn.modules.linear.Linear" in refused((FOLDER / "whole_module.bin").read_bytes(), UnsafeError)


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
