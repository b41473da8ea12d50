"""ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from raudo.backends.base import PROFILED_RUNS, Backend, Engine, Outputs, Resources, Variant
from raudo.errors import EngineError
from raudo.records import NodeProfile, PrecisionAudit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from raudo.records import Artifact, Target

PRECISION_NAMES = {
    "float": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "uint8": "int8",
    "int8": "int8",
}


class OnnxRuntime(Backend):
    """ONNX Runtime's CPU provider, from ONNX files."""

    name = "onnxruntime"
    title = "ONNX Runtime"
    format = "onnx"
    suffix = ".onnx"
    modules: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx")
    extra = "onnx"
    targets: ClassVar[tuple[Target, ...]] = ("production_cpu", "edge")
    variants: ClassVar[tuple[Variant, ...]] = (Variant("fp32", "fp32"),)
    baseline_rank = 1

    def read_graph(self, path: Path) -> Any:
        """Read a contract ONNX file."""
        import onnx

        return onnx.load(str(path))

    def write_graph(self, graph: Any, path: Path) -> None:
        """Write a graph as ONNX."""
        import onnx

        onnx.save(graph, str(path))

    def open(self, artifact: Artifact, resources: Resources) -> Engine:
        """Load an ONNX file; see `Backend.open`."""
        return OnnxRuntimeEngine(artifact, resources)


class OnnxRuntimeEngine(Engine):
    """An inference session on the CPU provider."""

    def __init__(self, artifact: Artifact, resources: Resources) -> None:
        super().__init__(artifact.manifest.spec)
        self._path, self._resources = artifact.path, resources
        self._session = self._open(resources, profile=None)

    def _open(self, resources: Resources, profile: str | None) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, resources.threads // resources.streams)
        options.log_severity_level = 3
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = profile
        try:
            return onnxruntime.InferenceSession(
                str(self._path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's errors share no base class
            raise EngineError(
                f"{self._path} does not load: {str(error).splitlines()[0]}",
                hint="make it again with 'raudo export'",
            ) from error

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        boxes, scores, *labels = self._session.run(None, {"images": images})
        return Outputs(boxes, scores, labels[0] if labels else None)

    def audit(self) -> PrecisionAudit:
        """Profile one run: which node ran where, and on which type of tensors."""
        import numpy as np

        found: Counter[str] = Counter()
        providers: Counter[str] = Counter()
        blank = np.zeros((1, self.spec.height, self.spec.width, 3), np.uint8)
        for event in self._trace(blank, runs=1):
            details = event["args"]
            providers[details["provider"]] += 1
            if details.get("op_name", "").endswith(("Conv", "MatMul", "Gemm")):
                found[_node_precision(details)] += 1
        return PrecisionAudit(found=dict(found), providers=dict(providers))

    def profile(self, images: NDArray[np.uint8]) -> tuple[NodeProfile, ...]:
        """Time each node; see `Engine.profile`."""
        nodes: dict[str, NodeProfile] = {}
        for event in self._trace(images, PROFILED_RUNS):
            name, taken = event["name"].removesuffix("_kernel_time"), event["dur"] / 1e3
            if name not in nodes or taken < nodes[name].milliseconds:
                nodes[name] = NodeProfile(
                    name=name,
                    type=event["args"]["op_name"],
                    precision=_node_precision(event["args"]),
                    milliseconds=taken,
                )
        return tuple(nodes.values())

    def _trace(self, images: NDArray[np.uint8], runs: int) -> list[dict[str, Any]]:
        """Run with the runtime's profiler, and return what it tells of each node and run."""
        with tempfile.TemporaryDirectory() as folder:
            session = self._open(self._resources, profile=str(Path(folder) / "profile"))
            for _ in range(runs):
                session.run(None, {"images": images})
            trace = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return [e for e in trace if e.get("cat") == "Node" and "provider" in e.get("args", {})]

    def close(self) -> None:
        """Free the session."""
        del self._session


def _node_precision(details: dict[str, Any]) -> str:
    if details["op_name"].startswith("QLinear") or "Integer" in details["op_name"]:
        return "int8"
    kinds = [kind for shape in details.get("input_type_shape", []) for kind in shape]
    known = next((PRECISION_NAMES[k] for k in kinds if k in PRECISION_NAMES), None)
    return known or (kinds[0] if kinds else "")
