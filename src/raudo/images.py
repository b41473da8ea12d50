"""Decoding and letterboxing: the one place where pixels are prepared.

The C++ detector does the same arithmetic on the same OpenCV calls, so that all engines, in both
languages, get the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from raudo.errors import LET_READ, DataError
from raudo.media import encoded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

    from raudo.records import Letterbox, Spec

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
MAX_FPS, MAX_FRAMES = 1000, 10**9  # beyond them a header tells nonsense
MAX_MISSES = 16  # damaged frames in a row, before a video counts as cut off
UNNAMED = "the image"
"""What errors call an image that is no file."""

# OpenCV reads it when it opens its first video; raudo says itself what is wrong with a file.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


@dataclass(frozen=True)
class Fit:
    """Where an image lies in the engine's input: x_input = x_image * scale_x + left.

    Attributes:
        scale_x: Input pixels per image pixel.
        scale_y: The same, downwards.
        left: First column of the scaled image in the input.
        top: First row.
        width: Columns of the scaled image.
        height: Rows.
        image_width: Columns of the image itself.
        image_height: Rows.
    """

    scale_x: float
    scale_y: float
    left: int
    top: int
    width: int
    height: int
    image_width: int
    image_height: int

    def to_image(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map boxes float32 [n, 4] from input pixels to image pixels, clipped to the image.

        All of it is float32: (box - offset) / scale.
        """
        offset = np.array([self.left, self.top] * 2, np.float32)
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        limit = np.array([self.image_width, self.image_height] * 2, np.float32)
        mapped: NDArray[np.float32] = (boxes - offset) / scale
        return np.clip(mapped, 0, limit, out=mapped)


def read_size(source: Path | bytes) -> tuple[int, int]:
    """Return (height, width) of an image file as it will be decoded, from its header alone.

    Args:
        source: The file, or its content.

    Raises:
        DataError: The file is missing, empty, not an image, or larger than MAX_PIXELS.
    """
    if isinstance(source, bytes):
        return encoded.read_size(io.BytesIO(source), UNNAMED)
    if not source.is_file():
        raise DataError(f"no such image: {source}", hint="check the path")
    try:
        with source.open("rb") as stream:
            return encoded.read_size(stream, str(source))
    except PermissionError as error:
        raise DataError(f"cannot read {source}: {error.strerror}", hint=LET_READ) from error
    except OSError as error:
        raise encoded.damaged(str(source), empty=False) from error


def decode(source: Path | bytes) -> NDArray[np.uint8]:
    """Decode an image file.

    What is not 8-bit BGR becomes it: grey is repeated, 16 bits lose the lower 8, CMYK and
    palettes are converted, alpha is dropped; EXIF orientation is applied. Of several pictures in
    a file the first is taken.

    Args:
        source: The file, or its content.

    Returns:
        uint8 [height, width, 3], BGR.

    Raises:
        DataError: The file is missing, empty, damaged, not an image or too large.
    """
    size = read_size(source)
    # imdecode instead of imread: it also opens paths that are not ASCII on Windows.
    data = source if isinstance(source, bytes) else source.read_bytes()
    damaged = encoded.damaged(UNNAMED if isinstance(source, bytes) else str(source), empty=False)
    if not encoded.is_whole(data):
        raise damaged
    try:
        with quiet():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise damaged from error
    if image is None or image.shape[:2] != size:
        raise damaged
    return np.ascontiguousarray(image, np.uint8)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence OpenCV's own log for a while."""
    log = cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2  # OpenCV 5, OpenCV 4
    before = log.getLogLevel()
    log.setLogLevel(0)
    try:
        yield
    finally:
        log.setLogLevel(before)


def fit(height: int, width: int, spec: Spec) -> Fit:
    """Return where an image of that size lies in the engine's input.

    The scale is a double, and half a pixel is rounded to even. The placements are those of
    Ultralytics (center, round) and YOLOX (top_left, floor).
    """
    rule = spec.letterbox
    if rule.placement == "stretch":
        scale_x, scale_y = spec.width / width, spec.height / height
        return Fit(scale_x, scale_y, 0, 0, spec.width, spec.height, width, height)
    scale = min(spec.height / height, spec.width / width)
    new_width, new_height = _scaled(width, scale, rule), _scaled(height, scale, rule)
    left = top = 0
    if rule.placement == "center":
        # An odd remainder goes to the right and to the bottom.
        left, top = (spec.width - new_width) // 2, (spec.height - new_height) // 2
    return Fit(scale, scale, left, top, new_width, new_height, width, height)


def _scaled(side: int, scale: float, rule: Letterbox) -> int:
    scaled = side * scale
    return max(1, round(scaled) if rule.rounding == "round" else int(scaled))


def check(image: NDArray[np.uint8]) -> None:
    """Check that an array is an image.

    Raises:
        DataError: It is not uint8 [height, width, 3], or empty.
    """
    if image.dtype.name != "uint8" or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataError(
            f"an image must be uint8 [height, width, 3], not {image.dtype} {list(image.shape)}",
            hint="decode it with raudo.images.decode, or convert it to 8-bit BGR",
        )


def letterbox(
    image: NDArray[np.uint8], spec: Spec, out: NDArray[np.uint8] | None = None
) -> tuple[NDArray[np.uint8], Fit]:
    """Fit an image into the engine's input rectangle.

    Args:
        image: uint8 [height, width, 3], BGR.
        spec: The engine's spec.
        out: uint8 [spec.height, spec.width, 3] to write into; None allocates.

    Returns:
        uint8 [spec.height, spec.width, 3] and where the image lies in it.

    Raises:
        DataError: The image is not of that type or shape.
    """
    check(image)
    placed = fit(image.shape[0], image.shape[1], spec)
    if out is None:
        out = np.empty((spec.height, spec.width, 3), np.uint8)
    bottom, right = placed.top + placed.height, placed.left + placed.width
    window = out[placed.top : bottom, placed.left : right]
    if image.shape == window.shape:
        window[:] = image
    else:
        size = (placed.width, placed.height)
        cv2.resize(image, size, dst=window, interpolation=cv2.INTER_LINEAR)
    fill = spec.letterbox.fill
    out[: placed.top] = fill
    out[bottom:] = fill
    out[placed.top : bottom, : placed.left] = fill
    out[placed.top : bottom, right:] = fill
    return out, placed


def list_images(folder: Path) -> tuple[Path, ...]:
    """Return the image files directly in a folder, sorted by name; hidden files are left out.

    Raises:
        DataError: The folder is missing or has no image.
    """
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}", hint="check the path")
    found = tuple(
        sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "." and path.is_file()
        )
    )
    if not found:
        raise DataError(
            f"no image in {folder}", hint=f"looked for {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return found


class Video:
    """Frames of a video file or a camera, once through; a context manager.

    Attributes:
        fps: Frames a second; None where the source does not tell.
        frames: Number of frames that its header promises; None where it does not tell.
        damaged: Number of frames so far that could not be decoded, with others after them.
    """

    def __init__(self, capture: cv2.VideoCapture, source: str) -> None:
        self._capture = capture
        self._source = source
        fps, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.fps = fps if 0 < fps <= MAX_FPS else None
        self.frames = int(frames) if 0 < frames < MAX_FRAMES else None
        self.damaged = 0

    def __iter__(self) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Yield each frame's time in milliseconds and image, uint8 [height, width, 3], BGR.

        Raises:
            DataError: There is not one frame.
        """
        with quiet():
            alive, frame = self._capture.read()
        if not alive:
            raise DataError(
                f"no frame in {self._source}", hint="it is damaged, cut off, or no video at all"
            )
        read = 0
        while alive:
            yield self._capture.get(cv2.CAP_PROP_POS_MSEC), np.asarray(frame, np.uint8)
            read += 1
            alive, frame = self._capture.read()
            misses = 0
            # After a frame that cannot be decoded, the next ones may be whole.
            while not alive and misses < min(MAX_MISSES, (self.frames or 0) - read - self.damaged):
                misses += 1
                alive, frame = self._capture.read()
            self.damaged += misses if alive else 0

    def close(self) -> None:
        """Release the file or the camera."""
        self._capture.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_video(path: Path) -> Video:
    """Open a video file.

    Raises:
        DataError: The file is missing or is no video.
    """
    if not path.is_file():
        raise DataError(f"no such video: {path}", hint="check the path")
    with quiet():
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise DataError(
            f"cannot read {path} as a video",
            hint="it is empty, damaged, cut off, or no video at all: does it play elsewhere?",
        )
    return Video(capture, str(path))


def open_camera(index: int) -> Video:
    """Open a camera.

    Raises:
        DataError: There is no such camera.
    """
    with quiet():
        capture = cv2.VideoCapture(index)
    if not capture.isOpened():
        raise DataError(
            f"there is no camera {index}", hint="is it plugged in, and not used by another program?"
        )
    return Video(capture, f"camera {index}")


def read_video(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of a video file, uint8 [height, width, 3], BGR.

    Raises:
        DataError: The file is missing, is no video, or has no frame.
    """
    with open_video(path) as video:
        for _, frame in video:
            yield frame
