"""Whether A/B figures may be watched: simulated tests, looked at after every single request.

usage: python benchmarks/ab.py [--tests N] [--seed N] [--json]

The ratio of a false-alarm case is the share that is allowed by the share that was seen; that of a
detection case is the share found by the share asked for. Intervals are Wilson's. Cases at the
edge of what is tolerated are the hardest ones that must still be left alone.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from raudo.serve.ab.guards import AGREEMENT, ALPHA, GUARDS, LATENCY
from raudo.serve.ab.likeness import Likeness
from raudo.serve.ab.sequences import FEWEST
from raudo.serve.ab.watches import ShadowWatch, SplitWatch
from rows import Row, show

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from raudo.serve.ab.watches import Watch

    Floats = NDArray[np.float64]

REQUESTS, PAIRS = 20_000, 5000
BASELINE_SHARE, ERROR_RATE = 0.1, 0.001
EXPECTED, FOUND, ALLOWED = 98.5, 0.9, ALPHA


@dataclass(frozen=True)
class World:
    """What is true in a simulated test.

    Attributes:
        slowdown: Of the candidate, in percent.
        agreement: Pooled F1 of the candidate's detections with the baseline's, in percent.
        errors: Share of requests that the candidate fails; the baseline fails ERROR_RATE.
    """

    slowdown: float = 0.0
    agreement: float = EXPECTED
    errors: float = ERROR_RATE


def milliseconds(random: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Draw latencies: a lognormal body, one in fifty in a Pareto tail of infinite variance."""
    body = random.lognormal(math.log(15), 0.3, shape)
    tail = np.where(random.random(shape) < 0.02, 1 + random.pareto(1.5, shape), 1)
    return body * tail


def images(random: np.random.Generator, tests: int, agreement: float) -> Likeness:
    """Draw images: a third empty, the others crowded to very different degrees, as photographs are.

    Disagreement comes in clusters: how likely a detection is missed varies from image to image.
    """
    objects = random.poisson(random.gamma(0.8, 9, tests)) * (random.random(tests) > 1 / 3)
    mean = 1 - agreement / 100
    missed = random.binomial(objects, random.beta(0.3, 0.3 * (1 - mean) / mean, tests))
    flipped = random.binomial(missed, 0.2)
    matched = objects - missed
    shift = random.normal(0, 0.03, tests) * np.sqrt(matched)
    numbers = (2 * objects, matched, flipped, shift)
    return Likeness(*(np.asarray(n, np.float64) for n in numbers))


def split_step(random: np.random.Generator, watch: SplitWatch, tests: int, world: World) -> None:
    """Let one request come in, in all tests."""
    candidate = np.asarray(random.random(tests) >= BASELINE_SHARE, np.float64)
    rate = np.where(candidate > 0, world.errors, ERROR_RATE)
    failed = np.asarray(random.random(tests) < rate, np.float64)
    watch.add(candidate, milliseconds(random, (tests,)) * slowed(world, candidate), failed)


def shadow_step(random: np.random.Generator, watch: ShadowWatch, tests: int, world: World) -> None:
    """Let one request come in, in all tests; its size slows both variants alike."""
    seen = images(random, tests, world.agreement)
    took, other = milliseconds(random, (2, tests))
    watch.add(seen)
    watch.add_latencies(took * slowed(world, np.ones(tests)) / other)
    for candidate, rate in ((1.0, world.errors), (0.0, ERROR_RATE)):
        watch.add_outcome(candidate, np.asarray(random.random(tests) < rate, np.float64))


def slowed(world: World, candidate: Floats) -> Floats:
    """Return what the world multiplies latencies by."""
    return 1 + candidate * world.slowdown / 100


@dataclass(frozen=True)
class Rung:
    """After how many requests each test's alarm rang, infinite for those quiet; shape [tests].

    Attributes:
        guarded: The alarm that rolls back.
        strict: The same with nothing tolerated: an interval that lies above zero.
    """

    guarded: Floats
    strict: Floats


def run(step: Callable[[], None], watch: Watch, steps: int, tests: int) -> Rung:
    """Run all tests at once, and look at each after each request."""
    rung = [np.full(tests, np.inf) for _ in range(2)]
    strict = tuple(replace(guard, limit=0.0) for guard in GUARDS)
    for number in range(1, steps + 1):
        step()
        figures = watch.figures()
        for guards, first in zip((GUARDS, strict), rung, strict=True):
            broken = [g.broken(figures[g.figure]) for g in guards if g.figure in figures]
            first[np.any(broken, axis=0) & np.isinf(first)] = number
    return Rung(*rung)


def split(world: World, tests: int, seed: int, steps: int = REQUESTS) -> Rung:
    """Simulate split tests."""
    random, watch = np.random.default_rng(seed), SplitWatch(ALPHA)
    return run(lambda: split_step(random, watch, tests, world), watch, steps, tests)


def shadow(world: World, tests: int, seed: int, steps: int = PAIRS) -> Rung:
    """Simulate shadow tests."""
    random, watch = np.random.default_rng(seed), ShadowWatch(ALPHA, EXPECTED)
    return run(lambda: shadow_step(random, watch, tests, world), watch, steps, tests)


def peeked(tests: int, seed: int, steps: int = PAIRS) -> Floats:
    """Return when an ordinary 95 % interval of the latencies' ratio first lies off zero, in A/A."""
    random, count = np.random.default_rng(seed), np.arange(1, steps + 1)
    first = np.full(tests, np.inf)
    for test in range(tests):
        values = np.log(np.divide(*milliseconds(random, (2, steps))))
        mean = np.cumsum(values) / count
        deviation = np.sqrt(np.maximum(np.cumsum(values**2) / count - mean**2, 0))
        off = (np.abs(mean) > 1.96 * deviation / np.sqrt(count)) & (count >= FEWEST)
        first[test] = np.argmax(off) + 1 if off.any() else np.inf
    return first


def wilson(hits: int, tests: int) -> tuple[float, float]:
    """Return the 95 % interval of a share."""
    z2 = 1.96**2
    centre = (hits + z2 / 2) / (tests + z2)
    reach = 1.96 / (tests + z2) * math.sqrt(hits * (tests - hits) / tests + z2 / 4)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def row(case: str, first: Floats, *, wanted: bool) -> Row:
    """Hold the share of alarms against what is wanted of it."""
    hits, tests = int(np.isfinite(first).sum()), len(first)
    share, (low, high) = hits / tests, wilson(hits, tests)
    extra: dict[str, float | str] = {"tests": tests, "alarms": share}
    if hits:
        extra["median requests to alarm"] = float(np.median(first[np.isfinite(first)]))
    if wanted:
        return Row(case, share / FOUND, low / FOUND, high / FOUND, goal=1.0, extra=extra)
    ratio = ALLOWED / max(share, 1 / tests)
    return Row(case, ratio, ALLOWED / high, ALLOWED / max(low, 1 / tests), goal=1.0, extra=extra)


def left_alone(tests: int, seed: int) -> list[Row]:
    """Run the cases in which no alarm may ring."""
    slower = World(slowdown=LATENCY.tolerated)
    unlike = World(agreement=EXPECTED - AGREEMENT.tolerated)
    split_same, shadow_same = split(World(), tests, seed), shadow(World(), tests, seed + 1)
    same = {
        "split, A/A": split_same.guarded,
        "split, A/A, nothing tolerated": split_same.strict,
        "shadow, A/A": shadow_same.guarded,
        "shadow, A/A, nothing tolerated": shadow_same.strict,
    }
    edges = {
        "split, 5 % slower": split(slower, tests, seed + 2).guarded,
        "shadow, 5 % slower": shadow(slower, tests, seed + 3).guarded,
        "shadow, 1 point less alike": shadow(unlike, tests, seed + 4).guarded,
    }
    ordinary = row("A/A, ordinary 95 % interval", peeked(tests, seed + 5), wanted=False)
    rows = [row(case, first, wanted=False) for case, first in {**same, **edges}.items()]
    return [*rows, replace(ordinary, goal=None)]


def found(tests: int, seed: int) -> list[Row]:
    """Run the cases in which the alarm has to ring."""
    slow, failing = World(slowdown=LATENCY.limit), World(errors=0.03)
    unlike = World(agreement=EXPECTED - AGREEMENT.limit)
    rung = {
        "split, 10 % slower": split(slow, tests, seed + 6),
        "split, 3 % of requests fail": split(failing, tests, seed + 7),
        "shadow, 10 % slower": shadow(slow, tests, seed + 8),
        "shadow, 2 points less alike": shadow(unlike, tests, seed + 9),
    }
    return [row(case, each.guarded, wanted=True) for case, each in rung.items()]


def main() -> None:
    """Run the cases and print what they say."""
    parser = argparse.ArgumentParser(description="A/B figures that are watched all the time.")
    parser.add_argument("--tests", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    show([*left_alone(given.tests, given.seed), *found(given.tests, given.seed)], given.json)


if __name__ == "__main__":
    main()
