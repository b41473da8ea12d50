"""All work on a GPU from one thread, whoever asks for it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from raudo.gpu.thread import GpuThread


def asked_from_others(home: GpuThread, times: int) -> set[int]:
    """Ask from as many threads, one after the other; return the threads that did the work."""
    found = set()
    for _ in range(times):
        with ThreadPoolExecutor(1) as pool:
            found.add(pool.submit(home.do, threading.get_ident).result())
    return found


def test_threads_that_come_and_go_are_all_served_by_one() -> None:
    home = GpuThread(8)
    first = home.do(threading.get_ident)
    assert asked_from_others(home, 3) == {first}
    assert first != threading.get_ident()
    home.close()


def test_a_single_stream_stays_where_it_is() -> None:
    home = GpuThread(1)
    assert home.do(threading.get_ident) == threading.get_ident()
    home.close()


def test_what_goes_wrong_there_is_raised_here() -> None:
    home = GpuThread(2)
    with pytest.raises(ZeroDivisionError):
        home.do(lambda: 1 / 0)
    home.close()
