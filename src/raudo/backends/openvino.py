"""OpenVINO on the CPU: FP32, BF16 and INT8."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

from raudo.backends.base import Backend, Engine, Outputs, Resources, Variant
from raudo.errors import EngineError
from raudo.records import PrecisionAudit

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from raudo.records import Artifact, Machine, Target

HINTS = {"fp32": "f32", "bf16": "bf16"}
PRECISION_NAMES = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "u8": "int8", "i8": "int8"}
COMPUTE = frozenset({"Convolution", "MatMul", "FullyConnected", "Deconvolution"})
"""Node types that do the work; the precision of the rest follows from theirs."""


class OpenVino(Backend):
    """OpenVINO's CPU plug-in, from IR files."""

    name = "openvino"
    title = "OpenVINO"
    format = "openvino"
    suffix = ".xml"
    companions: ClassVar[tuple[str, ...]] = (".bin",)
    modules: ClassVar[tuple[str, ...]] = ("openvino",)
    extra = "openvino"
    targets: ClassVar[tuple[Target, ...]] = ("production_cpu",)
    variants: ClassVar[tuple[Variant, ...]] = (
        Variant("fp32", "fp32", {"rest": "fp32"}),
        Variant("bf16", "bf16", {"rest": "bf16"}),
        Variant("int8", "int8", {"rest": "fp32"}),
    )

    def unsupported(self, variant: Variant, machine: Machine) -> str | None:
        """Tell why this CPU cannot run a variant; None if it can."""
        del machine
        import openvino

        able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if variant.precision.upper() in able:
            return None
        return f"this CPU has no {variant.precision.upper()} arithmetic"

    def read_graph(self, path: Path) -> Any:
        """Read a contract ONNX file, each SiLU as one node.

        Written as Sigmoid and Multiply, an activation gets quantizers of its own and stays
        outside of the INT8 convolution: half of the gain is lost.
        """
        import openvino

        graph = openvino.Core().read_model(str(path))
        _join_silu(graph)
        return graph

    def write_graph(self, graph: Any, path: Path) -> None:
        """Write the `.xml`, and the `.bin` beside it."""
        import openvino

        openvino.save_model(graph, str(path), compress_to_fp16=False)

    def open(self, artifact: Artifact, resources: Resources) -> Engine:
        """Load an IR file; see `Backend.open`."""
        return OpenVinoEngine(artifact, resources)


def _join_silu(graph: Any) -> None:
    from openvino import opset14

    for product in graph.get_ordered_ops():
        if product.get_type_name() != "Multiply":
            continue
        for side in (0, 1):
            value, gate = product.input_value(1 - side), product.input_value(side).get_node()
            if gate.get_type_name() == "Sigmoid" and gate.input_value(0) == value:
                silu = opset14.swish(value)
                silu.set_friendly_name(product.get_friendly_name())
                product.output(0).replace(silu.output(0))
                break


class OpenVinoEngine(Engine):
    """A compiled model, with one infer request for each thread that runs it."""

    def __init__(self, artifact: Artifact, resources: Resources) -> None:
        super().__init__(artifact.manifest.spec)
        import openvino

        core = openvino.Core()
        try:
            graph = core.read_model(str(artifact.path))
            graph.reshape([resources.batch, self.spec.height, self.spec.width, 3])
            self._compiled = core.compile_model(
                graph,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": HINTS[str(artifact.manifest.options["rest"])],
                    "INFERENCE_NUM_THREADS": resources.threads,
                    "NUM_STREAMS": resources.streams,
                },
            )
        except (RuntimeError, KeyError) as error:
            raise EngineError(
                f"{artifact.path} does not load: {str(error).splitlines()[-1]}",
                hint="make it again with 'raudo export'",
            ) from error
        self._tensor = openvino.Tensor
        self._batch = resources.batch
        self._local = threading.local()

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        if missing := self._batch - len(images):  # the last batch of a source may be short
            import numpy as np

            images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])
            full = self._infer(request, images)
            return _first(full, self._batch - missing)
        return self._infer(request, images)

    def _infer(self, request: Any, images: NDArray[np.uint8]) -> Outputs:
        request.set_input_tensor(0, self._tensor(images, shared_memory=True))
        request.infer()
        boxes, scores, *labels = (
            request.get_output_tensor(i).data for i in range(len(self._compiled.outputs))
        )
        return Outputs(boxes, scores, labels[0] if labels else None)

    def audit(self) -> PrecisionAudit:
        """Count the computing nodes of the runtime's own graph by their precision."""
        found: Counter[str] = Counter()
        for node in self._compiled.get_runtime_model().get_ops():
            info = node.get_rt_info()
            if _text(info["layerType"]) in COMPUTE:
                precision = _text(info["runtimePrecision"])
                found[PRECISION_NAMES.get(precision, precision)] += 1
        return PrecisionAudit(found=dict(found), providers={"CPU": sum(found.values())})

    def close(self) -> None:
        """Free the compiled model."""
        self._local = threading.local()
        del self._compiled


def _first(outputs: Outputs, count: int) -> Outputs:
    labels = None if outputs.labels is None else outputs.labels[:count]
    return Outputs(outputs.boxes[:count], outputs.scores[:count], labels)


def _text(value: Any) -> str:
    return str(getattr(value, "value", value))
