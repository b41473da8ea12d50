"""Greedy matching of detections with labelled boxes, as COCO's protocol has it.

A detection, best score first, takes the free box of its class and image with which its IoU is
highest (the later box, if several are equal), or else a crowd box, which makes it ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raudo.accuracy.boxes import paired_iou

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

THRESHOLDS = np.linspace(0.5, 0.95, 10)
HIT, IGNORED = 1, 2

_PAIRS_AT_ONCE = 250_000


@dataclass(frozen=True)
class Rows:
    """Boxes of all images in one table; row i belongs to image `image[i]`."""

    image: NDArray[np.int64]
    label: NDArray[np.int64]
    box: NDArray[np.float64]


def rows_of(boxes: Sequence[NDArray[np.floating]], labels: Sequence[NDArray[np.int64]]) -> Rows:
    """Put the boxes, [n, 4] each, and labels, [n] each, of all images into one table."""
    image = np.repeat(np.arange(len(labels)), [len(each) for each in labels])
    return Rows(
        image,
        np.concatenate([np.zeros(0, np.int64), *labels]),
        np.concatenate([np.zeros((0, 4)), *boxes], dtype=np.float64),
    )


def take(rows: Rows, index: NDArray[np.int64]) -> Rows:
    """Return some rows, in the order of their indices."""
    return Rows(rows.image[index], rows.label[index], rows.box[index])


def sorting(values: NDArray[np.int64], bound: int) -> NDArray[np.int64]:
    """Return a stable argsort of integers in [0, bound); short integers sort in linear time."""
    return np.argsort(values.astype(np.min_scalar_type(bound)), kind="stable")


def group(
    rows: Rows, order: NDArray[np.int64], images: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group rows by class and image, in the given order within each group.

    Returns:
        The rows' indices, and the position of each within its group.
    """
    order = order[sorting(rows.image[order], images)]
    order = order[sorting(rows.label[order], int(rows.label.max(initial=0)) + 1)]
    key = rows.label[order] * images + rows.image[order]
    return order, _position(key)


def _position(key: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the position of each element within its run of equal, adjacent keys."""
    index = np.arange(len(key))
    starts = np.concatenate([[True], key[1:] != key[:-1]])[: len(key)]
    return index - np.maximum.accumulate(np.where(starts, index, 0))


def outcomes(found: Rows, wanted: Rows, crowd: NDArray[np.bool_], images: int) -> NDArray[np.int8]:
    """Match detections, grouped by class and image and best first within each group.

    A detection takes the free box of its group with which its IoU is highest (the later box, if
    several are equal), or else a crowd box. The first detections of all groups choose at once,
    then the second ones, and so on: no choice depends on a later one, nor on another group.

    Returns:
        int8 [thresholds, detections]: 0 (a miss), HIT or IGNORED.
    """
    outcome = np.zeros((len(THRESHOLDS), len(found.label)), np.int8)
    detection, truth, iou = _overlapping(found, wanted, crowd, images)
    if not len(detection):
        return outcome
    preference = np.lexsort((-truth, -iou, crowd[truth], detection))
    detection, truth, iou = detection[preference], truth[preference], iou[preference]

    chooser, first = np.unique(detection, return_index=True)
    turn = _position(found.label[chooser] * images + found.image[chooser])
    pairs = np.diff(np.append(first, len(detection)))
    by_turn = np.argsort(np.repeat(turn, pairs), kind="stable")
    detection, truth, iou = detection[by_turn], truth[by_turn], iou[by_turn]
    ends = np.cumsum(np.bincount(np.repeat(turn, pairs)))

    thresholds = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    taken = np.zeros((len(THRESHOLDS), len(crowd)), np.bool_)
    for start, end in zip(np.append(0, ends[:-1]), ends, strict=True):
        boxes = truth[start:end]
        free = (iou[start:end] >= thresholds) & ~taken[:, boxes]
        firsts = np.flatnonzero(_position(detection[start:end]) == 0)
        # The lowest index is the preferred one: counting down from the end makes it a maximum.
        countdown = np.arange(end - start, 0, -1)
        best = np.maximum.reduceat(np.where(free, countdown, 0), firsts, axis=1)
        level, _ = np.nonzero(best)
        chosen = end - best[best > 0]
        ignored = crowd[truth[chosen]]
        taken[level, truth[chosen]] = ~ignored
        outcome[level, detection[chosen]] = np.where(ignored, IGNORED, HIT)
    return outcome


def _overlapping(
    found: Rows, wanted: Rows, crowd: NDArray[np.bool_], images: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return detection, box and IoU of all pairs of one class and image with enough overlap."""
    order, _ = group(wanted, np.arange(len(wanted.label)), images)
    truth_key = wanted.label[order] * images + wanted.image[order]
    key = found.label * images + found.image
    low = np.searchsorted(truth_key, key, "left")
    number = np.searchsorted(truth_key, key, "right") - low
    pieces = []
    for part in _portions(number):
        detection = np.repeat(part, number[part])
        behind = np.repeat(np.cumsum(number[part]) - number[part], number[part])
        truth = order[low[detection] + np.arange(len(detection)) - behind]
        iou = paired_iou(found.box[detection], wanted.box[truth], crowd[truth])
        near = iou >= THRESHOLDS[0]
        pieces.append((detection[near], truth[near], iou[near]))
    detections, truths, ious = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return detections, truths, ious


def _portions(number: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Split detections that have boxes into portions of few enough pairs for the caches."""
    some = np.flatnonzero(number)
    portion = np.cumsum(number[some]) // _PAIRS_AT_ONCE
    yield from np.split(some, np.flatnonzero(np.diff(portion)) + 1)
