"""Runs a detector over an image, a folder, a video or a camera, and writes what it found."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import cv2
from pydantic import Field

from raudo import images
from raudo.detector import Selection, open_artifact
from raudo.draw import draw
from raudo.errors import DataError, UsageError
from raudo.frames import Frame, Reader, Source, find_source
from raudo.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from raudo.records import Record
from raudo.workspace import find_engine, replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

    from raudo.detector import Detector
    from raudo.listener import Listener
    from raudo.records import Detections


@dataclass(frozen=True)
class DetectRequest:
    """What `raudo detect` is asked for.

    Attributes:
        engine: An engine file, or a run folder.
        source: An image, a folder of images, a video, or the index of a camera.
        output: Where to write images or the video with boxes drawn on them: a file or a folder.
        jsonl: Where to write one JSON object a line for each frame.
        confidence: Lowest score that is kept.
        iou: NMS threshold; None takes the model family's own.
        classes: Names or numbers of the classes to keep; None keeps all.
        target: Which decision of a run folder to follow; None takes the best that passed.
        max_frames: Frames after which to stop.
        trust_checkpoint: Open a checkpoint even though it imports unknown code.
    """

    engine: Path
    source: str
    output: Path | None = None
    jsonl: Path | None = None
    confidence: float = 0.25
    iou: float | None = None
    classes: tuple[str, ...] | None = None
    target: str | None = None
    max_frames: int | None = None
    trust_checkpoint: bool = False


class Summary(Record):
    """What a run over a source did."""

    source: str
    frames: int = Field(description="Frames that were looked at")
    detections: int
    skipped: dict[str, str] = Field(description="Why, by the file that was not (wholly) read")
    seconds: float = Field(description="Decoding, drawing and writing included")
    fps: float
    outputs: tuple[Path, ...] = Field(description="Files and folders that were written")
    interrupted: bool = Field(
        description="Stopped by Ctrl-C; the outputs are kept as far as it got"
    )


def detect(request: DetectRequest, listener: Listener) -> Summary:
    """Load an engine and run it over a source.

    Raises:
        RaudoError: The engine, the source or an output cannot be used.
    """
    listener.step(f"load {request.engine}")
    artifact = find_engine(request.engine, request.target)
    selection = Selection(
        confidence=request.confidence,
        iou=request.iou,
        classes=_labels(request.classes, artifact.manifest.spec.classes),
    )
    began = False

    def progress(done: int, total: int | None) -> None:
        nonlocal began
        if not began:
            listener.step(f"detect in {request.source}", total)
            began = True
        listener.advance(done)

    with open_artifact(artifact, selection=selection, trust=request.trust_checkpoint) as detector:
        return run(
            detector,
            request.source,
            output=request.output,
            jsonl=request.jsonl,
            max_frames=request.max_frames,
            on_progress=progress,
        )


def _labels(wanted: tuple[str, ...] | None, classes: tuple[str, ...]) -> tuple[int, ...] | None:
    """Turn names and numbers of classes into labels."""
    if wanted is None:
        return None
    known = {str(label): label for label in range(len(classes))}
    known.update({name: label for label, name in enumerate(classes)})
    if unknown := [word for word in wanted if word not in known]:
        shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
        raise UsageError(f"the engine has no class {', '.join(unknown)}", hint=f"it has {shown}")
    return tuple(known[word] for word in wanted)


def run(
    detector: Detector,
    source: str | Path,
    *,
    output: Path | None = None,
    jsonl: Path | None = None,
    max_frames: int | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> Summary:
    """Detect in every frame of a source.

    Images and videos get their names once they are whole. The lines of `jsonl` are whole each, and
    written at once, so that another program can follow them. After Ctrl-C, what there is so far
    is finished and kept, and the summary says so.

    Args:
        detector: What detects.
        source: An image, a folder of images, a video, or the index of a camera.
        output: Where to write images or the video with boxes drawn on them: a file or a folder.
        jsonl: Where to write one JSON object a line for each frame.
        max_frames: Frames after which to stop.
        on_progress: Called with the frames done and their number (None where it is unknown).

    Raises:
        UsageError: An output cannot be written, or is the input itself.
        DataError: The source is missing or unreadable; of a folder, every image is.
    """
    if max_frames is not None and max_frames < 1:
        raise UsageError(f"cannot stop after {max_frames} frames", hint="give at least 1")
    origin = find_source(source)
    target = None if output is None else _target(origin, output)
    _check_apart(origin, target, jsonl)
    reader = Reader(origin)
    frames = found = 0
    interrupted = False
    start = time.perf_counter()
    with reader, _writer(origin, target, reader) as writer, _Lines(jsonl) as lines:
        try:
            for frame in reader:
                detections = detector.detect(frame.image)
                lines.write(describe(frame, detections, detector.spec.classes))
                if writer is not None:
                    writer.write(frame, draw(frame.image, detections, detector.spec.classes))
                frames, found = frames + 1, found + len(detections)
                if on_progress is not None:
                    on_progress(frames + len(reader.skipped), _least(reader.total, max_frames))
                if frames == max_frames:
                    break
            else:
                reader.check_end(frames)
        except KeyboardInterrupt:
            interrupted = True
    seconds = time.perf_counter() - start
    return Summary(
        source=str(source),
        frames=frames,
        detections=found,
        skipped=reader.skipped,
        seconds=seconds,
        fps=frames / seconds,
        outputs=tuple(path for path in (target, jsonl) if path is not None and path.exists()),
        interrupted=interrupted,
    )


def _least(*numbers: int | None) -> int | None:
    return min((number for number in numbers if number is not None), default=None)


def _target(origin: Source, output: Path) -> Path:
    """Return the file, or for a folder the folder, that the drawn frames go to."""
    suffix = output.suffix.lower()
    if origin.kind == "folder":
        if output.is_file() or suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
            raise UsageError(
                f"{output} is no folder, but {origin.path} is one", hint="give --output a folder"
            )
        return output
    if output.is_dir() or not suffix:
        if origin.kind == "image":
            return output / origin.path.name
        prefix = "camera-" if origin.kind == "camera" else ""
        return output / f"{prefix}{origin.path.stem}.mp4"
    allowed = IMAGE_SUFFIXES if origin.kind == "image" else {".mp4"}
    if suffix not in allowed:
        raise UsageError(
            f"cannot write {output}: what is made from this source is one of "
            f"{', '.join(sorted(allowed))}",
            hint="give --output such a file, or a folder",
        )
    return output


def _check_apart(origin: Source, target: Path | None, jsonl: Path | None) -> None:
    """Refuse to overwrite the source, or one output with the other."""
    paths = [path.resolve() for path in (origin.path, target, jsonl) if path is not None]
    if len(set(paths)) < len(paths) or any(
        path is not None and path.exists() and origin.path.exists() and path.samefile(origin.path)
        for path in (target, jsonl)
    ):
        raise UsageError(
            "the source and the outputs are not all different files",
            hint="give --output and --jsonl names of their own",
        )


def describe(frame: Frame, detections: Detections, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return the line of a frame: boxes to a hundredth of a pixel, scores to four places."""
    rows = zip(
        detections.boxes.tolist(),
        detections.scores.tolist(),
        detections.labels.tolist(),
        strict=True,
    )
    return {
        "source": str(frame.source),
        "frame": frame.number,
        "time_ms": None if frame.time_ms is None else round(frame.time_ms, 3),
        "width": frame.image.shape[1],
        "height": frame.image.shape[0],
        "detections": [
            {
                "box": [round(side, 2) for side in box],
                "score": round(score, 4),
                "label": label,
                "class": classes[label],
            }
            for box, score, label in rows
        ],
    }


class _Lines:
    """A file of JSON lines, made when the first line is there; a context manager."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stream: TextIO | None = None

    def write(self, value: dict[str, Any]) -> None:
        """Write one line."""
        if self._path is None:
            return
        try:
            if self._stream is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._stream = self._path.open("w", encoding="utf-8", newline="\n")
            self._stream.write(json.dumps(value, ensure_ascii=False) + "\n")
            self._stream.flush()
        except OSError as error:
            raise _unwritable(self._path, error.strerror or str(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError):  # of the line whose failure was reported
                self._stream.close()


def _unwritable(path: Path, reason: str) -> UsageError:
    return UsageError(
        f"cannot write {path}: {reason}", hint="choose another place, or make room there"
    )


@contextlib.contextmanager
def _writer(
    origin: Source, target: Path | None, reader: Reader
) -> Iterator[_ImageWriter | _VideoWriter | None]:
    """Choose what writes the drawn frames, and finish what it wrote."""
    if target is None:
        yield None
    elif origin.kind in {"image", "folder"}:
        yield _ImageWriter(target, origin.kind)
    else:
        with contextlib.ExitStack() as stack:
            writer = _VideoWriter(target, reader.fps, stack)
            yield writer
            writer.finish()


class _ImageWriter:
    """Writes each frame to an image file."""

    def __init__(self, target: Path, kind: str) -> None:
        self._target = target
        self._kind = kind

    def write(self, frame: Frame, drawn: NDArray[np.uint8]) -> None:
        """Write one drawn frame."""
        path = self._target / frame.source.name if self._kind == "folder" else self._target
        try:
            data = cv2.imencode(path.suffix.lower(), drawn)[1].tobytes()
        except cv2.error as error:
            raise _unwritable(path, "its format does not take an image of this size") from error
        with replacing(path) as draft:
            draft.write_bytes(data)


class _VideoWriter:
    """Writes the frames to one MP4 file, under a temporary name until it is whole."""

    def __init__(self, path: Path, fps: float, stack: contextlib.ExitStack) -> None:
        self._path = path
        self._fps = fps
        self._stack = stack
        self._draft = path
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._frames = 0

    def write(self, frame: Frame, drawn: NDArray[np.uint8]) -> None:
        """Write one drawn frame."""
        size = (drawn.shape[1], drawn.shape[0])
        if self._writer is None:
            self._writer = self._open(size)
        if size != self._size:
            raise DataError(
                f"frame {frame.number} of {frame.source} is {size[0]}x{size[1]}, "
                f"but the first is {self._size[0]}x{self._size[1]}",
                hint="a video keeps its size: write --jsonl only, or cut the source there",
            )
        self._writer.write(drawn)
        self._frames += 1

    def _open(self, size: tuple[int, int]) -> cv2.VideoWriter:
        self._size = size
        self._draft = self._stack.enter_context(replacing(self._path))
        code = cv2.VideoWriter.fourcc(*"mp4v")
        with images.quiet():
            writer = cv2.VideoWriter(str(self._draft), cv2.CAP_FFMPEG, code, self._fps, size)
        self._stack.callback(writer.release)
        if not writer.isOpened():
            raise _unwritable(self._path, f"no video of {size[0]}x{size[1]} can be made there")
        return writer

    def finish(self) -> None:
        """Close the file, and check that all frames are in it: OpenCV does not tell.

        Raises:
            UsageError: They are not.
        """
        if self._writer is None:
            return
        self._writer.release()
        try:
            with images.open_video(self._draft) as video:
                whole = video.frames is not None and video.frames >= self._frames
        except DataError:
            whole = False
        if not whole:
            raise _unwritable(self._path, "not all frames could be written; is the disk full?")
