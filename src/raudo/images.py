"""Decoding and letterboxing: the one place where pixels are prepared.

The C++ detector does the same arithmetic on the same OpenCV calls, so that all engines, in both
languages, get the same bytes.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from raudo.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from raudo.records import Letterbox, Spec

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
MAX_PIXELS = 100_000_000


@dataclass(frozen=True)
class Fit:
    """Where an image lies in the engine's input: x_input = x_image * scale_x + left."""

    scale_x: float
    scale_y: float
    left: int
    top: int
    image_width: int
    image_height: int

    def to_image(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map boxes float32 [n, 4] from input pixels to image pixels, clipped to the image."""
        offset = np.array([self.left, self.top] * 2, np.float32)
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        limit = np.array([self.image_width, self.image_height] * 2, np.float32)
        return np.clip((boxes - offset) / scale, 0, limit).astype(np.float32)


def read_size(path: Path) -> tuple[int, int]:
    """Return (height, width) of an image as it will be decoded, from its header alone.

    Raises:
        DataError: The file is missing, empty, not an image, or larger than MAX_PIXELS.
    """
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise DataError(f"no such image: {path}", hint="check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own pixel limit, below, says it with a hint
            with Image.open(path) as image:
                width, height = image.size
                turned = image.getexif().get(0x0112, 1) >= 5
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise DataError(
            f"cannot read {path} as an image", hint="is it complete, and an image at all?"
        ) from error
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    if width * height > MAX_PIXELS:
        raise _too_large(path)
    return (width, height) if turned else (height, width)


def _too_large(path: Path) -> DataError:
    return DataError(
        f"{path} has more than {MAX_PIXELS // 1_000_000} million pixels",
        hint="scale it down first: a detector looks at about a million",
    )


def decode(path: Path) -> NDArray[np.uint8]:
    """Decode an image file.

    Grey, 16-bit, CMYK and palette images become 8-bit BGR; EXIF orientation is applied.

    Returns:
        uint8 [height, width, 3], BGR.

    Raises:
        DataError: The file is missing, empty, damaged, not an image or too large.
    """
    read_size(path)
    # imdecode instead of imread: it also opens paths that are not ASCII on Windows.
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"cannot decode {path}", hint="the file is damaged; replace it")
    return np.ascontiguousarray(image, np.uint8)


def fit(height: int, width: int, spec: Spec) -> Fit:
    """Return where an image of that size lies in the engine's input."""
    rule = spec.letterbox
    if rule.placement == "stretch":
        return Fit(spec.width / width, spec.height / height, 0, 0, width, height)
    scale = min(spec.height / height, spec.width / width)
    new_width, new_height = _scaled(width, scale, rule), _scaled(height, scale, rule)
    if rule.placement == "top_left":
        return Fit(scale, scale, 0, 0, width, height)
    # An odd remainder goes to the right and to the bottom.
    left, top = (spec.width - new_width) // 2, (spec.height - new_height) // 2
    return Fit(scale, scale, left, top, width, height)


def _scaled(side: int, scale: float, rule: Letterbox) -> int:
    scaled = side * scale
    return max(1, round(scaled) if rule.rounding == "round" else int(scaled))


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
    """
    placed = fit(*image.shape[:2], spec)
    if out is None:
        out = np.empty((spec.height, spec.width, 3), np.uint8)
    if spec.letterbox.placement == "stretch":
        height, width = spec.height, spec.width
    else:
        height = _scaled(placed.image_height, placed.scale_y, spec.letterbox)
        width = _scaled(placed.image_width, placed.scale_x, spec.letterbox)
    bottom, right = placed.top + height, placed.left + width
    window = out[placed.top : bottom, placed.left : right]
    if image.shape == window.shape:
        window[:] = image
    else:
        cv2.resize(image, (width, height), dst=window, interpolation=cv2.INTER_LINEAR)
    fill = spec.letterbox.fill
    out[: placed.top] = fill
    out[bottom:] = fill
    out[placed.top : bottom, : placed.left] = fill
    out[placed.top : bottom, right:] = fill
    return out, placed


def list_images(folder: Path) -> tuple[Path, ...]:
    """Return the image files directly in a folder, sorted by name.

    Raises:
        DataError: The folder has no image.
    """
    found = tuple(sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES))
    if not found:
        raise DataError(
            f"no image in {folder}", hint=f"looked for {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return found


def read_video(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of a video file, uint8 [height, width, 3], BGR.

    Raises:
        DataError: The file is missing, is no video, or has no frame.
    """
    if not path.is_file():
        raise DataError(f"no such video: {path}", hint="check the path")
    yield from _frames(cv2.VideoCapture(str(path)), str(path))


def read_camera(index: int) -> Iterator[NDArray[np.uint8]]:
    """Yield frames of a camera until it stops, uint8 [height, width, 3], BGR.

    Raises:
        DataError: There is no such camera, or it gives no frame.
    """
    yield from _frames(cv2.VideoCapture(index), f"camera {index}")


def _frames(capture: cv2.VideoCapture, source: str) -> Iterator[NDArray[np.uint8]]:
    try:
        alive, frame = capture.read()
        if not alive:
            raise DataError(f"no frame in {source}", hint="is it a video that plays elsewhere?")
        while alive:
            yield np.asarray(frame, np.uint8)
            alive, frame = capture.read()
    finally:
        capture.release()
