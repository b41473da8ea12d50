"""An engine that is ready for batches, wherever it runs."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from raudo.backends.base import Outputs
from raudo.detector import select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from raudo.detector import Detector, Selection
    from raudo.records import Detections


@dataclass(frozen=True)
class Part:
    """One request's share of a batch.

    Attributes:
        images: uint8 [n, height, width, 3].
        raw: Whether the engine's own outputs are wanted.
        selection: What becomes a detection; None: none are wanted.
    """

    images: NDArray[np.uint8]
    raw: bool
    selection: Selection | None


@dataclass(frozen=True)
class Result:
    """What an engine found in one part.

    Attributes:
        outputs: The engine's own, if wanted; nobody else's memory.
        detections: One for each image, if wanted, in pixels of the engine's input.
        infer: Seconds in the engine.
        select: Seconds of choosing detections.
        batch: Images that the engine ran at once.
    """

    outputs: Outputs | None
    detections: tuple[Detections, ...]
    infer: float
    select: float
    batch: int


class Instance(Protocol):
    """One engine of a version; it gets one batch after the other."""

    async def run(self, parts: Sequence[Part]) -> list[Result]:
        """Run the images of all parts as one batch.

        Raises:
            WorkerError: The engine's process died; it is started again.
            RaudoError: The engine failed.
        """

    async def close(self) -> None:
        """Free the engine."""


def run_parts(detector: Detector, images: NDArray[np.uint8], parts: Sequence[Part]) -> list[Result]:
    """Run one batch, and share out what was found.

    Args:
        detector: The engine.
        images: uint8 [batch, height, width, 3]: the images of all parts, in order.
        parts: What is wanted of them.
    """
    start = time.perf_counter()
    outputs = detector.engine.run(images)
    infer = time.perf_counter() - start
    results, first = [], 0
    for part in parts:
        last = first + len(part.images)
        start = time.perf_counter()
        found: tuple[Detections, ...] = ()
        if part.selection is not None:
            found = tuple(
                select(outputs, index, detector.spec, part.selection)
                for index in range(first, last)
            )
        raw = share(outputs, first, last) if part.raw else None
        results.append(Result(raw, found, infer, time.perf_counter() - start, len(images)))
        first = last
    return results


def share(outputs: Outputs, first: int, last: int) -> Outputs:
    """Copy the outputs of some images of a batch."""
    labels = None if outputs.labels is None else outputs.labels[first:last].copy()
    return Outputs(outputs.boxes[first:last].copy(), outputs.scores[first:last].copy(), labels)


class InlineInstance:
    """An engine in a thread of this process, where the process may die with it.

    Args:
        detector: The loaded engine; closed along with this.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="raudo-engine")

    async def run(self, parts: Sequence[Part]) -> list[Result]:
        """Run the images of all parts as one batch."""
        images = parts[0].images
        if len(parts) > 1:
            images = np.concatenate([part.images for part in parts])
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, run_parts, self._detector, images, parts)

    async def close(self) -> None:
        """Free the engine."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._pool, self._detector.close)
        self._pool.shutdown()
