"""Two variants' detections on one image."""

from __future__ import annotations

import numpy as np
import pytest

from raudo.metrics.agreement import Agreement
from raudo.metrics.base import Sample
from raudo.records import Detections
from raudo.serve.ab.likeness import Likeness, compare, total

PLACES = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], np.float32)


def found(*labels: int, scores: tuple[float, ...] = (0.9, 0.8, 0.7)) -> Detections:
    count = len(labels)
    return Detections(
        PLACES[:count].copy(), np.array(scores[:count], np.float32), np.array(labels, np.int64)
    )


def test_the_same_is_matched() -> None:
    assert compare(found(0, 1, 2), found(0, 1, 2)) == Likeness(6, 3, 0, 0.0)
    assert compare(found(), found()) == Likeness(0, 0, 0, 0.0)


def test_another_class_is_a_flip() -> None:
    assert compare(found(0, 1, 2), found(0, 1, 5)) == Likeness(6, 2, 1, 0.0)


def test_another_place_is_no_flip() -> None:
    moved = found(0, 1)
    moved.boxes[1] += 100
    assert compare(found(0, 1), moved) == Likeness(4, 1, 0, 0.0)


def test_unsure_detections_do_not_count() -> None:
    assert compare(found(0, 1, scores=(0.9, 0.2)), found(0)) == Likeness(2, 1, 0, 0.0)


def test_the_shift_is_that_of_the_candidate() -> None:
    like = compare(found(0, 1, scores=(0.8, 0.6)), found(0, 1, scores=(0.9, 0.8)))
    assert like.score_shift == pytest.approx(-0.3)


def test_agrees_with_the_similarity_of_a_run() -> None:
    random, metric, images = np.random.default_rng(0), Agreement(), []
    for _ in range(30):
        sides = []
        for _ in range(2):
            corner = random.uniform(0, 60, (8, 2))
            boxes = np.hstack([corner, corner + random.uniform(10, 40, (8, 2))])
            scores = np.sort(random.random(8))[::-1]
            sides.append(
                Detections(boxes.astype("f4"), scores.astype("f4"), random.integers(0, 2, 8))
            )
        metric.update(Sample(detections=sides[0], reference=sides[1]))
        images.append(compare(*sides))
    all_images = total(images)
    assert 200 * all_images.matched / all_images.detections == pytest.approx(
        metric.compute().f1_percent
    )
