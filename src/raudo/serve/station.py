"""What runs in an engine's process: it takes batches from shared memory, and leaves outputs there.

`process.py` is the side that asks.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from raudo import worker
from raudo.serve.instance import open_engine, run_parts
from raudo.serve.memory import Layout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from raudo.backends.base import Outputs, Resources
    from raudo.records import Artifact
    from raudo.serve.instance import Facts, Result, Want


class EngineStation:
    """Runs one engine.

    Args:
        descriptor: The shared memory.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._tensors: dict[str, NDArray[Any]] = {}

    def open(self, artifact: Artifact, resources: Resources) -> Facts:
        """Load the engine, try it, and lay out the memory."""
        self._detector, facts = open_engine(artifact, resources)
        self._tensors = Layout.of(artifact.manifest.spec, facts).map(self._descriptor)
        return facts

    def run(self, wants: Sequence[Want]) -> list[Result]:
        """Run what lies in memory; outputs that are wanted are left there."""
        images: NDArray[np.uint8] = self._tensors["images"][: sum(w.images for w in wants)]
        return run_parts(self._detector, images, wants, self._leave)

    def _leave(self, outputs: Outputs, first: int, last: int) -> None:
        for name, value in vars(outputs).items():
            if value is not None:
                self._tensors[name][first:last] = value[first:last]


def main(descriptor: int) -> None:
    """Answer until the service closes the channel, or is gone."""
    # What ends the service reaches its whole group; it lets its engines finish first.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    worker.serve(EngineStation(descriptor))
