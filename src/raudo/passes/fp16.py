"""Half precision for the network of an ONNX graph; decoding stays in single precision.

A coordinate near 640 is good to half a pixel in FP16. So whatever follows the convolutions that
predict keeps FP32, as if a module had been halved whose decoding begins with a conversion. Values
that shapes are computed from are no pixels, and are left alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from raudo.graphs.surgery import FLOAT, FLOAT16
from raudo.passes.base import PLAIN, Pass, QuantizationSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from raudo.graphs.fold import StaticGraph
    from raudo.records import Precision

LARGEST = 65504.0
FIRST_ONLY = frozenset({"Resize", "Upsample"})
"""Operators that ask for FP32 in all inputs but the first."""


class Fp16(Pass):
    """FP16 by conversion of an ONNX graph."""

    name = "fp16"
    title = "FP16 conversion"
    precision: ClassVar[Precision] = "fp16"
    needs_calibration = False
    modules: ClassVar[tuple[str, ...]] = ("onnx",)
    extra = "onnx"

    def apply(
        self,
        graph: Any,
        calibration: Sequence[NDArray[np.uint8]],
        settings: QuantizationSettings = PLAIN,
    ) -> Any:
        """Return the graph with its network in FP16; see `Pass.apply`.

        Any but an ONNX graph is left as it is: its runtime converts it.
        """
        del calibration, settings
        if not hasattr(graph, "graph"):
            return graph
        import onnx

        from raudo.graphs.fold import fold

        copy = onnx.ModelProto()
        copy.CopyFrom(graph)
        _Halving(graph, _network(fold(copy))).run()
        return graph


def _network(graph: StaticGraph) -> set[str]:
    """Return the values that the network computes from the images, its predictions included."""
    decoding = graph.decoding()
    return {
        name
        for node in graph.nodes
        for name in node.outputs
        if name not in decoding or (node.operator == "Conv" and node.inputs[0] not in decoding)
    }


class _Halving:
    """One conversion.

    Args:
        model: The graph, which is changed.
        values: Names of the values that are to be FP16 if they are FP32 now.
    """

    def __init__(self, model: onnx.ModelProto, values: set[str]) -> None:
        import onnx
        from onnx import numpy_helper

        self._graph = model.graph
        inferred = onnx.shape_inference.infer_shapes(model).graph
        known = (*inferred.value_info, *inferred.output, *inferred.input)
        kinds = {value.name: value.type.tensor_type.elem_type for value in known}
        self._constants = {t.name: t for t in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self._constants[node.output[0]] = node.attribute[0].t
        kinds |= {name: tensor.data_type for name, tensor in self._constants.items()}
        self._floats = {name for name, kind in kinds.items() if kind == FLOAT}
        self._values = values
        self._halves = values & self._floats
        self._made: dict[str, str] = {}
        self._to_array = numpy_helper.to_array
        self._nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        """Convert."""
        for node in self._graph.node:
            if self._values.intersection(node.output):
                self._halve(node)
            elif node.op_type not in ("Cast", "Shape"):  # they take any precision
                for place, name in enumerate(node.input):
                    if name in self._halves:
                        node.input[place] = self._cast(name, FLOAT)
            self._nodes.append(node)
        self._restore_outputs()
        used = {name for node in self._nodes for name in node.input}
        weights = [t for t in self._graph.initializer if t.name in used]
        for field in ("node", "initializer", "value_info"):
            self._graph.ClearField(field)
        self._graph.initializer.extend(weights)
        self._graph.node.extend(self._nodes)

    def _halve(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Cast":
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == FLOAT:
                    attribute.i = FLOAT16
            return
        last = 1 if node.op_type in FIRST_ONLY else len(node.input)
        for place, name in enumerate(node.input[:last]):
            if name in self._floats and name not in self._halves:
                constant = self._constants.get(name)
                node.input[place] = (
                    self._cast(name, FLOAT16) if constant is None else self._store(constant, name)
                )

    def _cast(self, name: str, to: int) -> str:
        """Return a value in another precision, converting it where it is first asked for."""
        from onnx import helper

        made = f"{name}/{'fp32' if to == FLOAT else 'fp16'}"
        if made not in self._made:
            self._nodes.append(helper.make_node("Cast", [name], [made], name=made, to=to))
            self._made[made] = made
        return made

    def _store(self, constant: onnx.TensorProto, name: str) -> str:
        import numpy as np
        from onnx import numpy_helper

        made = f"{name}/fp16"
        if made not in self._made:
            halves = np.clip(self._to_array(constant), -LARGEST, LARGEST).astype(np.float16)
            self._graph.initializer.append(numpy_helper.from_array(halves, made))
            self._made[made] = made
        return made

    def _restore_outputs(self) -> None:
        """Let what leaves the graph be FP32, under the name that it has."""
        from onnx import helper

        for name in [o.name for o in self._graph.output if o.name in self._halves]:
            inner = f"{name}/half"
            for node in self._nodes:
                for names in (node.input, node.output):
                    for place, other in enumerate(names):
                        if other == name:
                            names[place] = inner
            self._nodes.append(helper.make_node("Cast", [inner], [name], name=name, to=FLOAT))
