"""Engines that answer at once with canned outputs, for tests of what lies around engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raudo.backends.null import NullBackend, canned
from raudo.records import Artifact, Manifest, Spec
from raudo.workspace import sha256, write_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from raudo.records import Precision

CLASSES = ("cat", "dog")


def null_engine(
    path: Path,
    *,
    seed: int = 0,
    side: int = 64,
    classes: tuple[str, ...] = CLASSES,
    precision: Precision = "fp32",
) -> Path:
    """Write a null engine with its manifest; engines of one seed detect the same."""
    spec = Spec(family="any", height=side, width=side, classes=classes)
    path.parent.mkdir(parents=True, exist_ok=True)
    NullBackend().write_graph(canned(spec, anchors=100, objects=3, seed=seed), path)
    manifest = Manifest(
        name=f"null-{path.stem}",
        backend="null",
        precision=precision,
        spec=spec,
        source="model.pt",
        source_sha256="0" * 64,
        files_sha256={path.name: sha256(path)},
    )
    write_manifest(Artifact(path, manifest))
    return path
