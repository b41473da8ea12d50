"""Writes a few neighbouring nodes of an ONNX graph as fewer, which compute the same.

A GPU takes some microseconds for every kernel, whatever it computes; so for a small network at a
batch of one, how many there are is what counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raudo.graphs.fold import fold
from raudo.graphs.peephole import attention, convolutions, decoding, moves
from raudo.graphs.peephole.view import Draft, View
from raudo.graphs.surgery import prune

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

    from raudo.graphs.fold import Node

RULES: tuple[Callable[[Node, View, Draft], bool], ...] = (
    convolutions.run_twins_together,
    convolutions.join_heads,
    attention.project_apart,
    attention.scale_projection,
    decoding.divide_sums,
    decoding.move_both_corners,
    moves.pass_whole,
    moves.transpose_once,
    moves.keep_shape,
    moves.keep_type,
)
"""Each tells whether it applies to a node, and writes what takes its place; the first one does."""


def shorten(model: onnx.ModelProto) -> None:
    """Change a graph of the contract, wherever one of `RULES` applies."""
    import onnx

    if any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute):
        return  # what the branches of a condition read is not looked at here
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    view = View(fold(copy))
    drafts: dict[str, Draft] = {}
    for node in view.graph.nodes:
        draft = Draft(node.outputs[0])
        if any(rule(node, view, draft) for rule in RULES):
            drafts[node.outputs[0]] = draft
    nodes: list[onnx.NodeProto] = []
    for proto in model.graph.node:
        changed = drafts.get(proto.output[0])
        nodes += [proto] if changed is None else changed.nodes
    model.graph.initializer.extend(c for draft in drafts.values() for c in draft.constants)
    ordered = _ordered(nodes, model)
    for field in ("node", "value_info"):
        model.graph.ClearField(field)
    model.graph.node.extend(ordered)
    prune(model)


def _ordered(nodes: list[onnx.NodeProto], model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Move nodes behind those whose results they read; those that can keep their order."""
    known = {value.name for value in (*model.graph.input, *model.graph.initializer)}
    known.add("")  # an optional input that is not given
    ordered: list[onnx.NodeProto] = []
    while nodes:
        late = []
        for node in nodes:
            if known.issuperset(node.input):
                ordered.append(node)
                known.update(node.output)
            else:
                late.append(node)
        nodes = late
    return ordered
