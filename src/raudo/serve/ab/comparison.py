"""A comparison while it goes on: counts, concludes, and says when the candidate has to go."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from raudo.serve.ab.guards import ALPHA, GUARDS, Guard
from raudo.serve.ab.records import Experiment, FigureState, Mode, RollBack, VariantState
from raudo.serve.ab.watches import UNITS, Watch
from raudo.serve.quantiles import Quantiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from raudo.records import Verdict
    from raudo.serve.ab.sequences import Estimate
    from raudo.serve.ab.watches import Figure

W = TypeVar("W", bound=Watch)

LOOK_EVERY = 20
"""Requests between two looks at the guards; any rhythm is valid, this one costs little."""
EPOCH = 100_000
"""Requests after which the figures start afresh: averages over weeks would hide a new fault."""
_HOPELESS = 100


@dataclass(frozen=True)
class Plan:
    """What is compared, and how.

    Attributes:
        mode: split: each request goes to one of the two; shadow: the baseline gets copies too.
        candidate: Name of the variant on trial.
        baseline: Name of the variant that it is held against, and that takes over if it fails.
        share: Part of the requests, in (0, 1], that go to the baseline, or are copied to it.
        expected_percent: F1 that the candidate's detections were proven to have.
        guards: What breaks the trial off.
    """

    mode: Mode
    candidate: str
    baseline: str
    share: float
    expected_percent: float = 100.0
    guards: tuple[Guard, ...] = GUARDS


class Side:
    """What is counted of one variant, and which engine it is."""

    def __init__(self) -> None:
        self.engine_sha256 = ""
        self.requests = self.failed = 0
        self.latencies = Quantiles()

    def count(self, milliseconds: float | None) -> None:
        """Count a request; None for one that it failed to answer."""
        self.requests += 1
        if milliseconds is None:
            self.failed += 1
        else:
            self.latencies.add(milliseconds)

    def state(self, name: str) -> VariantState:
        """Return what was counted."""
        p50, p95, p99 = (_known(self.latencies.at(share)) for share in (0.5, 0.95, 0.99))
        return VariantState(
            name=name,
            engine_sha256=self.engine_sha256,
            requests=self.requests,
            failed=self.failed,
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
        )


class Comparison(Generic[W]):
    """One experiment.

    The figures start afresh after EPOCH requests. The k-th epoch has alpha / (k (k + 1)) of the
    probability of a false alarm, which for all epochs together makes alpha.

    Args:
        plan: What is compared.
        make_watch: Makes what accumulates the figures of one epoch, given its alpha.
        now: Tells the time.
    """

    def __init__(
        self,
        plan: Plan,
        make_watch: Callable[[float], W],
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self.plan = plan
        self.sides = {plan.candidate: Side(), plan.baseline: Side()}
        self.rolled_back: RollBack | None = None
        self._make_watch, self._now = make_watch, now
        self._started = now()
        self._requests = self._epoch = 0
        self._held_after: int | None = None
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._epoch += 1
        self.watch = self._make_watch(ALPHA / (self._epoch * (self._epoch + 1)))

    def request_ended(self) -> bool:
        """Count a request whose figures the watch has; look at the guards now and then.

        Returns:
            Whether a guard broke right now, so that the candidate has to go.
        """
        if self.rolled_back:
            return False
        self._requests += 1
        if self._requests % LOOK_EVERY:
            return False
        figures = self.watch.figures()
        guarded = [(g, figures[g.figure]) for g in self.plan.guards if g.figure in figures]
        for guard, estimate in guarded:
            if guard.broken(estimate):
                self.rolled_back = self._roll_back(guard, estimate)
                return True
        if self._held_after is None and all(g.holds(e) for g, e in guarded):
            self._held_after = self._requests
        if self._requests % EPOCH == 0:
            self._begin_epoch()
        return False

    def _roll_back(self, guard: Guard, estimate: Estimate) -> RollBack:
        reason = (
            f"{guard.figure} is worse by at least {float(estimate.low):.1f} {guard.unit}"
            f" (estimate {float(estimate.value):.1f}); {guard.tolerated:g} are tolerated"
        )
        return RollBack(
            figure=guard.figure, reason=reason, requests=self._requests, at=_iso(self._now())
        )

    @property
    def reason(self) -> str:
        """Why the candidate was taken out; empty if it was not."""
        return self.rolled_back.reason if self.rolled_back else ""

    @property
    def verdict(self) -> Verdict:
        """FAIL once rolled back, PASS once all guards have held, INCONCLUSIVE before."""
        if self.rolled_back:
            return "FAIL"
        return "INCONCLUSIVE" if self._held_after is None else "PASS"

    def state(self) -> Experiment:
        """Return all that is known now."""
        plan = self.plan
        guards = {guard.figure: guard for guard in plan.guards}
        figures = self.watch.figures().items()
        return Experiment(
            mode=plan.mode,
            candidate=self.sides[plan.candidate].state(plan.candidate),
            baseline=self.sides[plan.baseline].state(plan.baseline),
            share_percent=100 * plan.share,
            expected_agreement_percent=plan.expected_percent,
            started=_iso(self._started),
            updated=_iso(self._now()),
            requests=self._requests,
            epoch=self._epoch,
            verdict=self.verdict,
            held_after=self._held_after,
            rolled_back=self.rolled_back,
            figures=tuple(describe(name, each, guards.get(name)) for name, each in figures),
        )


AnyComparison: TypeAlias = Comparison[Any]


def describe(name: Figure, estimate: Estimate, guard: Guard | None) -> FigureState:
    """Return a figure as a record, held against its guard if it has one."""
    verdict: Verdict | None = None
    if guard:
        holds, broken = guard.holds(estimate), guard.broken(estimate)
        verdict = "FAIL" if broken else "PASS" if holds else "INCONCLUSIVE"
    return FigureState(
        name=name,
        unit=UNITS[name],
        value=_known(float(estimate.value)) if estimate.count else None,
        low=_known(float(estimate.low)),
        high=_known(float(estimate.high)),
        count=int(estimate.count),
        limit=guard.limit if guard else None,
        tolerated=guard.tolerated if guard else None,
        verdict=verdict,
        needed=needed(estimate, guard) if guard and verdict == "INCONCLUSIVE" else None,
    )


def needed(estimate: Estimate, guard: Guard) -> int | None:
    """Return about how many requests would settle a guard; None if that cannot be told.

    An interval narrows about with the square root of what it rests on.
    """
    value, count = float(estimate.value), float(estimate.count)
    above, below = float(estimate.high) - value, value - float(estimate.low)
    paths = [(above, guard.limit - value), (below, value - guard.tolerated)]
    factors = [(reach / distance) ** 2 for reach, distance in paths if distance > 0]
    factor = min(factors, default=math.inf)
    if not factor < _HOPELESS:
        return None
    total = max(factor, 1) * count
    unit = int(10 ** max(0, math.floor(math.log10(total)) - 1))
    return math.ceil(total / unit) * unit


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
