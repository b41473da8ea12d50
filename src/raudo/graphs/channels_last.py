"""Translates ONNX graphs, where images have their channels second, to TFLite, where they are last.

Operators: https://onnx.ai/onnx/operators/ and the schema that `raudo.graphs.tflite` names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from raudo.errors import SourceError
from raudo.graphs.fold import DECODING
from raudo.graphs.tflite import Stored, TfliteFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from raudo.graphs.fold import Node, StaticGraph

FLOATS = (1, 10)
"""Element types (onnx.proto, TensorProto.DataType): float and float16, stored as float."""
LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
"""Orders of the axes: to channels last, and back."""
SAME_NAME = {
    "Exp": "EXP",
    "HardSwish": "HARD_SWISH",
    "Relu": "RELU",
    "Sigmoid": "LOGISTIC",
    "Sqrt": "SQRT",
    "Tanh": "TANH",
    "Add": "ADD",
    "Div": "DIV",
    "Max": "MAXIMUM",
    "Min": "MINIMUM",
    "Mul": "MUL",
    "Pow": "POW",
    "Sub": "SUB",
}
"""Element by element, with the same meaning in both formats."""
REDUCTIONS = {"ReduceMax": "REDUCE_MAX", "ReduceMean": "MEAN", "ReduceSum": "SUM"}
RESHAPES = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})


class Translator:
    """Translates one graph.

    Args:
        graph: What to translate.
        schema: The module generated from TFLite's schema.
    """

    def __init__(self, graph: StaticGraph, schema: Any) -> None:
        self._graph = graph
        self._file = TfliteFile(schema)
        self._values: dict[str, Stored] = {}
        self._moved: dict[tuple[int, bool], Stored] = {}

    def translate(self) -> bytes:
        """Return the content of the file.

        Raises:
            SourceError: An operator has no translation.
        """
        graph, scopes = self._graph, self._graph.scopes()
        for name in graph.inputs:
            self._file.scope = name
            self._values[name] = self._file.tensor(graph.shapes[name], np.uint8)
        for node in graph.nodes:
            output = node.outputs[0]
            self._file.scope = scopes[output]
            results = self._handler(node)(node)
            self._values.update(zip(node.outputs, results, strict=False))
        self._file.scope = DECODING
        ends = {name: self._plain(self._values[name]) for name in graph.outputs}
        return self._file.pack({name: self._values[name] for name in graph.inputs}, ends)

    def _handler(self, node: Node) -> Callable[[Node], Sequence[Stored]]:
        if node.operator in SAME_NAME:
            return self._each
        if node.operator in REDUCTIONS:
            return self._reduce
        if node.operator in RESHAPES:
            return self._reshape
        handler = getattr(self, f"_{node.operator.lower()}", None)
        if handler is None:
            raise _untranslatable(node)
        found: Callable[[Node], Sequence[Stored]] = handler
        return found

    # --- the order of the axes

    def _arranged(self, tensor: Stored, last: bool) -> Stored:
        if tensor.last == last or len(tensor.shape) != 4:
            return tensor
        key = (tensor.index, last)
        if key not in self._moved:
            moved = self._move(tensor, LAST if last else FIRST)
            self._moved[key] = Stored(moved.index, moved.shape, last)
        return self._moved[key]

    def _move(self, tensor: Stored, order: Sequence[int]) -> Stored:
        shape = [tensor.shape[axis] for axis in order]
        return self._file.emit("TRANSPOSE", [tensor, self._file.constant(order, np.int32)], shape)

    def _plain(self, tensor: Stored) -> Stored:
        return self._arranged(tensor, last=False)

    def _value(self, name: str) -> Stored:
        """Return a value; a constant one is written here."""
        if name in self._values:
            return self._values[name]
        return self._file.constant(self._graph.constants[name])

    def _beside(self, name: str, last: bool) -> Stored:
        """Return a value in the order of the axes of another one that it meets."""
        if name in self._values:
            return self._arranged(self._values[name], last)
        array = self._graph.constants[name]
        if last and array.size > 1:
            array = array.reshape((1,) * (4 - array.ndim) + array.shape).transpose(LAST)
        return self._file.constant(array)

    def _axis(self, tensor: Stored, axis: int) -> int:
        axis %= len(tensor.shape)
        return FIRST[axis] if tensor.last else axis

    def _shape(self, node: Node, last: bool, output: int = 0) -> tuple[int, ...]:
        shape = self._graph.shapes[node.outputs[output]]
        return tuple(shape[axis] for axis in LAST) if last and len(shape) == 4 else shape

    def _ints(self, node: Node, place: int, attribute: str) -> list[int] | None:
        """Return whole numbers that are an input or, in older operator sets, an attribute."""
        if len(node.inputs) > place and node.inputs[place]:
            return [int(n) for n in self._graph.constants[node.inputs[place]].reshape(-1)]
        found = node.attributes.get(attribute)
        return None if found is None else [int(n) for n in found]

    # --- operators: each returns the tensors that the node makes

    def _each(self, node: Node) -> Sequence[Stored]:
        last = any(self._values[name].last for name in node.inputs if name in self._values)
        inputs = [self._beside(name, last) for name in node.inputs]
        shape = self._shape(node, last)
        made = self._file.emit(SAME_NAME[node.operator], inputs, shape)
        return [Stored(made.index, made.shape, last)]

    def _leakyrelu(self, node: Node) -> Sequence[Stored]:
        value = self._values[node.inputs[0]]
        slope = node.attributes.get("alpha", 0.01)
        made = self._file.emit("LEAKY_RELU", [value], value.shape, "LeakyReluOptions", alpha=slope)
        return [Stored(made.index, made.shape, value.last)]

    def _clip(self, node: Node) -> Sequence[Stored]:
        value = made = self._values[node.inputs[0]]
        for operator, name in zip(("MAXIMUM", "MINIMUM"), node.inputs[1:], strict=False):
            if name:
                bound = self._file.constant(self._graph.constants[name])
                made = self._file.emit(operator, [made, bound], value.shape)
        return [Stored(made.index, made.shape, value.last)]

    def _identity(self, node: Node) -> Sequence[Stored]:
        return [self._value(node.inputs[0])]

    def _cast(self, node: Node) -> Sequence[Stored]:
        value = self._value(node.inputs[0])
        if node.attributes["to"] not in FLOATS:
            raise _untranslatable(node)
        if self._file.is_float(value):
            return [value]
        made = self._file.emit("CAST", [value], value.shape, "CastOptions")
        return [Stored(made.index, made.shape, value.last)]

    def _conv(self, node: Node) -> Sequence[Stored]:
        weights = self._graph.constants[node.inputs[1]]
        image = self._arranged(self._values[node.inputs[0]], last=True)
        outputs, group = weights.shape[0], node.attributes.get("group", 1)
        window = _Window(node, weights.shape[2:])
        image, padding = self._padded(image, window)
        bias = (
            self._graph.constants[node.inputs[2]]
            if len(node.inputs) > 2
            else np.zeros(outputs, np.float32)
        )
        deep = group > 1 and group == image.shape[3]
        kernel = weights.transpose((1, 2, 3, 0) if deep else (0, 2, 3, 1))
        options = window.options(padding, dilated=True)
        if deep:
            options["depthMultiplier"] = outputs // group
        return self._image(
            node,
            "DEPTHWISE_CONV_2D" if deep else "CONV_2D",
            [image, self._file.constant(kernel), self._file.constant(bias)],
            "DepthwiseConv2DOptions" if deep else "Conv2DOptions",
            **options,
        )

    def _image(
        self, node: Node, operator: str, inputs: Sequence[Stored], table: str, **options: Any
    ) -> Sequence[Stored]:
        """Add an operator whose output has its channels last."""
        shape = self._shape(node, last=True)
        made = self._file.emit(operator, inputs, shape, table, **options)
        return [Stored(made.index, made.shape, last=True)]

    def _padded(
        self, image: Stored, window: _Window, fill: float = 0.0, *, written: bool = False
    ) -> tuple[Stored, int]:
        """Pad an image, if the window's own padding is not one that TFLite has a word for.

        Args:
            image: Channels last.
            window: Tells how much.
            fill: The value of the padding.
            written: Whether to write the padding out in any case.
        """
        if not any(window.pads):
            return image, self._file.schema.Padding.VALID
        if window.keeps_size and not written:
            return image, self._file.schema.Padding.SAME
        top, left, bottom, right = window.pads
        batch, height, width, channels = image.shape
        shape = (batch, height + top + bottom, width + left + right, channels)
        sides = self._file.constant([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
        if fill == 0:
            return self._file.emit("PAD", [image, sides], shape), self._file.schema.Padding.VALID
        filled = [image, sides, self._file.constant([fill])]
        return self._file.emit("PADV2", filled, shape), self._file.schema.Padding.VALID

    def _maxpool(self, node: Node) -> Sequence[Stored]:
        lowest = float(np.finfo(np.float32).min)
        return self._pool(node, "MAX_POOL_2D", lowest, written=False)

    def _averagepool(self, node: Node) -> Sequence[Stored]:
        counted = bool(node.attributes.get("count_include_pad", 0))
        window = _Window(node, node.attributes["kernel_shape"])
        if any(window.pads) and not (counted or window.keeps_size):
            raise _untranslatable(node)
        return self._pool(node, "AVERAGE_POOL_2D", 0.0, written=counted)

    def _pool(self, node: Node, operator: str, fill: float, *, written: bool) -> Sequence[Stored]:
        image = self._arranged(self._values[node.inputs[0]], last=True)
        window = _Window(node, node.attributes["kernel_shape"])
        if node.attributes.get("ceil_mode", 0):
            raise _untranslatable(node)
        image, padding = self._padded(image, window, fill, written=written)
        options = window.options(padding) | {
            "filterHeight": window.kernel[0],
            "filterWidth": window.kernel[1],
        }
        return self._image(node, operator, [image], "Pool2DOptions", **options)

    def _globalaveragepool(self, node: Node) -> Sequence[Stored]:
        image = self._arranged(self._values[node.inputs[0]], last=True)
        axes = self._file.constant([1, 2], np.int32)
        return self._image(node, "MEAN", [image, axes], "ReducerOptions", keepDims=True)

    def _resize(self, node: Node) -> Sequence[Stored]:
        image = self._arranged(self._values[node.inputs[0]], last=True)
        shape = self._shape(node, last=True)
        size = self._file.constant(shape[1:3], np.int32)
        rule = node.attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
        if node.attributes.get("mode", b"nearest") == b"linear":
            options = {
                "alignCorners": rule == "align_corners",
                "halfPixelCenters": rule.endswith("half_pixel"),
            }
            name, table = "RESIZE_BILINEAR", "ResizeBilinearOptions"
        elif all(big % small == 0 for big, small in zip(shape, image.shape, strict=True)):
            options = {}  # at whole factors all rules agree
            name, table = "RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"
        else:
            raise _untranslatable(node)
        return self._image(node, name, [image, size], table, **options)

    def _concat(self, node: Node) -> Sequence[Stored]:
        last = any(self._values[name].last for name in node.inputs if name in self._values)
        parts = [self._beside(name, last) for name in node.inputs]
        shape = self._shape(node, last)
        axis = self._axis(Stored(-1, shape, last), node.attributes["axis"])
        made = self._file.emit("CONCATENATION", parts, shape, "ConcatenationOptions", axis=axis)
        return [Stored(made.index, made.shape, last)]

    def _slice(self, node: Node) -> Sequence[Stored]:
        value = self._values[node.inputs[0]]
        starts, ends = self._ints(node, 1, "starts") or [], self._ints(node, 2, "ends") or []
        axes = self._ints(node, 3, "axes") or list(range(len(starts)))
        steps = self._ints(node, 4, "steps") or [1] * len(starts)
        ranges = [range(side) for side in value.shape]
        for axis, *bounds in zip(axes, starts, ends, steps, strict=True):
            place = self._axis(value, axis)
            ranges[place] = ranges[place][slice(*bounds)]
        return [self._cut(value, ranges)]

    def _split(self, node: Node) -> Sequence[Stored]:
        value = self._values[node.inputs[0]]
        axis = self._axis(value, node.attributes.get("axis", 0))
        start, parts = 0, []
        for number in range(len(node.outputs)):
            size = self._shape(node, value.last, number)[axis]
            ranges = [range(side) for side in value.shape]
            ranges[axis] = range(start, start + size)
            parts.append(self._cut(value, ranges))
            start += size
        return parts

    def _cut(self, value: Stored, ranges: Sequence[range]) -> Stored:
        shape = [len(r) for r in ranges]
        starts = self._file.constant([r.start for r in ranges], np.int32)
        if all(r.step == 1 for r in ranges):
            inputs = [value, starts, self._file.constant(shape, np.int32)]
            made = self._file.emit("SLICE", inputs, shape, "SliceOptions")
        else:
            ends = self._file.constant([r.stop for r in ranges], np.int32)
            inputs = [value, starts, ends, self._file.constant([r.step for r in ranges], np.int32)]
            made = self._file.emit("STRIDED_SLICE", inputs, shape, "StridedSliceOptions")
        return Stored(made.index, made.shape, value.last)

    def _transpose(self, node: Node) -> Sequence[Stored]:
        value = self._values[node.inputs[0]]
        order = tuple(node.attributes["perm"])
        if value.last and order == LAST:
            return [Stored(value.index, value.shape)]
        if not value.last and order == FIRST:
            return [Stored(value.index, value.shape, last=True)]
        return [self._move(self._plain(value), order)]

    def _reshape(self, node: Node) -> Sequence[Stored]:
        value, shape = self._plain(self._values[node.inputs[0]]), self._shape(node, last=False)
        wanted = self._file.constant(shape, np.int32)
        sides = np.array(shape, np.int32)
        return [
            self._file.emit("RESHAPE", [value, wanted], shape, "ReshapeOptions", newShape=sides)
        ]

    def _softmax(self, node: Node) -> Sequence[Stored]:
        value = self._values[node.inputs[0]]
        axis, end = self._axis(value, node.attributes.get("axis", -1)), len(value.shape) - 1
        order = [n for n in range(end + 1) if n != axis] + [axis]
        moved = value if axis == end else self._move(value, order)
        made = self._file.emit("SOFTMAX", [moved], moved.shape, "SoftmaxOptions", beta=1.0)
        if axis != end:
            made = self._move(made, [order.index(n) for n in range(end + 1)])
        return [Stored(made.index, made.shape, value.last)]

    def _gather(self, node: Node) -> Sequence[Stored]:
        value, shape = self._plain(self._values[node.inputs[0]]), self._shape(node, last=False)
        axis = node.attributes.get("axis", 0) % len(value.shape)
        indices = self._graph.constants[node.inputs[1]] % value.shape[axis]
        picked = [value, self._file.constant(indices, np.int32)]
        return [self._file.emit("GATHER", picked, shape, "GatherOptions", axis=axis)]

    def _matmul(self, node: Node) -> Sequence[Stored]:
        factors = [self._plain(self._value(name)) for name in node.inputs]
        return [self._file.emit("BATCH_MATMUL", factors, self._shape(node, last=False))]

    def _reduce(self, node: Node) -> Sequence[Stored]:
        value = self._plain(self._values[node.inputs[0]])
        axes = self._ints(node, 1, "axes") or list(range(len(value.shape)))
        places = self._file.constant([axis % len(value.shape) for axis in axes], np.int32)
        keep, shape = bool(node.attributes.get("keepdims", 1)), self._shape(node, last=False)
        name, inputs = REDUCTIONS[node.operator], [value, places]
        return [self._file.emit(name, inputs, shape, "ReducerOptions", keepDims=keep)]


def _untranslatable(node: Node) -> SourceError:
    return SourceError(
        f"the operator {node.operator} of '{node.outputs[0]}' has no TFLite translation",
        hint="this model can run in the other formats ('raudo list')",
    )


class _Window:
    """How a convolution or a pooling moves over an image."""

    def __init__(self, node: Node, kernel: Sequence[int]) -> None:
        given = node.attributes
        self.kernel = tuple(kernel)
        self.strides = tuple(given.get("strides", (1, 1)))
        self.dilations = tuple(given.get("dilations", (1, 1)))
        self.pads = tuple(given.get("pads", (0, 0, 0, 0)))

    @property
    def keeps_size(self) -> bool:
        """Whether the padding is the one that TFLite calls SAME, whatever the size."""
        reach = [d * (k - 1) for k, d in zip(self.kernel, self.dilations, strict=True)]
        half = [r // 2 for r in reach]
        even = all(r % 2 == 0 for r in reach)
        return self.strides == (1, 1) and even and self.pads == (*half, *half)

    def options(self, padding: int, *, dilated: bool = False) -> dict[str, Any]:
        """Return the fields that all tables of options of such operators share."""
        fields = {"padding": padding, "strideH": self.strides[0], "strideW": self.strides[1]}
        if dilated:
            fields |= {
                "dilationHFactor": self.dilations[0],
                "dilationWFactor": self.dilations[1],
            }
        return fields
