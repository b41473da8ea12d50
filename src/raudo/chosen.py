"""The engine that a path stands for: the file itself, or what a run folder chose for a target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raudo.errors import EngineError, UsageError
from raudo.workspace import LATEST, TARGET_ORDER, read_artifact, read_report, resolve_run

if TYPE_CHECKING:
    from pathlib import Path

    from raudo.records import Artifact, Throughput


def is_engine_file(source: Path) -> bool:
    """Tell whether a path is an engine file, or stands for a run folder."""
    return source.is_file() and source.name != LATEST


def check_target(source: Path, target: str | None) -> None:
    """Refuse a target that is none, or that has nothing to choose from.

    Raises:
        UsageError: There is no such target, or the source is one engine.
    """
    if target is not None and target not in TARGET_ORDER:
        raise UsageError(
            f"there is no target '{target}'", hint=f"choose among {', '.join(TARGET_ORDER)}"
        )
    if target is not None and is_engine_file(source):
        raise UsageError(
            f"{source} is one engine: there is nothing to choose for {target}",
            hint="name a run folder instead, or leave the target out",
        )


def find_engine(source: Path, target: str | None = None) -> Artifact:
    """Find an engine: the file itself, or what a run folder chose for a target.

    Raises:
        EngineError: There is none.
        UsageError: The target is none, or chooses nothing.
    """
    check_target(source, target)
    if is_engine_file(source):
        return read_artifact(source)
    if not source.exists() and source.name != LATEST:
        raise EngineError(
            f"no such engine file or run folder: {source}",
            hint="check the path; 'raudo optimize' and 'raudo export' make engines",
        )
    run = resolve_run(source)
    report = read_report(run)
    wanted = TARGET_ORDER if target is None else (target,)
    chosen = (d.choice for name in wanted for t, d in report.decisions.items() if t == name)
    choice = next((c for c in chosen if c is not None), None)
    candidate = next((c for c in report.candidates if c.name == choice), None)
    if candidate is None or candidate.file is None:
        raise EngineError(
            f"{run.folder} chose no engine for {target or 'any target'}",
            hint=f"see {run.folder / 'report.html'} for what to try next, "
            f"or name an engine file in {run.engines}",
        )
    return read_artifact(run.folder / candidate.file)


def throughput_setting(source: Path, artifact: Artifact, cores: int) -> Throughput | None:
    """Return the best setting that the run folder of an engine measured, on so many cores.

    None for an engine file, and for a run on a machine with more or fewer cores.
    """
    if is_engine_file(source):
        return None
    run = resolve_run(source)
    report = read_report(run)
    if report.machine.cores != cores:
        return None
    found = (
        candidate.throughput_setting
        for candidate in report.candidates
        if candidate.file is not None and run.folder / candidate.file == artifact.path
    )
    return next(found, None)
