"""The search: smaller rectangles first, nothing hopeless to the end, nothing past its time."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from canned_runs import SIDE, VARIANTS
from raudo.backends import null
from raudo.backends.base import Variant
from raudo.measuring.sensitivity import Block, Remedy
from raudo.pipeline import optimize
from raudo.search import making, search
from raudo.workspace import read_artifact

if TYPE_CHECKING:
    from pathlib import Path

    from canned_runs import Project
    from raudo.records import Candidate, Report

WORSE = Variant("small", "int8", {"seed": 1}, batches=(1,))
EASY = {"production_cpu": {"speedup": 0.01, "map50_loss_percent": 1}}


def rows(report: Report) -> dict[str, Candidate]:
    return {candidate.name: candidate for candidate in report.candidates}


def test_a_rectangle_that_changes_what_is_found_is_dropped_for_all(project: Project) -> None:
    """Canned engines of another size find other things: FP32 shows so, and INT8 is spared it."""
    calibration = project.data.parent / "images" / "other"
    calibration.mkdir()
    make_image(calibration / "one.png")
    report, _ = optimize(project.settings(shapes="auto", calibration=calibration))
    names = [candidate.name for candidate in report.candidates]
    sized = [name for name in names if "@" in name]
    assert sized
    assert {name.partition("@")[0] for name in sized} == {"null-same"}
    assert rows(report)["null-small"].status == "OK"


def make_image(path: Any, size: tuple[int, int] = (48, 64)) -> None:
    import cv2
    import numpy as np

    cv2.imwrite(str(path), np.full((*size, 3), 7, np.uint8))


def test_a_rectangle_that_changes_nothing_is_tried_first_and_is_enough(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's own place in the table is taken at the smaller size too."""
    monkeypatch.setattr(search.Search, "_try", always_well(project))
    report, _ = optimize(project.settings(shapes="auto"))
    names = set(rows(report))
    assert "null-same" not in names, "the smaller one passed"
    assert {n for n in names if n.startswith("null-base@")}, "the baseline at the smaller size"


def always_well(project: Project) -> Any:
    real = search.Search._try

    def attempt(self: search.Search, chosen: Any) -> bool:
        real(self, chosen)
        baseline = self._job.candidates["null-base"]
        self._job.update(
            chosen.name,
            similarity_percent=100.0,
            map50_loss_percent=baseline.map50_loss_percent,
        )
        return self._job.detects_as_well(chosen.name)

    return attempt


def test_own_shapes_are_the_model_s_own(project: Project) -> None:
    report, _ = optimize(project.settings(shapes="own"))
    assert not [name for name in rows(report) if "@" in name]
    assert {candidate.size for candidate in report.candidates} == {(SIDE, SIDE)}


def test_after_the_time_budget_nothing_new_is_tried(project: Project) -> None:
    report, _ = optimize(project.settings(time_budget=1e-6))
    found = rows(report)
    assert found["null-base"].status == "OK", "without it nothing can be said"
    assert {found[n].status for n in ("null-same", "null-other")} == {"SKIPPED"}
    assert "time budget" in found["null-same"].reason
    assert project.faults.called("build") == ["null-base"]


def test_a_hopeless_candidate_is_dropped_on_a_few_images(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "QUICK_IMAGES", 1)
    monkeypatch.setattr(search, "QUICK_SECONDS", 0.0)
    report, run = optimize(project.settings())
    found = rows(report)
    assert found["null-other"].status == "SKIPPED"
    assert "dropped early: similarity" in found["null-other"].reason
    assert found["null-same"].status == "OK"
    assert not (run.state / "found-null-other.npz").exists()


def test_an_engine_is_opened_once_for_a_few_images_and_for_all(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "QUICK_IMAGES", 1)
    optimize(project.settings(candidates=("null-same",)))
    assert project.faults.called("evaluate").count("null-same") == 2
    assert project.faults.called("open") == ["null-base", "null-same"]


def test_where_validating_is_quick_nothing_is_dropped_early(project: Project) -> None:
    report, _ = optimize(project.settings())
    assert rows(report)["null-other"].status == "OK"


def test_an_engine_of_images_calibrated_on_names_them(project: Project) -> None:
    calibration = project.folder / "calibration"
    calibration.mkdir()
    make_image(calibration / "one.png")
    report, _ = optimize(project.settings(calibration=calibration, gates=EASY))
    assert rows(report)["null-small"].status == "OK"
    assert report.source.calibration is not None
    assert report.source.calibration.images == 1


def test_layers_are_given_back_only_when_there_is_time_for_it(project: Project) -> None:
    report, _ = optimize(project.settings(recovery_budget=0))
    assert "find_remedy" not in {action for action, _ in project.faults.calls}
    assert not [name for name in rows(report) if "+" in name]


def one_image_in(folder: Path) -> Path:
    folder.mkdir()
    make_image(folder / "one.png")
    return folder


@pytest.mark.parametrize(
    ("budget", "tried"),
    [(49, []), (50, ["+2", "+3"]), (52, ["+2", "+3"]), (53, ["+2", "+3", "+4"])],
)
def test_nothing_is_begun_that_would_not_end_within_the_budget(
    project: Project, monkeypatch: pytest.MonkeyPatch, budget: float, tried: list[str]
) -> None:
    """To calibrate takes 20 s, to look for layers 20 s, to keep some 1 s, to validate 10 s."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(search, "time", clock)
    monkeypatch.setattr(search, "WORTH_MENDING", 0.0)
    monkeypatch.setattr(null.NullBackend, "variants", (VARIANTS[0], WORSE))
    make, evaluate = making.Maker.make, search.Search._evaluate

    def making_takes(maker: Any, chosen: Any) -> None:
        make(maker, chosen)
        clock.now += 1 if chosen.keep else 20

    def evaluating_takes(searching: Any, *given: Any, **named: Any) -> Any:
        clock.now += 10
        return evaluate(searching, *given, **named)

    def find_remedy(_maker: Any, _chosen: Any, seconds: float) -> Remedy:
        assert seconds == budget / 2
        clock.now += 20
        blocks = (Block(layers=(name,), harm=1, milliseconds=1) for name in "abcd")
        return Remedy(blocks=tuple(blocks))

    monkeypatch.setattr(making.Maker, "make", making_takes)
    monkeypatch.setattr(making.Maker, "find_remedy", find_remedy)
    monkeypatch.setattr(search.Search, "_evaluate", evaluating_takes)
    calibration = one_image_in(project.data.parent / "calibration")
    report, _ = optimize(project.settings(calibration=calibration, recovery_budget=budget))
    assert list(rows(report)) == ["null-base", *(f"null-small{end}" for end in ["", *tried])]
    if not tried:
        assert "50 s at least" in (rows(report)["null-small"].remedy or "")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the engines that a remedy is asked for; none is found."""
    names: list[str] = []

    def find_remedy(_maker: Any, chosen: Any, _seconds: float) -> Remedy:
        names.append(chosen.name)
        return Remedy()

    monkeypatch.setattr(making.Maker, "find_remedy", find_remedy)
    return names


@pytest.mark.parametrize(("worth", "mended"), [(1e9, False), (0.0, True)])
def test_what_would_hardly_win_is_not_mended(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    asked: list[str],
    worth: float,
    mended: bool,
) -> None:
    monkeypatch.setattr(search, "WORTH_MENDING", worth)
    monkeypatch.setattr(null.NullBackend, "variants", (*VARIANTS[:2], WORSE))
    calibration = one_image_in(project.data.parent / "calibration")
    report, _ = optimize(project.settings(calibration=calibration, gates=EASY))
    assert asked == (["null-small"] if mended else [])
    told = rows(report)["null-small"].remedy or ""
    assert ("null-base passes" in told) is not mended


def test_nothing_but_int8_is_mended(
    project: Project, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    """What is calibrated in another precision has its like without calibration beside it."""
    halved = Variant("small", "fp16", {"seed": 1}, batches=(1,))
    monkeypatch.setattr(search, "WORTH_MENDING", 0.0)
    monkeypatch.setattr(null.NullBackend, "variants", (VARIANTS[0], halved))
    monkeypatch.setattr(search.plan, "obstacle", lambda *_, **__: None)
    calibration = one_image_in(project.data.parent / "calibration")
    report, _ = optimize(project.settings(calibration=calibration, gates=EASY))
    assert rows(report)["null-small"].status == "OK"
    assert asked == []


def test_the_fastest_is_mended_first(
    project: Project, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    """All are tried as they are before one is mended: one that passes may spare the others it."""
    evaluate = search.Search._evaluate
    seconds = {"null-small": 3.0, "null-other": 1.0}
    quick = replace(WORSE, name="other")

    def evaluating(searching: Any, chosen: Any, *given: Any, **named: Any) -> Any:
        found = evaluate(searching, chosen, *given, **named)
        searching._seconds[chosen.name] = seconds.get(chosen.name, 9.0)
        return found

    monkeypatch.setattr(search.Search, "_evaluate", evaluating)
    monkeypatch.setattr(null.NullBackend, "variants", (VARIANTS[0], WORSE, quick))
    calibration = one_image_in(project.data.parent / "calibration")
    optimize(project.settings(calibration=calibration, gates=EASY))
    assert asked == ["null-other", "null-small"]


def test_one_image_is_enough_to_compare_on(project: Project) -> None:
    source = one_image_in(project.folder / "one")
    report, _ = optimize(project.settings(data=None, images=source, shapes="auto"))
    assert report.source.images == 1
    assert rows(report)["null-same"].status == "OK"


def test_images_of_many_shapes_are_tried_in_a_few_rectangles(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changes nothing that is found is tried for what may still win, and runs as one."""
    source = project.folder / "many"
    source.mkdir()
    for number, (height, width) in enumerate([(20, 60), (60, 20), (30, 30), (21, 64), (64, 21)]):
        make_image(source / f"{number}.png", (height, width))
    monkeypatch.setattr(search.Search, "_try", always_well(project))
    report, run = optimize(project.settings(data=None, images=source, shapes="auto"))
    mixed = [row for name, row in rows(report).items() if name.endswith("+own")]
    assert mixed
    for row in mixed:
        artifact = read_artifact(run.folder / str(row.file))
        assert artifact.manifest.rectangles
        assert row.similarity_percent is not None
        assert row.latency_ms is not None
