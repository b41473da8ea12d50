"""Takes quantizers out of a quantized graph again: one calibration serves many trials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

MOVERS = frozenset({"Concat", "Reshape", "Transpose"})
"""What quantizers are moved ahead of, since it only moves values."""


def restored(graph: Any, exact: Any, layers: Collection[str]) -> Any:
    """Return a copy of a quantized graph in which layers have their precision back.

    Args:
        graph: With FakeQuantize operations and weights in INT8, or an ONNX model with pairs of
            QuantizeLinear and DequantizeLinear.
        exact: The graph before it was quantized.
        layers: Names of convolutions and products.
    """
    if hasattr(graph, "graph"):
        return _restored_onnx(graph, layers)
    copy = graph.clone()
    weights = {
        node.get_friendly_name(): node.input_value(1)
        for node in exact.get_ordered_ops()
        if node.get_friendly_name() in layers
        and node.input_value(1).get_node().get_type_name() == "Constant"
    }
    for node in copy.get_ordered_ops():
        name = node.get_friendly_name()
        if name in layers:
            _bypass(node.input(0))
        if name in weights:
            node.input(1).replace_source_output(weights[name])
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


def _restored_onnx(model: Any, layers: Collection[str]) -> Any:
    copy = type(model)()
    copy.CopyFrom(model)
    makers = {output: node for node in copy.graph.node for output in node.output}
    for node in copy.graph.node:
        for place, name in enumerate(node.input if node.name in layers else ()):
            back = makers.get(name)
            if back is None or back.op_type != "DequantizeLinear":
                continue
            there = makers.get(back.input[0])
            if there is not None and there.op_type == "QuantizeLinear":
                node.input[place] = there.input[0]
    return copy
