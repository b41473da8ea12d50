"""Verdicts: by example, and by the properties that must hold for any measurement."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raudo.checks import assess, needed_count, overall
from raudo.config import Gates, default_gates
from raudo.decide import NOT_VALIDATED, decide, exit_code, judge
from raudo.records import (
    TARGETS,
    Accuracy,
    Candidate,
    Decision,
    Interval,
    Measurement,
    Percentiles,
    Similarity,
    Speedup,
    Target,
    Verdict,
)

RANK: dict[Verdict, int] = {"FAIL": 0, "INCONCLUSIVE": 1, "PASS": 2}
PERCENTILES = Percentiles(p50=20, p90=21, p95=22, p99=25, mean=20.4)
CPU: Target = "production_cpu"


def candidate(
    name: str = "engine-fp32",
    *,
    speedup: tuple[float, float, float] | None = (2.0, 1.9, 2.1),
    loss: tuple[float, float, float] | None = (0.1, -0.1, 0.3),
    loss_95: tuple[float, float, float] | None = (0.2, 0.0, 0.4),
    similarity: float | None = 99.5,
    **changes: object,
) -> Candidate:
    def interval(ends: tuple[float, float, float] | None) -> Interval | None:
        return ends and Interval(value=ends[0], low=ends[1], high=ends[2])

    fields: dict[str, object] = {
        "name": name,
        "backend": "engine",
        "precision": "fp32",
        "status": "OK",
        "targets": (CPU,),
        "speedup": speedup and Speedup(median=speedup[0], low=speedup[1], high=speedup[2]),
        "map50_loss_percent": interval(loss),
        "similarity_percent": similarity,
        "measurement": Measurement(
            stages={"end_to_end": PERCENTILES},
            rounds=10,
            samples_ms=(20.0,),
            load_seconds=0.1,
            peak_memory_bytes=1,
        ),
        "accuracy": Accuracy(
            images=91, boxes=700, map50=0.5, map50_95=0.3, map50_95_loss_percent=interval(loss_95)
        ),
    }
    return Candidate.model_validate({**fields, **changes})


BASELINE = candidate("native-fp32", baseline=True, targets=("development",), speedup=None)


def run(*candidates: Candidate, **changes: object) -> dict[Target, Decision]:
    options = {"gates": default_gates(), "accuracy_validated": True, "has_gpu": False, **changes}
    return decide((BASELINE, *candidates), options.pop("gates"), **options)


def on_cpu(*candidates: Candidate, **changes: object) -> Decision:
    return run(*candidates, **changes)[CPU]


def said(decision: Decision) -> str:
    return "\n".join((*decision.reasons, *decision.next_steps))


# Examples ---------------------------------------------------------------------------------------


def test_every_target_gets_a_decision() -> None:
    assert tuple(run()) == TARGETS
    assert tuple(decide((), {}, accuracy_validated=False, has_gpu=True)) == TARGETS


def test_the_fastest_of_those_that_pass_is_chosen() -> None:
    slow, fast = candidate("slow", speedup=(1.8, 1.7, 1.9)), candidate("fast")
    reckless = candidate("reckless", speedup=(5.0, 4.9, 5.1), loss=(29, 25, 33))
    decision = on_cpu(slow, reckless, fast)
    assert (decision.verdict, decision.choice) == ("PASS", "fast")
    assert "reckless" in said(decision), "a faster one that fails is explained"
    assert "28.0 %" in said(decision), "and by how much"


def test_a_faster_one_that_fails_is_not_told_to_be_undecided_too() -> None:
    fast = candidate("fast-int8", speedup=(4.0, 3.9, 4.1), loss=(2.0, -1.0, 5.0), similarity=90.0)
    decision = on_cpu(candidate(), fast)
    assert "fast-int8 fails on similarity" in said(decision)
    assert "undecided" not in said(decision)


def test_a_point_beyond_the_gate_is_not_enough() -> None:
    assert on_cpu(candidate(speedup=(1.6, 1.4, 1.8))).verdict == "INCONCLUSIVE"
    assert on_cpu(candidate(loss=(0.5, -1.4, 2.8))).verdict == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"speedup": (1.6, 1.5, 1.7)}, "PASS"),
        ({"speedup": (1.4, 1.3, 1.5)}, "INCONCLUSIVE"),
        ({"speedup": (1.4, 1.3, 1.499)}, "FAIL"),
        ({"loss": (0.5, 0.1, 0.999)}, "PASS"),
        ({"loss": (0.5, 0.1, 1.0)}, "INCONCLUSIVE"),
        ({"loss": (1.5, 1.0, 2.0)}, "FAIL"),
        ({"similarity": 98.01}, "PASS"),
        ({"similarity": 98.0}, "FAIL"),
        ({"speedup": None}, "INCONCLUSIVE"),
        ({"loss": None}, "INCONCLUSIVE"),
        ({"similarity": None}, "INCONCLUSIVE"),
        ({"speedup": (math.nan,) * 3}, "INCONCLUSIVE"),
        ({"similarity": math.nan}, "INCONCLUSIVE"),
        ({"loss": (0.5, -1.4, 2.8), "similarity": 50.0}, "FAIL"),
    ],
)
def test_edges_of_the_gates(change: dict[str, object], verdict: Verdict) -> None:
    decision = on_cpu(candidate(**change))
    assert decision.verdict == verdict
    assert (decision.choice is None) == (verdict != "PASS")


def test_the_stricter_map_is_gated_only_if_asked() -> None:
    loose = candidate(loss_95=(3.0, 2.5, 3.5))
    strict = default_gates()[CPU].model_copy(update={"map50_95_loss_percent": 1.0})
    assert on_cpu(loose).verdict == "PASS"
    assert on_cpu(loose, gates={CPU: strict}).verdict == "FAIL"
    assert on_cpu(candidate(), gates={CPU: strict}).verdict == "PASS"


def test_a_map_that_holds_while_the_stricter_one_falls_is_called_out() -> None:
    fallen = said(on_cpu(candidate(loss_95=(3.0, 2.1, 3.9))))
    assert "mAP@0.5 holds, but mAP@0.5:0.95 falls by 3.00 % [2.10, 3.90]" in fallen
    assert "falls by" not in said(on_cpu(candidate(loss_95=(0.9, 0.1, 1.5))))


def test_without_labels_accuracy_is_not_gated_and_every_decision_says_so() -> None:
    decisions = run(candidate(loss=None), accuracy_validated=False)
    assert decisions[CPU].verdict == "PASS"
    assert all(NOT_VALIDATED in d.reasons for d in decisions.values())
    assert not any(NOT_VALIDATED in d.reasons for d in run(candidate()).values())


def test_the_baseline_is_for_development_only() -> None:
    everywhere = BASELINE.model_copy(update={"targets": TARGETS})
    decisions = decide((everywhere,), default_gates(), accuracy_validated=True, has_gpu=True)
    assert decisions["development"].choice == BASELINE.name
    assert {decisions[t].verdict for t in TARGETS[1:]} == {"SKIPPED"}


def test_a_baseline_that_did_not_run() -> None:
    failed = BASELINE.model_copy(update={"status": "FAILED", "reason": "it crashed"})
    decision = decide((failed,), {}, accuracy_validated=True, has_gpu=False)["development"]
    assert decision.verdict == "FAIL"
    assert "it crashed" in said(decision)


def test_why_a_target_is_skipped() -> None:
    assert run()["production_gpu"].reasons == ("no NVIDIA GPU here",)
    assert run(has_gpu=True)["production_gpu"].reasons != ("no NVIDIA GPU here",)
    assert "installed" in said(run()["edge"])
    broken = candidate("broken", status="FAILED", reason="ran out of memory")
    absent = candidate("absent", status="SKIPPED", reason="no BF16 on this CPU")
    decision = on_cpu(broken, absent)
    assert (decision.verdict, decision.choice) == ("FAIL", None)
    assert on_cpu(absent).verdict == "SKIPPED"
    late = absent.model_copy(update={"name": "late", "untried": True})
    assert on_cpu(absent, late).verdict == "INCONCLUSIVE"
    assert decision.reasons == (
        "broken FAILED: ran out of memory",
        "absent SKIPPED: no BF16 on this CPU",
    )
    assert on_cpu(candidate(), gates={}).verdict == "SKIPPED"


def test_a_failed_gate_is_named_with_its_distance_and_a_remedy() -> None:
    slow = on_cpu(candidate(speedup=(1.39, 1.36, 1.42)))
    assert "fails on speedup by 0.11x: 1.39x [1.36, 1.42] (gate: at least 1.5x)" in said(slow)
    assert "`size`" in said(slow)
    lossy = on_cpu(candidate(precision="int8", loss=(3.0, 2.0, 4.0)))
    assert "by 2.00 %" in said(lossy)
    assert "`calibration_images`" in said(lossy)
    assert "BF16" in said(lossy)
    assert "calibrat" not in said(on_cpu(candidate(loss=(3.0, 2.0, 4.0))))
    on_gpu = candidate(targets=("production_gpu",), speedup=(2.0, 1.9, 2.1))
    assert "GPU settings" in said(run(on_gpu)["production_gpu"])


def test_what_detects_worse_says_in_which_stage() -> None:
    alike = Similarity(
        images=91, f1_percent=90, mean_iou=0.9, score_shift=-0.1, diverges="preparation"
    )
    worse = candidate(similarity=90.0).model_copy(update={"similarity": alike})
    assert "diverges from the baseline in its preparation" in said(on_cpu(worse))
    slow = candidate(speedup=(1.4, 1.3, 1.45)).model_copy(update={"similarity": alike})
    assert "diverges" not in said(on_cpu(slow))


def test_what_detects_worse_in_another_rectangle_is_told_so() -> None:
    alike = Similarity(
        images=91, f1_percent=90, mean_iou=0.9, score_shift=-0.1, diverges="rectangle"
    )
    worse = candidate(similarity=90.0).model_copy(update={"similarity": alike})
    assert "its input rectangle is not the baseline's" in said(on_cpu(worse))
    assert "own input size" in said(on_cpu(worse))
    assert "report a bug" not in said(on_cpu(worse))


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "PASS"),
        ({"similarity": 90.0}, "FAIL"),
        ({"loss": (0.5, -1.4, 2.8)}, "INCONCLUSIVE"),
        ({"speedup": None}, "PASS"),
    ],
)
def test_one_engine_alone_is_judged_by_the_gates_that_were_measured(
    change: dict[str, object], verdict: Verdict
) -> None:
    engine = candidate(**change)  # type: ignore[arg-type]
    checks = assess(engine, default_gates()[CPU], accuracy_validated=True)
    decision = judge(engine, [check for check in checks if check.gate != "speedup"])
    assert decision.verdict == verdict
    assert (decision.choice == engine.name) == (verdict == "PASS")
    assert all(engine.name in reason for reason in decision.reasons)
    assert bool(decision.next_steps) == (verdict != "PASS")


def test_the_closest_failures_come_first() -> None:
    near = candidate("near", speedup=(1.4, 1.35, 1.45))
    far = candidate("far", speedup=(1.1, 1.05, 1.15))
    both = candidate("both", speedup=(1.45, 1.44, 1.46), similarity=50.0)
    reasons = on_cpu(both, far, near).reasons
    assert [reason.split()[0] for reason in reasons] == ["near", "far", "both", "both"]


def test_what_would_settle_an_open_gate() -> None:
    accuracy = said(on_cpu(candidate(loss=(0.4, -0.8, 1.6))))
    assert "straddles the gate (under 1 %) by 0.60 %" in accuracy
    assert "about 370 labelled images would settle engine-fp32, it had 91" in accuracy  # 91 * 2^2
    speed = said(on_cpu(candidate(speedup=(1.6, 1.4, 1.8))))
    assert "`timing_budget`" in speed
    assert "about 40 rounds" in speed


def measured_beside(other_load: float, speedup: tuple[float, float, float]) -> Candidate:
    quiet = candidate(speedup=speedup)
    assert quiet.measurement is not None
    disturbed = quiet.measurement.model_copy(update={"other_load": other_load})
    return quiet.model_copy(update={"measurement": disturbed})


def test_no_speedup_passes_on_a_busy_machine() -> None:
    # Seen: 11.4x beside programs that took 71 % of the cores, 2.3x alone.
    decision = on_cpu(measured_beside(0.71, (11.4, 9.8, 12.0)))
    assert decision.verdict == "INCONCLUSIVE"
    assert decision.choice is None
    (reason,) = decision.reasons
    assert "11.4x [9.80, 12.0]" in reason
    assert "other programs took 71.0 % of the cores" in reason
    assert "quiet machine" in decision.next_steps[0]
    assert on_cpu(measured_beside(0.13, (2.0, 1.9, 2.1))).verdict == "PASS"
    assert on_cpu(measured_beside(0.71, (1.2, 1.1, 1.3))).verdict == "FAIL"


@pytest.mark.parametrize("value", [1.0, 1.01])
def test_no_number_is_promised_where_the_value_lies_on_the_gate(value: float) -> None:
    decision = on_cpu(candidate(loss=(value, value - 1.5, value + 1.5)))
    assert decision.verdict == "INCONCLUSIVE"
    assert "too close to the gate" in said(decision)


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        (("PASS", "PASS"), 0),
        (("PASS", "SKIPPED"), 0),
        (("SKIPPED", "SKIPPED"), 0),
        (("PASS", "FAIL"), 1),
        (("INCONCLUSIVE", "FAIL"), 1),
        (("PASS", "INCONCLUSIVE"), 3),
        (("SKIPPED", "INCONCLUSIVE"), 3),
    ],
)
def test_exit_code(verdicts: tuple[Verdict, Verdict], code: int) -> None:
    targets: tuple[Target, Target] = ("production_cpu", "production_gpu")
    decisions = {
        target: Decision(verdict=verdict, choice=None, reasons=())
        for target, verdict in zip(targets, verdicts, strict=True)
    }
    assert exit_code(decisions, targets) == code
    assert exit_code(decisions, reversed(targets)) == code
    assert exit_code(decisions, ()) == 0


def test_only_targets_that_count_fail() -> None:
    decisions = run(candidate(similarity=10.0))
    assert exit_code(decisions, ["production_cpu"]) == 1
    assert exit_code(decisions, ["development", "production_gpu"]) == 0


def test_decide_needs_no_numpy() -> None:
    code = "import sys, raudo.decide; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Properties -------------------------------------------------------------------------------------


@st.composite
def ends(draw: st.DrawFn, centre: st.SearchStrategy[float]) -> tuple[float, float, float]:
    value = draw(centre)
    below, above = draw(st.floats(0, 3)), draw(st.floats(0, 3))
    return value, value - below, value + above


@st.composite
def measured(draw: st.DrawFn, name: str = "engine-fp32") -> Candidate:
    return candidate(
        name,
        speedup=draw(ends(st.floats(0.2, 6)) | st.none()),
        loss=draw(ends(st.floats(-2, 4)) | st.none()),
        loss_95=draw(ends(st.floats(-2, 4))),
        similarity=draw(st.floats(90, 100) | st.none()),
        status=draw(st.sampled_from(["OK", "OK", "OK", "FAILED", "SKIPPED"])),
        precision=draw(st.sampled_from(["fp32", "bf16", "int8"])),
    )


crowds = st.integers(0, 5).flatmap(
    lambda n: st.tuples(*(measured(name=f"engine-{i}") for i in range(n)))
)
gates_in = st.builds(
    lambda s, m, x, f: {
        CPU: Gates(speedup=s, map50_loss_percent=m, map50_95_loss_percent=x, similarity_percent=f)
    },
    st.floats(0.5, 4),
    st.floats(0, 3),
    st.none() | st.floats(0, 3),
    st.floats(90, 100),
)


@given(crowds, gates_in, st.booleans())
def test_pure_and_independent_of_the_order(
    crowd: tuple[Candidate, ...], gates: dict[Target, Gates], labelled: bool
) -> None:
    forth = run(*crowd, gates=gates, accuracy_validated=labelled)
    assert forth == run(*crowd, gates=gates, accuracy_validated=labelled)
    back = run(*reversed(crowd), gates=gates, accuracy_validated=labelled)
    assert (back[CPU].verdict, back[CPU].choice) == (forth[CPU].verdict, forth[CPU].choice)


@given(crowds, gates_in, st.booleans())
def test_the_choice_passes_every_gate_and_nothing_that_passes_is_faster(
    crowd: tuple[Candidate, ...], gates: dict[Target, Gates], labelled: bool
) -> None:
    decision = on_cpu(*crowd, gates=gates, accuracy_validated=labelled)
    passing = [
        c
        for c in crowd
        if c.status == "OK"
        and overall(assess(c, gates[CPU], accuracy_validated=labelled)) == "pass"
    ]
    assert (decision.verdict == "PASS") == bool(passing)
    if decision.choice is None:
        assert decision.verdict != "PASS"
        assert decision.reasons
        return
    (chosen,) = (c for c in passing if c.name == decision.choice)
    assert chosen.speedup is not None
    assert all(c.speedup and c.speedup.median <= chosen.speedup.median for c in passing)


@given(crowds, gates_in)
def test_every_verdict_but_pass_names_a_next_step(
    crowd: tuple[Candidate, ...], gates: dict[Target, Gates]
) -> None:
    decision = on_cpu(*crowd, gates=gates)
    assert decision.next_steps or decision.verdict == "PASS"


@given(
    crowds.filter(len),
    gates_in,
    st.booleans(),
    st.tuples(st.floats(0, 3), st.floats(0, 3), st.floats(0, 5)),
)
def test_a_better_candidate_never_makes_the_verdict_worse(
    crowd: tuple[Candidate, ...],
    gates: dict[Target, Gates],
    labelled: bool,
    gain: tuple[float, float, float],
) -> None:
    first, *others = crowd
    before = on_cpu(*crowd, gates=gates, accuracy_validated=labelled)
    better = on_cpu(improved(first, *gain), *others, gates=gates, accuracy_validated=labelled)
    assert RANK.get(better.verdict, 3) >= RANK.get(before.verdict, 3)


@given(crowds, measured(name="newcomer"), gates_in)
def test_one_more_candidate_never_makes_the_verdict_worse(
    crowd: tuple[Candidate, ...], newcomer: Candidate, gates: dict[Target, Gates]
) -> None:
    before = on_cpu(*crowd, gates=gates).verdict
    after = on_cpu(*crowd, newcomer, gates=gates).verdict
    assert before == "SKIPPED" or RANK[after] >= RANK[before]


@given(measured(), gates_in)
def test_more_images_than_there_are_settle_an_open_gate(
    only: Candidate, gates: dict[Target, Gates]
) -> None:
    for check in assess(only, gates[CPU], accuracy_validated=True):
        needed = needed_count(check)
        if check.outcome == "undecided" and needed is not None:
            assert check.count is not None
            assert check.count < needed <= 130 * check.count


def improved(one: Candidate, faster: float, closer: float, liker: float) -> Candidate:
    """The same candidate, its intervals moved to the better side."""
    changes: dict[str, object] = {}
    if one.speedup:
        s = one.speedup
        changes["speedup"] = Speedup(
            median=s.median + faster, low=s.low + faster, high=s.high + faster
        )
    if one.map50_loss_percent:
        changes["map50_loss_percent"] = moved(one.map50_loss_percent, closer)
    if one.similarity_percent:
        changes["similarity_percent"] = min(100.0, one.similarity_percent + liker)
    assert one.accuracy is not None
    assert one.accuracy.map50_95_loss_percent is not None
    stricter = moved(one.accuracy.map50_95_loss_percent, closer)
    changes["accuracy"] = one.accuracy.model_copy(update={"map50_95_loss_percent": stricter})
    return one.model_copy(update=changes)


def moved(loss: Interval, closer: float) -> Interval:
    return Interval(value=loss.value - closer, low=loss.low - closer, high=loss.high - closer)


@pytest.mark.parametrize(
    ("value", "low", "high", "called"),
    [(98.3, 97.4, 98.9, True), (98.3, 98.1, 98.9, False), (97.9, 97.0, 98.5, True)],
)
def test_a_similarity_that_other_images_might_decide_otherwise_is_called_out(
    value: float, low: float, high: float, called: bool
) -> None:
    alike = Similarity(
        images=100,
        f1_percent=value,
        f1_interval=Interval(value=value, low=low, high=high),
        mean_iou=0.99,
        score_shift=0.0,
    )
    decision = run(candidate(similarity=value).model_copy(update={"similarity": alike}))[CPU]
    assert decision.verdict == ("PASS" if value > 98 else "FAIL"), "the estimate decides"
    calls = [reason for reason in decision.reasons if "close call on similarity" in reason]
    assert len(calls) == called
    if called:
        assert f"[{low:.1f}, {high:.1f}] straddles the gate" in calls[0]
