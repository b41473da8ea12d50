"""Values that only move: cut, put together, turned, reshaped."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raudo.graphs.fold import Node
    from raudo.graphs.peephole.view import Draft, View

ROWS = (0, 2, 3, 1)
"""Channels last."""


def pass_whole(node: Node, view: View, draft: Draft) -> bool:
    """Concatenate a value instead of the slices that it was cut into: Concat of all Slices."""
    if node.operator != "Concat":
        return False
    axis = node.attributes["axis"] % len(view.shape(node.outputs[0]))
    parts: list[tuple[str, int, int]] = []
    for name in node.inputs:
        found = view.part(name, axis)
        if parts and found[0] == parts[-1][0] and found[1] == parts[-1][2]:
            found = (found[0], parts.pop()[1], found[2])
        parts.append(found)
    if len(parts) == len(node.inputs):
        return False
    if any((start, end) != (0, view.shape(name)[axis]) for name, start, end in parts):
        return False
    names = [name for name, *_ in parts]
    if len(names) == 1:
        draft.node("Identity", *names, output=draft.result)
    else:
        draft.node("Concat", *names, output=draft.result, axis=axis)
    return True


def transpose_once(node: Node, view: View, draft: Draft) -> bool:
    """Turn the rows of all levels at once: Concat of Reshapes of Transposes."""
    maps = levels(node, view)
    if len(maps) < 2:
        return False
    rows = [draft.rows(name, view.shape(name)) for name in maps]
    joined = draft.node("Concat", *rows, axis=2)
    draft.node("Transpose", joined, output=draft.result, perm=[0, 2, 1])
    return True


def levels(node: Node, view: View) -> list[str]:
    """Return the maps whose cells, row by row, are concatenated; [] if that is not all."""
    if node.operator != "Concat" or node.attributes["axis"] != 1:
        return []
    maps = [_map_of(name, view) for name in node.inputs]
    return [name for name in maps if name is not None] if None not in maps else []


def _map_of(name: str, view: View) -> str | None:
    """Return the map [batch, channels, height, width] whose cells, row by row, a value is."""
    reshape = view.maker(name, "Reshape")
    transpose = reshape and view.maker(reshape.inputs[0], "Transpose")
    if transpose is None or tuple(transpose.attributes["perm"]) != ROWS:
        return None
    source = transpose.inputs[0]
    _, channels, height, width = view.shape(source)
    return source if view.shape(name) == (1, height * width, channels) else None


def keep_shape(node: Node, view: View, draft: Draft) -> bool:
    """Pass on what a value was before it was reshaped there and back: Reshape of Reshape."""
    if node.operator != "Reshape":
        return False
    there = view.maker(node.inputs[0], "Reshape", readers=None)
    if there is None or view.shape(there.inputs[0]) != view.shape(node.outputs[0]):
        return False
    draft.node("Identity", there.inputs[0], output=draft.result)
    return True


def keep_type(node: Node, view: View, draft: Draft) -> bool:
    """Pass on what has the type already that it is converted to: Cast."""
    if node.operator != "Cast" or view.graph.types.get(node.inputs[0]) != node.attributes["to"]:
        return False
    draft.node("Identity", node.inputs[0], output=draft.result)
    return True
