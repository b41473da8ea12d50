"""Every report format, found by scanning, renders every kind of report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import sample_report
from raudo import discover

if TYPE_CHECKING:
    from pathlib import Path

    from raudo.records import Report

FORMATS = discover.names("reports")
KINDS = (
    "full",
    "no labels",
    "only the baseline",
    "nothing passes",
    "inconclusive",
    "nothing ran",
    "thirty candidates",
    "disturbed, with warnings",
    "hostile names",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def reports(folder: Path) -> dict[str, Report]:
    made = dict(sample_report.every(folder))
    assert tuple(made) == KINDS
    return made


def loaded(name: str) -> Any:
    if name == "html":
        for needed in ("jinja2", "matplotlib"):
            pytest.importorskip(needed, reason="NO REPORT PACKAGES: HTML goes untested")
    return discover.load("reports", name)


def test_the_formats_that_the_issue_names_are_there() -> None:
    assert {"html", "json", "markdown"} <= set(FORMATS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORMATS)
def test_renders(name: str, kind: str, reports: dict[str, Report], folder: Path) -> None:
    plugin = loaded(name)
    text = plugin.render(reports[kind], folder)
    assert plugin.name == name
    assert plugin.suffix.startswith(".")
    assert text.endswith("\n")
    assert len(text.encode()) < 3_000_000
    for decision in reports[kind].decisions.values():
        assert decision.verdict in text


@pytest.mark.parametrize("name", FORMATS)
def test_deterministic(name: str, reports: dict[str, Report], folder: Path) -> None:
    plugin = loaded(name)
    assert plugin.render(reports["full"], folder) == plugin.render(reports["full"], folder)


def test_suffixes_differ() -> None:
    suffixes = [plugin.suffix for plugin in discover.report_formats()]
    assert len(set(suffixes)) == len(suffixes)
