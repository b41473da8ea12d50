from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from raudo.backends.base import Outputs
from raudo.datasets.base import Dataset, LabelledImage
from raudo.errors import DataError
from raudo.measuring.station import Probe
from raudo.records import Detections, Interval
from raudo.validate import (
    accuracy,
    diverging_stage,
    images_needed,
    match,
    similarity,
    with_losses,
)

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGES, PER_IMAGE = 40, 5


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(0)
    images = []
    for index in range(IMAGES):
        corner = rng.uniform(0, 100, (PER_IMAGE, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(10, 40, (PER_IMAGE, 2))], axis=1)
        labels = rng.integers(0, 2, PER_IMAGE)
        crowd = np.zeros(PER_IMAGE, np.bool_)
        images.append(LabelledImage(Path(f"{index}.jpg"), boxes, labels, crowd))
    return Dataset("made up", ("ant", "bee"), tuple(images))


def detect(dataset: Dataset, error: float, missed: float = 0.0, seed: int = 1) -> list[Detections]:
    """The labels, with random errors of `error` pixels and a share of them missed."""
    rng = np.random.default_rng(seed)
    found = []
    for image in dataset.images:
        kept = rng.random(len(image.labels)) >= missed
        boxes = image.boxes + rng.normal(0, error, image.boxes.shape)
        scores = rng.uniform(0.3, 1, len(image.labels)).astype(np.float32)
        found.append(Detections(boxes.astype(np.float32)[kept], scores[kept], image.labels[kept]))
    return found


def test_accuracy_of_the_labels_themselves_is_one(dataset: Dataset) -> None:
    record = accuracy(dataset, detect(dataset, 0))
    assert record.map50 == record.map50_95 == pytest.approx(1, abs=1e-9)
    assert (record.images, record.boxes) == (IMAGES, IMAGES * PER_IMAGE)
    assert [c.name for c in record.classes] == ["ant", "bee"]
    assert record.map50_loss_percent is None


def test_detections_must_be_of_the_same_images(dataset: Dataset) -> None:
    with pytest.raises(ValueError, match="shorter"):
        accuracy(dataset, detect(dataset, 0)[:-1])


def test_an_engine_loses_nothing_against_itself(dataset: Dataset) -> None:
    table = match(dataset, detect(dataset, 3))
    record = with_losses(table, table, 100, seed=0)
    assert record.map50_loss_percent == Interval(value=0, low=0, high=0)
    assert record.map50_95_loss_points == Interval(value=0, low=0, high=0)


def test_losses_are_relative_and_in_points(dataset: Dataset) -> None:
    baseline = match(dataset, detect(dataset, 2))
    candidate = match(dataset, detect(dataset, 2, missed=0.2))
    record = with_losses(baseline, candidate, 300, seed=0)
    before = accuracy(dataset, detect(dataset, 2))
    points, percent = record.map50_loss_points, record.map50_loss_percent
    assert points is not None
    assert percent is not None
    assert points.value == pytest.approx(100 * (before.map50 - record.map50))
    assert percent.value == pytest.approx(points.value / before.map50)
    assert 0 < percent.low < percent.value < percent.high
    strict = record.map50_95_loss_percent
    assert strict is not None
    assert strict.value == pytest.approx(100 * (1 - record.map50_95 / before.map50_95))
    # Paired: the interval is much narrower than what the draw of images does to mAP itself.
    assert percent.high - percent.low < 25


def test_resamples_follow_the_seed(dataset: Dataset) -> None:
    tables = match(dataset, detect(dataset, 2)), match(dataset, detect(dataset, 4))
    assert with_losses(*tables, 100, seed=3) == with_losses(*tables, 100, seed=3)
    assert with_losses(*tables, 100, seed=3) != with_losses(*tables, 100, seed=4)


@pytest.mark.slow
def test_intervals_cover_the_truth() -> None:
    """Of engines that are equally good, about 95 % of the intervals must hold zero."""
    rng = np.random.default_rng(5)
    boxes = np.array([[0.0, 0, 10, 10]])
    none = np.zeros(1, np.bool_)
    image = LabelledImage(Path("a.jpg"), boxes, np.zeros(1, np.int64), none)
    data = Dataset("made up", ("ant",), (image,) * 60)

    def engine() -> list[Detections]:
        hit = rng.random(60) < 0.7
        return [
            Detections(
                (boxes + (0 if good else 50)).astype(np.float32),
                rng.uniform(0.5, 1, 1).astype(np.float32),
                np.zeros(1, np.int64),
            )
            for good in hit
        ]

    covered = 0
    for seed in range(60):
        record = with_losses(match(data, engine()), match(data, engine()), 200, seed)
        loss = record.map50_loss_points
        assert loss is not None
        covered += loss.low <= 0 <= loss.high
    assert 52 <= covered <= 60


def test_a_baseline_that_finds_nothing_has_no_loss(dataset: Dataset) -> None:
    nothing = [Detections(d.boxes[:0], d.scores[:0], d.labels[:0]) for d in detect(dataset, 0)]
    with pytest.raises(DataError, match="is zero"):
        with_losses(match(dataset, nothing), match(dataset, detect(dataset, 0)), 100)
    record = with_losses(match(dataset, detect(dataset, 0)), match(dataset, nothing), 100)
    assert record.map50_loss_percent == Interval(value=100, low=100, high=100)


@pytest.mark.parametrize(
    ("interval", "gate", "needed"),
    [
        ((0.5, -0.5, 1.5), 1.0, 400),
        ((2.0, 0.0, 4.0), 1.0, 400),
        ((0.5, 0.1, 0.9), 1.0, 100),
        ((2.0, 1.1, 3.0), 1.0, 100),
        ((0.0, -0.1, 1.001), 1.0, 101),
        ((1.0, 0.0, 2.0), 1.0, None),
    ],
)
def test_images_needed(
    interval: tuple[float, float, float], gate: float, needed: int | None
) -> None:
    value, low, high = interval
    assert images_needed(Interval(value=value, low=low, high=high), gate, 100) == needed


def dense(seed: int = 0) -> Outputs:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 50, (1, 30, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 14, (1, 30, 2))], axis=2)
    scores = rng.uniform(0, 1, (1, 30, 2))
    return Outputs(boxes.astype(np.float32), scores.astype(np.float32))


def ranked(seed: int = 0) -> Outputs:
    raw = dense(seed)
    order = np.argsort(-raw.scores[0, :, 0])
    labels = np.arange(30)[None, order] % 2
    return Outputs(raw.boxes[:, order], raw.scores[:, order, 0], labels)


def probe(outputs: Outputs) -> Probe:
    best = outputs.scores[0] if outputs.labels is not None else outputs.scores[0].max(axis=1)
    labels = np.zeros(len(best), np.int64) if outputs.labels is None else outputs.labels[0]
    kept = np.flatnonzero(best >= 0.25)
    found = Detections(outputs.boxes[0][kept], best[kept], labels[kept])
    return Probe((64, 64), "same", outputs, found)


KINDS = pytest.mark.parametrize("kind", [dense, ranked])


@KINDS
def test_the_same_engine_does_not_diverge(kind: Callable[[], Outputs]) -> None:
    divergence = diverging_stage([probe(kind())] * 2, [probe(kind())] * 2)
    assert divergence.stage is None
    assert divergence.boxes_cosine == pytest.approx(1)
    assert divergence.scores_cosine == pytest.approx(1)


@KINDS
def test_other_bytes_are_the_preparation(kind: Callable[[], Outputs]) -> None:
    other = replace(probe(kind()), prepared_sha256="other")
    assert diverging_stage([probe(kind())], [other]).stage == "preparation"


@KINDS
def test_another_rectangle_is_no_fault_of_the_preparation(kind: Callable[[], Outputs]) -> None:
    ours = probe(kind())
    smaller = replace(ours, size=(48, 64), prepared_sha256="other")
    assert diverging_stage([ours, ours], [ours, smaller]).stage == "rectangle"
    # Of several rectangles, an image may take the baseline's: then its bytes must be the same.
    broken = replace(ours, prepared_sha256="other")
    assert diverging_stage([ours, ours], [smaller, broken]).stage == "preparation"


@KINDS
def test_other_outputs_are_the_network(kind: Callable[[], Outputs]) -> None:
    raw = kind()
    scored = Outputs(raw.boxes, raw.scores + np.float32(0.01), raw.labels)
    moved = Outputs(raw.boxes + np.float32([0.3, 0, 0.3, 0]), raw.scores, raw.labels)
    for other in (scored, moved):
        divergence = diverging_stage([probe(raw)], [probe(other)])
        assert divergence.stage == "network"
        assert divergence.boxes_cosine is not None
        assert divergence.boxes_cosine > 0.99


@KINDS
def test_rounding_is_not_the_network(kind: Callable[[], Outputs]) -> None:
    raw = kind()
    noise = np.random.default_rng(9).uniform(-5e-4, 5e-4, raw.scores.shape).astype(np.float32)
    near = Outputs(raw.boxes + noise.max(), raw.scores + noise, raw.labels)
    assert diverging_stage([probe(raw)], [probe(near)]).stage is None


def test_the_order_of_ranked_outputs_means_nothing() -> None:
    raw = ranked()
    order = np.random.default_rng(0).permutation(30)
    assert raw.labels is not None
    mixed = Outputs(raw.boxes[:, order], raw.scores[:, order], raw.labels[:, order])
    divergence = diverging_stage([probe(raw)], [probe(mixed)])
    assert divergence.stage is None
    assert divergence.scores_cosine == pytest.approx(1)


@KINDS
def test_other_detections_from_equal_outputs_are_the_selection(
    kind: Callable[[], Outputs],
) -> None:
    ours = probe(kind())
    fewer = Detections(
        ours.detections.boxes[1:], ours.detections.scores[1:], ours.detections.labels[1:]
    )
    for pair in ((ours, replace(ours, detections=fewer)), (replace(ours, detections=fewer), ours)):
        assert diverging_stage([pair[0]], [pair[1]]).stage == "selection"


def test_outputs_of_another_shape_have_no_cosine() -> None:
    raw = dense()
    fewer = Outputs(raw.boxes[:, 1:], raw.scores[:, 1:])
    divergence = diverging_stage([probe(raw)], [probe(fewer)])
    assert divergence.stage == "network"
    assert divergence.boxes_cosine is None
    assert divergence.scores_cosine is None


def test_outputs_that_are_no_numbers_are_the_network() -> None:
    raw = dense()
    broken = Outputs(raw.boxes * np.float32("nan"), raw.scores)
    assert diverging_stage([probe(raw)], [probe(broken)]).stage == "network"


def test_similarity_carries_the_divergence() -> None:
    ours, theirs = probe(dense()), probe(dense(1))
    plain = similarity([ours.detections], [ours.detections])
    assert (plain.f1_percent, plain.diverges, plain.boxes_cosine) == (100.0, None, None)
    divergence = diverging_stage([ours], [theirs])
    record = similarity([ours.detections], [theirs.detections], divergence)
    assert record.diverges == "network"
    assert record.scores_cosine == divergence.scores_cosine
    assert record.f1_percent < 100
