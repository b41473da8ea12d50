"""Brings Q/DQ nodes of an ONNX graph into the shape that GPUs have INT8 kernels for.

Every convolution reads signed bytes, through a pair of its own, and its weights are floats before
a pair as well: TensorRT 8 takes none that are bytes already ("Working with quantized types",
NVIDIA's TensorRT documentation; QuantizeLinear, ONNX operators).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raudo.graphs.surgery import INT8, UINT8

if TYPE_CHECKING:
    import onnx

PAIR = ("QuantizeLinear", "DequantizeLinear")
HEAVY = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
MOVERS = frozenset({"Concat", "MaxPool", "Resize", "Slice", "Split"})
MOVERS |= {"Flatten", "Gather", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators that only move, choose or repeat values, so that a scale before them holds behind."""


def for_gpu(model: onnx.ModelProto) -> None:
    """Change a graph whose quantizers have no offset; others are left as they are."""
    _sign(model)
    _join_channels(model)
    _pair_inputs(model)
    _unpack_weights(model)
    model.graph.ClearField("value_info")


def _sign(model: onnx.ModelProto) -> None:
    """Turn quantizers to 0 .. 255 into such to -127 .. 127 of the same range."""
    import numpy as np
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    scales, zeros = set[str](), set[str]()
    for node in model.graph.node:
        if node.op_type in PAIR and len(node.input) == 3:
            _, scale, zero = node.input
            tensor = constants[zero]
            if tensor.data_type == UINT8 and not numpy_helper.to_array(tensor).any():
                scales.add(scale)
                zeros.add(zero)
    for name in scales:
        old = numpy_helper.to_array(constants[name])
        new = (old * (255 / 127)).astype(old.dtype)
        constants[name].CopyFrom(numpy_helper.from_array(new, name))
    for name in zeros:
        new = numpy_helper.to_array(constants[name]).astype(np.int8)
        constants[name].CopyFrom(numpy_helper.from_array(new, name))


def _join_channels(model: onnx.ModelProto) -> None:
    """Give values that are no weights one step each, the largest of their channels'.

    Depthwise convolutions may read channels of different steps, for which TensorRT has no kernel.
    """
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = set(constants)
    joined: dict[str, onnx.TensorProto] = {}
    for node in model.graph.node:
        if node.op_type not in PAIR:
            continue
        if node.input[0] in weights:
            weights.update(node.output)
            continue
        steps, zeros = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
        if steps.size == 1 or zeros.any():
            continue
        for place, values in ((1, steps), (2, zeros)):
            node.input[place] += "/joined"
            joined[node.input[place]] = numpy_helper.from_array(values.max(), node.input[place])
        node.ClearField("attribute")
    model.graph.initializer.extend(joined.values())


def _unpack_weights(model: onnx.ModelProto) -> None:
    """Store quantized weights as the floats that they stand for, and quantize those."""
    import numpy as np
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        tensor = constants.get(node.input[0]) if node.op_type == PAIR[1] else None
        if tensor is not None and tensor.data_type == INT8:
            weights = numpy_helper.to_array(tensor).astype(np.float32)
            steps = numpy_helper.to_array(constants[node.input[1]])
            axes = {a.name: a.i for a in node.attribute}
            if steps.ndim:
                sides = [1] * weights.ndim
                sides[axes.get("axis", 1)] = -1
                steps = steps.reshape(sides)
            tensor.CopyFrom(numpy_helper.from_array(weights * steps, tensor.name))
            byte = f"{tensor.name}/quantized"
            inputs = [tensor.name, *node.input[1:]]
            nodes.append(helper.make_node(PAIR[0], inputs, [byte], name=byte, **axes))
            node.input[0] = byte
        nodes.append(node)
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)


def _pair_inputs(model: onnx.ModelProto) -> None:
    """Give a pair to each quantized convolution whose input only came from one a few moves ago."""
    from onnx import helper

    makers = {name: node for node in model.graph.node for name in node.output}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        weight = makers.get(node.input[1]) if node.op_type in HEAVY else None
        if weight is not None and weight.op_type == PAIR[1]:
            pair = _pair_before(node.input[0], makers, model)
            if pair is not None:
                byte, value = (f"{node.name}/{part}" for part in ("quantized", "input"))
                for kind, given, made in ((PAIR[0], node.input[0], byte), (PAIR[1], byte, value)):
                    nodes.append(helper.make_node(kind, [given, *pair], [made], name=made))
                node.input[0] = value
        nodes.append(node)
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)


def _pair_before(
    name: str, makers: dict[str, Any], model: onnx.ModelProto
) -> tuple[str, str] | None:
    """Return scale and zero point of the pairs that a value was moved from, the largest of them.

    None where a pair is right before it, or where a part of it comes from elsewhere.
    """
    from onnx import numpy_helper

    if name in makers and makers[name].op_type == PAIR[1]:
        return None
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[float, tuple[str, str]] = {}
    ahead, seen = [name], {name}
    while ahead:
        node = makers.get(ahead.pop())
        if node is None:
            return None
        if node.op_type == PAIR[1]:
            scale, zero = node.input[1:3]
            found[float(numpy_helper.to_array(constants[scale]).max())] = (scale, zero)
            continue
        if node.op_type not in MOVERS:
            return None
        moved = node.input if node.op_type == "Concat" else node.input[:1]
        ahead += [value for value in moved if value not in seen]
        seen.update(moved)
    return found[max(found)]
