"""The restricted reader of pickles: what state dicts need is read, everything else is refused and nothing is run."""

from __future__ import annotations

import codecs
import functools
import os
import pickle
import struct
import subprocess
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwenaudio_np.convert.state_objects import OrderedState, Storage, TensorView, tensor_names
from qwenaudio_np.convert.state_pickle import MAX_OPCODES, read_pickle
from qwenaudio_np.convert.weight_source import open_weights
from qwenaudio_np.errors import FormatError, UnsafeError
from tests.torch_fixtures import FALSE, HOOKS, name_of, number, older, several, sizes, state, storage, tensor, text, torch_zip


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


# --- what state dicts need ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_as_the_standard_library_writes_them(protocol: int) -> None:
    value = {"a": (1, -1, 255, 65536, 2**40, -(2**60)), "b": [None, True, False, 1.5], "ü": ("x", (), ((1,), (1, 2)))}
    value["long"] = list(range(300))
    assert read(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [2, 4])
def test_ordered_dict_with_metadata(protocol: int) -> None:
    value: OrderedDict[str, int] = OrderedDict(b=1, a=2)
    value._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    found = read(pickle.dumps(value, protocol))
    assert type(found) is OrderedState and list(found.items()) == [("b", 1), ("a", 2)]
    assert not hasattr(found, "_metadata")


def test_a_tensor() -> None:
    found = read(state({"w": tensor(storage("7", 10), 2, (2, 3), (1, 2))}))
    assert found == {"w": TensorView(Storage("7", "F32", 10), 2, (2, 3), (1, 2))}


def test_a_parameter_is_its_tensor() -> None:
    code = name_of("torch._utils", "_rebuild_parameter") + several(tensor(), b"\x88", HOOKS) + b"R"
    assert read(state({"w": code})) == read(state({"w": tensor()}))


def test_memo_and_frames() -> None:
    code = b"\x80\x04\x95" + struct.pack("<Q", 8) + b"\x8c\x01a\x94h\x00\x86."
    assert read(code) == ("a", "a")


def test_position_behind_a_pickle() -> None:
    data = b"xx" + pickle.dumps(1, 2) + b"rest"
    assert read_pickle(data, "'file'", 2) == (1, len(data) - 4)


# --- hostile pickles: refused with the name, nothing run -----------------------------------------------------------


class Calls:
    """Pickles as a call, which the standard library's reader would make."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def calls(module: str, name: str, *arguments: bytes) -> bytes:
    """The same with any name, in protocol 2."""
    return b"\x80\x02" + name_of(module, name) + several(*arguments) + b"R."


@pytest.fixture()
def marker(tmp_path: Path) -> Path:
    return tmp_path / "executed"


def hostile(marker: Path) -> dict[str, tuple[bytes, str]]:
    """Name -> (pickle, what the message must name)."""
    touch = f"touch {marker}"
    call = text(touch)
    inside = {"w": tensor(), "x": calls("os", "system", call)[2:-1]}
    return {
        "os.system in a good state dict": (state(inside), "os.system"),
        "posix.system": (pickle.dumps(Calls(os.system, touch), 2), "system"),
        "protocol 4": (pickle.dumps(Calls(os.system, touch), 4), "system"),
        "builtins.exec": (pickle.dumps(Calls(exec, touch), 4), "builtins.exec"),
        "the old name of builtins": (calls("__builtin__", "eval", call), "__builtin__.eval"),
        "Popen": (pickle.dumps(Calls(subprocess.Popen, ["touch", str(marker)]), 4), "subprocess.Popen"),
        "codecs.open": (pickle.dumps(Calls(codecs.open, str(marker), "w"), 4), "open"),
        "partial": (pickle.dumps(functools.partial(os.system, touch), 4), "partial"),
        "attribute of an allowed module": (calls("collections", "OrderedDict.__init__.__globals__"), "OrderedDict.__init__"),
        "an allowed name, moved": (calls("collections.OrderedDict", "fromkeys"), "fromkeys"),
        "a dot in the name makes an allowed one": (calls("torch", "_utils._rebuild_tensor_v2"), "_rebuild_tensor_v2"),
        "another torch name": (calls("torch.storage", "_load_from_bytes", call), "_load_from_bytes"),
        "torch.load": (calls("torch", "load", call), "torch.load"),
        "rebuild of a subclass": (calls("torch._tensor", "_rebuild_from_type_v2"), "_rebuild_from_type_v2"),
        "copyreg": (calls("copyreg", "_reconstructor"), "copyreg._reconstructor"),
        "operator": (calls("operator", "attrgetter", call), "operator.attrgetter"),
        "importlib": (calls("importlib", "import_module", call), "importlib.import_module"),
        "pkgutil": (calls("pkgutil", "resolve_name", call), "pkgutil.resolve_name"),
        "runpy": (calls("runpy", "run_path", call), "runpy.run_path"),
        "nested pickle": (calls("_pickle", "loads", call), "_pickle.loads"),
        "numpy": (calls("numpy.testing._private.utils", "runstring", call), "runstring"),
        "getattr": (calls("builtins", "getattr", call, call), "builtins.getattr"),
        "timeit": (calls("timeit", "timeit", call), "timeit.timeit"),
        "methodcaller": (calls("operator", "methodcaller", text("system"), call), "operator.methodcaller"),
        "pydoc": (calls("pydoc", "locate", text("os.system")), "pydoc.locate"),
        "an interpreter": (calls("code", "InteractiveInterpreter"), "code.InteractiveInterpreter"),
        "a helper of uuid": (calls("uuid", "_get_command_stdout", call), "uuid._get_command_stdout"),
        "a helper of macOS": (calls("_osx_support", "_read_output", call), "_osx_support._read_output"),
        "numpy's compiler": (calls("numpy.f2py.crackfortran", "myeval", call), "numpy.f2py.crackfortran.myeval"),
        "a file": (calls("io", "FileIO", text(str(marker)), text("w")), "io.FileIO"),
        "a log file": (calls("logging", "FileHandler", text(str(marker))), "logging.FileHandler"),
        "a folder": (calls("os", "mkdir", text(str(marker))), "os.mkdir"),
        "a list of calls": (b"\x80\x02](" + tensor() + calls("os", "system", call)[2:-1] + b"e.", "os.system"),
        "deep in a tuple": (b"\x80\x02((((" + calls("os", "system", call)[2:-1] + b"tttt.", "os.system"),
        "OBJ, then POP": (b"\x80\x02(" + HOOKS + call + b"o0.", "OBJ"),
        "a name that is put together": (b"\x80\x04(\x8c\x01o\x8c\x01slX\x00\x00\x00\x00.", "LIST"),
        "behind a frame that ends early": (b"\x80\x04\x95\x01" + bytes(7) + b"N" + calls("os", "system", call)[2:], "os.system"),
        "terminal codes in a name": (calls("os\x1b[2J", "system", call), r"os\x1b[2J.system"),
        "STACK_GLOBAL": (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
        "STACK_GLOBAL from the memo": (b"\x80\x04\x8c\x02os\x940\x8c\x06system\x94.", "POP"),
        "module name by memo": (b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94(h\x00h\x01\x93t.", "os.system"),
        "INST": (b"\x80\x02(" + call + b"ios\nsystem\n.", "INST"),
        "OBJ": (b"\x80\x02(" + name_of("collections", "OrderedDict") + b"o.", "OBJ"),
        "NEWOBJ": (b"\x80\x02" + name_of("collections", "OrderedDict") + b")\x81.", "NEWOBJ"),
        "NEWOBJ_EX": (b"\x80\x04" + name_of("collections", "OrderedDict") + b")}\x92.", "NEWOBJ_EX"),
        "EXT1": (b"\x80\x02\x82\x01.", "EXT1"),
        "EXT4": (b"\x80\x02\x84\x01\x00\x00\x00.", "EXT4"),
        "PERSID": (b"\x80\x02P../../etc/passwd\n.", "PERSID"),
        "STRING": (b"\x80\x02S'os'\n.", "STRING"),
        "BUILD with dunders": (b"\x80\x02" + HOOKS + b"}" + text("__class__") + number(1) + b"sb.", "BUILD"),
        "BUILD on a dictionary": (b"\x80\x02}}" + text("_metadata") + b"}sb.", "BUILD"),
        "BUILD on a number": (b"\x80\x02K\x01}" + text("_metadata") + b"}sb.", "BUILD"),
        "BUILD with slots": (b"\x80\x02" + HOOKS + b"N}" + text("_metadata") + b"}s\x86b.", "BUILD"),
        "calls a storage class": (b"\x80\x02" + name_of("torch", "FloatStorage") + b"(K\x05tR.", "torch.FloatStorage"),
        "calls a tensor": (state({"w": tensor() + b")R"}), "TensorView"),
        "calls text": (b"\x80\x02" + text("os.system") + b")R.", "str"),
        "payload, then broken": (calls("os", "system", call)[:-1] + b"\xff\xff", "os.system"),
        "in the values of metadata": (b"\x80\x02" + HOOKS + b"}" + text("_metadata") + name_of("os", "system") + b"sb.", "os.system"),
    }


@pytest.mark.parametrize("case", hostile(Path("x")))
def test_hostile_pickles_are_refused_by_name(case: str, marker: Path) -> None:
    data, named = hostile(marker)[case]
    assert named in refused(data, UnsafeError)
    assert not marker.exists()


@pytest.mark.parametrize("layout", ["zip", "older"])
def test_hostile_pickles_in_files(tmp_path: Path, marker: Path, layout: str) -> None:
    """The same ones where they are met: as the state dict of a whole file that is right in everything else."""
    path = tmp_path / "model.bin"
    for case, (data, named) in hostile(marker).items():
        path.write_bytes(torch_zip(data) if layout == "zip" else older(data, {"0": (6, bytes(24))}))
        with pytest.raises(UnsafeError) as caught, open_weights(path):
            pass
        assert named in str(caught.value) and "model.bin" in str(caught.value) and str(caught.value).isprintable(), case
        assert not marker.exists(), case


def test_the_payloads_are_real(marker: Path) -> None:
    """The standard library's reader runs them: what the test above proves is a property of our reader."""
    data, _ = hostile(marker)["protocol 4"]
    pickle.loads(data)
    assert marker.exists()


def test_a_poisoned_module_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marker: Path) -> None:
    (tmp_path / "torch.py").write_text(f"open({str(marker)!r}, 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    read(state({"w": tensor()}))
    refused(calls("torch", "anything"), UnsafeError)
    assert not marker.exists()


# --- broken structure -----------------------------------------------------------------------------------------------

DEEP = 200_000
BROKEN = {
    "empty": b"",
    "no protocol": b"K\x01.",
    "protocol 0 and text": b"(lp0\n.",
    "protocol 9": b"\x80\x09K\x01.",
    "protocol again": b"\x80\x02\x80\x02K\x01.",
    "no end": b"\x80\x02}",
    "unknown instruction": b"\x80\x02\xfe.",
    "nothing on the stack": b"\x80\x02.",
    "two values": b"\x80\x02K\x01K\x02.",
    "open mark": b"\x80\x02(" + state({"w": tensor()})[2:],
    "tuple without mark": b"\x80\x02t.",
    "tuple of three from two": b"\x80\x02NN\x87.",
    "memo that is not there": b"\x80\x02h\x05.",
    "memo of nothing": b"\x80\x02q\x00.",
    "items into a list": b"\x80\x02](" + text("a") + b"Nu.",
    "items into a tensor": b"\x80\x02" + tensor() + b"(" + text("a") + b"Nu.",
    "an odd number of items": b"\x80\x02}(" + text("a") + b"u.",
    "append to a dictionary": b"\x80\x02}Na.",
    "key that is a number": b"\x80\x02}K\x01Ns.",
    "key that is bytes-like": b"\x80\x02}" + b"N" + b"Ns.",
    "hash bomb": b"\x80\x02}" + b")" + b"q\x00h\x00\x86" * 40 + b"Ns.",
    "key twice": state({"a": tensor()})[:-2] + text("a") + tensor() + b"u.",
    "lone surrogate": b"\x80\x02}" + text("\ud800") + tensor() + b"s.",
    "text of 4 GiB": b"\x80\x02X\xff\xff\xff\xffabc.",
    "frame of 2^62": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"K\x01.",
    "number of 200 bytes": b"\x80\x02\x8a\xc8" + b"\x01" * 200 + b".",
    "endless name": b"\x80\x02c" + b"a" * 5000,
    "STACK_GLOBAL from numbers": b"\x80\x04K\x01K\x02\x93.",
    "arguments that are no tuple": b"\x80\x02" + name_of("collections", "OrderedDict") + b"]R.",
    "OrderedDict with arguments": b"\x80\x02" + name_of("collections", "OrderedDict") + b"(NtR.",
    "not a dictionary": b"\x80\x02].",
    "empty dictionary": b"\x80\x02}.",
    "a number as tensor": state({"a": number(1)}),
    "a nested dictionary": state({"a": b"}"}),
    "no name": state({"": tensor()}),
    "name of 600 characters": state({"a" * 600: tensor()}),
    "name with NUL": state({"a\x00": tensor()}),
    "name with newline": state({"a\nb": tensor()}),
    "name __metadata__": state({"__metadata__": tensor()}),
    "itself": b"\x80\x02}q\x00(" + text("a") + b"h\x00u.",
    "deep tuples": b"\x80\x02)" + b"\x85" * DEEP + b".",
    "deep lists": b"\x80\x02" + b"]" * DEEP + b"a" * (DEEP - 1) + b".",
    "deep marks": b"\x80\x02" + b"(" * DEEP + b".",
    "too many instructions": b"\x80\x02N" + b"N" * MAX_OPCODES + b".",
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_structure(case: str) -> None:
    begin = time.process_time()
    refused(BROKEN[case])
    assert time.process_time() - begin < 5


def test_every_cut_is_refused() -> None:
    whole = state({"w": tensor(), "v": tensor(storage("1", 4), 0, (2, 2), (2, 1))})
    for length in range(len(whole)):
        refused(whole[:length])


# --- tensors and storages that cannot be ------------------------------------------------------------------------------

HUGE = 1 << 62
FLOATS = name_of("torch", "FloatStorage")
TENSORS = {
    "offset below 0": tensor(offset=-1),
    "offset past the end": tensor(offset=1),
    "offset 2^62": tensor(offset=HUGE),
    "offset is a float": tensor(offset=b"G" + bytes(8)),
    "offset is True": tensor(offset=b"\x88"),
    "offset is None": tensor(offset=b"N"),
    "offset of an empty tensor past the end": tensor(offset=7, shape=(0,), strides=(1,)),
    "stride below 0": tensor(strides=(-3, 1)),
    "stride past the end": tensor(strides=(4, 1)),
    "stride 2^62": tensor(strides=(HUGE, 1)),
    "one stride": tensor(strides=(1,)),
    "repeated elements": tensor(shape=(1_000_000, 1_000_000), strides=(0, 0)),
    "size below 0": tensor(shape=(-2, 3)),
    "size 2^62": tensor(shape=(HUGE, 0), strides=(0, 0)),
    "65 axes": tensor(shape=(1,) * 65, strides=(1,) * 65),
    "shape is a list": tensor(shape=b"](K\x02K\x03e"),
    "shape is nested": tensor(shape=several(sizes((2,)), number(3))),
    "no storage": tensor(b"N"),
    "hooks": name_of("torch._utils", "_rebuild_tensor_v2") + several(storage(), number(0), sizes((6,)), sizes((1,)), FALSE, b"N") + b"R",
    "five arguments": name_of("torch._utils", "_rebuild_tensor_v2") + several(storage(), number(0), sizes((6,)), sizes((1,)), FALSE) + b"R",
    "numel -1": tensor(storage(numel=-1)),
    "numel 2^62": tensor(storage(numel=HUGE)),
    "persistent id is text": tensor(text("0") + b"Q"),
    "persistent id is short": tensor(several(text("storage"), FLOATS, text("0")) + b"Q"),
    "persistent id with another word": tensor(several(text("module"), FLOATS, text("0"), text("cpu"), b"K\x06") + b"Q"),
    "class as text": tensor(several(text("storage"), text("FloatStorage"), text("0"), text("cpu"), b"K\x06") + b"Q"),
    "class that is a function": tensor(several(text("storage"), HOOKS[:-2], text("0"), text("cpu"), b"K\x06") + b"Q"),
    "view of a storage": tensor(storage(tail=several(text("0"), number(0), number(3)))),
    "key ../data.pkl": tensor(storage("../data.pkl")),
    "key ../../etc/passwd": tensor(storage("../../etc/passwd")),
    "key with other digits": tensor(storage("\u0663")),
    "storage described twice": tensor() + text("v") + tensor(storage(numel=7)),
    "parameter of a number": name_of("torch._utils", "_rebuild_parameter") + several(number(1), FALSE, HOOKS) + b"R",
}


@pytest.mark.parametrize("case", TENSORS)
def test_impossible_tensors(case: str) -> None:
    refused(state({"w": TENSORS[case]}))


@pytest.mark.parametrize("kind", ["ComplexFloatStorage", "QInt8Storage", "UntypedStorage"])
def test_other_storage_classes_are_refused_by_name(kind: str) -> None:
    assert kind in refused(state({"w": tensor(storage(kind=kind))}), UnsafeError)
