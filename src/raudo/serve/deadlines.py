"""Work that may not take longer than a client waits."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from raudo.serve.errors import DeadlineError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def in_time(seconds: float, otherwise: str) -> Iterator[None]:
    """Give the block so many seconds, then cancel what it waits for.

    `asyncio.wait_for` would keep what fails alive until the next collection: its frame, which the
    error refers to, refers to the future, which refers to the error.

    Args:
        seconds: From now on.
        otherwise: Why there is no answer then.

    Raises:
        DeadlineError: It took longer.
    """
    late, worker = False, asyncio.current_task()

    def give_up() -> None:
        nonlocal late
        late = True
        assert worker is not None  # noqa: S101 (coroutines run in tasks)
        worker.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, give_up)
    try:
        yield
    except asyncio.CancelledError:
        if late:
            raise DeadlineError(otherwise) from None
        raise
    finally:
        timer.cancel()
