"""Why each candidate won or lost, one line each; and which ones nothing beats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raudo.checks import assess
from raudo.config import Gates
from raudo.decide import problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raudo.records import Candidate, Report


def pareto(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """Return the candidates that none beats in both latency and quality, fastest first.

    Quality is mAP@0.5 where there are labels, and similarity to the baseline elsewhere.
    """
    labelled = any(c.map50 is not None for c in candidates)
    points = [
        (c.latency_ms.p50, -quality, c.name)
        for c in candidates
        if c.latency_ms is not None
        and (quality := c.map50 if labelled else c.similarity_percent) is not None
    ]
    front: list[str] = []
    best = float("inf")
    for _, negative_quality, name in sorted(points):
        if negative_quality < best:
            front.append(name)
            best = negative_quality
    return tuple(front)


def explain(report: Report) -> tuple[tuple[str, str], ...]:
    """Return (candidate, why) for every candidate, in the report's order."""
    return tuple((c.name, _why(c, report)) for c in report.candidates)


def _why(candidate: Candidate, report: Report) -> str:
    chosen = [t for t, d in report.decisions.items() if d.choice == candidate.name]
    if chosen:
        return f"chosen for {', '.join(chosen)}"
    if candidate.status != "OK":
        return f"{candidate.status}: {candidate.reason}"
    if candidate.baseline:
        return "the baseline"
    lines = [line for t in candidate.targets if (line := _lost(candidate, t, report))]
    return "; ".join(dict.fromkeys(lines)) or "measured for comparison only"


def _lost(candidate: Candidate, target: str, report: Report) -> str:
    """Tell why a candidate is not the choice of one target; empty where it has no gates."""
    bounds = report.gates.get(target)
    if bounds is None:
        return ""
    checks = assess(
        candidate,
        Gates.model_validate(bounds),
        accuracy_validated=report.source.accuracy_validated,
    )
    problems = [problem(candidate, check) for check in checks if check.outcome != "pass"]
    if problems:
        return "; ".join(problems)
    choice = next((d.choice for t, d in report.decisions.items() if t == target), None)
    winner = next((c for c in report.candidates if c.name == choice), None)
    if winner is None or winner.speedup is None or candidate.speedup is None:
        return "passes"
    slower = winner.speedup.median / candidate.speedup.median
    return f"passes, but is {slower:.2f}x slower than {winner.name}"
