"""Every model family keeps the engine contract: its module, and the ONNX file that it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from raudo import discover
from raudo.checkpoints.source import inspect, open_model, recognize
from raudo.errors import SourceError
from raudo.families.base import Evidence

if TYPE_CHECKING:
    from pathlib import Path

    from raudo.families.base import Model

torch = pytest.importorskip("torch")
HEIGHT, WIDTH = 96, 128
BATCH = np.random.default_rng(3).integers(0, 256, (3, HEIGHT, WIDTH, 3), np.uint8)


def example(family: str, request: pytest.FixtureRequest) -> Path:
    """A model file of a family; a new family adds its own here."""
    samples: Path = request.getfixturevalue("samples")
    if family == "yolox":
        return samples / "model.pt"
    if family == "ultralytics":
        request.getfixturevalue("ultralytics")
        assets: Path = request.getfixturevalue("assets")
        return assets / "models/yolo26n_bccd.pt"
    if family == "onnx":
        folder: Path = request.getfixturevalue("tmp_path_factory").mktemp("example")
        open_model(samples / "model.pt", size=(HEIGHT, WIDTH)).write_onnx(folder / "model.onnx")
        return folder / "model.onnx"
    raise AssertionError(f"tests/contract/test_families.py has no example of the family {family}")


REAL = {"ultralytics": pytest.mark.slow}
"""Families whose example is a whole network."""
FAMILIES = [pytest.param(name, marks=REAL.get(name, ())) for name in discover.names("families")]


@pytest.fixture(scope="module", params=FAMILIES)
def file(request: pytest.FixtureRequest) -> tuple[str, Path]:
    return request.param, example(request.param, request)


@pytest.fixture(scope="module")
def model(file: tuple[str, Path]) -> Model:
    return open_model(file[1], size=(HEIGHT, WIDTH))


@pytest.fixture(scope="module")
def written(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("written") / "model.onnx"
    model.write_onnx(path)
    return path


def check_outputs(model: Model, outputs: list[Any], batch: int) -> None:
    names = model.spec.output == "dense"
    boxes, scores = outputs[0], outputs[1]
    assert len(outputs) == (2 if names else 3)
    assert boxes.dtype == scores.dtype == np.float32
    assert boxes.shape == (batch, boxes.shape[1], 4)
    assert scores.shape == (*boxes.shape[:2], *([len(model.spec.classes)] if names else []))
    assert np.isfinite(boxes).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    if not names:
        assert np.issubdtype(outputs[2].dtype, np.integer)
        assert outputs[2].shape == scores.shape
        assert (outputs[2] >= 0).all()
        assert (outputs[2] < len(model.spec.classes)).all()


def run_module(model: Model, batch: np.ndarray) -> list[np.ndarray] | None:
    module = model.module()
    if module is None:
        return None
    assert not module.training
    with torch.no_grad():
        return [output.numpy() for output in module(torch.from_numpy(batch))]


@pytest.mark.parametrize("name", discover.names("families"))
def test_describes_itself(name: str) -> None:
    family = discover.load("families", name)
    assert family.name == name
    assert family.title
    assert "\n" not in family.title
    assert all(not i.endswith(".") for i in (*family.allowed_imports, *family.allowed_calls))


def test_recognizes_its_own_only(file: tuple[str, Path]) -> None:
    evidence, _ = inspect(file[1])
    assert [f.name for f in discover.families() if f.recognizes(evidence)] == [file[0]]
    found = recognize(evidence)
    assert found is not None
    assert found.name == file[0]
    nothing = Evidence(file[1], "checkpoint", frozenset(), frozenset(), {})
    assert recognize(nothing) is None


def test_spec(model: Model) -> None:
    assert (model.spec.height, model.spec.width) == (HEIGHT, WIDTH)
    assert len(set(model.spec.classes)) == len(model.spec.classes)


@pytest.mark.parametrize("batch", [1, 3])
def test_onnx_equals_the_module(model: Model, written: Path, batch: int) -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(written), providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    assert (images.name, images.type) == ("images", "tensor(uint8)")
    assert images.shape == ["batch", HEIGHT, WIDTH, 3]
    names = [output.name for output in session.get_outputs()]
    assert names == ["boxes", "scores", "labels"][: len(names)]
    outputs = session.run(None, {"images": BATCH[:batch]})
    check_outputs(model, outputs, batch)
    expected = run_module(model, BATCH[:batch])
    for output, wanted in zip(outputs, expected or outputs, strict=True):
        np.testing.assert_allclose(output, wanted, rtol=1e-4, atol=1e-3)


def test_the_module_obeys_the_contract(model: Model) -> None:
    outputs = run_module(model, BATCH)
    if outputs is not None:
        check_outputs(model, outputs, len(BATCH))
        # A batch is its images, one by one.
        single = run_module(model, BATCH[1:2])
        assert single is not None
        np.testing.assert_allclose(outputs[0][1:2], single[0], rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(outputs[1][1:2], single[1], atol=1e-5)


def test_nothing_but_a_cast_takes_the_bytes(model: Model, written: Path) -> None:
    """Of bytes, TensorRT's parser takes nothing else; with this, its own tools open the file."""
    onnx = pytest.importorskip("onnx", reason="NO ONNX")
    graph = onnx.load(written).graph
    assert {node.op_type for node in graph.node if "images" in node.input} == {"Cast"}


def test_openvino_reads_it(model: Model, written: Path) -> None:
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(written), "CPU", options)
    found = compiled([BATCH])
    check_outputs(model, [found[port] for port in compiled.outputs], len(BATCH))
    expected = run_module(model, BATCH)
    if expected is not None:
        np.testing.assert_allclose(found["boxes"], expected[0], rtol=1e-3, atol=1e-2)
        np.testing.assert_allclose(found["scores"], expected[1], atol=1e-4)


def test_truncated_files_are_source_errors(file: tuple[str, Path], tmp_path: Path) -> None:
    whole = file[1].read_bytes()
    for share in (0.01, 0.5, 0.95):
        (tmp_path / "model").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(SourceError):
            open_model(tmp_path / "model")
