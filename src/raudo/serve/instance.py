"""An engine that is ready for batches, wherever it runs."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from raudo.backends.base import Outputs, Resources
from raudo.detector import open_artifact, select

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from raudo.backends.base import Engine
    from raudo.detector import Detector, Selection
    from raudo.records import Artifact, Detections, Spec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Want:
    """What one request wants of its share of a batch.

    Attributes:
        images: Number of its images.
        raw: Whether it wants the engine's own outputs.
        selection: What becomes a detection; None: none are wanted.
    """

    images: int
    raw: bool
    selection: Selection | None


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

    @property
    def want(self) -> Want:
        """What it wants, without its images."""
        return Want(len(self.images), self.raw, self.selection)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its images; a batch has one."""
        _, height, width, _ = self.images.shape
        return height, width


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


@dataclass(frozen=True)
class Rectangle:
    """An input rectangle that an engine takes images in.

    Attributes:
        spec: What it takes and gives there.
        outputs: Data type and shape of each output for one image, in the contract's order.
    """

    spec: Spec
    outputs: dict[str, tuple[str, tuple[int, ...]]]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.spec.height, self.spec.width


@dataclass(frozen=True)
class Facts:
    """What trying an engine told.

    Attributes:
        batch: Most images that it takes at once.
        rectangles: Those that it takes images in, the model's own first.
    """

    batch: int
    rectangles: tuple[Rectangle, ...]


class Instance(Protocol):
    """One engine of a version; it gets one batch after the other."""

    @property
    def facts(self) -> Facts:
        """What trying it told."""

    def on_restart(self, tell: Callable[[str], None]) -> None:
        """Tell why, whenever the engine had to be started again."""

    async def run(self, parts: Sequence[Part]) -> list[Result]:
        """Run the images of all parts as one batch.

        Raises:
            WorkerError: The engine's process died at it, and is started again.
            RaudoError: The engine failed.
        """

    async def close(self) -> None:
        """Free the engine."""


def open_engine(artifact: Artifact, resources: Resources) -> tuple[Detector, Facts]:
    """Load an engine and try it, with as large batches as it takes, up to those of `resources`.

    Raises:
        RaudoError: It cannot run here.
    """
    try:
        detector = open_artifact(artifact, resources)
        return detector, Facts(resources.batch, _try(detector.engine, resources.batch))
    except Exception as error:
        if resources.batch == 1:
            raise
        refusal = error
    detector = open_artifact(artifact, replace(resources, batch=1))
    log.warning("%s takes no batch of %d: %s", artifact.path, resources.batch, refusal)
    return detector, Facts(1, _try(detector.engine, 1))


def _try(engine: Engine, batch: int) -> tuple[Rectangle, ...]:
    found = []
    for spec in engine.specs:
        zeros = np.zeros((batch, spec.height, spec.width, 3), np.uint8)
        engine.run(zeros)  # the first one may compile
        outputs = {
            name: (value.dtype.str, value.shape[1:])
            for name, value in vars(engine.run(zeros[:1])).items()
            if value is not None
        }
        found.append(Rectangle(spec, outputs))
    return tuple(found)


def run_parts(
    detector: Detector,
    images: NDArray[np.uint8],
    wants: Sequence[Want],
    keep: Callable[[Outputs, int, int], Outputs | None],
) -> list[Result]:
    """Run one batch, and share out what was found.

    Args:
        detector: The engine.
        images: uint8 [batch, height, width, 3]: those of all parts, in order.
        wants: What each part wants.
        keep: Takes the engine's own outputs of the images from one index up to another.
    """
    start = time.perf_counter()
    outputs = detector.engine.run(images)
    infer = time.perf_counter() - start
    results, first = [], 0
    for want in wants:
        last = first + want.images
        start = time.perf_counter()
        found: tuple[Detections, ...] = ()
        if (selection := want.selection) is not None:
            found = tuple(
                select(outputs, index, detector.spec, selection) for index in range(first, last)
            )
        kept = keep(outputs, first, last) if want.raw else None
        results.append(Result(kept, found, infer, time.perf_counter() - start, len(images)))
        first = last
    return results


def copied(outputs: Outputs, first: int, last: int) -> Outputs:
    """Copy the outputs of some images of a batch."""
    labels = None if outputs.labels is None else outputs.labels[first:last].copy()
    return Outputs(outputs.boxes[first:last].copy(), outputs.scores[first:last].copy(), labels)


class InlineInstance:
    """An engine in a thread of this process, for where the process may die with it.

    Args:
        detector: The loaded engine; closed along with this.
        facts: What trying it told.
    """

    def __init__(self, detector: Detector, facts: Facts) -> None:
        self.facts = facts
        self._detector = detector
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="raudo-engine")

    def on_restart(self, tell: Callable[[str], None]) -> None:
        """Never told: it lives as long as this process."""

    async def run(self, parts: Sequence[Part]) -> list[Result]:
        """Run the images of all parts as one batch."""
        images = parts[0].images
        if len(parts) > 1:
            images = np.concatenate([part.images for part in parts])
        wants = [part.want for part in parts]
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._pool, run_parts, self._detector, images, wants, copied
        )

    async def close(self) -> None:
        """Free the engine."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._pool, self._detector.close)
        self._pool.shutdown()
