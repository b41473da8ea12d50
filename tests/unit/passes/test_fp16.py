"""FP16 by a pass: the network in half precision, decoding and interface in single."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnx_graphs import run
from raudo import discover, images
from raudo.checkpoints.source import open_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

onnx = pytest.importorskip("onnx", reason="NO ONNX")
pytest.importorskip("onnxruntime", reason="NO ONNX RUNTIME")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402 (skipped without it)

PASS = discover.load("passes", "fp16")
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def elements(model: Any) -> dict[str, int]:
    """Element type of each weight, constant, input and output."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    return {v.name: v.type.tensor_type.elem_type for v in values} | {
        t.name: t.data_type for t in model.graph.initializer
    }


@pytest.mark.slow
def test_the_sample_computes_in_half_precision_what_it_did_in_single(
    samples: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="NO TORCH: the sample cannot be exported")
    model = open_model(samples / "model.pt")
    file = tmp_path / "model.onnx"
    model.write_onnx(file)
    single, half = onnx.load(file), PASS.apply(onnx.load(file), [])
    onnx.checker.check_model(half, full_check=True)
    assert half.ByteSize() < 0.55 * single.ByteSize()
    kinds = elements(half)
    convolutions = [node for node in half.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 113
    assert {kinds[name] for node in convolutions for name in node.input} == {HALF}
    assert kinds["images"] == TensorProto.UINT8
    assert {kinds["boxes"], kinds["scores"]} == {FLOAT}
    decoding = [n for n in half.graph.node if n.op_type in ("Exp", "Softmax")]
    assert decoding
    assert {kinds[name] for node in decoding for name in node.input} == {FLOAT}

    photo = next((samples / "coco-mini" / "images" / "val").glob("*.jpg"))
    batch = images.letterbox(images.decode(photo), model.spec)[0][None]
    boxes, scores = run(single, batch)
    near_boxes, near_scores = run(half, batch)
    assert near_boxes.dtype == near_scores.dtype == np.float32
    seen = scores.max(-1) > 0.25
    assert seen.any()
    assert np.abs(near_scores - scores).max() < 0.01
    assert np.abs(near_boxes - boxes)[seen].max() < 1.0


def convert(nodes: list[Any], constants: dict[str, NDArray[Any]], outputs: list[Any]) -> Any:
    """Convert a graph that takes uint8 [batch, 4, 4, 3] and has the given outputs."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "test",
        [value("images", TensorProto.UINT8, ["batch", 4, 4, 3])],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    converted = PASS.apply(model, [])
    onnx.checker.check_model(converted, full_check=True)
    return converted


WEIGHT = np.eye(3, dtype=np.float32)[..., None, None]
START = [
    helper.make_node("Cast", ["images"], ["floats"], to=FLOAT),
    helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
]


def test_scales_of_a_resize_and_what_shapes_come_from_stay_single() -> None:
    nodes = [
        *START,
        helper.make_node("Conv", ["planes", "weight"], ["features"]),
        helper.make_node("Shape", ["features"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["sides"], to=FLOAT),
        helper.make_node("Mul", ["sides", "scales"], ["larger"]),
        helper.make_node("Div", ["larger", "sides"], ["factors"]),
        helper.make_node("Resize", ["features", "", "factors"], ["wide"]),
        helper.make_node("Conv", ["wide", "weight"], ["scores"]),
    ]
    scales = np.array([1, 1, 2, 2], np.float32)
    output = helper.make_tensor_value_info("scores", FLOAT, ["batch", 3, 8, 8])
    model = convert(nodes, {"weight": WEIGHT, "scales": scales}, [output])
    kinds = elements(model)
    assert {kinds["scales"], kinds["factors"]} == {FLOAT}
    assert {kinds["features"], kinds["wide"]} == {HALF}
    batch = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    (scores,) = run(model, batch)
    assert np.array_equal(scores, batch.transpose(0, 3, 1, 2).repeat(2, 2).repeat(2, 3))


def test_a_weight_that_both_sides_use_is_there_in_both_precisions() -> None:
    nodes = [
        *START,
        helper.make_node("Mul", ["planes", "shared"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "weight"], ["cells"]),
        helper.make_node("Add", ["cells", "shared"], ["boxes"]),
    ]
    shared = np.array([0.1], np.float32)  # no half is as near to it as the single
    output = helper.make_tensor_value_info("boxes", FLOAT, ["batch", 3, 4, 4])
    model = convert(nodes, {"weight": WEIGHT, "shared": shared}, [output])
    blank = np.zeros((1, 4, 4, 3), np.uint8)
    assert run(model, blank)[0].max() == shared[0]
    assert sorted(t.data_type for t in model.graph.initializer) == [FLOAT, HALF, HALF]


def test_numbers_too_large_for_half_precision_become_its_largest() -> None:
    nodes = [
        *START,
        helper.make_node("Clip", ["planes", "", "limit"], ["clipped"]),
        helper.make_node("Conv", ["clipped", "weight"], ["scores"]),
    ]
    limit = np.array(3e38, np.float32)
    output = helper.make_tensor_value_info("scores", FLOAT, ["batch", 3, 4, 4])
    model = convert(nodes, {"weight": WEIGHT, "limit": limit}, [output])
    halves = [numpy_helper.to_array(t) for t in model.graph.initializer if t.dims == []]
    assert [float(h) for h in halves] == [65504.0]


def test_a_graph_without_convolutions_is_left_as_it_is() -> None:
    nodes = [*START, helper.make_node("Sigmoid", ["planes"], ["scores"])]
    output = helper.make_tensor_value_info("scores", FLOAT, ["batch", 3, 4, 4])
    model = convert(nodes, {}, [output])
    assert HALF not in elements(model).values()
