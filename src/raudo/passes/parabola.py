"""SiLU in pieces, without the exponential and the division that it takes for each value.

On a CPU whose products are fast, they are more than a third of a detector's time. In the place of
x * sigmoid(x) comes

    SCALE * leaky(hswish(leaky(gain * x + offset) + SHIFT) + RISE) + REST

with the hard swish of "Searching for MobileNetV3", arXiv 1905.02244, a parabola between two lines,
and leaky ReLUs, which bend those lines towards SiLU's. Gain and offset of each channel are fitted
to what calibration images give in it, and go into weights and biases of the convolution before.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from raudo.errors import EngineError
from raudo.passes.base import PLAIN, Pass, QuantizationSettings

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from raudo.backends.base import Variant
    from raudo.records import Precision

    Values = NDArray[np.float32]

IMAGES, PLACES = 24, 64
"""Values are taken from that many images, at that many places in each."""
LOW, SHIFT, RISE, HIGH = 0.3045, -1.967, -3.2142, 0.8394
"""Slope of the first leaky ReLU below zero, and of the second."""
SCALE, REST = 0.7497, 1.9777
GAIN, OFFSET = 1.4028, 2.1372
"""With those before, least squares for values of the normal distributions that precede SiLU."""
ADDS, CONVOLVES = frozenset({"Add"}), frozenset({"Convolution", "GroupConvolution"})
STEPS = (0.25, 0.12, 0.06, 0.03, 0.015, 0.007)
MOVES = ((1, 0), (-1, 0), (0, 2), (0, -2), (1, 2), (-1, -2), (1, -2), (-1, 2))
"""Directions of (gain, offset) that a fit looks in."""
ROUNDS, LEAST_GAIN = 3, 0.3
BALANCE = 3.0
"""How much more the mean error of a channel counts than what varies: it does not average out."""


class Parabola(Pass):
    """SiLU in pieces, of graphs that hold it as one node, `Swish`."""

    name = "parabola"
    title = "SiLU in pieces"
    precision: ClassVar[Precision] = "fp16"
    needs_calibration = True
    modules: ClassVar[tuple[str, ...]] = ()
    extra = "openvino"

    def makes(self, variant: Variant) -> bool:
        """See `Pass.makes`."""
        return variant.silu == "pieces"

    def apply(
        self,
        graph: Any,
        calibration: Sequence[NDArray[np.uint8]],
        settings: QuantizationSettings = PLAIN,
    ) -> Any:
        """Return the graph with each SiLU that follows a convolution in pieces."""
        if not (places := _places(graph)):
            raise EngineError(
                "no SiLU follows a convolution in this network",
                hint="there is nothing to compute in pieces; take the same precision without them",
            )
        images = calibration[: settings.images][:IMAGES]
        for place, values in zip(places, _values(graph, places, images), strict=True):
            _replace(graph, place, *fitted(values))
        return graph


@dataclass(frozen=True)
class Place:
    """Where SiLU follows a convolution, whose bias may be added in between.

    Attributes:
        layer: The convolution.
        bias: The addition; None where there is none.
        silu: Reads either, and is the only one to do so.
    """

    layer: Any
    bias: Any | None
    silu: Any

    @property
    def before(self) -> Any:
        """What SiLU reads."""
        return self.layer if self.bias is None else self.bias


def _places(graph: Any) -> list[Place]:
    found = []
    for silu in graph.get_ordered_ops():
        if silu.get_type_name() == "Swish":
            before = silu.input_value(0).get_node()
            bias = before if _is(before, ADDS) else None
            layer = before if bias is None else before.input_value(0).get_node()
            if _is(layer, CONVOLVES):
                found.append(Place(layer, bias, silu))
    return found


def _package(graph: Any, part: str = "") -> Any:
    """Return a module of the package that a graph is of."""
    return importlib.import_module(type(graph).__module__.partition(".")[0] + part)


def _is(node: Any, types: Collection[str]) -> bool:
    """Tell whether a node is of a type, computes with a constant, and is read only once."""
    return (
        node.get_type_name() in types
        and node.input_value(1).get_node().get_type_name() == "Constant"
        and len(node.output(0).get_target_inputs()) == 1
    )


def _values(
    graph: Any, places: Sequence[Place], images: Sequence[NDArray[np.uint8]]
) -> list[Values]:
    """Return what each SiLU reads in some images, float32 [channels, images * PLACES]."""
    import numpy as np

    copy = graph.clone()
    read = {node.get_friendly_name(): node for node in copy.get_ordered_ops()}
    for place in places:
        copy.add_outputs(read[place.before.get_friendly_name()].output(0))
    copy.reshape(list(images[0].shape))
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = _package(graph).Core().compile_model(copy, "CPU", settings)
    request = compiled.create_infer_request()
    random = np.random.default_rng(0)
    found: list[list[Values]] = [[] for _ in places]
    first = len(copy.outputs) - len(places)
    for image in images:
        request.infer([image])
        for number, values in enumerate(found):
            whole = request.get_output_tensor(first + number).data
            flat = whole.reshape(whole.shape[1], -1)
            values.append(flat[:, random.integers(0, flat.shape[1], PLACES)])
    return [np.concatenate(values, axis=1) for values in found]


def fitted(values: Values) -> tuple[Values, Values]:
    """Fit each channel's gain and offset to its values, float32 [channels, n].

    Both go on as long as a step in some direction makes the error smaller.

    Returns:
        Two of float32 [channels, 1].
    """
    import numpy as np

    wanted = values / (1 + np.exp(-values))

    def error(gain: Values, offset: Values) -> Values:
        wrong = in_pieces(values * gain + offset) - wanted
        mean = wrong.mean(1, keepdims=True)
        total: Values = (wrong * wrong).mean(1, keepdims=True) + BALANCE * mean * mean
        return total

    gain, offset = (np.full((len(values), 1), start, np.float32) for start in (GAIN, OFFSET))
    least = error(gain, offset)
    for step in (step for step in STEPS for _ in range(ROUNDS)):
        for wider, further in MOVES:
            wide = np.maximum(gain + np.float32(wider * step), np.float32(LEAST_GAIN))
            far = offset + np.float32(further * step)
            found = error(wide, far)
            better = found < least
            gain, offset = np.where(better, wide, gain), np.where(better, far, offset)
            least = np.where(better, found, least)
    return gain, offset


def in_pieces(values: Values) -> Values:
    """Return SCALE * leaky(hswish(leaky(values) + SHIFT) + RISE) + REST."""
    import numpy as np

    low = np.where(values > 0, values, LOW * values) + np.float32(SHIFT)
    middle = low * np.clip(low + 3, 0, 6) / 6 + np.float32(RISE)
    curve = np.where(middle > 0, middle, HIGH * middle)
    return np.asarray(SCALE * curve + REST, np.float32)


def _replace(graph: Any, place: Place, gain: Values, offset: Values) -> None:
    """Put pieces in the place of a SiLU, and of its name."""
    import numpy as np

    op = _package(graph, ".opset14")
    weights = place.layer.input_value(1).get_node().get_data()
    rows = (weights.reshape(len(gain), -1) * gain).reshape(weights.shape)
    place.layer.input(1).replace_source_output(op.constant(rows).output(0))
    if place.bias is None:
        shifted = op.add(place.layer, offset.reshape(1, -1, 1, 1))
    else:
        shifted = place.bias
        biases = shifted.input_value(1).get_node().get_data().reshape(-1, 1)
        moved = (biases * gain + offset).reshape(1, -1, 1, 1)
        shifted.input(1).replace_source_output(op.constant(moved).output(0))
    low = op.add(op.prelu(shifted, np.array([LOW], np.float32)), np.float32(SHIFT))
    middle = op.add(op.hswish(low), np.float32(RISE))
    curve = op.prelu(middle, np.array([HIGH], np.float32))
    pieces = op.add(op.multiply(curve, np.float32(SCALE)), np.float32(REST))
    pieces.set_friendly_name(place.silu.get_friendly_name())
    place.silu.output(0).replace(pieces.output(0))
