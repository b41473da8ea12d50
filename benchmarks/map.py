"""mAP of 5,000 images, 36,000 boxes and 100 detections an image: raudo against pycocotools.

Both start from detections in memory and do the same work (all areas together, at most 100
detections of a class in an image); pycocotools is timed without its loading and indexing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raudo.datasets.base import Dataset, LabelledImage
from raudo.metrics.coco_map import MatchTable, average_precision, mean_average_precision
from raudo.records import Detections
from raudo.validate import match, with_losses
from rows import Row, ratio_interval, show

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGES, BOXES, CLASSES, DETECTIONS, SIDE = 5000, 36_000, 80, 100, 640
RESAMPLES, RESAMPLES_A_ROUND, SECONDS_ALLOWED = 1000, 100, 60.0


def scenes(seed: int) -> tuple[Dataset, list[Detections], list[Detections]]:
    """Make a data set like COCO val2017, what one engine finds in it, and a second one.

    Few classes an image, many of them rare, boxes of all sizes; each box is found about three
    times with growing error, the other detections are false, mostly of the classes present.
    """
    rng = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, CLASSES + 1) ** 0.9
    frequency /= frequency.sum()
    crowdedness = rng.gamma(0.8, 1, IMAGES)
    numbers = rng.multinomial(BOXES, crowdedness / crowdedness.sum())
    images, found, found_again = [], [], []
    for index, number in enumerate(numbers):
        present = rng.choice(CLASSES, size=1 + rng.poisson(2), p=frequency)
        labels, boxes = rng.choice(present, size=number), _boxes(rng, int(number))
        crowd = np.zeros(number, np.bool_)
        images.append(LabelledImage(Path(f"{index}.jpg"), boxes, labels, crowd))
        detections = _detections(rng, boxes, labels, present, frequency)
        found.append(detections)
        found_again.append(_perturbed(rng, detections))
    classes = tuple(f"class {index}" for index in range(CLASSES))
    return Dataset("synthetic", classes, tuple(images)), found, found_again


def _boxes(rng: np.random.Generator, number: int) -> NDArray[np.float64]:
    size = np.exp(rng.normal(4, 0.9, (number, 2))).clip(6, SIDE / 2)
    corner = rng.uniform(0, SIDE - size)
    return np.concatenate([corner, corner + size], axis=1)


def _detections(
    rng: np.random.Generator,
    boxes: NDArray[np.float64],
    labels: NDArray[np.int64],
    present: NDArray[np.int64],
    frequency: NDArray[np.float64],
) -> Detections:
    true = min(3 * len(boxes), DETECTIONS * 9 // 10)
    source = np.arange(true) % max(len(boxes), 1)
    side = np.tile(boxes[source, 2:] - boxes[source, :2], 2)
    error = rng.normal(size=(true, 4)) * side * rng.choice([0.03, 0.08, 0.2], (true, 1))
    near = boxes[source] + error
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
    false = DETECTIONS - true
    confused = rng.choice(present, false)
    wrong = np.where(rng.random(false) < 0.6, confused, rng.choice(CLASSES, false, p=frequency))
    certainty = rng.beta(2, 2, true) * np.exp(-np.abs(error).mean(axis=1) / 10)
    scores = np.concatenate([certainty, rng.beta(0.6, 8, false)]).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    everywhere = np.concatenate([near, _boxes(rng, false)]).astype(np.float32)
    return Detections(
        everywhere[order], scores[order], np.concatenate([labels[source], wrong])[order]
    )


def _perturbed(rng: np.random.Generator, detections: Detections) -> Detections:
    scores = detections.scores * np.exp(rng.normal(0, 0.05, len(detections))).astype(np.float32)
    boxes = detections.boxes + rng.normal(0, 1, detections.boxes.shape).astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    return Detections(boxes, scores.clip(max=1), detections.labels)


class Reference:
    """pycocotools, loaded with a data set and detections."""

    def __init__(self, dataset: Dataset, detections: list[Detections]) -> None:
        from pycocotools.coco import COCO

        self.truth, rows = COCO(), []
        self.truth.dataset = _as_json(dataset)
        for number, found in enumerate(detections):
            box = found.boxes.astype(np.float64)
            place = np.full((len(found), 1), number)
            size = box[:, 2:] - box[:, :2]
            rows.append(np.column_stack([place, box[:, :2], size, found.scores, found.labels]))
        with contextlib.redirect_stdout(io.StringIO()):
            self.truth.createIndex()
            self.found = self.truth.loadRes(np.concatenate(rows))

    def run(self) -> tuple[float, float, float]:
        """Return the seconds that it took, mAP@0.5 and mAP@0.5:0.95."""
        from pycocotools.cocoeval import COCOeval

        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(self.truth, self.found, "bbox")
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
            evaluation.params.maxDets = [DETECTIONS]
            start = time.perf_counter()
            evaluation.evaluate()
            evaluation.accumulate()
            seconds = time.perf_counter() - start
        precision = evaluation.eval["precision"]
        at_half = precision[0]
        return seconds, at_half[at_half > -1].mean(), precision[precision > -1].mean()


def _as_json(dataset: Dataset) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(dataset.images):
        for (x1, y1, x2, y2), label in zip(
            image.boxes.tolist(), image.labels.tolist(), strict=True
        ):
            box, area = [x1, y1, x2 - x1, y2 - y1], (x2 - x1) * (y2 - y1)
            key = {"id": len(annotations) + 1, "image_id": number, "category_id": label}
            annotations.append({**key, "bbox": box, "area": area, "iscrowd": 0})
    return {
        "images": [{"id": number} for number in range(len(dataset.images))],
        "annotations": annotations,
        "categories": [{"id": index, "name": name} for index, name in enumerate(dataset.classes)],
    }


def against_pycocotools(dataset: Dataset, found: list[Detections], rounds: int) -> Row:
    """Time both in turns, and compare what they return."""
    reference = Reference(dataset, found)
    ours, theirs, difference = [], [], 0.0
    for _ in range(rounds):
        seconds, map50, map50_95 = reference.run()
        theirs.append(seconds)
        start = time.perf_counter()
        mean50, mean50_95 = mean_average_precision(average_precision(match(dataset, found)))
        ours.append(time.perf_counter() - start)
        difference = max(difference, abs(mean50 - map50), abs(mean50_95 - map50_95))
    extra: dict[str, float | str] = {
        "seconds": float(np.median(ours)),
        "pycocotools_seconds": float(np.median(theirs)),
        "difference": float(difference),
        "rounds": str(rounds),
    }
    return Row("mAP against pycocotools", *ratio_interval(theirs, ours), goal=10.0, extra=extra)


def bootstrap(baseline: MatchTable, candidate: MatchTable, rounds: int) -> Row:
    """Time the resamples of both engines that a loss's interval takes."""
    seconds = []
    for seed in range(rounds):
        start = time.perf_counter()
        with_losses(baseline, candidate, RESAMPLES_A_ROUND, seed)
        seconds.append((time.perf_counter() - start) * RESAMPLES / RESAMPLES_A_ROUND)
    allowed = [SECONDS_ALLOWED] * rounds
    extra: dict[str, float | str] = {
        "seconds": float(np.median(seconds)),
        "resamples": str(RESAMPLES),
    }
    case = f"{RESAMPLES} paired bootstrap resamples against {SECONDS_ALLOWED:.0f} s"
    return Row(case, *ratio_interval(allowed, seconds), goal=1.0, extra=extra)


def main() -> None:
    """Run both cases and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds of each case, half a minute each"
    )
    options = parser.parse_args()
    dataset, found, found_again = scenes(seed=0)
    rows = [against_pycocotools(dataset, found, options.rounds)]
    tables = match(dataset, found), match(dataset, found_again)
    rows.append(bootstrap(*tables, options.rounds))
    show(rows, options.json)


if __name__ == "__main__":
    main()
