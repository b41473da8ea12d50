from __future__ import annotations

import numpy as np
import pytest

from raudo.accuracy.boxes import paired_iou


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),
        ((0, 0, 10, 10), (30, 30, 40, 40), 0.0),
        ((5, 5, 5, 5), (0, 0, 10, 10), 0.0),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0),
    ],
)
def test_iou(first: tuple[int, ...], second: tuple[int, ...], expected: float) -> None:
    a, b = np.array([first], np.float32), np.array([second], np.float64)
    assert paired_iou(a, b) == pytest.approx(expected)
    assert paired_iou(b, a) == pytest.approx(expected)


def test_of_a_crowd_only_the_share_inside_counts() -> None:
    a, b = np.array([[0.0, 0, 10, 10]] * 2), np.array([[5.0, 0, 100, 100]] * 2)
    inside, plain = paired_iou(a, b, np.array([True, False]))
    assert inside == 0.5
    assert plain == pytest.approx(50 / (100 + 9500 - 50))


def test_no_boxes_have_no_iou() -> None:
    assert paired_iou(np.zeros((0, 4)), np.zeros((0, 4))).shape == (0,)
