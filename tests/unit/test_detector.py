"""Selection, and the detector around an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from raudo import detector as module
from raudo import images
from raudo.backends.base import Outputs, Resources
from raudo.backends.null import NullEngine, canned
from raudo.detector import Detector, Selection, nms, select
from raudo.errors import DataError
from raudo.records import Detections, Spec

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

F32 = np.float32


def make_spec(classes: int = 3, output: Any = "dense", **fields: Any) -> Spec:
    names = tuple(f"class {index}" for index in range(classes))
    size = {"height": 640, "width": 640} | fields
    return Spec(family="any", classes=names, output=output, **size)


def plain_nms(boxes: NDArray[np.float32], labels: NDArray[np.int64], iou: float) -> list[int]:
    """One box at a time, in plain Python, as textbooks have it."""
    kept: list[int] = []
    for index in range(len(boxes)):
        if not any(
            labels[index] == labels[better] and overlaps(boxes[better], boxes[index], iou)
            for better in kept
        ):
            kept.append(index)
    return kept


def overlaps(first: NDArray[np.float32], second: NDArray[np.float32], iou: float) -> bool:
    def area(box: NDArray[np.float32]) -> np.float32:
        return max(box[2] - box[0], F32(0)) * max(box[3] - box[1], F32(0))

    width = max(min(first[2], second[2]) - max(first[0], second[0]), F32(0))
    height = max(min(first[3], second[3]) - max(first[1], second[1]), F32(0))
    shared = width * height
    return bool(shared > F32(iou) * (area(first) + area(second) - shared))


# A coarse grid, so that equal boxes, equal scores, exact thresholds and empty boxes are common.
COARSE = st.integers(0, 8).map(lambda value: value * 4)
BOXES = st.integers(0, 24).flatmap(
    lambda count: arrays.arrays(F32, (count, 4), elements=COARSE.map(float))
)
IOUS = st.sampled_from([0.0, 0.25, 0.5, 0.7, 1.0])


@given(BOXES, IOUS, st.integers(1, 50), st.tuples(st.integers(1, 20), st.integers(1, 7)), st.data())
def test_nms_is_the_plain_greedy_one(
    boxes: NDArray[np.float32], iou: float, limit: int, sizes: tuple[int, int], data: st.DataObject
) -> None:
    labels = data.draw(arrays.arrays(np.int64, len(boxes), elements=st.integers(0, 2)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WINDOW", sizes[0])
        patch.setattr(module, "CHUNK", sizes[1])
        kept = nms(boxes, labels, iou, limit)
    assert kept.dtype == np.int64
    assert kept.tolist() == plain_nms(boxes, labels, iou)[:limit]


def test_nms_over_several_windows_of_real_size() -> None:
    random = np.random.default_rng(0)
    corner = random.uniform(0, 300, (700, 2))
    boxes = np.hstack([corner, corner + random.uniform(20, 120, (700, 2))]).astype(F32)
    labels = random.integers(0, 2, 700)
    expected = plain_nms(boxes, labels, 0.45)
    assert 50 < len(expected) < 650
    assert nms(boxes, labels, 0.45, 1000).tolist() == expected


def test_boxes_without_area_never_drop_each_other() -> None:
    boxes = np.array([[5, 5, 5, 9], [5, 5, 5, 9], [9, 9, 5, 5], [9, 9, 5, 5]], F32)
    assert nms(boxes, np.zeros(4, np.int64), 0.0, 10).tolist() == [0, 1, 2, 3]


def plain_select(outputs: Outputs, spec: Spec, selection: Selection) -> Detections:
    boxes, scores = outputs.boxes[0], outputs.scores[0]
    rows = []
    for anchor in range(len(boxes)):
        pairs = [(float(scores[anchor][label]), label) for label in range(scores.shape[1])]
        if not selection.multi_label:
            pairs = [max(pairs, key=lambda pair: (pair[0], -pair[1]))]
        rows += [
            (-score, anchor, label)
            for score, label in pairs
            if score >= selection.confidence
            and (selection.classes is None or label in selection.classes)
        ]
    rows.sort()
    anchors = np.array([row[1] for row in rows], int)
    labels = np.array([row[2] for row in rows], np.int64)
    iou = spec.nms_iou if selection.iou is None else selection.iou
    kept = plain_nms(boxes[anchors], labels, iou)[: selection.limit]
    found = [rows[index] for index in kept]
    return Detections(boxes[anchors][kept], np.array([-row[0] for row in found], F32), labels[kept])


@given(
    BOXES,
    st.builds(
        Selection,
        confidence=st.sampled_from([0.0, 0.25, 0.5]),
        iou=st.none() | IOUS,
        limit=st.integers(1, 20),
        multi_label=st.booleans(),
        classes=st.none() | st.sets(st.integers(0, 2)).map(tuple),
    ),
    st.data(),
)
def test_select_is_the_plain_one(
    boxes: NDArray[np.float32], selection: Selection, data: st.DataObject
) -> None:
    levels = st.sampled_from([0.0, 0.25, 0.5, 0.75])
    scores = data.draw(arrays.arrays(F32, (len(boxes), 3), elements=levels))
    outputs, spec = Outputs(boxes[None], scores[None]), make_spec(nms_iou=0.6)
    found, expected = select(outputs, 0, spec, selection), plain_select(outputs, spec, selection)
    assert found.boxes.tolist() == expected.boxes.tolist()
    assert found.scores.tolist() == expected.scores.tolist()
    assert found.labels.tolist() == expected.labels.tolist()
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (F32, F32, np.int64)


def test_nms_free_engines_are_only_filtered_and_sorted() -> None:
    boxes = np.tile(np.array([1, 2, 30, 40], F32), (1, 5, 1))
    scores = np.array([[0.3, 0.9, 0.1, 0.3, 0.5]], F32)
    labels = np.array([[2, 1, 0, 1, 2]], np.int32)
    spec = make_spec(output="topk")
    found = select(Outputs(boxes, scores, labels), 0, spec, Selection(confidence=0.3))
    assert found.scores.tolist() == pytest.approx([0.9, 0.5, 0.3, 0.3])
    assert found.labels.tolist() == [1, 2, 2, 1]
    assert found.labels.dtype == np.int64
    only = Selection(confidence=0.3, classes=(2,), limit=1)
    assert select(Outputs(boxes, scores, labels), 0, spec, only).scores.tolist() == [0.5]


def test_only_the_best_candidates_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CANDIDATE_LIMIT", 2)
    boxes = np.array([[[0, 0, 9, 9], [0, 0, 9, 9], [50, 50, 60, 60]]], F32)
    outputs = Outputs(boxes, np.array([[[0.8], [0.9], [0.7]]], F32))
    found = select(outputs, 0, make_spec(1), Selection())
    assert found.scores.tolist() == pytest.approx([0.9])


def test_no_candidate_gives_empty_detections() -> None:
    outputs = Outputs(np.zeros((1, 7, 4), F32), np.zeros((1, 7, 3), F32))
    found = select(outputs, 0, make_spec(), Selection())
    assert (found.boxes.shape, found.scores.shape, found.labels.shape) == ((0, 4), (0,), (0,))


@pytest.mark.parametrize("output", ["dense", "topk"])
def test_each_frame_of_a_batch_is_mapped_to_its_own_image(output: str) -> None:
    spec = make_spec(height=96, width=160, output=output)
    with Detector(NullEngine(spec, canned(spec, anchors=300, objects=4))) as detector:
        frames = [np.zeros((*size, 3), np.uint8) for size in ((96, 160), (192, 320), (30, 20))]
        found = detector.detect_batch(frames)
        alone = [detector.detect(frame) for frame in frames]
    assert len(found[0]) >= 1
    for together, one in zip(found, alone, strict=True):
        assert together.boxes.tolist() == one.boxes.tolist()
    assert found[1].boxes == pytest.approx(found[0].boxes * 2, abs=1e-3)
    assert (found[2].boxes <= [20, 30, 20, 30]).all()


def test_a_detector_reads_image_files(tmp_path: Path) -> None:
    spec = make_spec()
    detector = Detector(NullEngine(spec, canned(spec)))
    frame = np.full((640, 640, 3), 9, np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), frame)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png")):
        assert detector.detect(source).boxes.tolist() == detector.detect(frame).boxes.tolist()
    with pytest.raises(DataError, match="no such image"):
        detector.detect(tmp_path / "absent.png")
    with pytest.raises(DataError, match="must be uint8"):
        detector.detect(np.zeros((8, 8), np.uint8))


def test_canned_outputs_hold_the_objects_they_promise() -> None:
    spec = make_spec(80)
    outputs = canned(spec, objects=12, seed=3)
    found = select(outputs, 0, spec, Selection())
    candidates = int((outputs.scores >= 0.25).sum())
    assert candidates == 12 * 8
    assert 12 <= len(found) <= candidates
    assert len(select(canned(make_spec(80, "topk")), 0, make_spec(80, "topk"), Selection())) == 12


class Offering(NullEngine):
    """Offers one batch of memory, and remembers what it runs."""

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        self.offered = np.full(shape, 7, np.uint8)
        return self.offered

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        self.ran = images
        return super()._run(images)


def test_frames_are_letterboxed_into_the_memory_that_the_engine_offers() -> None:
    spec = make_spec(height=32, width=64)
    engine = Offering(spec, canned(spec, anchors=300))
    frames = [np.full((16, 20, 3), level, np.uint8) for level in (9, 200)]
    Detector(engine).detect_batch(frames)
    assert engine.ran is engine.offered
    for made, frame in zip(engine.ran, frames, strict=True):
        assert np.array_equal(made, images.letterbox(frame, spec)[0])


class Held(NullEngine):
    """Remembers the sizes of its batches."""

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        self.batches = [*getattr(self, "batches", []), len(images)]
        return super()._run(images)


def test_a_stream_is_what_detect_gives_frame_by_frame() -> None:
    spec = make_spec()
    engine = Held(spec, canned(spec, anchors=300))
    detector = Detector(engine, resources=Resources(streams=2, batch=3))
    frames = [np.zeros((10 + 5 * number, 40, 3), np.uint8) for number in range(7)]
    pairs = list(detector.stream(iter(frames)))
    assert sorted(engine.batches) == [1, 3, 3]
    assert all(pair[0] is frame for pair, frame in zip(pairs, frames, strict=True))
    for frame, found in pairs:
        expected = detector.detect(frame)
        assert np.array_equal(found.boxes, expected.boxes)
        assert np.array_equal(found.scores, expected.scores)


def test_one_frame_of_a_wrong_type_ends_a_stream() -> None:
    spec = make_spec()
    detector = Detector(NullEngine(spec, canned(spec)))
    frames = [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)]
    stream = detector.stream(frames)
    assert next(stream)[0] is frames[0]
    with pytest.raises(DataError, match="an image must be"):
        next(stream)
