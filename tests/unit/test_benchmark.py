"""Interleaved rounds, ratios with intervals, and engines that do not last."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from null_engines import null_engine
from raudo import benchmark
from raudo.benchmark import (
    FEWEST_ROUNDS,
    MAX_ROUNDS,
    MIN_ROUNDS,
    WARM_UP_FRAMES,
    TimingPlan,
    Timings,
    WorkerOptions,
    percentiles,
    ratio_interval,
    speedups,
    summarize,
    time_rounds,
)
from raudo.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

IMAGES = sorted((Path(__file__).parents[2] / "samples/coco-mini/images/val").glob("*.jpg"))[:3]


PLAN = TimingPlan(60, lambda _: True)


class FakeWorker:
    """Answers `time` with made-up seconds; keeps a diary that several of them share."""

    def __init__(
        self,
        name: str,
        seconds: Callable[[int], float],
        diary: list[tuple[str, tuple[int, ...]]],
        lasts: int = 10**9,
    ) -> None:
        self.name, self.seconds, self.diary, self.lasts = name, seconds, diary, lasts
        self.calls = 0

    def call(self, action: str, indices: Sequence[int]) -> Any:
        assert action == "time"
        self.calls += 1
        self.diary.append((self.name, tuple(indices)))
        if self.calls > self.lasts:
            raise WorkerError(f"{self.name} crashed", hint="")
        total = self.seconds(self.calls)
        return [(total / 4, total / 2, total / 4)] * len(indices)


def fakes(diary: list[Any], **seconds: Callable[[int], float]) -> dict[str, Any]:
    return {name: FakeWorker(name, each, diary) for name, each in seconds.items()}


def rounds_of(diary: list[tuple[str, tuple[int, ...]]], engines: int) -> list[list[Any]]:
    timed = diary[1:]  # the first call finds out how many frames a round has
    return [timed[i : i + engines] for i in range(0, len(timed), engines)]


def never(_: Any) -> bool:
    return False


def always(_: Any) -> bool:
    return True


def test_rounds_are_interleaved_on_the_same_frames() -> None:
    diary: list[Any] = []
    workers = fakes(diary, base=lambda _: 0.1, a=lambda _: 0.05, b=lambda _: 0.2)
    timings = time_rounds(workers, "base", 16, TimingPlan(60, always))
    rounds = rounds_of(diary, 3)
    assert len(rounds) == MIN_ROUNDS
    assert all({name for name, _ in each} == set(workers) for each in rounds)
    assert all(len({indices for _, indices in each}) == 1 for each in rounds)
    assert len({tuple(name for name, _ in each) for each in rounds}) > 1, "the order never changes"
    assert len({indices for each in rounds for _, indices in each}) > 1, "always the same frames"
    first = timings.rounds["a"][0]
    assert first.shape == (len(rounds[0][0][1]) - WARM_UP_FRAMES, 3)


def test_a_drift_of_the_machine_cancels_out() -> None:
    """The machine gets ten times slower meanwhile; who is timed first must not matter."""

    def drifting(base: float) -> Callable[[int], float]:
        return lambda call: base * (1 + call)

    workers = fakes([], base=drifting(0.1), fast=drifting(0.025))
    workers["base"].calls = -1  # it is asked once more than the others, before the rounds
    timings = time_rounds(workers, "base", 8, TimingPlan(60, always))
    ratio = speedups(timings, "base", PLAN)["fast"]
    assert ratio.median == pytest.approx(4)
    assert ratio.high - ratio.low < 1e-9
    totals = [float(r.sum(axis=1).mean()) for r in timings.rounds["base"]]
    assert max(totals) > 5 * min(totals)


def test_engines_are_compared_with_the_reference_of_their_own_device() -> None:
    workers = fakes([], base=lambda _: 0.1, a=lambda _: 0.05, gpu=lambda _: 0.01, g=lambda _: 0.002)
    plan = TimingPlan(60, always, references={"g": "gpu", "gpu": "gpu", "a": "base"})
    ratios = speedups(time_rounds(workers, "base", 8, plan), "base", plan)
    assert {name: round(ratio.median, 3) for name, ratio in ratios.items()} == {
        "base": 1,
        "a": 2,
        "gpu": 1,
        "g": 5,
    }


def test_an_engine_whose_reference_fails_has_no_speedup_and_no_other_s() -> None:
    workers = fakes([], base=lambda _: 0.1, gpu=lambda _: 0.01, g=lambda _: 0.002)
    workers["gpu"].lasts = 2
    plan = TimingPlan(60, always, references={"g": "gpu", "gpu": "gpu"})
    timings = time_rounds(workers, "base", 8, plan)
    assert set(speedups(timings, "base", plan)) == {"base"}
    assert len(timings.rounds["g"]) == MIN_ROUNDS


def test_a_reference_is_timed_to_the_end_however_slow() -> None:
    workers = fakes([], base=lambda _: 0.1, gpu=lambda _: 0.01, g=lambda _: 0.002)
    plan = TimingPlan(60, always, hopeless=frozenset, references={"g": "gpu", "gpu": "gpu"})
    rounds = time_rounds(workers, "base", 8, plan).rounds
    assert (len(rounds["gpu"]), len(rounds["base"])) == (MIN_ROUNDS, MIN_ROUNDS)
    assert len(rounds["g"]) < MIN_ROUNDS


@pytest.mark.slow
def test_rounds_end_once_settled_and_go_on_until_then() -> None:
    workers = fakes([], base=lambda _: 0.1, a=lambda _: 0.1)
    asked: list[float] = []

    def settled(ratios: Any) -> bool:
        asked.append(ratios["a"].median)
        return len(asked) == 5

    timings = time_rounds(workers, "base", 8, TimingPlan(60, settled))
    assert len(timings.rounds["a"]) == MIN_ROUNDS + 4
    timings = time_rounds(workers, "base", 8, TimingPlan(60, never))
    assert len(timings.rounds["a"]) == MAX_ROUNDS


def test_a_spent_budget_ends_the_rounds_but_not_before_there_is_an_interval() -> None:
    workers = fakes([], base=lambda _: 0.1, a=lambda _: 0.1)
    timings = time_rounds(workers, "base", 8, TimingPlan(0.0, never))
    assert len(timings.rounds["a"]) == FEWEST_ROUNDS
    assert 2 * 0.5**FEWEST_ROUNDS < 0.05, "of fewer rounds a median has no 95 % interval"


def test_progress_is_told() -> None:
    told: list[tuple[int, float]] = []
    plan = TimingPlan(60, always, on_round=lambda number, left: told.append((number, left)))
    time_rounds(fakes([], base=lambda _: 0.1), "base", 8, plan)
    assert [number for number, _ in told] == list(range(1, MIN_ROUNDS + 1))
    lefts = [left for _, left in told]
    assert lefts == sorted(lefts, reverse=True)
    assert all(left <= 60 for left in lefts)


def test_an_engine_that_dies_is_failed_and_the_others_go_on() -> None:
    workers = fakes([], base=lambda _: 0.1, good=lambda _: 0.05)
    workers["bad"] = FakeWorker("bad", lambda _: 0.1, [], lasts=3)
    timings = time_rounds(workers, "base", 8, TimingPlan(60, always))
    assert timings.failed == {"bad": "bad crashed"}
    assert set(speedups(timings, "base", PLAN)) == {"base", "good"}
    assert len(timings.rounds["good"]) == MIN_ROUNDS
    assert workers["bad"].calls == 4, "it is not asked again"


def test_rounds_end_with_the_baseline() -> None:
    workers = fakes([], good=lambda _: 0.05)
    workers["base"] = FakeWorker("base", lambda _: 0.1, [], lasts=3)
    timings = time_rounds(workers, "base", 8, TimingPlan(60, always))
    assert set(timings.failed) == {"base"}
    assert speedups(timings, "base", PLAN) == {}


def test_a_hopeless_engine_is_dropped_for_good_and_its_rounds_stay_paired() -> None:
    """The machine drifts, so a round paired with another one would change the ratio."""
    workers = fakes(
        [], base=lambda call: 0.1 * call, slow=lambda call: 0.4 * (call + 1), a=lambda _: 0.1
    )
    asked: list[int] = []

    def hopeless(_: Any) -> frozenset[str]:
        asked.append(1)
        return frozenset({"slow", "base"}) if len(asked) == 1 else frozenset()

    timings = time_rounds(workers, "base", 8, TimingPlan(60, always, hopeless))
    assert len(timings.rounds["slow"]) == FEWEST_ROUNDS
    assert len(timings.rounds["base"]) == MIN_ROUNDS, "the baseline is never dropped"
    ratio = speedups(timings, "base", PLAN)["slow"]
    assert ratio.median == pytest.approx(0.25)
    assert ratio.low == pytest.approx(ratio.high)


def test_speedups_of_the_model_alone() -> None:
    base = np.array([[0.010, 0.030, 0.010]] * 4)
    fast = np.array([[0.010, 0.010, 0.010]] * 4)
    timings = Timings({"base": [base] * 7, "fast": [fast] * 7})
    assert speedups(timings, "base", PLAN)["fast"].median == pytest.approx(5 / 3)
    assert speedups(timings, "base", PLAN, model_only=True)["fast"].median == pytest.approx(3)
    assert speedups(timings, "base", PLAN)["base"].median == 1


ratios_in = st.lists(st.floats(0.01, 100), min_size=6, max_size=40)


@settings(max_examples=40)
@given(ratios_in, st.integers(0, 9))
def test_an_interval_holds_its_median_and_lies_within_the_ratios(
    ratios: list[float], seed: int
) -> None:
    found = ratio_interval(np.array(ratios), seed)
    assert found == ratio_interval(np.array(ratios), seed), "a seed is a seed"
    assert min(ratios) <= found.low <= found.median <= found.high <= max(ratios)
    assert found.median == pytest.approx(float(np.median(ratios)))


def test_intervals_cover_the_truth() -> None:
    """Of many experiments whose true ratio is 1.5, at least nine of ten intervals hold it."""
    random = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        found = ratio_interval(1.5 * random.lognormal(0, 0.1, 12), seed)
        covered += found.low <= 1.5 <= found.high
    assert covered >= 180


def test_more_rounds_narrow_the_interval() -> None:
    random = np.random.default_rng(0)
    few = ratio_interval(random.lognormal(0, 0.2, 8), 0)
    many = ratio_interval(random.lognormal(0, 0.2, 200), 0)
    assert many.high - many.low < (few.high - few.low) / 2


def test_percentiles_are_milliseconds() -> None:
    seconds = np.arange(1, 102) / 1000
    found = percentiles(seconds)
    assert (found.p50, found.p90, found.p95, found.p99) == pytest.approx((51, 91, 96, 100))
    assert found.mean == pytest.approx(51)


def test_a_summary_has_every_stage_and_thin_samples() -> None:
    random = np.random.default_rng(0)
    rounds = [random.uniform(0.01, 0.02, (32, 3)) for _ in range(100)]
    found = summarize(rounds, [0.004, 0.005], 1.5, 123)
    total = np.concatenate(rounds).sum(axis=1) * 1e3
    assert set(found.stages) == {"decode", "prepare", "infer", "select", "end_to_end"}
    assert found.stages["end_to_end"].p50 == pytest.approx(np.percentile(total, 50))
    assert found.stages["decode"].p50 == pytest.approx(4.5)
    assert 400 <= len(found.samples_ms) <= 800
    assert (found.rounds, found.load_seconds, found.peak_memory_bytes) == (100, 1.5, 123)


@pytest.mark.slow
def test_real_engines_side_by_side_and_one_that_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "THROUGHPUT_SECONDS", 0.1)
    engines = {
        name: null_engine(tmp_path / f"{name}.npz", seed=i)
        for i, name in enumerate(("base", "other", "broken", "damaged"))
    }
    engines["broken"].unlink()
    engines["damaged"].write_bytes(b"no engine")
    named: list[str] = []
    plan = TimingPlan(0.0, always, on_throughput=named.append)
    timed = benchmark.benchmark(engines, "base", IMAGES, plan, WorkerOptions(timeout=60))
    assert set(timed.measurements) == {"base", "other"} == set(named)
    assert "no such engine" in timed.failed["broken"]
    assert "not the file" in timed.failed["damaged"]
    assert timed.names() == set(engines)
    other = timed.measurements["other"]
    assert other.speedup is not None
    assert other.speedup.low <= other.speedup.median <= other.speedup.high
    assert other.speedup_model is not None
    assert timed.measurements["base"].speedup is not None
    assert timed.measurements["base"].speedup.median == 1
    assert other.rounds == FEWEST_ROUNDS
    assert other.stages["decode"].p50 > 0
    assert {(t.streams, t.batch) for t in other.throughput} >= {(1, 1)}
    assert all(t.fps > 0 and math.isfinite(t.fps) for t in other.throughput)
    assert 0 <= timed.other_load <= 1
    assert other.other_load == timed.other_load


def test_without_its_baseline_nothing_is_timed(tmp_path: Path) -> None:
    engines = {"base": tmp_path / "none.npz", "other": null_engine(tmp_path / "other.npz")}
    with pytest.raises(WorkerError, match="baseline base failed: no such engine"):
        benchmark.benchmark(engines, "base", IMAGES, TimingPlan(0.0, always), WorkerOptions())
