"""Engines beside their baseline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raudo.accuracy.scoring import Scorer
from raudo.datasets.base import Dataset, LabelledImage
from raudo.errors import DataError
from raudo.measuring.evaluate import Evaluation
from raudo.records import Detections

IMAGES = 12


def dataset() -> Dataset:
    random = np.random.default_rng(0)
    corners = random.uniform(0, 50, (IMAGES, 4, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + 30], axis=2)
    labels = random.integers(0, 2, (IMAGES, 4))
    crowd = np.zeros(4, np.bool_)
    images = tuple(
        LabelledImage(Path(f"{i}.jpg"), boxes[i], labels[i], crowd) for i in range(IMAGES)
    )
    return Dataset("made up", ("cat", "dog"), images)


def perfect(data: Dataset) -> list[Detections]:
    return [
        Detections(i.boxes, np.linspace(0.9, 0.5, len(i.labels)).astype(np.float32), i.labels)
        for i in data.images
    ]


def evaluation(detections: list[Detections]) -> Evaluation:
    opened: Any = None
    return Evaluation(opened, detections, [])


def without_dogs(detections: Detections) -> Detections:
    keep = np.flatnonzero(detections.labels == 0)
    return Detections(detections.boxes[keep], detections.scores[keep], detections.labels[keep])


def test_the_baseline_beside_itself_loses_nothing() -> None:
    data = dataset()
    accuracy, alike = Scorer(data, evaluation(perfect(data)), resamples=100).score(
        evaluation(perfect(data))
    )
    assert accuracy is not None
    assert accuracy.map50 == pytest.approx(1)
    loss = accuracy.map50_loss_percent
    assert loss is not None
    assert (loss.low, loss.value, loss.high) == (0, 0, 0)
    assert alike.f1_percent == 100


def test_an_engine_blind_to_a_class_loses_half() -> None:
    data = dataset()
    blind = [without_dogs(d) for d in perfect(data)]
    accuracy, alike = Scorer(data, evaluation(perfect(data)), resamples=100).score(
        evaluation(blind)
    )
    assert accuracy is not None
    assert accuracy.map50_loss_percent is not None
    assert accuracy.map50_loss_percent.value == pytest.approx(50)
    assert accuracy.map50_loss_percent.low <= 50 <= accuracy.map50_loss_percent.high
    assert alike.f1_percent < 90


def test_without_labels_there_is_similarity_alone() -> None:
    data = dataset()
    accuracy, alike = Scorer(None, evaluation(perfect(data))).score(evaluation(perfect(data)))
    assert accuracy is None
    assert alike.images == IMAGES


def test_a_baseline_that_detects_nothing_is_refused_before_any_other_engine() -> None:
    data = dataset()
    nothing = [without_dogs(replace(d, labels=np.ones_like(d.labels))) for d in perfect(data)]
    assert not any(len(d) for d in nothing)
    with pytest.raises(DataError, match="mAP on this data set is zero"):
        Scorer(data, evaluation(nothing))
