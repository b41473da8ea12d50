"""Q/DQ graphs for GPUs: signed bytes, and a pair right before each convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnx_graphs import run
from raudo import discover
from raudo.graphs import qdq
from raudo.passes.base import QuantizationSettings

if TYPE_CHECKING:
    from pathlib import Path


onnx = pytest.importorskip("onnx", reason="NO ONNX")
pytest.importorskip("onnxruntime", reason="NO ONNX RUNTIME")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402 (skipped without it)

FLOAT = TensorProto.FLOAT


def feeders(model: Any) -> dict[str, str]:
    """What makes the first input of each convolution."""
    makers = {name: node for node in model.graph.node for name in node.output}
    return {n.name: makers[n.input[0]].op_type for n in model.graph.node if n.op_type == "Conv"}


def test_symmetric_quantization_gives_what_gpus_have_kernels_for(tiny_onnx: Path) -> None:
    pytest.importorskip("nncf", reason="NO NNCF")
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (12, 8, 8, 3), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    quantizer = discover.load("passes", "int8")
    model = quantizer.apply(
        onnx.load(tiny_onnx), [b[None] for b in blocks[:8]], QuantizationSettings(grid="symmetric")
    )
    onnx.checker.check_model(model, full_check=True)
    weights = {t.name: t for t in model.graph.initializer}
    pairs = [n for n in model.graph.node if n.op_type in qdq.PAIR]
    zeros = [weights[n.input[2]] for n in pairs]
    assert pairs
    assert {zero.data_type for zero in zeros} == {TensorProto.INT8}
    assert not any(numpy_helper.to_array(zero).any() for zero in zeros)
    assert next(iter(feeders(model).values())) == "DequantizeLinear"
    made = {name for node in model.graph.node for name in node.output}
    assert all(n.input[0] in made for n in pairs if n.op_type == "DequantizeLinear")
    for exact, found in zip(
        run(onnx.load(tiny_onnx), blocks[8:]), run(model, blocks[8:]), strict=True
    ):
        assert np.abs(exact - found).max() < 0.02 * exact.max()


def graph(nodes: list[Any], constants: dict[str, Any]) -> Any:
    """A graph that takes float [1, 2, 4, 4] and gives `out`, whose weights are quantized."""
    value = helper.make_tensor_value_info
    weights = {
        "weight": np.full((2, 2, 1, 1), 3, np.int8),
        "wide": np.full((2, 4, 1, 1), 3, np.int8),
        "step": np.float32(0.1),
        "nought": np.int8(0),
        **constants,
    }
    scaled = [
        helper.make_node("DequantizeLinear", [name, "step", "nought"], [f"{name}/float"])
        for name in ("weight", "wide")
    ]
    made = helper.make_graph(
        [*scaled, *nodes],
        "test",
        [value("in", FLOAT, [1, 2, 4, 4])],
        [value("out", FLOAT, [1, 2, 4, 4])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def pair(name: str, scale: str, zero: str, out: str) -> list[Any]:
    return [
        helper.make_node("QuantizeLinear", [name, scale, zero], [f"{out}/byte"]),
        helper.make_node("DequantizeLinear", [f"{out}/byte", scale, zero], [out]),
    ]


def test_an_unsigned_quantizer_becomes_a_signed_one_of_the_same_range() -> None:
    model = graph(
        [
            *pair("in", "unit", "zero", "rounded"),
            helper.make_node("Conv", ["rounded", "weight/float"], ["out"], name="c"),
        ],
        {"unit": np.float32(1), "zero": np.uint8(0)},
    )
    qdq.for_gpu(model)
    onnx.checker.check_model(model, full_check=True)
    values = np.full((1, 2, 4, 4), 200, np.float32)
    # 200 of 255 is 100 of 127 steps; two inputs, weights of 0.3.
    assert run(model, values)[0] == pytest.approx(2 * 0.3 * round(200 * 127 / 255) * 255 / 127)
    assert run(model, values * 2)[0] == pytest.approx(2 * 0.3 * 255)  # as before, it saturates


def test_a_quantizer_with_an_offset_is_left_alone() -> None:
    model = graph(
        [
            *pair("in", "unit", "middle", "rounded"),
            helper.make_node("Conv", ["rounded", "weight/float"], ["out"], name="c"),
        ],
        {"unit": np.float32(1), "middle": np.uint8(128)},
    )
    qdq.for_gpu(model)
    assert feeders(model) == {"c": "DequantizeLinear"}
    kept = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert (kept["middle"], kept["unit"]) == (128, 1)


def test_weights_become_floats_that_are_the_same_bytes_once_quantized() -> None:
    steps = np.array([0.1, 0.37], np.float32)
    weights = np.random.default_rng(0).integers(-127, 128, (2, 2, 1, 1), np.int8)
    model = graph(
        [
            helper.make_node("DequantizeLinear", ["rows", "steps", "noughts"], ["w"], axis=0),
            helper.make_node("Conv", ["in", "w"], ["out"], name="c"),
        ],
        {"rows": weights, "steps": steps, "noughts": np.zeros(2, np.int8)},
    )
    values = np.random.default_rng(1).normal(size=(1, 2, 4, 4)).astype(np.float32)
    before = run(model, values)[0]
    qdq.for_gpu(model)
    onnx.checker.check_model(model, full_check=True)
    assert np.array_equal(run(model, values)[0], before)
    kept = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}["rows"]
    assert kept.dtype == np.float32
    assert np.array_equal(np.rint(kept / steps[:, None, None, None]), weights)


def test_values_with_a_step_of_each_channel_get_the_largest_of_them() -> None:
    steps, noughts = np.array([0.01, 0.02], np.float32), np.zeros(2, np.int8)
    model = graph(
        [
            helper.make_node("QuantizeLinear", ["in", "steps", "noughts"], ["byte"], axis=1),
            helper.make_node("DequantizeLinear", ["byte", "steps", "noughts"], ["a"], axis=1),
            helper.make_node("Conv", ["a", "weight/float"], ["out"], name="c"),
        ],
        {"steps": steps, "noughts": noughts},
    )
    qdq.for_gpu(model)
    onnx.checker.check_model(model, full_check=True)
    kept = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    pairs = [n for n in model.graph.node if n.op_type in qdq.PAIR and n.name != "weight"]
    assert {kept[n.input[1]].ndim for n in pairs} == {0}
    # 0.013 is one step of 0.02 in both channels; before, it was 0.01 in the first.
    values = np.full((1, 2, 4, 4), 0.013, np.float32)
    assert run(model, values)[0] == pytest.approx(2 * 0.3 * 0.02)


def test_a_convolution_behind_a_concatenation_gets_a_pair_of_the_larger_range() -> None:
    nodes = [
        *pair("in", "fine", "nought", "a"),
        *pair("in", "coarse", "nought", "b"),
        helper.make_node("Concat", ["a", "b"], ["both"], axis=1),
        helper.make_node("Conv", ["both", "wide/float"], ["out"], name="c"),
    ]
    model = graph(nodes, {"fine": np.float32(0.5), "coarse": np.float32(2)})
    qdq.for_gpu(model)
    onnx.checker.check_model(model, full_check=True)
    assert feeders(model) == {"c": "DequantizeLinear"}
    assert [n.input[1] for n in model.graph.node if n.op_type == "QuantizeLinear"][-1] == "coarse"


@pytest.mark.parametrize("between", ["Sigmoid", "Relu"])
def test_a_convolution_that_was_kept_from_quantization_gets_no_pair(between: str) -> None:
    nodes = [
        *pair("in", "step", "nought", "a"),
        helper.make_node(between, ["a"], ["computed"]),
        helper.make_node("Conv", ["computed", "weight/float"], ["out"], name="c"),
    ]
    model = graph(nodes, {})
    qdq.for_gpu(model)
    assert feeders(model) == {"c": between}
