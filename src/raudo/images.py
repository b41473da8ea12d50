"""Decoding and letterboxing: the one place where pixels are prepared.

The C++ detector does the same arithmetic on the same OpenCV calls, so that all engines, in both
languages, get the same bytes.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from raudo.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile
    from typing_extensions import Self

    from raudo.records import Letterbox, Spec

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
MAX_PIXELS = 100_000_000
MAX_FPS, MAX_FRAMES = 1000, 10**9  # beyond them a header tells nonsense
FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
ORIENTATION = 0x0112  # EXIF 2.32, table 4: 5 to 8 lie on their side
TIFF_WIDTH, TIFF_HEIGHT = 256, 257

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


def read_size(path: Path) -> tuple[int, int]:
    """Return (height, width) of an image as it will be decoded, from its header alone.

    Raises:
        DataError: The file is missing, empty, not an image, or larger than MAX_PIXELS.
    """
    if not path.is_file():
        raise DataError(f"no such image: {path}", hint="check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of is an error below
            with _open_header(path) as image:
                width, height = _turned_size(image)
    except (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError) as error:
        raise _damaged(path) from error
    if width * height > MAX_PIXELS:
        raise _too_large(path)
    return height, width


def _open_header(path: Path) -> ImageFile:
    """Open an image by its first bytes.

    Not by `PIL.Image.open`: packages replace that one, and then unknown files make them install
    decoders.
    """
    from PIL.BmpImagePlugin import BmpImageFile
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile
    from PIL.TiffImagePlugin import TiffImageFile
    from PIL.WebPImagePlugin import WebPImageFile

    kinds: dict[bytes, type[ImageFile]] = {
        b"\xff\xd8\xff": JpegImageFile,
        b"\x89PNG": PngImageFile,
        b"BM": BmpImageFile,
        b"II": TiffImageFile,
        b"MM": TiffImageFile,
        b"RIFF": WebPImageFile,
    }
    with path.open("rb") as stream:
        start = stream.read(8)
    if start.startswith(b"GIF8"):
        raise DataError(
            f"{path} is a GIF, which is not supported", hint="convert it to PNG, or to MP4"
        )
    found = next((kind for first, kind in kinds.items() if start.startswith(first)), None)
    if found is None:
        raise ValueError("of no known kind")
    return found(path)


def _turned_size(image: ImageFile) -> tuple[int, int]:
    """Return (width, height) after EXIF orientation, from the header.

    `image.getexif` would decode a whole PNG file, and knows of orientations that OpenCV does not.
    Some versions of Pillow turn the size of a TIFF file already, so that is taken from its tags.
    """
    from PIL.Image import Exif
    from PIL.TiffImagePlugin import TiffImageFile

    if isinstance(image, TiffImageFile):
        tags = image.tag_v2
        width, height, orientation = tags[TIFF_WIDTH], tags[TIFF_HEIGHT], tags.get(ORIENTATION, 1)
    else:
        exif = Exif()
        exif.load(image.info.get("exif", b""))
        (width, height), orientation = image.size, exif.get(ORIENTATION, 1)
    return (height, width) if orientation in {5, 6, 7, 8} else (width, height)


def _damaged(path: Path) -> DataError:
    found = "empty" if path.stat().st_size == 0 else "damaged, cut off, or no image at all"
    return DataError(
        f"cannot read {path}: it is {found}",
        hint=f"replace the file; {', '.join(FORMATS)} with 8 or 16 bits a channel can be read",
    )


def _too_large(path: Path) -> DataError:
    return DataError(
        f"{path} has more than {MAX_PIXELS // 1_000_000} million pixels",
        hint="scale it down first: a detector looks at about a million",
    )


def decode(path: Path) -> NDArray[np.uint8]:
    """Decode an image file.

    What is not 8-bit BGR becomes it: grey is repeated, 16 bits lose the lower 8, CMYK and
    palettes are converted, alpha is dropped; EXIF orientation is applied. Of several pictures in
    a file the first is taken.

    Returns:
        uint8 [height, width, 3], BGR.

    Raises:
        DataError: The file is missing, empty, damaged, not an image or too large.
    """
    size = read_size(path)
    # imdecode instead of imread: it also opens paths that are not ASCII on Windows.
    data = np.fromfile(path, np.uint8)
    if not _is_whole(data.tobytes()):
        raise _damaged(path)
    try:
        with quiet():
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise _damaged(path) from error
    if image is None or image.shape[:2] != size:
        raise _damaged(path)
    return np.ascontiguousarray(image, np.uint8)


def _is_whole(data: bytes) -> bool:
    """Tell whether a JPEG or PNG file has its end; other files are left to their decoders.

    OpenCV before 5 fills what is missing of a JPEG file with grey, and only warns. The end is
    looked for after the headers (ITU-T T.81, annex B), since a thumbnail in them has its own.
    """
    if data.startswith(b"\x89PNG"):
        return b"IEND" in data[-64:]
    if not data.startswith(b"\xff\xd8"):
        return True
    place = 2
    while (marker := data[place : place + 2]) and marker != b"\xff\xda":
        padding = marker == b"\xff\xff"
        place += 1 if padding else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return data.find(b"\xff\xd9", place) >= 0


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
    if image.dtype.name != "uint8" or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataError(
            f"an image must be uint8 [height, width, 3], not {image.dtype} {list(image.shape)}",
            hint="decode it with raudo.images.decode, or convert it to 8-bit BGR",
        )
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
    """

    def __init__(self, capture: cv2.VideoCapture, source: str) -> None:
        self._capture = capture
        self._source = source
        fps, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.fps = fps if 0 < fps <= MAX_FPS else None
        self.frames = int(frames) if 0 < frames < MAX_FRAMES else None

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
        while alive:
            yield self._capture.get(cv2.CAP_PROP_POS_MSEC), np.asarray(frame, np.uint8)
            alive, frame = self._capture.read()

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
