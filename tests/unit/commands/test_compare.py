"""`raudo benchmark` and `raudo validate`: what is compared to what, and what the exit code says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from canned_runs import labelled
from null_engines import null_engine
from raudo import benchmark
from raudo.benchmark import Timed
from raudo.cli import app
from raudo.commands import compare
from raudo.commands.compare import (
    Contest,
    Scores,
    benchmark_engines,
    frame_files,
    gates_of,
    validate_engines,
)
from raudo.errors import DataError, UsageError
from raudo.listener import Listener
from raudo.records import Accuracy, Interval, Measurement, Percentiles, Similarity, Speedup

SAMPLES = Path(__file__).parents[3] / "samples"
GATES = gates_of("benchmark")


@pytest.fixture
def engines(tmp_path: Path) -> tuple[Path, Path]:
    """Two engines that find different things, whatever they see."""
    return null_engine(tmp_path / "e/one.npz"), null_engine(tmp_path / "e/two.npz", seed=1)


@pytest.fixture
def dataset(tmp_path: Path, engines: tuple[Path, Path]) -> Path:
    """A data set that the first engine is right about; one of its classes goes by another name."""
    description = labelled(tmp_path / "set", engines[0])
    description.write_text("path: .\nval: images/val\nnames: [cat, horse]\n")
    return description


def test_the_first_engine_is_the_baseline(engines: tuple[Path, Path], dataset: Path) -> None:
    found = validate_engines(Contest(engines), dataset, ("val",), GATES, Listener())
    assert found.baseline == "e/one.npz"
    assert list(found.engines) == ["e/one.npz", "e/two.npz"]
    itself, other = found.engines.values()
    assert itself.similarity is not None
    assert itself.similarity.f1_percent == 100
    assert itself.accuracy is not None
    assert itself.accuracy.map50 == pytest.approx(1)
    assert itself.accuracy.map50_loss_percent is not None
    assert itself.accuracy.map50_loss_percent.value == 0
    assert other.similarity is not None
    assert other.similarity.f1_percent < 100
    assert list(found.verdicts) == ["e/two.npz"]
    assert found.verdicts["e/two.npz"].verdict == "FAIL"


@pytest.mark.slow
def test_classes_of_another_name_are_warned_of(engines: tuple[Path, Path], dataset: Path) -> None:
    words = ["validate", *map(str, engines), "--data", str(dataset)]
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 1, ended.output
    shown = " ".join(ended.stdout.split())
    assert "class 1 is 'horse' in the data set set but 'dog' in the model" in shown
    found = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert "'horse'" in found["warnings"][0]


def test_a_data_set_of_another_number_of_classes_is_refused(
    engines: tuple[Path, Path], dataset: Path
) -> None:
    dataset.write_text("path: .\nval: images/val\nnames: [cat, horse, dog]\n")
    with pytest.raises(DataError, match="3 classes"):
        validate_engines(Contest(engines), dataset, ("val",), GATES, Listener())


@pytest.mark.parametrize("twice", [False, True], ids=["none", "twice"])
def test_there_must_be_something_to_compare(engines: tuple[Path, Path], twice: bool) -> None:
    given = (engines[0], engines[0]) if twice else ()
    with pytest.raises(UsageError, match="each once"), Contest(given).entered():
        pass


@pytest.mark.slow
def test_engines_are_timed_on_the_images_of_a_data_set(
    engines: tuple[Path, Path], dataset: Path
) -> None:
    raced = benchmark_engines(Contest(engines), dataset, 0.5, GATES, Listener())
    assert raced.baseline == "e/one.npz"
    assert set(raced.timed.measurements) == {"e/one.npz", "e/two.npz"}
    assert raced.timed.failed == {}
    assert list(raced.verdicts) == ["e/two.npz"]
    speedup = raced.timed.measurements[raced.baseline].speedup
    assert speedup is not None
    assert speedup.median == 1


@pytest.mark.slow
def test_frames_come_from_whatever_is_given(dataset: Path, tmp_path: Path) -> None:
    images = sorted((dataset.parent / "images/val").iterdir())
    assert list(frame_files(dataset, tmp_path)) == images
    assert list(frame_files(images[0].parent, tmp_path)) == images
    assert frame_files(images[1], tmp_path) == (images[1],)
    frames = frame_files(SAMPLES / "highway_960x540.mp4", tmp_path / "frames")
    assert len(frames) > 10
    assert all(frame.parent == tmp_path / "frames" for frame in frames)


def speedup(low: float, high: float) -> Measurement:
    times = Percentiles(p50=1, p90=1, p95=1, p99=1, mean=1)
    return Measurement(
        stages=dict.fromkeys(("decode", "prepare", "infer", "select", "end_to_end"), times),
        rounds=9,
        samples_ms=(),
        load_seconds=1,
        peak_memory_bytes=1,
        speedup=Speedup(median=(low + high) / 2, low=low, high=high),
    )


@pytest.mark.parametrize(
    ("low", "high", "code", "said"),
    [
        (1.6, 1.8, 0, "e/two.npz: PASS e/two.npz passes on speedup: 1.70x [1.60, 1.80]"),
        (1.5, 1.5, 0, "passes on speedup: 1.50x"),
        (1.2, 1.4, 1, "e/two.npz: FAIL e/two.npz fails on speedup by 0.20x"),
        (1.4, 1.62, 3, "e/two.npz: INCONCLUSIVE e/two.npz is undecided on speedup: 1.51x"),
        (None, None, 1, "e/two.npz: FAIL e/two.npz: it crashed"),
    ],
)
def test_a_benchmark_ends_with_its_verdict(
    low: float | None,
    high: float,
    code: int,
    said: str,
    engines: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = {"e/one.npz": speedup(1, 1)}
    failed = {"e/two.npz": "it crashed"} if low is None else {}
    if low is not None:
        measured["e/two.npz"] = speedup(low, high)
    timed = Timed(measurements=measured, failed=failed, other_load=0)
    monkeypatch.setattr(benchmark, "benchmark", lambda *_: timed)
    image = next((SAMPLES / "coco-mini/images/val").iterdir())
    words = ["benchmark", *map(str, engines), "--images", str(image)]
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == code, ended.output
    shown = " ".join(ended.stdout.split())
    assert said in shown
    assert ("next: " in shown) == (code != 0 and not failed), "what to try next"
    found = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert list(found["verdicts"]) == ["e/two.npz"]


@pytest.mark.parametrize(("load", "warned"), [(0.02, False), (0.4, True)])
def test_a_disturbed_benchmark_says_so(
    load: float, warned: bool, engines: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = {name: speedup(1, 1) for name in ("e/one.npz", "e/two.npz")}
    timed = Timed(measurements=measured, failed={}, other_load=load)
    monkeypatch.setattr(benchmark, "benchmark", lambda *_: timed)
    image = next((SAMPLES / "coco-mini/images/val").iterdir())
    words = ["benchmark", *map(str, engines), "--images", str(image)]
    shown = " ".join(CliRunner().invoke(app, words).stdout.split())
    assert ("other programs took 40.0 % of the cores" in shown) == warned
    warnings = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["warnings"]
    assert ["speedups may be too large" in warning for warning in warnings] == [True] * warned


def scores(low: float | None, high: float = 0, similarity: float = 99.9) -> Scores:
    interval = None if low is None else Interval(value=(low + high) / 2, low=low, high=high)
    return Scores(
        accuracy=Accuracy(images=9, boxes=9, map50=0.5, map50_95=0.3, map50_loss_percent=interval),
        similarity=Similarity(images=9, f1_percent=similarity, mean_iou=None, score_shift=None),
    )


@pytest.mark.parametrize(
    ("second", "code", "said"),
    [
        (scores(-0.2, 0.9), 0, "passes on loss of mAP@0.5: 0.35 % [-0.20, 0.90]"),
        (scores(1.0, 2.0), 1, "fails on loss of mAP@0.5 by 0.50 %"),
        (scores(0.5, 1.5), 3, "is undecided on loss of mAP@0.5"),
        (scores(None), 3, "loss of mAP@0.5 was not measured"),
        (scores(-0.2, 0.9, similarity=98.0), 1, "fails on similarity by 0.00 %"),
    ],
    ids=["pass", "loss", "straddles", "no-interval", "similarity"],
)
def test_a_validation_ends_with_its_verdict(
    second: Scores,
    code: int,
    said: str,
    engines: tuple[Path, Path],
    dataset: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = iter((scores(5, 6, similarity=0), second))  # the baseline itself decides nothing

    class Canned:
        def __init__(self, *_: object) -> None:
            pass

        def score(self, _: object) -> tuple[Accuracy | None, Similarity | None]:
            one = next(given)
            return one.accuracy, one.similarity

    monkeypatch.setattr(compare, "Scorer", Canned)
    monkeypatch.setattr(compare, "evaluate", lambda *_, **__: None)
    words = ["validate", *map(str, engines), "--data", str(dataset)]
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == code, ended.output
    shown = " ".join(ended.stdout.split())
    assert f"e/two.npz {said}" in shown.replace("e/two.npz:", "e/two.npz")
    assert "e/one.npz: " not in shown
    assert ("next: " in shown) == (code != 0), "what to try next"


@pytest.mark.parametrize(
    ("command", "option"),
    [("benchmark", "--speedup=0"), ("validate", "--loss=-1"), ("validate", "--similarity=200")],
)
def test_a_gate_that_makes_no_sense_is_refused(
    command: str, option: str, engines: tuple[Path, Path]
) -> None:
    given = "--images" if command == "benchmark" else "--data"
    ended = CliRunner().invoke(app, [command, str(engines[0]), given, "any", option])
    assert ended.exit_code == 2
    assert f"see 'raudo {command} --help'" in ended.stderr
