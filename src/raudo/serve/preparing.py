"""What clients send -> what an engine takes, in threads, so that nothing else waits for it."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from raudo import images
from raudo.errors import DataError
from raudo.rectangles import smallest
from raudo.serve.deadlines import in_time
from raudo.serve.errors import BadRequestError, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from raudo.images import Fit
    from raudo.serve.records import InferRequest, ModelVersion
    from raudo.serve.settings import Limits

Prepared = tuple["NDArray[np.uint8]", "tuple[Fit, ...]"]


class Preparer:
    """Decodes and letterboxes images in a few threads.

    Args:
        limits: What bounds the service.
        allocate: Returns memory for so many bytes.
    """

    def __init__(self, limits: Limits, allocate: Callable[[int], NDArray[np.uint8]]) -> None:
        self._limits, self._allocate = limits, allocate
        self._pool = ThreadPoolExecutor(limits.decoders, thread_name_prefix="raudo-decode")

    async def prepare(
        self, request: InferRequest, version: ModelVersion, deadline: float
    ) -> Prepared:
        """Return uint8 [n, height, width, 3], and where each image that came encoded lies in it.

        Raises:
            BadRequestError: There is no image, they are too many, or not what the engine takes.
            TooLargeError: An image has too many pixels.
            DeadlineError: It is not decoded before the deadline, of `time.monotonic`.
        """
        count = len(request.images)
        if not 1 <= count <= version.max_batch:
            raise BadRequestError(
                f"{count} images in a request",
                hint=f"send 1 to {version.max_batch} at once",
            )
        if not isinstance(request.images, tuple):
            expected = [(*rectangle.size, 3) for rectangle in version.rectangles]
            if request.images.dtype != np.uint8 or request.images.shape[1:] not in expected:
                taken = " or ".join(f"[n, {h}, {w}, {c}]" for h, w, c in expected)
                raise BadRequestError(
                    f"the images are {request.images.dtype.name} {list(request.images.shape)}",
                    hint=f"this model takes uint8 {taken}",
                )
            return request.images, ()
        loop = asyncio.get_running_loop()
        with in_time(deadline - time.monotonic(), "its time was over before it was decoded"):
            return await loop.run_in_executor(self._pool, self._decode, request.images, version)

    def _decode(self, files: tuple[bytes, ...], version: ModelVersion) -> Prepared:
        try:
            return self._letterboxed(files, version)
        except DataError as error:
            raise BadRequestError(error.message, hint=error.hint) from error

    def _letterboxed(self, files: tuple[bytes, ...], version: ModelVersion) -> Prepared:
        sizes = [self._size(file) for file in files]
        spec = smallest(sizes, [rectangle.spec for rectangle in version.rectangles])
        shape = (len(files), spec.height, spec.width, 3)
        batch = self._allocate(prod(shape)).reshape(shape)
        return batch, tuple(
            images.letterbox(images.decode(file), spec, batch[index])[1]
            for index, file in enumerate(files)
        )

    def _size(self, file: bytes) -> tuple[int, int]:
        height, width = images.read_size(file)
        if height * width > self._limits.pixels:
            raise TooLargeError(
                f"the image has {width}x{height} pixels",
                hint=f"send at most {self._limits.pixels} pixels",
            )
        return height, width

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()
