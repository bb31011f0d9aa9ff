"""Pickles that would run something: the restricted reader refuses each with the name in question, and nothing is run."""

from __future__ import annotations

import codecs
import functools
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwenaudio_np.convert.weight_source import open_weights
from qwenaudio_np.errors import UnsafeError
from tests.pickle_tools import read, refused
from tests.torch_fixtures import HOOKS, name_of, number, older, several, state, tensor, text, torch_zip


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
