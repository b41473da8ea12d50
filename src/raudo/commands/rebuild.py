"""`raudo export ENGINE --rebuild`: the same engine once more, for the machine that is here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from raudo import discover
from raudo.errors import SourceError, UsageError
from raudo.machine import describe
from raudo.workspace import read_manifest, sha256

if TYPE_CHECKING:
    from raudo.commands.export import ExportRequest
    from raudo.records import Manifest


def rebuilding(engine: Path, request: ExportRequest) -> ExportRequest:
    """Return the request that makes an engine again from the model that it was made from.

    Args:
        engine: An engine file with its manifest; the file itself may be damaged or missing.
        request: What else was asked for: calibration images, a timeout, kinds of GPU.

    Raises:
        EngineError: There is no manifest.
        SourceError: The model is not there, or is not the same any more.
        UsageError: The engine was calibrated, and no images are given.
    """
    manifest = read_manifest(engine)
    source = _find_source(engine, manifest)
    if manifest.calibration is not None and request.calibration is None:
        raise UsageError(
            f"{engine} was calibrated on {manifest.calibration.source}",
            hint="give those images with --calibration",
        )
    return replace(
        request,
        file=replace(request.file, path=source, size=(manifest.spec.height, manifest.spec.width)),
        formats=(discover.backend(manifest.backend).format,),
        precisions=(manifest.precision,),
        output=engine.parent,
        gpus=request.gpus or _gpus(manifest),
        keep=manifest.kept_layers,
        ranges=manifest.ranges,
        images=_images(manifest, request),
        path=engine,
    )


def _find_source(engine: Path, manifest: Manifest) -> Path:
    """Look for the model beside the engine, in the folders above it, and in the current one."""
    folders = dict.fromkeys((engine.parent, *engine.resolve().parents, Path()))
    files = [folder / manifest.source for folder in folders]
    found = [file for file in files if file.is_file()]
    same = next((file for file in found if sha256(file) == manifest.source_sha256), None)
    if same is not None:
        return same
    if found:
        raise SourceError(
            f"{found[0]} is not the model that {engine} was made from",
            hint="put that one there, or export the new one under the same name",
        )
    raise SourceError(
        f"{manifest.source}, which {engine} was made from, is not here",
        hint="put it beside the engine, or into the current folder",
    )


def _images(manifest: Manifest, request: ExportRequest) -> int | None:
    """Return how many of the given calibration images were used; None is all of them."""
    given = request.calibrate_on() if manifest.calibration else None
    if given is None or manifest.calibration is None:
        return None
    return manifest.calibration.images if manifest.calibration.images < len(given.files) else None


def _gpus(manifest: Manifest) -> tuple[str, ...]:
    """Return the kinds of GPU that an engine was made for where no GPU is here."""
    if describe().gpus or "gpu" in manifest.machine:
        return ()
    told = manifest.machine.get("compute_capability", "")
    return tuple(f"sm{version.replace('.', '')}" for version in told.split(", ") if version)
