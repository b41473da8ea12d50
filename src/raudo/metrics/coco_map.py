"""mAP@0.5 and mAP@0.5:0.95 as COCO defines them, fast enough to be bootstrapped.

Equal to the reference implementation (`COCOeval` of pycocotools: all areas, at most 100 detections
of a class in an image, crowd boxes neither hits nor misses). Average precision depends only on
which detections are hits and on how many others rank above each of them. So detections are matched
once, into a `MatchTable`, and any re-weighting of the images (a bootstrap resample) is a few
passes over that table.

Sources: T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", arXiv 1405.0312, and
https://cocodataset.org/#detection-eval for the protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raudo.accuracy.matching import (
    HIT,
    IGNORED,
    THRESHOLDS,
    Rows,
    group,
    outcomes,
    rows_of,
    sorting,
    take,
)
from raudo.errors import DataError
from raudo.metrics.base import Metric
from raudo.records import Accuracy, ClassAccuracy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from raudo.metrics.base import Sample

RECALLS = np.linspace(0, 1, 101)
MAX_DETECTIONS = 100
"""Detections of one class in one image that count, best first."""


@dataclass(frozen=True)
class MatchTable:
    """What average precision needs to know of one engine's detections on one data set.

    Detections are ranked by class, then best score first. A run is all hits (or ignored
    detections) of one IoU threshold and class; hits are ordered by run, then by rank.

    Attributes:
        classes: Names of the classes.
        images: Number of images.
        truth_image: int [boxes], image of each box that is not a crowd.
        truth_class: int [boxes], its class.
        ranked_image: int [detections], image of each detection, by rank.
        hit_image: int [hits], image of each hit.
        hit_class: int [hits], its class.
        hit_run: int [hits], threshold index * classes + class.
        hit_first: int [hits], index of the first hit of its run.
        hit_rank: int [hits], detections that rank above it, in any class.
        hit_class_rank: int [hits], rank at which its class starts.
        ignored_image: int [ignored], image of each ignored detection, by run and rank.
        hit_ignored: int [hits], ignored detections of earlier runs, or of its own above it.
        hit_ignored_first: int [hits], ignored detections of earlier runs.
    """

    classes: tuple[str, ...]
    images: int
    truth_image: NDArray[np.int64]
    truth_class: NDArray[np.int64]
    ranked_image: NDArray[np.int64]
    hit_image: NDArray[np.int64]
    hit_class: NDArray[np.int64]
    hit_run: NDArray[np.int64]
    hit_first: NDArray[np.int64]
    hit_rank: NDArray[np.int64]
    hit_class_rank: NDArray[np.int64]
    ignored_image: NDArray[np.int64]
    hit_ignored: NDArray[np.int64]
    hit_ignored_first: NDArray[np.int64]


class CocoMap(Metric):
    """COCO's mean average precision.

    Args:
        classes: Names of the classes; empty names them by their index, as far as they are seen.
    """

    name = "coco_map"
    title = "mAP (COCO)"

    def __init__(self, classes: Sequence[str] = ()) -> None:
        self.classes = tuple(classes)
        self._samples: list[Sample] = []

    def update(self, sample: Sample) -> None:
        """Add one image; its `truth` must be given."""
        if sample.truth is None:
            raise DataError("mAP needs labels", hint="give a labelled data set with --data")
        self._samples.append(sample)

    def table(self) -> MatchTable:
        """Match the detections of all images so far with their labels.

        Raises:
            DataError: A label is outside of the classes.
        """
        return match(self._samples, self.classes)

    def compute(self) -> Accuracy:
        """Return mAP and per-class AP over all images so far, without losses.

        Raises:
            DataError: There is no box to find.
        """
        return summarize(self.table())

    def reset(self) -> None:
        """Forget all images."""
        self._samples.clear()


def summarize(table: MatchTable) -> Accuracy:
    """Return the accuracy record of a table, without losses.

    Raises:
        DataError: There is no box to find.
    """
    if not len(table.truth_image):
        raise DataError("no image has a labelled box", hint="mAP needs boxes to find; check labels")
    precision = average_precision(table)
    map50, map50_95 = mean_average_precision(precision)
    boxes = np.bincount(table.truth_class, minlength=len(table.classes))
    classes = tuple(
        ClassAccuracy(
            name=name,
            boxes=int(boxes[index]),
            ap50=float(precision[0, index]) if boxes[index] else None,
            ap50_95=float(precision[:, index].mean()) if boxes[index] else None,
        )
        for index, name in enumerate(table.classes)
    )
    return Accuracy(
        images=table.images,
        boxes=int(boxes.sum()),
        map50=map50,
        map50_95=map50_95,
        classes=classes,
    )


def mean_average_precision(precision: NDArray[np.float64]) -> tuple[float, float]:
    """Return mAP@0.5 and mAP@0.5:0.95 of AP [thresholds, classes]; NaN where no class has one."""
    present = precision[:, ~np.isnan(precision[0])]
    if not present.size:
        return float("nan"), float("nan")
    return float(present[0].mean()), float(present.mean())


def average_precision(
    table: MatchTable, counts: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """Return the 101-point interpolated average precision of each threshold and class.

    Args:
        table: The matched detections.
        counts: int [images], how many times each image is in the data set; None: once each.

    Returns:
        float64 [10, classes]; NaN where a class has no box to find.
    """
    weight = np.ones(table.images) if counts is None else counts.astype(np.float64)
    number = len(table.classes)
    truths = np.bincount(table.truth_class, weight[table.truth_image], minlength=number)
    ranked = _running(weight[table.ranked_image])
    ignored = _running(weight[table.ignored_image])
    hits = _running(weight[table.hit_image])

    found = hits[1:] - hits[table.hit_first]
    # Everything down to this hit; a hit's own copies have the rank of the hit.
    tried = ranked[table.hit_rank + 1] - ranked[table.hit_class_rank]
    tried -= ignored[table.hit_ignored] - ignored[table.hit_ignored_first]
    precision = found / (tried + np.spacing(1))
    # Best precision at this recall or a higher one; the offsets keep runs apart.
    offset = 2.0 * (len(THRESHOLDS) * number - table.hit_run)
    envelope = np.maximum.accumulate((precision + offset)[::-1])[::-1] - offset

    recall = found / np.maximum(truths, 1)[table.hit_class]
    reached = _recall_points(recall)
    before = np.concatenate([[0], reached[:-1]])
    before[table.hit_first == np.arange(len(before))] = 0
    total = np.bincount(
        table.hit_run, envelope * (reached - before), minlength=len(THRESHOLDS) * number
    )
    result: NDArray[np.float64] = total.reshape(len(THRESHOLDS), number) / len(RECALLS)
    result[:, truths == 0] = np.nan
    return result


def _running(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the running sum with a leading zero."""
    total = np.zeros(len(values) + 1)
    np.cumsum(values, out=total[1:])
    return total


def _recall_points(recall: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return how many of the RECALLS are at most each recall, exactly as comparing would."""
    nearest = np.rint(recall * (len(RECALLS) - 1)).astype(np.int64)
    return nearest + (RECALLS[nearest] <= recall)


def match(samples: Sequence[Sample], classes: Sequence[str] = ()) -> MatchTable:
    """Match detections with labels, greedily by score, at all IoU thresholds.

    Args:
        samples: One for each image, `truth` given.
        classes: Names of the classes; empty names them by their index, as far as they are seen.

    Raises:
        DataError: A label is outside of the classes.
    """
    detections = [sample.detections for sample in samples]
    truths = [sample.truth for sample in samples if sample.truth is not None]
    found = rows_of([d.boxes for d in detections], [d.labels for d in detections])
    wanted = rows_of([t.boxes for t in truths], [t.labels for t in truths])
    scores = np.concatenate([np.zeros(0, np.float32), *(d.scores for d in detections)])
    crowd = np.concatenate([np.zeros(0, np.bool_), *(t.crowd for t in truths)])
    names = tuple(classes) or _index_names(found, wanted)
    for rows in (found, wanted):
        if len(rows.label) and not 0 <= rows.label.min() <= rows.label.max() < len(names):
            raise DataError(
                f"a label is outside of the {len(names)} classes: "
                f"{rows.label.min()} to {rows.label.max()}",
                hint="the data set or the engine belongs to another model",
            )

    by_score = np.argsort(-scores, kind="stable")
    grouped, within = group(found, by_score, len(samples))
    grouped = grouped[within < MAX_DETECTIONS]
    outcome = outcomes(take(found, grouped), wanted, crowd, len(samples))

    kept = np.zeros(len(scores), np.bool_)
    kept[grouped] = True
    ranking = by_score[kept[by_score]]
    ranking = ranking[sorting(found.label[ranking], len(names))]
    rank = np.empty(len(scores), np.int64)
    rank[ranking] = np.arange(len(ranking))
    return _table(names, len(samples), take(found, ranking), rank[grouped], outcome, wanted, crowd)


def _index_names(*tables: Rows) -> tuple[str, ...]:
    highest = max((int(rows.label.max()) for rows in tables if len(rows.label)), default=-1)
    return tuple(str(index) for index in range(highest + 1))


def _table(
    names: tuple[str, ...],
    images: int,
    ranked: Rows,
    rank: NDArray[np.int64],
    outcome: NDArray[np.int8],
    wanted: Rows,
    crowd: NDArray[np.bool_],
) -> MatchTable:
    """Order hits and ignored detections by run and rank.

    Args:
        names: Names of the classes.
        images: Number of images.
        ranked: The detections by rank.
        rank: int [detections], rank of each column of `outcome`.
        outcome: int8 [thresholds, detections].
        wanted: The labelled boxes.
        crowd: bool [boxes].
    """

    def ordered(kind: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        level, column = np.nonzero(outcome == kind)
        place = np.sort(level * len(rank) + rank[column])  # ranks are sorted by class
        return place, place % max(len(rank), 1)

    (hit_place, hit), (ignored_place, ignored) = ordered(HIT), ordered(IGNORED)
    hit_class = ranked.label[hit]
    class_rank = np.searchsorted(ranked.label, hit_class, "left")
    return MatchTable(
        classes=names,
        images=images,
        truth_image=wanted.image[~crowd],
        truth_class=wanted.label[~crowd],
        ranked_image=ranked.image,
        hit_image=ranked.image[hit],
        hit_class=hit_class,
        hit_run=hit_place // max(len(rank), 1) * len(names) + hit_class,
        hit_first=np.searchsorted(hit_place, hit_place - hit + class_rank, "left"),
        hit_rank=hit,
        hit_class_rank=class_rank,
        ignored_image=ranked.image[ignored],
        hit_ignored=np.searchsorted(ignored_place, hit_place, "left"),
        hit_ignored_first=np.searchsorted(ignored_place, hit_place - hit + class_rank, "left"),
    )
