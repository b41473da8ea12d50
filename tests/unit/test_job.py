"""What a run knows of itself: who is left, who detects as well, how its steps ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from raudo.errors import WorkerError
from raudo.job import Job
from raudo.listener import Listener
from raudo.machine import describe
from raudo.plan import Plan
from raudo.records import Accuracy, Candidate, Interval
from raudo.workspace import create_run

if TYPE_CHECKING:
    from canned_runs import Project

LOSS = Interval(value=0.1, low=-0.2, high=0.4)
GOOD: dict[str, Any] = {
    "similarity_percent": 99.5,
    "map50_loss_percent": LOSS,
    "accuracy": Accuracy(images=9, boxes=9, map50=0.5, map50_95=0.3, map50_loss_percent=LOSS),
}


class Diary(Listener):
    """Keeps what it is told of candidates."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []

    def finished(self, name: str, status: Any, reason: str) -> None:
        self.told.append((name, status, reason))


@pytest.fixture
def job(project: Project) -> Job:
    """A run with one good candidate."""
    from canned_runs import VARIANTS
    from raudo.inputs.gathering import gather

    settings = project.settings()
    job = Job(
        settings,
        create_run(settings.output, "run"),
        Diary(),
        gather(settings, project.folder / "frames"),
        Plan("null", VARIANTS[0]),
        (),
        describe(),
    )
    job.candidates["good"] = Candidate(
        name="good",
        backend="null",
        precision="fp32",
        status="OK",
        targets=("production_cpu",),
        **GOOD,
    )
    return job


def test_detecting_as_well_is_every_gate_but_speed(job: Job) -> None:
    assert job.candidates["good"].speedup is None
    assert job.detects_as_well("good")
    job.update("good", similarity_percent=97.9)
    assert not job.detects_as_well("good")


def test_an_undecided_loss_is_not_yet_as_well(job: Job) -> None:
    job.update("good", map50_loss_percent=Interval(value=0.1, low=-2, high=2))
    assert not job.detects_as_well("good")


def test_what_failed_is_not_alive_and_its_reason_is_kept(job: Job) -> None:
    job.fail("good", "build", WorkerError("it crashed", hint=""), time.monotonic())
    assert job.alive() == []
    assert not job.detects_as_well("good")
    assert job.candidates["good"].reason == "it crashed"
    (step,) = job.steps
    assert (step.step, step.status, step.reason) == ("build good", "FAILED", "it crashed")
    assert job.listener.told == [("good", "FAILED", "it crashed")]  # type: ignore[attr-defined]
    assert "build good FAILED it crashed" in job.run.log.read_text(encoding="utf-8")


def test_what_was_skipped_tells_whether_it_was_tried(job: Job) -> None:
    job.skip("good", "no time", time.monotonic(), untried=True)
    assert job.candidates["good"].status == "SKIPPED"
    assert job.candidates["good"].untried
    job.skip("good", "hopeless", time.monotonic())
    assert not job.candidates["good"].untried


def test_gates_are_those_of_the_candidate_s_targets(job: Job) -> None:
    assert job.gates("good") == [job.settings.gates["production_cpu"]]
    job.update("good", targets=("development",))
    assert job.gates("good") == []


def test_without_a_time_budget_there_is_always_time(job: Job) -> None:
    assert job.seconds_left == float("inf")
    job.deadline = time.monotonic() - 1
    assert job.seconds_left < 0
