"""SiLU in pieces: where it is put, and how near it comes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from raudo import discover
from raudo.errors import EngineError
from raudo.passes.parabola import fitted, in_pieces

openvino = pytest.importorskip("openvino", reason="NO OPENVINO")
(PIECES,) = (p for p in discover.passes() if p.name == "parabola")
SIDE, CHANNELS = 16, 8


def silu(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return values / (1 + np.exp(-values))


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_each_channel_is_fitted_to_its_own_values(spread: float) -> None:
    random = np.random.default_rng(0)
    centers = np.linspace(-3, 3, 7)[:, None]
    values = random.normal(centers, spread, (7, 2000)).astype(np.float32)
    gain, offset = fitted(values)
    wrong = in_pieces(values * gain + offset) - silu(values)
    assert np.abs(wrong.mean(axis=1)).max() <= 0.005 * max(1.0, spread), "no channel is moved"
    assert wrong.std(axis=1).max() <= 0.025 * max(1.0, spread)


def test_a_channel_that_never_changes_is_right_at_its_value() -> None:
    gain, offset = fitted(np.full((1, 50), -0.7, np.float32))
    assert in_pieces(-0.7 * gain + offset) == pytest.approx(silu(np.array([[-0.7]])), abs=5e-3)


def network() -> Any:
    """Three convolutions, one without a bias and one by channel; the last SiLU follows none."""
    from openvino import opset14 as op

    random = np.random.default_rng(0)
    once, none = [1, 1], [0, 0]

    def weights(*shape: int) -> np.ndarray[Any, Any]:
        return random.normal(0, 1.5 / np.sqrt(np.prod(shape[-3:])), shape).astype(np.float32)

    images = op.parameter([-1, SIDE, SIDE, 3], np.uint8, name="images")
    pixels = op.transpose(op.convert(images, np.float32), np.array([0, 3, 1, 2]))
    pixels = op.subtract(op.multiply(pixels, np.float32(1 / 32)), np.float32(4))
    first = op.convolution(pixels, weights(CHANNELS, 3, 3, 3), once, once, once, once)
    first.set_friendly_name("first")
    hidden = op.swish(first, name="first/silu")
    second = op.convolution(hidden, weights(CHANNELS, CHANNELS, 1, 1), once, none, none, once)
    second.set_friendly_name("second")
    bias = random.normal(0, 1, (1, CHANNELS, 1, 1)).astype(np.float32)
    hidden = op.swish(op.add(second, bias, name="second/bias"), name="second/silu")
    third = op.group_convolution(hidden, weights(CHANNELS, 1, 1, 3, 3), once, once, once, once)
    third.set_friendly_name("third")
    bias = np.ones((1, CHANNELS, 1, 1), np.float32)
    hidden = op.swish(op.add(third, bias, name="third/bias"), name="third/silu")
    return openvino.Model([op.swish(hidden)], [images])


def outputs(graph: Any, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(graph, "CPU", settings)
    return np.array(compiled([image])[0])


def types(graph: Any) -> list[str]:
    return [node.get_type_name() for node in graph.get_ordered_ops()]


IMAGES = [np.random.default_rng(n).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8) for n in range(4)]


def test_each_silu_after_a_convolution_comes_in_pieces() -> None:
    exact = network()
    pieces = PIECES.apply(network(), IMAGES[:3])
    assert types(pieces).count("Swish") == 1
    assert types(pieces).count("HSwish") == 3
    wanted, found = outputs(exact, IMAGES[3]), outputs(pieces, IMAGES[3])
    apart = np.abs(found - wanted)
    assert 0 < apart.mean() <= 0.05 * wanted.std()


def test_a_network_without_silu_is_told_so() -> None:
    from openvino import opset14 as op

    images = op.parameter([1, SIDE, SIDE, 3], np.uint8, name="images")
    graph = openvino.Model([op.relu(op.convert(images, np.float32))], [images])
    with pytest.raises(EngineError, match="no SiLU follows a convolution"):
        PIECES.apply(graph, IMAGES[:1])
