"""What is done to graphs before they are quantized: it changes no number, and what runs in INT8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import pytest

from raudo import discover, images
from raudo.backends.base import Resources
from raudo.errors import EngineError
from raudo.machine import describe
from raudo.records import Artifact

if TYPE_CHECKING:
    from pathlib import Path

    from raudo.backends.base import Variant
    from raudo.records import OptionValue

openvino = pytest.importorskip("openvino", reason="NO OPENVINO")
BACKEND = discover.backend("openvino")


def types(graph: Any) -> list[str]:
    return [node.get_type_name() for node in graph.get_ops()]


def outputs(graph: Any, batch: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    graph.reshape(list(batch.shape))
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(graph, "CPU", settings)
    found = compiled(batch)
    return [found[output].copy() for output in compiled.outputs]


def test_silu_is_one_node(tiny_onnx: Path) -> None:
    assert types(openvino.Core().read_model(str(tiny_onnx))).count("Sigmoid") == 1
    found = types(BACKEND.read_graph(tiny_onnx))
    assert found.count("Swish") == 1
    assert "Sigmoid" not in found


def test_a_distribution_over_bins_stays_the_same_number(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    bins = np.arange(16, dtype=np.float32)
    nodes = [
        helper.make_node("Softmax", ["logits"], ["shares"], axis=-1),
        helper.make_node("Mul", ["shares", "bins"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "axes"], ["mean"], keepdims=0),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "distribution",
        [value("logits", TensorProto.FLOAT, ["batch", 50, 4, 16])],
        [value("mean", TensorProto.FLOAT, ["batch", 50, 4])],
        [
            numpy_helper.from_array(bins, "bins"),
            numpy_helper.from_array(np.array([-1], np.int64), "axes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "distribution.onnx"
    onnx.save(model, path)
    shortened = BACKEND.read_graph(path)
    assert "Softmax" not in types(shortened)
    logits = np.random.default_rng(0).normal(0, 6, (2, 50, 4, 16)).astype(np.float32)
    exact = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    expected = (exact * bins).sum(-1) / exact.sum(-1)
    (found,) = outputs(shortened, logits)
    assert np.abs(found - expected).max() <= 1e-4


def test_only_what_computes_in_int8_is_shown_as_int8(
    tiny_artifact: Artifact, tmp_path: Path
) -> None:
    """Bytes of the image are transposed by kernels that the runtime names like those of INT8."""
    path = tmp_path / "tiny.xml"
    BACKEND.write_graph(BACKEND.read_graph(tiny_artifact.path), path)
    options: dict[str, OptionValue] = {"rest": "fp32"}
    manifest = tiny_artifact.manifest.model_copy(update={"options": options})
    with BACKEND.open(Artifact(path, manifest), Resources()) as engine:
        images = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), np.uint8)
        nodes = engine.profile(images)
    found = {(node.type, node.precision) for node in nodes}
    assert "int8" not in {precision for _, precision in found}
    assert "uint8" in {precision for _, precision in found}
    assert ("Convolution", "fp32") in found


@pytest.mark.slow
def test_a_detector_finds_the_same_in_real_images(assets: Path, tmp_path: Path) -> None:
    pytest.importorskip("ultralytics", reason="NO ULTRALYTICS: its models go untested")
    from raudo.checkpoints.source import open_model

    model = open_model(assets / "models" / "yolo11n_bccd.pt", size=(384, 640))
    path = tmp_path / "model.onnx"
    model.write_onnx(path)
    files = sorted((assets / "datasets" / "bccd" / "images" / "val").glob("*"))[:2]
    for file in files:
        batch = images.letterbox(images.decode(file), model.spec)[0][None]
        plain = outputs(openvino.Core().read_model(str(path)), batch)
        ours = outputs(BACKEND.read_graph(path), batch)
        assert np.abs(plain[0] - ours[0]).max() <= 1e-3  # pixels, of 640
        assert np.abs(plain[1] - ours[1]).max() <= 1e-4


def test_it_starts_from_what_was_compiled_before(
    tiny_artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "tiny.xml"
    BACKEND.write_graph(BACKEND.read_graph(tiny_artifact.path), path)
    changes = {"options": {"rest": "fp32"}, "files_sha256": {path.name: "0" * 64}}
    artifact = Artifact(path, tiny_artifact.manifest.model_copy(update=changes))
    spec = artifact.manifest.spec
    batch = np.random.default_rng(0).integers(0, 256, (1, spec.height, spec.width, 3), np.uint8)
    kept = Resources(kept=True)
    with BACKEND.open(artifact, kept) as engine:
        expected = engine.run(batch).scores.copy()
    (file,) = (tmp_path / "cache" / "raudo").iterdir()
    path.rename(tmp_path / "elsewhere.xml")
    with BACKEND.open(artifact, kept) as engine:
        assert np.array_equal(engine.run(batch).scores, expected)
        assert engine.audit().found == {"fp32": engine.audit().providers["CPU"]}
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(content)
    (tmp_path / "elsewhere.xml").rename(path)
    with BACKEND.open(artifact, kept) as engine:
        assert np.array_equal(engine.run(batch).scores, expected)
    assert file.read_bytes() != content
    made = file.read_bytes()
    with BACKEND.open(artifact, Resources(streams=2, threads=2, kept=True)) as engine:
        assert np.array_equal(engine.run(batch).scores, expected)
    (tmp_path / "compiled").mkdir()
    file = file.rename(tmp_path / "compiled" / file.name)
    path.rename(tmp_path / "elsewhere.xml")
    with BACKEND.open(artifact, kept) as engine:
        assert np.array_equal(engine.run(batch).scores, expected)
    assert file.read_bytes() == made
    assert not list((tmp_path / "cache" / "raudo").iterdir())


def variant_of(name: str) -> Variant:
    return next(v for v in BACKEND.variants if v.name == name)


@pytest.mark.parametrize(
    ("name", "needed"),
    [("fp16", "FP16"), *((f"int8-{rest}", n) for rest in ("fp16", "bf16") for n in ("INT8", rest))],
)
def test_a_cpu_needs_all_of_an_engine_s_precisions(
    name: str, needed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    able = {"FP32", "INT8", "FP16", "BF16"}
    lacking = able - {needed.upper()}
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_asked: lacking)
    reason = BACKEND.unsupported(variant_of(name), describe())
    assert reason == f"this CPU has no {needed.upper()} arithmetic"
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_asked: able)
    assert BACKEND.unsupported(variant_of(name), describe()) is None


def held_to_fp32(path: Path) -> set[str | None]:
    """Return the types of layers that a file keeps in FP32."""
    marked = layers_of(path, ".//attribute[@value='dynamic:f16']/../..")
    return {layer.get("type") for layer in marked}


def layers_of(path: Path, wanted: str) -> list[ElementTree.Element]:
    return ElementTree.parse(path).findall(wanted)  # noqa: S314 (a file of the runtime's own)


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_decoding_is_held_to_fp32(name: str, tiny_onnx: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.xml"
    graph = BACKEND.read_graph(tiny_onnx)
    BACKEND.make(graph, path, variant_of(name))
    decoding = {"Transpose", "Reshape", "ReduceMax", "Multiply", "Add", "Result"}
    assert decoding <= held_to_fp32(path) <= decoding | {"Const"}
    batch = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    for ours, exact in zip(
        outputs(openvino.Core().read_model(str(path)), batch), outputs(graph, batch), strict=True
    ):
        assert np.array_equal(ours, exact), "FP32 is FP32"
    BACKEND.make(graph, path, variant_of("fp32"))
    assert not held_to_fp32(path)


def test_the_mean_of_a_distribution_is_decoding_too(tmp_path: Path) -> None:
    """The runtime itself computes what comes before a product in the lower precision."""
    from openvino import opset14 as op

    pixels = op.parameter([1, 8, 16, 16], np.float32)
    weights = np.full((8, 8, 1, 1), 0.1, np.float32)
    none, once = [0, 0], [1, 1]
    logits = op.convolution(pixels, weights, once, none, none, once)
    bins = np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1)
    mean = op.convolution(op.softmax(logits, 1), bins, once, none, none, once)
    path = tmp_path / "mean.xml"
    BACKEND.make(openvino.Model([op.relu(mean)], [pixels]), path, variant_of("bf16"))
    assert {"ReLU", "SoftMax"} <= held_to_fp32(path)
    assert len(layers_of(path, ".//layer[@type='Convolution']/rt_info")) == 1


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_a_cpu_decodes_in_fp32(
    name: str,
    tiny_artifact: Artifact,
    tiny_onnx: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Boxes are those of the engine's own scores, to far less than FP16 can tell.

    So they are where the engine starts from what was compiled before, the second time.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    variant = variant_of(name)
    if reason := BACKEND.unsupported(variant, describe()):
        pytest.skip(f"NOT HERE: {reason}")
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "tiny.xml"
    BACKEND.make(BACKEND.read_graph(tiny_onnx), path, variant)
    changes = {"options": dict(variant.options), "files_sha256": {path.name: "0" * 64}}
    manifest = tiny_artifact.manifest.model_copy(update=changes)
    tensors = {
        t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(tiny_onnx).graph.initializer
    }
    batch = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    for kept in (False, True, True):
        with BACKEND.open(Artifact(path, manifest), Resources(kept=kept)) as engine:
            found = engine.run(batch)
            assert engine.audit().found == {variant.precision: 2}
        grown = found.scores.max(axis=2, keepdims=True) * tensors["growth"]
        assert np.abs(found.boxes - (grown + tensors["grid"])).max() <= 1e-4


def test_an_engine_is_not_loaded_in_another_precision(
    tiny_artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO takes BF16 for FP16 where a CPU has the former alone."""
    path = tmp_path / "tiny.xml"
    BACKEND.make(BACKEND.read_graph(tiny_artifact.path), path, variant_of("fp16"))
    manifest = tiny_artifact.manifest.model_copy(update={"options": {"rest": "fp16"}})
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_asked: ["FP32", "BF16"])
    with pytest.raises(EngineError, match="computes in FP16, and this CPU does not"):
        BACKEND.open(Artifact(path, manifest), Resources())
