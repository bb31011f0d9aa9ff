"""What is said about a checkpoint and an answer, as data and as lines, by hand-made examples."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from qwenaudio_np import __version__
from qwenaudio_np.audio import clip_from_array
from qwenaudio_np.config import load_config
from qwenaudio_np.report import checkpoint_report, report_lines, result_report, summary_line
from qwenaudio_np.request import Result
from tests.cli_tools import TINY
from tests.make_checkpoint import make_checkpoint

TIMES = {"load": 0.5, "audio": 0.25, "encode": 1.0, "prefill": 2.0, "decode": 1.5, "total": 5.25}


def result(tokens: int = 4, name: str = "model") -> Result:
    clip = clip_from_array(np.zeros(1600), 16000)  # 10 frames, 5 positions, 2 vectors, and two rows around them
    labels = {"model": name, "backend": "reference", "weights": "float32"}
    return Result("héllo", list(range(tokens)), [7, 8, 9], "stop", dict(TIMES), [clip], labels)


def test_a_result_as_data() -> None:
    assert result_report(result()) == {
        "text": "héllo",
        "token_ids": [0, 1, 2, 3],
        "prompt_ids": [7, 8, 9],
        "audio": [{"path": "<array>", "seconds": 0.1, "positions": 5, "tokens": 4}],
        "stop": "stop",
        "timings": TIMES,
        "tokens_per_second": 2.667,  # 4 steps in 1.5 s: the first token is the prefill's, but the stop id took one
        "model": "model",
        "backend": "reference",
        "weights": "float32",
        "version": __version__,
    }


def test_a_result_as_a_line() -> None:
    line = summary_line(result(name="two\nlines"))
    assert line.isprintable() and line.startswith("3 + 4 tokens (stop); load 0.50 s") and "2.7 tokens/s" in line
    assert line.endswith("model 'two\\nlines', backend reference, weights float32")
    assert "tokens/s" not in summary_line(result(tokens=0))


def test_a_stop_id_takes_a_step() -> None:
    ended = result()
    assert ended.tokens_per_second == pytest.approx(4 / 1.5)
    assert replace(ended, stop_reason="length").tokens_per_second == pytest.approx(3 / 1.5)


def test_a_checkpoint_as_data_and_lines() -> None:
    tensors = [load_file(path) for path in sorted(TINY.glob("*.safetensors"))]
    encoder = sum(t.size for file in tensors for name, t in file.items() if name.startswith("transformer.audio."))
    decoder = sum(t.size for file in tensors for t in file.values()) - encoder
    report = checkpoint_report(str(TINY), load_config(TINY))
    assert report["parameters"] == {"encoder": encoder, "decoder": decoder} and report["weight_bytes"] == 4 * (encoder + decoder)
    assert [(file["name"], file["dtypes"]) for file in report["files"]] == [
        (path.name, {"float32": len(file)}) for path, file in zip(sorted(TINY.glob("*.safetensors")), tensors, strict=True)
    ]
    assert report["memory_bytes"]["cache_per_position"] == 3 * 2 * 64 * 4  # layers, keys and values, width, bytes
    assert json.loads(json.dumps(report)) == report
    lines = report_lines(report)
    assert all(line.isprintable() for line in lines) and f"{encoder + decoder:,} parameters" in lines[0]
    assert any("logn" in line for line in lines) and any("averaged" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "audio", "said", "unsaid"),
    [
        ({}, {}, ("dynamic NTK: prompts past 16", "logn: queries past position 16", "averaged", "learned rows"), ("rotary on", "tied")),
        ({"use_dynamic_ntk": False, "use_logn_attn": False}, {"avg_pool": False}, ("learned rows",), ("NTK", "logn", "averaged")),
        ({"rotary_pct": 0.5, "tie_word_embeddings": True}, {}, ("rotary on 6 of 12", "tied"), ()),
        ({}, {"add_audio_bos_eos_token": False}, ("averaged",), ("learned rows",)),
        ({"vocab_size": 500}, {"none": True}, ("encoder: none",), ("sound:",)),
    ],
)
def test_switches(text: dict, audio: dict, said: tuple[str, ...], unsaid: tuple[str, ...], tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", audio=audio, **text)
    lines = "\n".join(report_lines(checkpoint_report(str(folder), load_config(folder))))
    on = "\n".join(line for line in lines.splitlines() if line.startswith("on: "))
    assert all(words in lines for words in said) and not any(words in on for words in unsaid)
    assert "for 600 positions" in lines and "2048 positions" not in lines  # max_position_embeddings is 600
