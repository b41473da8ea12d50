"""READ FIRST. The main job: export -> quantize -> validate -> benchmark -> decide -> report.

`optimize` is the whole of it; each step below does one thing and leaves what it found in the run
folder, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from raudo import benchmark, discover, plan, reporting
from raudo.benchmark import Timed, TimingPlan, WorkerOptions
from raudo.build import record_audit
from raudo.config import dump_settings
from raudo.decide import decide
from raudo.errors import RaudoError, WorkerError
from raudo.evaluate import Evaluation, evaluate, load_detections, save_detections
from raudo.inputs import gather
from raudo.listener import Listener
from raudo.machine import DISTURBED_SHARE, describe
from raudo.records import Candidate, Report, RunSource, StepResult
from raudo.scoring import Scorer
from raudo.worker import Worker
from raudo.workspace import create_run, engine_files, read_artifact, write_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from raudo.config import OptimizeSettings
    from raudo.inputs import Inputs
    from raudo.plan import Plan
    from raudo.records import Machine, Speedup, Status
    from raudo.workspace import Run

log = logging.getLogger(__name__)


@dataclass
class Job:
    """One run while it goes on."""

    settings: OptimizeSettings
    run: Run
    listener: Listener
    inputs: Inputs
    baseline: Plan
    plans: tuple[Plan, ...]
    machine: Machine
    candidates: dict[str, Candidate] = field(default_factory=dict)
    steps: list[StepResult] = field(default_factory=list)

    @property
    def options(self) -> WorkerOptions:
        """How to run workers."""
        return WorkerOptions(
            self.settings.timeout, self.settings.trust_checkpoint, log=self.run.log
        )

    def worker(self, name: str) -> Worker:
        """Return a new worker for a candidate."""
        return Worker(name, timeout=self.settings.timeout, log=self.run.log)

    def alive(self) -> list[Candidate]:
        """Return the candidates that nothing went wrong with so far."""
        return [c for c in self.candidates.values() if c.status == "OK"]

    def update(self, name: str, **changes: object) -> None:
        """Replace fields of a candidate."""
        self.candidates[name] = self.candidates[name].model_copy(update=changes)

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


def optimize(settings: OptimizeSettings, listener: Listener | None = None) -> tuple[Report, Run]:
    """Find the fastest deployment of a detector that is proven to detect as well.

    Give the settings of an interrupted run, its name included, to go on where it stopped.

    Args:
        settings: What to optimize, on which data, under which gates.
        listener: Is told how the run goes on.

    Returns:
        The report, and the run folder that holds it.

    Raises:
        RaudoError: The model or the data cannot be used, or the baseline does not run.
    """
    start = time.monotonic()
    job = _begin(settings, listener or Listener())
    _build_all(job)
    _validate_all(job)
    timed = _benchmark_all(job)
    report = _conclude(job, timed, time.monotonic() - start)
    return report, job.run


def _begin(settings: OptimizeSettings, listener: Listener) -> Job:
    """Check everything that can be checked before long work, then make the run folder."""
    listener.step("Opening the model and the data")
    start = time.monotonic()
    name = settings.name or f"{settings.model.stem}-{datetime.now():%Y%m%d-%H%M%S}"
    inputs = gather(settings, settings.output / name / "frames")
    baseline = plan.baseline_plan(inputs.info.has_module)
    plans = plan.choose(settings.candidates, baseline.name)
    run = create_run(settings.output, name)
    settings = settings.model_copy(update={"name": name})
    write_text(run.settings, dump_settings(settings))
    job = Job(settings, run, listener, inputs, baseline, plans, describe())
    job.note("open", "OK", f"{inputs.info.spec.family}, {len(inputs.files)} images", start)
    return job


def _build_all(job: Job) -> None:
    """Export, quantize and load every candidate once; what cannot be is skipped or failed."""
    job.listener.step("Making the engines", len(job.plans))
    onnx = job.run.engines / "model.onnx"
    if not onnx.is_file():
        start = time.monotonic()
        with job.worker("the ONNX export") as worker:
            worker.call("write_onnx", job.inputs.file, onnx)
        job.note("export", "OK", "", start)
    for done, chosen in enumerate(job.plans, 1):
        _build_one(job, chosen, onnx)
        job.listener.advance(done)


def _build_one(job: Job, chosen: Plan, onnx: Path) -> None:
    start, name = time.monotonic(), chosen.name
    backend, inputs = discover.backend(chosen.backend), job.inputs
    engine = chosen.engine_file(job.run.engines)
    job.candidates[name] = Candidate(
        name=name,
        backend=chosen.backend,
        precision=chosen.precision,
        status="OK",
        baseline=name == job.baseline.name,
        targets=backend.targets,
    )
    reason = plan.obstacle(
        chosen,
        job.machine,
        has_module=inputs.info.has_module,
        calibrated=inputs.calibration is not None,
    )
    if reason:
        job.update(name, status="SKIPPED", reason=reason)
        job.note(f"build {name}", "SKIPPED", reason, start)
        job.listener.finished(name, "SKIPPED", reason)
        return
    try:
        if job.run.recall(f"built-{name}", Candidate) is None:
            with job.worker(f"building {name}") as worker:
                arguments = (inputs.info, onnx, engine, inputs.calibration)
                worker.call("build", chosen, inputs.file, *arguments)
        files = engine_files(engine, backend.companions)
        job.update(
            name,
            file=engine.relative_to(job.run.folder).as_posix(),
            size_bytes=sum(f.stat().st_size for f in files),
        )
    except RaudoError as error:
        job.fail(name, "build", error, start)
    else:
        job.run.save(f"built-{name}", job.candidates[name])
        job.note(f"build {name}", "OK", "", start)
        job.listener.finished(name, "OK", "")


def _validate_all(job: Job) -> None:
    """Run every engine over the images; compare what it finds with the labels and the baseline."""
    job.listener.step("Validating", len(job.alive()) * len(job.inputs.files))
    evaluations: dict[str, Evaluation] = {}
    for number, candidate in enumerate(job.alive()):
        start, name = time.monotonic(), candidate.name
        try:
            evaluations[name] = _evaluate_one(job, candidate, number)
        except RaudoError as error:
            job.fail(name, "validate", error, start)
        else:
            job.note(f"validate {name}", "OK", "", start)
    reference = evaluations.get(job.baseline.name)
    if reference is None:
        raise WorkerError(
            f"the baseline {job.baseline.name} failed: {job.candidates[job.baseline.name].reason}",
            hint=f"nothing can be compared without it; {job.run.log} says more",
        )
    job.listener.step("Comparing with the baseline", len(evaluations))
    scorer = Scorer(
        job.inputs.dataset,
        reference,
        resamples=job.settings.bootstrap,
        seed=job.settings.seed,
    )
    for done, (name, evaluation) in enumerate(evaluations.items(), 1):
        accuracy, similarity = scorer.score(evaluation)
        job.update(
            name,
            audit=evaluation.opened.audit,
            accuracy=accuracy,
            similarity=similarity,
            similarity_percent=similarity.f1_percent,
            map50=accuracy.map50 if accuracy else None,
            map50_95=accuracy.map50_95 if accuracy else None,
            map50_loss_percent=accuracy.map50_loss_percent if accuracy else None,
        )
        job.listener.advance(done)


def _evaluate_one(job: Job, candidate: Candidate, number: int) -> Evaluation:
    engine = job.run.folder / str(candidate.file)
    kept = job.run.state / f"found-{candidate.name}.npz"
    known = load_detections(kept) if kept.is_file() else None
    files = job.inputs.files
    with job.worker(candidate.name) as worker:
        evaluation = evaluate(
            worker,
            engine,
            files,
            trust=job.settings.trust_checkpoint,
            known=known,
            on_images=lambda count: job.listener.advance(number * len(files) + count),
        )
    record_audit(read_artifact(engine), evaluation.opened.audit)
    save_detections(kept, evaluation.detections)
    return evaluation


def _benchmark_all(job: Job) -> Timed:
    """Time the engines side by side until every speedup gate is settled."""
    start = time.monotonic()
    timed = job.run.recall("timed", Timed)
    if timed is None:
        budget = job.settings.timing_budget
        job.listener.step("Timing, round by round", budget)
        timed = benchmark.benchmark(
            {c.name: job.run.folder / str(c.file) for c in job.alive()},
            job.baseline.name,
            job.inputs.files,
            TimingPlan(
                budget,
                lambda speedups: _settled(job, speedups),
                on_round=lambda _rounds, left: job.listener.advance(budget - left),
                on_throughput=lambda name: job.listener.step(f"Throughput of {name}"),
                seed=job.settings.seed,
            ),
            job.options,
        )
        job.run.save("timed", timed)
    job.note("benchmark", "OK", "", start)
    for name, reason in timed.failed.items():
        job.fail(name, "benchmark", WorkerError(reason, hint="the run's log says more"), start)
    for name, measurement in timed.measurements.items():
        job.update(
            name,
            measurement=measurement,
            latency_ms=measurement.stages["end_to_end"],
            throughput_fps=max((t.fps for t in measurement.throughput), default=None),
            speedup=measurement.speedup,
            peak_memory_bytes=measurement.peak_memory_bytes,
        )
    return timed


def _settled(job: Job, speedups: Mapping[str, Speedup]) -> bool:
    """Tell whether no speedup's interval straddles a gate of its candidate's targets."""
    return not any(
        speedup.low < gates.speedup <= speedup.high
        for name, speedup in speedups.items()
        for target, gates in job.settings.gates.items()
        if target in job.candidates[name].targets
    )


def _conclude(job: Job, timed: Timed, seconds: float) -> Report:
    """Decide, and write the report."""
    job.listener.step("Writing the report")
    inputs, settings = job.inputs, job.settings
    candidates = tuple(job.candidates.values())
    disturbed = timed.other_load > DISTURBED_SHARE
    report = Report(
        name=job.run.folder.name,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        source=RunSource(
            model=inputs.file.path.name,
            model_sha256=inputs.info.sha256,
            spec=inputs.info.spec,
            baseline=job.baseline.name,
            data=settings.data.as_posix() if settings.data else None,
            images=len(inputs.files),
            calibration=inputs.calibration.record if inputs.calibration else None,
            accuracy_validated=inputs.dataset is not None,
        ),
        machine=job.machine.model_copy(
            update={"other_load": round(timed.other_load, 4), "disturbed": disturbed}
        ),
        gates={t: g.model_dump(exclude_none=True) for t, g in settings.gates.items()},
        candidates=candidates,
        decisions=decide(
            candidates,
            settings.gates,
            accuracy_validated=inputs.dataset is not None,
            has_gpu=bool(job.machine.gpus),
        ),
        steps=tuple(job.steps),
        warnings=inputs.warnings,
    )
    return reporting.write(report, job.run, inputs.files)
