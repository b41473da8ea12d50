"""Measures engines side by side: interleaved rounds, real images, stages timed apart.

Absolute times are noise on a shared machine; a speedup is the median of per-round ratios, and each
round times all engines on the same frames, one engine at a time while the others sleep.
"""

from __future__ import annotations

import logging
import random
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from raudo.errors import RaudoError, WorkerError
from raudo.machine import LoadMonitor, available_threads
from raudo.measuring.throughput import throughput
from raudo.records import Measurement, NodeProfile, Percentiles, Record, Speedup, Stage
from raudo.worker import Worker
from raudo.workspace import read_artifact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

WARM_UP_FRAMES = 2
ROUND_SECONDS = 0.5
FEWEST_ROUNDS = 6
"""Timed whatever the budget: of fewer rounds a median has no 95 % interval (2 * 0.5**6 < 0.05)."""
MIN_ROUNDS = 10
MAX_ROUNDS = 200
RESAMPLES = 2000
MIN_THROUGHPUT_SECONDS, THROUGHPUT_SECONDS = 0.1, 1.5
KEPT_SAMPLES = 400
TIMED_FRAMES = 16

Rounds = list[NDArray[np.float64]]
"""Per round: seconds [frames, 3] of prepare, infer and select."""


@dataclass(frozen=True)
class TimingPlan:
    """How long to time, and when it is enough.

    Attributes:
        budget: Most seconds for the rounds, if they suffice for the fewest.
        settled: Told the end-to-end speedups so far, tells whether more rounds would change no
            verdict.
        hopeless: Told the same, tells which engines need not be timed any further.
        on_round: Called after each round with the rounds done and the seconds left.
        on_throughput: Called with an engine's name before its throughput is measured.
        seed: For the order of engines and the bootstrap.
        references: The engine that an engine's speedup is relative to, where it is not the
            baseline: that of its own device.
    """

    budget: float
    settled: Callable[[Mapping[str, Speedup]], bool]
    hopeless: Callable[[Mapping[str, Speedup]], frozenset[str]] = lambda _speedups: frozenset()
    on_round: Callable[[int, float], None] = lambda _rounds, _left: None
    on_throughput: Callable[[str], None] = lambda _name: None
    seed: int = 0
    references: Mapping[str, str] = field(default_factory=dict)

    @property
    def throughput_seconds(self) -> float:
        """How long to run at each number of streams and batch size: in a hurry, not for long."""
        return min(THROUGHPUT_SECONDS, max(MIN_THROUGHPUT_SECONDS, self.budget / 40))


@dataclass(frozen=True)
class WorkerOptions:
    """How to run the workers.

    Attributes:
        timeout: Seconds after which an engine that does not answer has hung.
        trust: Open a checkpoint even though it imports unknown code.
        log: File that the workers' own messages go to; None drops them.
        pythons: Interpreter by backend, where its runtime is not installed for this one.
    """

    timeout: float = 300.0
    trust: bool = False
    log: Path | None = None
    pythons: Mapping[str, str] = field(default_factory=dict)

    def worker(self, name: str, engine: Path) -> Worker:
        """Return a new worker for an engine, with its backend's interpreter if it has its own."""
        backend = read_artifact(engine).manifest.backend if self.pythons else ""
        python = self.pythons.get(backend)
        return Worker(name, timeout=self.timeout, log=self.log, python=python)


@dataclass
class Timings:
    """What the rounds gave.

    Attributes:
        rounds: By engine.
        failed: Reason by engine that did not last.
    """

    rounds: dict[str, Rounds] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def time_rounds(
    workers: Mapping[str, Worker], baseline: str, frames: int, plan: TimingPlan
) -> Timings:
    """Time open engines in interleaved rounds until every gate is settled or the time is spent.

    Args:
        workers: By name; each has its engine open and its frames loaded.
        baseline: The name that speedups are relative to.
        frames: Number of frames that were loaded.
        plan: How long, and when it is enough.
    """
    timings = Timings({name: [] for name in workers})
    order = random.Random(plan.seed)  # noqa: S311 (an order, not a secret)
    deadline = time.monotonic() + plan.budget
    try:
        per_round = _frames_per_round(workers[baseline], frames)
    except RaudoError as error:
        timings.failed[baseline] = error.message
        return timings
    dropped: frozenset[str] = frozenset()
    for number in range(1, MAX_ROUNDS + 1):
        start = number * per_round
        indices = [i % frames for i in range(start, start + per_round)]
        names = [name for name in workers if name not in dropped.union(timings.failed)]
        order.shuffle(names)
        for name in names:
            _time_one(workers[name], indices, name, timings)
        left = deadline - time.monotonic()
        plan.on_round(number, left)
        if baseline in timings.failed:
            break
        if number >= FEWEST_ROUNDS:
            ratios = speedups(timings, baseline, plan)
            kept = {baseline, *plan.references.values()}
            dropped |= plan.hopeless(ratios) - kept  # for good: rounds stay paired
            if left <= 0 or (number >= MIN_ROUNDS and plan.settled(ratios)):
                break
    return timings


def _frames_per_round(worker: Worker, frames: int) -> int:
    taken = worker.call("time", list(range(WARM_UP_FRAMES + 3)))[WARM_UP_FRAMES:]
    typical = float(np.median([sum(stages) for stages in taken]))
    return int(np.clip(ROUND_SECONDS / typical, 4, min(32, max(4, frames))))


def _time_one(worker: Worker, indices: Sequence[int], name: str, timings: Timings) -> None:
    try:
        taken = worker.call("time", [*indices[:WARM_UP_FRAMES], *indices])
    except RaudoError as error:
        log.warning("%s failed while timed: %s", name, error)
        timings.failed[name] = error.message
    else:
        timings.rounds[name].append(np.array(taken[WARM_UP_FRAMES:]))


def speedups(
    timings: Timings, baseline: str, plan: TimingPlan, *, model_only: bool = False
) -> dict[str, Speedup]:
    """Return each engine's speedup, with its 95 % bootstrap interval.

    Args:
        timings: What was timed.
        baseline: The name that speedups are relative to.
        plan: Names the references that differ from it.
        model_only: Compare the infer stage alone.

    Returns:
        By name, without the engines that failed and those whose reference did.
    """
    medians = {
        name: _round_medians(rounds, model_only)
        for name, rounds in timings.rounds.items()
        if name not in timings.failed
    }
    found = {}
    for name, own in medians.items():
        reference = medians.get(plan.references.get(name, baseline))
        if reference is not None:
            ratios = reference[: len(own)] / own[: len(reference)]
            found[name] = ratio_interval(ratios, plan.seed)
    return found


def _round_medians(rounds: Rounds, model_only: bool) -> NDArray[np.float64]:
    return np.array([np.median(r[:, 1] if model_only else r.sum(axis=1)) for r in rounds])


def ratio_interval(ratios: NDArray[np.float64], seed: int) -> Speedup:
    """Return the median of per-round ratios and its 95 % bootstrap interval."""
    picks = np.random.default_rng(seed).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[picks], axis=1), [2.5, 97.5])
    return Speedup(median=float(np.median(ratios)), low=float(low), high=float(high))


def percentiles(seconds: NDArray[np.float64]) -> Percentiles:
    """Summarize seconds as milliseconds."""
    p50, p90, p95, p99 = np.percentile(seconds * 1e3, [50, 90, 95, 99])
    return Percentiles(
        p50=float(p50),
        p90=float(p90),
        p95=float(p95),
        p99=float(p99),
        mean=float(seconds.mean() * 1e3),
    )


def summarize(
    rounds: Rounds, decode: Sequence[float], load_seconds: float, peak_memory: int
) -> Measurement:
    """Turn one engine's rounds into its measurement, without speedups and throughput."""
    taken = np.concatenate(rounds)
    total = taken.sum(axis=1)
    stages: dict[Stage, Percentiles] = {
        "decode": percentiles(np.array(decode)),
        "prepare": percentiles(taken[:, 0]),
        "infer": percentiles(taken[:, 1]),
        "select": percentiles(taken[:, 2]),
        "end_to_end": percentiles(total),
    }
    thin = total[:: max(1, len(total) // KEPT_SAMPLES)]
    return Measurement(
        stages=stages,
        rounds=len(rounds),
        samples_ms=tuple(round(float(t) * 1e3, 3) for t in thin),
        load_seconds=load_seconds,
        peak_memory_bytes=peak_memory,
    )


class Timed(Record):
    """What timing a set of engines side by side gave."""

    measurements: dict[str, Measurement]
    profiles: dict[str, tuple[NodeProfile, ...]] = Field(
        default_factory=dict, description="By engine: time by kind of node and precision"
    )
    failed: dict[str, str] = Field(description="Reason by engine that did not last")
    other_load: float = Field(description="Share of all cores that other programs took")

    def names(self) -> set[str]:
        """Return the engines that were timed, or failed to be."""
        return {*self.measurements, *self.failed}


def benchmark(
    engines: Mapping[str, Path],
    baseline: str,
    files: Sequence[Path],
    plan: TimingPlan,
    options: WorkerOptions,
) -> Timed:
    """Open engines, each in its own process, and time them side by side.

    Args:
        engines: Engine file by name.
        baseline: The name that speedups are relative to.
        files: Images to time on; a few of them, evenly spaced, are kept in memory.
        plan: How long, and when it is enough.
        options: How to run the workers.

    Raises:
        WorkerError: The baseline did not last.
    """
    frames = files[:: max(1, -(-len(files) // TIMED_FRAMES))]
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(options.worker(name, engine))
            for name, engine in engines.items()
        }
        opened, failed = _open_all(workers, engines, frames, options)
        if baseline not in opened:
            raise WorkerError(
                f"the baseline {baseline} failed: {failed[baseline]}",
                hint="nothing can be compared without it; the run's log says more",
            )
        load = LoadMonitor()
        timings = time_rounds({n: workers[n] for n in opened}, baseline, len(frames), plan)
        other_load = load.share()
        failed.update(timings.failed)
        measurements, profiles = {}, {}
        compared = _compare(timings, baseline, plan)
        for name in (n for n, rounds in timings.rounds.items() if rounds and n not in failed):
            plan.on_throughput(name)
            try:
                measured, profiles[name] = _finish(
                    workers[name],
                    engines[name],
                    timings.rounds[name],
                    opened[name],
                    options,
                    plan.throughput_seconds,
                )
            except RaudoError as error:
                failed[name] = error.message
            else:
                measurements[name] = measured.model_copy(
                    update={"other_load": other_load, **compared[name]}
                )
    if baseline not in measurements:
        raise WorkerError(
            f"the baseline {baseline} failed: {failed[baseline]}",
            hint="nothing can be compared without it; the run's log says more",
        )
    return Timed(measurements=measurements, profiles=profiles, failed=failed, other_load=other_load)


def _compare(
    timings: Timings, baseline: str, plan: TimingPlan
) -> dict[str, dict[str, str | Speedup | None]]:
    """Return, for each engine, the fields of its measurement that speak of another engine."""
    whole = speedups(timings, baseline, plan)
    alone = speedups(timings, baseline, plan, model_only=True)
    return {
        name: {
            "reference": plan.references.get(name, baseline),
            "speedup": whole.get(name),
            "speedup_model": alone.get(name),
        }
        for name in timings.rounds
    }


def _open_all(
    workers: Mapping[str, Worker],
    engines: Mapping[str, Path],
    frames: Sequence[Path],
    options: WorkerOptions,
) -> tuple[dict[str, tuple[float, list[float]]], dict[str, str]]:
    """Open every engine; returns (load seconds, decode seconds) by name, and the failures."""
    opened, failed = {}, {}
    for name, worker in workers.items():
        try:
            seconds = worker.call("load", engines[name], available_threads(), 1, 1, options.trust)
            opened[name] = (seconds, worker.call("load_frames", frames))
        except RaudoError as error:
            log.warning("%s failed to open: %s", name, error)
            failed[name] = error.message
    return opened, failed


def _finish(
    worker: Worker,
    engine: Path,
    rounds: Rounds,
    opened: tuple[float, list[float]],
    options: WorkerOptions,
    seconds: float,
) -> tuple[Measurement, tuple[NodeProfile, ...]]:
    """Summarize one engine's rounds, time its nodes, and measure its throughput."""
    load_seconds, decode = opened
    measured = summarize(rounds, decode, load_seconds, worker.call("peak_memory"))
    profile = worker.call("profile")
    fps = throughput(worker, engine, trust=options.trust, seconds=seconds)
    return measured.model_copy(update={"throughput": fps}), profile
