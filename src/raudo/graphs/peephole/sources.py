"""Convolutions that read what their input was cut, added and put together from.

Cutting, adding and putting together are linear, as a convolution is: its weights can do them, with
zeros for what was cut off, and sums for what was added. So can they do a convolution of one pixel
that has no activation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from raudo.graphs.peephole.convolutions import is_pointwise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from raudo.graphs.fold import Node
    from raudo.graphs.peephole.view import Draft, View

    Sources = dict[str, NDArray[np.float64]]

CHANNELS = 1
ONE = ""
"""The name of a source of one channel, all ones: what biases are taken from."""
JOINED = "+"
"""Between the names of values, in the name of what they are put together to."""
MOST_WIDER = 4
"""A convolution does not read more times its channels than this."""


def read_sources(node: Node, view: View, draft: Draft) -> bool:
    """Read the sources of a convolution's input: Conv of Slices, Splits, Adds, Concats, Convs."""
    values = view.constants(node.inputs[1:]) if node.operator == "Conv" else []
    if not values or node.attributes.get("group", 1) != 1:
        return False
    read = node.inputs[0]
    found = _sources(read, view)
    bias = found.pop(ONE, None)
    wider = sum(rows.shape[1] for rows in found.values()) / view.shape(read)[CHANNELS]
    if not _gains(read, tuple(found), view) or wider > MOST_WIDER or not view.is_small(node, wider):
        return False
    weights = np.einsum("oihw,ij->ojhw", values[0], np.concatenate([*found.values()], 1))
    constants = [weights, *values[1:]]
    if bias is not None:
        constants[1:] = [sum(values[1:], (values[0].sum((2, 3)) @ bias)[:, 0])]
    read = _join(tuple(found), draft)
    written = (draft.constant(array.astype(values[0].dtype)) for array in constants)
    draft.node("Conv", read, *written, output=draft.result, **node.attributes)
    return True


def _join(names: tuple[str, ...], draft: Draft) -> str:
    """Concatenate values, two at a time: what others begin with is only put together once."""
    if len(names) == 1:
        return names[0]
    before = _join(names[:-1], draft)
    return draft.node(
        "Concat", before, names[-1], output=before + JOINED + names[-1], axis=CHANNELS
    )


def _gains(read: str, sources: tuple[str, ...], view: View) -> bool:
    """Tell whether reading the sources spares anything.

    A part of a value is read as soon as all of it. Only if the value is also put together with
    others, it would have to be copied there.
    """
    joined = view.maker(read, "Concat", readers=None)
    if read == JOINED.join(sources) or (joined and sources == joined.inputs):
        return False
    source, *_ = view.part(read, CHANNELS)
    return sources != (source,) or _is_joined(source, view)


def _is_joined(name: str, view: View) -> bool:
    """Tell whether a value, or a part of it, is put together with others."""
    return any(
        reader.operator == "Concat"
        or (
            reader.operator in ("Add", "Slice", "Split")
            and any(_is_joined(output, view) for output in reader.outputs)
        )
        for reader in view.readers(name)
    )


def _sources(name: str, view: View) -> Sources:
    """Return what a value consists of.

    Returns:
        By the name of each source, in the order of their computation, how often each of its
        channels is in each of the value's: float64 [channels, channels of the source].
    """
    found = _taken_apart(name, view)
    return {
        source: found[source] for source in sorted(found, key=view.place) if found[source].any()
    }


def _taken_apart(name: str, view: View) -> Sources:
    source, start, end = view.part(name, CHANNELS)
    if source != name:
        return {of: rows[start:end] for of, rows in _taken_apart(source, view).items()}
    if (joined := view.maker(name, "Concat", readers=None)) and _over_channels(joined, view):
        return _stacked([_taken_apart(part, view) for part in joined.inputs])
    if (added := view.maker(name, "Add", readers=None)) and _dissolves(added, view):
        return _summed([_taken_apart(part, view) for part in added.inputs])
    if (conv := view.maker(name, "Conv", readers=None)) and _is_linear(conv, view):
        weights, bias = view.constants(conv.inputs[1:])
        rows = weights[:, :, 0, 0].astype(np.float64)
        found = {of: rows @ r for of, r in _taken_apart(conv.inputs[0], view).items()}
        return _summed([found, {ONE: bias[:, None].astype(np.float64)}])
    return {name: np.eye(view.shape(name)[CHANNELS])}


def _stacked(parts: list[Sources]) -> Sources:
    widths = {of: rows.shape[1] for part in parts for of, rows in part.items()}
    heights = [len(next(iter(part.values()))) for part in parts]
    return {
        of: np.concatenate(
            [
                part.get(of, np.zeros((height, width)))
                for part, height in zip(parts, heights, strict=True)
            ]
        )
        for of, width in widths.items()
    }


def _summed(parts: list[Sources]) -> Sources:
    found: Sources = {}
    for part in parts:
        for of, rows in part.items():
            found[of] = found[of] + rows if of in found else rows
    return found


def _over_channels(node: Node, view: View) -> bool:
    return bool(node.attributes["axis"] % len(view.shape(node.outputs[0])) == CHANNELS)


def _dissolves(node: Node, view: View) -> bool:
    """Tell whether nothing but convolutions reads a sum, in the end."""
    shapes = [view.shape(name) if view.constant(name) is None else () for name in node.inputs]
    return shapes[0] == shapes[1] and _only_convolved(node, view)


def _is_linear(conv: Node, view: View) -> bool:
    """Tell whether nothing but convolutions of one pixel, as it is one itself, reads its result.

    What wider ones read is zero around a map, where its bias is not.
    """
    return is_pointwise(conv, view) and _only_convolved(conv, view, pointwise=True)


def _only_convolved(node: Node, view: View, *, pointwise: bool = False) -> bool:
    if not set(node.outputs).isdisjoint(view.graph.outputs):
        return False

    def may_read(reader: Node) -> bool:
        if reader.operator in ("Add", "Concat", "Slice", "Split"):
            return _only_convolved(reader, view, pointwise=pointwise)
        return (
            reader.operator == "Conv"
            and reader.attributes.get("group", 1) == 1
            and reader.inputs[0] in node.outputs
            and (is_pointwise(reader, view) or not pointwise)
        )

    return all(may_read(reader) for name in node.outputs for reader in view.readers(name))
