"""A GPU that is not there: the CUDA runtime and an inference library, as far as raudo calls them.

Its memory is this process's, so addresses and copies are real. While a stream is captured, what is
queued on it is kept instead of done, and launching the graph does it. The library's engine is the
file's own JSON: the shapes of its tensors, its profiles, and what its inspector tells; it gives
each image's mean as every score, and 1, 2, 3, 4 as every box.
"""

from __future__ import annotations

import ctypes
import enum
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

SUCCESS, NO_MEMORY, NO_DRIVER = 0, 2, 35
CONTEXT = 1 << 10
"""Bytes that any use of the GPU takes."""


class Cuda:
    """The CUDA runtime, as `cuda.bindings.runtime` has it."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815
    cudaDeviceAttr = SimpleNamespace(  # noqa: N815
        cudaDevAttrComputeCapabilityMajor=75, cudaDevAttrComputeCapabilityMinor=76
    )

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.streams: dict[int, list[Callable[[], None]] | None] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.sources: list[int] = []
        """What was copied, by the address that it was copied from."""
        self.limit = 1 << 40
        self.devices, self.capability, self.driver, self.status = 1, (8, 6), 13000, SUCCESS
        self._next = 1

    @property
    def taken(self) -> int:
        """Number of things that nobody freed."""
        return len(self.memory) + len(self.streams) + len(self.graphs)

    def _number(self) -> int:
        self._next += 1
        return self._next

    def cudaGetDeviceCount(self) -> tuple[int, int]:  # noqa: N802
        return self.status, self.devices

    def cudaDeviceGetAttribute(self, kind: int, device: int) -> tuple[int, int]:  # noqa: N802
        return SUCCESS, self.capability[kind - 75]

    def cudaGetDeviceProperties(self, device: int) -> tuple[int, Any]:  # noqa: N802
        return SUCCESS, SimpleNamespace(name=b"Fake 3000\0")

    def cudaDriverGetVersion(self) -> tuple[int, int]:  # noqa: N802
        return SUCCESS, self.driver

    def cudaMalloc(self, count: int) -> tuple[int, int | None]:  # noqa: N802
        if count > self.limit:
            return NO_MEMORY, None
        block = ctypes.create_string_buffer(count)
        self.memory[ctypes.addressof(block)] = block
        return SUCCESS, ctypes.addressof(block)

    def cudaHostAlloc(self, count: int, flags: int) -> tuple[int, int | None]:  # noqa: N802
        return self.cudaMalloc(count)

    def cudaFree(self, address: int) -> tuple[int]:  # noqa: N802
        if not address:  # which takes what any use of the GPU takes
            return (SUCCESS if self.limit >= CONTEXT else NO_MEMORY,)
        del self.memory[address]
        return (SUCCESS,)

    cudaFreeHost = cudaFree  # noqa: N815

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[int, int]:  # noqa: N802
        number = self._number()
        self.streams[number] = None
        return SUCCESS, number

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:  # noqa: N802
        del self.streams[stream]
        return (SUCCESS,)

    def queue(self, stream: int, work: Callable[[], None]) -> None:
        """Do something, or keep it while the stream is captured."""
        kept = self.streams[stream]
        if kept is None:
            work()
        else:
            kept.append(work)

    def cudaMemcpyAsync(  # noqa: N802
        self, to: int, source: int, count: int, kind: int, stream: int
    ) -> tuple[int]:
        self.sources.append(source)
        self.queue(stream, lambda: ctypes.memmove(to, source, count) and None)
        return (SUCCESS,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:  # noqa: N802
        return (SUCCESS,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[int]:  # noqa: N802
        self.streams[stream] = []
        return (SUCCESS,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[int, Any]:  # noqa: N802
        kept, self.streams[stream] = self.streams[stream], None
        return SUCCESS, kept

    def cudaGraphInstantiateWithFlags(self, graph: Any, flags: int) -> tuple[int, int]:  # noqa: N802
        number = self._number()
        self.graphs[number] = graph
        return SUCCESS, number

    def cudaGraphDestroy(self, graph: Any) -> tuple[int]:  # noqa: N802
        return (SUCCESS,)

    def cudaGraphExecDestroy(self, graph: int) -> tuple[int]:  # noqa: N802
        del self.graphs[graph]
        return (SUCCESS,)

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[int]:  # noqa: N802
        for work in self.graphs[graph]:
            work()
        return (SUCCESS,)

    def cudaEventCreate(self) -> tuple[int, int]:  # noqa: N802
        return SUCCESS, self._number()

    def cudaEventDestroy(self, event: int) -> tuple[int]:  # noqa: N802
        return (SUCCESS,)

    def cudaEventRecord(self, event: int, stream: int) -> tuple[int]:  # noqa: N802
        return (SUCCESS,)

    def cudaEventElapsedTime(self, start: int, end: int) -> tuple[int, float]:  # noqa: N802
        return SUCCESS, 1.5


class Severity(enum.Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class Logger:
    Severity = Severity

    def log(self, severity: Severity, msg: str) -> None: ...


class Profiler:
    def report_layer_time(self, layer_name: str, ms: float) -> None: ...


def library(cuda: Cuda, version: str = "8.5.3", *, typed: bool = False) -> Any:
    """Make the library's module.

    Args:
        cuda: The GPU that its engines run on.
        version: What it says it is.
        typed: Whether it is one of the newer kind.
    """
    creation = SimpleNamespace(STRONGLY_TYPED=1) if typed else SimpleNamespace(EXPLICIT_BATCH=0)
    return SimpleNamespace(
        __name__="fake",
        __version__=version,
        NetworkDefinitionCreationFlag=creation,
        ILogger=Logger,
        IProfiler=Profiler,
        LayerInformationFormat=SimpleNamespace(JSON=1),
        Runtime=lambda log: Runtime(cuda, log),
    )


class Runtime:
    def __init__(self, cuda: Cuda, log: Any) -> None:
        self._cuda, self._log = cuda, log

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        try:
            return Engine(self._cuda, json.loads(data))
        except ValueError:
            self._log.log(Severity.ERROR, "Serialization assertion failed\nand more")
            return None


class Engine:
    def __init__(self, cuda: Cuda, told: dict[str, Any]) -> None:
        self.cuda, self.told = cuda, told
        self.num_io_tensors = len(told["tensors"])
        self.num_optimization_profiles = len(told["profiles"])

    def get_tensor_name(self, index: int) -> str:
        return list(self.told["tensors"])[index]

    def get_tensor_shape(self, name: str) -> list[int]:
        shape: list[int] = self.told["tensors"][name][1]
        return shape

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.told["tensors"][name][0])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[list[int]]:
        tail = self.told["tensors"][name][1][1:]
        least, most = self.told["profiles"][profile_index]
        return [[count, *tail] for count in (least, most, most)]

    def create_execution_context(self) -> Context | None:
        return None if self.told.get("no context") else Context(self)

    def create_engine_inspector(self) -> Any:
        text = json.dumps({"Layers": self.told["layers"]})
        return SimpleNamespace(get_engine_information=lambda _: text)


class Context:
    def __init__(self, engine: Engine) -> None:
        self._engine, self._batch, self._addresses = engine, 1, dict[str, int]()
        self.profile, self.profiler, self.enqueue_emits_profile = 0, None, True

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self.profile = profile_index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, most = self._engine.told["profiles"][self.profile]
        assert least <= shape[0] <= most
        self._batch = shape[0]
        return True

    def get_tensor_shape(self, name: str) -> list[int]:
        first, *rest = self._engine.get_tensor_shape(name)
        return [self._batch if first == -1 else first, *rest]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert memory in self._engine.cuda.memory
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        if self._engine.told.get("fails"):
            return False
        self._engine.cuda.queue(stream_handle, self._compute)
        return True

    def report_to_profiler(self) -> bool:
        assert not self.enqueue_emits_profile
        for layer in self._engine.told["layers"]:
            self.profiler.report_layer_time(layer["Name"], 0.25)
        return True

    def _compute(self) -> None:
        images = self._view("images", np.uint8)
        self._view("boxes", np.float32)[:] = [1, 2, 3, 4]
        scores = self._view("scores", np.float32)
        scores[:] = images.reshape(self._batch, -1).mean(1).reshape(-1, *[1] * (scores.ndim - 1))

    def _view(self, name: str, dtype: Any) -> Any:
        shape = self.get_tensor_shape(name)
        block = self._engine.cuda.memory[self._addresses[name]]
        return np.frombuffer(block, np.uint8).view(dtype)[: int(np.prod(shape))].reshape(shape)
