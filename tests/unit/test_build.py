"""Engine files come whole, with true manifests, or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from raudo import discover
from raudo.build import (
    Calibrations,
    ModelFile,
    build,
    inspect_model,
    precision_problem,
    record_audit,
    write_onnx,
)
from raudo.errors import EngineError, RaudoError, UsageError
from raudo.inputs.data import CalibrationSet, calibration_set
from raudo.machine import describe
from raudo.plan import Plan, pass_for
from raudo.records import Artifact, PrecisionAudit
from raudo.worker import Worker
from raudo.workspace import manifest_path, read_artifact, sha256, write_manifest

if TYPE_CHECKING:
    from raudo.build import ModelInfo
    from raudo.records import Precision

IMAGES = sorted((Path(__file__).parents[2] / "samples/coco-mini/images/calib").glob("*.jpg"))[:3]
FROM_ONNX = [
    Plan(backend.name, variant)
    for backend in discover.backends()
    if backend.made_from == "onnx"
    for variant in backend.variants
]
FP32 = [plan for plan in FROM_ONNX if plan.precision == "fp32"]
PLAIN = next(plan for plan in FP32 if not discover.backend(plan.backend).missing())
INT8 = [plan for plan in FROM_ONNX if plan.precision == "int8"]


def named(plan: Plan) -> str:
    return plan.name


@pytest.fixture(scope="module")
def tiny(tiny_onnx: Path, tiny_spec: Any, tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    """The tiny detector as a model file that a family recognizes: it carries its spec."""
    import onnx

    from raudo.families.base import SPEC_KEY

    model = onnx.load(str(tiny_onnx))
    model.metadata_props.add(key=SPEC_KEY, value=tiny_spec.model_dump_json())
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    onnx.save(model, str(path))
    return ModelFile(path)


@pytest.fixture(scope="module")
def info(tiny: ModelFile) -> ModelInfo:
    return inspect_model(tiny)


def test_what_a_model_file_is(tiny: ModelFile, info: ModelInfo, tiny_spec: Any) -> None:
    assert info.spec.classes == tiny_spec.classes
    assert (info.spec.height, info.spec.width) == (64, 64)
    assert not info.has_module
    assert info.sha256 == sha256(tiny.path)


@pytest.mark.parametrize("plan", FROM_ONNX, ids=named)
def test_an_engine_has_a_manifest_that_describes_it(
    plan: Plan, tiny: ModelFile, info: ModelInfo, tmp_path: Path
) -> None:
    backend = discover.backend(plan.backend)
    if backend.missing():
        pytest.skip(f"NO {plan.backend.upper()}: not installed")
    if reason := backend.unsupported(plan.variant, describe()):
        pytest.skip(f"NOT HERE: {reason}")
    engine = plan.engine_file(tmp_path)
    calibration = calibration_set(tuple(IMAGES), "calib")
    made = build(plan, tiny, info, tiny.path, engine, calibration)
    read = read_artifact(engine)
    assert read == made
    manifest = read.manifest
    assert (manifest.name, manifest.backend, manifest.precision) == (
        plan.name,
        plan.backend,
        plan.precision,
    )
    assert (manifest.source, manifest.source_sha256) == (tiny.path.name, info.sha256)
    assert set(manifest.files_sha256) == {
        engine.name,
        *(engine.with_suffix(s).name for s in backend.companions),
    }
    made_by = pass_for(plan.variant)
    calibrates = made_by is not None and made_by.needs_calibration
    assert (manifest.calibration == calibration.record) == calibrates
    assert "raudo" in manifest.versions
    assert set(manifest.versions) > {"raudo"}
    assert {f.name for f in tmp_path.iterdir()} == {
        *manifest.files_sha256,
        manifest_path(engine).name,
    }


@pytest.mark.parametrize("plan", FP32, ids=named)
@pytest.mark.parametrize("failure", [EngineError("no", hint="x"), OSError(28, "No space left")])
def test_a_backend_that_fails_midway_leaves_nothing(
    plan: Plan,
    failure: Exception,
    tiny: ModelFile,
    info: ModelInfo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if discover.backend(plan.backend).missing():
        pytest.skip(f"NO {plan.backend.upper()}: not installed")

    def half(_self: Any, _graph: Any, path: Path, *_: Any) -> None:
        path.write_bytes(b"half of an engine")
        raise failure

    monkeypatch.setattr(type(discover.backend(plan.backend)), "make", half)
    with pytest.raises(RaudoError, match=r"no|No space"):
        build(plan, tiny, info, tiny.path, plan.engine_file(tmp_path / "out"), None)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_in_place_of_the_folder_is_told(
    tiny: ModelFile, info: ModelInfo, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RaudoError) as caught:
        build(PLAIN, tiny, info, tiny.path, PLAIN.engine_file(tmp_path / "file"), None)
    assert "cannot write" in caught.value.message
    assert "--output" in caught.value.hint
    assert (tmp_path / "file").read_text() == "mine"


def test_the_contract_onnx_file_comes_whole_or_not_at_all(
    tiny: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_onnx(tiny, tmp_path / "model.onnx")
    assert [f.name for f in tmp_path.iterdir()] == ["model.onnx"]

    def half(_self: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise EngineError("no", hint="x")

    model = tiny.open()
    monkeypatch.setattr(type(model), "write_onnx", half)
    with pytest.raises(EngineError):
        write_onnx(tiny, tmp_path / "other.onnx")
    assert [f.name for f in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("plan", INT8, ids=named)
def test_an_engine_that_lies_about_its_precision_is_caught(
    plan: Plan, tiny: ModelFile, info: ModelInfo, tmp_path: Path
) -> None:
    """The file is FP32; its manifest claims INT8, as a quiet fallback would leave it."""
    honest = next((p for p in FP32 if p.backend == plan.backend), None)
    if honest is None or discover.backend(plan.backend).missing():
        pytest.skip(f"NO FP32 OF {plan.backend.upper()}")
    if reason := discover.backend(plan.backend).unsupported(honest.variant, describe()):
        pytest.skip(f"NOT HERE: {reason}")
    engine = plan.engine_file(tmp_path)
    made = build(honest, tiny, info, tiny.path, engine, None)
    claims = {"precision": "int8", "name": plan.name, "options": dict(plan.variant.options)}
    lie = Artifact(engine, made.manifest.model_copy(update=claims))
    write_manifest(lie)
    with Worker("liar") as worker:
        opened = worker.call("open", engine, 1, 1, 1, False)
    with pytest.raises(EngineError, match="asked for int8, but no node runs in it"):
        record_audit(lie, opened.audit)
    assert read_artifact(engine).manifest.audit is None


def test_an_audit_is_kept_in_the_manifest(tiny: ModelFile, info: ModelInfo, tmp_path: Path) -> None:
    engine = PLAIN.engine_file(tmp_path)
    made = build(PLAIN, tiny, info, tiny.path, engine, None)
    audit = PrecisionAudit(found={"fp32": 3}, providers={"CPU": 3})
    record_audit(made, audit)
    assert read_artifact(engine).manifest.audit == audit
    kept = json.loads(manifest_path(engine).read_text(encoding="utf-8"))
    assert kept["audit"]["found"] == {"fp32": 3}


@pytest.mark.parametrize(
    ("asked", "found", "problem"),
    [
        ("fp32", {"fp32": 9}, None),
        ("fp32", {"fp32": 9, "bf16": 1}, "asked for fp32, but found 1 in bf16, 9 in fp32"),
        ("fp32", {"int8": 9}, "no node runs in it (found 9 in int8)"),
        ("bf16", {"bf16": 8, "fp32": 1}, None),
        ("bf16", {"fp32": 9}, "no node runs in it (found 9 in fp32)"),
        ("int8", {"int8": 70, "fp32": 12}, None),
        ("int8", {"bf16": 9}, "no node runs in it (found 9 in bf16)"),
        ("int8", {"int8": 0, "fp32": 9}, "no node runs in it"),
        ("fp16", {}, "no node runs in it (found none)"),
        ("tf32", {"tf32": 70, "fp32": 9}, None),
        ("tf32", {"tf32": 70, "fp16": 9}, "asked for tf32, but found 9 in fp16, 70 in tf32"),
    ],
)
def test_what_is_asked_and_what_is_found(
    asked: Precision, found: dict[str, int], problem: str | None
) -> None:
    said = precision_problem(asked, PrecisionAudit(found=found))
    assert said is None if problem is None else said is not None and problem in said
    silent = PrecisionAudit(found=found, per_node=False, note="the runtime does not tell")
    assert precision_problem(asked, silent) is None


def test_a_pass_without_calibration_images_is_an_error_not_an_fp32_engine(
    tiny: ModelFile, info: ModelInfo, tmp_path: Path
) -> None:
    empty = CalibrationSet((), calibration_set((), "none").record)
    for plan in INT8:
        if discover.backend(plan.backend).missing():
            continue
        with pytest.raises(Exception, match=r".+"):
            build(plan, tiny, info, tiny.path, plan.engine_file(tmp_path), empty)
        assert list(tmp_path.iterdir()) == []


def test_no_room_is_told(
    tiny: ModelFile, info: ModelInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(discover.backend(PLAIN.backend)), "write_graph", full)
    with pytest.raises(UsageError, match="No space left on device"):
        build(PLAIN, tiny, info, tiny.path, PLAIN.engine_file(tmp_path), None)


def test_engines_that_differ_in_what_is_left_of_int8_share_a_calibration(
    tiny: ModelFile, info: ModelInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = next((p for p in INT8 if not discover.backend(p.backend).missing()), None)
    quantizer = pass_for(chosen.variant) if chosen else None
    if chosen is None or quantizer is None or quantizer.missing():
        pytest.skip("NO INT8: nothing quantizes")
    apply, calibrated_on = type(quantizer).apply, []

    def counted(self: Any, graph: Any, images: Any, settings: Any) -> Any:
        calibrated_on.append(len(images))
        return apply(self, graph, images, settings)

    monkeypatch.setattr(type(quantizer), "apply", counted)
    layers = quantizer.layers(discover.backend(chosen.backend).read_graph(tiny.path))
    known, calibration = Calibrations(), calibration_set(tuple(IMAGES), "calib")
    other = replace(chosen, variant=replace(chosen.variant, name="other"))
    plans = (chosen, replace(chosen, keep=layers), replace(chosen, images=2), other)
    sums = []
    for plan in plans:
        engine = tmp_path / f"engine{discover.backend(plan.backend).suffix}"
        made = build(plan, tiny, info, tiny.path, engine, calibration, calibrations=known)
        assert made.manifest.kept_layers == plan.keep
        sums.append(made.manifest.files_sha256)
    assert calibrated_on == [3, 2]
    assert sums[0] == sums[3] != sums[1]
