"""The ceilings that figures are related to: what is counted, and that it is measured around the run. No timing is asserted."""

from __future__ import annotations

import numpy as np
import pytest

from qwenaudio_np import ceilings


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> ceilings.Ceilings:
    monkeypatch.setattr(ceilings, "READ_BYTES", 1 << 16)
    monkeypatch.setattr(ceilings, "PAUSE", 0.0)
    return ceilings.Ceilings(3, 8, 5, threads=2)


def test_a_run_stands_between_its_ceilings(small: ceilings.Ceilings, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    readings, products = iter((1.0, 3.0)), iter((10.0, 50.0))
    monkeypatch.setattr(small, "reading", lambda: order.append("reading") or next(readings))
    monkeypatch.setattr(small, "product", lambda: order.append("product") or next(products))
    assert small.beside(lambda: order.append("run") or "told") == ("told", 2.0, 30.0)
    assert order == ["product", "reading", "run", "reading", "product"]


def test_what_is_read_and_multiplied(small: ceilings.Ceilings, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(ceilings, "seconds", lambda function: done.append(function()) or 0.5)
    assert small.reading() == 2 * (1 << 16) and done == [[1, 1]]  # the largest of ones, a share for each thread
    assert small.product() == 2 * 2 * 3 * 8 * 5
    assert np.shape(done[-1]) == (3, 5)
