"""Yields the frames of an image, a folder, a video or a camera, one way for all of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from raudo import images
from raudo.errors import DataError
from raudo.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

FALLBACK_FPS = 25.0


@dataclass(frozen=True)
class Source:
    """Where frames come from."""

    kind: Literal["image", "folder", "video", "camera"]
    path: Path
    """For a camera, its index."""


@dataclass(frozen=True)
class Frame:
    """One image of a source.

    Attributes:
        image: uint8 [height, width, 3], BGR.
        source: The image file, the video file or the camera.
        number: Position in the source, from 0.
        time_ms: Position in the video, or since the camera was opened; None for an image.
    """

    image: NDArray[np.uint8]
    source: Path
    number: int
    time_ms: float | None


def find_source(source: str | Path) -> Source:
    """Tell what kind of source a name stands for.

    Raises:
        DataError: It is missing, or of no kind that can be read.
    """
    path, name = Path(source), str(source)
    if path.is_dir():
        return Source("folder", path)
    suffix = path.suffix.lower()
    if path.is_file():
        if suffix in VIDEO_SUFFIXES:
            return Source("video", path)
        if suffix in IMAGE_SUFFIXES | {".gif"}:
            return Source("image", path)
        known = ", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
        raise DataError(
            f"{path} has the suffix of neither an image nor a video", hint=f"known are {known}"
        )
    if name.isascii() and name.isdecimal():
        return Source("camera", path)
    if "://" in name:
        raise DataError(
            f"{name} is an address, which is not read from Python",
            hint="the C++ detector reads it: see README.md, 'The C++ detector'",
        )
    raise DataError(
        f"no such image, folder or video: {path}", hint="check the path; a camera is a number"
    )


class Reader:
    """The frames of a source; a context manager.

    Attributes:
        fps: Frames a second that a video of them should have.
        total: Number of frames, as far as it is known beforehand.
        skipped: Why, by the file that was not (wholly) read.

    Raises:
        DataError: The source cannot be opened.
    """

    def __init__(self, origin: Source) -> None:
        self.skipped: dict[str, str] = {}
        self.fps = FALLBACK_FPS
        self.total: int | None = None
        self._origin = origin
        self._files: tuple[Path, ...] = ()
        self._video: images.Video | None = None
        if origin.kind in {"image", "folder"}:
            single = origin.kind == "image"
            self._files = (origin.path,) if single else images.list_images(origin.path)
            self.total = len(self._files)
            return
        camera = origin.kind == "camera"
        self._video = (
            images.open_camera(int(str(origin.path))) if camera else images.open_video(origin.path)
        )
        self.fps = self._video.fps or FALLBACK_FPS
        self.total = None if camera else self._video.frames

    def __iter__(self) -> Iterator[Frame]:
        return self._from_files() if self._video is None else self._from_video(self._video)

    def _from_video(self, video: images.Video) -> Iterator[Frame]:
        opened = time.perf_counter()
        camera = self._origin.kind == "camera"
        for number, (position, image) in enumerate(video):
            time_ms = (time.perf_counter() - opened) * 1000 if camera else position
            yield Frame(image, self._origin.path, number, time_ms)

    def _from_files(self) -> Iterator[Frame]:
        for number, file in enumerate(self._files):
            try:
                image = images.decode(file)
            except DataError as error:
                if self._origin.kind == "image":
                    raise
                self.skipped[str(file)] = error.message
                continue
            yield Frame(image, file, number, None)

    def check_end(self, frames: int) -> None:
        """Tell whether the source ended as it should, once it has.

        Raises:
            DataError: No image of a folder could be read.
        """
        if frames == 0:
            raise DataError(
                f"none of the {len(self.skipped)} images in {self._origin.path} can be read",
                hint=next(iter(self.skipped.values()), "put images there"),
            )
        if self._video is None or self.total is None:
            return
        damaged = self._video.damaged
        if damaged:
            self.skipped[str(self._origin.path)] = (
                f"{damaged} of {self.total} frames are damaged, and were left out"
            )
        # Headers may round the number of frames.
        if frames + damaged < self.total * 0.98 - 1:
            self.skipped[str(self._origin.path)] = (
                f"ended after {frames} of {self.total} frames: it is damaged or cut off"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._video is not None:
            self._video.close()
