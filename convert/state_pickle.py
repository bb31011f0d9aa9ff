"""A reader for the pickles of state dicts that can do nothing else.

A pickle is a program for a small stack machine, and the machine of the standard library calls whatever a program names.
This one knows the two dozen instructions that state dicts use; a name becomes an inert token (state_objects.py), three
tokens can be "called", and everything else is refused with its name before anything happens. Nothing is imported or looked up
by a name from the file. Every length is compared with what is left before it is used, and no value of the file
is ever compared, hashed, printed or walked recursively, except text and small numbers.

Source: the instruction set as described in Lib/pickletools.py of Python.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from qwenaudio_np.errors import FormatError, UnsafeError, kind_of, shown

from .state_objects import OrderedState, Storage, call, storage, token

MAX_PICKLE_BYTES = 16 << 20
MAX_OPCODES = 600_000  # a state dict needs about 35 for a tensor; this many take two seconds at worst
MAX_INTEGER_BYTES = 10  # the magic number of the older torch format has ten
MAX_GLOBAL_LENGTH = 200

_REFUSED = {
    **{"i": "INST", "o": "OBJ", "\x81": "NEWOBJ", "\x92": "NEWOBJ_EX", "\x82": "EXT1", "\x83": "EXT2", "\x84": "EXT4", "P": "PERSID"},
    **{"I": "INT", "L": "LONG", "\x8b": "LONG4", "F": "FLOAT", "S": "STRING", "T": "BINSTRING", "U": "SHORT_BINSTRING", "V": "UNICODE"},
    **{"\x8d": "BINUNICODE8", "B": "BINBYTES", "C": "SHORT_BINBYTES", "\x8e": "BINBYTES8", "\x96": "BYTEARRAY8", "\x97": "NEXT_BUFFER"},
    **{"\x98": "READONLY_BUFFER", "0": "POP", "1": "POP_MARK", "2": "DUP", "d": "DICT", "l": "LIST", "p": "PUT", "g": "GET"},
    **{"\x8f": "EMPTY_SET", "\x90": "ADDITEMS", "\x91": "FROZENSET"},
}


def read_pickle(data: bytes, where: str, start: int = 0) -> tuple[Any, int]:
    """The value of the pickle at data[start:], and the position behind it. `where` names the file in messages.

    Values are None, bool, int, float, str, tuple, list, dict, OrderedState, Token, Storage and TensorView.
    Raises UnsafeError (a name or instruction that is refused), FormatError (not a well-formed pickle, or too large).
    """
    machine = _Machine(data, where, start)
    return machine.run(), machine.at


class _Machine:
    """One pickle being read: a stack, the stacks below each mark, and the memo."""

    def __init__(self, data: bytes, where: str, start: int) -> None:
        self.data, self.where, self.at, self.start = data, where, start, start
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # stacks set aside by MARK
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def run(self) -> Any:
        """Obey instructions until STOP."""
        if self.data[self.at : self.at + 1] != b"\x80":
            raise self.fault("does not begin with its protocol")
        for _ in range(MAX_OPCODES):
            if self.at >= len(self.data) or self.at - self.start > MAX_PICKLE_BYTES:
                raise self.fault(f"has no end within {min(len(self.data) - self.start, MAX_PICKLE_BYTES)} bytes")
            code = self.data[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                return self.result()
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None:
                raise self.refusal(code)
            instruction(self)
        raise self.fault(f"has more than {MAX_OPCODES} instructions")

    def result(self) -> Any:
        if len(self.stack) != 1 or self.below:
            raise self.fault(f"ends with {len(self.stack)} values and {len(self.below)} marks on its stack, expected one value")
        return self.stack[0]

    def fault(self, what: str) -> FormatError:
        return FormatError(f"{self.where}: the pickle {what} (byte {self.at}); the file is damaged or no state dict: fetch it again")

    def refusal(self, code: int) -> FormatError:
        name = _REFUSED.get(chr(code))
        if name is None:
            return self.fault(f"has the unknown instruction {code:#04x}")
        return UnsafeError(f"{self.where}: the pickle uses {name} (byte {self.at - 1}), which is refused: state dicts do not need it")

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise self.fault(f"announces {count} bytes where {len(self.data) - self.at} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, layout: str) -> Any:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))[0]

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + MAX_GLOBAL_LENGTH)
        if end < 0:
            raise self.fault(f"has a name without an end within {MAX_GLOBAL_LENGTH} characters")
        text = self.take(end - self.at).decode("latin-1")
        self.at += 1
        return text

    def pop(self) -> Any:
        if not self.stack:
            raise self.fault("takes a value from an empty stack")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack:
            raise self.fault("looks at an empty stack")
        return self.stack[-1]

    def pop_mark(self) -> list[Any]:
        if not self.below:
            raise self.fault("takes values up to a mark that is not there")
        items, self.stack = self.stack, self.below.pop()
        return items

    def push(self, value: Any) -> None:
        self.stack.append(value)

    # Each instruction, by the name that Python's own documentation gives it.

    def proto(self) -> None:
        version = self.take(1)[0]
        if self.at != self.start + 2 or not 2 <= version <= 5:
            raise self.fault(f"claims protocol {version}, expected 2 to 5 and only at its beginning")

    def frame(self) -> None:
        if self.number("Q") > len(self.data) - self.at:
            raise self.fault("has a frame longer than the file")

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def text(self, layout: str) -> None:
        try:
            self.push(self.take(self.number(layout)).decode("utf-8"))
        except UnicodeDecodeError:
            raise self.fault("has text that is not UTF-8") from None

    def long1(self) -> None:
        count = self.take(1)[0]
        if count > MAX_INTEGER_BYTES:
            raise self.fault(f"has a number of {count} bytes, expected at most {MAX_INTEGER_BYTES}")
        self.push(int.from_bytes(self.take(count), "little", signed=True))

    def global_(self) -> None:
        self.push(token(self.line(), self.line(), self.where))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise self.fault("names a global by something that is not text")
        self.push(token(module, name, self.where))

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise self.fault(f"makes a tuple of {count} values from {len(self.stack)}")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def put(self, index: int) -> None:
        self.memo[index] = self.top()

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise self.fault(f"recalls value {index}, which it never stored")
        self.push(self.memo[index])

    def persistent(self) -> None:
        found = storage(self.pop(), self.where)
        if self.storages.setdefault(found.key, found) != found:
            raise self.fault(f"describes storage {shown(found.key)} in two ways")
        self.push(found)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        self.push(call(function, arguments, self.where))

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if type(target) is not OrderedState or type(state) is not dict or state.keys() != {"_metadata"}:
            raise UnsafeError(f"{self.where}: the pickle sets attributes of {kind_of(target)}, which is refused (BUILD)")

    def set_items(self, items: list[Any]) -> None:
        target = self.top()
        if type(target) not in (dict, OrderedState) or len(items) % 2:
            raise self.fault(f"stores {len(items)} keys and values in {kind_of(target)}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str:  # text only: the hash of a nested tuple can take for ever
                raise self.fault(f"uses {kind_of(key)} as a key, expected text")
            if key in target:
                raise self.fault(f"has the key {shown(key[:80])} twice")
            target[key] = value

    def append(self, items: list[Any]) -> None:
        target = self.top()
        if type(target) is not list:
            raise self.fault(f"appends to {kind_of(target)}")
        target.extend(items)


def _pair(machine: _Machine) -> list[Any]:
    value, key = machine.pop(), machine.pop()
    return [key, value]


_INSTRUCTIONS: dict[int, Callable[[_Machine], None]] = {
    0x80: _Machine.proto,
    0x95: _Machine.frame,
    ord("("): _Machine.mark,
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("J"): lambda m: m.push(m.number("i")),
    ord("K"): lambda m: m.push(m.number("B")),
    ord("M"): lambda m: m.push(m.number("H")),
    ord("G"): lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    0x8A: _Machine.long1,
    ord("X"): lambda m: m.text("I"),
    0x8C: lambda m: m.text("B"),
    ord(")"): lambda m: m.push(()),
    ord("t"): lambda m: m.push(tuple(m.pop_mark())),
    0x85: lambda m: m.tuple_of(1),
    0x86: lambda m: m.tuple_of(2),
    0x87: lambda m: m.tuple_of(3),
    ord("]"): lambda m: m.push([]),
    ord("a"): lambda m: m.append([m.pop()]),
    ord("e"): lambda m: m.append(m.pop_mark()),
    ord("}"): lambda m: m.push({}),
    ord("s"): lambda m: m.set_items(_pair(m)),
    ord("u"): lambda m: m.set_items(m.pop_mark()),
    ord("q"): lambda m: m.put(m.number("B")),
    ord("r"): lambda m: m.put(m.number("I")),
    ord("h"): lambda m: m.get(m.number("B")),
    ord("j"): lambda m: m.get(m.number("I")),
    0x94: lambda m: m.put(len(m.memo)),
    ord("c"): _Machine.global_,
    0x93: _Machine.stack_global,
    ord("Q"): _Machine.persistent,
    ord("R"): _Machine.reduce,
    ord("b"): _Machine.build,
}
