"""`raudo export`: engine files with their manifests, without a run around them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from raudo import discover
from raudo.build import ModelFile, ModelInfo, move_engine, record_audit
from raudo.errors import OutputError, RaudoError, UsageError
from raudo.inputs import data
from raudo.inputs.gathering import inspect
from raudo.machine import available_threads, describe
from raudo.plan import Plan, obstacle
from raudo.records import PRECISIONS, Record, Status
from raudo.worker import Worker
from raudo.workspace import unmade

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raudo.backends.base import Backend, Variant
    from raudo.inputs.data import CalibrationSet
    from raudo.listener import Listener
    from raudo.measuring.station import Opened
    from raudo.records import Artifact, Precision, Ranges


AIMS = ("sm86", "sm89", "sm120")
"""Kinds of GPU to name as an example: the GeForce RTX 30, 40 and 50 series."""


class Exported(Record):
    """How the export of one engine ended."""

    name: str = Field(description="The candidate's name")
    status: Status = Field(description="SKIPPED where this machine cannot make it")
    reason: str = Field(default="", description="Why it is not OK")
    path: Path | None = Field(default=None, description="The engine file, if there is one")


@dataclass(frozen=True)
class ExportRequest:
    """What to export.

    Attributes:
        file: The model file.
        formats: Words for `Backend.format`.
        precisions: What to ask each format for.
        output: Folder for the engine files.
        calibration: Data set or folder of images for INT8; None without any.
        calibration_split: Split of that data set.
        calibration_images: Most images to calibrate on.
        timeout: Seconds after which a process that does not answer has hung.
        gpus: Kinds of GPU to make engines for, `sm86` for instance; () is this machine.
        keep: Layers to keep from quantization.
        ranges: How calibration finds ranges; see `QuantizationSettings`.
        images: How many of the calibration images to use; None uses all.
        path: Where the one engine goes; None names it after the model and the precision.
    """

    file: ModelFile
    formats: tuple[str, ...]
    precisions: tuple[Precision, ...]
    output: Path
    calibration: Path | None = None
    calibration_split: str = "train"
    calibration_images: int = 300
    timeout: float = 600.0
    gpus: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    ranges: Ranges = "mean"
    images: int | None = None
    path: Path | None = None

    def plans(self) -> tuple[Plan, ...]:
        """Return the candidates asked for, without those that a format does not have.

        Raises:
            UsageError: A format is unknown, or none has any of the precisions.
        """
        found = tuple(
            Plan(
                backend.name,
                variant,
                keep=self.keep,
                ranges=self.ranges,
                images=self.images,
                gpus=self.gpus,
            )
            for backend, precision in self._pairs()
            if (variant := _variant(backend, precision))
        )
        if not found:
            raise UsageError(
                f"nothing to export: formats {', '.join(self.formats) or 'none'}, "
                f"precisions {', '.join(self.precisions) or 'none'}",
                hint="see 'raudo list' for what each format can be made in",
            )
        return found

    def absent(self) -> tuple[Exported, ...]:
        """Return what is asked for but does not exist: a format without a precision."""
        return tuple(
            Exported(
                name=f"{backend.name}-{precision}",
                status="SKIPPED",
                reason=f"{backend.title} has no {precision} here",
            )
            for backend, precision in self._pairs()
            if _variant(backend, precision) is None
        )

    def _pairs(self) -> list[tuple[Backend, Precision]]:
        by_format = {b.format: b for b in discover.backends() if b.made_from == "onnx"}
        known = [word for word, backend in by_format.items() if backend.variants]
        for word in self.formats:
            if word not in known:
                raise UsageError(f"cannot export to '{word}'", hint=f"known: {', '.join(known)}")
        return [
            (by_format[word], precision)
            for word in dict.fromkeys(self.formats)
            for precision in dict.fromkeys(self.precisions)
        ]

    def calibrate_on(self) -> CalibrationSet | None:
        """Return the calibration images, or None without any."""
        if self.calibration is None:
            return None
        files = data.calibration_images(
            self.calibration, self.calibration_split, self.calibration_images, seed=0
        )
        return data.calibration_set(files, self.calibration.name)


def _variant(backend: Backend, precision: Precision) -> Variant | None:
    return next((v for v in backend.variants if v.precision == precision), None)


def exit_code(results: Sequence[Exported]) -> int:
    """Return 0 if something was made and nothing failed, else 2: a skipped engine fails nothing."""
    made = {result.status for result in results}
    return 0 if "OK" in made and "FAILED" not in made else 2


def parse_precisions(words: Sequence[str]) -> tuple[Precision, ...]:
    """Check the words for precisions.

    Raises:
        UsageError: One is unknown.
    """
    for word in words:
        if word not in PRECISIONS:
            raise UsageError(f"no precision '{word}'", hint=f"known: {', '.join(PRECISIONS)}")
    return tuple(p for word in words for p in PRECISIONS if p == word)


def engine_path(output: Path, stem: str, plan: Plan) -> Path:
    """Return `<stem>[.<precision>]<suffix>`: FP32 is not named, as users expect."""
    precision = "" if plan.precision == "fp32" else f".{plan.precision}"
    return output / f"{stem}{precision}{discover.backend(plan.backend).suffix}"


def export(request: ExportRequest, listener: Listener) -> tuple[Exported, ...]:
    """Make the engine files that are asked for, and check what each really executes.

    Raises:
        RaudoError: The model, the calibration images or the request cannot be used.
    """
    plans, calibration = request.plans(), request.calibrate_on()
    results = {
        plan.name: Exported(name=plan.name, status="SKIPPED", reason=reason)
        for plan in plans
        if (reason := _obstacle(plan, calibrated=calibration is not None))
    }
    for result in results.values():
        listener.finished(result.name, result.status, result.reason)
    able = [plan for plan in plans if plan.name not in results]
    if able:
        listener.step("Opening the model")
        info = inspect(request.file, request.timeout)
        with (
            unmade(request.output),
            tempfile.TemporaryDirectory(prefix="raudo-") as scratch,
        ):
            _make_folder(request.output)
            onnx = Path(scratch) / "model.onnx"
            listener.step("Writing ONNX")
            with Worker("the ONNX export", timeout=request.timeout) as worker:
                worker.call("write_onnx", request.file, onnx)
            listener.step("Making the engines", len(able))
            for done, plan in enumerate(able, 1):
                result = results[plan.name] = _export_one(request, plan, info, onnx, calibration)
                listener.finished(plan.name, result.status, result.reason)
                listener.advance(done)
    return (*(results[plan.name] for plan in plans), *request.absent())


def _obstacle(plan: Plan, *, calibrated: bool) -> str | None:
    """Tell why a candidate cannot be made here; what is exported needs no PyTorch module."""
    reason = obstacle(plan, describe(), has_module=False, calibrated=calibrated)
    backend = discover.backend(plan.backend)
    if reason and not plan.gpus and not describe().gpus and not backend.unable_to_aim(AIMS):
        return f"{reason}; --gpu {','.join(AIMS)} makes it for other machines"
    return reason


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write into {folder}: {error.strerror or error}",
        hint="choose another folder with --output, or make room there",
    )


def _export_one(
    request: ExportRequest,
    plan: Plan,
    info: ModelInfo,
    onnx: Path,
    calibration: CalibrationSet | None,
) -> Exported:
    path = request.path or engine_path(request.output, request.file.path.stem, plan)
    backend = discover.backend(plan.backend)
    try:
        # Beside its place until it is known to be what was asked for: an engine from before stays.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
            draft = Path(folder) / path.name
            timeout = backend.making_factor * request.timeout
            with Worker(plan.name, timeout=timeout) as worker:
                arguments = (plan, request.file, info, onnx, draft, calibration)
                artifact: Artifact = worker.call("build", *arguments)
                audit = artifact.manifest.audit
                if audit is None:
                    trust = request.file.trust
                    if backend.keeps_compiled:
                        opened: Opened = worker.call("keep_compiled", draft, 1, trust)
                    else:
                        opened = worker.call("open", draft, available_threads(), 1, 1, trust)
                    audit = opened.audit
            record_audit(artifact, audit)
            move_engine(draft, path, backend.companions)
    except OutputError:  # no other engine could be written either
        raise
    except OSError as error:
        raise _unwritable(path.parent, error) from error
    except RaudoError as error:
        return Exported(name=plan.name, status="FAILED", reason=error.message)
    return Exported(name=plan.name, status="OK", path=path)
