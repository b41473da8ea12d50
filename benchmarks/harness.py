"""What raudo itself costs a frame: preparation and selection around an engine that answers at once.

Every figure is on one core, with real photographs and the canned outputs of the null backend:
8,400 anchors, 80 classes, 96 candidates of 12 objects.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from raudo import images
from raudo.backends.base import Outputs
from raudo.backends.null import NullEngine, canned
from raudo.detector import EVALUATION, Detector, nms, select
from raudo.records import Spec
from rows import Row, ratio_interval, show

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

PHOTOGRAPHS = Path(__file__).parents[1] / "samples" / "coco-mini" / "images" / "val"
SIDE, CLASSES, FRAMES, CALLS = 640, 80, 8, 100
FRAME_MS, EVALUATION_MS, CANDIDATES = 1.0, 15.0, 3000
IOU, LIMIT = 0.7, 300


def median_ms(work: Callable[[int], object], calls: int = CALLS) -> float:
    """Return the median time of a call, which is told its number."""
    times = []
    for number in range(calls):
        start = time.perf_counter()
        work(number)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1000


def against_limit(
    case: str, limit_ms: float, work: Callable[[int], object], rounds: int, goal: float | None = 1.0
) -> Row:
    """Compare the time of a call with what it may take."""
    measured = [median_ms(work) for _ in range(rounds)]
    extra = {"ms": float(np.median(measured)), "limit_ms": limit_ms}
    return Row(case, *ratio_interval([limit_ms] * rounds, measured), goal=goal, extra=extra)


def photographs(height: int, width: int) -> list[NDArray[np.uint8]]:
    """Return some photographs, scaled to one size."""
    files = images.list_images(PHOTOGRAPHS)[:FRAMES]
    frames = (cv2.resize(images.decode(file), (width, height)) for file in files)
    return [np.asarray(frame, np.uint8) for frame in frames]


def whole_frames(spec: Spec, rounds: int) -> list[Row]:
    """Time prepare, run and select of one frame, end to end."""
    detector = Detector(NullEngine(spec, canned(spec)))
    rows = []
    for height, width, goal in ((SIDE, SIDE, 1.0), (720, 1280, None), (1080, 1920, None)):
        frames = photographs(height, width)

        def work(number: int, frames: Sequence[NDArray[np.uint8]] = frames) -> None:
            detector.detect_batch([frames[number % FRAMES]])

        case = f"{FRAME_MS:g} ms against prepare + select of {width}x{height}"
        rows.append(against_limit(case, FRAME_MS, work, rounds, goal))
    return rows


def low_scores(spec: Spec) -> Outputs:
    """Return canned outputs with as many candidates as mAP at confidence 0.001 has."""
    outputs, random = canned(spec), np.random.default_rng(0)
    scores = np.minimum(outputs.scores, 1)
    scores[scores < 0.25] *= 0.0999  # below 0.001
    flat = scores.reshape(-1)
    flat[random.choice(flat.size, CANDIDATES, replace=False)] = random.beta(0.5, 8, CANDIDATES)
    return Outputs(outputs.boxes, scores)


def evaluation(spec: Spec, rounds: int) -> Row:
    """Time the selection of an image in an evaluation."""
    outputs = low_scores(spec)
    case = f"{EVALUATION_MS:g} ms against select of {CANDIDATES} candidates at 0.001"
    return against_limit(
        case, EVALUATION_MS, lambda _: select(outputs, 0, spec, EVALUATION), rounds
    )


def against_opencv(outputs: Outputs, confidence: float, rounds: int) -> Row:
    """Time NMS and OpenCV's own in turns; that is C++, and moves the boxes of a class apart."""
    anchors, labels = np.nonzero(outputs.scores[0] >= confidence)
    scores = outputs.scores[0][anchors, labels]
    order = np.argsort(-scores, kind="stable")
    boxes, labels = outputs.boxes[0][anchors[order]], labels[order]
    rectangles = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]).tolist()
    listed, kinds = scores[order].tolist(), labels.tolist()

    def ours(_: int) -> object:
        return nms(boxes, labels, IOU, LIMIT)

    def theirs(_: int) -> object:
        return cv2.dnn.NMSBoxesBatched(rectangles, listed, kinds, 0.0, IOU, 1.0, LIMIT)

    times = [(median_ms(theirs, 20), median_ms(ours, 20)) for _ in range(rounds)]
    opencv, raudo = zip(*times, strict=True)
    extra = {"ms": float(np.median(raudo)), "opencv_ms": float(np.median(opencv))}
    case = f"NMS of {len(boxes)} boxes against OpenCV's"
    return Row(case, *ratio_interval(opencv, raudo), extra=extra)


def main() -> None:
    """Run all cases and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each case")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    classes = tuple(f"class {index}" for index in range(CLASSES))
    spec = Spec(family="any", height=SIDE, width=SIDE, classes=classes)
    rows = [
        *whole_frames(spec, options.rounds),
        evaluation(spec, options.rounds),
        against_opencv(canned(spec), 0.25, options.rounds),
        against_opencv(low_scores(spec), 0.001, options.rounds),
    ]
    show(rows, options.json)


if __name__ == "__main__":
    main()
