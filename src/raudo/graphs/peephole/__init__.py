"""Writes a few neighbouring nodes of an ONNX graph as fewer, which compute the same.

A GPU takes some microseconds for every kernel, whatever it computes; so for a small network at a
batch of one, how many there are is what counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raudo.graphs.fold import fold
from raudo.graphs.peephole import attention, convolutions, decoding, moves, sources
from raudo.graphs.peephole.view import Draft, View
from raudo.graphs.surgery import prune

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    import onnx

    from raudo.graphs.fold import Node

    Rule: TypeAlias = Callable[[Node, View, Draft], bool]

ROUNDS: tuple[tuple[Rule, ...], ...] = (
    (
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
    ),
    (moves.keep_shape, sources.read_sources),
)
"""Each rule tells whether it applies to a node, and writes what takes its place; of a round, the
first one does. A round sees what the one before it wrote."""


def shorten(model: onnx.ModelProto) -> None:
    """Change a graph of the contract, wherever a rule of `ROUNDS` applies."""
    if any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute):
        return  # what the branches of a condition read is not looked at here
    for turn, rules in enumerate(ROUNDS):
        _apply(rules, turn, model)


def _apply(rules: tuple[Rule, ...], turn: int, model: onnx.ModelProto) -> None:
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    view = View(fold(copy))
    drafts: dict[str, Draft] = {}
    for node in view.graph.nodes:
        draft = Draft(node.outputs[0], turn)
        if any(rule(node, view, draft) for rule in rules):
            drafts[node.outputs[0]] = draft
    nodes: dict[str, onnx.NodeProto] = {}  # by what they make: drafts may share some
    for proto in model.graph.node:
        changed = drafts.get(proto.output[0])
        for made in [proto] if changed is None else changed.nodes:
            nodes.setdefault(made.output[0], made)
    model.graph.initializer.extend(c for draft in drafts.values() for c in draft.constants)
    ordered = _ordered(list(nodes.values()), model)
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
