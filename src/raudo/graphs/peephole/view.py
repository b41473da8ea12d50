"""What the rules look at, and what they write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx
    from numpy.typing import NDArray

    from raudo.graphs.fold import Node, StaticGraph


SMALL = 0.25e9
"""Multiplications that take a GPU for servers about as long as to begin with any kernel."""


class View:
    """A graph as the rules look at it: who makes and who reads each value."""

    def __init__(self, graph: StaticGraph) -> None:
        self.graph = graph
        self._makers = graph.makers()
        self._places = {name: i for i, n in enumerate(graph.nodes) for name in n.outputs}
        self._readers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in set(node.inputs):
                self._readers.setdefault(name, []).append(node)

    def maker(self, name: str, operator: str, readers: int | None = 1) -> Node | None:
        """Return the node that makes a value, if it is of that operator.

        Args:
            name: Of the value.
            operator: ONNX's name.
            readers: How many nodes may read the value; None is any number.
        """
        node = self._makers.get(name)
        if node is None or node.operator != operator:
            return None
        return node if readers is None or len(self.readers(name)) <= readers else None

    def readers(self, name: str) -> list[Node]:
        """Return the nodes that read a value, in the order of their computation."""
        return self._readers.get(name, [])

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return a value that depends on no image; None if it does."""
        return self.graph.constants.get(name)

    def constants(self, names: Sequence[str]) -> list[NDArray[Any]]:
        """Return values that depend on no image; [] if one does."""
        found = [self.graph.constants[name] for name in names if name in self.graph.constants]
        return found if len(found) == len(names) else []

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a shape; that of the batch is 1."""
        return self.graph.shapes[name]

    def place(self, name: str) -> int:
        """Return where a value is made: sorting by it is the order of computation."""
        return self._places.get(name, -1)

    def is_small(self, conv: Node, factor: float) -> bool:
        """Tell whether a multiple of a convolution takes a GPU no longer than any kernel."""
        weights = self.graph.constants[conv.inputs[1]]
        cells = self.shape(conv.outputs[0])[2:]
        return bool(factor * weights.size * np.prod(cells) <= SMALL)

    def operands(self, node: Node) -> Iterator[tuple[str, NDArray[Any]]]:
        """Return a value and a constant, if that is what a node of two inputs has."""
        for value, other in (node.inputs, node.inputs[::-1]):
            constant = self.constant(other)
            if constant is not None and value in self.graph.shapes:
                yield value, constant

    def part(self, name: str, axis: int) -> tuple[str, int, int]:
        """Return of what a value is a slice on an axis, from where to where; or all of itself."""
        if split := self.maker(name, "Split", readers=None):
            return self._piece(name, split, axis)
        slicing = self.maker(name, "Slice", readers=None)
        values = self.constants(slicing.inputs[1:]) if slicing else []
        if slicing is not None and len(values) >= 3 and all(v.size == 1 for v in values):
            start, end, on, step = (int(v.item()) for v in (*values, np.array(1))[:4])
            sides = self.shape(slicing.inputs[0])
            if step == 1 and on % len(sides) == axis:
                first, last, _ = slice(start, end).indices(sides[axis])
                return slicing.inputs[0], first, last
        return name, 0, self.shape(name)[axis]

    def _piece(self, name: str, split: Node, axis: int) -> tuple[str, int, int]:
        """Do the same for an output of a split."""
        own = self.shape(name)[axis]
        if split.attributes.get("axis", 0) % len(self.shape(name)) != axis:
            return name, 0, own
        ends = np.cumsum([self.shape(output)[axis] for output in split.outputs])
        end = int(ends[split.outputs.index(name)])
        return split.inputs[0], end - own, end


class Draft:
    """What takes the place of one node.

    Args:
        result: The name of what the node makes.
        turn: Number of the round: what takes a node's place may be replaced in a later one.
    """

    def __init__(self, result: str, turn: int = 0) -> None:
        self.result = result
        self._stem = f"{result}/{turn}"
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node; return the name of what it makes."""
        from onnx import helper

        name = output or f"{self._stem}/{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, values: NDArray[Any]) -> str:
        """Add a constant; return its name."""
        from onnx import numpy_helper

        name = f"{self._stem}/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def numbers(self, *numbers: int) -> str:
        """Add whole numbers, for instance a shape, of which a side of 0 stays as it is."""
        return self.constant(np.array(numbers, np.int64))

    def cut(self, value: str, axis: int, start: int, end: int, output: str = "") -> str:
        """Cut a range out of an axis."""
        bounds = [self.numbers(number) for number in (start, end, axis)]
        return self.node("Slice", value, *bounds, output=output)

    def rows(self, name: str, sides: Sequence[int]) -> str:
        """Flatten a map [batch, channels, height, width] to [batch, channels, cells]."""
        _, channels, height, width = sides
        return self.node("Reshape", name, self.numbers(0, channels, height * width))
