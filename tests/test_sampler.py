"""Picking ids: hand-worked distributions, the edges of every setting, repeatability."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from qwenaudio_np.errors import NumericsError, UsageError
from qwenaudio_np.sampler import Sampling, distribution, greedy, make_sampler

# chances 0.4, 0.1, 0.3, 0.2 at temperature 1
LOGITS = np.log(np.array([0.4, 0.1, 0.3, 0.2], np.float32))


def test_greedy_takes_the_best_and_of_equals_the_first() -> None:
    assert greedy(np.array([1.0, 3.0, 3.0, 2.0], np.float32)) == 1
    assert make_sampler(Sampling(temperature=0, top_k=1, seed=5))(LOGITS) == 0


def test_numbers_of_numpy_are_numbers() -> None:
    plain, theirs = Sampling(0.5, 2, 0.9, 3), Sampling(np.float64(0.5), np.int64(2), np.float32(0.9), np.uint8(3))  # type: ignore[arg-type]
    assert [make_sampler(plain)(LOGITS) for _ in range(3)] == [make_sampler(theirs)(LOGITS) for _ in range(3)]
    with pytest.raises(UsageError, match="--seed"):
        Sampling(1.0, seed=np.bool_(True))  # type: ignore[arg-type]


def test_other_numbers_of_python_are_numbers() -> None:
    halves = Sampling(Fraction(1, 2), top_p=Fraction(1, 2))  # type: ignore[arg-type]
    np.testing.assert_array_equal(distribution(LOGITS, halves), distribution(LOGITS, Sampling(0.5, top_p=0.5)))


def test_less_than_any_float_is_greedy() -> None:
    assert make_sampler(Sampling(Fraction(1, 10**400)))(LOGITS) == 0  # type: ignore[arg-type]


def test_a_number_that_python_does_not_write_down() -> None:
    with pytest.raises(UsageError, match="--temperature is "):
        Sampling(10**5000)


def test_top_p_that_is_reached_exactly_keeps_no_more() -> None:
    assert np.count_nonzero(distribution(np.zeros(4, np.float32), Sampling(1.0, top_p=0.5))) == 2  # a quarter each


def test_temperature_sharpens() -> None:
    # at temperature 1/2 the chances are squared: 16, 1, 9, 4 of 30
    np.testing.assert_allclose(distribution(LOGITS, Sampling(0.5)), np.array([16, 1, 9, 4]) / 30, rtol=1e-6)


def test_top_k_keeps_the_best() -> None:
    np.testing.assert_allclose(distribution(LOGITS, Sampling(1.0, top_k=2)), [4 / 7, 0, 3 / 7, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.05, [0]), (0.39, [0]), (0.41, [0, 2]), (0.69, [0, 2]), (0.75, [0, 2, 3]), (0.95, [0, 1, 2, 3])]
)
def test_top_p_keeps_the_fewest_that_reach_the_mass(top_p: float, kept: list[int]) -> None:
    chances = distribution(LOGITS, Sampling(1.0, top_p=top_p))
    assert np.flatnonzero(chances).tolist() == kept
    assert chances.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("off", [{"top_p": 0.0}, {"top_p": 1.0}, {"top_k": 0}, {"top_k": 10**9}])
def test_switched_off(off: dict[str, Any]) -> None:
    np.testing.assert_allclose(distribution(LOGITS, Sampling(1.0, **off)), [0.4, 0.1, 0.3, 0.2], rtol=1e-6)


@pytest.mark.parametrize("temperature", [1e-30, 1e-300])
def test_tiny_temperature_is_greedy_without_nan(temperature: float) -> None:
    assert distribution(LOGITS, Sampling(temperature)).tolist() == [1, 0, 0, 0]


def test_huge_temperature_is_even() -> None:
    np.testing.assert_allclose(distribution(LOGITS, Sampling(1e30)), [0.25] * 4, rtol=1e-6)


def test_a_seed_repeats_and_another_differs() -> None:
    def draws(seed: int) -> list[int]:
        sampler = make_sampler(Sampling(1.0, seed=seed))
        return [sampler(LOGITS) for _ in range(50)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_frequencies_follow_the_chances() -> None:
    sampler = make_sampler(Sampling(1.0, seed=0))
    n = 20_000
    counts = np.bincount([sampler(LOGITS) for _ in range(n)], minlength=4)
    for count, chance in zip(counts, [0.4, 0.1, 0.3, 0.2], strict=True):
        assert abs(count - n * chance) < 5 * math.sqrt(n * chance * (1 - chance))  # five standard deviations


def test_what_is_cut_off_is_never_drawn() -> None:
    sampler = make_sampler(Sampling(1.0, top_k=1, seed=0))
    assert {sampler(LOGITS) for _ in range(1000)} == {0}


@pytest.mark.parametrize("bad", [[], [np.nan, 1.0], [-np.inf, -np.inf], [np.inf, 1.0]])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_broken_logits_are_an_error(bad: list[float], temperature: float) -> None:
    with pytest.raises(NumericsError, match="damaged"):
        make_sampler(Sampling(temperature, seed=0))(np.array(bad, np.float32))


def test_forbidden_ids_are_allowed_to_be_minus_infinity() -> None:
    assert greedy(np.array([-np.inf, -5.0], np.float32)) == 1


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"temperature": -1.0}, "--temperature"),
        ({"temperature": math.nan}, "--temperature"),
        ({"temperature": math.inf}, "--temperature"),
        ({"temperature": "1"}, "--temperature"),
        ({"top_p": None}, "--top-p"),
        ({"top_p": 1.5}, "--top-p"),
        ({"top_p": -0.1}, "--top-p"),
        ({"top_p": math.nan}, "--top-p"),
        ({"top_k": -1}, "--top-k"),
        ({"top_k": 2.5}, "--top-k"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_settings_out_of_range(options: dict[str, Any], name: str) -> None:
    with pytest.raises(UsageError, match=name):
        Sampling(**options)
