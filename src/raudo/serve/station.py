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
from raudo.serve.memory import Layout

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
        self._tensors: dict[str, NDArray[Any]] = {}

    def open(self, artifact: Artifact, resources: Resources) -> Facts:
        """Load the engine, try it, and lay out the memory."""
        self._detector, facts = open_engine(artifact, resources)
        self._tensors = Layout.of(artifact.manifest.spec, facts).map(self._descriptor)
        return facts

    def run(self, wants: Sequence[Want], places: Sequence[int | None]) -> list[Result]:
        """Run a batch; outputs that are wanted are left in memory.

        Args:
            wants: What each part wants.
            places: At which byte of the arena each part's images begin; None: they lie in their
                rows of the batch already.
        """
        images = self._gathered(wants, places)
        return run_parts(self._detector, images, wants, self._leave)

    def _gathered(self, wants: Sequence[Want], places: Sequence[int | None]) -> NDArray[np.uint8]:
        """Return the batch; images that are alone stay where they are."""
        if len(wants) == 1 and places[0] is not None:
            return self._placed(wants[0], places[0])
        batch: NDArray[np.uint8] = self._tensors["images"]
        last = 0
        for want, place in zip(wants, places, strict=True):
            first, last = last, last + want.images
            if place is not None:
                batch[first:last] = self._placed(want, place)
        return batch[:last]

    def _placed(self, want: Want, place: int) -> NDArray[np.uint8]:
        shape = (want.images, *self._tensors["images"].shape[1:])
        return np.ndarray(shape, np.uint8, self._arena.data, place)

    def _leave(self, outputs: Outputs, first: int, last: int) -> None:
        for name, value in vars(outputs).items():
            if value is not None:
                self._tensors[name][first:last] = value[first:last]


def main(descriptor: int, arena: int) -> None:
    """Answer until the service closes the channel, or is gone."""
    # What ends the service reaches its whole group; it lets its engines finish first.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    worker.serve(EngineStation(descriptor, arena))
