"""Fixtures for runs on canned engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import canned_runs
from null_engines import null_engine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> canned_runs.Project:
    """A project whose runs take canned engines; `null-base` is their baseline."""
    pytest.importorskip("jinja2", reason="NO REPORT: runs cannot end without one")
    judge = null_engine(tmp_path / "judge.npz", side=canned_runs.SIDE)
    data = canned_runs.labelled(tmp_path / "set", judge)
    (tmp_path / "model.pt").write_bytes(b"weights")
    return canned_runs.Project(tmp_path, data, canned_runs.install(monkeypatch))
