"""The protocol's tensors: what is taken, what is refused, what comes back."""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raudo.backends.base import Outputs
from raudo.records import Detections
from raudo.serve import oip
from raudo.serve.errors import BadRequestError
from raudo.serve.records import Reply, Stages

if TYPE_CHECKING:
    from collections.abc import Sequence

PIXELS = np.arange(2 * 2 * 3, dtype=np.uint8)


def pixels(data: Any, shape: tuple[int, ...] = (1, 2, 2, 3), datatype: str = "UINT8") -> oip.Tensor:
    return oip.Tensor("images", datatype, shape, data)


def packed(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


@pytest.mark.parametrize(
    "data", [PIXELS.tobytes(), memoryview(PIXELS.tobytes()), PIXELS.tolist(), [[PIXELS.tolist()]]]
)
def test_pixels_are_read_from_bytes_and_from_lists(data: Any) -> None:
    np.testing.assert_array_equal(oip.read_pixels(pixels(data)).reshape(-1), PIXELS)
    assert oip.read_pixels(pixels(data)).shape == (1, 2, 2, 3)


@pytest.mark.parametrize(
    "tensor",
    [
        pixels(PIXELS.tobytes()[1:]),
        pixels(PIXELS.tobytes(), (1, 2, 2, 4)),
        pixels(PIXELS.tobytes(), (-1, -2, 2, 3)),
        pixels(PIXELS.tobytes(), (2**40, 2**40, 2, 3)),
        pixels(PIXELS.tobytes(), ()),
        pixels(b"", (0,) * 9),
        pixels(PIXELS.tobytes(), datatype="FP32"),
        pixels([*PIXELS.tolist()[1:], 256]),
        pixels([*PIXELS.tolist()[1:], -1]),
        pixels([*PIXELS.tolist()[1:], 0.5]),
        pixels([*PIXELS.tolist()[1:], float("nan")]),
        pixels([*PIXELS.tolist()[1:], None]),
        pixels([*PIXELS.tolist()[1:], 10**30]),
        pixels([[1, 2], [3]]),
        pixels(["a"] * 12),
        pixels([True] * 12),
    ],
)
def test_pixels_that_do_not_fit_are_refused(tensor: oip.Tensor) -> None:
    with pytest.raises(BadRequestError):
        oip.read_pixels(tensor)


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_elements_come_back_from_bytes_and_from_base64(elements: list[bytes]) -> None:
    texts = [base64.b64encode(element).decode() for element in elements]
    for data in (packed(*elements), texts):
        tensor = oip.Tensor("encoded", "BYTES", (len(elements),), data)
        assert oip.read_elements(tensor) == tuple(elements)


def test_elements_in_nested_lists_are_read_in_their_order() -> None:
    data = [["YQ==", "Yg=="], ["Yw==", ""]]
    tensor = oip.Tensor("encoded", "BYTES", (2, 2), data)
    assert oip.read_elements(tensor) == (b"a", b"b", b"c", b"")


@given(st.binary(max_size=60), st.integers(0, 4))
def test_any_bytes_are_elements_or_refused(data: bytes, count: int) -> None:
    try:
        elements = oip.read_elements(oip.Tensor("encoded", "BYTES", (count,), data))
    except BadRequestError:
        return
    assert packed(*elements) == data
    assert len(elements) == count


@pytest.mark.parametrize("data", [["a"], ["====" * 2], [1], [None], ["ä"]])
def test_text_that_is_no_base64_is_refused(data: Sequence[Any]) -> None:
    with pytest.raises(BadRequestError):
        oip.read_elements(oip.Tensor("encoded", "BYTES", (1,), data))


def ask(*inputs: oip.Tensor, **more: Any) -> oip.Ask:
    return oip.Ask("r", inputs, **more)


ENCODED = oip.Tensor("encoded", "BYTES", (1,), packed(b"image"))


def test_each_input_gets_its_usual_outputs_unless_others_are_named() -> None:
    raw, _ = oip.to_request(ask(pixels(PIXELS.tobytes())))
    assert (raw.raw, raw.selection) == (True, None)
    found, _ = oip.to_request(ask(ENCODED, parameters={"confidence": 0.5, "timeout": 2_000_000}))
    assert (found.raw, found.timeout) == (False, 2.0)
    assert found.selection is not None
    assert found.selection.confidence == 0.5
    both, _ = oip.to_request(ask(ENCODED, outputs=("scores", "detections")))
    assert both.raw
    assert both.selection is not None


@pytest.mark.parametrize(
    "asked",
    [
        ask(),
        ask(ENCODED, ENCODED),
        ask(oip.Tensor("image", "UINT8", (1,), b"x")),
        ask(ENCODED, parameters={"confidence": 2}),
        ask(ENCODED, parameters={"confidence": "much"}),
        ask(ENCODED, parameters={"iou": float("nan")}),
        ask(ENCODED, parameters={"timeout": -1}),
        ask(ENCODED, parameters={"limit": 0}),
    ],
)
def test_requests_that_make_no_sense_are_refused(asked: oip.Ask) -> None:
    with pytest.raises(BadRequestError):
        oip.to_request(asked)


def reply(*counts: int) -> Reply:
    found = tuple(
        Detections(
            np.full((count, 4), 7, np.float32),
            np.full(count, 0.5, np.float32),
            np.full(count, 2, np.int64),
        )
        for count in counts
    )
    outputs = Outputs(np.zeros((2, 5, 4), np.float32), np.zeros((2, 5, 3), np.float32))
    return Reply("r", "m", "1", "primary", ("a", "b", "c"), Stages(), found, outputs)


def test_rows_that_an_image_does_not_fill_have_no_label() -> None:
    rows = oip.outputs_of(reply(1, 3), ("detections",))["detections"]
    assert rows.shape == (2, 3, 6)
    assert rows[:, :, 5].tolist() == [[2, -1, -1], [2, 2, 2]]
    assert rows[0, 0].tolist() == [7, 7, 7, 7, 0.5, 2]
    assert oip.outputs_of(reply(0), ("detections",))["detections"].shape == (1, 0, 6)


def test_outputs_come_in_the_order_that_they_were_asked_for() -> None:
    assert list(oip.outputs_of(reply(), ("scores", "boxes"))) == ["scores", "boxes"]
    assert list(oip.outputs_of(reply(), ())) == ["boxes", "scores"]
    with pytest.raises(BadRequestError, match="labels"):
        oip.outputs_of(reply(), ("boxes", "labels"))
