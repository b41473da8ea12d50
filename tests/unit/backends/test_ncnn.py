"""The ncnn backend on a real detector: the same numbers, in FP32 throughout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from raudo.backends.base import Resources
from raudo.backends.ncnn import Ncnn, NcnnGraph
from raudo.build import build
from raudo.errors import EngineError, SourceError
from raudo.plan import Plan

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("ncnn", reason="NO NCNN: pip install 'raudo[ncnn]'")
(FP32,) = Ncnn.variants


def needs_converter() -> None:
    from raudo.machine import describe

    if reason := Ncnn().unsupported(FP32, describe()):
        pytest.skip(f"NO CONVERTER: {reason}")


@pytest.mark.slow
def test_a_real_detector_gives_what_onnx_runtime_gives(real_model: Any, tmp_path: Path) -> None:
    needs_converter()
    engine = tmp_path / "model.ncnn.param"
    arguments = (real_model.file, real_model.info, real_model.onnx, engine, None)
    artifact = build(Plan("ncnn", FP32), *arguments)
    assert set(artifact.manifest.files_sha256) == {"model.ncnn.param", "model.ncnn.bin"}
    with Ncnn().open(artifact, Resources(threads=2)) as opened:
        for frame, expected in zip(real_model.frames, real_model.expected, strict=True):
            found = opened.run(frame)
            np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
            np.testing.assert_allclose(found.boxes, expected.boxes, rtol=1e-3, atol=1e-2)
        assert opened.audit().found == {"fp32": 113}
    again = tmp_path / "again.ncnn.param"
    second = build(Plan("ncnn", FP32), *arguments[:3], again, None)
    hashes = (artifact.manifest.files_sha256, second.manifest.files_sha256)
    assert sorted(hashes[0].values()) == sorted(hashes[1].values())
    engine.with_suffix(".bin").unlink()
    with pytest.raises(EngineError, match=r"model\.ncnn\.bin does not load"):
        Ncnn().open(artifact, Resources())


def test_sums_over_axes_are_translated(tmp_path: Path) -> None:
    """The converter overlooks axes that are an input; a sum of the last axis must stay one."""
    needs_converter()
    import onnx

    from raudo.backends.base import Outputs
    from raudo.records import Artifact, Manifest, Spec

    onnxruntime = pytest.importorskip("onnxruntime")
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        sums (uint8[b, 4, 6, 3] images) => (float[b, 24, 4] boxes, float[b, 24, 1] scores)
        <int64[3] rows = {1, 24, 3}, int64[1] two = {2}, int64[1] last = {-1},
         float[4, 1] factors = {1.0, 2.0, 3.0, 4.0}>
        {
            chw = Transpose<perm = [0, 3, 1, 2]>(images)
            floats = Cast<to = 1>(chw)
            half = Sigmoid(floats)
            hwc = Transpose<perm = [0, 2, 3, 1]>(half)
            row = Reshape(hwc, rows)
            scores = ReduceSum<keepdims = 1>(row, last)
            each = Unsqueeze(row, two)
            times = Mul(each, factors)
            boxes = ReduceSum<keepdims = 0>(times, last)
        }
        """
    )
    onnx.save(model, tmp_path / "sums.onnx")
    images = np.random.default_rng(0).integers(0, 5, (1, 4, 6, 3), np.uint8)
    session = onnxruntime.InferenceSession(str(tmp_path / "sums.onnx"))
    expected = Outputs(*session.run(None, {"images": images}))

    backend, file = Ncnn(), tmp_path / "sums.ncnn.param"
    backend.write_graph(backend.read_graph(tmp_path / "sums.onnx"), file)
    spec = Spec(family="any", height=4, width=6, classes=("one",))
    manifest = Manifest(
        name="ncnn-fp32",
        backend="ncnn",
        precision="fp32",
        spec=spec,
        source="sums.onnx",
        source_sha256="",
        files_sha256={},
    )
    with backend.open(Artifact(file, manifest), Resources()) as engine:
        found = engine.run(images)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4)
    np.testing.assert_allclose(found.boxes, expected.boxes, rtol=1e-4)


def test_a_layer_that_is_missing_is_named(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    structure = b"7767517\n2 2\nInput in0 0 1 in0\nTensor.to t 1 1 in0 out0\n"
    monkeypatch.setattr(
        "raudo.backends.ncnn._convert", lambda file, sides: NcnnGraph(structure, b"")
    )
    with pytest.raises(SourceError, match=r"no layer for Tensor\.to"):
        Ncnn().read_graph(tiny_onnx)
