"""Where images arrive: memory that the service and all engines' processes have in common.

A body is read from its socket into it, an image file is decoded into it, and the engine reads it
there; so a tensor of a megabyte is copied once, by the kernel. The pages stay those that were used
before: fresh ones would have to be cleared and mapped for each request, which takes longer than to
fill them.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import weakref
from typing import TYPE_CHECKING

import numpy as np

from raudo.serve.memory import reserve

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLOTS = 64
SLOT_BYTES = 2 << 20
"""Room for an image of 640x640, 1.2 MB, and what comes along with it."""


class Arena:
    """Slots of one size, each of one request at a time.

    Where all slots are in use, or one is too small, memory of this process alone takes their place,
    and is copied when an engine gets it: so the number of slots bounds nothing but memory.

    Args:
        slots: How many.
        size: Bytes of each; memory that no request ever used takes no space.
    """

    def __init__(self, slots: int = SLOTS, size: int = SLOT_BYTES) -> None:
        self.descriptor = reserve()
        os.ftruncate(self.descriptor, slots * size)
        self._bytes = attached(self.descriptor)
        self._start, self._end = _address(self._bytes), _address(self._bytes) + self._bytes.nbytes
        self._memory = self._bytes.data
        self._size = size
        self._free = list(range(slots))

    def empty(self, size: int) -> NDArray[np.uint8]:
        """Return uint8 [size] of any content, nobody else's until nothing refers to it any more."""
        if size <= self._size:
            with contextlib.suppress(IndexError):
                slot = self._free.pop()  # the last one used: the caches may still have it
                # NumPy lets a view of an array refer to what that array is a view of, if this is
                # an array too: then the slot would be free while it is looked at. This one is not.
                taken = np.frombuffer(self._memory, np.uint8, size, slot * self._size)
                weakref.finalize(taken, self._free.append, slot).atexit = False
                return taken
        return private(size)

    def place(self, images: NDArray[np.uint8]) -> int | None:
        """Return at which byte of this memory an array begins; None: it lies elsewhere."""
        first = _address(images)
        inside = self._start <= first < self._end and images.flags.c_contiguous
        return first - self._start if inside else None

    def close(self) -> None:
        """Give the memory back as soon as nothing refers to it any more."""
        os.close(self.descriptor)


def private(size: int) -> NDArray[np.uint8]:
    """Return uint8 [size] of this process alone."""
    return np.empty(size, np.uint8)


def attached(descriptor: int) -> NDArray[np.uint8]:
    """Return all of an arena's memory, uint8 [bytes], as its descriptor gives it to a process."""
    return np.frombuffer(mmap.mmap(descriptor, 0), np.uint8)


def _address(array: NDArray[np.uint8]) -> int:
    place: int = array.__array_interface__["data"][0]
    return place
