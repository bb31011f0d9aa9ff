"""JSON from files of unknown origin: read strictly, and its fields fetched with their types checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qwenaudio_np.errors import FormatError, shown, value_of
from qwenaudio_np.files import read_text

MAX_JSON_BYTES = 1 << 20
_JSON_NAMES = {dict: "object", list: "list", str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """One JSON object from a file: strict UTF-8, no repeated keys, no NaN, at most `limit` bytes."""
    fields: dict[str, Any] = parse_json(read_text(path, limit), where=str(path))
    return fields


def parse_json(text: str, where: str, kind: type = dict) -> Any:
    """A JSON object (or list, `kind`) from text; every fault of the text becomes one FormatError naming `where`."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key is repeated")
        return found

    def refuse_constant(word: str) -> Any:
        raise ValueError(f"{word} is not JSON")

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise FormatError(f"{shown(where)} is not valid JSON: {reason}; correct the file or fetch it again") from None
    if not isinstance(value, kind):
        expected = "an object" if kind is dict else "a list"
        raise FormatError(f"{shown(where)} holds a JSON {_JSON_NAMES[type(value)]}, expected {expected}; is it the right file?")
    return value


class Fields:
    """Typed access to a JSON object; every complaint names the file, the field, the value and the range."""

    def __init__(self, fields: Any, where: str) -> None:
        if not isinstance(fields, dict):
            raise FormatError(f"{shown(where)} is a JSON {type(fields).__name__}, expected an object")
        self.fields, self.where = fields, where

    def value(self, name: str, default: Any = None) -> Any:
        """Of any type; null is as if it were left out. Raises FormatError for one that is missing and has no default."""
        value = self.fields.get(name)
        value = default if value is None else value
        if value is None:
            raise FormatError(f"{shown(self.where)}: {name} is missing; is this the config.json of a Qwen-Audio checkpoint?")
        return value

    def size(self, name: str, limit: int, default: int | None = None) -> int:
        """A whole number from 1 to `limit`."""
        value = self.value(name, default)
        if type(value) is not int or not 1 <= value <= limit:  # `type is`: JSON true must not pass as 1
            raise FormatError(f"{shown(self.where)}: {name} is {value_of(value)}, expected a whole number from 1 to {limit}")
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A number in (low, high]; `low` itself is excluded because it is a divisor or a logarithm's zero."""
        value = self.value(name, default)
        if type(value) not in (int, float) or not low < value <= high:  # NaN fails every comparison
            raise FormatError(f"{shown(self.where)}: {name} is {value_of(value)}, expected a number above {low:g}, at most {high:g}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """JSON true or false."""
        value = self.value(name, default)
        if type(value) is not bool:
            raise FormatError(f"{shown(self.where)}: {name} is {value_of(value)}, expected true or false")
        return value
