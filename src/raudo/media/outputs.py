"""Writes what was detected: JSON lines, images with boxes drawn on them, or a video of them."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, TextIO

import cv2

from raudo import images
from raudo.errors import DataError, UsageError
from raudo.workspace import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

    from raudo.media.frames import Frame, Reader, Source
    from raudo.records import Detections


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


class Lines:
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
def open_writer(
    origin: Source, target: Path | None, reader: Reader
) -> Iterator[ImageWriter | VideoWriter | None]:
    """Choose what writes the drawn frames, and finish what it wrote."""
    if target is None:
        yield None
    elif origin.kind in {"image", "folder"}:
        yield ImageWriter(target, origin.kind)
    else:
        with contextlib.ExitStack() as stack:
            writer = VideoWriter(target, reader.fps, stack)
            yield writer
            writer.finish()


class ImageWriter:
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


class VideoWriter:
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
        with images.quiet():  # `finish` tells what could not be written
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
