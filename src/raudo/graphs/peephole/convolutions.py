"""Convolutions that one kernel can compute together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from raudo.graphs.peephole.moves import levels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from raudo.graphs.fold import Node
    from raudo.graphs.peephole.view import Draft, View

PLAIN = {
    "auto_pad": b"NOTSET",
    "dilations": [1, 1],
    "group": 1,
    "pads": [0, 0, 0, 0],
    "strides": [1, 1],
}
"""What attributes of convolutions are where a file does not say."""
ROW = 8
"""Rows of predictions are made a multiple of this long. TensorRT 8.6.0 may read a part of each row
four values at once, and where rows begin elsewhere, it reads the values before them."""


def run_twins_together(node: Node, view: View, draft: Draft) -> bool:
    """Let convolutions of one value and one kind, each followed by SiLU, be one: Mul of Sigmoid."""
    own = _activated(node, view)
    kind = own and _kind(own, view)
    if own is None or kind is None:
        return False
    readers = view.readers(own.inputs[0])
    twins = [conv for conv in readers if conv.operator == "Conv" and _kind(conv, view) == kind]
    if len(twins) < 2 or not all(_is_activated(twin, view) for twin in twins):
        return False
    together = f"{twins[0].outputs[0]}/together"
    if own is twins[0]:
        values = zip(*(view.constants(twin.inputs[1:]) for twin in twins), strict=True)
        constants = [draft.constant(np.concatenate(parts)) for parts in values]
        sums = draft.node("Conv", own.inputs[0], *constants, **own.attributes)
        draft.node("Mul", sums, draft.node("Sigmoid", sums), output=together)
    place = twins.index(own)
    ends = np.cumsum([0, *(view.shape(twin.outputs[0])[1] for twin in twins)])
    draft.cut(together, 1, int(ends[place]), int(ends[place + 1]), draft.result)
    return True


def _activated(node: Node, view: View) -> Node | None:
    """Return the convolution whose SiLU a node is."""
    if node.operator != "Mul":
        return None
    for name, gate in (node.inputs, node.inputs[::-1]):
        sigmoid = view.maker(gate, "Sigmoid")
        if sigmoid is not None and sigmoid.inputs[0] == name:
            return view.maker(name, "Conv", readers=2)
    return None


def _kind(conv: Node, view: View) -> tuple[Any, ...] | None:
    """Return what convolutions that can be one have in common; None if it can be with none."""
    values = view.constants(conv.inputs[1:])
    if len(values) != 2 or conv.attributes.get("group", 1) != 1:
        return None
    return values[0].shape[1:], sorted(conv.attributes.items())


def _is_activated(conv: Node, view: View) -> bool:
    return conv.operator == "Conv" and any(
        _activated(reader, view) is conv for reader in view.readers(conv.outputs[0])
    )


def join_heads(node: Node, view: View, draft: Draft) -> bool:
    """Predict boxes and classes of a level at once, and turn the rows of all levels at once.

    The weights of one convolution for both are those of two, with zeros between: Concat of
    Reshapes of Transposes of Convs, twice.
    """
    own = _heads(node, view)
    if not own:
        return False
    sizes = [view.shape(conv.outputs[0])[2:] for conv in own]
    both = [
        (other, heads)
        for other in view.graph.nodes
        if (heads := _heads(other, view))
        and [view.shape(conv.outputs[0])[2:] for conv in heads] == sizes
    ]
    if len(both) != 2:
        return False
    (first, ones), (_, others) = both
    together = f"{first.outputs[0]}/together"
    count = view.shape(first.outputs[0])[2]
    if node is not first:
        draft.cut(together, 2, count, count + view.shape(node.outputs[0])[2], draft.result)
        return True
    rows = []
    for one, other in zip(ones, others, strict=True):
        values = [view.constants(conv.inputs[1:]) for conv in (one, other)]
        features = draft.node("Concat", one.inputs[0], other.inputs[0], axis=1)
        weights, biases = zip(*values, strict=True)
        constants = _filled(_block_diagonal(*weights)), _filled(np.concatenate(biases))
        predicted = draft.node("Conv", features, *map(draft.constant, constants))
        rows.append(draft.rows(predicted, (1, len(constants[1]), *view.shape(one.outputs[0])[2:])))
    joined = draft.node("Concat", *rows, axis=2)
    draft.node("Transpose", joined, output=together, perm=[0, 2, 1])
    draft.cut(together, 2, 0, count, draft.result)
    return True


def _heads(node: Node, view: View) -> list[Node]:
    """Return the convolutions of one pixel that make the levels of a concatenation."""
    convs = [view.maker(name, "Conv") for name in levels(node, view)]
    found = [conv for conv in convs if conv is not None and is_pointwise(conv, view)]
    return found if len(found) == len(convs) else []


def is_pointwise(conv: Node, view: View) -> bool:
    """Tell whether a convolution computes each pixel of that pixel alone, with weights and bias."""
    values = view.constants(conv.inputs[1:])
    plain = all(conv.attributes.get(name, PLAIN[name]) == PLAIN[name] for name in PLAIN)
    return plain and len(values) == 2 and values[0].shape[2:] == (1, 1)


def _filled(rows: NDArray[Any]) -> NDArray[Any]:
    """Add rows of zeros, up to a multiple of `ROW`."""
    return np.pad(rows, [(0, -len(rows) % ROW), *[(0, 0)] * (rows.ndim - 1)])


def _block_diagonal(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    (rows, columns), (more, others) = one.shape[:2], other.shape[:2]
    joined = np.zeros((rows + more, columns + others, *one.shape[2:]), one.dtype)
    joined[:rows, :columns], joined[rows:, columns:] = one, other
    return joined
