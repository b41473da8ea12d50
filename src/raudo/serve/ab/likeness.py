"""How alike the detections of two variants are on one and the same image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from raudo.metrics.agreement import CONFIDENCE, pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from raudo.records import Detections
    from raudo.serve.ab.sequences import Number


@dataclass(frozen=True)
class Likeness:
    """One request's images seen by two variants, at confidence >= 0.25.

    Attributes:
        detections: Detections of both together.
        matched: Pairs of the same class at IoU >= 0.5, one to one.
        flipped: Pairs among the rest at IoU >= 0.5: the same box under another class.
        score_shift: Sum over the matched pairs of the candidate's score minus the baseline's.
    """

    detections: Number
    matched: Number
    flipped: Number
    score_shift: Number


def compare(candidate: Detections, baseline: Detections) -> Likeness:
    """Match the detections of an image as `metrics/agreement.py` does, then look for flips."""
    ours = np.flatnonzero(candidate.scores >= CONFIDENCE)
    theirs = np.flatnonzero(baseline.scores >= CONFIDENCE)
    first, second, _ = pair(candidate, ours, baseline, theirs)
    shift = candidate.scores[first].astype(np.float64) - baseline.scores[second]
    flipped = 0
    if len(first) < min(len(ours), len(theirs)):
        ours_left, theirs_left = _without(ours, first), _without(theirs, second)
        pairs = pair(_classless(candidate), ours_left, _classless(baseline), theirs_left)
        flipped = len(pairs[0])
    return Likeness(len(ours) + len(theirs), len(first), flipped, float(shift.sum()))


def total(images: Sequence[Likeness]) -> Likeness:
    """Add up the images of one request."""
    rows = (vars(each).values() for each in images)
    return Likeness(*(sum(column) for column in zip(*rows, strict=True)))


def _classless(detections: Detections) -> Detections:
    return replace(detections, labels=np.zeros_like(detections.labels))


def _without(these: NDArray[np.int64], taken: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.setdiff1d(these, taken, assume_unique=True)
