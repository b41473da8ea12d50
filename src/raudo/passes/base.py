"""What a pass is: it makes a faster graph of a graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from raudo.requiring import Requiring

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from raudo.backends.base import Variant
    from raudo.records import Precision, Ranges


@runtime_checkable
class SelfQuantizing(Protocol):
    """A graph object that quantizes itself: no general tool knows its format."""

    @property
    def methods(self) -> tuple[Ranges, ...]:
        """What `QuantizationSettings.ranges` may be."""

    def layers(self) -> tuple[str, ...]:
        """Return the layers that can be kept from quantization; see `Pass.layers`."""

    def quantize(
        self, calibration: Sequence[NDArray[np.uint8]], settings: QuantizationSettings
    ) -> Any:
        """Return the graph in INT8, its decoding in float.

        Args:
            calibration: Prepared images, each uint8 [1, height, width, 3].
            settings: How to quantize; `ranges` is one of `methods`.
        """

    def restore(self, layers: Collection[str]) -> Any:
        """Return a quantized graph in which layers have their precision back."""


Grid = Literal["offset", "symmetric"]


@dataclass(frozen=True)
class QuantizationSettings:
    """How to quantize.

    Attributes:
        ranges: Where the range of an activation comes from: `mean` of the images' extremes, or
            `quantile`, the mean of their quantiles at 0.01 % and 99.99 %, which cuts outliers off.
        images: Most calibration images to use; None uses all.
        correct_bias: Whether to move biases by the error that rounding causes on average.
        grid: Where the steps of activations lie: `offset` fits them to the range, `symmetric` has
            a step at zero and as many below as above, all that some runtimes have kernels for.
    """

    ranges: Ranges = "mean"
    images: int | None = None
    correct_bias: bool = True
    grid: Grid = "offset"


PLAIN = QuantizationSettings()


class Pass(Requiring, ABC):
    """One transformation of a backend's graph object (`Backend.read_graph`)."""

    name: ClassVar[str]
    precision: ClassVar[Precision]
    """The precision of what it makes."""
    needs_calibration: ClassVar[bool]

    def makes(self, variant: Variant) -> bool:
        """Tell whether a variant asks for what this pass makes; no two passes make the same."""
        return variant.precision == self.precision and variant.silu == "exact"

    @abstractmethod
    def apply(
        self,
        graph: Any,
        calibration: Sequence[NDArray[np.uint8]],
        settings: QuantizationSettings = PLAIN,
    ) -> Any:
        """Return the transformed graph.

        Args:
            graph: What the backend's `read_graph` returned; it may be changed.
            calibration: Prepared images, each uint8 [1, height, width, 3].
            settings: How to quantize.
        """

    def methods(self, graph: Any) -> tuple[Ranges, ...]:
        """Return what `QuantizationSettings.ranges` may be for a graph."""
        del graph
        from raudo.records import RANGES

        return RANGES

    def layers(self, graph: Any) -> tuple[str, ...]:
        """Return the layers that `apply` quantizes and that `restore` takes, in order.

        Without any, `restore` is of no use for this graph.
        """
        del graph
        return ()

    def restore(self, graph: Any, exact: Any, layers: Collection[str]) -> Any:
        """Return a copy of a quantized graph, in which layers have their precision back.

        What was calibrated serves every choice of layers.

        Args:
            graph: What `apply` returned.
            exact: What it was given.
            layers: Some of `layers`.
        """
        raise NotImplementedError


Plugin = Pass
