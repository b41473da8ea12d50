"""TensorRT 8.5 to 11 and TensorRT for RTX on NVIDIA GPUs, through one code path.

Precision lies in the graph: tensors in FP16, and Q/DQ nodes for INT8. Images are letterboxed into
pinned memory and copied from there; engine -> pinned memory is one CUDA graph.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import queue
from typing import TYPE_CHECKING, Any, ClassVar

from raudo.backends.base import PROFILED_RUNS, Backend, Engine, Made, Outputs, Resources, Variant
from raudo.errors import EngineError, MissingDependencyError, RaudoError
from raudo.gpu import cuda
from raudo.gpu.lane import Lane, audit_layers, layer_precision
from raudo.gpu.toolkit import Toolkit

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from raudo.records import Artifact, Machine, NodeProfile, PrecisionAudit, Target

FULL, RTX = "TensorRT", "TensorRT-RTX"
FLAVOURS = {"tensorrt": FULL, "tensorrt_rtx": RTX, "tensorrt_rtx_bindings": RTX}
"""Module -> flavour; the first that is installed is used."""
NO_AIM = f"only {RTX} makes engines for GPUs that are not here, and it is not installed"
IDENTITY = ("runtime", "gpu", "compute_capability", "driver")
"""What an engine and the machine that opens it must have in common."""
LANES = 4
"""Most batches under way at once: while one is copied, others are computed."""
BATCHES = (1, 8, 32)


def _installed(*flavours: str) -> tuple[str, ...]:
    return tuple(
        module
        for module, flavour in FLAVOURS.items()
        if flavour in flavours and importlib.util.find_spec(module) is not None
    )


def _load(*flavours: str) -> Toolkit:
    """Import the first module of some flavours that is installed."""
    modules = _installed(*flavours)
    if not modules:
        raise MissingDependencyError(
            f"{' or '.join(flavours)} is not installed", hint="pip install 'raudo[tensorrt-rtx]'"
        )
    try:
        return Toolkit.of(importlib.import_module(modules[0]), FLAVOURS[modules[0]])
    except (ImportError, OSError) as error:
        raise MissingDependencyError(
            f"{FLAVOURS[modules[0]]} does not load: {str(error).partition(chr(10))[0]}",
            hint="a library is missing: 'raudo doctor' tells which are found",
        ) from error


class TensorRt(Backend):
    """NVIDIA's TensorRT, or TensorRT for RTX where that is not installed."""

    name = "tensorrt"
    title = "TensorRT"
    format = "tensorrt"
    suffix = ".engine"
    modules: ClassVar[tuple[str, ...]] = tuple(FLAVOURS)
    extra = "tensorrt-rtx"
    grid = "symmetric"
    making_factor = 6.0  # without a timing cache 8.5 took 193 to 323 s on an H100
    targets: ClassVar[tuple[Target, ...]] = ("production_gpu",)
    variants: ClassVar[tuple[Variant, ...]] = (
        Variant("fp32", "fp32", batches=BATCHES, device="gpu"),
        Variant("tf32", "tf32", batches=BATCHES, device="gpu"),
        Variant("fp16", "fp16", batches=BATCHES, device="gpu"),
        Variant("int8", "int8", batches=BATCHES, device="gpu"),
    )

    def missing(self) -> tuple[str, ...]:
        """Return what is not installed: either flavour will do."""
        return () if _installed(FULL, RTX) else ("tensorrt or tensorrt_rtx",)

    def unsupported(self, variant: Variant, machine: Machine) -> str | None:
        """Tell why this machine cannot run a variant; None if it can."""
        del variant
        if not machine.gpus:
            return "no NVIDIA GPU here"
        if not cuda.available():
            return "not installed: cuda-bindings (pip install cuda-bindings)"
        toolkit, here = _load(FULL, RTX), cuda.describe()
        kind = f"sm{here['compute_capability'].replace('.', '')}"
        if toolkit.aims and kind not in toolkit.kinds():
            return f"{toolkit.title} does not run on {here['gpu']} ({kind})"
        return None

    def unable_to_aim(self, gpus: tuple[str, ...]) -> str | None:
        """See `Backend.unable_to_aim`."""
        if not _installed(RTX):
            return f"{NO_AIM} (pip install 'raudo[{self.extra}]')"
        known = _load(RTX).kinds()
        unknown = [gpu for gpu in gpus if gpu.lower() not in known]
        if not unknown:
            return None
        return f"no kind of GPU that it knows: {', '.join(unknown)} (known: {', '.join(known)})"

    def read_graph(self, path: Path) -> Any:
        """See `Backend.read_graph`."""
        import onnx

        from raudo.graphs.peephole import shorten

        graph = onnx.load(str(path))
        shorten(graph)
        return graph

    def make(self, graph: Any, path: Path, variant: Variant, gpus: tuple[str, ...] = ()) -> Made:
        """Build an engine; see `Backend.make`."""
        return self.compile(graph.SerializeToString(), path, variant, gpus)

    def compile(
        self, model: bytes, path: Path, variant: Variant, gpus: tuple[str, ...] = ()
    ) -> Made:
        """Build an engine, tuned for a batch of one and for the largest of `variant.batches`.

        Args:
            model: What a graph of `read_graph` is, serialized, in the variant's precision.
            path: Where the engine file will lie.
            variant: Its precision and batch sizes.
            gpus: Kinds of GPU to build for; () is the one that is here.

        Raises:
            SourceError: TensorRT lacks an operator of the graph.
            EngineError: It cannot build, for instance for want of memory.
        """
        from raudo.gpu.build import Build, TimingCache

        toolkit = _load(RTX) if gpus else _load(FULL, RTX)
        kinds = {"compute_capability": ", ".join(map(_capability, gpus))}
        machine = {"runtime": toolkit.title, **(kinds if gpus else cuda.describe())}
        if not gpus:
            cuda.start()
        build = Build(toolkit, model, variant, gpus)
        cache = None if toolkit.aims else TimingCache(machine)
        path.write_bytes(build.run(cache))
        machine["onnx_sha256"] = hashlib.sha256(model).hexdigest()
        if cache is not None:
            machine["timing_cache"] = cache.path.name
        return Made(machine, build.audit() if gpus else None)

    def open(self, artifact: Artifact, resources: Resources) -> Engine:
        """Load an engine; see `Backend.open`."""
        return TensorRtEngine(artifact, resources)


def _capability(gpu: str) -> str:
    """Turn `sm120` into `12.0`."""
    digits = gpu.lower().removeprefix("sm")
    return f"{digits[:-1]}.{digits[-1]}"


class TensorRtEngine(Engine):
    """A loaded engine with a few lanes."""

    def __init__(self, artifact: Artifact, resources: Resources) -> None:
        super().__init__(artifact.manifest.spec)
        self._artifact, self._batch = artifact, resources.batch
        self._toolkit = _flavour_of(artifact)
        _check_identity(artifact, self._toolkit)
        cuda.start()
        self._log = self._toolkit.logger()
        try:
            self._runtime = self._toolkit.module.Runtime(self._log)
        except TypeError as error:  # what some versions do without a GPU
            raise EngineError(
                f"{self._toolkit.title} does not start: {self._log.reason()}",
                hint="'raudo doctor' tells which GPU and driver are found",
            ) from error
        self._engine = self._deserialize()
        self._keeps = resources.streams == 1
        spec = artifact.manifest.spec
        self._memory = cuda.PinnedMemory(resources.batch * spec.height * spec.width * 3)
        self._lanes: list[Lane] = []
        self._free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        try:
            for _ in range(min(LANES, resources.streams)):
                self._lanes.append(self._lane())
                self._free.put(self._lanes[-1])
        except RaudoError:
            self.close()
            raise

    def _deserialize(self) -> Any:
        path = self._artifact.path
        data = path.read_bytes()
        engine = self._runtime.deserialize_cuda_engine(data) if data else None
        if engine is None:
            raise EngineError(
                f"{path} does not load in {self._toolkit.title}: {self._log.reason()}",
                hint=_rebuild(self._artifact),
            )
        return engine

    def _lane(self) -> Lane:
        alone = not self._lanes or self._toolkit.share_profile
        engine = self._engine if alone else self._deserialize()
        return Lane(self._toolkit, engine, self._batch, self._memory, self._log)

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return pinned memory; see `Engine.empty`."""
        return self._memory.empty(shape)

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        lane = self._free.get()
        try:
            found = lane.run(images)
            if self._keeps:
                return found
            labels = None if found.labels is None else found.labels.copy()
            return Outputs(found.boxes.copy(), found.scores.copy(), labels)
        finally:
            self._free.put(lane)

    def audit(self) -> PrecisionAudit:
        """Count the computing layers of the built engine by the precision that they read."""
        return audit_layers(self._lanes[0].layers())

    def profile(self, images: NDArray[np.uint8]) -> tuple[NodeProfile, ...]:
        """Time each layer; see `Engine.profile`."""
        from raudo.records import NodeProfile

        lane = self._lane()
        try:
            told = {layer["Name"]: layer for layer in lane.layers()}
            times = lane.profile(images, PROFILED_RUNS)
        finally:
            lane.close()
        return tuple(
            NodeProfile(
                name=name,
                type=str(told.get(name, {}).get("LayerType", "")),
                precision=layer_precision(told.get(name, {})),
                milliseconds=taken,
            )
            for name, taken in times.items()
        )

    def time_network(self, images: NDArray[np.uint8], runs: int) -> tuple[float, ...]:
        """Time the network alone on the GPU's own clock.

        Args:
            images: What `run` takes, of the batch size that the engine was opened with.
            runs: How many times to run, one after the other.

        Returns:
            Seconds of each run.
        """
        return self._lanes[0].time(images, runs)

    def close(self) -> None:
        """Free the memory on the GPU."""
        for lane in self._lanes:
            lane.close()
        self._lanes.clear()
        self._memory.close()
        self._engine = None


def _flavour_of(artifact: Artifact) -> Toolkit:
    """Load the flavour that an engine was built with."""
    made = artifact.manifest.machine.get("runtime", "")
    flavours = [flavour for flavour in (RTX, FULL) if made.startswith(f"{flavour} ")]
    if flavours and not _installed(flavours[0]):
        raise EngineError(
            f"{artifact.path} was built with {made}, which is not installed",
            hint=_rebuild(artifact),
        )
    return _load(*(flavours[:1] or (FULL, RTX)))


def _check_identity(artifact: Artifact, toolkit: Toolkit) -> None:
    """Raise EngineError if an engine was built for another GPU, driver or version."""
    made = artifact.manifest.machine
    if not made:
        return
    here = {"runtime": toolkit.title, **cuda.describe()}
    differing = [
        f"{key.replace('_', ' ')} {made[key]}, here {here[key]}"
        for key in IDENTITY
        if key in made and here[key] not in made[key].split(", ")
    ]
    if differing:
        raise EngineError(
            f"{artifact.path} was built for another machine: {'; '.join(differing)}",
            hint=_rebuild(artifact),
        )


def _rebuild(artifact: Artifact) -> str:
    return f"make it again: raudo export {artifact.path} --rebuild"
