"""Measurements and gates -> what each target should run: a pure function.

A gate is decided on the whole 95 % interval, never on the point in its middle. Where the interval
straddles the gate, or the machine was too busy, the answer is INCONCLUSIVE, with what would settle
it. Similarity is decided on its estimate; where its interval straddles it, the verdict says so.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

from raudo.checks import GATE_TITLES, Check, assess, needed_count, overall
from raudo.records import TARGETS, Decision

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from raudo.checks import Outcome
    from raudo.config import Gates
    from raudo.records import Candidate, Target, Verdict

LOCALIZATION_LOSS_PERCENT = 1.0
"""A loss of mAP@0.5:0.95 above this is called out even where mAP@0.5 holds."""
NOT_VALIDATED = "accuracy not validated: there was no labelled data set"
_CLOSEST = 3
Asked = TypeVar("Asked", bound=str)


def decide(
    candidates: Sequence[Candidate],
    gates: Mapping[Target, Gates],
    *,
    accuracy_validated: bool,
    has_gpu: bool,
) -> dict[Target, Decision]:
    """Decide what each target should run.

    Args:
        candidates: All candidates of the run, the baseline among them.
        gates: What each target asks for; `development` has no gates, it takes the baseline.
        accuracy_validated: Whether the candidates were scored on labelled images; if not, the
            accuracy gates are left out and every decision says so.
        has_gpu: Whether this machine has an NVIDIA GPU; only worded, never decided on.

    Returns:
        One decision for each of `records.TARGETS`.
    """
    decisions: dict[Target, Decision] = {}
    for target in TARGETS:
        if target == "development":
            decision = _decide_development(candidates)
        else:
            decision = _decide_target(
                [c for c in candidates if target in c.targets and not c.baseline],
                gates.get(target),
                accuracy_validated,
                _why_none(target, has_gpu),
            )
        if not accuracy_validated:
            decision = decision.model_copy(update={"reasons": (*decision.reasons, NOT_VALIDATED)})
        decisions[target] = decision
    return decisions


def asked_targets(targets: Sequence[Target], *, has_gpu: bool) -> tuple[Target, ...]:
    """Return the targets that the exit code speaks of: those asked for, or the usual ones."""
    if targets:
        return tuple(targets)
    return ("production_cpu", "production_gpu") if has_gpu else ("production_cpu",)


def exit_code(decisions: Mapping[Asked, Decision], asked: Iterable[Asked]) -> int:
    """Return 0 if nothing fails, 1 if a gate failed, 3 if the most that is left is open.

    Args:
        decisions: What `decide` returned, or decisions on single engines.
        asked: Those that count; one that was SKIPPED fails nothing.
    """
    verdicts = {decisions[each].verdict for each in asked if each in decisions}
    if "FAIL" in verdicts:
        return 1
    return 3 if "INCONCLUSIVE" in verdicts else 0


def passing(
    candidates: Sequence[Candidate], target: str, gates: Gates, *, accuracy_validated: bool
) -> tuple[Candidate, ...]:
    """Return the candidates that pass every gate of a target, the fastest first."""
    able = [c for c in candidates if target in c.targets and not c.baseline and c.status == "OK"]
    passed = [
        c
        for c in able
        if overall(assess(c, gates, accuracy_validated=accuracy_validated)) == "pass"
    ]
    return tuple(sorted(passed, key=lambda c: (-_median(c), c.name)))


def judge(candidate: Candidate, checks: Sequence[Check]) -> Decision:
    """Decide on one candidate alone, by some of the gates.

    Args:
        candidate: An engine that was measured.
        checks: How it stands to those gates.
    """
    pair = (candidate, tuple(checks))
    outcome = overall(checks)
    if outcome == "pass":
        return Decision(verdict="PASS", choice=candidate.name, reasons=tuple(_passes(pair)))
    return _failed([pair]) if outcome == "fail" else _inconclusive([pair])


def _decide_development(candidates: Sequence[Candidate]) -> Decision:
    baseline = next((c for c in candidates if c.baseline), None)
    if baseline is None:
        return Decision(
            verdict="SKIPPED", choice=None, reasons=("nothing here opens the model natively",)
        )
    if baseline.status != "OK":
        return Decision(
            verdict="FAIL" if baseline.status == "FAILED" else "SKIPPED",
            choice=None,
            reasons=(_absence(baseline),),
            next_steps=("mend the baseline first: every comparison rests on it",),
        )
    why = f"{baseline.name} is the baseline: native code, easy to debug"
    return Decision(verdict="PASS", choice=baseline.name, reasons=(why,))


def _why_none(target: Target, has_gpu: bool) -> tuple[str, str]:
    """Return why a target may have no candidate, and what to do about it."""
    if target == "production_gpu" and not has_gpu:
        return "no NVIDIA GPU here", "run it again on a machine that has an NVIDIA GPU"
    return (
        "no engine for this target is among those tried",
        "see 'raudo list' for those that there are, 'raudo doctor' for what can be installed",
    )


def _decide_target(
    candidates: Sequence[Candidate],
    gates: Gates | None,
    accuracy_validated: bool,
    why_none: tuple[str, str],
) -> Decision:
    able = [c for c in candidates if c.status == "OK"]
    absent = tuple(_absence(c) for c in candidates if c.status != "OK")
    if not able:
        return _none_able(candidates, absent, why_none)
    if gates is None:
        return Decision(
            verdict="SKIPPED",
            choice=None,
            reasons=("no gates are set for this target",),
            next_steps=("set its gates in the settings, under `gates`",),
        )
    assessed = [(c, assess(c, gates, accuracy_validated=accuracy_validated)) for c in able]
    assessed.sort(key=lambda pair: (-_median(pair[0]), pair[0].name))
    by_outcome: dict[Outcome, list[Assessed]] = {"pass": [], "undecided": [], "fail": []}
    for pair in assessed:
        by_outcome[overall(pair[1])].append(pair)
    if by_outcome["pass"]:
        return _passed(by_outcome["pass"][0], assessed)
    if by_outcome["undecided"]:
        return _inconclusive(by_outcome["undecided"][:_CLOSEST])
    closest = sorted(by_outcome["fail"], key=_distance)[:_CLOSEST]
    return _failed(closest)


def _none_able(
    candidates: Sequence[Candidate], absent: tuple[str, ...], why_none: tuple[str, str]
) -> Decision:
    """Decide a target that no candidate was measured for."""
    verdict: Verdict = "SKIPPED"
    step = "mend what is named above" if absent else why_none[1]
    if any(c.status == "FAILED" for c in candidates):
        verdict = "FAIL"
    elif any(c.untried for c in candidates):
        verdict, step = "INCONCLUSIVE", "give it more time: --time-budget"
    return Decision(
        verdict=verdict, choice=None, reasons=absent or (why_none[0],), next_steps=(step,)
    )


Assessed = tuple["Candidate", tuple[Check, ...]]


def _median(candidate: Candidate) -> float:
    speedup = candidate.speedup
    return -math.inf if speedup is None or math.isnan(speedup.median) else speedup.median


def _distance(pair: Assessed) -> tuple[int, float]:
    """How far a failing candidate is from passing: failed gates first, then by how much."""
    failed = [c for c in pair[1] if c.outcome == "fail"]
    return len(failed), sum(c.shortfall / max(c.bound, 1.0) for c in failed)


def _passed(chosen: Assessed, assessed: Sequence[Assessed]) -> Decision:
    candidate, _ = chosen
    reasons, steps = _passes(chosen), []
    for other, other_checks in assessed[: assessed.index(chosen)]:
        outcome = overall(other_checks)  # what fails needs no gate that is still open
        problems = [c for c in other_checks if c.outcome == outcome]
        reasons += [f"faster, but not chosen: {problem(other, check)}" for check in problems]
        if outcome == "undecided":
            steps += [_settle(other, check) for check in problems]
    passing = [c for c, c_checks in assessed if overall(c_checks) == "pass"]
    busiest = max(passing, key=lambda c: (c.throughput_fps or 0.0, c.name == candidate.name))
    return Decision(
        verdict="PASS",
        choice=candidate.name,
        best_throughput=busiest.name,
        throughput_setting=busiest.throughput_setting,
        reasons=tuple(reasons),
        next_steps=_once(steps),
    )


def _passes(passed: Assessed) -> list[str]:
    """Say how one candidate passes each gate."""
    candidate, checks = passed
    told = [
        f"{candidate.name} passes on {GATE_TITLES[check.gate]}: {_measured(check)} "
        f"(gate: {_demand(check)})"
        for check in checks
    ]
    return told + _callouts(candidate, checks)


def _inconclusive(undecided: Sequence[Assessed]) -> Decision:
    reasons: list[str] = []
    steps: list[str] = []
    for candidate, checks in undecided:
        open_checks = [c for c in checks if c.outcome == "undecided"]
        reasons += [problem(candidate, check) for check in open_checks]
        reasons += _callouts(candidate, checks)
        steps += [_settle(candidate, check) for check in open_checks]
    return Decision(
        verdict="INCONCLUSIVE", choice=None, reasons=tuple(reasons), next_steps=_once(steps)
    )


def _failed(closest: Sequence[Assessed]) -> Decision:
    reasons: list[str] = []
    steps: list[str] = []
    for candidate, checks in closest:
        problems = [c for c in checks if c.outcome == "fail"]
        reasons += [problem(candidate, check) for check in problems]
        reasons += _callouts(candidate, checks)
        steps += [step for check in problems for step in _remedies(candidate, check)]
    return Decision(verdict="FAIL", choice=None, reasons=tuple(reasons), next_steps=_once(steps))


def _once(steps: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(steps))


def _absence(candidate: Candidate) -> str:
    return f"{candidate.name} {candidate.status}: {candidate.reason or 'no reason was given'}"


def _number(value: float, digits: int = 2) -> str:
    rounded = round(value, digits if abs(value) < 10 else 1) + 0.0  # no "-0.00"
    return f"{rounded:.{digits if abs(value) < 10 else 1}f}"


def _with_unit(check: Check, value: float) -> str:
    return f"{_number(value)}x" if check.gate == "speedup" else f"{_number(value)} %"


def _measured(check: Check) -> str:
    if check.value is None or check.low is None or check.high is None:
        return "not measured"
    text = _with_unit(check, check.value)
    if check.low == check.value == check.high:
        return text
    return f"{text} [{_number(check.low)}, {_number(check.high)}]"


def _demand(check: Check) -> str:
    if check.gate == "speedup":
        return f"at least {check.bound:g}x"
    return f"{'over' if check.gate == 'similarity_percent' else 'under'} {check.bound:g} %"


def problem(candidate: Candidate, check: Check) -> str:
    """Say how one candidate fails, or leaves open, one gate."""
    title = GATE_TITLES[check.gate]
    if check.value is None:
        return f"{candidate.name}: {title} was not measured"
    if check.outcome == "fail":
        return (
            f"{candidate.name} fails on {title} by {_with_unit(check, check.shortfall)}: "
            f"{_measured(check)} (gate: {_demand(check)}){_divergence(candidate, check)}"
        )
    if check.other_load is not None:
        busy = f"other programs took {_number(check.other_load * 100)} % of the cores"
        return f"{candidate.name} is undecided on {title}: {_measured(check)}, but {busy}"
    return (
        f"{candidate.name} is undecided on {title}: {_measured(check)} straddles the gate "
        f"({_demand(check)}) by {_with_unit(check, _overreach(check))}"
    )


def _divergence(candidate: Candidate, check: Check) -> str:
    """Say which stage is the first to differ from the baseline's, where that explains a failure."""
    stage = candidate.similarity.diverges if candidate.similarity else None
    if stage is None or check.gate == "speedup":
        return ""
    if stage == "rectangle":
        return "; its input rectangle is not the baseline's, so it saw other pixels"
    return f"; it diverges from the baseline in its {stage}"


def _overreach(check: Check) -> float:
    """How far a straddling interval reaches to the failing side."""
    assert check.low is not None and check.high is not None  # noqa: S101, PT018 (it was measured)
    return check.bound - check.low if check.gate == "speedup" else check.high - check.bound


def _callouts(candidate: Candidate, checks: Sequence[Check]) -> list[str]:
    """Say what a verdict alone would hide."""
    return [*_close_calls(candidate, checks), *_localization(candidate, checks)]


def _close_calls(candidate: Candidate, checks: Iterable[Check]) -> list[str]:
    """Call out a gate that the estimate decided, though its interval straddles it."""
    told = []
    for check in checks:
        if check.outcome == "undecided" or not check.straddles:
            continue
        needed = needed_count(check)
        more = f"; about {needed:,} images would settle it" if needed else ""
        told.append(
            f"{candidate.name}: a close call on {GATE_TITLES[check.gate]}, {_measured(check)} "
            f"straddles the gate: other images might decide otherwise{more}"
        )
    return told


def _localization(candidate: Candidate, checks: Iterable[Check]) -> list[str]:
    """Call out a mAP@0.5 that holds while mAP@0.5:0.95 falls."""
    accuracy = candidate.accuracy
    loss = accuracy.map50_95_loss_percent if accuracy else None
    held = any(c.gate == "map50_loss_percent" and c.shortfall == 0 for c in checks)
    if loss is None or not held or loss.value <= LOCALIZATION_LOSS_PERCENT:
        return []
    return [
        f"{candidate.name}: mAP@0.5 holds, but mAP@0.5:0.95 falls by {_number(loss.value)} % "
        f"[{_number(loss.low)}, {_number(loss.high)}]: its boxes are less exact"
    ]


def _settle(candidate: Candidate, check: Check) -> str:
    """Say what would decide an open gate."""
    if check.value is None:
        return f"measure the {GATE_TITLES[check.gate]} of {candidate.name}"
    if check.other_load is not None:
        return "time again on a quiet machine: a busy one slows PyTorch most"
    what = "rounds" if check.gate == "speedup" else "labelled images"
    way = _LONGER if check.gate == "speedup" else "validate on a larger data set"
    needed = needed_count(check)
    if needed is None:
        return (
            f"{candidate.name} lies too close to the gate on {GATE_TITLES[check.gate]} for more "
            f"{what} to settle it soon: {way} if you must know, or choose another candidate"
        )
    return f"{way}: about {needed:,} {what} would settle {candidate.name}, it had {check.count:,}"


_LONGER = "time for longer (`timing_budget`; `raudo benchmark`: `--budget`)"
_FASTER = (
    "change the export settings: a smaller or a rectangular input (`size`) computes less",
    "try another precision, FP16, BF16 or INT8, where this machine speeds it up",
)
_FASTER_GPU = "try other GPU settings: FP16 or INT8, a larger workspace, CUDA graphs"
_CALIBRATE = (
    "calibrate on more images, and on images like those of production (`calibration_images`)",
    "keep the layers that lose most in a higher precision",
    "where the CPU computes in FP16 or BF16, use that: it needs no calibration and loses less",
)
_FULL_PRECISION = (
    "an FP32 engine should not differ: see in the report which stage diverges, and report a bug",
)
_OWN_SIZE = ("try the model's own input size: FP32 differs here because it saw other pixels",)
_HALF_PRECISION = ("keep the layers that lose most in FP32, or use the FP32 engine",)


def _remedies(candidate: Candidate, check: Check) -> tuple[str, ...]:
    """Name what to try next for a failed gate."""
    if check.gate == "speedup":
        gpu = "production_gpu" in candidate.targets
        return (_FASTER[0], _FASTER_GPU) if gpu else _FASTER
    if candidate.precision == "int8":
        return _CALIBRATE
    if candidate.precision != "fp32":
        return _HALF_PRECISION
    alike = candidate.similarity
    return _OWN_SIZE if alike and alike.diverges == "rectangle" else _FULL_PRECISION
