"""`raudo export` on canned engines: which files it leaves, what it skips, what it takes back."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from raudo import discover
from raudo.cli import app
from raudo.errors import EngineError, OutputError, WorkerError
from raudo.records import PrecisionAudit
from raudo.workspace import read_artifact

if TYPE_CHECKING:
    from pathlib import Path

    from canned_runs import Project

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nncf") is None, reason="NO NNCF: INT8 goes untested"
)


def export(project: Project, *words: str) -> Any:
    """Export the project's model into its folder `made`."""
    model, made = str(project.folder / "model.pt"), str(project.folder / "made")
    command = ["export", model, "--to", "null", "--output", made, *words]
    return CliRunner().invoke(app, command, catch_exceptions=False)


def made(project: Project) -> set[str]:
    folder = project.folder / "made"
    return {file.name for file in folder.iterdir()} if folder.exists() else set()


@pytest.fixture
def calibration(project: Project) -> Path:
    return project.data.parent / "images" / "val"


def test_each_precision_is_a_file_with_its_manifest(project: Project, calibration: Path) -> None:
    words = ("--precision", "fp32,int8", "--calibration", str(calibration), "--json")
    ended = export(project, *words)
    assert ended.exit_code == 0, ended.output
    rows = {row["name"]: row for row in json.loads(ended.stdout)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "null-base": "OK",
        "null-small": "OK",
    }
    assert made(project) == {
        "model.npz",
        "model.npz.json",
        "model.int8.npz",
        "model.int8.npz.json",
    }
    small = read_artifact(project.folder / "made" / "model.int8.npz").manifest
    assert small.audit == PrecisionAudit(found={"int8": 1})
    assert small.calibration is not None
    assert small.calibration.images == 3
    assert read_artifact(project.folder / "made" / "model.npz").manifest.calibration is None


def test_int8_without_images_is_skipped_with_the_reason(project: Project) -> None:
    ended = export(project, "--precision", "fp32,int8")
    assert ended.exit_code == 0, ended.output
    assert "no calibration images" in " ".join(ended.stdout.split())
    assert made(project) == {"model.npz", "model.npz.json"}


def test_what_a_runtime_compiles_is_left_for_the_first_start(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export(project).exit_code == 0
    assert project.faults.called("keep_compiled") == []
    monkeypatch.setattr(type(discover.backend("null")), "keeps_compiled", True)
    assert export(project).exit_code == 0
    assert project.faults.called("keep_compiled") == ["null-base"]
    assert project.faults.called("open") == ["null-base"], "by the first export: once is enough"


def test_making_an_engine_may_take_as_long_as_its_backend_says(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(discover.backend("null")), "making_factor", 4.0)
    assert export(project, "--timeout", "20").exit_code == 0
    assert project.faults.limits["build", "null-base"] == 80.0


def test_nothing_made_is_exit_code_2(project: Project) -> None:
    assert export(project, "--precision", "int8").exit_code == 2
    assert not (project.folder / "made").exists()


def test_a_precision_that_a_format_does_not_have_is_skipped(project: Project) -> None:
    ended = export(project, "--precision", "fp32,bf16", "--json")
    assert ended.exit_code == 0, ended.output
    rows = {row["name"]: row for row in json.loads(ended.stdout)}
    assert rows["null-bf16"]["status"] == "SKIPPED"
    assert "has no bf16" in rows["null-bf16"]["reason"]


@pytest.mark.parametrize("action", ["build", "open"])
def test_what_failed_is_taken_back(action: str, project: Project, calibration: Path) -> None:
    project.faults.planned[action, "null-small"] = WorkerError("it crashed", hint="")
    ended = export(project, "--precision", "fp32,int8", "--calibration", str(calibration))
    assert ended.exit_code == 2
    assert "it crashed" in ended.stdout
    assert made(project) == {"model.npz", "model.npz.json"}


@pytest.mark.parametrize("action", ["build", "open"])
def test_an_engine_from_before_stays_if_none_takes_its_place(action: str, project: Project) -> None:
    assert export(project).exit_code == 0
    before = {file: file.read_bytes() for file in (project.folder / "made").iterdir()}
    project.faults.planned[action, "null-base"] = WorkerError("it crashed", hint="")
    assert export(project).exit_code == 2
    assert {file: file.read_bytes() for file in (project.folder / "made").iterdir()} == before


def test_a_full_disk_is_no_fault_of_an_engine(project: Project, calibration: Path) -> None:
    full = OutputError("cannot write model.int8.npz: No space left on device", hint="make room")
    project.faults.planned["build", "null-small"] = full
    ended = export(project, "--precision", "fp32,int8", "--calibration", str(calibration))
    assert ended.exit_code == 2
    assert ended.stderr.endswith(f"error: {full.message}\nhint: make room\n")
    assert not ended.stdout
    assert made(project) == {"model.npz", "model.npz.json"}


def test_a_full_disk_leaves_not_even_a_folder(project: Project) -> None:
    full = OutputError("cannot write model.npz: No space left on device", hint="make room")
    project.faults.planned["build", "null-base"] = full
    assert export(project).exit_code == 2
    assert not (project.folder / "made").exists()


def test_another_precision_than_asked_for_is_no_engine(project: Project) -> None:
    project.faults.audits["model"] = PrecisionAudit(found={"fp16": 3, "fp32": 1})
    ended = export(project)
    assert ended.exit_code == 2
    assert "asked for fp32, but found 3 in fp16" in " ".join(ended.stdout.split())
    assert made(project) == set()


def test_a_model_that_does_not_export_leaves_no_engine(project: Project) -> None:
    project.faults.planned["write_onnx", "export"] = EngineError("no such operator", hint="none")
    ended = export(project)
    assert ended.exit_code == 2
    assert ended.stderr == "error: no such operator\nhint: none\n"
    assert made(project) == set()
