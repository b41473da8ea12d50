"""PyTorch, as most people run it and at its best, on the CPU and on a GPU."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
import sysconfig
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from raudo.backends.base import Backend, Engine, Outputs, Resources, Variant
from raudo.errors import EngineError
from raudo.gpu.thread import GpuThread

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from raudo.records import Artifact, Machine, PrecisionAudit, Target

BF16_HARDWARE = frozenset({"AVX-512 BF16", "AMX BF16", "NEON BF16"})
CUDA_LIBRARIES = ("libtorch_cuda.so", "torch_cuda.dll")
WARM_UPS = 3
"""Runs before a graph is captured: libraries choose their algorithms in the first ones."""


class Torch(Backend):
    """PyTorch, from the model file itself."""

    name = "torch"
    title = "PyTorch"
    format = "torch"
    suffix = ".pt"
    modules: ClassVar[tuple[str, ...]] = ("torch",)
    extra = "torch"
    made_from: ClassVar[Literal["model", "onnx"]] = "model"
    targets: ClassVar[tuple[Target, ...]] = ("development",)
    variants: ClassVar[tuple[Variant, ...]] = (
        Variant("fp32", "fp32"),
        Variant("bf16", "bf16", {"channels_last": True}),
        # Threads are compiled in: each number of streams would be a minute's compilation.
        Variant(
            "compiled",
            "fp32",
            {"channels_last": True, "compile": True},
            batches=(1,),
            streams=False,
        ),
        Variant(
            "compiled-bf16",
            "bf16",
            {"channels_last": True, "compile": True},
            batches=(1,),
            streams=False,
        ),
        Variant("cuda-fp32", "fp32", device="gpu"),
        Variant("cuda-tf32", "tf32", device="gpu"),
        Variant("cuda-fp16", "fp16", {"channels_last": True}, device="gpu"),
        Variant("cuda-graph", "fp16", {"channels_last": True, "graph": True}, device="gpu"),
        Variant(
            "cuda-compiled",
            "fp16",
            {"channels_last": True, "compile": True, "graph": True},
            batches=(1,),
            device="gpu",
        ),
    )
    baseline_rank = 0

    def unsupported(self, variant: Variant, machine: Machine) -> str | None:
        """Tell why a variant cannot run here; None if it can."""
        if variant.device == "gpu" and not _has_cuda():
            return "the PyTorch that is installed was built without CUDA"
        if variant.precision == "bf16" and not BF16_HARDWARE & set(machine.isa):
            return "this CPU has no BF16 arithmetic"
        return missing_toolchain() if variant.options.get("compile") else None

    def open(self, artifact: Artifact, resources: Resources) -> Engine:
        """Load a model file; see `Backend.open`."""
        kind = CudaEngine if artifact.manifest.device == "gpu" else TorchEngine
        return kind(artifact, resources)


def _has_cuda() -> bool:
    """Tell whether the package has its CUDA library, without importing the package."""
    found = importlib.util.find_spec("torch")
    folders = [Path(folder) for folder in (found.submodule_search_locations or ())] if found else []
    return any((f / "lib" / library).is_file() for f in folders for library in CUDA_LIBRARIES)


def missing_toolchain() -> str | None:
    """Tell what `torch.compile` lacks here to compile its C++ kernels; None if nothing."""
    usual = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    compiler = os.environ.get("CXX", usual)
    words = shlex.split(compiler, posix=sys.platform != "win32")
    if shutil.which(next(iter(words), "")) is None:
        return f"torch.compile needs a C++ compiler: '{compiler}' was not found"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return "torch.compile needs the headers of Python, which are not installed (python3-dev)"
    return None


class TorchEngine(Engine):
    """A family's module on the CPU, run eagerly or compiled."""

    device: ClassVar[str] = "cpu"

    def __init__(self, artifact: Artifact, resources: Resources) -> None:
        manifest = artifact.manifest
        super().__init__(manifest.spec)
        import torch

        torch.set_num_threads(max(1, resources.threads // resources.streams))
        module = resources.model.module() if resources.model else None
        if module is None:
            raise EngineError(
                f"{artifact.path} holds no PyTorch module", hint="run it with another backend"
            )
        module = module.to(self.device)
        if manifest.precision == "fp16":
            module = module.half()
        if manifest.options.get("channels_last"):
            module = module.to(memory_format=torch.channels_last)
        self._module = module
        self._call: Any = torch.compile(module) if manifest.options.get("compile") else module
        self._autocast = manifest.precision == "bf16"

    def _computing(self) -> ExitStack:
        """Enter what inference happens in."""
        import torch

        entered = ExitStack()
        entered.enter_context(torch.inference_mode())
        if self._autocast:
            entered.enter_context(torch.autocast(self.device, torch.bfloat16))
        return entered

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        import torch

        with self._computing():
            boxes, scores, *labels = self._call(torch.from_numpy(images).to(self.device))
            return Outputs(
                boxes.float().cpu().numpy(),
                scores.float().cpu().numpy(),
                labels[0].cpu().numpy() if labels else None,
            )

    def audit(self) -> PrecisionAudit:
        """Count the convolutions and matrix products of one run by the type of their result."""
        import torch

        from raudo.records import PrecisionAudit

        found: Counter[str] = Counter()
        providers: Counter[str] = Counter()
        names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}

        def note(_module: Any, _inputs: Any, output: Any) -> None:
            found[self._really(names.get(output.dtype, str(output.dtype)))] += 1
            providers[output.device.type.upper()] += 1

        layers = (torch.nn.Conv2d, torch.nn.Linear)
        hooks = [
            layer.register_forward_hook(note)
            for layer in self._module.modules()
            if isinstance(layer, layers)
        ]
        images = torch.zeros(1, self.spec.height, self.spec.width, 3, dtype=torch.uint8)
        with self._computing():
            self._module(images.to(self.device))
        for hook in hooks:
            hook.remove()
        return PrecisionAudit(found=dict(found), providers=dict(providers))

    def _really(self, precision: str) -> str:
        """Return what tensors of a precision are computed in."""
        return precision


class CudaEngine(TorchEngine):
    """A family's module on an NVIDIA GPU, run eagerly or as one CUDA graph."""

    device = "cuda"

    def __init__(self, artifact: Artifact, resources: Resources) -> None:
        import torch

        if not torch.cuda.is_available():
            raise EngineError(
                "PyTorch finds no GPU that it can use",
                hint=f"it was built for CUDA {torch.version.cuda}: is the driver too old for that?",
            )
        manifest = artifact.manifest
        # The engine has its process to itself, so what holds for all of PyTorch may be set.
        tf32 = manifest.precision != "fp32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        super().__init__(artifact, resources)
        self._thread = GpuThread(resources.streams)
        if manifest.options.get("graph"):
            shape = (resources.batch, self.spec.height, self.spec.width, 3)
            self._thread.do(lambda: self._capture(torch.zeros(shape, dtype=torch.uint8)))

    def _capture(self, images: Any) -> None:
        with self._computing():
            self._call = CapturedGraph(self._call, images)

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return pinned memory, which PyTorch keeps to use it again; see `Engine.empty`."""
        import torch

        pinned: NDArray[np.uint8] = torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
        return pinned

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        return self._thread.do(lambda: super(CudaEngine, self)._run(images))

    def audit(self) -> PrecisionAudit:
        """See `TorchEngine.audit`."""
        return self._thread.do(super().audit)

    def _really(self, precision: str) -> str:
        import torch

        tf32 = torch.backends.cudnn.allow_tf32 and torch.cuda.get_device_capability() >= (8, 0)
        return "tf32" if precision == "fp32" and tf32 else precision

    def time_network(self, images: NDArray[np.uint8], runs: int) -> tuple[float, ...]:
        """Time the module on images that are on the GPU; see `Engine.time_network`."""
        return self._thread.do(lambda: self._time(images, runs))

    def _time(self, images: NDArray[np.uint8], runs: int) -> tuple[float, ...]:
        import torch

        taken = []
        with self._computing():
            resident = torch.from_numpy(images).to(self.device)
            captured = isinstance(self._call, CapturedGraph)
            self._call(resident)
            for _ in range(runs):
                torch.cuda.synchronize()
                start = time.perf_counter()
                if captured:
                    self._call.replay()
                else:
                    self._call(resident)
                torch.cuda.synchronize()
                taken.append(time.perf_counter() - start)
        return tuple(taken)

    def close(self) -> None:
        """End the thread that the GPU was used from."""
        self._thread.close()


class CapturedGraph:
    """All launches of a module for one batch size, as one CUDA graph.

    Args:
        module: What is captured.
        images: uint8 [batch, height, width, 3]; smaller batches use the first places.
    """

    def __init__(self, module: Callable[[Any], Any], images: Any) -> None:
        import torch

        self._images = images.to("cuda")
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                module(self._images)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = module(self._images)

    def __call__(self, images: Any) -> list[Any]:
        """Return the module's outputs; they hold until the next call."""
        self._images[: len(images)].copy_(images)
        self.replay()
        return [output[: len(images)] for output in self._outputs]

    def replay(self) -> None:
        """Run the graph on the images that it holds."""
        self._graph.replay()
