"""AP against pycocotools, and the weights of a bootstrap against images copied by hand."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from raudo.datasets.base import LabelledImage
from raudo.errors import DataError
from raudo.metrics.base import Sample
from raudo.metrics.coco_map import CocoMap, average_precision, match, mean_average_precision
from raudo.records import Detections

CLASSES = ("ant", "bee", "cat", "dog")


def pycocotools_precision(samples: list[Sample]) -> np.ndarray:
    """AP [thresholds, classes] of the reference; NaN where a class has no box."""
    truth, rows = COCO(), [np.zeros((0, 7))]
    annotations = []
    for number, sample in enumerate(samples):
        labelled = sample.truth
        for box, label, crowd in zip(labelled.boxes, labelled.labels, labelled.crowd, strict=True):
            size = box[2:] - box[:2]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(label),
                    "bbox": [*box[:2].tolist(), *size.tolist()],
                    "area": float(size.prod()),
                    "iscrowd": int(crowd),
                }
            )
        found = sample.detections
        place = np.full((len(found), 1), number)
        boxes = found.boxes.astype(np.float64)
        size = boxes[:, 2:] - boxes[:, :2]
        rows.append(np.column_stack([place, boxes[:, :2], size, found.scores, found.labels]))
    truth.dataset = {
        "images": [{"id": number} for number in range(len(samples))],
        "annotations": annotations,
        "categories": [{"id": index, "name": name} for index, name in enumerate(CLASSES)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        table = np.concatenate(rows)
        found = truth.loadRes(table) if len(table) else COCO()
        if not len(table):
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 0].mean(axis=1)
    return np.where(precision < 0, np.nan, precision)


@dataclass(frozen=True)
class Setting:
    """How to make random samples."""

    images: int = 6
    boxes: int = 6
    detections: int = 12
    grid: int = 4
    score_levels: int = 5
    crowds: float = 0.2
    classes: int = 3


def random_samples(seed: int, setting: Setting) -> list[Sample]:
    """Boxes on a coarse grid, and few score levels: ties of IoU and of score are common."""
    rng = np.random.default_rng(seed)

    def boxes(number: int) -> np.ndarray:
        corner = rng.integers(0, setting.grid, (number, 2))
        return 8.0 * np.concatenate([corner, corner + rng.integers(1, 4, (number, 2))], axis=1)

    samples = []
    for index in range(setting.images):
        number = int(rng.integers(0, setting.boxes + 1))
        truth = LabelledImage(
            Path(f"{index}.jpg"),
            boxes(number),
            rng.integers(0, setting.classes, number),
            rng.random(number) < setting.crowds,
        )
        number = int(rng.integers(0, setting.detections + 1))
        scores = rng.integers(1, setting.score_levels + 1, number) / setting.score_levels
        jitter = rng.integers(-1, 2, (number, 4)) * rng.integers(0, 2, (number, 1))
        detections = Detections(
            (boxes(number) + jitter).astype(np.float32),
            scores.astype(np.float32),
            rng.integers(0, setting.classes, number),
        )
        samples.append(Sample(detections, truth=truth))
    return samples


SETTINGS = st.builds(
    Setting,
    images=st.integers(1, 8),
    boxes=st.integers(0, 10),
    detections=st.integers(0, 25),
    grid=st.integers(1, 8),
    score_levels=st.sampled_from([1, 3, 10, 100_000]),
    crowds=st.sampled_from([0.0, 0.2, 0.7, 1.0]),
    classes=st.integers(1, 4),
)


@given(seed=st.integers(0, 2**32 - 1), setting=SETTINGS)
def test_equals_pycocotools(seed: int, setting: Setting) -> None:
    samples = random_samples(seed, setting)
    ours = average_precision(match(samples, CLASSES))
    np.testing.assert_allclose(ours, pycocotools_precision(samples), rtol=0, atol=1e-6)


def test_equals_pycocotools_beyond_a_hundred_detections() -> None:
    # One class only: the limit is per class and image, and detections beyond it must not count.
    setting = Setting(images=3, boxes=40, detections=400, grid=12, score_levels=50, classes=1)
    samples = random_samples(1, setting)
    assert max(len(sample.detections) for sample in samples) > 150
    ours = average_precision(match(samples, CLASSES))
    np.testing.assert_allclose(ours, pycocotools_precision(samples), rtol=0, atol=1e-6)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_of_equal_overlaps_the_later_box_is_taken(order: list[int]) -> None:
    # The first detection overlaps both boxes by 0.8; what it leaves decides on the second one.
    boxes = np.array([[0.0, 0, 10, 8], [0, 2, 10, 10]])[order]
    labels = np.zeros(2, np.int64)
    truth = LabelledImage(Path("a.jpg"), boxes, labels, np.zeros(2, np.bool_))
    found = np.array([[0, 0, 10, 10], [0, 0, 10, 8]], np.float32)
    sample = Sample(Detections(found, np.array([0.9, 0.8], np.float32), labels), truth=truth)
    ours = average_precision(match([sample], CLASSES))
    np.testing.assert_allclose(ours, pycocotools_precision([sample]), rtol=0, atol=1e-6)
    assert (ours[5, 0] == pytest.approx(1)) == (order == [0, 1])


def test_equals_pycocotools_on_many_realistic_boxes() -> None:
    setting = Setting(images=60, boxes=12, detections=80, grid=16, score_levels=10_000)
    samples = random_samples(2, setting)
    ours = average_precision(match(samples, CLASSES))
    np.testing.assert_allclose(ours, pycocotools_precision(samples), rtol=0, atol=1e-6)
    assert np.isnan(ours[:, 3]).all()
    assert 0 < np.nanmean(ours) < 1


@given(seed=st.integers(0, 2**32 - 1), data=st.data())
def test_counts_equal_copied_images(seed: int, data: st.DataObject) -> None:
    # Scores are distinct: between tied detections the order of copies is not defined.
    samples = random_samples(seed, Setting(images=5, score_levels=10**7, crowds=0.1))
    counts = np.array(data.draw(st.lists(st.integers(0, 4), min_size=5, max_size=5)))
    copied = [sample for sample, count in zip(samples, counts, strict=True) for _ in range(count)]
    weighted = average_precision(match(samples, CLASSES), counts)
    np.testing.assert_allclose(
        weighted, average_precision(match(copied, CLASSES)), rtol=0, atol=1e-9
    )


def test_counts_of_one_change_nothing() -> None:
    table = match(random_samples(3, Setting()), CLASSES)
    np.testing.assert_array_equal(
        average_precision(table), average_precision(table, np.ones(table.images, np.int64))
    )


def _perfect(labels: list[int]) -> Sample:
    boxes = np.array([[10.0 * i, 0, 10 * i + 8, 8] for i in range(len(labels))]).reshape(-1, 4)
    classes = np.array(labels, np.int64)
    truth = LabelledImage(Path("a.jpg"), boxes, classes, np.zeros(len(labels), np.bool_))
    scores = np.linspace(0.9, 0.5, len(labels)).astype(np.float32)
    return Sample(Detections(boxes.astype(np.float32), scores, classes), truth=truth)


def test_record_of_perfect_detections() -> None:
    metric = CocoMap(CLASSES)
    metric.update(_perfect([0, 0, 2]))
    record = metric.compute()
    assert (record.map50, record.map50_95, record.boxes, record.images) == (1.0, 1.0, 3, 1)
    assert [c.ap50 for c in record.classes] == [1.0, None, 1.0, None]
    assert [c.boxes for c in record.classes] == [2, 0, 1, 0]


def test_classes_without_names_are_numbered() -> None:
    metric = CocoMap()
    metric.update(_perfect([0, 2]))
    assert [c.name for c in metric.compute().classes] == ["0", "1", "2"]


def test_many_classes_stay_apart() -> None:
    metric = CocoMap([str(index) for index in range(70_000)])
    metric.update(_perfect([0, 65_536, 69_999]))
    assert metric.compute().map50 == pytest.approx(1.0, abs=1e-6)


def test_labels_outside_of_the_classes_are_refused() -> None:
    with pytest.raises(DataError, match="outside of the 4 classes"):
        match([_perfect([0, 4])], CLASSES)


def test_without_a_box_there_is_no_map() -> None:
    metric = CocoMap(CLASSES)
    metric.update(_perfect([]))
    with pytest.raises(DataError, match="no image has a labelled box"):
        metric.compute()
    assert all(np.isnan(mean_average_precision(average_precision(metric.table()))))


def test_labels_are_needed() -> None:
    with pytest.raises(DataError, match="needs labels"):
        CocoMap().update(Sample(_perfect([1]).detections))
