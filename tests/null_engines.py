"""Engines that answer at once with canned outputs, for tests of what lies around engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sample_report
from raudo.backends.null import canned, write_canned
from raudo.build import combine
from raudo.records import Artifact, Spec
from raudo.workspace import read_artifact, write_manifest

if TYPE_CHECKING:
    from collections.abc import Sequence
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
    pauses: dict[str, float] | None = None,
) -> Path:
    """Write a null engine with its manifest; engines of one seed detect the same.

    `pauses` are the milliseconds that it takes: `call_ms`, `image_ms`.
    """
    spec = Spec(family="any", height=side, width=side, classes=classes)
    outputs = canned(spec, anchors=100, objects=3, seed=seed)
    return write_canned(path, spec, outputs, precision=precision, pauses=pauses).path


def spec_of(size: tuple[int, int]) -> Spec:
    """Return the spec of an engine of that height and width."""
    return Spec(family="any", height=size[0], width=size[1], classes=CLASSES)


def part(folder: Path, size: tuple[int, int], source: str = "0" * 64) -> Path:
    """Write a null engine of a size; what it finds depends on the size."""
    path = null_engine(folder / f"null@{size[0]}x{size[1]}.npz", seed=sum(size) + size[0])
    artifact = read_artifact(path)
    changed = artifact.manifest.model_copy(
        update={"spec": spec_of(size), "source_sha256": source, "name": path.stem}
    )
    write_manifest(Artifact(path, changed))
    return path


def mixed_engine(path: Path, sizes: Sequence[tuple[int, int]]) -> Path:
    """Write an engine of several input rectangles, the model's own first."""
    combine("null@mixed+own", [part(path.parent, size) for size in sizes], path)
    return path


def null_run(folder: Path, *, classes: tuple[str, ...] = CLASSES, seed: int = 0) -> Path:
    """Write a run folder that chose `fast`, whose baseline is `slow`, and that has an `other`.

    Args:
        folder: Where to.
        classes: Of all engines.
        seed: Of `fast`; the others have 0, and those of one seed detect the same.
    """
    similarity, candidates = {"slow": 100.0, "fast": 99.2, "other": 98.7}, []
    for name, percent in similarity.items():
        engine = folder / "engines" / f"{name}.npz"
        null_engine(engine, classes=classes, seed=seed if name == "fast" else 0)
        latency = 62.0 if name == "slow" else 20.0 + len(candidates)
        made = sample_report.candidate(
            name, latency, similarity=percent, baseline=name == "slow", classes=classes
        )
        candidates.append(made.model_copy(update={"file": f"engines/{name}.npz"}))
    candidates.append(sample_report.unable("broken", "FAILED", "no memory"))
    report = sample_report.report(*candidates, classes=classes)
    (folder / "report.json").write_text(report.model_dump_json(), encoding="utf-8")
    return folder
