"""Attention over the cells of a map: one convolution projects them to queries, keys and values.

Each head's queries, keys and values follow one another there, so that taking them apart copies;
the rows of the weights can be taken apart ahead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raudo.graphs.fold import Node
    from raudo.graphs.peephole.view import Draft, View


def project_apart(node: Node, view: View, draft: Draft) -> bool:
    """Project to each part by a convolution of its own: Split of Reshape of Conv."""
    conv = _projection(node, view) if node.operator == "Split" else None
    if conv is None:
        return False
    for output in node.outputs:
        _project((conv, node, output), view, draft, output)
    return True


def scale_projection(node: Node, view: View, draft: Draft) -> bool:
    """Scale the weights ahead, not what they project to: Mul of Split of Reshape of Conv."""
    if node.operator != "Mul":
        return False
    for name, factor in view.operands(node):
        split = view.maker(name, "Split") if factor.size == 1 else None
        conv = _projection(split, view) if split else None
        if split is not None and conv is not None:
            _project((conv, split, name), view, draft, draft.result, float(factor.item()))
            return True
    return False


def _projection(split: Node, view: View) -> Node | None:
    """Return the convolution of one pixel that a split takes apart, each of its heads alike."""
    reshape = view.maker(split.inputs[0], "Reshape", readers=None)
    if reshape is None or split.attributes.get("axis", 0) not in (2, -2):
        return None
    heads, sides = view.shape(reshape.outputs[0]), view.shape(reshape.inputs[0])
    if len(sides) != 4 or heads != (1, heads[1], sides[1] // heads[1], sides[2] * sides[3]):
        return None
    conv = view.maker(reshape.inputs[0], "Conv")
    values = view.constants(conv.inputs[1:]) if conv else []
    plain = len(values) == 2 and values[0].shape[2:] == (1, 1) and len(values[0]) == sides[1]
    return conv if plain and conv and conv.attributes.get("group", 1) == 1 else None


def _project(
    source: tuple[Node, Node, str], view: View, draft: Draft, output: str, factor: float = 1.0
) -> None:
    """Write the convolution to one part, scaled, as heads [batch, heads, channels, cells].

    Args:
        source: The convolution, the split behind it, and the name of the split's part.
        view: The graph.
        draft: What the nodes are added to.
        output: What the heads will be called.
        factor: What they are scaled by.
    """
    conv, split, part = source
    _, heads, channels, cells = view.shape(part)
    sizes = [view.shape(name)[2] for name in split.outputs]
    start = sum(sizes[: split.outputs.index(part)])
    chosen = []
    for values in view.constants(conv.inputs[1:]):
        each = values.reshape(heads, -1, *values.shape[1:])[:, start : start + channels]
        chosen.append((each * factor).reshape(-1, *values.shape[1:]).astype(values.dtype))
    projected = draft.node("Conv", conv.inputs[0], *map(draft.constant, chosen), **conv.attributes)
    draft.node("Reshape", projected, draft.numbers(0, heads, channels, cells), output=output)
