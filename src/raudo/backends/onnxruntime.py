"""ONNX Runtime, on the CPU and, through its CUDA provider, on a GPU.

For the GPU the batch size is fixed, so that nothing about shapes is left to compute; input and
outputs stay in the GPU's memory, and one CUDA graph launches the whole network. A node of the
network that ONNX Runtime puts on the CPU is an error: it does so without a word, and such an engine
is slow.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import queue
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from raudo.backends.base import (
    PROFILED_RUNS,
    Backend,
    Engine,
    Library,
    Made,
    Outputs,
    Resources,
    Variant,
)
from raudo.errors import EngineError
from raudo.gpu.thread import GpuThread

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from raudo.records import Artifact, Machine, NodeProfile, PrecisionAudit, Target

PRECISION_NAMES = {
    "float": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "uint8": "int8",
    "int8": "int8",
}
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
CUDA_LIBRARIES = ("libonnxruntime_providers_cuda.so", "onnxruntime_providers_cuda.dll")
ELEMENT_TYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}
WARM_UPS = 4
"""Runs of a new session: a graph is captured in one of the first, and while it is, no other session
of the process may take memory."""
LANES = 2
"""Most sessions on a GPU at once: one copies while another one computes."""


class OnnxRuntime(Backend):
    """ONNX Runtime's CPU and CUDA providers, from ONNX files."""

    name = "onnxruntime"
    title = "ONNX Runtime"
    format = "onnx"
    suffix = ".onnx"
    modules: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx")
    extra = "onnx"
    targets: ClassVar[tuple[Target, ...]] = ("production_cpu", "production_gpu", "edge")
    variants: ClassVar[tuple[Variant, ...]] = (
        Variant("fp32", "fp32"),
        Variant("cuda-fp32", "fp32", {"graph": True}, device="gpu"),
        Variant("cuda-tf32", "tf32", {"graph": True}, device="gpu"),
        Variant("cuda-launches", "tf32", {"graph": False}, device="gpu"),
        Variant("cuda-fp16", "fp16", {"graph": True}, device="gpu"),
    )
    baseline_rank = 1
    libraries: ClassVar[tuple[Library, ...]] = (
        Library(
            "cublas",
            "cuBLAS",
            linux="pip install 'onnxruntime-gpu[cuda,cudnn]', or NVIDIA's package cuda-toolkit",
            windows='pip install "onnxruntime-gpu[cuda,cudnn]", or NVIDIA\'s CUDA installer',
        ),
        Library(
            "cudnn",
            "cuDNN",
            linux="pip install 'onnxruntime-gpu[cuda,cudnn]', or NVIDIA's package cudnn",
            windows='pip install "onnxruntime-gpu[cuda,cudnn]", or NVIDIA\'s cuDNN installer',
        ),
    )

    def unsupported(self, variant: Variant, machine: Machine) -> str | None:
        """Tell why a variant cannot run here; None if it can."""
        del machine
        if variant.device == "cpu" or _cuda_library() is not None:
            return None
        return (
            "the ONNX Runtime that is installed has no CUDA (pip uninstall onnxruntime, "
            "then pip install 'raudo[onnx-gpu]')"
        )

    def read_graph(self, path: Path) -> Any:
        """Read a contract ONNX file."""
        import onnx

        return onnx.load(str(path))

    def write_graph(self, graph: Any, path: Path) -> None:
        """Write a graph as ONNX."""
        import onnx

        onnx.save(graph, str(path))

    def compile(
        self, model: bytes, path: Path, variant: Variant, gpus: tuple[str, ...] = ()
    ) -> Made:
        """Write a finished graph; see `Backend.compile`."""
        del variant, gpus
        path.write_bytes(model)
        return Made()

    def open(self, artifact: Artifact, resources: Resources) -> Engine:
        """Load an ONNX file; see `Backend.open`."""
        kind = CudaEngine if artifact.manifest.device == "gpu" else CpuEngine
        return kind(artifact, resources)


def _cuda_library() -> Path | None:
    """Return the package's library of the CUDA provider, without importing the package."""
    found = importlib.util.find_spec("onnxruntime")
    folders = (found.submodule_search_locations if found else None) or ()
    files = [Path(folder) / "capi" / library for folder in folders for library in CUDA_LIBRARIES]
    return next((file for file in files if file.is_file()), None)


class CpuEngine(Engine):
    """An inference session on the CPU provider."""

    def __init__(self, artifact: Artifact, resources: Resources) -> None:
        super().__init__(artifact.manifest.spec)
        self._path, self._resources = artifact.path, resources
        self._session = self._open()

    def _open(self, profile: str | None = None) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = profile
        try:
            return onnxruntime.InferenceSession(
                str(self._path), options, providers=self._configure(options, profile is not None)
            )
        except Exception as error:  # the runtime's errors share no base class
            raise EngineError(
                f"{self._path} does not load: {str(error).splitlines()[0]}",
                hint="make it again with 'raudo export'",
            ) from error

    def _configure(self, options: Any, profiled: bool) -> list[Any]:
        """Complete a session's options, and return its providers with theirs."""
        del profiled
        options.intra_op_num_threads = max(1, self._resources.threads // self._resources.streams)
        return [CPU]

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        boxes, scores, *labels = self._session.run(None, {"images": images})
        return Outputs(boxes, scores, labels[0] if labels else None)

    def audit(self) -> PrecisionAudit:
        """Profile one run: which node ran where, and on which type of tensors."""
        import numpy as np

        from raudo.records import PrecisionAudit

        found: Counter[str] = Counter()
        providers: Counter[str] = Counter()
        shape = (self._audited_batch(), self.spec.height, self.spec.width, 3)
        events = self._trace(np.zeros(shape, np.uint8), runs=1)
        for details in (event["args"] for event in events):
            providers[details["provider"]] += 1
            if details.get("op_name", "").endswith(("Conv", "MatMul", "Gemm")):
                found[_node_precision(details)] += 1
        return PrecisionAudit(found=dict(found), providers=dict(providers))

    def _audited_batch(self) -> int:
        return 1

    def profile(self, images: NDArray[np.uint8]) -> tuple[NodeProfile, ...]:
        """Time each node; see `Engine.profile`."""
        from raudo.records import NodeProfile

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
            session = self._open(profile=str(Path(folder) / "profile"))
            for _ in range(runs):
                session.run(None, {"images": images})
            trace = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return [e for e in trace if e.get("cat") == "Node" and "provider" in e.get("args", {})]

    def close(self) -> None:
        """Free the session."""
        del self._session


class CudaEngine(CpuEngine):
    """Inference sessions on the CUDA provider, each with its own tensors in the GPU's memory."""

    def __init__(self, artifact: Artifact, resources: Resources) -> None:
        self._tf32 = artifact.manifest.precision != "fp32"
        self._graph = bool(artifact.manifest.options.get("graph"))
        self._channels_last = artifact.manifest.precision == "fp16"  # as tensor cores read them
        super().__init__(artifact, resources)
        shape = (resources.batch, self.spec.height, self.spec.width, 3)
        self._lanes: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        self._lanes.put(Lane(self._session, shape, streams=resources.streams))
        for _ in range(1, min(LANES, resources.streams)):
            self._lanes.put(Lane(self._open(), shape, streams=resources.streams))

    def _open(self, profile: str | None = None) -> Any:
        import onnxruntime

        library = _cuda_library()
        if library is None:
            raise EngineError(
                "the ONNX Runtime that is installed has no CUDA",
                hint="pip uninstall onnxruntime, then pip install 'raudo[onnx-gpu]'",
            )
        onnxruntime.preload_dlls(directory="")  # those that pip installed, if there are some
        session = super()._open(profile)
        if CUDA not in session.get_providers():
            raise EngineError(
                f"ONNX Runtime cannot use its CUDA provider: {_why_not(library)}",
                hint="'raudo doctor' tells which CUDA and cuDNN are there",
            )
        return session

    def _configure(self, options: Any, profiled: bool) -> list[Any]:
        options.add_free_dimension_override_by_name("batch", self._resources.batch)
        graph = self._graph and not profiled  # replayed, the nodes are not told apart
        cuda = {
            "use_tf32": int(self._tf32),
            "enable_cuda_graph": int(graph),
            "prefer_nhwc": int(self._channels_last),
        }
        return [(CUDA, {key: str(value) for key, value in cuda.items()}), CPU]

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        lane = self._lanes.get()
        try:
            boxes, scores, *labels = lane.run(images)
        finally:
            self._lanes.put(lane)
        return Outputs(boxes, scores, labels[0] if labels else None)

    def _audited_batch(self) -> int:
        return self._resources.batch

    def audit(self) -> PrecisionAudit:
        """Profile one run, and see that no node of the network ran on the CPU.

        Raises:
            EngineError: One did.
        """
        audit = super().audit()
        if self._tf32 and "fp32" in audit.found:
            found = dict(audit.found)
            found["tf32"] = found.pop("fp32")
            return audit.model_copy(update={"found": found})
        return audit

    def _trace(self, images: NDArray[np.uint8], runs: int) -> list[dict[str, Any]]:
        events = super()._trace(images, runs)
        fallen = [e["args"]["op_name"] for e in events if _fell_back(e["args"])]
        if fallen:
            kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(fallen).items())
            raise EngineError(
                f"ONNX Runtime runs {len(fallen)} nodes on the CPU: {kinds}",
                hint="its CUDA provider lacks them; use another engine for the GPU",
            )
        return events

    def time_network(self, images: NDArray[np.uint8], runs: int) -> tuple[float, ...]:
        """Time a session on images that are on the GPU; see `Engine.time_network`."""
        lane = self._lanes.get()
        try:
            lane.run(images)
            return lane.time(runs)
        finally:
            self._lanes.put(lane)

    def close(self) -> None:
        """Free the sessions."""
        super().close()
        while not self._lanes.empty():
            self._lanes.get().close()


class Lane:
    """One session with its input and outputs in the GPU's memory.

    Args:
        session: Its batch size is fixed.
        shape: Of the input: batch, height, width, 3.
        device: In ONNX Runtime's words.
        streams: Number of threads that may run it, one after another.
    """

    def __init__(
        self, session: Any, shape: tuple[int, ...], device: str = "cuda", streams: int = 1
    ) -> None:
        import numpy as np
        from onnxruntime import OrtValue

        self._thread = GpuThread(streams)
        self._session, self._binding = session, session.io_binding()
        self._host = np.zeros(shape, np.uint8)
        self._images = OrtValue.ortvalue_from_numpy(self._host, device, 0)
        self._binding.bind_ortvalue_input("images", self._images)
        self._outputs = []
        for output in session.get_outputs():
            kind = np.dtype(ELEMENT_TYPES[output.type])
            sides = (shape[0], *output.shape[1:])
            value = OrtValue.ortvalue_from_shape_and_type(sides, kind, device, 0)
            self._binding.bind_ortvalue_output(output.name, value)
            self._outputs.append(value)
        for _ in range(WARM_UPS):
            self.run(self._host)

    def run(self, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """Copy images over, run, and copy the outputs back; the last batch may be short."""
        return self._thread.do(lambda: self._run(images))

    def _run(self, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        if len(images) < len(self._host):
            self._host[: len(images)] = images
            self._images.update_inplace(self._host)
        else:
            self._images.update_inplace(images)
        self._session.run_with_iobinding(self._binding)
        return [value.numpy()[: len(images)] for value in self._outputs]

    def time(self, runs: int) -> tuple[float, ...]:
        """Time runs on the images that are there, waiting for the GPU; returns their seconds."""
        return self._thread.do(lambda: tuple(self._time() for _ in range(runs)))

    def _time(self) -> float:
        start = time.perf_counter()
        self._session.run_with_iobinding(self._binding)
        return time.perf_counter() - start

    def close(self) -> None:
        """Free the session."""
        self._thread.close()
        del self._session, self._binding, self._images, self._outputs


def _why_not(library: Path) -> str:
    """Return why a library cannot be loaded, in the words of the system's loader."""
    shared = library.with_name(library.name.replace("_cuda", "_shared"))
    try:
        ctypes.CDLL(str(shared), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return "the driver may be too old for it"


def _fell_back(details: dict[str, Any]) -> bool:
    """Tell whether a node ran on the CPU that computes more than shapes, which are integers."""
    kinds = {kind for shape in details.get("output_type_shape", []) for kind in shape}
    return details["provider"] == CPU and not kinds <= {"int64", "int32", "bool"}


def _node_precision(details: dict[str, Any]) -> str:
    if details["op_name"].startswith("QLinear") or "Integer" in details["op_name"]:
        return "int8"
    kinds = [kind for shape in details.get("input_type_shape", []) for kind in shape]
    if details["op_name"] == "Cast" and kinds == ["uint8"]:  # pixels, which nobody quantized
        return "uint8"
    known = next((PRECISION_NAMES[k] for k in kinds if k in PRECISION_NAMES), None)
    return known or (kinds[0] if kinds else "")
