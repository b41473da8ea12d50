"""What `--ab`, `--shadow` and `--guard` ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from null_engines import null_run
from raudo.errors import EngineError, UsageError
from raudo.serve.ab.routing import ShadowRouting, SplitRouting
from raudo.serve.ab.trial import Trial, parse_guards, parse_share, prepare_trial

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return null_run(tmp_path / "run")


def prepared(run: Path, **options: Any) -> Trial:
    trial = prepare_trial(run, run / "engines" / "fast.npz", **options)
    assert trial is not None
    return trial


def test_nothing_asked_for_is_nothing_compared(run: Path) -> None:
    assert prepare_trial(run, run / "engines" / "fast.npz") is None


def test_a_split_with_the_baseline(run: Path) -> None:
    trial = prepared(run, split="baseline=10")
    assert trial.variant == "baseline"
    assert trial.artifact.path.name == "slow.npz"
    assert isinstance(trial.routing, SplitRouting)
    plan = trial.routing.comparison.plan
    assert (plan.candidate, plan.baseline, plan.share) == ("primary", "baseline", 0.1)


def test_a_shadow_expects_what_the_run_has_proven(run: Path) -> None:
    trial = prepared(run, shadow="baseline")
    assert isinstance(trial.routing, ShadowRouting)
    plan = trial.routing.comparison.plan
    assert (plan.share, plan.expected_percent) == (1.0, 99.2)


def test_another_candidate_is_named_as_the_report_does(run: Path) -> None:
    trial = prepared(run, shadow="other=25", guards=["agreement=4"])
    assert (trial.variant, trial.artifact.path.name) == ("other", "other.npz")
    plan = trial.routing.comparison.plan
    assert (plan.share, plan.expected_percent) == (0.25, 100.0)
    assert {guard.figure: guard.limit for guard in plan.guards}["agreement"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "baseline=10", "shadow": "baseline"}, "exclude each other"),
        ({"guards": ["latency=5"]}, "needs a comparison"),
        ({"split": "baseline"}, "not NAME=PERCENT"),
        ({"split": "fast=10"}, "is what is served already"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Path, options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        prepare_trial(run, run / "engines" / "fast.npz", **options)


@pytest.mark.parametrize("name", ["nobody", "broken", "../../etc/passwd"])
def test_an_engine_that_is_not_there_is_said_to_be_missing(run: Path, name: str) -> None:
    with pytest.raises(EngineError, match="has no engine") as caught:
        prepare_trial(run, run / "engines" / "fast.npz", shadow=name)
    assert caught.value.hint == "choose from baseline, other"


def test_a_single_engine_has_nothing_to_be_compared_with(run: Path) -> None:
    engine = run / "engines" / "fast.npz"
    with pytest.raises(UsageError, match="nothing to compare"):
        prepare_trial(engine, engine, shadow="baseline")


@pytest.mark.parametrize(
    "text", ["", "a", "a=", "a=x", "a=0", "a=-1", "a=101", "a=nan", "=5", "primary=5"]
)
def test_shares_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="not NAME=PERCENT"):
        parse_share(text, "--ab")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "speed=5",
        "latency",
        "latency=x",
        "latency=0",
        "latency=nan",
        "latency=inf",
        "class_flips=2",
    ],
)
def test_guards_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="not FIGURE=LIMIT"):
        parse_guards([text])
