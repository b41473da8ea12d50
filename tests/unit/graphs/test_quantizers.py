"""Layers get back what they were: inputs, weights, and biases that calibration corrected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from raudo import discover
from raudo.graphs.quantizers import restored
from raudo.passes.base import QuantizationSettings

if TYPE_CHECKING:
    from pathlib import Path

PAIR = {"QuantizeLinear", "DequantizeLinear"}


@pytest.fixture(scope="module")
def biased_onnx(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny detector with a second convolution before its head, which adds a bias."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(tiny_onnx))
    weights = np.random.default_rng(0).normal(size=(3, 3, 3, 3)).astype(np.float32) / 9
    bias = np.array([0.1, 0.2, 0.3], np.float32)
    for name, values in {"second_w": weights, "second_b": bias}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    head = next(node for node in model.graph.node if "head" in node.input)
    place = list(model.graph.node).index(head)
    second = onnx.helper.make_node(
        "Conv", [head.input[0], "second_w", "second_b"], ["second"], pads=[1, 1, 1, 1]
    )
    head.input[0] = "second"
    model.graph.node.insert(place, second)
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
    path = tmp_path_factory.mktemp("biased") / "biased.onnx"
    onnx.save(model, str(path))
    return path


def int8_pass() -> Any:
    pytest.importorskip("nncf", reason="NO NNCF: nothing quantizes")
    (found,) = (p for p in discover.passes() if p.precision == "int8")
    return found


def images() -> list[Any]:
    random = np.random.default_rng(1)
    return [random.integers(0, 256, (1, 64, 64, 3), np.uint8) for _ in range(4)]


def read_ir(path: Path) -> Any:
    return pytest.importorskip("openvino", reason="NO OPENVINO").Core().read_model(str(path))


def run_ir(graph: Any, image: Any) -> list[Any]:
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # The default is BF16 where the CPU has it.
    return list(openvino.compile_model(graph, "CPU", exact)(image).values())


def read_onnx(path: Path) -> Any:
    return pytest.importorskip("onnx").load(str(path))


def run_onnx(model: Any, image: Any) -> list[Any]:
    runtime = pytest.importorskip("onnxruntime", reason="NO ONNXRUNTIME")
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, {"images": image}))


def kinds(graph: Any) -> list[str]:
    if hasattr(graph, "graph"):
        return [node.op_type for node in graph.graph.node]
    return [node.get_type_name() for node in graph.get_ordered_ops()]


@pytest.mark.parametrize(
    ("read", "run"), [(read_ir, run_ir), (read_onnx, run_onnx)], ids=["ir", "onnx"]
)
def test_a_graph_with_all_layers_restored_computes_what_it_did(
    biased_onnx: Path, read: Any, run: Any
) -> None:
    quantizer = int8_pass()
    layers = quantizer.layers(read(biased_onnx))
    assert len(layers) == 2, "the head predicts, and was never quantized"
    quantized = quantizer.apply(read(biased_onnx), images(), QuantizationSettings())
    before, image = kinds(quantized), images()[0]
    whole = restored(quantized, read(biased_onnx), layers)
    exact, found, rounded = (run(g, image) for g in (read(biased_onnx), whole, quantized))
    for output, close, far in zip(exact, found, rounded, strict=True):
        # Values between the layers stay rounded.
        assert np.abs(close - output).max() < np.abs(far - output).max() / 1000
    assert kinds(quantized) == before, "it is a copy"


@pytest.mark.parametrize("read", [read_ir, read_onnx], ids=["ir", "onnx"])
def test_only_the_layers_that_are_named_are_restored(biased_onnx: Path, read: Any) -> None:
    quantizer = int8_pass()
    first, second = quantizer.layers(read(biased_onnx))
    quantized = quantizer.apply(read(biased_onnx), images(), QuantizationSettings())
    counts = [
        sum(kind in {"FakeQuantize", *PAIR} for kind in kinds(graph))
        for graph in (
            quantized,
            restored(quantized, read(biased_onnx), (first,)),
            restored(quantized, read(biased_onnx), (second,)),
            restored(quantized, read(biased_onnx), ()),
        )
    ]
    assert counts[0] == counts[3] > max(counts[1:3]) >= min(counts[1:3]) > 0
