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

    from raudo.records import Spec
    from raudo.serve.instance import Facts

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


@dataclass(frozen=True)
class Layout:
    """Where the tensors lie: `images`, then the engine's outputs."""

    tensors: tuple[Tensor, ...]

    @classmethod
    def of(cls, spec: Spec, facts: Facts) -> Layout:
        """Lay out one batch of an engine."""
        shapes = {"images": ("uint8", (spec.height, spec.width, 3)), **facts.outputs}
        tensors: list[Tensor] = []
        end = 0
        for name, (dtype, shape) in shapes.items():
            start = -(-end // ALIGNMENT) * ALIGNMENT
            tensors.append(Tensor(name, dtype, (facts.batch, *shape), start))
            end = tensors[-1].end
        return cls(tuple(tensors))

    @property
    def size(self) -> int:
        """Bytes that all of them take."""
        return self.tensors[-1].end

    def map(self, descriptor: int) -> dict[str, NDArray[Any]]:
        """Return the tensors in reserved memory; it stays mapped as long as one of them is used."""
        os.ftruncate(descriptor, self.size)
        memory = mmap.mmap(descriptor, self.size)
        return {
            t.name: np.ndarray(t.shape, np.dtype(t.dtype), memory, t.offset) for t in self.tensors
        }
