"""Memory that the service shares with an engine's process, so that tensors need not travel."""

from __future__ import annotations

import mmap
import os
import tempfile
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from raudo.serve.instance import Facts, Rectangle

ALIGNMENT = 64


def reserve() -> int:
    """Return a file descriptor of new memory, which is gone once all its users are.

    A name would outlive a process that is killed, and containers keep the usual place for named
    memory small; so it has none.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create("raudo-serve")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


@dataclass(frozen=True)
class Tensor:
    """Where one tensor of a whole batch lies."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.offset + prod(self.shape) * np.dtype(self.dtype).itemsize


def tensors_of(rectangle: Rectangle, batch: int) -> tuple[Tensor, ...]:
    """Lay out one batch of an input rectangle: `images`, then the engine's outputs."""
    shapes = {"images": ("uint8", (*rectangle.size, 3)), **rectangle.outputs}
    tensors: list[Tensor] = []
    end = 0
    for name, (dtype, shape) in shapes.items():
        start = -(-end // ALIGNMENT) * ALIGNMENT
        tensors.append(Tensor(name, dtype, (batch, *shape), start))
        end = tensors[-1].end
    return tuple(tensors)


def shared(descriptor: int, facts: Facts) -> dict[tuple[int, int], dict[str, NDArray[Any]]]:
    """Return the tensors of a batch, by input rectangle and name, in reserved memory.

    A batch has one rectangle, so those of all begin at the same byte. The memory stays mapped as
    long as one of them is used.
    """
    layouts = {each.size: tensors_of(each, facts.batch) for each in facts.rectangles}
    size = max(tensors[-1].end for tensors in layouts.values())
    os.ftruncate(descriptor, size)
    memory = mmap.mmap(descriptor, size)
    return {
        rectangle: {t.name: np.ndarray(t.shape, np.dtype(t.dtype), memory, t.offset) for t in each}
        for rectangle, each in layouts.items()
    }
