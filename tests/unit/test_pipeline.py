"""A whole run around its engines: what it leaves, what it survives, how it goes on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cv2
import pytest

from canned_runs import with_gpu
from raudo import discover, pipeline
from raudo.config import default_gates
from raudo.errors import EngineError, MissingDependencyError, OutputError, UsageError, WorkerError
from raudo.machine import available_threads
from raudo.measuring.station import Station
from raudo.pipeline import _settled, optimize
from raudo.records import PrecisionAudit, Speedup, Throughput
from raudo.workspace import read_report

if TYPE_CHECKING:
    from pathlib import Path

    from canned_runs import Project
    from raudo.records import Candidate, Report


def rows(report: Report) -> dict[str, Candidate]:
    return {candidate.name: candidate for candidate in report.candidates}


def test_a_run_judges_every_candidate_and_is_found_again(project: Project) -> None:
    report, run = optimize(project.settings())
    found = rows(report)
    assert list(found) == ["null-base", "null-same", "null-other", "null-small"]
    assert found["null-base"].baseline
    assert found["null-same"].similarity_percent == 100
    assert (found["null-other"].similarity_percent or 0) < 50
    assert found["null-small"].status == "SKIPPED"
    assert "no calibration images" in found["null-small"].reason
    assert report.decisions["production_gpu"].verdict == "SKIPPED"
    assert report.decisions["development"].choice == "null-base"
    assert read_report(run) == report
    assert (run.folder.parent / "latest").resolve() == run.folder.resolve()


def test_engines_for_a_gpu_are_compared_with_the_baseline_there(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpu(monkeypatch)
    easy = {"speedup": 0.01, "map50_loss_percent": 1}
    report, _ = optimize(project.settings(gates={"production_gpu": easy}))
    found = rows(report)
    references = {n: c.measurement.reference for n, c in found.items() if c.measurement}
    assert references["null-gpu-same"] == references["null-gpu-base"] == "null-gpu-base"
    assert references["null-same"] == references["null-base"] == "null-base"
    assert [n for n, c in found.items() if c.baseline] == ["null-base", "null-gpu-base"]
    assert found["null-gpu-base"].speedup is not None
    assert found["null-gpu-base"].speedup.median == 1
    assert report.source.baseline == report.decisions["development"].choice == "null-base"
    assert report.decisions["production_gpu"].choice == "null-gpu-same"


@pytest.mark.parametrize("action", ["build", "evaluate"])
def test_without_a_baseline_on_the_gpu_nothing_is_compared_there(
    action: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Least of all with the baseline on the CPU."""
    with_gpu(monkeypatch)
    project.faults.planned[action, "null-gpu-base"] = WorkerError("it crashed", hint="")
    report, _ = optimize(project.settings())
    row = rows(report)["null-gpu-same"]
    assert row.status == "SKIPPED"
    assert row.reason == "its baseline null-gpu-base FAILED: it crashed"
    assert report.decisions["production_gpu"].verdict == "SKIPPED"
    assert rows(report)["null-same"].speedup is not None


def test_the_versions_of_the_runtimes_are_told(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(discover.backend("null")), "modules", ("typer",))
    report, run = optimize(project.settings())
    assert report.machine.versions["typer"]
    made_with = (run.folder / "reproduce.sh").read_text()
    assert f"typer {report.machine.versions['typer']}" in made_with


@pytest.mark.parametrize(
    ("fast", "targets", "as_well", "settled"),
    [
        ((2.0, 2.2), ("production_cpu",), True, True),
        ((2.0, 2.2), ("production_cpu",), False, False),
        ((2.0, 2.2), ("production_gpu",), True, False),
        ((1.55, 1.7), ("production_cpu",), True, False),
    ],
    ids=["passes and is faster", "detects worse", "another target", "may be slower"],
)
def test_rounds_end_where_no_more_of_them_would_change_the_choice(
    fast: tuple[float, float], targets: tuple[str, ...], as_well: bool, settled: bool
) -> None:
    """One engine's speedup straddles the gate of 1.5; what of it, if a faster one passes?"""
    job: Any = SimpleNamespace(
        settings=SimpleNamespace(gates=default_gates()),
        candidates={
            "slow": SimpleNamespace(targets=("production_cpu",)),
            "fast": SimpleNamespace(targets=targets),
        },
        detects_as_well=lambda name: as_well or name == "slow",
    )
    ends = {"slow": (1.4, 1.6), "fast": fast}
    speedups = {n: Speedup(median=sum(e) / 2, low=e[0], high=e[1]) for n, e in ends.items()}
    assert _settled(job, speedups) == settled


def test_the_gates_decide(project: Project) -> None:
    easy = {"speedup": 0.01, "map50_loss_percent": 1}
    report, _ = optimize(project.settings(gates={"production_cpu": easy}))
    assert report.decisions["production_cpu"].verdict == "PASS"
    assert report.decisions["production_cpu"].choice == "null-same"
    hard = {"speedup": 1000, "map50_loss_percent": 1}
    report, _ = optimize(project.settings(gates={"production_cpu": hard}, name="hard"))
    assert report.decisions["production_cpu"].verdict == "FAIL"
    assert any("speedup" in reason for reason in report.decisions["production_cpu"].reasons)


def test_the_chosen_engines_are_left_compiled_and_a_run_does_without(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(discover.backend("null")), "keeps_compiled", True)
    easy = {"speedup": 0.01, "map50_loss_percent": 1}
    project.faults.planned["keep_compiled", "null-same"] = WorkerError("it crashed", hint="")
    report, _ = optimize(project.settings(gates={"production_cpu": easy}))
    assert report.decisions["production_cpu"].choice == "null-same"
    assert sorted(project.faults.called("keep_compiled")) == ["null-base", "null-same"]
    failed = [(step.step, step.reason) for step in report.steps if step.status == "FAILED"]
    assert failed == [("keep compiled null-same", "it crashed")]


def test_the_batch_that_a_run_found_best_is_left_compiled_too(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(discover.backend("null")), "keeps_compiled", True)
    best = Throughput(streams=1, batch=4, fps=9.0)
    monkeypatch.setattr(pipeline, "best_setting", lambda _measured: best)
    opened: set[int] = set()
    monkeypatch.setattr(
        Station, "keep_compiled", lambda _self, _engine, batch, _trust: opened.add(batch)
    )
    optimize(project.settings())
    assert opened == {1, 4}, "for latency and for throughput"


def test_making_an_engine_may_take_longer_than_running_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(discover.backend("null")), "making_factor", 4.0)
    optimize(project.settings(candidates=("null-same",), timeout=20.0))
    limits = project.faults.limits
    assert limits["build", "null-same"] == 80.0
    assert {limits[action, "null-same"] for action in ("open", "evaluate", "time")} == {20.0}


def test_a_report_that_could_not_be_written_in_the_end_is_told_at_once(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(discover.load("reports", "html")), "modules", ("no_such_module",))
    with pytest.raises(MissingDependencyError, match="HTML report needs no_such_module"):
        optimize(project.settings())
    assert not (project.folder / "runs").exists()
    assert project.faults.calls == []


def test_several_streams_are_tried_where_the_variant_says_so(project: Project) -> None:
    report, _ = optimize(project.settings())
    streams = {
        name: {each.streams for each in candidate.measurement.throughput}
        for name, candidate in rows(report).items()
        if candidate.measurement
    }
    assert streams["null-same"] == {1}
    assert streams["null-other"] >= {1, available_threads()}


@pytest.mark.parametrize("action", ["build", "evaluate", "time", "throughput"])
def test_an_engine_that_does_not_last_is_a_row_not_the_end(action: str, project: Project) -> None:
    project.faults.planned[action, "null-same"] = WorkerError("it crashed", hint="")
    report, _ = optimize(project.settings())
    found = rows(report)
    assert (found["null-same"].status, found["null-same"].reason) == ("FAILED", "it crashed")
    assert found["null-other"].status == "OK"
    assert found["null-other"].speedup is not None


@pytest.mark.parametrize("action", ["build", "evaluate"])
def test_a_full_disk_ends_the_run_until_there_is_room(action: str, project: Project) -> None:
    full = OutputError("cannot write it: No space left on device", hint="make room there")
    project.faults.planned[action, "null-same"] = full
    with pytest.raises(OutputError, match="No space left") as caught:
        optimize(project.settings())
    assert "go on with it: raudo optimize --resume --name run" in caught.value.hint
    project.faults.planned.clear()
    report, _ = optimize(project.settings(), resume=True)
    assert rows(report)["null-same"].status == "OK"


def test_a_disk_that_is_full_from_the_start_is_left_as_it_was(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise OutputError(f"cannot write {path}: No space left on device", hint="make room")

    monkeypatch.setattr("raudo.pipeline.write_text", full)
    with pytest.raises(OutputError, match="No space left"):
        optimize(project.settings())
    assert not (project.folder / "runs").exists()


@pytest.mark.parametrize("action", ["build", "evaluate", "time"])
def test_without_its_baseline_a_run_ends_and_says_so(action: str, project: Project) -> None:
    project.faults.planned[action, "null-base"] = WorkerError("it crashed", hint="")
    with pytest.raises(WorkerError, match="the baseline null-base failed: it crashed"):
        optimize(project.settings())


def test_an_engine_in_another_precision_than_asked_for_fails(project: Project) -> None:
    """Never a quiet substitute."""
    project.faults.audits["null-same"] = PrecisionAudit(found={"bf16": 7, "fp32": 2})
    report, _ = optimize(project.settings())
    assert rows(report)["null-same"].status == "FAILED"
    assert "asked for fp32, but found 7 in bf16" in rows(report)["null-same"].reason


@pytest.mark.parametrize(
    ("action", "name", "kept"),
    [
        ("build", "null-other", {"null-base", "null-same"}),
        ("evaluate", "null-other", {"null-base", "null-same", "null-other"}),
        ("time", "null-same", {"null-base", "null-same", "null-other"}),
    ],
)
def test_an_interrupted_run_goes_on_where_it_stopped(
    action: str, name: str, kept: set[str], project: Project
) -> None:
    project.faults.planned[action, name] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        optimize(project.settings())
    run = project.folder / "runs" / "run"
    assert not (run / "report.json").exists()
    assert (run / "settings.yaml").exists()
    project.faults.planned.clear()
    project.faults.calls.clear()
    report, _ = optimize(project.settings(), resume=True)
    assert not kept & set(project.faults.called("build")), "an engine was made again"
    if action == "time":
        assert project.faults.called("evaluate") == [], "an image was looked at again"
    found = rows(report)
    assert all(c.speedup for c in found.values() if c.status == "OK")
    assert {"null-base", "null-same", "null-other"} <= set(found)


def test_a_finished_run_is_decided_again_on_the_rounds_that_were_timed(project: Project) -> None:
    first, _ = optimize(project.settings())
    project.faults.calls.clear()
    easy = {"production_cpu": {"speedup": 0.01, "map50_loss_percent": 1}}
    again, _ = optimize(project.settings(gates=easy), resume=True)
    assert project.faults.called("time") == []
    assert project.faults.called("build") == []
    assert again.decisions["production_cpu"].verdict == "PASS"
    assert [c.speedup for c in again.candidates] == [c.speedup for c in first.candidates]


def test_an_engine_file_that_changed_meanwhile_is_noticed(project: Project) -> None:
    _, run = optimize(project.settings())
    with (run.engines / "null-same.npz").open("ab") as stream:
        stream.write(b"x")
    report, _ = optimize(project.settings(), resume=True)
    assert rows(report)["null-same"].status == "FAILED"
    assert "not the file" in rows(report)["null-same"].reason


def test_a_name_that_is_taken_is_refused(project: Project) -> None:
    optimize(project.settings())
    before = (project.folder / "runs/run/report.json").read_bytes()
    with pytest.raises(UsageError, match="a run called 'run' already") as caught:
        optimize(project.settings())
    assert "--resume" in caught.value.hint
    assert (project.folder / "runs/run/report.json").read_bytes() == before


def test_a_run_is_not_resumed_with_another_model(project: Project) -> None:
    optimize(project.settings())
    (project.folder / "model.pt").write_bytes(b"other weights")
    with pytest.raises(UsageError, match="was begun with another model"):
        optimize(project.settings(), resume=True)


def test_without_labels_there_is_a_verdict_on_similarity_alone(project: Project) -> None:
    images = project.data.parent / "images/val"
    easy = {"production_cpu": {"speedup": 0.01, "map50_loss_percent": 1}}
    report, run = optimize(project.settings(images=images, gates=easy))
    assert not report.source.accuracy_validated
    assert report.decisions["production_cpu"].verdict == "PASS"
    for decision in report.decisions.values():
        assert any("accuracy not validated" in reason for reason in decision.reasons)
    for candidate in report.candidates:
        assert candidate.map50 is None
    assert "accuracy not validated" in (run.folder / "report.html").read_text(encoding="utf-8")


def test_a_video_is_compared_frame_by_frame(project: Project) -> None:
    video = project.folder / "video.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (240, 160))
    for image in sorted((project.data.parent / "images/val").iterdir()):
        writer.write(cv2.imread(str(image)))
    writer.release()
    report, run = optimize(project.settings(images=video))
    assert report.source.images == len(list((run.folder / "frames").iterdir())) == 3
    assert not report.source.accuracy_validated
    assert {c.similarity_percent for c in report.candidates if c.name == "null-same"} == {100}


def test_a_run_is_not_resumed_at_another_size(project: Project) -> None:
    optimize(project.settings())
    with pytest.raises(UsageError, match="was begun with another input"):
        optimize(project.settings(size=(64, 64)), resume=True)


def test_an_unknown_candidate_is_refused_before_a_run_is_made(project: Project) -> None:
    with pytest.raises(UsageError, match="no candidate is called"):
        optimize(project.settings(candidates=("null-magic",)))
    assert not (project.folder / "runs").exists()


def test_a_run_without_report_says_how_to_finish_it(project: Project) -> None:
    project.faults.planned["evaluate", "null-base"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        optimize(project.settings())
    from raudo.workspace import Run

    with pytest.raises(EngineError) as caught:
        read_report(Run(project.folder / "runs" / "run"))
    assert "--resume --name run" in caught.value.hint
