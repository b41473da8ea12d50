"""What PyTorch needs on a machine before a variant of it is tried."""

from __future__ import annotations

import sys
import sysconfig
from typing import TYPE_CHECKING

import pytest

from raudo import discover
from raudo.machine import describe

if TYPE_CHECKING:
    from pathlib import Path

BACKEND = discover.backend("torch")
EAGER, COMPILED = (
    next(
        v for v in BACKEND.variants if v.device == "cpu" and bool(v.options.get("compile")) is asked
    )
    for asked in (False, True)
)


@pytest.fixture
def headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of Python's headers, and this Python as the compiler."""
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path))
    monkeypatch.setenv("CXX", f"'{sys.executable}' --some-option")
    return tmp_path


@pytest.mark.usefixtures("headers")
def test_with_a_compiler_and_headers_everything_is_tried() -> None:
    assert BACKEND.unsupported(COMPILED, describe()) is None


@pytest.mark.parametrize("compiler", ["no-such-compiler", ""])
def test_without_a_compiler_compiling_is_skipped_with_the_reason(
    compiler: str, headers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", compiler)
    reason = BACKEND.unsupported(COMPILED, describe())
    assert reason is not None
    assert f"'{compiler}' was not found" in reason
    assert BACKEND.unsupported(EAGER, describe()) is None


def test_without_python_s_headers_compiling_is_skipped_with_the_reason(headers: Path) -> None:
    (headers / "Python.h").unlink()
    reason = BACKEND.unsupported(COMPILED, describe())
    assert reason is not None
    assert "python3-dev" in reason
