"""The restricted reader of pickles: what state dicts need is read; broken structure and impossible tensors are refused."""

from __future__ import annotations

import pickle
import struct
import time
from collections import OrderedDict

import pytest

from qwenaudio_np.convert.state_objects import OrderedState, Storage, TensorView
from qwenaudio_np.convert.state_pickle import MAX_OPCODES, read_pickle
from qwenaudio_np.errors import UnsafeError
from tests.pickle_tools import read, refused
from tests.torch_fixtures import FALSE, HOOKS, name_of, number, several, sizes, state, storage, tensor, text

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
