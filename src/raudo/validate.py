"""How well an engine detects: pure functions from detections to records.

Accuracy and its loss against the baseline, similarity to the baseline, and, where they differ,
the stage of the runtime path that differs first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raudo.accuracy.boxes import paired_iou
from raudo.errors import DataError
from raudo.metrics.agreement import CONFIDENCE, Agreement, pair
from raudo.metrics.base import Sample
from raudo.metrics.coco_map import (
    CocoMap,
    MatchTable,
    average_precision,
    mean_average_precision,
    summarize,
)
from raudo.records import Detections, Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from raudo.backends.base import Outputs
    from raudo.datasets.base import Dataset
    from raudo.measuring.station import Probe
    from raudo.records import Accuracy, DivergingStage, Similarity

SAME_IOU, SAME_SCORE = 0.99, 1e-3
"""Outputs closer than this are the same network's: the tolerance that a family's module is held
to against the family's own code. Engines of one precision stay far inside of it (about 1e-4);
BF16, FP16 and INT8 arithmetic leaves it."""


def match(dataset: Dataset, detections: Sequence[Detections]) -> MatchTable:
    """Match what an engine found in each image of a data set with the labels.

    Args:
        dataset: The labelled images.
        detections: One for each image, in the same order.

    Raises:
        DataError: A label is outside of the data set's classes.
    """
    metric = CocoMap(dataset.classes)
    for image, found in zip(dataset.images, detections, strict=True):
        metric.update(Sample(found, truth=image))
    return metric.table()


def accuracy(dataset: Dataset, detections: Sequence[Detections]) -> Accuracy:
    """Return mAP and per-class AP of what an engine found, without losses.

    Raises:
        DataError: The data set has no box to find.
    """
    return summarize(match(dataset, detections))


def with_losses(
    baseline: MatchTable, candidate: MatchTable, resamples: int = 1000, seed: int = 0
) -> Accuracy:
    """Return a candidate's accuracy with its losses against the baseline.

    The intervals (95 %) are paired bootstraps over images: each resample draws as many images,
    with replacement, and scores both engines on the same draw (B. Efron, R. Tibshirani, "An
    Introduction to the Bootstrap", 1993, chapters 13 and 16: percentile intervals). Draws in
    which the baseline's mAP is zero, or without a box, have no relative loss and are left out.

    Args:
        baseline: The baseline's matched detections.
        candidate: The candidate's, on the same data set.
        resamples: Number of resamples.
        seed: The same seed draws the same images.

    Raises:
        DataError: The baseline detects nothing, so that a loss relative to it is undefined.
    """
    record = summarize(candidate)
    reference = reference_map(baseline)
    if candidate is baseline:  # no draw would find a loss
        draws = np.array([[reference, reference]])
    else:
        draws = _paired_draws(baseline, candidate, resamples, seed)
    both = np.array([reference, (record.map50, record.map50_95)])
    return record.model_copy(
        update={
            "map50_loss_percent": _loss(both[:, 0], draws[:, :, 0], relative=True),
            "map50_95_loss_percent": _loss(both[:, 1], draws[:, :, 1], relative=True),
            "map50_loss_points": _loss(both[:, 0], draws[:, :, 0], relative=False),
            "map50_95_loss_points": _loss(both[:, 1], draws[:, :, 1], relative=False),
        }
    )


def _paired_draws(
    baseline: MatchTable, candidate: MatchTable, resamples: int, seed: int
) -> NDArray[np.float64]:
    """Return both mAPs of both engines on each draw of images: [resamples, engine, mAP]."""
    generator = np.random.default_rng(seed)
    draws = np.empty((resamples, 2, 2))
    for draw in draws:
        chosen = generator.integers(baseline.images, size=baseline.images)
        counts = np.bincount(chosen, minlength=baseline.images)
        draw[0] = mean_average_precision(average_precision(baseline, counts))
        draw[1] = mean_average_precision(average_precision(candidate, counts))
    return draws


def reference_map(baseline: MatchTable) -> tuple[float, float]:
    """Return the mAP@0.5 and mAP@0.5:0.95 that losses are relative to.

    Raises:
        DataError: One is zero, so that a loss relative to it is undefined.
    """
    map50, map50_95 = mean_average_precision(average_precision(baseline))
    if map50 <= 0 or map50_95 <= 0:
        raise DataError(
            "the baseline's own mAP on this data set is zero: a loss against it is undefined",
            hint="do the data set's classes and images fit the model?",
        )
    return map50, map50_95


def _loss(both: NDArray[np.float64], draws: NDArray[np.float64], *, relative: bool) -> Interval:
    """Return 100 * (baseline - candidate), or that over the baseline, with its interval.

    Args:
        both: float64 [2], mAP of baseline and candidate.
        draws: float64 [resamples, 2], the same of each resample.
        relative: Whether to divide by the baseline.
    """
    usable = draws[draws[:, 0] > 0]
    value, losses = 100 * (both[0] - both[1]), 100 * (usable[:, 0] - usable[:, 1])
    if relative:
        value, losses = value / both[0], losses / usable[:, 0]
    low, high = np.percentile(losses, [2.5, 97.5])
    return Interval(value=float(value), low=float(low), high=float(high))


def images_needed(interval: Interval, gate: float, images: int) -> int | None:
    """Return how many images would settle a loss whose interval straddles the gate.

    The width of an interval falls with the square root of the number of images; this is where the
    side of it that faces the gate would reach the gate, if the estimate stays as it is.

    Args:
        interval: The loss, on `images` images.
        gate: The highest loss that passes.
        images: Number of images so far.

    Returns:
        The number of images in all; `images` if the interval is settled already; None if the
        estimate lies on the gate itself, which no number of images settles.
    """
    if not interval.low <= gate < interval.high:
        return images
    distance = abs(gate - interval.value)
    facing = interval.high if interval.value < gate else interval.low
    if distance == 0:
        return None
    return max(images + 1, math.ceil(images * ((facing - interval.value) / distance) ** 2))


def similarity(
    reference: Sequence[Detections],
    detections: Sequence[Detections],
    divergence: Divergence | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Similarity:
    """Compare what an engine found with what the baseline found in the same images.

    Args:
        reference: The baseline's detections, one for each image.
        detections: The engine's, in the same order.
        divergence: What `diverging_stage` says of a few of the images.
        resamples: Resamples of the interval, a bootstrap over images.
        seed: The same seed draws the same images.
    """
    metric = Agreement()
    for theirs, ours in zip(reference, detections, strict=True):
        metric.update(Sample(ours, reference=theirs))
    record = metric.compute().model_copy(
        update={
            "confidence": equal_confidence(reference, detections),
            "f1_interval": metric.interval(resamples, seed),
        }
    )
    if divergence is None:
        return record
    return record.model_copy(
        update={
            "boxes_cosine": divergence.boxes_cosine,
            "scores_cosine": divergence.scores_cosine,
            "diverges": divergence.stage,
        }
    )


def equal_confidence(
    reference: Sequence[Detections], detections: Sequence[Detections]
) -> float | None:
    """Return the confidence at which an engine finds as many objects as the baseline at 0.25.

    Quantization shifts scores; at this threshold precision and recall keep their balance.

    Args:
        reference: The baseline's detections, one for each image, down to far below 0.25.
        detections: The engine's, in the same order.
    """
    count = sum(int((found.scores >= CONFIDENCE).sum()) for found in reference)
    scores = np.sort(np.concatenate([found.scores for found in detections]))[::-1]
    return float(scores[count - 1]) if 0 < count <= len(scores) else None


@dataclass(frozen=True)
class Divergence:
    """Where an engine's runtime path leaves the baseline's.

    Attributes:
        stage: The first stage whose result differs; None where none does. `rectangle` where the
            input has another size: the stages behind it cannot be compared.
        boxes_cosine: Cosine of the raw boxes; None where they cannot be compared.
        scores_cosine: Cosine of the raw scores; None where they cannot be compared.
    """

    stage: DivergingStage | None
    boxes_cosine: float | None
    scores_cosine: float | None


def diverging_stage(baseline: Sequence[Probe], engine: Sequence[Probe]) -> Divergence:
    """Find the first stage at which an engine differs from the baseline.

    Preparation differs if the prepared bytes do in an input of the same size. The network differs
    if an output of at least the confidence that detections are compared at (0.25, in either
    engine) has a score more than 0.001 apart, or an IoU below 0.99 with its counterpart. Selection
    differs if, from such equal outputs, one engine's detection has no counterpart in the other's;
    detections closer to the confidence than the tolerance are not asked for one.

    Args:
        baseline: The baseline's results for a few images.
        engine: The engine's, for the same images in the same order.
    """
    probes = list(zip(baseline, engine, strict=True))
    aligned = [_align(ours.outputs, theirs.outputs) for ours, theirs in probes]
    known = [each for each in aligned if each is not None]
    comparable = len(known) == len(aligned) > 0
    sized_alike = [(ours, theirs) for ours, theirs in probes if ours.size == theirs.size]
    stage: DivergingStage | None = None
    if any(ours.prepared_sha256 != theirs.prepared_sha256 for ours, theirs in sized_alike):
        stage = "preparation"
    elif len(sized_alike) < len(probes):
        stage = "rectangle"
    elif not all(each is not None and each.same for each in aligned):
        stage = "network"
    elif not all(_selected_alike(ours.detections, theirs.detections) for ours, theirs in probes):
        stage = "selection"
    return Divergence(
        stage,
        _cosine([(each.boxes, each.other_boxes) for each in known]) if comparable else None,
        _cosine([(each.scores, each.other_scores) for each in known]) if comparable else None,
    )


@dataclass(frozen=True)
class _Aligned:
    """Raw outputs of two engines, row by row: boxes [n, 4] and scores [n] or [n, classes]."""

    boxes: NDArray[np.float32]
    other_boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    other_scores: NDArray[np.float32]
    same: bool


def _align(ours: Outputs, theirs: Outputs) -> _Aligned | None:
    """Put raw outputs side by side; None where their shapes differ."""
    if ours.scores.shape != theirs.scores.shape or ours.boxes.shape != theirs.boxes.shape:
        return None
    if ours.labels is not None and theirs.labels is not None:
        return _align_ranked(ours, theirs)
    boxes, other_boxes = ours.boxes.reshape(-1, 4), theirs.boxes.reshape(-1, 4)
    classes = ours.scores.shape[-1]
    scores, other_scores = ours.scores.reshape(-1, classes), theirs.scores.reshape(-1, classes)
    row, label = np.nonzero(np.maximum(scores, other_scores) >= CONFIDENCE)
    apart = np.abs(scores[row, label] - other_scores[row, label])
    near = paired_iou(boxes[row], other_boxes[row]) >= SAME_IOU
    same = bool(near.all() and (apart <= SAME_SCORE).all())
    return _Aligned(boxes, other_boxes, scores, other_scores, same)


def _align_ranked(ours: Outputs, theirs: Outputs) -> _Aligned:
    """Pair the rows of NMS-free engines, whose order changes with the slightest of differences."""
    boxes, scores, same = [], [], True
    for index in range(len(ours.boxes)):
        first, second = _as_detections(ours, index), _as_detections(theirs, index)
        all_rows = np.arange(len(first))
        row, column, iou = pair(first, all_rows, second, all_rows)
        boxes.append((first.boxes[row], second.boxes[column]))
        scores.append((first.scores[row], second.scores[column]))
        apart = np.abs(first.scores[row] - second.scores[column])
        alike = (iou >= SAME_IOU) & (apart <= SAME_SCORE)
        unpaired = set(np.flatnonzero(first.scores >= CONFIDENCE)) - set(row[alike])
        unpaired |= set(np.flatnonzero(second.scores >= CONFIDENCE)) - set(column[alike])
        same = same and not unpaired
    return _Aligned(*_stacked(boxes), *_stacked(scores), same)


def _stacked(
    pairs: list[tuple[NDArray[np.float32], NDArray[np.float32]]],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])


def _as_detections(outputs: Outputs, index: int) -> Detections:
    labels = outputs.labels
    if labels is None:
        raise TypeError("outputs without labels are not ranked")
    return Detections(outputs.boxes[index], outputs.scores[index], labels[index])


def _selected_alike(ours: Detections, theirs: Detections) -> bool:
    """Tell whether all detections clearly above the confidence have a counterpart."""
    rows = np.flatnonzero(ours.scores >= CONFIDENCE - SAME_SCORE)
    columns = np.flatnonzero(theirs.scores >= CONFIDENCE - SAME_SCORE)
    row, column, _ = pair(ours, rows, theirs, columns)
    clear = set(np.flatnonzero(ours.scores >= CONFIDENCE + SAME_SCORE))
    other_clear = set(np.flatnonzero(theirs.scores >= CONFIDENCE + SAME_SCORE))
    return clear <= set(row) and other_clear <= set(column)


def _cosine(pairs: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> float | None:
    """Return the cosine of the angle between two tensors given in pieces; None if one is zero."""
    dot = first = second = 0.0
    for ours, theirs in pairs:
        a, b = ours.ravel().astype(np.float64), theirs.ravel().astype(np.float64)
        dot, first, second = dot + float(a @ b), first + float(a @ a), second + float(b @ b)
    if first == 0 or second == 0:
        return 1.0 if first == second else None
    return dot / math.sqrt(first * second)
