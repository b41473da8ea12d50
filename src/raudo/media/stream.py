"""Overlaps reading with working: one thread reads ahead, several work, results come in order."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

READ_AHEAD = 2
"""Batches that wait, read, for a worker, so that none ever waits for the reader."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def overlap(
    items: Iterable[Item],
    work: Callable[[Sequence[Item]], Sequence[Result]],
    *,
    workers: int,
    batch: int = 1,
) -> Generator[tuple[Item, Result], None, None]:
    """Work on items in threads, while the next are read; yield each with its result, in order.

    At most `(workers + READ_AHEAD) * batch` items are read and not yet given back, however slow
    the caller is. An error of `items` or of `work` is raised at its place in the order, after all
    results before it. Closing the generator, or an exception in it such as KeyboardInterrupt, ends
    all threads after the item that each is at.

    Args:
        items: Read in a thread of its own, one at a time; whoever made it closes it, afterwards.
        work: Turns up to `batch` items into as many results; called from `workers` threads.
        workers: Number of calls of `work` that may be under way at once.
        batch: Items for each call; the last call may get fewer.
    """
    slots = threading.Semaphore(workers + READ_AHEAD)
    order: queue.SimpleQueue[tuple[list[Item], Future[Sequence[Result]]] | None]
    order = queue.SimpleQueue()
    stop = threading.Event()
    pool = ThreadPoolExecutor(workers + 1, thread_name_prefix="raudo-stream")

    def read() -> None:
        try:
            left, more = iter(items), True
            while more and slots.acquire() and not stop.is_set():
                some: list[Item] = []
                try:
                    some.extend(islice(left, batch))
                finally:  # what was read before an error comes before it
                    if some:
                        order.put((some, pool.submit(work, some)))
                more = len(some) == batch
        finally:
            order.put(None)

    reading = pool.submit(read)
    try:
        while (entry := order.get()) is not None:
            yield from zip(entry[0], entry[1].result(), strict=True)
            slots.release()
        reading.result()
    finally:
        stop.set()
        slots.release()
        pool.shutdown(cancel_futures=True)
