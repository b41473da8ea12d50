"""Why each candidate won or lost, one line each; and which ones nothing beats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from raudo.checks import assess, overall
from raudo.config import Gates
from raudo.decide import problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raudo.records import Candidate, Report


def pareto(
    candidates: Sequence[Candidate], by: Literal["latency", "throughput"] = "latency"
) -> tuple[str, ...]:
    """Return the candidates that none beats in both speed and quality, fastest first.

    Quality is mAP@0.5 where there are labels, and similarity to the baseline elsewhere.

    Args:
        candidates: All of them.
        by: What speed is: the median latency, or frames a second at the best setting of streams
            and batch size.
    """
    labelled = any(c.map50 is not None for c in candidates)
    points = [
        (seconds, -quality, c.name)
        for c in candidates
        if (seconds := _seconds(c, by)) is not None
        and (quality := c.map50 if labelled else c.similarity_percent) is not None
    ]
    front: list[str] = []
    best = float("inf")
    for _, negative_quality, name in sorted(points):
        if negative_quality < best:
            front.append(name)
            best = negative_quality
    return tuple(front)


def _seconds(candidate: Candidate, by: Literal["latency", "throughput"]) -> float | None:
    """Return the seconds a frame, or nothing if they were not measured."""
    if by == "throughput":
        return 1 / candidate.throughput_fps if candidate.throughput_fps else None
    return candidate.latency_ms.p50 / 1e3 if candidate.latency_ms else None


def explain(report: Report) -> tuple[tuple[str, str], ...]:
    """Return (candidate, why) for every candidate, in the report's order."""
    return tuple((c.name, _why(c, report)) for c in report.candidates)


def _why(candidate: Candidate, report: Report) -> str:
    busiest = [t for t, d in report.decisions.items() if d.best_throughput == candidate.name]
    most = f"most frames a second for {', '.join(busiest)}{_setting(candidate)}" if busiest else ""
    chosen = [t for t, d in report.decisions.items() if d.choice == candidate.name]
    if chosen:
        told = (f"chosen for {', '.join(chosen)}", most, _selecting(candidate))
        return "; ".join(filter(None, told))
    if candidate.status != "OK":
        return f"{candidate.status}: {candidate.reason}"
    if candidate.baseline:
        return "the baseline"
    lines = [most] if most else []
    lines += [line for t in candidate.targets for line in _lost(candidate, t, report)]
    lines += [candidate.remedy] if candidate.remedy else []
    return "; ".join(dict.fromkeys(lines)) or "measured for comparison only"


def _setting(candidate: Candidate) -> str:
    """Tell how a candidate reaches its most frames a second, and what other settings gave."""
    best, measured = candidate.throughput_setting, candidate.measurement
    if best is None or measured is None:
        return ""
    others = (setting for setting in measured.throughput if setting != best)
    told = (f"{setting.fps:.1f} with {setting.title}" for setting in (best, *others))
    return f" ({'; '.join(told)})"


def _selecting(candidate: Candidate) -> str:
    """Tell what an engine could win by selecting inside: at most what it takes outside."""
    stages = candidate.measurement.stages if candidate.measurement else {}
    if "select" not in stages or "end_to_end" not in stages:
        return ""
    share = 100 * stages["select"].p50 / stages["end_to_end"].p50
    return f"selecting after the engine takes {share:.1f} % of the time, the most to win inside it"


def _lost(candidate: Candidate, target: str, report: Report) -> tuple[str, ...]:
    """Tell why a candidate is not the choice of one target; () where it has no gates."""
    bounds = report.gates.get(target)
    if bounds is None:
        return ()
    checks = assess(
        candidate,
        Gates.model_validate(bounds),
        accuracy_validated=report.source.accuracy_validated,
    )
    outcome = overall(checks)
    if outcome != "pass":
        problems = (problem(candidate, check) for check in checks if check.outcome == outcome)
        return tuple(each.removeprefix(f"{candidate.name} ") for each in problems)
    choice = next((d.choice for t, d in report.decisions.items() if t == target), None)
    winner = next((c for c in report.candidates if c.name == choice), None)
    if winner is None or winner.speedup is None or candidate.speedup is None:
        return ("passes",)
    slower = winner.speedup.median / candidate.speedup.median
    return (f"passes, but is {slower:.2f}x slower than {winner.name}",)
