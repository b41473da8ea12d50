"""What every metric must do; metrics are found by scanning their folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raudo import discover
from raudo.datasets.base import LabelledImage
from raudo.metrics.base import Metric, Sample
from raudo.records import Detections, Record

EVERY = pytest.mark.parametrize("name", discover.names("metrics"))


def sample(shift: float) -> Sample:
    boxes = np.array([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    labels, scores = np.array([0, 1]), np.array([0.9, 0.6], np.float32)
    truth = LabelledImage(Path("a.jpg"), boxes, labels, np.zeros(2, np.bool_))
    reference = Detections(boxes.astype(np.float32), scores, labels)
    found = Detections((boxes + shift).astype(np.float32), scores, labels)
    return Sample(found, truth=truth, reference=reference)


def updated(metric: Metric, *shifts: float) -> Record:
    for shift in shifts:
        metric.update(sample(shift))
    record = metric.compute()
    assert isinstance(record, Record)
    return record


@EVERY
def test_is_named_after_its_file(name: str) -> None:
    metric = discover.metric(name)
    assert metric.name == name
    assert metric.title


@EVERY
def test_computing_changes_nothing(name: str) -> None:
    metric = discover.metric(name)()
    record = updated(metric, 0, 1, 3)
    assert metric.compute() == record


@EVERY
def test_reset_forgets(name: str) -> None:
    metric = discover.metric(name)()
    first = updated(metric, 0, 1)
    metric.reset()
    assert updated(metric, 3, 8) != first
    metric.reset()
    assert updated(metric, 0, 1) == first


@EVERY
def test_instances_share_nothing(name: str) -> None:
    one, other = discover.metric(name)(), discover.metric(name)()
    updated(one, 8, 9)
    assert updated(other, 0) == updated(discover.metric(name)(), 0)


@EVERY
def test_records_survive_json(name: str) -> None:
    record = updated(discover.metric(name)(), 0, 3)
    assert type(record).model_validate_json(record.model_dump_json()) == record
