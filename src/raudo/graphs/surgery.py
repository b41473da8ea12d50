"""Edits ONNX graphs: shapes, and nodes before and after a graph."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx
    from numpy.typing import NDArray

BATCH = "batch"
FLOAT, UINT8, INT8, INT64, FLOAT16 = 1, 2, 3, 7, 10
"""Element types (onnx.proto, TensorProto.DataType)."""
_PREFIX, _ADDED = "source/", "contract/"


def inputs_of(model: onnx.ModelProto) -> list[Any]:
    """Return the inputs of a graph; old files list their weights among them, which are not."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def shape_of(value: Any) -> tuple[int, ...]:
    """Return the shape of an input or output; -1 where it is dynamic."""
    dims = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dims)


def prune(model: onnx.ModelProto) -> None:
    """Remove the nodes and the constants that no output needs."""
    needed = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(reversed(kept))
    model.graph.initializer.extend(tensors)


def fix_shapes(model: onnx.ModelProto, height: int, width: int) -> tuple[int, ...]:
    """Fix the sides of the one input, free its batch where the graph allows, infer all shapes.

    Args:
        model: A graph with one input [batch, 3, height, width] and one output; it is changed.
        height: Pixels.
        width: Pixels.

    Returns:
        The shape of the output; -1 where it stays unknown.
    """
    dims = inputs_of(model)[0].type.tensor_type.shape.dim
    dims[2].dim_value, dims[3].dim_value = height, width
    declared = shape_of(model.graph.output[0])
    free = not dims[0].HasField("dim_value") or _free_batch(model)
    dims[0].dim_param = BATCH
    if not (free and _infer(model)):
        # Inference replaces the graph, and its input with it.
        inputs_of(model)[0].type.tensor_type.shape.dim[0].dim_value = 1
        _infer(model)
    inferred = shape_of(model.graph.output[0])
    if len(inferred) != len(declared):
        return declared
    return tuple(i if i > 0 else d for i, d in zip(inferred, declared, strict=True))


def _infer(model: onnx.ModelProto) -> bool:
    """Infer all shapes anew, and tell whether the batch reaches the output."""
    import onnx

    model.graph.ClearField("value_info")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return False
    model.graph.CopyFrom(inferred.graph)
    dims = model.graph.output[0].type.tensor_type.shape.dim
    return len(dims) > 0 and dims[0].dim_param == BATCH


def _free_batch(model: onnx.ModelProto) -> bool:
    """Make a graph of batch one take any batch; tell whether that works, by its shapes at two."""
    import onnx

    _free_reshapes(model)
    twice = onnx.ModelProto()
    twice.CopyFrom(model)
    inputs_of(twice)[0].type.tensor_type.shape.dim[0].dim_value = 2
    if _infer(twice) or shape_of(twice.graph.output[0])[:1] != (2,):
        return False
    values = (*twice.graph.value_info, *twice.graph.output)
    sizes = {
        value.name: math.prod(shape_of(value)) for value in values if -1 not in shape_of(value)
    }
    reshapes = [node for node in twice.graph.node if node.op_type == "Reshape"]
    return all(
        node.input[0] in sizes and sizes[node.input[0]] == sizes.get(node.output[0])
        for node in reshapes
    )


def _free_reshapes(model: onnx.ModelProto) -> None:
    """Let reshapes to a batch of one keep whatever batch comes in (0 means: as in the input)."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    first = {value.name: shape[0] for value in values if (shape := shape_of(value))}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    for node in model.graph.node:
        target = constants.get(node.input[1]) if node.op_type == "Reshape" else None
        if target is None or first.get(node.input[0]) != 1:
            continue
        sides = numpy_helper.to_array(target).copy()
        if sides.size and sides[0] == 1:
            sides[0] = 0
            target.CopyFrom(numpy_helper.from_array(sides, target.name))


class Graph:
    """A graph with one input and one output, to which nodes are added before and after.

    Args:
        model: Its names are prefixed, so that those of the contract are free; it is copied.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        from onnx import compose

        self.model: onnx.ModelProto = compose.add_prefix(model, _PREFIX)
        self.source = inputs_of(self.model)[0]
        self.result: str = self.model.graph.output[0].name
        self.element: int = self.source.type.tensor_type.elem_type
        self._before: list[onnx.NodeProto] = []
        self._after: list[onnx.NodeProto] = []
        self._added = self._before
        self._constants = 0

    def append(self) -> None:
        """Let nodes that are added from now on come after the graph instead of before it."""
        self._added = self._after

    def node(
        self, operator: str, inputs: Iterable[str], output: str = "", **attributes: Any
    ) -> str:
        """Add a node, and return the name of its output."""
        from onnx import helper

        output = output or f"{_ADDED}{operator}_{len(self._before) + len(self._after)}"
        added = helper.make_node(operator, list(inputs), [output], name=output, **attributes)
        self._added.append(added)
        return output

    def constant(self, values: Any, dtype: str = "float32") -> str:
        """Add a constant, and return its name."""
        import numpy as np
        from onnx import numpy_helper

        self._constants += 1
        name = f"{_ADDED}constant_{self._constants}"
        array = np.ascontiguousarray(np.asarray(values, dtype)).reshape(np.shape(values))
        self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def cut(self, tensor: str, start: int, end: int, output: str = "") -> str:
        """Cut a range out of the last of three axes."""
        bounds = [self.constant([value], "int64") for value in (start, end, 2)]
        return self.node("Slice", [tensor, *bounds], output)

    def pick(self, tensor: str, index: int, output: str = "") -> str:
        """Pick one place of the last of three axes, which goes away."""
        return self.node("Gather", [tensor, self.constant(index, "int64")], output, axis=2)

    def floats(self, tensor: str) -> str:
        """Cast to float32, unless the graph computes in it."""
        return tensor if self.element == FLOAT else self.node("Cast", [tensor], to=FLOAT)

    def corners(self, centres: str, sizes: str, output: str) -> str:
        """Turn centres and sizes, each [batch, n, 2], into corners [batch, n, 4]."""
        halves = self.node("Mul", [sizes, self.constant(0.5)])
        low = self.node("Sub", [centres, halves])
        high = self.node("Add", [centres, halves])
        return self.node("Concat", [low, high], output, axis=2)

    def fold_pixels(self) -> bool:
        """Put BGR -> RGB and the division by 255 into the first convolution, if that is possible.

        Whole numbers up to 255 are exact in every precision, their 255th parts are not.
        """
        from onnx import numpy_helper

        users = [node for node in self.model.graph.node if self.source.name in node.input]
        if len(users) != 1 or users[0].op_type != "Conv" or self.element != FLOAT:
            return False
        weights = [t for t in self.model.graph.initializer if t.name == users[0].input[1]]
        if not weights or weights[0].dims[1] != 3:
            return False
        users[0].input[1] = self.constant(numpy_helper.to_array(weights[0])[:, ::-1] / 255)
        if not any(weights[0].name in node.input for node in self.model.graph.node):
            self.model.graph.initializer.remove(weights[0])
        return True

    def undo_concat(self) -> tuple[str, str] | None:
        """Remove a last concatenation of boxes and sigmoids, and return both; None without one."""
        makers = {name: node for node in self.model.graph.node for name in node.output}
        last = makers[self.result]
        if last.op_type != "Concat" or len(last.input) != 2:
            return None
        boxes, scores = last.input
        if scores not in makers or makers[scores].op_type != "Sigmoid":
            return None
        self.model.graph.node.remove(last)
        return boxes, scores

    def makers_behind(self, through: frozenset[str]) -> tuple[set[str], set[str]]:
        """Follow the result back through some operators.

        Returns:
            The operators that were passed, and those at which it stopped.
        """
        makers = {name: node for node in self.model.graph.node for name in node.output}
        passed: set[str] = set()
        stopped: set[str] = set()
        waiting, seen = [self.result], set()
        while waiting:
            name = waiting.pop()
            if name in seen or name not in makers:
                continue
            seen.add(name)
            node = makers[name]
            if node.op_type in through:
                passed.add(node.op_type)
                waiting.extend(node.input)
            else:
                stopped.add(node.op_type)
        return passed, stopped

    def finish(self, height: int, width: int, outputs: dict[str, list[int]]) -> onnx.ModelProto:
        """Join all nodes, declare the contract's input and outputs, and check the graph.

        Args:
            height: Pixels of the input.
            width: Pixels of the input.
            outputs: Shapes by name, without the batch; -1 is dynamic; `labels` are integers.
        """
        import onnx
        from onnx import helper

        graph = self.model.graph
        batch = self.source.type.tensor_type.shape.dim[0].dim_param or 1
        weights = [value for value in graph.input if value.name != self.source.name]
        nodes = [*self._before, *graph.node, *self._after]
        for name in ("node", "input", "output", "value_info"):
            graph.ClearField(name)
        graph.node.extend(nodes)
        shape = [batch, height, width, 3]
        graph.input.extend([helper.make_tensor_value_info("images", UINT8, shape), *weights])
        for name, sides in outputs.items():
            known = [side if side > 0 else None for side in sides]
            kind = INT64 if name == "labels" else FLOAT
            graph.output.append(helper.make_tensor_value_info(name, kind, [batch, *known]))
        onnx.checker.check_model(self.model)
        return self.model


def cells(height: int, width: int, strides: Iterable[int]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the cells of a detector's grids, row by row, finest grid first.

    Returns:
        Columns and rows float32 [1, n, 2], and strides float32 [1, n, 1].
    """
    import numpy as np

    places, scale = [], []
    for stride in strides:
        rows, columns = np.indices((height // stride, width // stride), np.float32)
        places.append(np.stack((columns.reshape(-1), rows.reshape(-1)), 1))
        scale.append(np.full((rows.size, 1), stride, np.float32))
    return np.concatenate(places)[None], np.concatenate(scale)[None]
