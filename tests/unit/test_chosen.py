"""The engine that a path stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import sample_report
from null_engines import null_engine
from raudo.chosen import find_engine, throughput_setting
from raudo.errors import EngineError, UsageError
from raudo.records import Artifact
from raudo.workspace import Run, read_artifact, write_text

if TYPE_CHECKING:
    from pathlib import Path


def test_a_target_has_nothing_to_choose_from_one_engine(tmp_path: Path) -> None:
    engine = null_engine(tmp_path / "e.npz")
    assert find_engine(engine).path == engine
    with pytest.raises(UsageError, match=r"e\.npz is one engine.*production_gpu") as caught:
        find_engine(engine, "production_gpu")
    assert "run folder" in caught.value.hint


def test_a_target_that_is_none_is_refused_before_the_run_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no target 'production'") as caught:
        find_engine(tmp_path, "production")
    assert "production_cpu" in caught.value.hint


def test_a_target_without_a_choice_is_named(tmp_path: Path) -> None:
    report = sample_report.full()
    decision = report.decisions["production_gpu"].model_copy(update={"choice": None})
    decisions = {**report.decisions, "production_gpu": decision}
    changed = report.model_copy(update={"decisions": decisions})
    write_text(tmp_path / "report.json", changed.model_dump_json())
    with pytest.raises(EngineError, match="chose no engine for production_gpu"):
        find_engine(tmp_path, "production_gpu")


def test_what_a_run_measured_of_its_engine(tmp_path: Path) -> None:
    report = sample_report.full()
    choice = next(c for c in report.candidates if c.file is not None and c.throughput_setting)
    assert choice.file is not None
    engine = read_artifact(null_engine(tmp_path / "e.npz"))
    run = Run(tmp_path.resolve() / "run")
    write_text(run.report, report.model_dump_json())
    artifact = Artifact(run.folder / choice.file, engine.manifest)
    cores = report.machine.cores
    assert throughput_setting(run.folder, artifact, cores) == choice.throughput_setting
    assert throughput_setting(run.folder, artifact, cores + 1) is None
    other = Artifact(run.folder / "other.xml", artifact.manifest)
    assert throughput_setting(run.folder, other, cores) is None
    assert throughput_setting(engine.path, artifact, cores) is None
