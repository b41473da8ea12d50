"""The sample reports, rendered once a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import sample_report
from raudo import discover

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from raudo.records import Report


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="session")
def reports(folder: Path) -> Mapping[str, Report]:
    return sample_report.every(folder)


@pytest.fixture(scope="session")
def rendered(reports: Mapping[str, Report], folder: Path) -> Callable[[str, str], str]:
    """A function of format and kind of report; it renders each once."""
    kept: dict[tuple[str, str], str] = {}

    def render(name: str, kind: str) -> str:
        if (name, kind) not in kept:
            kept[name, kind] = discover.load("reports", name).render(reports[kind], folder)
        return kept[name, kind]

    return render
