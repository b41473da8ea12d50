"""Streams, memory and graphs of an NVIDIA GPU, through NVIDIA's bindings of the CUDA runtime.

The package is `cuda-bindings` (or `cuda-python`, which brings it); no PyTorch is needed. Names and
status codes are those of the CUDA runtime API.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import math
import weakref
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from raudo.errors import EngineError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

MODULES = ("cuda.bindings.runtime", "cuda.cudart")
"""Where the bindings lie: today's place, and that of older versions."""
NON_BLOCKING = 1
MEMORY_ERROR = 2
HINTS = {
    MEMORY_ERROR: "fewer streams or a smaller batch need less; is another program using the GPU?",
    35: "install a newer NVIDIA driver",
    100: "is there an NVIDIA GPU, and may this process use it?",
}
"""What to do about a status code (cudaError_t)."""


def available() -> bool:
    """Tell whether the bindings are installed."""
    return any(map(_is_installed, MODULES))


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@cache
def runtime() -> Any:
    """Return the module of the bindings.

    Raises:
        MissingDependencyError: They are not installed.
    """
    found = next(filter(_is_installed, MODULES), None)
    if found is None:
        raise MissingDependencyError(
            "running an engine on an NVIDIA GPU needs cuda-bindings, which is not installed",
            hint="pip install cuda-bindings",
        )
    return importlib.import_module(found)


def check(answer: tuple[Any, ...], doing: str) -> Any:
    """Return what a CUDA call gave besides its status.

    Args:
        answer: The status, and at most one value.
        doing: What the call was for, for the error.

    Raises:
        EngineError: The status is not success.
    """
    status, *values = answer
    if int(status):
        name = str(getattr(status, "name", status))
        hint = HINTS.get(int(status), "'raudo doctor' tells what is there")
        raise EngineError(f"CUDA failed while {doing}: {name}", hint=hint)
    return values[0] if values else None


def describe() -> dict[str, str]:
    """Return name, compute capability and driver (as its newest CUDA version) of the first GPU.

    Raises:
        EngineError: There is no driver, it is too old, or it shows no GPU.
    """
    cuda = runtime()
    doing = "looking for a GPU"
    if not check(cuda.cudaGetDeviceCount(), doing):
        raise EngineError("the NVIDIA driver shows no GPU", hint=HINTS[100])
    kinds = cuda.cudaDeviceAttr
    capability = [
        str(check(cuda.cudaDeviceGetAttribute(kind, 0), doing))
        for kind in (
            kinds.cudaDevAttrComputeCapabilityMajor,
            kinds.cudaDevAttrComputeCapabilityMinor,
        )
    ]
    name = check(cuda.cudaGetDeviceProperties(0), doing).name
    driver = check(cuda.cudaDriverGetVersion(), doing)
    return {
        "gpu": name.decode().rstrip("\0") if isinstance(name, bytes) else str(name),
        "compute_capability": ".".join(capability),
        "driver": f"CUDA {driver // 1000}.{driver % 1000 // 10}",
    }


def start() -> None:
    """Begin to use the GPU, so that what is wrong with it is told here.

    Raises:
        EngineError: It cannot be used, for instance for want of memory; other libraries that find
            this out by themselves do not say why.
    """
    check(runtime().cudaFree(0), "starting on the GPU")


class PinnedMemory:
    """Memory here that a GPU copies from without a detour, in blocks that are used again.

    To take a new one takes longer than to fill it.

    Args:
        size: Bytes of a block.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._free: list[ctypes.Array[ctypes.c_uint8]] = []
        self._places: set[int] = set()

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return a block as uint8 of a shape, nobody else's until nothing refers to it any more.

        Raises:
            EngineError: It has no room in a block, or there is no such memory left.
        """
        import numpy as np

        count = math.prod(shape)
        if count > self.size:
            raise EngineError(
                f"the engine was opened for {self.size // (count // shape[0])} images at a time, "
                f"not {shape[0]}",
                hint="choose another batch size",
            )
        try:
            block = self._free.pop()  # the last one used: the caches may still have it
        except IndexError:
            block = self._take()
        array = np.frombuffer(memoryview(block), np.uint8, count)  # what its views refer to
        weakref.finalize(array, self._free.append, block).atexit = False
        return array.reshape(shape)

    def _take(self) -> ctypes.Array[ctypes.c_uint8]:
        cuda = runtime()
        place = int(check(cuda.cudaHostAlloc(self.size, 0), "taking pinned memory"))
        block = (ctypes.c_uint8 * self.size).from_address(place)
        weakref.finalize(block, cuda.cudaFreeHost, place).atexit = False
        self._places.add(place)
        return block

    def hold(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return images themselves if `empty` gave their memory, otherwise a copy in such memory.

        Raises:
            EngineError: They have no room in a block, or there is no such memory left.
        """
        if images.ctypes.data in self._places and images.flags.c_contiguous:
            return images
        copy = self.empty(images.shape)
        copy[:] = images
        return copy

    def close(self) -> None:
        """Free the blocks; those that something refers to, once nothing does."""
        self._free.clear()
        self._free = []  # those go back to the list before, which then nothing refers to either


@dataclass(frozen=True)
class Tensor:
    """Memory on the GPU, and as much pinned memory that it is copied to.

    Attributes:
        device: Address on the GPU.
        array: View of the pinned memory.
    """

    device: int
    array: NDArray[Any]


class Stream:
    """A CUDA stream with the memory that is used on it and the graphs that were recorded on it.

    Raises:
        EngineError: CUDA fails, for instance for want of memory; what was taken is freed.
    """

    def __init__(self) -> None:
        self._cuda = runtime()
        self._stack = ExitStack()
        handle = check(self._cuda.cudaStreamCreateWithFlags(NON_BLOCKING), "making a stream")
        self._stack.callback(self._cuda.cudaStreamDestroy, handle)
        self._handle = handle

    @property
    def address(self) -> int:
        """The stream as a number, as other libraries take it."""
        return int(self._handle)

    def memory(self, count: int) -> int:
        """Take bytes on the GPU; returns their address."""
        device = check(self._cuda.cudaMalloc(count), "taking memory on the GPU")
        self._stack.callback(self._cuda.cudaFree, device)
        return int(device)

    def tensor(self, shape: tuple[int, ...], dtype: str) -> Tensor:
        """Take memory for a tensor, here and on the GPU."""
        import numpy as np

        count = max(1, math.prod(shape)) * np.dtype(dtype).itemsize
        device = self.memory(count)
        host = check(self._cuda.cudaHostAlloc(count, 0), "taking pinned memory")
        self._stack.callback(self._cuda.cudaFreeHost, host)
        plain = (ctypes.c_uint8 * count).from_address(int(host))
        array = np.ctypeslib.as_array(plain).view(dtype)[: math.prod(shape)].reshape(shape)
        return Tensor(device, array)

    def upload(self, array: NDArray[Any], device: int) -> None:
        """Queue the copy of a contiguous array to an address on the GPU."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(device, array.ctypes.data, array.nbytes, kind)

    def download(self, tensor: Tensor) -> None:
        """Queue the copy of a tensor from the GPU."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(tensor.array.ctypes.data, tensor.device, tensor.array.nbytes, kind)

    def _copy(self, to: int, source: int, count: int, kind: Any) -> None:
        check(self._cuda.cudaMemcpyAsync(to, source, count, kind, self._handle), "copying")

    def record(self, work: Callable[[], None]) -> Any:
        """Record what a function queues on this stream as a graph that `launch` takes."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        check(self._cuda.cudaStreamBeginCapture(self._handle, mode), "recording a graph")
        try:
            work()
        finally:
            captured = self._cuda.cudaStreamEndCapture(self._handle)
        graph = check(captured, "recording a graph")
        try:
            made = check(self._cuda.cudaGraphInstantiateWithFlags(graph, 0), "making a graph")
        finally:
            self._cuda.cudaGraphDestroy(graph)
        self._stack.callback(self._cuda.cudaGraphExecDestroy, made)
        return made

    def launch(self, graph: Any) -> None:
        """Queue all the work of a graph."""
        check(self._cuda.cudaGraphLaunch(graph, self._handle), "launching a graph")

    def wait(self) -> None:
        """Wait for all that was queued."""
        check(self._cuda.cudaStreamSynchronize(self._handle), "running the engine")

    def time(self, graph: Any, runs: int) -> tuple[float, ...]:
        """Time a graph on the GPU's own clock; returns the seconds of each run."""
        with ExitStack() as stack:
            events = []
            for _ in range(2):
                events.append(check(self._cuda.cudaEventCreate(), "making an event"))
                stack.callback(self._cuda.cudaEventDestroy, events[-1])
            return tuple(self._time_once(graph, *events) for _ in range(runs))

    def _time_once(self, graph: Any, start: Any, end: Any) -> float:
        check(self._cuda.cudaEventRecord(start, self._handle), "recording an event")
        self.launch(graph)
        check(self._cuda.cudaEventRecord(end, self._handle), "recording an event")
        self.wait()
        return float(check(self._cuda.cudaEventElapsedTime(start, end), "reading a clock")) / 1e3

    def close(self) -> None:
        """Free all of it."""
        self._stack.close()
