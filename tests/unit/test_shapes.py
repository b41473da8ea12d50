from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raudo import shapes
from raudo.images import fit
from raudo.records import Letterbox, Spec

SPEC = Spec(family="any", height=640, width=640, classes=("a",))
SIZES = st.tuples(st.integers(1, 4000), st.integers(1, 4000))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(540, 960)], ((384, 640), (416, 640))),
        ([(480, 640)], ((480, 640), (512, 640))),
        ([(960, 540), (1920, 1080)], ((640, 384), (640, 416))),
        ([(500, 500)], ()),
        ([(540, 960), (960, 540)], ()),
        ([], ()),
    ],
)
def test_proposals(sizes: list[tuple[int, int]], expected: tuple[tuple[int, int], ...]) -> None:
    assert shapes.propose(sizes, SPEC) == expected


def test_a_stretched_input_has_no_rim_to_save() -> None:
    stretched = SPEC.model_copy(update={"letterbox": Letterbox(placement="stretch")})
    assert shapes.propose([(540, 960)], stretched) == ()


@given(st.lists(SIZES, min_size=1, max_size=5))
def test_every_image_keeps_its_scale(sizes: list[tuple[int, int]]) -> None:
    for height, width in shapes.propose(sizes, SPEC):
        assert height % 32 == width % 32 == 0
        assert height * width < SPEC.height * SPEC.width
        smaller = SPEC.model_copy(update={"height": height, "width": width})
        for size in sizes:
            own, new = fit(*size, SPEC), fit(*size, smaller)
            assert (new.height, new.width) == (own.height, own.width)
