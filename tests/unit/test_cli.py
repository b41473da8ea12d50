"""The command line on canned engines: what it prints, its exit codes, how Ctrl-C ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from raudo import reporting, workspace
from raudo.cli import app
from raudo.errors import OutputError, WorkerError
from raudo.records import Report

if TYPE_CHECKING:
    from pathlib import Path

    from canned_runs import Project

EASY = ("--gate", "production_cpu.speedup=0.01")
SHORT = ("--shapes", "own", "--timing-budget", "0.2", "--name", "run")


def typed(project: Project, *words: str) -> Any:
    """Type a command in the project's folder."""
    return CliRunner().invoke(app, list(words), catch_exceptions=False)


def optimized(project: Project, *words: str) -> Any:
    model, data = str(project.folder / "model.pt"), str(project.data)
    if "--config" not in words:
        (project.folder / "few.yaml").write_text("bootstrap: 100\n")
        words = (*words, "--config", str(project.folder / "few.yaml"))
    output = ("--output", str(project.folder / "runs"))
    return typed(project, "optimize", model, "--data", data, *SHORT, *output, *words)


def resumed(project: Project, *words: str) -> Any:
    again = ("--resume", "--name", "run", "--output", str(project.folder / "runs"))
    return typed(project, "optimize", *again, *words)


def shown(ended: Any) -> str:
    return " ".join(ended.stdout.split())


def test_what_passes_is_exit_code_0(project: Project) -> None:
    ended = optimized(project, *EASY)
    assert ended.exit_code == 0, ended.output
    assert "✔ production_cpu: PASS -> null-same" in shown(ended)
    assert str(project.folder / "runs/run/report.html") in ended.stdout.replace("\n", "")


def test_a_gate_out_of_reach_is_exit_code_1_and_says_by_how_much(project: Project) -> None:
    ended = optimized(project, "--gate", "production_cpu.speedup=10000")
    assert ended.exit_code == 1, ended.output
    assert "production_cpu: FAIL" in shown(ended)
    assert "fails on speedup by" in shown(ended)


def test_a_gate_inside_of_an_interval_is_exit_code_3(project: Project) -> None:
    report = Report.model_validate_json(optimized(project, "--json").stdout)
    (same,) = (c for c in report.candidates if c.name == "null-same")
    assert same.speedup is not None
    assert same.speedup.low < same.speedup.median
    gate = f"production_cpu.speedup={same.speedup.median!r}"
    ended = resumed(project, "--only", same.name, "--gate", gate)
    assert ended.exit_code == 3, ended.output
    assert "straddles the gate" in shown(ended)


def test_the_exit_code_speaks_of_the_targets_asked_for(project: Project) -> None:
    never = ("--gate", "production_cpu.speedup=10000")
    assert optimized(project, *never, "--target", "development").exit_code == 0
    assert resumed(project, *never, "--target", "production_gpu").exit_code == 0, "it is SKIPPED"
    both = ("--target", "development", "--target", "production_cpu")
    assert resumed(project, *never, *both).exit_code == 1


def test_json_is_the_report_and_nothing_else(project: Project) -> None:
    ended = optimized(project, *EASY, "--json")
    written = json.loads((project.folder / "runs/run/report.json").read_bytes())
    assert json.loads(ended.stdout) == written


def test_ctrl_c_names_the_way_on(project: Project) -> None:
    project.faults.planned["evaluate", "null-same"] = KeyboardInterrupt()
    ended = optimized(project)
    assert ended.exit_code == 130
    runs = project.folder / "runs"
    way_on = f"raudo optimize --resume --name run --output {runs}"
    assert ended.stderr.endswith(f"interrupted\nhint: go on with it: {way_on}\n")
    assert "Traceback" not in ended.output
    project.faults.planned.clear()
    assert resumed(project, *EASY).exit_code == 0


def test_ctrl_c_before_there_is_a_run_names_none(project: Project) -> None:
    project.faults.planned["inspect", "model.pt"] = KeyboardInterrupt()
    ended = optimized(project)
    assert ended.exit_code == 130
    assert ended.stderr.endswith("interrupted\n")
    assert not (project.folder / "runs").exists()


def test_a_run_that_cannot_go_on_is_a_line_a_hint_and_exit_code_2(project: Project) -> None:
    project.faults.planned["build", "null-base"] = WorkerError("it crashed", hint="mend it")
    ended = optimized(project)
    assert ended.exit_code == 2
    assert "error: the baseline null-base failed: it crashed\nhint: " in ended.stderr
    assert not ended.stdout


def test_why_each_won_or_lost_is_told_on_request(project: Project) -> None:
    optimized(project, *EASY)
    run = str(project.folder / "runs/run")
    plain, explained = typed(project, "report", run), typed(project, "report", run, "--explain")
    assert plain.exit_code == explained.exit_code == 0
    assert len(shown(explained)) > len(shown(plain))
    assert "null-other: " in shown(explained)


def test_settings_in_yaml_yield_to_the_command_line(project: Project) -> None:
    file = project.folder / "settings.yaml"
    file.write_text("gates: {production_cpu: {speedup: 10000}}\ncandidates: [null-same]\n")
    ended = optimized(project, "--config", str(file), "--json")
    assert ended.exit_code == 1, ended.output
    names = [c["name"] for c in json.loads(ended.stdout)["candidates"]]
    assert names == ["null-base", "null-same"]
    assert resumed(project, *EASY).exit_code == 0


@pytest.mark.parametrize("size", ["12by12", "x", "480x640x3", "-1"])
def test_a_size_is_two_sides_or_one(size: str, project: Project) -> None:
    ended = optimized(project, f"--size={size}")
    assert ended.exit_code == 2
    assert "not HEIGHTxWIDTH" in ended.stderr
    assert not (project.folder / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("optimize", "m.pt", "--timing-budget", "soon"), "Invalid value for '--timing-budget'"),
        (("detect",), "Missing argument"),
        (("detect", "e.onnx", "i.jpg", "--sizes", "3"), "--sizes"),
        (("report", "runs/latest", "another"), "another"),
        (("export", "m.pt", "--to"), "--to"),
        (("export", "m.pt", "--timeout", "-1"), "--timeout"),
        (("benchmark", "e.onnx", "--images", "i", "--budget", "-1"), "--budget"),
    ],
)
def test_wrong_usage_is_a_line_and_a_hint(
    arguments: tuple[str, ...], said: str, project: Project
) -> None:
    ended = typed(project, *arguments)
    assert ended.exit_code == 2
    error, hint = ended.stderr.splitlines()
    assert error.startswith("error: ")
    assert said in error
    assert hint.endswith(f"{arguments[0]} --help' for what it takes")


@pytest.mark.parametrize("word", ["optimise", "--fast"])
def test_an_unknown_command_or_option_is_a_line_and_a_hint(word: str, project: Project) -> None:
    ended = typed(project, word)
    assert ended.exit_code == 2
    error, hint = ended.stderr.splitlines()
    assert error.startswith("error: ")
    assert word in error
    assert hint.startswith("hint: see '")
    assert hint.endswith(" --help' for what it takes")


@pytest.mark.parametrize("words", [(), ("ab",)])
def test_commands_without_one_show_their_help(words: tuple[str, ...], project: Project) -> None:
    ended = typed(project, *words)
    assert ended.exit_code == 2
    assert "error: " not in ended.output
    assert "Usage: " in ended.output


def test_what_the_system_keeps_from_this_user_is_told(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(workspace, "resolve_run", kept)
    ended = typed(project, "report", "theirs")
    assert ended.exit_code == 2
    assert ended.stderr.startswith("error: theirs: Permission denied\nhint: let this user")


def test_a_report_that_cannot_be_written_again_says_what_helps(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimized(project, *EASY)

    def kept(*_: object) -> None:
        raise OutputError("cannot write report.html: Permission denied", hint="--output")

    monkeypatch.setattr(reporting, "render", kept)
    ended = typed(project, "report", str(project.folder / "runs/run"))
    assert ended.exit_code == 2
    assert ended.stderr.startswith("error: cannot write report.html: Permission denied\nhint: copy")
    assert "--output" not in ended.stderr, "the command has no such option"
