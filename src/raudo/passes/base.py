"""What a pass is: it makes a faster graph of a graph."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from raudo.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from raudo.records import Precision


@runtime_checkable
class SelfQuantizing(Protocol):
    """A graph object that quantizes itself: no general tool knows its format."""

    def quantize(self, calibration: Sequence[NDArray[np.uint8]]) -> Any:
        """Return the graph in INT8, its decoding in float.

        Args:
            calibration: Prepared images, each uint8 [1, height, width, 3].
        """


class Pass(ABC):
    """One transformation of a backend's graph object (`Backend.read_graph`)."""

    name: ClassVar[str]
    title: ClassVar[str]
    precision: ClassVar[Precision]
    """The precision that it makes; a variant that asks for it gets this pass."""
    needs_calibration: ClassVar[bool]
    modules: ClassVar[tuple[str, ...]]
    extra: ClassVar[str]

    def missing(self) -> tuple[str, ...]:
        """Return the modules that are not installed."""
        return tuple(m for m in self.modules if importlib.util.find_spec(m) is None)

    def require(self) -> None:
        """Raise MissingDependencyError, with the command that installs, if a module is missing."""
        if missing := self.missing():
            raise MissingDependencyError(
                f"{self.title} needs {', '.join(missing)}, which is not installed",
                hint=f"pip install 'raudo[{self.extra}]'",
            )

    @abstractmethod
    def apply(self, graph: Any, calibration: Sequence[NDArray[np.uint8]]) -> Any:
        """Return the transformed graph.

        Args:
            graph: What the backend's `read_graph` returned.
            calibration: Prepared images, each uint8 [1, height, width, 3].
        """


Plugin = Pass
