"""What the report formats show: numbers as text, candidates in order, marks, comparisons."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from raudo.checks import Check, assess, overall
from raudo.config import Gates
from raudo.machine import DISTURBED_SHARE

if TYPE_CHECKING:
    from raudo.checks import Outcome
    from raudo.presentation.plots import Kind
    from raudo.records import Candidate, Decision, Interval, Report, Speedup, Stage, Target, Verdict

MISSING = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"
TARGET_TITLES: dict[Target, str] = {
    "development": "Development",
    "production_cpu": "Production on CPU",
    "production_gpu": "Production on GPU",
    "edge": "Edge",
}
VERDICT_MARKS: dict[Verdict, str] = {
    "PASS": "✓",
    "FAIL": "✕",
    "INCONCLUSIVE": "?",
    "SKIPPED": MISSING,
}
OUTCOME_MARKS: dict[Outcome, str] = {"pass": "✓", "fail": "✕", "undecided": "?"}
OUTCOME_WORDS: dict[Outcome, str] = {
    "pass": "passes",
    "fail": "fails",
    "undecided": "not decided",
}
STAGE_TITLES: dict[Stage, str] = {
    "decode": "Decode",
    "prepare": "Prepare",
    "infer": "Infer",
    "select": "Select",
}
_LEADS: tuple[Target, ...] = ("production_gpu", "production_cpu", "edge", "development")


def number(value: float | None, digits: int = 2) -> str:
    """Return about three significant digits: 1.23, 12.3, 123; a dash where there is no value."""
    if value is None or not math.isfinite(value):
        return MISSING
    for limit, fewer in ((10, digits), (100, digits - 1)):
        if abs(round(value, digits)) < limit:
            places = max(0, fewer)
            return f"{round(value, places) + 0.0:.{places}f}"  # no "-0.00"
    return f"{value:,.0f}"


def disturbance(share: float | None) -> tuple[str, ...]:
    """Warn of a share of the cores, 0 to 1, that other programs took while engines were timed.

    PyTorch's threads wait for each other after each layer: the one that is interrupted stops all.
    """
    if share is None or share <= DISTURBED_SHARE:
        return ()
    return (
        f"other programs took {number(share * 100)} % of the cores while engines were timed; that "
        "slows PyTorch most, so speedups may be too large: time again on a quiet machine",
    )


def average_precision(value: float | None) -> str:
    """Return a mAP or an AP, three digits after the point."""
    return MISSING if value is None or not math.isfinite(value) else f"{value:.3f}"


def change(points: float | None) -> str:
    """Return a change in points with its sign; no sign where it rounds to nothing."""
    if points is None or not math.isfinite(points):
        return MISSING
    rounded = round(points, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def points(loss: Interval) -> str:
    """Return a loss in points (0 to 100)."""
    return f"{number(loss.value)} points"


def megabytes(size: int | None) -> str:
    """Return a size in MB (10^6 bytes)."""
    return MISSING if size is None else f"{number(size / 1e6)} MB"


def interval(given: Interval | Speedup | None) -> str:
    """Return the two ends of an interval."""
    return MISSING if given is None else f"[{number(given.low)}, {number(given.high)}]"


def measured(check: Check) -> str:
    """Return a gate's value with its unit."""
    if check.value is None:
        return MISSING
    return (
        f"{number(check.value)}{TIMES}" if check.gate == "speedup" else f"{number(check.value)} %"
    )


def demand(check: Check) -> str:
    """Return what a gate asks for."""
    if check.gate == "speedup":
        return f"≥ {check.bound:g}{TIMES}"
    return f"{'>' if check.gate == 'similarity_percent' else '<'} {check.bound:g} %"


@dataclass(frozen=True)
class Gauge:
    """Where an interval lies beside its gate; all positions in percent of the gauge's width."""

    low: float
    high: float
    value: float
    gate: float
    passing_left: bool

    @classmethod
    def of(cls, check: Check) -> Gauge | None:
        """Lay a check out; None where it was not measured."""
        ends = (check.low, check.value, check.high)
        known = [end for end in ends if end is not None and math.isfinite(end)]
        if len(known) < len(ends):
            return None
        left, right = min(*known, check.bound), max(*known, check.bound)
        margin = (right - left) * 0.12 or 1.0
        start, span = left - margin, right - left + 2 * margin
        low, value, high, gate = ((v - start) / span * 100 for v in (*known, check.bound))
        return cls(low, high, value, gate, check.gate.endswith("loss_percent"))


@dataclass(frozen=True)
class Row:
    """One candidate as the reports show it.

    Attributes:
        candidate: The record.
        checks: By gate, against the lead target's gates; empty for the baseline and for
            candidates that did not run.
        outcome: What the checks come to; None without checks.
        chosen_for: Titles of the targets that chose it.
    """

    candidate: Candidate
    checks: dict[str, Check]
    outcome: Outcome | None
    chosen_for: tuple[str, ...]

    @property
    def kind(self) -> Kind:
        """How plots mark it."""
        if self.candidate.baseline:
            return "baseline"
        return "chosen" if self.chosen_for else self.outcome or "other"


@dataclass(frozen=True)
class ClassRow:
    """Average precision of one class, of the baseline and of the featured candidate."""

    name: str
    boxes: int
    baseline: float | None
    engine: float | None

    @property
    def change(self) -> float | None:
        """Engine minus baseline, in points (0 to 100)."""
        if self.baseline is None or self.engine is None:
            return None
        return (self.engine - self.baseline) * 100


def lead(report: Report) -> tuple[Target, Decision]:
    """Return the target that the report opens with: the first that was not skipped."""
    present = [target for target in _LEADS if target in report.decisions]
    for target in present:
        if report.decisions[target].verdict != "SKIPPED" and target != "development":
            return target, report.decisions[target]
    target = "production_cpu" if "production_cpu" in present else present[0]
    return target, report.decisions[target]


def rows(report: Report) -> tuple[Row, ...]:
    """Return the baseline, then what ran, fastest first, then what did not."""
    target, _ = lead(report)
    gates = _gates(report, target)
    made = [_row(report, candidate, target, gates) for candidate in report.candidates]
    return tuple(sorted(made, key=_place))


def _gates(report: Report, target: Target) -> Gates | None:
    try:
        return Gates.model_validate(report.gates.get(target))
    except ValidationError:
        return None


def _row(report: Report, candidate: Candidate, target: Target, gates: Gates | None) -> Row:
    checks: dict[str, Check] = {}
    if gates and candidate.status == "OK" and not candidate.baseline:
        validated = report.source.accuracy_validated
        found = assess(candidate, gates, accuracy_validated=validated)
        checks = {check.gate: check for check in found}
    chosen = tuple(
        TARGET_TITLES[t]
        for t, d in report.decisions.items()
        if d.choice == candidate.name and not candidate.baseline
    )
    eligible = target in candidate.targets
    outcome = overall(checks.values()) if checks and eligible else None
    return Row(candidate, checks, outcome, chosen)


def _place(row: Row) -> tuple[bool, bool, float, str]:
    one = row.candidate
    median = one.speedup.median if one.speedup and math.isfinite(one.speedup.median) else 0.0
    return not one.baseline, one.status != "OK", -median, one.name


def baseline(report: Report) -> Candidate | None:
    """Return the candidate that all others are compared to."""
    return next((c for c in report.candidates if c.name == report.source.baseline), None)


def featured(report: Report) -> Row | None:
    """Return what the lead target chose, or else the candidate that came closest to passing."""
    _, decision = lead(report)
    able = [r for r in rows(report) if r.candidate.status == "OK" and not r.candidate.baseline]
    for row in able:
        if row.candidate.name == decision.choice:
            return row
    for_target = [r for r in able if r.outcome is not None] or able
    return min(for_target, key=_misses, default=None)


def _misses(row: Row) -> tuple[int, int]:
    outcomes = [check.outcome for check in row.checks.values()]
    return outcomes.count("fail"), outcomes.count("undecided")


def headline(report: Report) -> str:
    """Return the verdict of the lead target as one sentence."""
    target, decision = lead(report)
    row = featured(report)
    title = TARGET_TITLES[target]
    if decision.verdict == "PASS" and row is not None and row.candidate.speedup is not None:
        return f"{row.candidate.name} runs {number(row.candidate.speedup.median)}{TIMES} as fast"
    if decision.verdict == "PASS":
        return f"{decision.choice} is ready"
    if decision.verdict == "INCONCLUSIVE":
        return f"{title}: not decided yet"
    return f"{title}: {'no engine passes' if decision.verdict == 'FAIL' else 'nothing to decide'}"


def class_rows(report: Report) -> tuple[ClassRow, ...]:
    """Return the classes that the data set has boxes of, the most labelled first."""
    row, base = featured(report), baseline(report)
    if row is None or base is None or not base.accuracy or not row.candidate.accuracy:
        return ()
    engine = {c.name: c.ap50 for c in row.candidate.accuracy.classes}
    made = [ClassRow(c.name, c.boxes, c.ap50, engine.get(c.name)) for c in base.accuracy.classes]
    return tuple(sorted((c for c in made if c.boxes), key=lambda c: (-c.boxes, c.name)))


def stage_rows(report: Report) -> tuple[tuple[Candidate, tuple[tuple[Stage, float], ...]], ...]:
    """Return, for each candidate that was timed, the median milliseconds of each stage."""
    found = []
    for row in rows(report):
        if row.candidate.measurement is None:
            continue
        stages = row.candidate.measurement.stages
        parts = tuple((stage, stages[stage].p50) for stage in STAGE_TITLES if stage in stages)
        if parts:
            found.append((row.candidate, parts))
    return tuple(found)


def outside_int8(candidate: Candidate) -> float | None:
    """Return which percentage of an INT8 engine's time is spent outside of INT8; None if untold."""
    total = sum(row.milliseconds for row in candidate.profile)
    if candidate.precision != "int8" or not total:
        return None
    inside = sum(row.milliseconds for row in candidate.profile if row.precision == "int8")
    return 100 * (1 - inside / total)


def best_throughput(candidate: Candidate) -> str:
    """Return the setting at which the throughput was best, or nothing."""
    return candidate.throughput_setting.title if candidate.throughput_setting else ""
