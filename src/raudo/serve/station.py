"""What runs in an engine's process: it takes batches from shared memory, and leaves outputs there.

`process.py` is the side that asks.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import numpy as np

from raudo import worker
from raudo.serve.arena import attached
from raudo.serve.instance import open_engine, run_parts
from raudo.serve.memory import shared

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from raudo.backends.base import Outputs, Resources
    from raudo.records import Artifact
    from raudo.serve.instance import Facts, Result, Want


class EngineStation:
    """Runs one engine.

    Args:
        descriptor: The memory shared with its own side, for batches and outputs.
        arena: The memory shared with the whole service, in which images arrive.
    """

    def __init__(self, descriptor: int, arena: int) -> None:
        self._descriptor = descriptor
        self._arena = attached(arena)
        self._tensors: dict[tuple[int, int], dict[str, NDArray[Any]]] = {}

    def open(self, artifact: Artifact, resources: Resources) -> Facts:
        """Load the engine, try it, and lay out the memory."""
        self._detector, facts = open_engine(artifact, resources)
        self._tensors = shared(self._descriptor, facts)
        return facts

    def run(
        self, size: tuple[int, int], wants: Sequence[Want], places: Sequence[int | None]
    ) -> list[Result]:
        """Run a batch; outputs that are wanted are left in memory.

        Args:
            size: Height and width of the images.
            wants: What each part wants.
            places: At which byte of the arena each part's images begin; None: they lie in their
                rows of the batch already.
        """
        tensors = self._tensors[size]

        def leave(outputs: Outputs, first: int, last: int) -> None:
            for name, value in vars(outputs).items():
                if value is not None:
                    tensors[name][first:last] = value[first:last]

        images = self._gathered(tensors["images"], wants, places)
        return run_parts(self._detector, images, wants, leave)

    def _gathered(
        self, batch: NDArray[np.uint8], wants: Sequence[Want], places: Sequence[int | None]
    ) -> NDArray[np.uint8]:
        """Put the images into a batch; those that are alone stay where they are."""
        shape = batch.shape[1:]
        if len(wants) == 1 and places[0] is not None:
            return self._placed(places[0], (wants[0].images, *shape))
        last = 0
        for want, place in zip(wants, places, strict=True):
            first, last = last, last + want.images
            if place is not None:
                batch[first:last] = self._placed(place, (want.images, *shape))
        return batch[:last]

    def _placed(self, place: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        return np.ndarray(shape, np.uint8, self._arena.data, place)


def main(descriptor: int, arena: int) -> None:
    """Answer until the service closes the channel, or is gone."""
    # What ends the service reaches its whole group; it lets its engines finish first.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # What an engine explains, the service logs itself.
    worker.serve(EngineStation(descriptor, arena), traces=False)
