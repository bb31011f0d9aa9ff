"""What the tests of porters' mistakes measure with: the twin is right, and each mistake that it can make has a test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.make_checkpoint import distance
from tests.mistake_tools import CASE, FOLDER, read_clip
from tests.naive_network import MISTAKES, NaiveNetwork

pytestmark = pytest.mark.usefixtures("golden")


@pytest.mark.parametrize("case", ["text_only", "length_129", "asr_tone", "chat_two_audios"])
def test_the_twin_is_right(case: str) -> None:
    """The twin computes what the original computes in float64 (with audio: to float32's rounding of the original's mel)."""
    from safetensors.numpy import load_file

    facts = json.loads((CASE.parent / case / "case.json").read_text(encoding="utf-8"))
    clips = [read_clip(Path(name).name) for name in facts["audio"]]
    found = NaiveNetwork(FOLDER).logits(facts["input_ids"], clips)
    expected = load_file(CASE.parent / case / "expected.safetensors")["decoder.logits_f64"]
    assert distance(found[-4:], expected) < (5e-5 if clips else 1e-11)


def test_every_mistake_of_the_twin_has_a_test_here() -> None:
    files = Path(__file__).parent.glob("test_porters_mistakes_*.py")
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    assert not [name for name in MISTAKES if f'"{name}"' not in text]
