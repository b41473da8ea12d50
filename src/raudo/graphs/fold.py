"""Reads an ONNX graph for translation: batch one, all that depends on no image computed ahead."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

DECODING = "decoding/"
"""What the scopes of the values from the last convolutions to the outputs begin with."""
OF_LAYER = "|"
"""Ends the name of a layer, which the scopes of its values begin with."""
LAYERS = frozenset({"Conv", "Gemm", "MatMul"})
MOVES = frozenset({"Cast", "Identity", "Reshape", "Transpose"})


@dataclass(frozen=True)
class Node:
    """One operation on at least one value that depends on the images.

    Attributes:
        operator: ONNX's name of it.
        inputs: Names of values; empty for an optional input that is not given.
        outputs: Names of values.
        attributes: As ONNX defines them for the operator; those left out are absent.
    """

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass
class StaticGraph:
    """A graph in which every shape is known.

    Attributes:
        inputs: Names of the values that come in.
        outputs: Names of the values that go out.
        nodes: In the order of their computation.
        constants: Values that depend on no input.
        shapes: Of all other values.
        types: Element types of these (onnx.proto, TensorProto.DataType).
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)

    def makers(self) -> dict[str, Node]:
        """Return the node that makes each value."""
        return {name: node for node in self.nodes for name in node.outputs}

    def scopes(self) -> dict[str, str]:
        """Return a name for what each node makes, that tells its layer, or that it decodes."""
        decoding, layers = self.decoding(), self._layers()
        outputs = [node.outputs[0] for node in self.nodes]
        return {
            name: (DECODING if name in decoding else layers.get(name, "") + OF_LAYER) + name
            for name in outputs
        }

    def _layers(self) -> dict[str, str]:
        """Return the layer of each value, by the name of the layer's own output.

        That is the last convolution or product that it depends on; values before all of them have
        none. An activation belongs to the layer before it.
        """
        found: dict[str, str] = {}
        places: dict[str, int] = {}
        for place, node in enumerate(self.nodes):
            before = [found[name] for name in node.inputs if name in found]
            if node.operator in LAYERS:
                before = [node.outputs[0]]
                places[node.outputs[0]] = place
            if before:
                last = max(before, key=places.__getitem__)
                found.update(dict.fromkeys(node.outputs, last))
        return found

    def decoding(self) -> set[str]:
        """Return the values from the last convolutions, theirs included, to the outputs.

        A convolution of a softmax is no layer that predicts: it is the weighted sum that decodes
        distribution focal loss, arXiv 2006.04388.
        """
        makers, found = self.makers(), set[str]()
        ahead = [name for name in self.outputs if name in makers]
        while ahead:
            name = ahead.pop()
            if name in found:
                continue
            found.add(name)
            node = makers[name]
            if node.operator != "Conv" or _source(node, makers).operator == "Softmax":
                ahead.extend(value for value in node.inputs if value in makers)
        return found


def _source(node: Node, makers: Mapping[str, Node]) -> Node:
    """Return the node that computes the first input of another; moving is no computing."""
    while node.inputs[0] in makers:
        node = makers[node.inputs[0]]
        if node.operator not in MOVES:
            break
    return node


def fold(model: onnx.ModelProto) -> StaticGraph:
    """Set the batch to one, infer all shapes, and compute what depends on no input.

    Raises:
        onnx.shape_inference.InferenceError: The graph contradicts itself.
    """
    from onnx import numpy_helper

    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    entering = [value for value in model.graph.input if value.name not in weights]
    graph = StaticGraph(
        tuple(value.name for value in entering),
        tuple(value.name for value in model.graph.output),
        constants=weights,
    )
    types: dict[str, onnx.TypeProto] = {}
    for value in entering:
        types[value.name] = value.type
        types[value.name].tensor_type.shape.dim[0].dim_value = 1
    for proto in model.graph.node:
        if not _compute(proto, graph, types, model):
            types.update(_infer(proto, graph, types, model))
            graph.nodes.append(_node(proto))
    graph.shapes = {
        name: tuple(d.dim_value for d in kind.tensor_type.shape.dim) for name, kind in types.items()
    }
    graph.types = {name: kind.tensor_type.elem_type for name, kind in types.items()}
    return graph


def _node(proto: onnx.NodeProto) -> Node:
    from onnx import helper

    attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
    return Node(proto.op_type, tuple(proto.input), tuple(proto.output), attributes)


def _compute(
    proto: onnx.NodeProto,
    graph: StaticGraph,
    types: dict[str, onnx.TypeProto],
    model: onnx.ModelProto,
) -> bool:
    """Compute a node ahead; tell whether that was possible."""
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    known: dict[str, NDArray[Any]] = {
        name: graph.constants[name] for name in proto.input if name in graph.constants
    }
    if proto.op_type == "Shape":  # an empty array of that shape will do
        kind = types[proto.input[0]].tensor_type
        sides = tuple(d.dim_value for d in kind.shape.dim)
        known = {proto.input[0]: np.broadcast_to(np.zeros((), np.uint8), sides)}
    if len(known) < len({name for name in proto.input if name}):
        return False
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in known.items()
    ]
    results = [helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in proto.output]
    single = helper.make_model(
        helper.make_graph([proto], "one", values, results), opset_imports=model.opset_import
    )
    arrays: list[Any] = ReferenceEvaluator(single).run(None, known)
    graph.constants.update(zip(proto.output, map(np.asarray, arrays), strict=True))
    return True


def _infer(
    proto: onnx.NodeProto,
    graph: StaticGraph,
    types: dict[str, onnx.TypeProto],
    model: onnx.ModelProto,
) -> dict[str, onnx.TypeProto]:
    from onnx import defs, helper, numpy_helper, shape_inference

    opsets = {o.domain: o.version for o in model.opset_import}
    arrays = {n: graph.constants[n] for n in proto.input if n in graph.constants}
    known = {name: types[name] for name in proto.input if name in types} | {
        name: helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in arrays.items()
    }
    data = {
        name: numpy_helper.from_array(np.ascontiguousarray(a).reshape(a.shape), name)
        for name, a in arrays.items()
        if a.size <= 64  # shapes, ranges and scales
    }
    schema = defs.get_schema(proto.op_type, opsets.get(proto.domain, 1), proto.domain)
    inferred: dict[str, onnx.TypeProto] = shape_inference.infer_node_outputs(
        schema, proto, known, data, opset_imports=list(model.opset_import), ir_version=8
    )
    return inferred
