"""Memory that requests arrive in: a slot has one user, and is free when nobody looks at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from raudo.serve.arena import Arena, attached

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 4096


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena(slots=2, size=SIZE)
    yield arena
    arena.close()


def test_another_process_finds_the_same_bytes_at_the_same_place(arena: Arena) -> None:
    there = attached(arena.descriptor)
    for value in (1, 2):
        taken = arena.empty(SIZE)
        taken[:] = value
        images = taken[100:124].reshape(2, 2, 2, 3)
        place = arena.place(images)
        assert place is not None
        np.testing.assert_array_equal(there[place : place + 24], images.reshape(-1))


def test_no_two_requests_have_the_same_slot(arena: Arena) -> None:
    first, second = arena.empty(SIZE), arena.empty(10)
    assert not np.shares_memory(first, second)
    assert arena.place(arena.empty(10)) is None  # both are in use
    assert arena.place(first) is not None
    assert arena.place(second) is not None


VIEWS = {
    "a slice": lambda whole: whole[10:22],
    "a shape": lambda whole: whole.reshape(-1, 2, 4),
    "a slice of a shape": lambda whole: whole.reshape(-1, 2, 4)[3:],
    "a buffer": lambda whole: whole.data,
    "a slice of a buffer": lambda whole: whole.data[10:22],
    "an array of a buffer": lambda whole: np.frombuffer(whole.data[10:22], np.uint8),
    "all of that": lambda whole: np.frombuffer(whole.data[8:], np.uint8).reshape(-1, 4)[1:],
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_slot_is_in_use_as_long_as_anything_refers_to_it(arena: Arena, view: str) -> None:
    whole, other = arena.empty(SIZE), arena.empty(SIZE)
    kept = VIEWS[view](whole)
    del whole
    assert arena.place(arena.empty(SIZE)) is None
    del kept
    assert arena.place(arena.empty(SIZE)) is not None
    del other


def test_what_is_too_large_or_lies_apart_is_not_shared(arena: Arena) -> None:
    assert arena.place(arena.empty(SIZE + 1)) is None
    assert arena.place(np.zeros(3, np.uint8)) is None
    assert arena.place(arena.empty(10)[::2]) is None
