"""Several input rectangles for one network: each image goes to the smallest that holds it.

A data set of landscape and portrait pictures, or of several cameras, fits no one rectangle but a
large one. So a network may have an engine of the model's own size, which holds everything, and
others for smaller rectangles; an image takes one of these only if it keeps its scale there.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from raudo.backends.base import Engine, Outputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from raudo.records import NodeProfile, PrecisionAudit, Spec


def smallest(sizes: Sequence[tuple[int, int]], specs: Sequence[Spec]) -> Spec:
    """Return the spec of the least area at which every image has the largest scale of all specs.

    Args:
        sizes: (height, width) of the images of one batch.
        specs: Of one network; the first holds any image at the largest scale.
    """
    holding = specs
    for height, width in sizes:
        scales = [min(spec.height / height, spec.width / width) for spec in specs]
        largest = max(scales)
        kept = [spec for spec, scale in zip(specs, scales, strict=True) if scale == largest]
        holding = [spec for spec in holding if spec in kept]
    return min(holding, key=lambda spec: spec.height * spec.width)


class RectanglesEngine(Engine):
    """Engines of one network for several input rectangles, as one.

    Args:
        engines: The first is the one of the model's own size.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        super().__init__(engines[0].spec)
        self._engines = {(e.spec.height, e.spec.width): e for e in engines}

    @property
    def specs(self) -> tuple[Spec, ...]:
        """See `Engine.specs`."""
        return tuple(engine.spec for engine in self._engines.values())

    def _chosen(self, shape: tuple[int, ...]) -> Engine:
        size = (shape[1], shape[2]) if len(shape) == 4 else (0, 0)
        return self._engines.get(size, self._engines[self.spec.height, self.spec.width])

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return memory of the engine of a rectangle; see `Engine.empty`."""
        return self._chosen(shape).empty(shape)

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Run a batch on the engine of its rectangle; see `Engine.run`."""
        return self._run(images)

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        return self._chosen(images.shape).run(images)

    def audit(self) -> PrecisionAudit:
        """Tell what all of the engines together execute."""
        audits = [engine.audit() for engine in self._engines.values()]
        found: Counter[str] = Counter()
        providers: Counter[str] = Counter()
        for audit in audits:
            found.update(audit.found)
            providers.update(audit.providers)
        return audits[0].model_copy(update={"found": dict(found), "providers": dict(providers)})

    def profile(self, images: NDArray[np.uint8]) -> tuple[NodeProfile, ...]:
        """Time each node of the engine of the images' rectangle; see `Engine.profile`."""
        return self._chosen(images.shape).profile(images)

    def close(self) -> None:
        """Free all of the engines."""
        for engine in self._engines.values():
            engine.close()
