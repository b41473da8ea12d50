"""Post-training INT8 quantization with NNCF, of whatever graph a backend works on.

Decoding and the layers that predict keep their precision: boxes in pixels and final scores do not
fit into 256 steps. See "Quantizing deep convolutional networks for efficient inference",
arXiv 1806.08342, for the method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from raudo.passes.base import Pass, SelfQuantizing

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from raudo.records import Precision

CONVOLUTIONS = frozenset({"Conv", "Convolution", "GroupConvolution", "conv2d"})
SHAPE_QUERIES = frozenset({"ShapeOf", "Shape"})


class Int8(Pass):
    """NNCF's post-training quantization: symmetric weights, asymmetric activations."""

    name = "int8"
    title = "INT8 post-training quantization"
    precision: ClassVar[Precision] = "int8"
    needs_calibration = True
    modules: ClassVar[tuple[str, ...]] = ("nncf",)
    extra = "openvino"

    def apply(self, graph: Any, calibration: Sequence[NDArray[np.uint8]]) -> Any:
        """Return the quantized graph; see `Pass.apply`."""
        if isinstance(graph, SelfQuantizing):
            return graph.quantize(calibration)
        import nncf

        return nncf.quantize(
            graph,
            nncf.Dataset(calibration),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(calibration),
            ignored_scope=nncf.IgnoredScope(names=sorted(_prediction_nodes(graph))),
        )


def _prediction_nodes(graph: Any) -> set[str]:
    """Return the nodes from the last convolutions, these included, to the outputs."""
    from nncf.common.factory import build_graph

    nodes = build_graph(graph)
    found: set[str] = set()
    ahead = [node for node in nodes.get_all_nodes() if not nodes.get_next_nodes(node)]
    while ahead:
        node = ahead.pop()
        for before in nodes.get_previous_nodes(node):
            if before.node_name in found or before.node_type in SHAPE_QUERIES:
                continue
            found.add(before.node_name)
            if before.node_type not in CONVOLUTIONS or _decodes(nodes, before):
                ahead.append(before)
    return found


def _decodes(nodes: Any, convolution: Any) -> bool:
    """Tell whether a convolution belongs to decoding: DFL's weighted sum has one channel out.

    Distribution focal loss: arXiv 2006.04388.
    """
    return any(
        len(edge.tensor_shape) == 4 and edge.tensor_shape[1] == 1
        for edge in nodes.get_output_edges(convolution)
    )
