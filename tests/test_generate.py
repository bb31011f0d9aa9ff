"""The loop, on a stand-in for the model whose logits are known: after id i it prefers id i + 1."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qwenaudio_np.generate import forbid, generate_ids, stop_ids, stop_reason
from qwenaudio_np.sampler import greedy
from qwenaudio_np.special_tokens import TEXT_TOKENS
from qwenaudio_np.tokenizer import Tokenizer

VOCABULARY = 10


def prefer(token: int) -> np.ndarray:
    logits = np.zeros(VOCABULARY, np.float32)
    logits[token] = 1.0
    return logits


class Counting:
    """Prefers the next higher id at every step, and notes what it was asked."""

    def __init__(self, limit: int = 1000) -> None:
        self.asked: list[int] = []
        self.config = SimpleNamespace(text=SimpleNamespace(max_position_embeddings=limit))

    def step(self, token: int, cache: Any) -> np.ndarray:
        self.asked.append(token)
        cache.length += 1
        return prefer(token + 1)


def run(model: Counting, **options: Any) -> list[int]:
    settings = {"stops": {7}, "max_new_tokens": 100, **options}
    return [token for token, _ in generate_ids(model, prefer(2), SimpleNamespace(length=5), greedy, **settings)]  # type: ignore[arg-type]


def test_runs_up_to_and_with_the_stop_id() -> None:
    assert run(Counting()) == [2, 3, 4, 5, 6, 7]


def test_computes_nothing_past_what_it_yields() -> None:
    model = Counting()
    run(model, max_new_tokens=3)
    assert model.asked == [2, 3]  # the third id needs no logits after it


def test_max_new_tokens() -> None:
    assert run(Counting(), max_new_tokens=3) == [2, 3, 4]


def test_first_ids_cannot_be_stop_ids() -> None:
    assert run(Counting(), stops={2}, min_new_tokens=1, max_new_tokens=3) == [0, 1, 2]


def test_ends_with_the_context() -> None:
    # positions 0..4 hold the prompt; ids 2, 3 and 4 fill positions 5, 6, 7, and the last id needs no position of its own
    assert run(Counting(limit=8)) == [2, 3, 4, 5]


def test_yields_the_logits_an_id_was_picked_from() -> None:
    pairs = list(generate_ids(Counting(), prefer(2), SimpleNamespace(length=0), greedy, {4}, 100))  # type: ignore[arg-type]
    assert [int(logits.argmax()) for _, logits in pairs] == [2, 3, 4]


@pytest.mark.parametrize(
    ("ids", "limit", "reason"), [([1, 7], 9, "stop"), ([1, 2], 2, "length"), ([1, 2], 9, "context"), ([1, 7], 2, "stop")]
)
def test_stop_reason(ids: list[int], limit: int, reason: str) -> None:
    assert stop_reason(ids, {7}, limit) == reason


def test_forbid_leaves_the_original_alone() -> None:
    logits = prefer(3)
    assert greedy(forbid(logits, [3])) == 0
    assert logits[3] == 1.0


def test_stop_ids() -> None:
    tokenizer = Tokenizer({bytes([i]): i for i in range(256)}, TEXT_TOKENS)
    assert stop_ids(tokenizer, "raw") == {256}
    assert stop_ids(tokenizer, "chatml") == {256, 257, 258}
