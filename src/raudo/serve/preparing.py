"""What clients send -> what an engine takes, in threads, so that nothing else waits for it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from raudo import images
from raudo.errors import DataError
from raudo.serve.errors import BadRequestError, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from raudo.images import Fit
    from raudo.records import Spec
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

    async def prepare(self, request: InferRequest, version: ModelVersion) -> Prepared:
        """Return uint8 [n, height, width, 3], and where each image that came encoded lies in it.

        Raises:
            BadRequestError: There is no image, they are too many, or not what the engine takes.
            TooLargeError: An image has too many pixels.
        """
        count, spec = len(request.images), version.spec
        if not 1 <= count <= version.max_batch:
            raise BadRequestError(
                f"{count} images in a request",
                hint=f"send 1 to {version.max_batch} at once",
            )
        if not isinstance(request.images, tuple):
            expected = (spec.height, spec.width, 3)
            if request.images.dtype != np.uint8 or request.images.shape[1:] != expected:
                raise BadRequestError(
                    f"the images are {request.images.dtype.name} {list(request.images.shape)}",
                    hint=f"this model takes uint8 [n, {spec.height}, {spec.width}, 3]",
                )
            return request.images, ()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._decode, request.images, spec)

    def _decode(self, files: tuple[bytes, ...], spec: Spec) -> Prepared:
        shape = (len(files), spec.height, spec.width, 3)
        batch = self._allocate(prod(shape)).reshape(shape)
        return batch, tuple(
            self._place(file, spec, batch[index]) for index, file in enumerate(files)
        )

    def _place(self, file: bytes, spec: Spec, out: NDArray[np.uint8]) -> Fit:
        try:
            height, width = images.read_size(file)
            if height * width > self._limits.pixels:
                raise TooLargeError(
                    f"the image has {width}x{height} pixels",
                    hint=f"send at most {self._limits.pixels} pixels",
                )
            return images.letterbox(images.decode(file), spec, out)[1]
        except DataError as error:
            raise BadRequestError(error.message, hint=error.hint) from error

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()
