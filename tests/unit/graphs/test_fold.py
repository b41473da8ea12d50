"""Graphs with every shape known: batch one, constants computed, the decoding found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from raudo.graphs.fold import Node, StaticGraph, fold

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("onnx", reason="NO ONNX: graphs go untested")


@pytest.fixture
def graph(tiny_onnx: Path) -> StaticGraph:
    onnx = pytest.importorskip("onnx")
    return fold(onnx.load(tiny_onnx))


def test_the_batch_is_one_and_every_shape_known(graph: StaticGraph) -> None:
    assert graph.inputs == ("images",)
    assert graph.outputs == ("boxes", "scores")
    assert graph.shapes["images"] == (1, 64, 64, 3)
    assert graph.shapes["rows"] == (1, 3, 16)
    assert graph.shapes["boxes"] == (1, 16, 4)
    assert all(0 not in shape for shape in graph.shapes.values())


def test_the_decoding_starts_at_the_last_convolution(graph: StaticGraph) -> None:
    decoding = graph.decoding()
    assert {"cells", "rows", "scores", "best", "grown", "boxes"} == decoding


def test_an_activation_and_a_sum_belong_to_the_last_layer_before_them() -> None:
    graph = StaticGraph(
        ("images",),
        ("boxes",),
        [
            Node("Cast", ("images",), ("x",), {"to": 1}),
            Node("Conv", ("x", "w"), ("one",), {}),
            Node("Sigmoid", ("one",), ("gate",), {}),
            Node("Mul", ("one", "gate"), ("active",), {}),
            Node("Conv", ("active", "w"), ("two",), {}),
            Node("Add", ("two", "active"), ("sum",), {}),
            Node("Conv", ("sum", "w"), ("boxes",), {}),
        ],
    )
    assert graph.scopes() == {
        "x": "|x",
        "one": "one|one",
        "gate": "one|gate",
        "active": "one|active",
        "two": "two|two",
        "sum": "two|sum",
        "boxes": "decoding/boxes",
    }


def test_a_convolution_of_a_softmax_decodes() -> None:
    graph = StaticGraph(
        ("images",),
        ("boxes",),
        [
            Node("Conv", ("images", "w", "b"), ("features",), {}),
            Node("Conv", ("features", "w", "b"), ("bins",), {}),
            Node("Softmax", ("bins",), ("shares",), {}),
            Node("Transpose", ("shares",), ("moved",), {}),
            Node("Conv", ("moved", "w"), ("boxes",), {}),
        ],
    )
    assert graph.decoding() == {"boxes", "moved", "shares", "bins"}


def test_what_depends_on_shapes_alone_is_computed() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        half (uint8[b, 6, 8, 3] images) => (uint8[b, m, n] out)
        <int64[1] place = {1}, int64[1] two = {2}, int64[2] rest = {1, -1}>
        {
            shape = Shape(images)
            height = Gather<axis = 0>(shape, place)
            half_of_it = Div(height, two)
            wanted = Concat<axis = 0>(rest, half_of_it)
            out = Reshape(images, wanted)
        }
        """
    )
    graph = fold(model)
    assert [node.operator for node in graph.nodes] == ["Reshape"]
    np.testing.assert_array_equal(graph.constants["wanted"], [1, -1, 3])
    assert graph.shapes["out"] == (1, 48, 3)
