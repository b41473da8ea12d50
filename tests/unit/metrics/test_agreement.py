from __future__ import annotations

import numpy as np
import pytest

from raudo.errors import DataError
from raudo.metrics.agreement import Agreement, pair
from raudo.metrics.base import Sample
from raudo.records import Detections, Similarity


def found(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(
        table[:, :4].astype(np.float32),
        table[:, 4].astype(np.float32),
        table[:, 5].astype(np.int64),
    )


def compare(ours: Detections, theirs: Detections) -> Similarity:
    metric = Agreement()
    metric.update(Sample(ours, reference=theirs))
    return metric.compute()


A = (0, 0, 10, 10, 0.9, 0)
B = (20, 20, 40, 40, 0.6, 1)
FAINT = (50, 50, 60, 60, 0.1, 0)


def test_the_same_detections_are_fully_alike() -> None:
    record = compare(found(A, B), found(A, B))
    assert (record.f1_percent, record.mean_iou, record.score_shift) == (100.0, 1.0, 0.0)


def test_nothing_found_anywhere_is_fully_alike() -> None:
    record = compare(found(), found())
    assert (record.f1_percent, record.mean_iou, record.score_shift) == (100.0, None, None)


def test_what_is_below_the_confidence_does_not_count() -> None:
    assert compare(found(A, FAINT), found(A)).f1_percent == 100.0


def test_a_missing_detection_costs_f1() -> None:
    assert compare(found(A), found(A, B)).f1_percent == pytest.approx(200 / 3)
    assert compare(found(), found(A)).f1_percent == 0.0


def test_another_class_does_not_match() -> None:
    assert compare(found(A), found((*A[:5], 1))).f1_percent == 0.0


def test_iou_and_score_shift_are_of_the_pairs() -> None:
    record = compare(found((0, 0, 10, 8, 0.7, 0)), found(A))
    assert record.mean_iou == pytest.approx(0.8)
    assert record.score_shift == pytest.approx(-0.2, abs=1e-6)


def test_matching_is_one_to_one_and_takes_the_best_overlap_first() -> None:
    twins = found((0, 0, 10, 7, 0.9, 0), (0, 0, 10, 10, 0.8, 0))
    record = compare(twins, found(A))
    assert record.f1_percent == pytest.approx(200 / 3)
    assert record.mean_iou == 1.0
    rows, columns, iou = pair(twins, np.arange(2), found(A), np.arange(1))
    assert (rows.tolist(), columns.tolist(), iou.tolist()) == ([1], [0], [1.0])


def test_images_add_up_and_reset_forgets() -> None:
    metric = Agreement()
    metric.update(Sample(found(A), reference=found(A)))
    metric.update(Sample(found(), reference=found(A, B)))
    assert (metric.compute().images, metric.compute().f1_percent) == (2, 50.0)
    metric.reset()
    assert (metric.compute().images, metric.compute().f1_percent) == (0, 100.0)


def test_the_baseline_is_needed() -> None:
    with pytest.raises(DataError, match="baseline"):
        Agreement().update(Sample(found(A)))


def several(pairs: int, missed: int) -> Agreement:
    """Images of two objects, both found or neither."""
    metric = Agreement()
    for number in range(pairs + missed):
        metric.update(Sample(found(A, B) if number < pairs else found(), reference=found(A, B)))
    return metric


def test_the_interval_is_that_of_the_draws_of_images() -> None:
    """With b of n images found, F1 is 2b / (n + b): b is binomial, and so are its quantiles."""
    images, share = 200, 0.9
    interval = several(180, 20).interval(4000, seed=1)
    assert interval.value == several(180, 20).compute().f1_percent
    spread = 1.96 * np.sqrt(images * share * (1 - share))
    for end, count in ((interval.low, 180 - spread), (interval.high, 180 + spread)):
        assert end == pytest.approx(200 * count / (images + count), abs=0.35)


def test_what_is_all_alike_has_no_spread() -> None:
    interval = several(9, 0).interval(100, seed=0)
    assert (interval.low, interval.value, interval.high) == (100, 100, 100)


def test_the_same_seed_draws_the_same_images() -> None:
    metric = several(7, 3)
    assert metric.interval(200, seed=3) == metric.interval(200, seed=3)
    assert metric.interval(200, seed=3) != metric.interval(200, seed=4)
