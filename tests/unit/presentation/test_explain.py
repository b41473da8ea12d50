from __future__ import annotations

from raudo.presentation.explain import explain, pareto
from raudo.records import Interval
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


def test_what_fails_for_two_targets_is_told_once_and_without_what_is_still_open() -> None:
    report = full()
    loser, *_ = [c for c in report.candidates if c.status == "OK" and not c.baseline]
    both = loser.model_copy(
        update={
            "targets": ("production_cpu", "edge"),
            "similarity_percent": 90.0,
            "map50_loss_percent": Interval(value=0.9, low=-1.0, high=3.0),
            "remedy": "",
        }
    )
    gates = dict.fromkeys(("production_cpu", "edge"), report.gates["production_cpu"])
    changed = {"candidates": (both,), "decisions": {}, "gates": gates}
    (told,) = dict(explain(report.model_copy(update=changed))).values()
    assert told.startswith("fails on ")
    assert told.count("similarity") == 1
    assert "undecided" not in told


def test_what_was_done_to_mend_an_engine_is_explained() -> None:
    report = full()
    loser, *_ = [c for c in report.candidates if c.status == "OK" and not c.baseline]
    mended = loser.model_copy(update={"remedy": "not mended: another passes and is faster"})
    others = [c for c in report.candidates if c.name != loser.name]
    report = report.model_copy(update={"candidates": (mended, *others), "decisions": {}})
    assert dict(explain(report))[mended.name].endswith("not mended: another passes and is faster")


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


def test_the_most_frames_a_second_are_explained_with_their_setting() -> None:
    report = full()
    decision = report.decisions["production_cpu"]
    assert decision.best_throughput is not None
    assert decision.throughput_setting is not None
    why = dict(explain(report))[decision.best_throughput]
    assert "most frames a second for production_cpu (" in why
    assert decision.throughput_setting.title in why
    measured = next(c.measurement for c in report.candidates if c.name == decision.best_throughput)
    assert measured is not None
    assert len(measured.throughput) > 1
    assert all(f"{s.fps:.1f} with {s.title}" in why for s in measured.throughput)


def test_where_the_choice_selects_is_explained() -> None:
    report = full()
    choice = next(
        c for c in report.candidates if c.name == report.decisions["production_cpu"].choice
    )
    assert choice.measurement is not None
    stages = choice.measurement.stages
    share = 100 * stages["select"].p50 / stages["end_to_end"].p50
    why = dict(explain(report))[choice.name]
    assert f"selecting after the engine takes {share:.1f} % of" in why


def test_the_front_of_throughput_is_ranked_by_frames_a_second() -> None:
    first, second, *_ = [c for c in full().candidates if c.latency_ms and c.map50 is not None]
    slow = first.model_copy(update={"throughput_fps": 10.0, "map50": 0.5})
    fast = second.model_copy(update={"throughput_fps": 20.0, "map50": 0.4})
    untimed = second.model_copy(update={"throughput_fps": None, "map50": 0.9})
    assert pareto([slow, fast, untimed], by="throughput") == (fast.name, slow.name)
    better = fast.model_copy(update={"map50": 0.5})
    assert pareto([slow, better], by="throughput") == (fast.name,)
