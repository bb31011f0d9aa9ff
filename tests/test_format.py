"""convert/FORMAT.md is true: its worked example, and files written in that layout, mapped and used as they lie."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors

import qwenaudio_np
from qwenaudio_np.checkpoint import INDEX_FILE, checkpoint_summary
from qwenaudio_np.config import load_config
from qwenaudio_np.errors import MismatchError, UsageError
from qwenaudio_np.quantised import Quantised, quantise
from qwenaudio_np.weight_plan import pieces
from tests.cli_tools import request, runner, tracing
from tests.make_checkpoint import make_checkpoint

FORMAT = Path(__file__).resolve().parent.parent / "convert" / "FORMAT.md"


@pytest.fixture(scope="module", params=["int8", "int4"])
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A checkpoint, its quantised conversion, and the type."""
    from qwenaudio_np.convert.converter import convert_checkpoint

    folder = tmp_path_factory.mktemp(request.param)
    source = make_checkpoint(folder / "source", "bfloat16")
    convert_checkpoint(source, folder / "made", weights=request.param, shard_size=300_000)
    return source, folder / "made", request.param


def load(folder: Path, **options: str) -> qwenaudio_np.QwenAudio:
    return qwenaudio_np.load(folder, backend="reference", **options)  # type: ignore[arg-type]


def test_the_worked_example() -> None:
    weight = np.zeros((2, 32), np.float32)
    weight[0, [0, 1, 31]] = 127 / 128, -1 / 128, 64 / 128
    weight[1] = np.arange(32) % 16 / 2 - 2
    rows = re.findall(r"^\| int(8|4) (\w+) \| (\d+) \| ([0-9A-F]+) \|", FORMAT.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == 16
    for bits, ending, index, value in rows:
        assert quantise(weight, int(bits)).parts[ending][0, 0, int(index)] == int(value, 16), (bits, ending, index)
    assert np.count_nonzero(quantise(weight, 8).codes.reshape(8, 16, 4)[:, 0]) == 3
    assert (quantise(weight, 4)[:][1] == weight[1]).all()


def test_a_converted_folder_is_what_loading_would_make(converted: tuple[Path, Path, str]) -> None:
    source, made, weights = converted
    stored, here = load(made).weights, load(source, weights=weights).weights
    assert list(stored) == list(here)
    for name, weight in stored.items():
        other = here[name]
        if isinstance(weight, Quantised):
            assert isinstance(other, Quantised) and (weight.bits, weight.shape) == (other.bits, other.shape)
            for ending, part in weight.parts.items():
                assert part.tobytes() == other.parts[ending].tobytes(), (name, ending)
                assert not part.flags.owndata and not part.flags.writeable  # mapped
        else:
            assert not isinstance(other, Quantised) and weight.dtype == np.float32
    embedding = stored["transformer.wte.weight"]
    assert isinstance(embedding, Quantised) and embedding.bits == 8


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_both_answer_alike(converted: tuple[Path, Path, str], backend: str) -> None:
    source, made, weights = converted
    models = [qwenaudio_np.load(made, backend), qwenaudio_np.load(source, backend, weights=weights)]
    assert [model.labels["weights"] for model in models] == [weights, weights]
    first, second = (model.logits(model.prefill(model.embed([70, 80, 90]))[0]) for model in models)
    assert (first == second).all()


def test_what_is_quantised_stays_so(converted: tuple[Path, Path, str]) -> None:
    _, made, weights = converted
    assert load(made, weights=weights).labels["weights"] == weights
    with pytest.raises(UsageError, match=f"is {weights} already; .* make float32 from the original checkpoint"):
        load(made, weights="float32")


def test_a_missing_part_is_named(converted: tuple[Path, Path, str], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(converted[1], tmp_path / "copy"))
    for path in [*folder.glob("*.safetensors"), folder / INDEX_FILE]:
        path.write_bytes(path.read_bytes().replace(b"transformer.h.0.mlp.w1.weight.scales", b"transformer.h.0.mlp.w1.weight.sca1es"))
    with pytest.raises(MismatchError, match=r"'transformer\.h\.0\.mlp\.w1\.weight\.scales' missing"):
        load(folder)


def test_parts_must_fit_the_config(converted: tuple[Path, Path, str], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(converted[1], tmp_path / "copy"))
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(re.sub(r'"intermediate_size": \d+', '"intermediate_size": 120', config))
    with pytest.raises(MismatchError, match=r"mlp\.w1\.weight\.codes' in .* is \[2, 1, \d+\], config\.json asks for \[4, 1, \d+\]"):
        load(folder)


def test_the_summary_counts_weights_not_bytes(converted: tuple[Path, Path, str]) -> None:
    """Nor what fills a matrix up: width 24 takes groups of 32."""
    source, made, _ = converted
    exact, quantised = (checkpoint_summary(folder, load_config(folder)) for folder in (source, made))
    assert quantised.decoder_parameters == exact.decoder_parameters and quantised.encoder_parameters == exact.encoder_parameters
    assert quantised.weight_bytes == load(made).weights.nbytes  # type: ignore[attr-defined]


def test_the_summary_asks_the_config_what_codes_stand_for(converted: tuple[Path, Path, str], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(converted[1], tmp_path / "copy"))
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"num_hidden_layers": 2', '"num_hidden_layers": 1'))
    with pytest.raises(MismatchError, match=r"'transformer\.h\.1\..*' is not of this config\.json"):
        checkpoint_summary(folder, load_config(folder))


def test_tied_embeddings(tmp_path: Path) -> None:
    from qwenaudio_np.convert.converter import convert_checkpoint

    source = make_checkpoint(tmp_path / "source", "float32", tie_word_embeddings=True)
    convert_checkpoint(source, tmp_path / "made", weights="int4")
    weights = load(tmp_path / "made").weights
    assert weights["lm_head.weight"] is weights["transformer.wte.weight"] and isinstance(weights["lm_head.weight"], Quantised)


def test_which_pieces_are_asked_for() -> None:
    """Codes count only where the tensor itself is not there, and only for what can be quantised."""
    shapes = {"lm_head.weight": (20, 40), "transformer.ln_f.weight": (40,)}
    parts = {f"{name}.{ending}" for name in shapes for ending in ("codes", "scales", "offsets")}
    asked = {name: piece.shape for name, piece in pieces(shapes, parts).items()}
    assert asked == {
        "lm_head.weight.codes": (2, 2, 256), "lm_head.weight.scales": (2, 2, 16), "lm_head.weight.offsets": (2, 2, 16),
        "transformer.ln_f.weight": (40,),
    }  # fmt: skip
    assert pieces(shapes, parts - {"lm_head.weight.offsets"})["lm_head.weight.codes"].shape == (2, 2, 512)
    assert list(pieces(shapes, parts | set(shapes))) == list(shapes)


@pytest.mark.parametrize("verb", ["run", "trace"])
def test_the_option(verb: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run, target = runner(capfd), tmp_path / "trace.safetensors"
    words = request("-p", "hello", "--json") if verb == "run" else tracing("-p", "hello", "-o", target)
    outcome = run(*words, "--weights", "int4", "-v")
    assert outcome.status == 0 and "int4 weights made: 100 %" in outcome.err
    with contextlib.ExitStack() as stack:
        told = json.loads(outcome.out) if verb == "run" else stack.enter_context(safetensors.safe_open(target, "numpy")).metadata()
        assert told["weights"] == "int4"
