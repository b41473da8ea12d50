"""Candidates against gates: which side of each gate a whole interval lies on.

Similarity alone is decided on its estimate; `Check.straddles` tells where that is a close call.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from raudo.config import Gates
    from raudo.records import Candidate, Interval

Gate = Literal["speedup", "map50_loss_percent", "map50_95_loss_percent", "similarity_percent"]
Outcome = Literal["pass", "undecided", "fail"]

GATE_TITLES: dict[Gate, str] = {
    "speedup": "speedup",
    "map50_loss_percent": "loss of mAP@0.5",
    "map50_95_loss_percent": "loss of mAP@0.5:0.95",
    "similarity_percent": "similarity",
}
_HOPELESS = 100
"""Past this many times the images or rounds, more of them are no advice."""
BUSY_SHARE = 0.25
"""Above this share of the cores taken by other programs, no speedup passes: PyTorch, whose threads
wait for each other, was seen to be slowed 1.4 times as much as engines at 0.4, 5 times at 0.7."""


@dataclass(frozen=True)
class Check:
    """One candidate against one gate.

    Attributes:
        gate: Name of the gate.
        bound: What it asks for: at least for `speedup` and `similarity_percent`, below for losses.
        outcome: Which side of the gate the whole interval lies on, of similarity the estimate;
            `undecided` if the interval straddles the gate, nothing was measured, or the machine
            was too busy for a speedup to be believed.
        value: Point estimate, or None where it was not measured.
        low: Low end of the interval; the value itself where there is no interval.
        high: High end of the interval.
        count: Rounds or images that the interval rests on; None where it is not known.
        other_load: Share of the cores that other programs took, where that alone leaves a speedup
            open; otherwise None.
    """

    gate: Gate
    bound: float
    outcome: Outcome
    value: float | None = None
    low: float | None = None
    high: float | None = None
    count: int | None = None
    other_load: float | None = None

    @property
    def straddles(self) -> bool:
        """Whether the gate lies within the interval."""
        return self.low is not None and self.high is not None and self.low <= self.bound < self.high

    @property
    def shortfall(self) -> float:
        """How far the value is on the wrong side of the gate, in its unit; 0 on the right side."""
        if self.value is None:
            return math.inf
        wrong = (
            self.value - self.bound
            if self.gate.endswith("loss_percent")
            else (self.bound - self.value)
        )
        return max(0.0, wrong)


def assess(candidate: Candidate, gates: Gates, *, accuracy_validated: bool) -> tuple[Check, ...]:
    """Hold one candidate against every gate that applies."""
    speedup, accuracy = candidate.speedup, candidate.accuracy
    measurement = candidate.measurement
    ends = None if speedup is None else (speedup.median, speedup.low, speedup.high)
    rounds = measurement.rounds if measurement else None
    images = accuracy.images if accuracy else None
    speed = _interval_check("speedup", gates.speedup, ends, rounds)
    if speed.outcome == "pass" and measurement and measurement.other_load > BUSY_SHARE:
        speed = replace(speed, outcome="undecided", other_load=measurement.other_load)
    checks = [speed]
    if accuracy_validated:
        loss = _ends(candidate.map50_loss_percent)
        checks.append(_interval_check("map50_loss_percent", gates.map50_loss_percent, loss, images))
    if accuracy_validated and gates.map50_95_loss_percent is not None:
        loss = _ends(accuracy.map50_95_loss_percent if accuracy else None)
        bound = gates.map50_95_loss_percent
        checks.append(_interval_check("map50_95_loss_percent", bound, loss, images))
    checks.append(_similarity_check(gates.similarity_percent, candidate))
    return tuple(checks)


def overall(checks: Iterable[Check]) -> Outcome:
    """Return the worst outcome: one failed gate fails, one undecided gate leaves it open."""
    outcomes = {check.outcome for check in checks}
    if "fail" in outcomes:
        return "fail"
    return "undecided" if "undecided" in outcomes else "pass"


def _ends(interval: Interval | None) -> tuple[float, float, float] | None:
    return None if interval is None else (interval.value, interval.low, interval.high)


def _interval_check(
    gate: Gate, bound: float, ends: tuple[float, float, float] | None, count: int | None
) -> Check:
    if ends is None:
        return Check(gate, bound, "undecided")
    value, low, high = ends
    outcome: Outcome = "undecided"
    if low >= bound:
        outcome = "pass" if gate == "speedup" else "fail"
    elif high < bound:
        outcome = "fail" if gate == "speedup" else "pass"
    return Check(gate, bound, outcome, value, low, high, count)


def _similarity_check(bound: float, candidate: Candidate) -> Check:
    value = candidate.similarity_percent
    if value is None or math.isnan(value):
        return Check("similarity_percent", bound, "undecided")
    outcome: Outcome = "pass" if value > bound else "fail"
    alike = candidate.similarity
    _, low, high = _ends(alike.f1_interval if alike else None) or (value, value, value)
    images = alike.images if alike else None
    return Check("similarity_percent", bound, outcome, value, low, high, images)


def needed_count(check: Check) -> int | None:
    """Return about how many rounds or images would pull the interval off the gate.

    An interval narrows with the square root of what it rests on. None if the count is not known,
    or if the value lies so close to the gate that no sensible count would do.
    """
    if check.value is None or check.low is None or check.high is None or check.count is None:
        return None
    distance = abs(check.value - check.bound)
    reach = check.high - check.value if check.value < check.bound else check.value - check.low
    if distance == 0 or not reach / distance < math.sqrt(_HOPELESS):
        return None
    needed = check.count * (reach / distance) ** 2
    unit = 10 ** max(0, math.floor(math.log10(needed)) - 1) if needed >= 1 else 1
    return max(check.count + 1, math.ceil(needed / unit) * unit)
