"""Image -> detections: the one runtime path (prepare, run, select) that every engine is used by."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from raudo import discover, images
from raudo.backends.base import Outputs, Resources
from raudo.chosen import find_engine, throughput_setting
from raudo.errors import UsageError
from raudo.machine import available_threads
from raudo.media.stream import overlap
from raudo.records import Detections
from raudo.rectangles import RectanglesEngine, smallest
from raudo.workspace import rectangles_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

    from raudo.backends.base import Engine
    from raudo.records import Artifact, Spec, Throughput

Mode = Literal["latency", "throughput"]
"""latency: one image at a time on all cores; throughput: several at once, each on a share."""

MODES: tuple[Mode, ...] = ("latency", "throughput")


@dataclass(frozen=True)
class Selection:
    """Which of an engine's outputs become detections.

    Attributes:
        confidence: Lowest score that is kept.
        iou: IoU above which NMS drops the lower-scored box of a class; None takes the model
            family's own (`Spec.nms_iou`). NMS-free engines ignore it.
        limit: Most detections an image.
        multi_label: One anchor may give a box of several classes, as mAP protocols have it;
            otherwise only its best class.
        classes: Labels to keep; None keeps all.
    """

    confidence: float = 0.25
    iou: float | None = None
    limit: int = 300
    multi_label: bool = False
    classes: tuple[int, ...] | None = None


DEFAULT_SELECTION = Selection()

EVALUATION = Selection(confidence=0.001, multi_label=True)
"""The setting that mAP is computed at."""

CANDIDATE_LIMIT = 30_000
"""Most candidates that NMS looks at, best first."""

WINDOW, CHUNK = 512, 32
"""Boxes that NMS looks at together, best first, and whose overlaps with all of them it computes at
once: the best few drop most of the others, and the matrices stay within a core's own cache."""


def select(outputs: Outputs, index: int, spec: Spec, selection: Selection) -> Detections:
    """Choose the detections of one image of a batch, in pixels of the engine's input.

    Candidates are what scores at least the confidence, ordered by score, and among equal scores
    by anchor, then label. Class-wise greedy NMS chooses among those of a dense engine (see `nms`);
    the best of an NMS-free engine are taken as they are.
    """
    boxes, scores = outputs.boxes[index], outputs.scores[index]
    if outputs.labels is not None:
        anchors = np.flatnonzero(scores >= selection.confidence)
        labels = outputs.labels[index][anchors].astype(np.int64)
        scores = scores[anchors]
    else:
        anchors, labels, scores = _dense_candidates(scores, selection)
    if selection.classes is not None:
        wanted = np.isin(labels, selection.classes)
        anchors, labels, scores = anchors[wanted], labels[wanted], scores[wanted]
    order = np.argsort(-scores, kind="stable")[:CANDIDATE_LIMIT]
    boxes = boxes.take(anchors.take(order), axis=0)
    scores, labels = scores.take(order), labels.take(order)
    if outputs.labels is None:
        iou = spec.nms_iou if selection.iou is None else selection.iou
        kept = nms(boxes, labels, iou, selection.limit)
    else:
        kept = np.arange(min(len(scores), selection.limit))
    return Detections(boxes[kept], scores[kept], labels[kept])


def _dense_candidates(
    scores: NDArray[np.float32], selection: Selection
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return anchors, labels and scores at or above the confidence.

    One comparison over all scores first: almost none pass, and an argmax over all of them
    costs several times as much.
    """
    (flat,) = (scores.reshape(-1) >= selection.confidence).nonzero()
    anchors = flat // scores.shape[1]
    if selection.multi_label:
        labels = flat % scores.shape[1]
    else:
        first = np.ones(len(anchors), np.bool_)
        np.not_equal(anchors[1:], anchors[:-1], out=first[1:])  # they ascend
        anchors = anchors[first]
        labels = scores.take(anchors, axis=0).argmax(axis=1)
    return anchors, labels, scores[anchors, labels]


def nms(
    boxes: NDArray[np.float32], labels: NDArray[np.int64], iou: float, limit: int
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression within each class.

    The result is that of one box at a time, but each box costs a few operations on a row of
    overlaps, which are computed for a chunk of boxes at once: with all that are left of a window.

    Args:
        boxes: float32 [n, 4], xyxy, best score first.
        labels: int64 [n].
        iou: A box is dropped if its IoU with a kept box of its class is above this.
        limit: Most boxes to keep.

    Returns:
        int64 [k], indices of the kept boxes, ascending.
    """
    rows = np.empty((6, len(boxes)), np.float32)
    rows[:4], rows[5] = boxes.T, labels
    sides = np.maximum(rows[2:4] - rows[:2], 0)
    rows[4] = sides[0] * sides[1]
    kept = np.empty(0, np.int64)
    for start in range(0, len(boxes), WINDOW):
        left = np.arange(start, min(start + WINDOW, len(boxes)))
        if len(kept):
            left = left[~_drops(rows, kept, left, iou).any(axis=0)]
        while len(left) and len(kept) < limit:
            drops = _drops(rows, left[:CHUNK], left, iou)
            dropped, free = np.zeros(len(left), np.bool_), []
            for row in range(len(drops)):
                if not dropped[row]:
                    free.append(row)
                    dropped |= drops[row]
            kept = np.concatenate([kept, left[free]])
            left = left[CHUNK:][~dropped[CHUNK:]]
        if len(kept) >= limit:
            break
    return kept[:limit]


def _drops(
    rows: NDArray[np.float32], better: NDArray[np.int64], worse: NDArray[np.int64], iou: float
) -> NDArray[np.bool_]:
    """Tell which boxes would drop which: bool [better, worse].

    Everything is float32 and in this order (no fused multiply-add), and the division is spared:
    shared > iou * (area + area - shared). So two boxes without area never drop each other.

    Args:
        rows: float32 [6, n]: left, top, right, bottom, area and label of all boxes.
        better: Indices of the boxes that may drop others.
        worse: Indices of the boxes that may be dropped.
        iou: The threshold.
    """
    one, other = rows.take(better, axis=1)[:, :, None], rows.take(worse, axis=1)[:, None]
    sides = np.minimum(one[2:4], other[2:4])
    sides -= np.maximum(one[:2], other[:2])
    np.maximum(sides, 0, out=sides)
    shared, bound = sides
    shared *= bound
    np.add(one[4], other[4], out=bound)
    bound -= shared
    bound *= iou
    drops: NDArray[np.bool_] = shared > bound
    drops &= one[5] == other[5]
    return drops


class Detector:
    """An engine with its selection; a context manager.

    Args:
        engine: A loaded engine.
        selection: The default selection of `detect`.
        resources: What the engine was opened with, which `stream` goes by; None: one stream.
    """

    def __init__(
        self,
        engine: Engine,
        selection: Selection = DEFAULT_SELECTION,
        resources: Resources | None = None,
    ) -> None:
        self.engine = engine
        self.spec = engine.spec
        self.selection = selection
        self.resources = resources or Resources()

    def prepare(
        self, frames: Sequence[NDArray[np.uint8]]
    ) -> tuple[NDArray[np.uint8], list[images.Fit]]:
        """Letterbox frames into one batch, uint8 [batch, height, width, 3]."""
        spec = self._rectangle(frames)
        batch = self.engine.empty((len(frames), spec.height, spec.width, 3))
        fits = [images.letterbox(f, spec, out=batch[i])[1] for i, f in enumerate(frames)]
        return batch, fits

    def _rectangle(self, frames: Sequence[NDArray[np.uint8]]) -> Spec:
        if len(self.engine.specs) == 1:
            return self.spec
        for frame in frames:
            images.check(frame)
        return smallest([(f.shape[0], f.shape[1]) for f in frames], self.engine.specs)

    def select(self, outputs: Outputs, fits: Sequence[images.Fit]) -> list[Detections]:
        """Choose the detections of each image of a batch, in pixels of the original images."""
        found = []
        for index, placed in enumerate(fits):
            chosen = select(outputs, index, self.spec, self.selection)
            found.append(Detections(placed.to_image(chosen.boxes), chosen.scores, chosen.labels))
        return found

    def detect_batch(self, frames: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detect in several frames at once, each uint8 [height, width, 3], BGR.

        Raises:
            DataError: A frame is not of that type or shape.
        """
        if len(self.engine.specs) > 1 and len(frames) > 1:
            return self._detect_apart(frames)
        batch, fits = self.prepare(frames)
        return self.select(self.engine.run(batch), fits)

    def _detect_apart(self, frames: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detect in frames that may take different rectangles, those of each together."""
        groups: dict[tuple[int, int], list[int]] = {}
        for index, frame in enumerate(frames):
            spec = self._rectangle([frame])
            groups.setdefault((spec.height, spec.width), []).append(index)
        found: dict[int, Detections] = {}
        for indices in groups.values():
            batch, fits = self.prepare([frames[index] for index in indices])
            found.update(zip(indices, self.select(self.engine.run(batch), fits), strict=True))
        return [found[index] for index in range(len(frames))]

    def detect(self, image: NDArray[np.uint8] | str | os.PathLike[str]) -> Detections:
        """Detect in one image: a file, or an array uint8 [height, width, 3], BGR.

        Raises:
            DataError: The file is not an image that can be decoded.
        """
        frame = images.decode(Path(image)) if isinstance(image, str | os.PathLike) else image
        return self.detect_batch([frame])[0]

    def stream(
        self, frames: Iterable[NDArray[np.uint8]]
    ) -> Generator[tuple[NDArray[np.uint8], Detections], None, None]:
        """Detect in many frames, each uint8 [height, width, 3], BGR; yield them in order.

        The next frames are read in a thread of their own, and as many are worked on at once as the
        engine was opened for: `load(..., mode="throughput")`. `raudo.media.stream.overlap`
        tells the bound on memory, errors and early ends.

        Raises:
            DataError: A frame is not of that type or shape.
        """
        streams, batch = self.resources.streams, self.resources.batch
        return overlap(frames, self.detect_batch, workers=streams, batch=batch)

    def close(self) -> None:
        """Free the engine."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_artifact(
    artifact: Artifact,
    resources: Resources | None = None,
    selection: Selection = DEFAULT_SELECTION,
    *,
    trust: bool = False,
) -> Detector:
    """Load an engine file whose manifest was read.

    Args:
        artifact: The engine file and its manifest.
        resources: What the engine may use; None gives it all cores.
        selection: The default selection of the detector.
        trust: Open a checkpoint even though it imports unknown code.
    """
    discover.backend(artifact.manifest.backend).require()
    if resources is None:
        resources = Resources(threads=available_threads())
    parts = (artifact, *rectangles_of(artifact))
    engines = [_open_engine(part, resources, trust=trust) for part in parts]
    engine = engines[0] if len(engines) == 1 else RectanglesEngine(engines)
    return Detector(engine, selection, resources)


def _open_engine(artifact: Artifact, resources: Resources, *, trust: bool) -> Engine:
    backend = discover.backend(artifact.manifest.backend)
    if backend.made_from == "model":
        from raudo.checkpoints.source import open_model

        spec = artifact.manifest.spec
        model = open_model(artifact.path, size=(spec.height, spec.width), trust=trust)
        resources = replace(resources, model=model)
    return backend.open(artifact, resources)


def _shared(resources: Resources, setting: Throughput | None) -> Resources:
    """Share resources out by the setting that a run found best; without one, a stream a core."""
    if setting is None:
        return replace(resources, streams=resources.threads)
    return replace(resources, streams=setting.streams, batch=setting.batch)


def load(
    source: str | os.PathLike[str],
    *,
    target: str | None = None,
    confidence: float = 0.25,
    iou: float | None = None,
    classes: Sequence[str] | None = None,
    mode: Mode = "latency",
    trust_checkpoint: bool = False,
) -> Detector:
    """Load an engine file, or what a run folder chose for a target.

    Args:
        source: An engine file with its manifest beside it, or a run folder.
        target: Which decision of a run folder to follow; None takes the first of production_gpu,
            production_cpu, edge and development that passed.
        confidence: Lowest score that is kept.
        iou: NMS threshold; None takes the model family's own.
        classes: Names or numbers of the classes to keep; None keeps all.
        mode: latency gives each image all cores, for `detect`. throughput shares them among
            several images, for `stream`: by the best setting that a run folder measured on as
            many cores, otherwise one image a core.
        trust_checkpoint: Open a checkpoint even though it imports unknown code.

    Raises:
        EngineError: There is no engine, or its manifest does not fit.
        UsageError: The model has no such class; the target is none, or chooses nothing.
    """
    artifact = find_engine(Path(source), target)
    kept = None if classes is None else labels_of(classes, artifact.manifest.spec)
    selection = Selection(confidence=confidence, iou=iou, classes=kept)
    resources = Resources(threads=available_threads(), kept=True)
    if mode == "throughput":
        resources = _shared(
            resources, throughput_setting(Path(source), artifact, resources.threads)
        )
    return open_artifact(artifact, resources, selection, trust=trust_checkpoint)


def labels_of(names: Sequence[str], spec: Spec) -> tuple[int, ...]:
    """Return the labels of classes given by name or by number.

    Raises:
        UsageError: The model has no such class.
    """
    labels = []
    for name in names:
        if name in spec.classes:
            labels.append(spec.classes.index(name))
        elif name.isdecimal() and int(name) < len(spec.classes):
            labels.append(int(name))
        else:
            known = ", ".join(spec.classes[:10]) + (", ..." if len(spec.classes) > 10 else "")
            raise UsageError(f"the model has no class '{name}'", hint=f"it has: {known}")
    return tuple(labels)
