from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from raudo import images
from raudo.backends.base import Outputs
from raudo.checkpoints.source import open_model
from raudo.detector import Selection, select
from raudo.errors import SourceError, UsageError
from raudo.families.base import SPEC_KEY

if TYPE_CHECKING:
    from raudo.records import Spec

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
SIDE, CLASSES = 64, 3
CELLS = 8 * 8 + 4 * 4 + 2 * 2
RANDOM = np.random.default_rng(5)
BATCH = RANDOM.integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
NAMES = {"names": "{0: 'a', 1: 'b', 2: 'c'}", "task": "detect", "imgsz": "[64, 64]"}


def detector(
    outputs: list[Any],
    nodes: list[Any],
    weights: dict[str, Any],
    *,
    metadata: dict[str, str] | None = None,
    batch: int | str = 1,
    sides: tuple[Any, Any] = (SIDE, SIDE),
    element: int = 1,
) -> Any:
    """A model with the input `images` and the weights of one strided convolution a grid."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", element, [batch, 3, *sides])],
        outputs,
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model, full_check=True)
    return model


def grids(parts: dict[str, int], kind: Any = np.float32) -> tuple[list[Any], dict[str, Any]]:
    """Convolutions to one map a part and a grid, each reshaped to [1, channels, cells]."""
    node, random = onnx.helper.make_node, np.random.default_rng(1)
    weights: dict[str, Any] = {"pixels": random.normal(0, 0.2, (6, 3, 1, 1)).astype(kind)}
    nodes = [node("Conv", ["images", "pixels"], ["features"])]
    for part, channels in parts.items():
        for stride in (8, 16, 32):
            name = f"{part}{stride}"
            kernel = random.normal(0, 1 / stride, (channels, 6, stride, stride)) * 0.2
            weights[name] = kernel.astype(kind)
            weights[f"{name}_shape"] = np.array([1, channels, -1], np.int64)
            nodes.append(
                node("Conv", ["features", name], [f"{name}_map"], strides=[stride, stride])
            )
            nodes.append(node("Reshape", [f"{name}_map", f"{name}_shape"], [f"{name}_row"]))
        rows = [f"{part}{stride}_row" for stride in (8, 16, 32)]
        nodes.append(node("Concat", rows, [part], axis=2))
    return nodes, weights


def declared(shape: list[Any], element: int = 1) -> list[Any]:
    return [onnx.helper.make_tensor_value_info("output0", element, shape)]


def channels_first(*, joined: bool = True, **options: Any) -> Any:
    node = onnx.helper.make_node
    kind = np.float16 if options.get("element") == 10 else np.float32
    if joined:
        nodes, weights = grids({"boxes": 4, "logits": CLASSES}, kind)
        nodes += [
            node("Sigmoid", ["logits"], ["scores"]),
            node("Concat", ["boxes", "scores"], ["output0"], axis=1),
        ]
    else:
        nodes, weights = grids({"all": 4 + CLASSES}, kind)
        nodes += [node("Sigmoid", ["all"], ["output0"])]
    shape = [options.get("batch", 1), 4 + CLASSES, CELLS]
    return detector(declared(shape, options.get("element", 1)), nodes, weights, **options)


def objectness(*, decoded: bool, sigmoid: bool = True, **options: Any) -> Any:
    node = onnx.helper.make_node
    nodes, weights = grids({"box": 4, "obj": 1, "cls": CLASSES})
    last = "Sigmoid" if sigmoid else "Identity"
    nodes += [node(last, [part], [f"{part}_score"]) for part in ("obj", "cls")]
    nodes += [
        node("Concat", ["box", "obj_score", "cls_score"], ["columns"], axis=1),
        node("Transpose", ["columns"], ["raw"], perm=[0, 2, 1]),
    ]
    if decoded:
        places, strides = cells()
        weights |= {"places": places[None], "strides": strides[None]}
        weights["parts"] = np.array([2, 2, 1 + CLASSES], np.int64)
        nodes += [
            node("Split", ["raw", "parts"], ["xy", "wh", "rest"], axis=2),
            node("Add", ["xy", "places"], ["moved"]),
            node("Mul", ["moved", "strides"], ["centres"]),
            node("Exp", ["wh"], ["grown"]),
            node("Mul", ["grown", "strides"], ["sizes"]),
            node("Concat", ["centres", "sizes", "rest"], ["output0"], axis=2),
        ]
    else:
        nodes += [node("Identity", ["raw"], ["output0"])]
    return detector(declared([1, CELLS, 5 + CLASSES]), nodes, weights, **options)


def cells() -> tuple[Any, Any]:
    places = [(x, y) for s in (8, 16, 32) for y in range(SIDE // s) for x in range(SIDE // s)]
    strides = [[s] for s in (8, 16, 32) for _ in range((SIDE // s) ** 2)]
    return np.array(places, np.float32), np.array(strides, np.float32)


def chosen(*, metadata: dict[str, str] | None) -> Any:
    """Rows of box, score, label, from a convolution that has one place."""
    node = onnx.helper.make_node
    kernel = np.random.default_rng(2).normal(0, 0.05, (60, 3, SIDE, SIDE)).astype(np.float32)
    nodes = [
        node("Conv", ["images", "kernel"], ["map"]),
        node("Reshape", ["map", "rows"], ["output0"]),
    ]
    weights = {"kernel": kernel, "rows": np.array([1, 10, 6], np.int64)}
    return detector(declared([1, 10, 6]), nodes, weights, metadata=metadata)


def saved(tmp_path: Path, model: Any) -> Path:
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def run(path: Path, batch: np.ndarray) -> list[np.ndarray]:
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(None, {session.get_inputs()[0].name: batch})
    return outputs


def ours(tmp_path: Path, path: Path, batch: np.ndarray = BATCH) -> tuple[Spec, list[np.ndarray]]:
    model = open_model(path)
    assert model.module() is None
    model.write_onnx(tmp_path / "ours.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "ours.onnx"), full_check=True)
    return model.spec, run(tmp_path / "ours.onnx", batch)


def theirs(path: Path, *, rgb: bool, kind: Any = np.float32) -> np.ndarray:
    planes = BATCH.transpose(0, 3, 1, 2)
    pixels = (planes[:, ::-1] / 255 if rgb else planes).astype(kind)
    return np.concatenate([run(path, image[None])[0] for image in pixels]).astype(np.float32)


def corners(rows: np.ndarray) -> np.ndarray:
    centres, halves = rows[..., :2], rows[..., 2:4] / 2
    return np.concatenate((centres - halves, centres + halves), -1)


@pytest.mark.parametrize("joined", [True, False], ids=["joined", "whole"])
@pytest.mark.parametrize("metadata", [NAMES, {}], ids=["named", "bare"])
def test_channels_first(tmp_path: Path, joined: bool, metadata: dict[str, str]) -> None:
    path = saved(tmp_path, channels_first(joined=joined, metadata=metadata))
    spec, (boxes, scores) = ours(tmp_path, path)
    expected = theirs(path, rgb=True).swapaxes(1, 2)
    np.testing.assert_allclose(boxes, corners(expected), atol=1e-4)
    np.testing.assert_allclose(scores, expected[..., 4:], atol=1e-5)
    assert spec.classes == (("a", "b", "c") if metadata else ("class_0", "class_1", "class_2"))
    assert (spec.height, spec.width, spec.output) == (SIDE, SIDE, "dense")
    assert (spec.letterbox.placement, spec.nms_iou) == ("center", 0.7)


def test_half_precision(tmp_path: Path) -> None:
    path = saved(tmp_path, channels_first(element=10))
    _, (boxes, scores) = ours(tmp_path, path)
    expected = theirs(path, rgb=True, kind=np.float16).swapaxes(1, 2)
    assert boxes.dtype == scores.dtype == np.float32
    np.testing.assert_allclose(boxes, corners(expected), atol=2e-2)
    np.testing.assert_allclose(scores, expected[..., 4:], atol=2e-3)


def test_dynamic_sides(tmp_path: Path) -> None:
    dynamic = {"batch": "b", "sides": ("h", "w")}
    path = saved(tmp_path, channels_first(metadata=NAMES, **dynamic))
    assert open_model(path).spec.height == SIDE
    assert open_model(path, size=(96, 64)).spec.height == 96
    path = saved(tmp_path, channels_first(**dynamic))
    with pytest.raises(SourceError, match="any size"):
        open_model(path)
    assert open_model(path, size=(SIDE, SIDE)).spec.width == SIDE


@pytest.mark.parametrize("decoded", [True, False], ids=["decoded", "raw"])
def test_objectness(tmp_path: Path, decoded: bool) -> None:
    path = saved(tmp_path, objectness(decoded=decoded))
    spec, (boxes, scores) = ours(tmp_path, path)
    expected = theirs(path, rgb=False)
    if not decoded:
        places, strides = cells()
        expected[..., :2] = (expected[..., :2] + places) * strides
        expected[..., 2:4] = np.exp(expected[..., 2:4]) * strides
    np.testing.assert_allclose(boxes, corners(expected), rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(scores, expected[..., 4:5] * expected[..., 5:], atol=1e-5)
    assert (spec.letterbox.placement, spec.letterbox.rounding) == ("top_left", "floor")
    assert spec.nms_iou == 0.65


def test_objectness_that_is_no_sigmoid_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="should be sigmoids"):
        open_model(saved(tmp_path, objectness(decoded=False, sigmoid=False)))


def test_chosen(tmp_path: Path) -> None:
    path = saved(tmp_path, chosen(metadata=NAMES))
    model = open_model(path)
    model.write_onnx(tmp_path / "ours.onnx")
    found = [run(tmp_path / "ours.onnx", image[None]) for image in BATCH]
    expected = theirs(path, rgb=True)
    for index, (boxes, scores, labels) in enumerate(found):
        np.testing.assert_allclose(boxes[0], expected[index, :, :4], atol=1e-4)
        np.testing.assert_allclose(scores[0], expected[index, :, 4], atol=1e-4)
        assert np.abs(labels[0] - expected[index, :, 5]).max() < 1
    assert model.spec.output == "topk"
    assert labels.dtype == np.int64


def test_queries_are_relative_to_the_image(tmp_path: Path) -> None:
    path = saved(tmp_path, chosen(metadata=NAMES | {"head": "RTDETRDecoder"}))
    spec, (boxes, _, _) = ours(tmp_path, path, BATCH[:1])
    np.testing.assert_allclose(boxes, corners(theirs(path, rgb=True)[:1]) * SIDE, atol=1e-2)
    assert spec.letterbox.placement == "stretch"


def test_the_batch_is_freed_only_where_the_graph_bears_it(tmp_path: Path) -> None:
    def batch(model: Any) -> str:
        open_model(saved(tmp_path, model)).write_onnx(tmp_path / "ours.onnx")
        written = onnx.load(tmp_path / "ours.onnx").graph.input[0]
        return str(written.type.tensor_type.shape.dim[0].dim_param)

    assert batch(channels_first()) == "batch"
    assert batch(objectness(decoded=True)) == "batch"
    assert batch(chosen(metadata=NAMES)) == "batch"
    model = chosen(metadata=NAMES)
    for tensor in model.graph.initializer:
        if tensor.name == "rows":  # a reshape that mixes batch and rows
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array([10, 6, 1], np.int64), "rows"))
    turn = onnx.helper.make_node("Transpose", ["mixed"], ["output0"], perm=[2, 0, 1])
    model.graph.node[1].output[0] = "mixed"
    model.graph.node.append(turn)
    assert batch(model) == ""


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: chosen(metadata=None), "no detector layout"),
        (lambda: channels_first(metadata={"names": "{0: 'a'}"}), "no detector layout"),
        (lambda: channels_first(metadata=NAMES | {"task": "segment"}), "another task"),
    ],
    ids=["no names", "other classes", "segmentation"],
)
def test_refusals(tmp_path: Path, model: Any, message: str) -> None:
    path = saved(tmp_path, model())
    with pytest.raises(SourceError, match=message) as caught:
        open_model(path)
    assert str(path) in caught.value.message


def test_refusals_tell_shapes_and_layouts(tmp_path: Path) -> None:
    helper = onnx.helper
    model = detector(
        [helper.make_tensor_value_info("logits", 1, [1, 3])],
        [
            helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["logits"]),
        ],
        {},
    )
    with pytest.raises(SourceError) as caught:
        open_model(saved(tmp_path, model))
    assert "images [1, 3, 64, 64], logits [1, 3]" in caught.value.message
    assert "[b, 4+C, A]" in caught.value.hint


def test_static_sides_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only 64x64"):
        open_model(saved(tmp_path, channels_first()), size=(96, 96))


def test_files_that_raudo_wrote(tmp_path: Path, tiny_onnx: Path, tiny_spec: Spec) -> None:
    with pytest.raises(SourceError, match="no detector layout"):
        open_model(tiny_onnx)
    model = onnx.load(tiny_onnx)
    model.metadata_props.add(key=SPEC_KEY, value=tiny_spec.model_dump_json())
    path = saved(tmp_path, model)
    spec, (boxes, scores) = ours(tmp_path, path)
    assert spec == tiny_spec
    expected = run(tiny_onnx, BATCH)
    np.testing.assert_array_equal(boxes, expected[0])
    np.testing.assert_array_equal(scores, expected[1])
    with pytest.raises(UsageError):
        open_model(path, size=(96, 96))
    model.metadata_props[0].value = '{"height": -1}'
    with pytest.raises(SourceError, match="spec"):
        open_model(saved(tmp_path, model))


def test_missing_weights_beside_the_file(tmp_path: Path) -> None:
    model = channels_first()
    onnx.save(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    assert open_model(tmp_path / "m.onnx").spec.height == SIDE
    (tmp_path / "w.bin").unlink()
    with pytest.raises(SourceError, match="missing"):
        open_model(tmp_path / "m.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"dynamic": True}], ids=["static", "dynamic"])
def test_same_detections_as_the_exporter(
    ultralytics: Any, assets: Path, tmp_path: Path, options: dict[str, bool]
) -> None:
    copy = tmp_path / "model.pt"
    copy.write_bytes((assets / "models/yolo11n_bccd.pt").read_bytes())
    exported = Path(
        ultralytics.YOLO(copy).export(format="onnx", simplify=False, verbose=False, **options)
    )
    model = open_model(exported)
    assert model.spec.classes == ("RBC", "WBC", "Platelets")
    model.write_onnx(tmp_path / "ours.onnx")
    own, pairs = ultralytics.YOLO(exported, task="detect"), 0
    for file in sorted((assets / "datasets/bccd/images/val").iterdir())[:4]:
        frame = images.decode(file)
        batch, fit = images.letterbox(frame, model.spec)
        outputs = Outputs(*run(tmp_path / "ours.onnx", batch[None]))
        found = select(outputs, 0, model.spec, Selection())
        expected = own.predict(frame, rect=False, verbose=False, device="cpu")[0].boxes
        assert np.array_equal(found.labels, expected.cls.numpy())
        assert np.abs(found.scores - expected.conf.numpy()).max() <= 1e-3
        assert np.abs(fit.to_image(found.boxes) - expected.xyxy.numpy()).max() <= 0.1
        pairs += len(found)
    assert pairs > 40
