"""Writing safetensors piece by piece: what the reference library reads, whole or not at all, in little memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from qwenaudio_np.convert.random_values import random_pieces
from qwenaudio_np.convert.safetensors_writer import TensorSpec, header_bytes, plan_shards, write_safetensors, write_shards
from qwenaudio_np.errors import MismatchError


def test_memory_does_not_grow_with_the_tensor(tmp_path: Path) -> None:
    """64 MB of weights pass through in pieces: at no time is a tenth of them held."""
    spec = TensorSpec("transformer.h.0.mlp.w1.weight", "BF16", (8192, 4096))
    tracemalloc.start()
    write_safetensors(tmp_path / "x.safetensors", [spec], lambda spec: random_pieces(spec.name, spec.shape, spec.dtype, 0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spec.nbytes == 1 << 26
    assert peak < 6_000_000


def test_writer_against_the_reference_library(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"b": rng.standard_normal((3, 5)).astype(np.float32), "a": rng.integers(0, 9, 7), "empty": np.zeros((0, 2), np.float16)}
    names = {"float32": "F32", "int64": "I64", "float16": "F16"}
    specs = [TensorSpec(name, names[array.dtype.name], array.shape) for name, array in arrays.items()]

    def rows(spec: TensorSpec) -> Iterator[np.ndarray]:
        yield from np.array_split(arrays[spec.name], 2)

    write_safetensors(tmp_path / "x.safetensors", specs, rows)
    found = safetensors.numpy.load_file(tmp_path / "x.safetensors")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert np.array_equal(found[name], array) and found[name].dtype == array.dtype


def test_shards_fill_up_in_order() -> None:
    specs = [TensorSpec(name, "U8", (size,)) for name, size in zip("abcdef", (4, 6, 1, 25, 10, 0), strict=True)]
    shards = plan_shards(specs, 10)
    assert [[tensor.name for tensor in shard.tensors] for shard in shards] == [["a", "b"], ["c"], ["d"], ["e", "f"]]
    assert [shard.name for shard in shards] == [f"model-0000{i}-of-00004.safetensors" for i in (1, 2, 3, 4)]
    assert plan_shards([], 10) == []


def test_writer_refuses_what_does_not_add_up(tmp_path: Path) -> None:
    spec = TensorSpec("w", "F32", (3,))
    with pytest.raises(MismatchError, match="came as 8 bytes, expected 12"):
        write_safetensors(tmp_path / "x.safetensors", [spec], lambda spec: [np.zeros(2, np.float32)])
    with pytest.raises(MismatchError, match="given twice"):
        header_bytes([spec, spec])
    assert not list(tmp_path.iterdir())


def test_failing_source_leaves_finished_shards_and_no_index(tmp_path: Path) -> None:
    def source(spec: TensorSpec) -> Iterator[np.ndarray]:
        yield np.zeros(4, np.uint8)
        if spec.name == "b":
            raise ValueError("the source broke")

    shards = plan_shards([TensorSpec("a", "U8", (4,)), TensorSpec("b", "U8", (8,))], 8)
    with pytest.raises(ValueError, match="the source broke"):
        write_shards(tmp_path, shards, source)
    assert [path.name for path in tmp_path.iterdir()] == ["model-00001-of-00002.safetensors"]
