"""Which engines of a run may be served: those that passed, the fastest first."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raudo.chosen import check_target, is_engine_file
from raudo.config import Gates
from raudo.decide import passing
from raudo.errors import EngineError, RaudoError
from raudo.serve.errors import NotFoundError
from raudo.serve.records import PRIMARY
from raudo.workspace import LATEST, TARGET_ORDER, read_artifact, read_report, resolve_run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from raudo.records import Candidate, Report
    from raudo.serve.core import Service
    from raudo.serve.records import ModelVersion
    from raudo.workspace import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where engines come from.

    Attributes:
        path: An engine file, which is served as it is, or a run folder.
        target: The decision of a run folder to follow; None takes the first of production_gpu,
            production_cpu and edge that passed. Never `development` unless it is named: its
            choice is the baseline, which nothing was proven about.
    """

    path: Path
    target: str | None = None

    @property
    def is_run(self) -> bool:
        """Whether it is a run folder."""
        return not is_engine_file(self.path)

    def run(self) -> Run:
        """Return the run folder that it stands for now.

        Raises:
            EngineError: There is none.
        """
        return resolve_run(self.path)

    def files(self, run: Run | None = None) -> tuple[Path, ...]:
        """Return the engine files that may be served, the best first.

        Args:
            run: Another run than the source's own.

        Raises:
            EngineError: There is no run, or nothing in it passed.
            UsageError: The target is none, or chooses nothing.
        """
        check_target(self.path, self.target)
        if not self.is_run:
            return (self.path,)
        run = run or self.run()
        report = read_report(run)
        for target in (self.target,) if self.target else TARGET_ORDER[:-1]:
            chosen = _passing(report, target)
            if chosen:
                return tuple(run.folder / c.file for c in chosen if c.file is not None)
        raise EngineError(
            f"nothing in {run.folder} passed for {self.target or 'any target'}, "
            "so there is nothing to serve",
            hint=f"see 'raudo report {run.folder}' for what to try next, or name an engine file",
        )

    def named(self, name: str) -> Run:
        """Return the run folder of that name beside this one.

        Raises:
            NotFoundError: There is none.
        """
        found: dict[str, Path] = {}
        if self.is_run:
            folder = self.path.parent if self.path.name == LATEST else self.run().folder.parent
            found = {run.name: run for run in folder.iterdir() if run.is_dir()}
        if name not in found:
            raise NotFoundError(f"there is no run {name!r}")
        return resolve_run(found[name])


def _passing(report: Report, target: str) -> tuple[Candidate, ...]:
    decision = next((d for name, d in report.decisions.items() if name == target), None)
    if decision is None or decision.verdict != "PASS":
        return ()
    first = [c for c in report.candidates if c.name == decision.choice]
    gates = report.gates.get(target)
    more: Sequence[Candidate] = ()
    if gates is not None:
        bounds = Gates.model_validate(gates)
        validated = report.source.accuracy_validated
        more = passing(report.candidates, target, bounds, accuracy_validated=validated)
    return (*first, *(c for c in more if c not in first))


async def load_best(
    service: Service, files: Sequence[Path], *, variant: str = PRIMARY, run: str | None = None
) -> ModelVersion:
    """Let the first engine that fits this machine take over a variant; tell of those that do not.

    Raises:
        EngineError: None fits.
    """
    refused = []
    for file in files:
        try:
            try:
                artifact = read_artifact(file)
            except RaudoError as error:
                service.observer.model_refused(file.name, error.message)
                raise
            return await service.swap(artifact, variant=variant, run=run)
        except RaudoError as error:
            log.warning("%s is not served: %s (%s)", file.name, error.message, error.hint)
            refused.append(error)
    raise EngineError(
        f"no engine can be served here: {refused[0].message}", hint=refused[0].hint
    ) from refused[0]
