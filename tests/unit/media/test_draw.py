"""Boxes, labels and side-by-side pictures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raudo.media.draw import colour, draw, ink_on, plain_text, side_by_side
from raudo.records import Detections


def detections(*boxes: tuple[float, ...], labels: tuple[int, ...] | None = None) -> Detections:
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.5, count).astype(np.float32),
        np.array(labels if labels is not None else range(count), np.int64),
    )


def grey(height: int = 120, width: int = 160) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def test_draw_leaves_the_image_alone_and_marks_a_copy() -> None:
    image = grey()
    drawn = draw(image, detections((40, 40, 100, 100)), ["cat"])
    assert (image == 90).all()
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert (drawn[100, 70] != 90).any(), "the lower edge"
    assert (drawn[70, 70] == 90).all(), "the inside stays visible"


def test_nothing_found_draws_nothing() -> None:
    assert (draw(grey(), detections(), ["cat"]) == 90).all()


def test_edge_has_the_colour_of_its_class() -> None:
    drawn = draw(grey(), detections((40, 50, 100, 100), labels=(3,)), list("abcdef"))
    assert tuple(drawn[100, 70].tolist()) == colour(3)


def test_best_score_lies_on_top() -> None:
    same = (40, 50, 100, 100)
    drawn = draw(grey(), detections(same, same, labels=(5, 1)), list("abcdef"))
    assert tuple(drawn[100, 70].tolist()) == colour(5)


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 160, 120),
        (-500, -500, 9000, 9000),
        (159, 119, 160, 120),
        (20, 20, 20, 20),
        (float("nan"), 0, float("inf"), 50),
    ],
)
def test_any_box_is_drawn_without_an_error(box: tuple[float, ...]) -> None:
    assert (draw(grey(), detections(box), ["a long class name, longer than the image"]) != 90).any()


def test_label_of_a_box_at_the_top_edge_is_inside_the_image() -> None:
    top, lower = (draw(grey(), detections((40, y, 100, y + 50)), ["cat"]) for y in (0, 40))
    assert (top[3:12, 42:80] != 90).any()
    assert (lower[28:38, 42:80] != 90).any(), "above the box where there is room"


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (900, 3), (2000, 3000)])
def test_any_image_size(shape: tuple[int, int]) -> None:
    assert draw(grey(*shape), detections((0, 0, 5, 5)), ["x"]).shape == (*shape, 3)


def test_lines_grow_with_the_image() -> None:
    def thickness(side: int) -> int:
        box = (side * 0.2, side * 0.5, side * 0.8, side * 0.9)
        column = draw(grey(side, side), detections(box), ["x"])[round(side * 0.8) :, side // 2]
        return int((column != 90).any(axis=1).sum())

    assert thickness(320) < thickness(1280) < thickness(2560)


def test_first_colours_are_distinct_and_stable() -> None:
    first = [colour(label) for label in range(24)]
    gaps = [np.abs(np.subtract(a, b)).max() for i, a in enumerate(first) for b in first[i + 1 :]]
    assert min(gaps) >= 16
    assert first == [colour(label) for label in range(24)]


def test_text_contrasts_with_every_colour() -> None:
    def luminance(bgr: tuple[int, ...]) -> float:
        c = np.array(bgr) / 255
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.0722, 0.7152, 0.2126])

    for label in range(100):
        light, dark = sorted((luminance(colour(label)), luminance(ink_on(colour(label)))))[::-1]
        assert (light + 0.05) / (dark + 0.05) >= 4.5, "WCAG AA"


@given(st.text())
def test_plain_text_is_printable_ascii(name: str) -> None:
    text = plain_text(name)
    assert all(" " <= c <= "~" for c in text)
    assert len(text) <= 48


def test_plain_text_keeps_what_it_can() -> None:
    assert plain_text("camión") == "camion"
    assert plain_text("犬 dog") == "? dog"
    assert plain_text("two\nlines") == "two?lines"


def test_label_beyond_the_classes_is_drawn() -> None:
    assert (draw(grey(), detections((40, 40, 90, 90), labels=(7,)), ["cat"]) != 90).any()


def test_side_by_side_shows_both_halves_at_one_scale() -> None:
    found = detections((40, 40, 100, 100))
    picture = side_by_side(grey(), found, detections(), ("baseline", "engine"), ["cat"])
    height, width = picture.shape[:2]
    assert width == 2 * 720 + 12
    assert height == 540 + 40
    left, right = picture[40:, :720], picture[40:, -720:]
    assert (left != 90).any()
    assert (right == 90).all()
    assert tuple(left[round(100 * 4.5), 300].tolist()) == colour(0), "boxes are scaled along"


def test_side_by_side_titles_differ() -> None:
    nothing = detections()
    picture = side_by_side(grey(), nothing, nothing, ("baseline", "engine"), ["cat"])
    left, right = picture[:40, :720], picture[:40, -720:]
    assert (left != right).any()
