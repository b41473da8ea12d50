"""Post-training INT8 quantization with NNCF, of whatever graph a backend works on.

Decoding and the layers that predict keep their precision: boxes in pixels and final scores do not
fit into 256 steps. See "Quantizing deep convolutional networks for efficient inference",
arXiv 1806.08342, for the method.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar

from raudo.graphs.quantizers import MOVERS, restored
from raudo.passes.base import PLAIN, Pass, QuantizationSettings, SelfQuantizing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from raudo.records import Precision, Ranges

CONVOLUTIONS = frozenset({"Conv", "Convolution", "GroupConvolution", "conv2d"})
PRODUCTS = frozenset({"MatMul", "Gemm", "linear", "matmul"})
SHAPE_QUERIES = frozenset({"ShapeOf", "Shape"})
PRESETS = {"offset": "mixed", "symmetric": "performance"}
"""Where the steps of activations lie -> NNCF's word for it."""


class Int8(Pass):
    """NNCF's post-training quantization: symmetric weights, and activations as `grid` says."""

    name = "int8"
    title = "INT8 post-training quantization"
    precision: ClassVar[Precision] = "int8"
    needs_calibration = True
    modules: ClassVar[tuple[str, ...]] = ("nncf",)
    extra = "openvino"

    def apply(
        self,
        graph: Any,
        calibration: Sequence[NDArray[np.uint8]],
        settings: QuantizationSettings = PLAIN,
    ) -> Any:
        """Return the quantized graph; see `Pass.apply`."""
        images = calibration[: settings.images]
        if isinstance(graph, SelfQuantizing):
            return graph.quantize(images, settings)
        import nncf

        nncf.set_log_level(logging.ERROR)  # it tells of every node that it leaves alone
        quantized = nncf.quantize(
            graph,
            nncf.Dataset(images, _feed(graph)),
            preset=nncf.QuantizationPreset(PRESETS[settings.grid]),
            subset_size=len(images),
            # Casts that change nothing are gone before the names are looked up.
            ignored_scope=nncf.IgnoredScope(names=sorted(_prediction_nodes(graph)), validate=False),
            advanced_parameters=_advanced(settings),
        )
        if settings.grid == "symmetric" and _is_onnx(quantized):
            from raudo.graphs import qdq

            qdq.for_gpu(quantized)
        return quantized

    def methods(self, graph: Any) -> tuple[Ranges, ...]:
        """See `Pass.methods`."""
        return graph.methods if isinstance(graph, SelfQuantizing) else super().methods(graph)

    def layers(self, graph: Any) -> tuple[str, ...]:
        """Return the convolutions and products that `apply` would quantize; see `Pass.layers`."""
        if isinstance(graph, SelfQuantizing):
            return graph.layers()
        from nncf.common.factory import build_graph

        kept = _prediction_nodes(graph)
        nodes = build_graph(graph).topological_sort()
        heavy = CONVOLUTIONS | PRODUCTS
        return tuple(
            node.node_name
            for node in nodes
            if node.node_type in heavy and node.node_name not in kept
        )

    def restore(self, graph: Any, exact: Any, layers: Collection[str]) -> Any:
        """See `Pass.restore`."""
        if isinstance(graph, SelfQuantizing):
            return graph.restore(layers)
        return restored(graph, exact, layers)


def _is_onnx(graph: Any) -> bool:
    return type(graph).__name__ == "ModelProto"


def _feed(graph: Any) -> Callable[[Any], Any] | None:
    """Return how calibration images are handed to a graph; None as they are."""
    if not _is_onnx(graph):
        return None
    name = graph.graph.input[0].name
    return lambda images: {name: images}


def _advanced(settings: QuantizationSettings) -> Any:
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    given: dict[str, Any] = {"disable_bias_correction": not settings.correct_bias}
    if settings.ranges == "quantile":
        given["activations_range_estimator_params"] = RangeEstimatorParametersSet.MEAN_QUANTILE
    return AdvancedQuantizationParameters(**given)


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
    """Tell whether a convolution belongs to decoding: DFL's weighted sum is one of a softmax.

    Distribution focal loss: arXiv 2006.04388. A layer that predicts objectness has one channel
    out, too, but no softmax before it.
    """
    return any(
        before.node_type.lower() == "softmax"
        or (before.node_type in MOVERS and _decodes(nodes, before))
        for before in nodes.get_previous_nodes(convolution)
    )
