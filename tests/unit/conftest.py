"""Fixtures for runs on canned engines."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

import canned_runs
from null_engines import null_engine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a data set that `null-base` is right about."""
    folder = tmp_path_factory.mktemp("labelled")
    judge = null_engine(folder / "judge.npz", side=canned_runs.SIDE)
    return canned_runs.labelled(folder / "set", judge).parent


@pytest.fixture
def project(tmp_path: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch) -> canned_runs.Project:
    """A project whose runs take canned engines; `null-base` is their baseline."""
    pytest.importorskip("jinja2", reason="NO REPORT: runs cannot end without one")
    data = shutil.copytree(labelled, tmp_path / "set") / "data.yaml"
    (tmp_path / "model.pt").write_bytes(b"weights")
    return canned_runs.Project(tmp_path, data, canned_runs.install(monkeypatch))
