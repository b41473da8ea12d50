"""READ FIRST. The main job: export -> quantize -> validate -> benchmark -> decide -> report.

`optimize` is the whole of it; each step below does one thing and leaves what it found in the run
folder, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import re
import shlex
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from raudo import benchmark, discover, plan, reporting
from raudo.benchmark import Timed, TimingPlan
from raudo.config import OptimizeSettings, dump_settings
from raudo.decide import decide
from raudo.errors import OutputError, RaudoError, UsageError, WorkerError
from raudo.inputs.gathering import Identity, gather
from raudo.job import Job
from raudo.listener import Listener
from raudo.machine import DISTURBED_SHARE, describe, owners, versions
from raudo.measuring.throughput import best_setting
from raudo.presentation.explain import pareto
from raudo.records import Report, RunSource
from raudo.search.search import Search
from raudo.workspace import Run, create_run, unmade, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from raudo.records import Decision, Speedup, Target

CLEARLY = 2.0
"""An engine this many times slower than another, intervals apart, is not timed on."""


def optimize(
    settings: OptimizeSettings, listener: Listener | None = None, *, resume: bool = False
) -> tuple[Report, Run]:
    """Find the fastest deployment of a detector that is proven to detect as well.

    Args:
        settings: What to optimize, on which data, under which gates.
        listener: Is told how the run goes on.
        resume: Go on with the run of that name, from the settings that it kept.

    Returns:
        The report, and the run folder that holds it.

    Raises:
        RaudoError: The model or the data cannot be used, or the baseline does not run.
        KeyboardInterrupt: With how the run goes on, once there is one.
    """
    start = time.monotonic()
    job = _begin(settings, listener or Listener(), resume)
    try:
        Search(job).explore()
        timed = _benchmark_all(job)
        report = _conclude(job, timed, time.monotonic() - start)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"go on with it: {_command_to_resume(job)}") from error
    except OutputError as error:
        way_on = f"make room there, then go on with it: {_command_to_resume(job)}"
        raise OutputError(error.message, hint=way_on) from error
    return report, job.run


def _command_to_resume(job: Job) -> str:
    usual = job.settings.output == OptimizeSettings.model_fields["output"].get_default(
        call_default_factory=True
    )
    where = "" if usual else f" --output {shlex.quote(str(job.settings.output))}"
    return f"raudo optimize --resume --name {job.run.folder.name}{where}"


def _new_name(stem: str) -> str:
    """Return a name for a run: the model's, without what folders take ill, and the time."""
    plain = re.sub(r"[^\w.@+-]+", "-", stem).strip(".-+@") or "run"
    return f"{plain}-{datetime.now():%Y%m%d-%H%M%S}"


def _begin(settings: OptimizeSettings, listener: Listener, resume: bool) -> Job:
    """Check everything that can be checked before long work, then make the run folder."""
    listener.step("Opening the model and the data")
    start = time.monotonic()
    name = settings.name or _new_name(settings.model.stem)
    before = Run(settings.output / name)
    if before.settings.exists() and not resume:
        raise UsageError(
            f"there is a run called '{name}' already in {settings.output}",
            hint="go on with it: --resume; or choose another --name",
        )
    plan.check_names(settings.candidates)
    for report_format in discover.report_formats():
        report_format.require()
    with unmade(before.folder, whole=True):
        return _gathered(settings, listener, before, start)


def _gathered(settings: OptimizeSettings, listener: Listener, before: Run, start: float) -> Job:
    name = before.folder.name
    inputs = gather(settings, before.folder / "frames")
    identity = inputs.identity()
    if (begun := before.recall("identity", Identity)) is not None and begun != identity:
        raise UsageError(
            f"the run '{name}' was begun with another {begun.difference(identity)}",
            hint="what it found so far does not hold for this one; start a new run",
        )
    machine = describe()
    baselines = plan.baselines(inputs.info.has_module, machine)
    plans = plan.choose(settings.candidates, baselines)
    run = create_run(settings.output, name)
    settings = settings.model_copy(update={"name": name})
    write_text(run.settings, dump_settings(settings))
    run.save("identity", identity)
    run.become_latest()
    deadline = None if settings.time_budget is None else start + settings.time_budget
    job = Job(settings, run, listener, inputs, baselines, plans, machine, deadline)
    job.note("open", "OK", f"{inputs.info.spec.family}, {len(inputs.files)} images", start)
    return job


def _benchmark_all(job: Job) -> Timed:
    """Time the engines side by side until every speedup gate is settled."""
    start = time.monotonic()
    timed = job.run.recall("timed", Timed)
    alive = {c.name for c in job.alive()}
    if timed is None or not alive <= timed.names():
        budget = min(job.settings.timing_budget, max(job.seconds_left, 0.0))
        job.listener.step("Timing, round by round", budget)
        timed = benchmark.benchmark(
            {c.name: job.run.folder / str(c.file) for c in job.alive()},
            job.baseline.name,
            job.inputs.files,
            TimingPlan(
                budget,
                lambda speedups: _settled(job, speedups),
                hopeless=lambda speedups: _hopeless(job, speedups),
                on_round=lambda _rounds, left: job.listener.advance(budget - left),
                on_throughput=lambda name: job.listener.step(f"Throughput of {name}"),
                seed=job.settings.seed,
                references=job.references(),
            ),
            job.options,
        )
        job.run.save("timed", timed)
    job.note("benchmark", "OK", "", start)
    for name in sorted(alive & timed.failed.keys()):
        reason = timed.failed[name]
        job.fail(name, "benchmark", WorkerError(reason, hint="the run's log says more"), start)
    for name in sorted(alive & timed.measurements.keys()):
        measurement = timed.measurements[name]
        best = best_setting(measurement.throughput)
        job.update(
            name,
            measurement=measurement,
            profile=timed.profiles.get(name, ()),
            latency_ms=measurement.stages["end_to_end"],
            throughput_fps=best.fps if best else None,
            throughput_setting=best,
            speedup=measurement.speedup,
            peak_memory_bytes=measurement.peak_memory_bytes,
        )
    return timed


def _settled(job: Job, speedups: Mapping[str, Speedup]) -> bool:
    """Tell whether more rounds would change no choice.

    An interval may straddle the gate of a target for which a faster engine certainly passes.
    """
    return not any(
        speedup.low < gates.speedup <= speedup.high
        and not _outrun(job, speedups, name, target, least=gates.speedup)
        for name, speedup in speedups.items()
        for target, gates in job.settings.gates.items()
        if target in job.candidates[name].targets
    )


def _hopeless(job: Job, speedups: Mapping[str, Speedup]) -> frozenset[str]:
    """Return the engines that are clearly slower than another one of every target of theirs."""
    return frozenset(
        name
        for name in speedups
        if all(
            _outrun(job, speedups, name, target, times=CLEARLY)
            for target in job.candidates[name].targets
            if target in job.settings.gates
        )
    )


def _outrun(
    job: Job,
    speedups: Mapping[str, Speedup],
    name: str,
    target: Target,
    *,
    times: float = 1.0,
    least: float = 0.0,
) -> bool:
    """Tell whether an engine that detects as well, and is at least so fast, certainly is faster."""
    return any(
        other.low > times * speedups[name].high and other.low >= least
        for rival, other in speedups.items()
        if target in job.candidates[rival].targets and job.detects_as_well(rival)
    )


def _conclude(job: Job, timed: Timed, seconds: float) -> Report:
    """Decide, and write the report."""
    job.listener.step("Writing the report")
    inputs, settings = job.inputs, job.settings
    candidates = tuple(job.candidates.values())
    decisions = decide(
        candidates,
        settings.gates,
        accuracy_validated=inputs.dataset is not None,
        has_gpu=bool(job.machine.gpus),
    )
    _keep_compiled(job, decisions.values())
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
            update={
                "other_load": round(timed.other_load, 4),
                "disturbed": disturbed,
                "versions": job.machine.versions | _runtimes(),
            }
        ),
        gates={t: g.model_dump(exclude_none=True) for t, g in settings.gates.items()},
        candidates=candidates,
        decisions=decisions,
        pareto=pareto(candidates),
        pareto_throughput=pareto(candidates, by="throughput"),
        steps=tuple(job.steps),
        warnings=inputs.warnings,
    )
    return reporting.write(report, job.run, inputs.files)


def _runtimes() -> dict[str, str]:
    """Return the versions of all runtimes that are installed."""
    return versions(*sorted(owners(m for backend in discover.backends() for m in backend.modules)))


def _keep_compiled(job: Job, decisions: Iterable[Decision]) -> None:
    """Let the runtimes of the chosen engines keep what they compile, for a fast first start."""
    for name in dict.fromkeys(c for d in decisions for c in (d.choice, d.best_throughput) if c):
        chosen, start = job.candidates[name], time.monotonic()
        if not discover.backend(chosen.backend).keeps_compiled:
            continue
        setting = chosen.throughput_setting
        try:
            with job.worker(name) as worker:
                for batch in sorted({1, setting.batch if setting else 1}):  # of either mode
                    engine = job.run.folder / str(chosen.file)
                    worker.call("keep_compiled", engine, batch, job.settings.trust_checkpoint)
        except RaudoError as error:
            job.note(f"keep compiled {name}", "FAILED", error.message, start)
