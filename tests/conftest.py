"""Fixtures that every test file shares, and the rule that no test touches the network."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

# Before NumPy is imported: threads of its matrix products spin while they wait, which slows everything down on a busy machine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A shell without job control lets what it starts behind an "&" ignore Ctrl-C, and so would every command that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of reference data; its README says what each file holds."""
    folder = ROOT / "tests" / "golden"
    if not folder.is_dir():
        pytest.skip(f"reference data missing: {folder}")
    return folder


@pytest.fixture(scope="session")
def speech() -> Path:
    """A real recording of a person speaking: 16 kHz, mono, 47840 samples."""
    return ROOT / "examples" / "ill_disposed.flac"


@pytest.fixture(params=["reference", "numba"])
def ops(request: pytest.FixtureRequest) -> Any:
    """Each backend in turn: a test that asks for `ops` runs over both."""
    from qwenaudio_np import backends

    return backends.get(request.param)


def _refuse(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("a test tried to use the network")


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Connecting and looking up names fail, in every test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _refuse)
        patch.setattr(socket.socket, "connect_ex", _refuse)
        patch.setattr(socket, "getaddrinfo", _refuse)
        yield


@pytest.fixture()
def short(golden: Path) -> Path:
    """A golden folder whose checkpoint is in bfloat16: the source of most conversions."""
    return golden / "short_context_bf16"


@pytest.fixture()
def out(tmp_path: Path) -> Path:
    """Where a conversion is asked to write; nothing is there yet."""
    return tmp_path / "out"
