from __future__ import annotations

from raudo.explain import explain, pareto
from sample_report import full


def test_every_candidate_is_explained() -> None:
    report = full()
    explained = dict(explain(report))
    assert list(explained) == [c.name for c in report.candidates]
    choice = report.decisions["production_cpu"].choice
    assert choice is not None
    assert explained[choice].startswith("chosen for")
    for candidate in report.candidates:
        if candidate.status != "OK":
            assert candidate.reason in explained[candidate.name]


def test_the_front_holds_what_nothing_beats() -> None:
    candidates = full().candidates
    front = pareto(candidates)
    measured = {c.name: c for c in candidates if c.latency_ms and c.map50 is not None}
    assert front
    for name, c in measured.items():
        beaten = any(
            o.latency_ms is not None
            and c.latency_ms is not None
            and (o.latency_ms.p50 <= c.latency_ms.p50 and (o.map50 or 0) >= (c.map50 or 0))
            for o in measured.values()
            if o is not c
        )
        assert (name in front) or beaten
