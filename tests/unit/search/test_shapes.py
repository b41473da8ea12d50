from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raudo.images import fit
from raudo.records import Letterbox, Spec
from raudo.rectangles import smallest
from raudo.search import shapes

SPEC = Spec(family="any", height=640, width=640, classes=("a",))
SIZES = st.tuples(st.integers(1, 4000), st.integers(1, 4000))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(540, 960)], ((384, 640), (416, 640))),
        ([(480, 640)], ((480, 640), (512, 640))),
        ([(960, 540), (1920, 1080)], ((640, 384), (640, 416))),
        ([(365, 521)], ((480, 640),)),  # 448.4 high: 448 would scale it down
        ([(500, 500)], ()),
        ([(540, 960), (960, 540)], ()),
        ([], ()),
    ],
)
def test_proposals(sizes: list[tuple[int, int]], expected: tuple[tuple[int, int], ...]) -> None:
    assert shapes.propose(sizes, SPEC) == expected


LANDSCAPE, PORTRAIT = (540, 960), (960, 540)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([LANDSCAPE, PORTRAIT], (((384, 640), (640, 384)), ((416, 640), (640, 416)))),
        ([LANDSCAPE] * 9 + [(500, 500)], (((384, 640),), ((416, 640),))),  # the rest: own size
        ([LANDSCAPE] * 99 + [PORTRAIT], (((384, 640),), ((416, 640),))),  # too few to pay
        ([LANDSCAPE], ()),  # one rectangle holds all
        ([(500, 500)], ()),
        ([], ()),
    ],
)
def test_mixed_proposals(sizes: list[shapes.Size], expected: tuple[shapes.Size, ...]) -> None:
    assert shapes.propose_mixed(sizes, SPEC) == expected


@given(st.lists(SIZES, min_size=1, max_size=8))
def test_few_rectangles_that_pay_and_keep_every_scale(sizes: list[shapes.Size]) -> None:
    for rectangles in shapes.propose_mixed(sizes, SPEC):
        assert 1 <= len(set(rectangles)) == len(rectangles) <= shapes.MOST_RECTANGLES
        specs = [SPEC, *(SPEC.model_copy(update={"height": h, "width": w}) for h, w in rectangles)]
        area = 0
        for size in sizes:
            chosen = smallest([size], specs)
            own, new = fit(*size, SPEC), fit(*size, chosen)
            assert (new.height, new.width) == (own.height, own.width)
            area += chosen.height * chosen.width
        # Multiplied in another order, equal areas can differ in their last bit.
        assert area / len(sizes) <= shapes.WORTH_WHILE * (SPEC.height * SPEC.width)


def test_a_stretched_input_has_no_rim_to_save() -> None:
    stretched = SPEC.model_copy(update={"letterbox": Letterbox(placement="stretch")})
    assert shapes.propose([LANDSCAPE], stretched) == ()
    assert shapes.propose_mixed([LANDSCAPE, PORTRAIT], stretched) == ()


@given(st.lists(SIZES, min_size=1, max_size=5))
def test_every_image_keeps_its_scale(sizes: list[tuple[int, int]]) -> None:
    for height, width in shapes.propose(sizes, SPEC):
        assert height % 32 == width % 32 == 0
        assert height * width < SPEC.height * SPEC.width
        smaller = SPEC.model_copy(update={"height": height, "width": width})
        for size in sizes:
            own, new = fit(*size, SPEC), fit(*size, smaller)
            assert (new.height, new.width) == (own.height, own.width)
