"""What a state dict may hold, as plain records: nothing here is a function or class that a file could reach.

A pickle names globals; the ten-odd names that real state dicts use are mapped to inert tokens, every other name is refused.
"Calling" a token builds one of the records below from arguments of exact types within exact bounds. Memory for tensors
is never taken here: a tensor is a place in a storage, and the storage's bytes are read later, by someone else.

Source: torch/_utils.py (_rebuild_tensor_v2, _rebuild_parameter) and torch/serialization.py (persistent_id) of PyTorch.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from qwenaudio_np.errors import FormatError, UnsafeError, kind_of, shown
from qwenaudio_np.safetensors_file import MAX_DIMENSIONS, MAX_NAME_LENGTH, MAX_SIZE

_KEY = re.compile(r"[0-9]{1,20}")  # a count in zip archives, a memory address in the older format


@dataclass(frozen=True, eq=False)
class Token:
    """A name that a file may mention. `dtype` is set for storage classes: the safetensors name of their elements."""

    name: str
    dtype: str | None = None


ORDERED_DICT = Token("collections.OrderedDict")
REBUILD_TENSOR = Token("torch._utils._rebuild_tensor_v2")
REBUILD_PARAMETER = Token("torch._utils._rebuild_parameter")

_STORAGES = {
    "Double": "F64",
    "Float": "F32",
    "Half": "F16",
    "BFloat16": "BF16",
    "Long": "I64",
    "Int": "I32",
    "Short": "I16",
    "Char": "I8",
    "Byte": "U8",
    "Bool": "BOOL",
}
_TOKENS = {token.name: token for token in (ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER)}
_TOKENS |= {f"torch.{name}Storage": Token(f"torch.{name}Storage", dtype) for name, dtype in _STORAGES.items()}


class OrderedState(dict[str, Any]):
    """Stands for an OrderedDict; a class of its own because only that may carry `_metadata`."""


@dataclass(frozen=True)
class Storage:
    """A run of `numel` elements that tensors are views of; `key` names its bytes in the file."""

    key: str
    dtype: str
    numel: int


@dataclass(frozen=True)
class TensorView:
    """A tensor as a view: element [i, j, ...] is storage[offset + i * strides[0] + j * strides[1] + ...]."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def token(module: str, name: str, where: str) -> Token:
    """The token of a global. Raises UnsafeError for every name but those of state dicts.

    The two words are compared as they are: a dot inside `name` would mean an attribute of something else.
    """
    found = None if "." in name else _TOKENS.get(f"{module}.{name}")
    if found is None:
        raise UnsafeError(
            f"{where}: the pickle asks for {shown(f'{module}.{name}'[:200])}, which is refused: only tensors and dictionaries are read; "
            "do not open this file with other programs unless you trust its source"
        )
    return found


def call(function: Any, arguments: Any, where: str) -> OrderedState | TensorView:
    """What REDUCE gives for a token and its arguments. Raises UnsafeError (not one of the three) or FormatError (arguments)."""
    if type(arguments) is not tuple:
        raise FormatError(f"{where}: arguments are {kind_of(arguments)}, expected a tuple; the file is damaged")
    if function is ORDERED_DICT:
        return _ordered(arguments, where)
    if function is REBUILD_TENSOR:
        return _tensor(arguments, where)
    if function is REBUILD_PARAMETER:
        return _parameter(arguments, where)
    name = function.name if type(function) is Token else type(function).__name__
    raise UnsafeError(f"{where}: the pickle calls {shown(name)}, which is refused: only tensors and dictionaries are read")


def storage(reference: Any, where: str) -> Storage:
    """A persistent id ("storage", class, key, device, numel), with a sixth field None in the older format. Raises FormatError."""
    if type(reference) is not tuple or len(reference) not in (5, 6) or reference[0] != "storage" or reference[5:] not in ((), (None,)):
        raise FormatError(f"{where}: a persistent id is not ('storage', class, key, device, count); the file is damaged")
    kind, key, device, numel = reference[1:5]
    if type(kind) is not Token or kind.dtype is None:
        raise FormatError(f"{where}: a persistent id names no storage class; the file is damaged")
    if type(key) is not str or not _KEY.fullmatch(key) or type(device) is not str:
        name = shown(key[:80]) if type(key) is str else kind_of(key)
        raise FormatError(f"{where}: a storage is called {name}, expected digits; the file is damaged")
    if not _is_size(numel):
        raise FormatError(f"{where}: storage {shown(key)} claims {_number(numel)} elements, expected 0 to 2^48")
    return Storage(key, kind.dtype, numel)


def tensor_names(value: Any, where: str) -> dict[str, TensorView]:
    """A state dict, name -> tensor. Raises FormatError for anything else: no dictionary, empty, odd names, odd values."""
    if type(value) not in (dict, OrderedState) or not value:
        raise FormatError(f"{where}: the pickle holds {kind_of(value)}, expected a dictionary of tensors (a state dict)")
    for name, tensor in value.items():
        if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable() or name == "__metadata__":
            raise FormatError(f"{where}: tensor name {shown(name[:80])} must be 1 to {MAX_NAME_LENGTH} printable characters")
        if type(tensor) is not TensorView:
            raise FormatError(f"{where}: {shown(name)} is {kind_of(tensor)}, expected a tensor; save the bare state dict")
    return dict(value)


def _ordered(arguments: tuple[Any, ...], where: str) -> OrderedState:
    if arguments:
        raise FormatError(f"{where}: OrderedDict is given {len(arguments)} arguments, expected none; the file is damaged")
    return OrderedState()


def _parameter(arguments: tuple[Any, ...], where: str) -> TensorView:
    """(tensor, requires_grad, hooks) -> the tensor."""
    if len(arguments) != 3 or type(arguments[0]) is not TensorView or type(arguments[1]) is not bool or not _is_empty(arguments[2]):
        raise FormatError(f"{where}: a parameter is not (tensor, flag, no hooks); save the bare state dict")
    return arguments[0]


def _tensor(arguments: tuple[Any, ...], where: str) -> TensorView:
    """(storage, offset, shape, strides, requires_grad, hooks) -> a view within its storage."""
    if len(arguments) != 6 or type(arguments[0]) is not Storage or type(arguments[4]) is not bool or not _is_empty(arguments[5]):
        raise FormatError(f"{where}: a tensor is not (storage, offset, shape, strides, flag, no hooks); save the bare state dict")
    source, offset, shape, strides = arguments[:4]
    if not _is_size(offset):
        raise FormatError(f"{where}: a tensor has the offset {_number(offset)}, expected 0 to 2^48")
    for what, sizes in (("shape", shape), ("strides", strides)):
        if type(sizes) is not tuple or len(sizes) > MAX_DIMENSIONS or not all(map(_is_size, sizes)):
            raise FormatError(f"{where}: a tensor's {what} must be at most {MAX_DIMENSIONS} whole numbers from 0 to 2^48")
    if len(shape) != len(strides):
        raise FormatError(f"{where}: a tensor has {len(shape)} sizes and {len(strides)} strides, expected equally many")
    count = math.prod(shape)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    # A product above numel repeats elements: a file of a few bytes would unfold into terabytes.
    if count > source.numel or offset > source.numel or (count and last >= source.numel):
        raise FormatError(f"{where}: a tensor {list(shape)} reaches past the {source.numel} elements of storage {shown(source.key)}")
    return TensorView(source, offset, shape, strides)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_SIZE  # `type is`: True must not pass as 1


def _is_empty(hooks: Any) -> bool:
    return type(hooks) is OrderedState and not hooks


def _number(value: Any) -> str:
    return str(value) if type(value) is int else kind_of(value)
