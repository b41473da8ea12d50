"""`raudo export ENGINE --rebuild`: the same engine once more."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from raudo.build import ModelFile
from raudo.commands.export import ExportRequest, export
from raudo.commands.rebuild import rebuilding
from raudo.errors import EngineError, SourceError, UsageError
from raudo.listener import Listener
from raudo.machine import describe
from raudo.records import Calibration, Manifest
from raudo.workspace import manifest_path, read_artifact, sha256

if TYPE_CHECKING:
    from pathlib import Path

    from raudo.records import Spec


@pytest.fixture
def engine(tmp_path: Path, tiny_spec: Spec) -> Path:
    """An engine that is lost but for its manifest; the model lies in the folder above."""
    source = tmp_path / "model.pt"
    source.write_bytes(b"weights")
    path = tmp_path / "engines" / "renamed.onnx"
    path.parent.mkdir()
    write(path, manifest(tiny_spec, source))
    return path


def manifest(spec: Spec, source: Path, **changes: Any) -> Manifest:
    made = Manifest(
        name="onnxruntime-fp32",
        backend="onnxruntime",
        precision="fp32",
        spec=spec,
        source=source.name,
        source_sha256=sha256(source),
        files_sha256={},
    )
    return made.model_copy(update=changes)


def write(engine: Path, made: Manifest) -> None:
    manifest_path(engine).write_text(made.model_dump_json(), encoding="utf-8")


def asked(engine: Path, **changes: Any) -> ExportRequest:
    plain = ExportRequest(ModelFile(engine), ("onnx",), ("fp32",), engine.parent)
    return replace(plain, **changes)


def test_all_that_is_needed_stands_in_the_manifest(
    engine: Path, tiny_spec: Spec, tmp_path: Path
) -> None:
    calibration = Calibration(source="photos", images=4, sha256="")
    changes = {"precision": "int8", "calibration": calibration, "kept_layers": ("head",)}
    changes["ranges"] = "quantile"
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(b"")
    write(engine, manifest(tiny_spec, tmp_path / "model.pt", **changes))
    request = rebuilding(engine, asked(engine, calibration=tmp_path, timeout=7.0))
    assert request.file.path == tmp_path / "model.pt"
    assert request.file.size == (64, 64)
    assert request.formats == ("onnx",)
    assert request.precisions == ("int8",)
    assert request.keep == ("head",)
    assert (request.ranges, request.images) == ("quantile", 4)
    assert request.path == engine
    assert request.timeout == 7.0


def test_calibration_images_have_to_be_given_again(
    engine: Path, tiny_spec: Spec, tmp_path: Path
) -> None:
    calibration = Calibration(source="photos", images=4, sha256="")
    write(engine, manifest(tiny_spec, tmp_path / "model.pt", calibration=calibration))
    with pytest.raises(UsageError, match="calibrated on photos"):
        rebuilding(engine, asked(engine))


def test_the_model_beside_the_engine_comes_first_and_has_to_be_the_same(
    engine: Path, tmp_path: Path
) -> None:
    other = engine.parent / "model.pt"
    other.write_bytes(b"other weights")
    assert rebuilding(engine, asked(engine)).file.path == tmp_path / "model.pt"
    (tmp_path / "model.pt").write_bytes(b"changed too")
    with pytest.raises(SourceError, match=r"is not the model that .* was made from"):
        rebuilding(engine, asked(engine))


def test_a_model_that_is_nowhere(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a model.pt in the current folder would be found
    (tmp_path / "model.pt").unlink()
    with pytest.raises(SourceError, match=r"model\.pt, which .* was made from, is not here"):
        rebuilding(engine, asked(engine))


def test_an_engine_without_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="has no manifest"):
        rebuilding(tmp_path / "x.engine", asked(tmp_path / "x.engine"))


@pytest.mark.skipif(bool(describe().gpus), reason="NOT HERE: there is a GPU")
def test_kinds_of_gpu_are_kept_where_no_gpu_is(
    engine: Path, tiny_spec: Spec, tmp_path: Path
) -> None:
    source = tmp_path / "model.pt"
    aimed = {"compute_capability": "8.6, 12.0", "runtime": "any"}
    write(engine, manifest(tiny_spec, source, machine=aimed))
    assert rebuilding(engine, asked(engine)).gpus == ("sm86", "sm120")
    assert rebuilding(engine, asked(engine, gpus=("sm89",))).gpus == ("sm89",)
    write(engine, manifest(tiny_spec, source, machine=aimed | {"gpu": "RTX 3060"}))
    assert rebuilding(engine, asked(engine)).gpus == ()


@pytest.mark.slow
def test_what_is_rebuilt_is_whole_again(tiny_onnx: Path, tiny_spec: Spec, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="NO ONNX")
    from raudo.families.base import SPEC_KEY

    model = onnx.load(str(tiny_onnx))
    model.metadata_props.add(key=SPEC_KEY, value=tiny_spec.model_dump_json())
    source = tmp_path / "source.onnx"
    onnx.save(model, str(source))
    engine = tmp_path / "made" / "engine.onnx"
    engine.parent.mkdir()
    write(engine, manifest(tiny_spec, source))
    engine.write_bytes(b"half of it")
    (result,) = export(rebuilding(engine, asked(engine)), Listener())
    assert (result.status, result.path) == ("OK", engine)
    assert read_artifact(engine).manifest.source_sha256 == sha256(source)
