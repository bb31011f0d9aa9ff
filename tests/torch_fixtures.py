"""Files of torch.save, assembled byte by byte: a second, independent account of the two formats, and the way to make broken ones."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "fixtures" / "torch"
FALSE, NONE, STOP = b"\x89", b"N", b"."
MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
PROTOCOL = b"\x80\x02M\xe9\x03."
BITS = {"F64": "<i8", "I64": "<i8", "F32": "<i4", "I32": "<i4", "F16": "<i2", "BF16": "<i2", "I16": "<i2"}
BITS |= {"I8": "u1", "U8": "u1", "BOOL": "u1"}


def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def several(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def sizes(values: Sequence[int]) -> bytes:
    return several(*map(number, values))


def name_of(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


HOOKS = name_of("collections", "OrderedDict") + b")R"


def storage(key: str = "0", numel: int = 6, kind: str = "FloatStorage", tail: bytes = b"") -> bytes:
    return several(text("storage"), name_of("torch", kind), text(key), text("cpu"), number(numel), tail) + b"Q"


def tensor(
    where: bytes | None = None, offset: int | bytes = 0, shape: Sequence[int] | bytes = (2, 3), strides: Sequence[int] | bytes = (3, 1)
) -> bytes:
    """Code that leaves a tensor on the stack; pieces given as bytes are put in as they are."""
    parts = [
        storage() if where is None else where,
        offset if isinstance(offset, bytes) else number(offset),
        shape if isinstance(shape, bytes) else sizes(shape),
        strides if isinstance(strides, bytes) else sizes(strides),
    ]
    return name_of("torch._utils", "_rebuild_tensor_v2") + several(*parts, FALSE, HOOKS) + b"R"


def state(entries: Mapping[str, bytes]) -> bytes:
    """The pickle of a dictionary."""
    return b"\x80\x02}(" + b"".join(text(name) + code for name, code in entries.items()) + b"u" + STOP


def archive(records: Mapping[str, bytes], **settings: Any) -> bytes:
    """A zip file as the standard library writes it, uncompressed unless `settings` say otherwise."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **settings) as file:
        for name, data in records.items():
            file.writestr(zipfile.ZipInfo(name), data, compress_type=settings.get("compression", zipfile.ZIP_STORED))
    return buffer.getvalue()


def torch_zip(pickle: bytes, storages: Mapping[str, bytes] | None = None, folder: str = "archive", **more: bytes) -> bytes:
    """The zip format around a pickle; by default with one storage of six float32 zeros."""
    storages = {"0": bytes(24)} if storages is None else storages
    records = {f"{folder}/data.pkl": pickle, f"{folder}/byteorder": b"little"}
    records |= {f"{folder}/data/{key}": data for key, data in storages.items()}
    return archive(records | {f"{folder}/version": b"3\n"} | {f"{folder}/{name}": data for name, data in more.items()})


def machine(little: bool = True) -> bytes:
    flag = b"\x88" if little else b"\x89"
    return b"\x80\x02}(" + text("protocol_version") + b"M\xe9\x03" + text("little_endian") + flag + text("type_sizes") + b"}u."


def older(pickle: bytes, storages: Mapping[str, tuple[int, bytes]], **parts: bytes) -> bytes:
    """The format before zip: five pickles, then the storages, key -> (number of elements, bytes)."""
    keys = b"\x80\x02](" + b"".join(map(text, storages)) + b"e."
    pieces = {"magic": MAGIC, "protocol": PROTOCOL, "machine": machine(), "object": pickle, "keys": keys} | parts
    return b"".join(pieces.values()) + b"".join(struct.pack("<q", count) + data for count, data in storages.values())


def variety() -> Iterator[tuple[str, str, list[int], list[int]]]:
    """(name, safetensors type, shape, bits of each element) of the fixtures' state dict, as PyTorch reads it."""
    types = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32"}
    types |= {"int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL"}
    for name, entry in json.loads((FOLDER / "variety.json").read_text()).items():
        yield name, types[entry["dtype"]], entry["shape"], entry["bits"]
