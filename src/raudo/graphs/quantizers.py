"""Takes quantizers out of a quantized graph again: one calibration serves many engines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raudo.graphs.surgery import prune

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MOVERS = frozenset({"Concat", "Reshape", "Transpose"})
"""What quantizers are moved ahead of, since it only moves values."""


def restored(graph: Any, exact: Any, layers: Collection[str]) -> Any:
    """Return a copy of a quantized graph in which layers have their precision back.

    Their weights, and their biases, which calibration may have corrected for rounding that is no
    more, are those of the exact graph.

    Args:
        graph: With FakeQuantize operations and weights in INT8, or an ONNX model with pairs of
            QuantizeLinear and DequantizeLinear.
        exact: The graph before it was quantized.
        layers: Names of convolutions and products.
    """
    if hasattr(graph, "graph"):
        return _restored_onnx(graph, exact, layers)
    copy = graph.clone()
    originals = {node.get_friendly_name(): node for node in exact.get_ordered_ops()}
    for node in copy.get_ordered_ops():
        if node.get_friendly_name() in layers:
            _bypass(node.input(0))
            _take_constants(node, originals[node.get_friendly_name()])
            _restore_bias(node, originals)
    return copy


def _bypass(socket: Any) -> None:
    """Let an input read what a quantizer before it reads."""
    output = socket.get_source_output()
    source = output.get_node()
    if source.get_type_name() == "FakeQuantize":
        socket.replace_source_output(source.input_value(0))
    elif source.get_type_name() in MOVERS and len(output.get_target_inputs()) == 1:
        for before in source.inputs():
            _bypass(before)


def _restore_bias(layer: Any, originals: Mapping[str, Any]) -> None:
    """Undo what was added to a layer, or take away what nothing was added to before."""
    for socket in layer.output(0).get_target_inputs():
        follower = socket.get_node()
        if follower.get_type_name() != "Add":
            continue
        if original := originals.get(follower.get_friendly_name()):
            _take_constants(follower, original)
        else:
            follower.output(0).replace(layer.output(0))


def _take_constants(node: Any, original: Any) -> None:
    """Let an operation read the constants that the original one reads."""
    for place, value in enumerate(original.input_values()):
        if value.get_node().get_type_name() == "Constant":
            node.input(place).replace_source_output(value)


def _restored_onnx(model: Any, exact: Any, layers: Collection[str]) -> Any:
    copy = type(model)()
    copy.CopyFrom(model)
    makers = {output: node for node in copy.graph.node for output in node.output}
    originals = {node.name: node for node in exact.graph.node}
    constants = {tensor.name: tensor for tensor in exact.graph.initializer}
    added = set[str]()
    for node in copy.graph.node:
        if node.name not in layers:
            continue
        del node.input[len(originals[node.name].input) :]
        for place, name in enumerate(originals[node.name].input):
            if name in constants:
                node.input[place] = f"{name}_exact"
                if name not in added:
                    copy.graph.initializer.add().CopyFrom(constants[name])
                    copy.graph.initializer[-1].name = node.input[place]
                    added.add(name)
            elif there := _quantizer(node.input[place], makers):
                node.input[place] = there.input[0]
    prune(copy)
    return copy


def _quantizer(value: str, makers: Mapping[str, Any]) -> Any:
    """Return the node that quantizes a value, which another one dequantizes; or None."""
    back = makers.get(value)
    if back is None or back.op_type != "DequantizeLinear":
        return None
    there = makers.get(back.input[0])
    return there if there is not None and there.op_type == "QuantizeLinear" else None
