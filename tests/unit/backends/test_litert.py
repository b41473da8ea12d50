"""LiteRT on a real detector: the same numbers, the precision that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from raudo.backends.base import Resources
from raudo.backends.litert import LiteRt
from raudo.build import build, record_audit
from raudo.errors import EngineError
from raudo.passes.base import PLAIN, QuantizationSettings
from raudo.plan import Plan

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("ai_edge_litert", reason="NO LITERT: pip install 'raudo[litert]'")
FP32, INT8 = LiteRt.variants


@pytest.mark.slow
def test_a_real_detector_gives_what_onnx_runtime_gives(real_model: Any, tmp_path: Path) -> None:
    engine = tmp_path / "model.tflite"
    arguments = (real_model.file, real_model.info, real_model.onnx, engine, None)
    artifact = build(Plan("litert", FP32), *arguments)
    with LiteRt().open(artifact, Resources()) as opened:
        for frame, expected in zip(real_model.frames, real_model.expected, strict=True):
            found = opened.run(frame)
            np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
            np.testing.assert_allclose(found.boxes, expected.boxes, rtol=1e-3, atol=1e-2)
        assert set(opened.audit().found) == {"fp32"}
    first = engine.read_bytes()
    build(Plan("litert", FP32), *arguments)
    assert engine.read_bytes() == first


@pytest.mark.slow
def test_int8_keeps_the_decoding_in_float(real_model: Any, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_quantizer", reason="NO QUANTIZER: 'raudo[litert-export]'")
    pytest.importorskip("nncf", reason="NO NNCF: the INT8 pass asks for it")
    engine = tmp_path / "model.tflite"
    arguments = (real_model.file, real_model.info, real_model.onnx, engine)
    artifact = build(Plan("litert", INT8), *arguments, real_model.calibration)
    with LiteRt().open(artifact, Resources()) as opened:
        audit = opened.audit()
        frame, expected = real_model.frames[0], real_model.expected[0]
        found = opened.run(frame)
    assert audit.found == {"int8": 104, "fp32": 9}  # box, objectness, classes at three strides
    record_audit(artifact, audit)
    sure = expected.scores.max(axis=2) > 0.5
    assert sure.sum() >= 5
    assert np.abs(found.scores - expected.scores)[sure].mean() < 0.02
    assert np.abs(found.boxes - expected.boxes)[sure].mean() < 8  # of 416 pixels
    first = engine.read_bytes()
    build(Plan("litert", INT8), *arguments, real_model.calibration)
    assert engine.read_bytes() == first


@pytest.mark.slow
def test_a_layer_that_is_kept_keeps_its_activation_and_is_recorded(
    real_model: Any, tmp_path: Path
) -> None:
    pytest.importorskip("ai_edge_quantizer", reason="NO QUANTIZER: 'raudo[litert-export]'")
    pytest.importorskip("nncf", reason="NO NNCF: the INT8 pass asks for it")
    layers = LiteRt().read_graph(real_model.onnx).layers()
    assert len(layers) == 104  # without the nine that predict
    plan = Plan("litert", INT8, keep=layers[:3])
    engine = plan.engine_file(tmp_path)
    arguments = (real_model.file, real_model.info, real_model.onnx, engine)
    artifact = build(plan, *arguments, real_model.calibration)
    assert artifact.manifest.kept_layers == layers[:3]
    with LiteRt().open(artifact, Resources()) as opened:
        assert opened.audit().found == {"int8": 101, "fp32": 12}
        found, expected = opened.run(real_model.frames[0]), real_model.expected[0]
    sure = expected.scores.max(axis=2) > 0.5
    assert np.abs(found.boxes - expected.boxes)[sure].mean() < 4


@pytest.mark.slow
def test_layers_are_restored_from_what_was_calibrated(real_model: Any) -> None:
    pytest.importorskip("ai_edge_quantizer", reason="NO QUANTIZER: 'raudo[litert-export]'")
    graph = LiteRt().read_graph(real_model.onnx)
    first, *others = graph.layers()
    whole = graph.quantize(real_model.frames, PLAIN)
    kept = whole.restore((first,))
    assert whole.restore(()).content == kept.restore(()).content == whole.content != kept.content
    assert kept.restore(others).content != kept.content


@pytest.mark.slow
def test_a_method_that_the_quantizer_does_not_have_is_no_other_one(real_model: Any) -> None:
    graph = LiteRt().read_graph(real_model.onnx)
    with pytest.raises(EngineError, match="does not find ranges by 'quantile'"):
        graph.quantize(real_model.frames, QuantizationSettings(ranges="quantile"))


@pytest.mark.slow
def test_a_file_of_another_model_is_refused(real_model: Any, tmp_path: Path) -> None:
    engine = tmp_path / "model.tflite"
    artifact = build(
        Plan("litert", FP32), real_model.file, real_model.info, real_model.onnx, engine, None
    )
    engine.write_bytes(engine.read_bytes()[:5000])
    with pytest.raises(EngineError, match="does not load") as caught:
        LiteRt().open(artifact, Resources())
    assert "\n" not in caught.value.message


def test_the_missing_converter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from raudo.machine import describe

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    reason = LiteRt().unsupported(INT8, describe())
    assert reason == ("not installed: onnx, ai_edge_quantizer (pip install 'raudo[litert-export]')")
