"""A thread to which all work on a GPU goes.

Libraries keep by thread what they prepared: PyTorch the plans of cuDNN for each convolution, ONNX
Runtime a session's CUDA graph. Run from another thread, they prepare all of it once more.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


class GpuThread:
    """Does one thing after the other, in one thread whoever asks.

    Args:
        streams: Number of threads that may ask at once; a single one is not left, which would cost
            it some microseconds each time.
    """

    def __init__(self, streams: int) -> None:
        self._pool = ThreadPoolExecutor(1, "raudo-gpu") if streams > 1 else None

    def do(self, work: Callable[[], Result]) -> Result:
        """Return what a function returns, or raise what it raises."""
        return work() if self._pool is None else self._pool.submit(work).result()

    def close(self) -> None:
        """End the thread."""
        if self._pool is not None:
            self._pool.shutdown()
