"""What turns predictions of cells into boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from raudo.graphs.fold import Node
    from raudo.graphs.peephole.view import Draft, View

LARGEST_LOGIT = 80.0
"""Its exponential, and that of its negative, are float32 with room for a sum."""


def divide_sums(node: Node, view: View, draft: Draft) -> bool:
    """Take the mean under a softmax as a quotient of two sums: ReduceSum of Mul of Softmax.

    That is how distribution focal loss is decoded, arXiv 2006.04388: few bins, thousands of times.
    """
    axes = view.constant(node.inputs[-1]) if node.operator == "ReduceSum" else None
    product = view.maker(node.inputs[0], "Mul") if axes is not None else None
    if axes is None or product is None or node.attributes.get("keepdims", 1):
        return False
    for shares, bins in view.operands(product):
        softmax, sides = view.maker(shares, "Softmax"), view.shape(shares)
        last = len(sides) - 1
        if softmax is None or bins.size != sides[-1] or axes.tolist() not in ([-1], [last]):
            continue
        if softmax.attributes.get("axis", -1) not in (-1, last):
            continue
        bounds = [draft.constant(np.array(b, np.float32)) for b in (-LARGEST_LOGIT, LARGEST_LOGIT)]
        powers = draft.node("Exp", draft.node("Clip", softmax.inputs[0], *bounds))
        weights = np.stack((bins.reshape(-1), np.ones(bins.size)), 1).astype(np.float32)
        sums = draft.node("MatMul", powers, draft.constant(weights))
        means = draft.node("Div", draft.cut(sums, -1, 0, 1), draft.cut(sums, -1, 1, 2))
        draft.node("Reshape", means, draft.numbers(*[0] * last), output=draft.result)
        return True
    return False


def move_both_corners(node: Node, view: View, draft: Draft) -> bool:
    """Move both corners of all boxes at once: Concat of (centres - these, centres + those)."""
    if node.operator != "Concat" or len(node.inputs) != 2:
        return False
    sides = view.shape(node.outputs[0])
    last = len(sides) - 1
    if node.attributes["axis"] not in (-1, last):
        return False
    low, high = (_moved(name, view) for name in node.inputs)
    if low is None or high is None or (low[0], high[0]) != ("Sub", "Add"):
        return False
    (_, centres, distances), (_, others, rest) = low, high
    source, start, middle = view.part(distances, last)
    other, again, end = view.part(rest, last)
    if source != other or (start, again, end) != (0, middle, sides[-1]) or middle in (0, end):
        return False
    factors = np.repeat(np.array([-1, 1], np.float32), [middle, end - middle])
    product = view.maker(source, "Mul", readers=None)
    for value, scale in view.operands(product) if product else ():
        if view.shape(value) == sides:
            source, factors = value, factors * scale
            break
    moved = draft.node("Mul", source, draft.constant(_spread(factors, sides)))
    base = np.concatenate([_spread(part, sides) for part in (centres, others)], -1)
    draft.node("Add", draft.constant(base), moved, output=draft.result)
    return True


def _moved(name: str, view: View) -> tuple[str, NDArray[Any], str] | None:
    """Return how a value comes from a constant and another value, the constant, and the other."""
    for operator in ("Sub", "Add"):
        node = view.maker(name, operator)
        constant = view.constant(node.inputs[0]) if node else None
        if node is not None and constant is not None:
            return operator, constant, node.inputs[1]
    return None


def _spread(values: NDArray[Any], sides: tuple[int, ...]) -> NDArray[np.float32]:
    """Repeat a constant over all axes but the last: what is of one shape, one kernel computes."""
    values = np.asarray(values, np.float32)
    return np.broadcast_to(values, (*sides[:-1], values.shape[-1])).copy()
