"""Overlapping of reading and working: order, bounds, errors and early ends."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raudo.media import stream
from raudo.media.stream import READ_AHEAD, overlap

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

PATIENCE = 20.0
"""Seconds after which a test gives up; none of them waits so long when all is well."""


def threads_of_streams() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("raudo-stream")]


@given(
    delays=st.lists(st.integers(0, 3), max_size=25),
    workers=st.integers(1, 4),
    batch=st.integers(1, 5),
)
@settings(max_examples=40)
def test_order_is_kept_whatever_takes_long(delays: list[int], workers: int, batch: int) -> None:
    sizes = []

    def read() -> Iterator[tuple[int, int]]:
        for number, delay in enumerate(delays):
            time.sleep(delay % 2 * 1e-3)
            yield number, delay

    def work(some: Sequence[tuple[int, int]]) -> list[int]:
        time.sleep(sum(delay for _, delay in some) * 1e-3)
        sizes.append(len(some))
        return [number * 10 for number, _ in some]

    found = list(overlap(read(), work, workers=workers, batch=batch))
    assert found == [((n, d), n * 10) for n, d in enumerate(delays)]
    assert sum(sizes) == len(delays)
    assert len(sizes) == -(-len(delays) // batch)
    assert all(size <= batch for size in sizes)
    assert not threads_of_streams()


def test_a_late_first_result_still_comes_first() -> None:
    others = threading.Event()

    def work(some: Sequence[int]) -> Sequence[int]:
        if some[0] == 0:
            assert others.wait(PATIENCE)
        elif some[0] == 2:
            others.set()
        return some

    assert [item for item, _ in overlap(range(5), work, workers=2)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_so_many_are_worked_on_at_once(workers: int) -> None:
    together = threading.Barrier(workers)

    def work(some: Sequence[int]) -> Sequence[int]:
        together.wait(PATIENCE)  # nobody passes before all are there
        return some

    assert len(list(overlap(range(workers * 3), work, workers=workers))) == workers * 3


@pytest.mark.parametrize(("workers", "batch"), [(1, 1), (2, 1), (2, 3)])
def test_no_more_than_so_many_are_alive(workers: int, batch: int) -> None:
    bound = (workers + READ_AHEAD) * batch
    read, full = 0, threading.Event()

    def items() -> Iterator[int]:
        nonlocal read
        for number in range(10 * bound):
            read += 1
            if read == bound:
                full.set()
            yield number

    alive = []
    results = overlap(items(), lambda some: some, workers=workers, batch=batch)
    for given_back, (item, _) in enumerate(results):
        if item == 0:
            assert full.wait(PATIENCE)  # it reads ahead as far as it may, while the caller idles
            time.sleep(0.02)
        alive.append(read - given_back)
    assert max(alive) == bound


@given(
    count=st.integers(0, 12),
    workers=st.integers(1, 3),
    batch=st.integers(1, 4),
    in_source=st.booleans(),
)
@settings(max_examples=40)
def test_an_error_comes_at_its_place(count: int, workers: int, batch: int, in_source: bool) -> None:
    def items() -> Iterator[int]:
        yield from range(count)
        if in_source:
            raise OSError("source")
        yield from range(count, count + 20)

    def work(some: Sequence[int]) -> Sequence[int]:
        if not in_source and count in some:
            raise OSError("engine")
        return some

    found = []
    with pytest.raises(OSError, match="source" if in_source else "engine"):  # noqa: PT012
        for item, _ in overlap(items(), work, workers=workers, batch=batch):
            found.append(item)
    whole = count if in_source else count // batch * batch
    assert found == list(range(whole))
    assert not threads_of_streams()


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_an_early_end_ends_all_threads(taken: int) -> None:
    read: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            read.append(len(read))
            yield read[-1]

    results = overlap(endless(), lambda some: some, workers=2, batch=2)
    assert [next(results)[0] for _ in range(taken)] == list(range(taken))
    results.close()
    assert not threads_of_streams()
    assert len(read) <= taken + (2 + READ_AHEAD) * 2


def test_an_end_while_everything_waits() -> None:
    released = threading.Event()

    def work(some: Sequence[int]) -> Sequence[int]:
        if some[0] > 0:
            assert released.wait(PATIENCE)
        return some

    results = overlap(iter(range(100)), work, workers=2)
    assert next(results) == (0, 0)
    threading.Timer(0.05, released.set).start()
    results.close()
    assert not threads_of_streams()


def test_an_interrupt_of_the_caller_ends_all_threads() -> None:
    def interrupted(results: Generator[tuple[int, int], None, None]) -> None:
        for item, _ in results:
            if item == 3:
                results.throw(KeyboardInterrupt)

    with pytest.raises(KeyboardInterrupt):
        interrupted(overlap(range(100), lambda some: some, workers=2))
    assert not threads_of_streams()


def test_nothing_is_read_before_it_is_asked_for() -> None:
    source = iter(range(3))
    overlap(source, lambda some: some, workers=1).close()
    assert next(source) == 0


def test_a_wrong_number_of_results_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        list(overlap(range(4), lambda some: some[:1], workers=1, batch=2))


def test_read_ahead_is_what_the_bound_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "READ_AHEAD", 0)
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(6):
            read.append(number)
            yield number

    for given_back, _ in enumerate(overlap(items(), lambda some: some, workers=1)):
        assert len(read) - given_back <= 1
