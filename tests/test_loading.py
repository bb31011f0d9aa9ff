"""Opening a checkpoint folder: what is checked between its files, and how the public names are found."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwenaudio_np
from qwenaudio_np import backends
from qwenaudio_np.errors import BackendError, FormatError, MismatchError, UsageError
from qwenaudio_np.ops import widen
from tests.make_checkpoint import make_checkpoint


@pytest.fixture
def folder(golden: Path, tmp_path: Path) -> Path:
    """A copy of a small checkpoint that a test may damage."""
    return Path(shutil.copytree(golden / "short_context_bf16/checkpoint", tmp_path / "checkpoint"))


def load(folder: Path) -> qwenaudio_np.QwenAudio:
    return qwenaudio_np.load(folder, backend="reference")


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    for name, value in changes.items():
        section, _, field = name.rpartition("__")
        (fields[section] if section else fields)[field] = value
    path.write_text(json.dumps(fields))


def test_a_folder_becomes_a_model(folder: Path) -> None:
    model = load(folder)
    assert model.labels == {"model": str(folder), "backend": "reference", "weights": "bfloat16", "kv": "float32"}
    assert model.dtype == np.float32


def test_weights_stay_as_stored_and_read_only(folder: Path) -> None:
    weight = load(folder).weights["transformer.h.0.mlp.w1.weight"]
    assert weight.dtype == np.uint16 and not weight.flags.writeable and not weight.flags.owndata


def test_audio_start_id_must_agree_with_the_vocabulary(folder: Path) -> None:
    edit_config(folder, audio__audio_start_id=4121)
    with pytest.raises(MismatchError, match=r"audio_start_id 4121.*600 ranks.*is 4120"):
        load(folder)


def test_a_cut_vocabulary_is_found_out(folder: Path) -> None:
    lines = (folder / "qwen.tiktoken").read_text().splitlines(keepends=True)
    (folder / "qwen.tiktoken").write_text("".join(lines[:-1]))
    with pytest.raises(MismatchError, match=r"audio_start_id 4120.*599 ranks.*is 4119"):
        load(folder)


def test_a_vocabulary_too_large_for_the_embedding(folder: Path) -> None:
    edit_config(folder, vocab_size=4122 - 1, audio__audio_start_id=4119)
    with pytest.raises(MismatchError):
        load(folder)


@pytest.mark.parametrize("name", ["config.json", "qwen.tiktoken"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(FormatError, match=name):
        load(folder)


@pytest.mark.parametrize(("dtype", "kv", "kept"), [
    ("float32", None, np.float32), ("float64", None, np.float64), ("float32", "bfloat16", np.uint16), ("float64", "float32", np.float32)
])  # fmt: skip
def test_how_keys_and_values_are_kept(folder: Path, dtype: str, kv: str | None, kept: type) -> None:
    model = qwenaudio_np.load(folder, backend="reference", dtype=dtype, kv=kv)
    hidden, cache = model.prefill(model.embed([1, 2, 3]))
    assert (hidden.dtype, cache.dtype, model.labels["kv"]) == (np.dtype(dtype), kept, kv or dtype)


@pytest.mark.parametrize(("weights", "dtype", "kv", "kept"), [
    ("int8", "float32", None, "bfloat16"), ("int4", "float32", None, "bfloat16"), ("int8", "float64", None, "float64"),
    ("int8", "float32", "float32", "float32"), ("bfloat16", "float32", None, "float32")
])  # fmt: skip
def test_beside_quantised_weights_keys_and_values_are_halved(folder: Path, weights: str, dtype: str, kv: str | None, kept: str) -> None:
    model = qwenaudio_np.load(folder, backend="reference", dtype=dtype, weights=weights, kv=kv)
    _, cache = model.prefill(model.embed([1, 2, 3]))
    assert model.labels["kv"] == kept and cache.dtype == (np.uint16 if kept == "bfloat16" else np.dtype(kept))


def test_unknown_dtype_kv_and_backend() -> None:
    with pytest.raises(UsageError, match="kv is 'int8', expected float32 or bfloat16"):
        qwenaudio_np.load("x", kv="int8")
    with pytest.raises(UsageError, match="float16"):
        qwenaudio_np.load("x", dtype="float16")
    with pytest.raises(UsageError, match="cuda"):
        qwenaudio_np.load("x", backend="cuda")


WRONG: list[dict[str, Any]] = [{"dtype": []}, {"kv": []}, {"backend": 5}, {"weights": 8}, {"path": b"tiny"}, {"path": 123}, {"path": ""}]


@pytest.mark.parametrize("wrong", WRONG)
def test_things_of_another_type_are_refused_in_words(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected"):
        qwenaudio_np.load(**wrong)


@pytest.mark.parametrize("threads", [0, -1, 10**6, True, 1.5])
def test_threads_out_of_range(threads: object) -> None:
    with pytest.raises(UsageError, match="--threads"):
        qwenaudio_np.load("x", threads=threads)  # type: ignore[arg-type]


def test_public_names_exist() -> None:
    for name in qwenaudio_np.__all__:
        assert getattr(qwenaudio_np, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = qwenaudio_np.nothing


def test_importing_the_package_imports_neither_numpy_nor_numba() -> None:
    code = "import sys, qwenaudio_np; print([m for m in ('numpy', 'numba', 'soundfile') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_reference_backend_never_imports_numba(folder: Path) -> None:
    use = f"qwenaudio_np.load({str(folder)!r}, backend='reference', threads=1).generate('a', max_new_tokens=2)"
    code = f"import sys, qwenaudio_np; {use}; print('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


# --- weights in another type -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8", "int4"])
def test_weights_are_converted_while_loading(golden: Path, weights: str) -> None:
    told: list[tuple[int, int]] = []
    options = {"backend": "reference", "weights": weights, "progress": lambda done, total: told.append((done, total))}
    model = qwenaudio_np.load(golden / "tiny/checkpoint", **options)  # type: ignore[arg-type]
    original = load(golden / "tiny/checkpoint")
    assert model.labels["weights"] == model.weights.label == weights  # type: ignore[attr-defined]
    assert original.labels["weights"] == "float32"
    if weights != "float32":  # as it is stored: nothing to do
        assert told == sorted(told) and told[-1][0] == told[-1][1] == sum(array.size for array in original.weights.values())  # type: ignore[union-attr]
    bound = {"float32": 0, "bfloat16": 2**-8, "int8": 0.01, "int4": 0.11}[weights]
    ids = np.arange(200)
    for name in ("transformer.h.1.mlp.w1.weight", "transformer.audio.blocks.0.mlp.0.weight"):
        exact = widen(original.weights[name], np.dtype(np.float64))
        error = widen(model.weights[name], np.dtype(np.float64)) - exact
        assert np.sqrt(np.square(error).mean() / np.square(exact).mean()) <= bound
    table = [m.ops.embedding(m.weights["transformer.wte.weight"], ids, np.dtype(np.float32)) for m in (model, original)]
    assert np.abs(table[0] - table[1]).max() <= min(bound, 0.01) * np.abs(table[1]).max()


def test_float16_becomes_float32_exactly(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "half", "float16")
    stored = load(folder).weights
    wide = qwenaudio_np.load(folder, backend="reference", weights="float32").weights
    assert all((wide[name] == stored[name]).all() and wide[name].dtype == np.float32 for name in stored)  # type: ignore[union-attr]


def test_an_unknown_type_of_weights(folder: Path) -> None:
    with pytest.raises(UsageError, match="unknown type of weights 'int3', expected one of: float32, bfloat16, int8, int4"):
        qwenaudio_np.load(folder, backend="reference", weights="int3")


@pytest.mark.parametrize("case", ["tiny", "short_context_bf16"])
@pytest.mark.parametrize(("weights", "bound"), [("int8", 0.1), ("int4", 0.6)])
def test_backends_agree_on_quantised_weights(golden: Path, speech: Path, case: str, weights: str, bound: float) -> None:
    """Both compute one thing, but for activations that lie so near the middle of two codes that the last bit decides; and both
    stay near what the stored weights give (which random weights of these small widths make hard)."""
    request = {"prompt": "what does the person say?", "audio": [speech]}
    kinds = [("reference", weights), ("numba", weights), ("reference", None)]
    models = [qwenaudio_np.load(golden / case / "checkpoint", backend, weights=kind) for backend, kind in kinds]
    one, other, exact = (qwenaudio_np.trace(model, **request)["decoder.logits"] for model in models)

    def apart(first: np.ndarray, second: np.ndarray) -> float:
        return float(np.sqrt(np.mean(np.square(first - second)) / np.mean(np.square(exact))))

    assert apart(one, other) <= 0.03
    assert 0.01 < apart(one, exact) <= bound


def test_a_library_that_cannot_be_loaded_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise OSError("Could not find/load shared object file: libllvmlite.so\n Error was: wrong architecture")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(BackendError, match=r"cannot run here \(Could not .*libllvmlite.so Error was: wrong architecture\)") as error:
        backends.compiled()
    assert "\n" not in str(error.value) and "--backend reference" in str(error.value)
