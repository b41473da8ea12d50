"""Every operator that is translated gives what ONNX Runtime gives, alone and between others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from raudo.errors import SourceError
from raudo.graphs.fold import fold

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

pytest.importorskip("onnx", reason="NO ONNX: graphs go untested")

HEIGHT, WIDTH = 8, 12
RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> NDArray[np.float32]:
    return RANDOM.normal(size=shape).astype(np.float32)


def ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


STEM = [("Conv", ["x", "stem"], ["y"], {"pads": [1, 1, 1, 1]})]
"""Makes six channels of the three of the image."""
FLAT = [*STEM, ("Reshape", ["y", ints(1, 6, HEIGHT * WIDTH)], ["f"], {})]
Line = tuple[str, list[Any], list[str], dict[str, Any]]

CASES: dict[str, list[Line]] = {
    "stride 2, padded": [
        ("Conv", ["x", normal(4, 3, 3, 3), normal(4)], ["o"], {"pads": [1] * 4, "strides": [2, 2]})
    ],
    "kernel 6, stride 2": [
        ("Conv", ["x", normal(4, 3, 6, 6), normal(4)], ["o"], {"pads": [2] * 4, "strides": [2, 2]})
    ],
    "uneven padding": [
        ("Conv", ["x", normal(4, 3, 3, 2), normal(4)], ["o"], {"pads": [0, 2, 1, 0]})
    ],
    "dilated": [("Conv", ["x", normal(4, 3, 3, 3)], ["o"], {"pads": [2] * 4, "dilations": [2, 2]})],
    "depthwise": [
        *STEM,
        ("Conv", ["y", normal(6, 1, 3, 3), normal(6)], ["o"], {"pads": [1] * 4, "group": 6}),
    ],
    "depthwise, two each": [
        *STEM,
        ("Conv", ["y", normal(12, 1, 3, 3)], ["o"], {"pads": [1] * 4, "group": 6}),
    ],
    "grouped": [
        *STEM,
        ("Conv", ["y", normal(8, 3, 3, 3), normal(8)], ["o"], {"pads": [1] * 4, "group": 2}),
    ],
    "pyramid pooling": [
        *STEM,
        ("MaxPool", ["y"], ["p"], {"kernel_shape": [5, 5], "pads": [2] * 4}),
        ("Concat", ["y", "p"], ["o"], {"axis": 1}),
    ],
    "pooling that shrinks": [
        *STEM,
        ("MaxPool", ["y"], ["o"], {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [2, 2]}),
    ],
    "average": [("AveragePool", ["x"], ["o"], {"kernel_shape": [2, 2], "strides": [2, 2]})],
    "average, padding uncounted": [
        ("AveragePool", ["x"], ["o"], {"kernel_shape": [3, 3], "pads": [1] * 4})
    ],
    "average, padding counted": [
        (
            "AveragePool",
            ["x"],
            ["o"],
            {"kernel_shape": [3, 3], "pads": [1] * 4} | {"count_include_pad": 1},
        )
    ],
    "global average": [*STEM, ("GlobalAveragePool", ["y"], ["o"], {})],
    "nearest": [
        (
            "Resize",
            ["x", "", np.array([1, 1, 2, 2], np.float32)],
            ["o"],
            {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}
            | {"nearest_mode": "floor"},
        )
    ],
    "linear": [
        ("Resize", ["x", "", np.array([1, 1, 2, 2], np.float32)], ["o"], {"mode": "linear"})
    ],
    "linear, corners aligned": [
        (
            "Resize",
            ["x", "", "", ints(1, 3, 13, 20)],
            ["o"],
            {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        )
    ],
    "SiLU": [*STEM, ("Sigmoid", ["y"], ["g"], {}), ("Mul", ["y", "g"], ["o"], {})],
    "leaky": [*STEM, ("LeakyRelu", ["y"], ["o"], {"alpha": 0.1})],
    "clipped": [
        *STEM,
        ("Clip", ["y", np.array(0, np.float32), np.array(6, np.float32)], ["o"], {}),
    ],
    "constant of channels": [*STEM, ("Add", ["y", normal(6, 1, 1)], ["o"], {})],
    "constant of a row": [*STEM, ("Sub", [normal(1, WIDTH), "y"], ["o"], {})],
    "space to depth by slices": [
        ("Slice", ["x", ints(0, 0), ints(99, 99), ints(2, 3), ints(2, 2)], ["a"], {}),
        ("Slice", ["x", ints(1, 1), ints(99, 99), ints(-2, -1), ints(2, 2)], ["b"], {}),
        ("Concat", ["a", "b"], ["o"], {"axis": 1}),
    ],
    "split": [
        *STEM,
        ("Split", ["y", ints(2, 4)], ["a", "b"], {"axis": 1}),
        ("Concat", ["b", "a"], ["o"], {"axis": -3}),
    ],
    "softmax over channels": [*STEM, ("Softmax", ["y"], ["o"], {"axis": 1})],
    "softmax over rows": [*STEM, ("Softmax", ["y"], ["o"], {"axis": 2})],
    "attention": [
        *FLAT,
        ("Transpose", ["f"], ["t"], {"perm": [0, 2, 1]}),
        ("MatMul", ["t", "f"], ["w"], {}),
        ("Softmax", ["w"], ["s"], {"axis": -1}),
        ("MatMul", ["f", "s"], ["o"], {}),
    ],
    "matrix of weights": [*FLAT, ("MatMul", ["f", normal(HEIGHT * WIDTH, 5)], ["o"], {})],
    "image made of rows": [
        *FLAT,
        ("Reshape", ["f", ints(1, 2, 3, -1)], ["r"], {}),
        ("Conv", ["r", normal(4, 2, 1, 1)], ["o"], {}),
    ],
    "channels last, and back": [
        *STEM,
        ("Transpose", ["y"], ["t"], {"perm": [0, 2, 3, 1]}),
        ("Add", ["t", normal(6)], ["a"], {}),
        ("Transpose", ["a"], ["u"], {"perm": [0, 3, 1, 2]}),
        ("Conv", ["u", normal(2, 6, 1, 1)], ["o"], {}),
    ],
    "another order": [*STEM, ("Transpose", ["y"], ["o"], {"perm": [0, 1, 3, 2]})],
    "sum, axis gone": [*STEM, ("ReduceSum", ["y", ints(1)], ["o"], {"keepdims": 0})],
    "best class": [*FLAT, ("ReduceMax", ["f"], ["o"], {"axes": [1], "keepdims": 1})],
    "picked": [*FLAT, ("Gather", ["f", np.array(-2, np.int64)], ["o"], {"axis": 1})],
    "axes come and go": [
        *FLAT,
        ("Unsqueeze", ["f", ints(1)], ["u"], {}),
        ("Squeeze", ["u", ints(0)], ["s"], {}),
        ("Flatten", ["s"], ["o"], {"axis": 1}),
    ],
    "shape asked at run time": [
        *STEM,
        ("Shape", ["y"], ["s"], {}),
        ("Gather", ["s", ints(2, 3)], ["hw"], {"axis": 0}),
        ("Concat", [ints(1, -1), "hw"], ["wanted"], {"axis": 0}),
        ("Reshape", ["x", "wanted"], ["r"], {}),
        ("Mul", ["r", np.array(2, np.float32)], ["o"], {}),
    ],
}


def model_of(lines: list[Line]) -> onnx.ModelProto:
    """Make a model from uint8 `images` to float32 `o`; arrays among the inputs are constants."""
    from onnx import TensorProto, helper, numpy_helper

    head: list[Line] = [
        ("Cast", ["images"], ["floats"], {"to": TensorProto.FLOAT}),
        ("Transpose", ["floats"], ["raw"], {"perm": [0, 3, 1, 2]}),
        ("Mul", ["raw", np.array(1 / 255, np.float32)], ["x"], {}),
    ]
    constants = {"stem": np.random.default_rng(1).normal(size=(6, 3, 3, 3)).astype(np.float32)}
    nodes = []
    for operator, inputs, outputs, attributes in [*head, *lines]:
        names = []
        for given in inputs:
            name = given if isinstance(given, str) else f"constant{len(constants)}"
            if not isinstance(given, str):
                constants[name] = given
            names.append(name)
        nodes.append(helper.make_node(operator, names, outputs, **attributes))
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["b", HEIGHT, WIDTH, 3])
    result = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "case", [images], [result], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def translate(model: onnx.ModelProto) -> bytes:
    pytest.importorskip("ai_edge_litert", reason="NO LITERT: pip install 'raudo[litert]'")
    from ai_edge_litert import schema_py_generated

    from raudo.graphs.channels_last import Translator

    return Translator(fold(model), schema_py_generated).translate()


@pytest.mark.parametrize("lines", CASES.values(), ids=CASES.keys())
def test_a_translated_graph_gives_what_onnx_runtime_gives(lines: list[Line]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = model_of(lines)
    images = RANDOM.integers(0, 256, (1, HEIGHT, WIDTH, 3), np.uint8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (expected,) = session.run(None, {"images": images})

    content = translate(model)
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    found = interpreter.get_signature_runner()(images=images)["o"]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "lines",
    [
        [*FLAT, ("TopK", ["f", ints(3)], ["o", "indices"], {})],
        [("AveragePool", ["x"], ["o"], {"kernel_shape": [2, 2], "pads": [1, 0, 0, 0]})],
        [("MaxPool", ["x"], ["o"], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1})],
        [("Resize", ["x", "", "", ints(1, 3, 9, 12)], ["o"], {"mode": "nearest"})],
    ],
)
def test_what_has_no_translation_is_named(lines: list[Line]) -> None:
    with pytest.raises(SourceError, match=f"the operator {lines[-1][0]} of 'o'"):
        translate(model_of(lines))


def test_weights_are_aligned() -> None:
    content = translate(model_of(CASES["grouped"]))
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content, 0)
    buffers = [model.Buffers(n).DataAsNumpy() for n in range(model.BuffersLength())]
    whole = np.frombuffer(content, np.uint8).ctypes.data
    starts = [b.ctypes.data - whole for b in buffers if isinstance(b, np.ndarray)]
    assert len(starts) >= 3
    assert not any(start % 16 for start in starts)
