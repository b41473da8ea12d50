"""Similarity: how alike an engine's detections are to the baseline's on the same images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from raudo.accuracy.boxes import paired_iou
from raudo.errors import DataError
from raudo.metrics.base import Metric
from raudo.records import Interval, Similarity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from raudo.metrics.base import Sample
    from raudo.records import Detections

CONFIDENCE = 0.25
IOU = 0.5


class Agreement(Metric):
    """F1 of the engine's detections, with the baseline's in the place of labels.

    Detections at confidence >= 0.25 are matched within each image, one to one, by class and at
    IoU >= 0.5, the highest IoU first. Where neither found anything in any image, F1 is 100 %.
    """

    name = "agreement"
    title = "Similarity to the baseline"

    def __init__(self) -> None:
        self.reset()

    def update(self, sample: Sample) -> None:
        """Add one image; its `reference` must be given."""
        if sample.reference is None:
            raise DataError("similarity needs the baseline's detections", hint="give `reference`")
        ours = np.flatnonzero(sample.detections.scores >= CONFIDENCE)
        theirs = np.flatnonzero(sample.reference.scores >= CONFIDENCE)
        first, second, iou = pair(sample.detections, ours, sample.reference, theirs)
        shift = sample.detections.scores[first].astype(np.float64) - sample.reference.scores[second]
        self._images += 1
        self._detections.append(len(ours) + len(theirs))
        self._ious.append(iou)
        self._shifts.append(shift)

    def compute(self) -> Similarity:
        """Return the similarity over all images so far."""
        ious = np.concatenate([np.zeros(0), *self._ious])
        shifts = np.concatenate([np.zeros(0), *self._shifts])
        return Similarity(
            images=self._images,
            f1_percent=_f1_percent(len(ious), sum(self._detections)),
            mean_iou=float(ious.mean()) if len(ious) else None,
            score_shift=float(shifts.mean()) if len(shifts) else None,
        )

    def interval(self, resamples: int, seed: int) -> Interval:
        """Return F1 with the ends of its 95 % interval: a bootstrap over images.

        Each resample draws as many images, with replacement, and both engines' detections in them
        (B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13).

        Args:
            resamples: Number of resamples.
            seed: The same seed draws the same images.
        """
        pairs, detections = np.array([len(iou) for iou in self._ious]), np.array(self._detections)
        generator = np.random.default_rng(seed)
        draws = np.empty(resamples)
        for number in range(resamples):
            chosen = generator.integers(self._images, size=self._images)
            draws[number] = _f1_percent(int(pairs[chosen].sum()), int(detections[chosen].sum()))
        low, high = np.percentile(draws, [2.5, 97.5])
        value = _f1_percent(int(pairs.sum()), int(detections.sum()))
        return Interval(value=value, low=float(low), high=float(high))

    def reset(self) -> None:
        """Forget all images."""
        self._images = 0
        self._detections: list[int] = []
        self._ious: list[NDArray[np.float64]] = []
        self._shifts: list[NDArray[np.float64]] = []


def _f1_percent(pairs: int, detections: int) -> float:
    return 200 * pairs / detections if detections else 100.0


def pair(
    first: Detections,
    ours: NDArray[np.int64],
    second: Detections,
    theirs: NDArray[np.int64],
    least: float = IOU,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Pair detections of two engines in one image, one to one, the highest IoU first.

    Args:
        first: Detections of one engine.
        ours: int [n], which of them may be paired.
        second: Detections of the other engine.
        theirs: int [m], which of them may be paired.
        least: Lowest IoU of a pair.

    Returns:
        Indices into `first` and `second`, and the IoU of each pair.
    """
    row, column = np.nonzero(first.labels[ours][:, None] == second.labels[theirs])
    row, column = ours[row], theirs[column]
    iou = paired_iou(first.boxes[row], second.boxes[column])
    near = np.flatnonzero(iou >= least)
    near = near[np.argsort(-iou[near], kind="stable")]
    free, unclaimed = set(ours.tolist()), set(theirs.tolist())
    chosen = []
    for index, a, b in zip(near.tolist(), row[near].tolist(), column[near].tolist(), strict=True):
        if a in free and b in unclaimed:
            free.remove(a)
            unclaimed.remove(b)
            chosen.append(index)
    picked = np.array(chosen, np.int64)
    return row[picked], column[picked], iou[picked]
