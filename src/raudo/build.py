"""Makes engine files and their manifests; heavy runtimes are imported here, so workers run it."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raudo import discover, images
from raudo.backends.base import Made
from raudo.checkpoints.source import open_model
from raudo.errors import EngineError, OutputError
from raudo.machine import versions
from raudo.passes.base import QuantizationSettings
from raudo.plan import pass_for
from raudo.records import Artifact, Manifest
from raudo.workspace import (
    engine_files,
    manifest_path,
    read_artifact,
    replacing,
    sha256,
    write_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from raudo.families.base import Model
    from raudo.inputs.data import CalibrationSet
    from raudo.plan import Plan
    from raudo.records import Precision, PrecisionAudit, Spec


@dataclass(frozen=True)
class ModelFile:
    """A model file, and how to open it.

    Attributes:
        path: The file.
        size: Input (height, width) in pixels; None takes the model's own.
        trust: Open a checkpoint even though it imports unknown code.
    """

    path: Path
    size: tuple[int, int] | None = None
    trust: bool = False

    def open(self) -> Model:
        """Load the model."""
        return open_model(self.path, size=self.size, trust=self.trust)


@dataclass(frozen=True)
class ModelInfo:
    """What opening a model file told.

    Attributes:
        spec: The model's spec.
        has_module: Whether it is a PyTorch module.
        sha256: Of the file.
    """

    spec: Spec
    has_module: bool
    sha256: str


class Calibrations:
    """Graphs that were calibrated before: engines that differ in what is left of them share one."""

    def __init__(self) -> None:
        self._known: list[tuple[object, Any]] = []

    def quantized(
        self, plan: Plan, spec: Spec, onnx: Path, calibration: CalibrationSet | None
    ) -> Any:
        """Return the graph of a plan with all layers quantized; see `make_graph`."""
        made_by = pass_for(plan.variant)
        key = (plan.backend, made_by, plan.ranges, plan.images, spec, onnx, calibration)
        known = next((graph for other, graph in self._known if other == key), None)
        if known is None:
            known = _quantized(plan, spec, onnx, calibration)
            self._known.append((key, known))
        return known


def inspect_model(file: ModelFile) -> ModelInfo:
    """Open a model file and tell what it is."""
    model = file.open()
    return ModelInfo(model.spec, model.module() is not None, sha256(file.path))


def write_onnx(file: ModelFile, path: Path) -> None:
    """Write the contract ONNX file of a model, whole or not at all."""
    with replacing(path) as draft:
        file.open().write_onnx(draft)


def build(
    plan: Plan,
    file: ModelFile,
    info: ModelInfo,
    onnx: Path,
    engine: Path,
    calibration: CalibrationSet | None,
    calibrations: Calibrations | None = None,
) -> Artifact:
    """Make the engine file of one candidate, and its manifest.

    The audit is left to who opens it, unless it is made for a machine that is not this one.

    Args:
        plan: The candidate.
        file: The model that it comes from.
        info: What the model is.
        onnx: The model's contract ONNX file.
        engine: Where the engine file will lie.
        calibration: Images for a pass that needs them.
        calibrations: What was calibrated before; None calibrates anew.

    Raises:
        RaudoError: It cannot be made; nothing half-written is left.
    """
    backend = discover.backend(plan.backend)

    def make(draft: Path) -> Made:
        if backend.made_from == "model":
            shutil.copyfile(file.path, draft)
            return Made()
        graph = make_graph(plan, info.spec, onnx, calibration, calibrations)
        return backend.make(graph, draft, plan.variant, plan.gpus)

    return _whole(plan, file, info, engine, calibration, make)


def compile_graph(
    plan: Plan,
    file: ModelFile,
    info: ModelInfo,
    graph: Path,
    engine: Path,
    calibration: CalibrationSet | None,
) -> Artifact:
    """Make an engine file of a finished graph: where only the runtime itself is installed.

    Args:
        plan: The candidate.
        file: The model that it comes from.
        info: What the model is.
        graph: ONNX file of what `make_graph` returned.
        engine: Where the engine file will lie.
        calibration: The images that the graph was calibrated on.

    Raises:
        RaudoError: It cannot be made; nothing half-written is left.
    """
    backend = discover.backend(plan.backend)

    def make(draft: Path) -> Made:
        return backend.compile(graph.read_bytes(), draft, plan.variant)

    return _whole(plan, file, info, engine, calibration, make)


def _whole(
    plan: Plan,
    file: ModelFile,
    info: ModelInfo,
    engine: Path,
    calibration: CalibrationSet | None,
    make: Callable[[Path], Made],
) -> Artifact:
    """Let an engine file be made, describe it, and put both in their place, or neither."""
    backend = discover.backend(plan.backend)
    backend.require()
    try:
        engine.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=engine.parent, prefix=_drafts(os.getppid())) as folder:
            draft = Path(folder) / engine.name
            made = make(draft)
            manifest = _manifest(plan, file, info, calibration, made)
            hashes = {f.name: sha256(f) for f in engine_files(draft, backend.companions)}
            manifest = manifest.model_copy(update={"files_sha256": hashes})
            write_manifest(Artifact(draft, manifest))
            move_engine(draft, engine, backend.companions)
    except OSError as error:
        raise OutputError(
            f"cannot write {engine}: {error.strerror or error}",
            hint="choose another folder with --output, or make room there",
        ) from error
    return Artifact(engine, manifest)


def _manifest(
    plan: Plan, file: ModelFile, info: ModelInfo, calibration: CalibrationSet | None, made: Made
) -> Manifest:
    """Describe an engine, but for its files."""
    backend, quantizer = discover.backend(plan.backend), pass_for(plan.variant)
    calibrates = calibration is not None and quantizer is not None and quantizer.needs_calibration
    return Manifest(
        name=plan.name,
        backend=plan.backend,
        precision=plan.precision,
        device=plan.variant.device,
        options=dict(plan.variant.options),
        spec=info.spec,
        source=file.path.name,
        source_sha256=info.sha256,
        files_sha256={},
        calibration=calibration.some(plan.images).record if calibration and calibrates else None,
        ranges=plan.ranges,
        kept_layers=plan.keep,
        audit=made.audit,
        machine=dict(made.machine),
        versions=versions("raudo", *backend.modules, *(quantizer.modules if quantizer else ())),
    )


def move_engine(draft: Path, engine: Path, companions: Iterable[str]) -> None:
    """Put an engine file, what belongs to it and its manifest in the place of another's.

    Args:
        draft: The engine file, in another folder of the same disk, under the same name.
        engine: Where it will lie.
        companions: Suffixes of the files that belong to it.

    Raises:
        OSError: That folder cannot be written.
    """
    for file in (*reversed(engine_files(draft, companions)), manifest_path(draft)):
        file.replace(engine.with_name(file.name))


def _drafts(owner: int) -> str:
    """Return how the folders begin that workers of a process make engines in."""
    return f".build-{owner}-"


def remove_drafts(folder: Path) -> None:
    """Remove what workers of this process that were killed left of engines in a folder."""
    for draft in folder.glob(f"{_drafts(os.getpid())}*"):
        shutil.rmtree(draft, ignore_errors=True)


def make_graph(
    plan: Plan,
    spec: Spec,
    onnx: Path,
    calibration: CalibrationSet | None,
    calibrations: Calibrations | None = None,
) -> Any:
    """Read a contract ONNX file for a plan's backend, and apply the plan's pass to it."""
    backend, quantizer = discover.backend(plan.backend), pass_for(plan.variant)
    if quantizer is None:
        return backend.read_graph(onnx)
    graph = (calibrations or Calibrations()).quantized(plan, spec, onnx, calibration)
    return quantizer.restore(graph, backend.read_graph(onnx), plan.keep) if plan.keep else graph


def _quantized(plan: Plan, spec: Spec, onnx: Path, calibration: CalibrationSet | None) -> Any:
    backend, quantizer = discover.backend(plan.backend), pass_for(plan.variant)
    assert quantizer is not None  # noqa: S101 (the caller looked)
    quantizer.require()
    used = calibration.some(plan.images) if calibration and quantizer.needs_calibration else None
    settings = QuantizationSettings(ranges=plan.ranges, grid=backend.grid)
    return quantizer.apply(backend.read_graph(onnx), prepared(used, spec), settings)


def combine(name: str, parts: Sequence[Path], engine: Path) -> Artifact:
    """Make one engine of several of one network, each for an input rectangle of its own.

    Args:
        name: Of the candidate.
        parts: Their files, in one folder; the first is for the model's own size.
        engine: Where its file, a copy of the first, will lie: in the same folder.
    """
    own = read_artifact(parts[0])
    companions = discover.backend(own.manifest.backend).companions
    files = engine_files(engine, companions)
    for file, copy in zip(engine_files(parts[0], companions), files, strict=True):
        with replacing(copy) as draft:
            shutil.copyfile(file, draft)
    manifest = own.manifest.model_copy(
        update={
            "name": name,
            "files_sha256": {file.name: sha256(file) for file in files},
            "rectangles": tuple(part.name for part in parts[1:]),
        }
    )
    artifact = Artifact(engine, manifest)
    write_manifest(artifact)
    return artifact


def prepared(calibration: CalibrationSet | None, spec: Spec) -> list[NDArray[np.uint8]]:
    """Return calibration images as engines take them, each uint8 [1, height, width, 3]."""
    files = calibration.files if calibration else ()
    return [images.letterbox(images.decode(file), spec)[0][None] for file in files]


def record_audit(artifact: Artifact, audit: PrecisionAudit) -> Artifact:
    """Write into the manifest what a loaded engine really executes.

    Raises:
        EngineError: The engine does not execute the precision that was asked for.
    """
    if problem := precision_problem(artifact.manifest.precision, audit):
        raise EngineError(
            f"{artifact.manifest.name}: {problem}",
            hint="the runtime replaced the precision; this engine is not what was asked for",
        )
    manifest = artifact.manifest.model_copy(update={"audit": audit})
    audited = Artifact(artifact.path, manifest)
    write_manifest(audited)
    return audited


def precision_problem(asked: Precision, audit: PrecisionAudit) -> str | None:
    """Tell how what an engine executes differs from what was asked; None if it does not."""
    if not audit.per_node:
        return None
    if not audit.found.get(asked):
        return f"asked for {asked}, but no node runs in it (found {_listed(audit.found)})"
    allowed = {"fp32": {"fp32"}, "tf32": {"fp32", "tf32"}}.get(asked)
    lower = allowed is not None and not allowed.issuperset(audit.found)
    return f"asked for {asked}, but found {_listed(audit.found)}" if lower else None


def _listed(found: dict[str, int]) -> str:
    return (
        ", ".join(f"{count} in {precision}" for precision, count in sorted(found.items())) or "none"
    )
