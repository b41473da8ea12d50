"""`raudo benchmark` and `raudo validate`: what is compared to what, and what the exit code says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from canned_runs import labelled
from null_engines import null_engine
from raudo.benchmark import Timed
from raudo.cli import app
from raudo.commands.compare import (
    Contest,
    Scored,
    Scores,
    accuracy_exit_code,
    benchmark_engines,
    frame_files,
    speedup_exit_code,
    validate_engines,
)
from raudo.errors import DataError, UsageError
from raudo.listener import Listener
from raudo.records import Accuracy, Interval, Measurement, Percentiles, Similarity, Speedup

SAMPLES = Path(__file__).parents[3] / "samples"


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
    found = validate_engines(Contest(engines), dataset, ("val",), Listener())
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
    assert found.others() == (other,)


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
        validate_engines(Contest(engines), dataset, ("val",), Listener())


@pytest.mark.parametrize("twice", [False, True], ids=["none", "twice"])
def test_there_must_be_something_to_compare(engines: tuple[Path, Path], twice: bool) -> None:
    given = (engines[0], engines[0]) if twice else ()
    with pytest.raises(UsageError, match="each once"), Contest(given).entered():
        pass


@pytest.mark.slow
def test_engines_are_timed_on_the_images_of_a_data_set(
    engines: tuple[Path, Path], dataset: Path
) -> None:
    timed, baseline = benchmark_engines(Contest(engines), dataset, 0.5, 1.5, Listener())
    assert baseline == "e/one.npz"
    assert set(timed.measurements) == {"e/one.npz", "e/two.npz"}
    assert timed.failed == {}
    speedup = timed.measurements[baseline].speedup
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
        stages={"end_to_end": times},
        rounds=9,
        samples_ms=(),
        load_seconds=1,
        peak_memory_bytes=1,
        speedup=Speedup(median=(low + high) / 2, low=low, high=high),
    )


@pytest.mark.parametrize(
    ("low", "high", "failed", "code"),
    [
        (1.6, 1.8, {}, 0),
        (1.5, 1.5, {}, 0),
        (1.2, 1.4, {}, 1),
        (1.4, 1.6, {}, 3),
        (1.6, 1.8, {"crashed": "it crashed"}, 1),
    ],
)
def test_the_exit_code_of_a_benchmark(
    low: float, high: float, failed: dict[str, str], code: int
) -> None:
    measurements = {"base": speedup(1, 1), "engine": speedup(low, high)}
    timed = Timed(measurements=measurements, failed=failed, other_load=0)
    assert speedup_exit_code(timed, "base", 1.5) == code


def scores(low: float | None, high: float = 0, similarity: float = 99.9) -> Scores:
    interval = None if low is None else Interval(value=(low + high) / 2, low=low, high=high)
    return Scores(
        accuracy=Accuracy(images=9, boxes=9, map50=0.5, map50_95=0.3, map50_loss_percent=interval),
        similarity=Similarity(images=9, f1_percent=similarity, mean_iou=None, score_shift=None),
    )


@pytest.mark.parametrize(
    ("engine", "code"),
    [
        (scores(-0.2, 0.9), 0),
        (scores(1.0, 2.0), 1),
        (scores(0.5, 1.5), 3),
        (scores(None), 3),
        (scores(-0.2, 0.9, similarity=98.0), 1),
    ],
    ids=["pass", "loss", "straddles", "no-interval", "similarity"],
)
def test_the_exit_code_of_a_validation(engine: Scores, code: int) -> None:
    scored = Scored(baseline="base", engines={"base": scores(0), "engine": engine})
    assert accuracy_exit_code(scored, loss=1.0, similarity=98.0) == code


def test_the_baseline_itself_decides_nothing() -> None:
    alone = Scored(baseline="base", engines={"base": scores(5, 6, similarity=0)})
    assert accuracy_exit_code(alone, loss=1.0, similarity=98.0) == 0
