"""One run while it goes on: what it was asked, what it found so far, how its steps ended."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from raudo import discover, plan
from raudo.benchmark import WorkerOptions
from raudo.checks import assess
from raudo.records import Candidate, StepResult
from raudo.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raudo.config import Gates, OptimizeSettings
    from raudo.errors import RaudoError
    from raudo.inputs.gathering import Inputs
    from raudo.listener import Listener
    from raudo.plan import Plan
    from raudo.records import Device, Machine, Status
    from raudo.workspace import Run

log = logging.getLogger(__name__)


@dataclass
class Job:
    """One run while it goes on.

    Attributes:
        settings: What was asked.
        run: The run folder.
        listener: Is told how it goes on.
        inputs: The model and the images.
        baselines: By device, the plan that others on it are compared to.
        plans: The plans to try, the baseline among them.
        machine: Where it runs.
        deadline: `time.monotonic()` at which nothing new is begun; None without one.
        candidates: Rows of the report so far, by name.
        steps: How the steps ended.
    """

    settings: OptimizeSettings
    run: Run
    listener: Listener
    inputs: Inputs
    baselines: Mapping[Device, Plan]
    plans: tuple[Plan, ...]
    machine: Machine
    deadline: float | None = None
    candidates: dict[str, Candidate] = field(default_factory=dict)
    steps: list[StepResult] = field(default_factory=list)

    @property
    def baseline(self) -> Plan:
        """The plan whose detections all others are compared with."""
        return self.baselines["cpu"]

    def references(self) -> dict[str, str]:
        """Return by candidate the one that its speedup is relative to: its device's baseline."""
        devices = {p.name: p.variant.device for p in plan.all_plans()}
        return {
            name: self.baselines[device].name
            for name in self.candidates
            if (device := devices[plan.base_name(name)]) in self.baselines
        }

    @property
    def options(self) -> WorkerOptions:
        """How to run workers."""
        return WorkerOptions(
            self.settings.timeout, self.settings.trust_checkpoint, log=self.run.log
        )

    @property
    def seconds_left(self) -> float:
        """Seconds until the time budget is spent."""
        return float("inf") if self.deadline is None else self.deadline - time.monotonic()

    def worker(self, name: str) -> Worker:
        """Return a new worker that runs a candidate."""
        return Worker(name, timeout=self.settings.timeout, log=self.run.log)

    def maker(self, chosen: Plan) -> Worker:
        """Return a new worker that makes the engines of a plan's backend."""
        factor = discover.backend(chosen.backend).making_factor
        return Worker(chosen.name, timeout=factor * self.settings.timeout, log=self.run.log)

    def alive(self) -> list[Candidate]:
        """Return the candidates that nothing went wrong with so far."""
        return [c for c in self.candidates.values() if c.status == "OK"]

    def gates(self, name: str) -> list[Gates]:
        """Return the gates of a candidate's targets."""
        gates = self.settings.gates
        return [gates[target] for target in self.candidates[name].targets if target in gates]

    def detects_as_well(self, name: str) -> bool:
        """Tell whether a candidate passes every gate but the one of speed."""
        candidate = self.candidates[name]
        return candidate.status == "OK" and all(
            check.outcome == "pass"
            for gates in self.gates(name)
            for check in assess(
                candidate, gates, accuracy_validated=self.inputs.dataset is not None
            )
            if check.gate != "speedup"
        )

    def update(self, name: str, **changes: object) -> Candidate:
        """Replace fields of a candidate."""
        self.candidates[name] = self.candidates[name].model_copy(update=changes)
        return self.candidates[name]

    def note(self, step: str, status: Status, reason: str, start: float) -> None:
        """Record how a step ended."""
        seconds = round(time.monotonic() - start, 2)
        self.steps.append(StepResult(step=step, status=status, reason=reason, seconds=seconds))
        log.info("%s %s %s (%.1f s)", step, status, reason, seconds)

    def fail(self, name: str, step: str, error: RaudoError, start: float) -> None:
        """Record that a candidate failed; the run goes on without it."""
        self.note(f"{step} {name}", "FAILED", error.message, start)
        self.update(name, status="FAILED", reason=error.message)
        self.listener.finished(name, "FAILED", error.message)

    def skip(self, name: str, reason: str, start: float, *, untried: bool = False) -> None:
        """Record that a candidate was not tried, or not to the end."""
        self.note(name, "SKIPPED", reason, start)
        self.update(name, status="SKIPPED", reason=reason, untried=untried)
        self.listener.finished(name, "SKIPPED", reason)
