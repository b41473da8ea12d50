"""Writes what a run found: pictures, the report in every format, and how to do it again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import cv2
import numpy as np

from raudo import discover
from raudo.detector import Selection
from raudo.errors import OutputError
from raudo.images import decode
from raudo.measuring.evaluate import load_detections
from raudo.media.draw import side_by_side
from raudo.records import Detections
from raudo.workspace import read_report, replacing, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from raudo.records import Candidate, Report
    from raudo.workspace import Run

log = logging.getLogger(__name__)

PICTURES = 3
REPRODUCE = """\
#!/bin/sh
# Makes the run '{name}' again, as a new run.
# Made with: {versions}
exec raudo optimize --config "$(dirname "$0")/settings.yaml" --name "{name}-again" "$@"
"""


def write(report: Report, run: Run, files: Sequence[Path]) -> Report:
    """Write everything that shows a finished run; returns the report with its pictures named."""
    report = report.model_copy(update={"samples": _pictures(report, run, files)})
    versions = ", ".join(f"{name} {v}" for name, v in report.machine.versions.items())
    write_text(run.folder / "reproduce.sh", REPRODUCE.format(name=report.name, versions=versions))
    (run.folder / "reproduce.sh").chmod(0o755)
    render(report, run)
    return report


def render(report: Report, run: Run) -> None:
    """Write the report in every format."""
    for plugin in discover.report_formats():
        write_text(run.folder / f"report{plugin.suffix}", plugin.render(report, run.folder))


def rerender(run: Run) -> Report:
    """Write a finished run's report again, in every format.

    Raises:
        OutputError: The run folder cannot be written.
    """
    report = read_report(run)
    try:
        render(report, run)
    except OutputError as error:
        hint = f"copy {run.folder} to where you may write, or make room there"
        raise OutputError(error.message, hint=hint) from error
    return report


def _shown(report: Report) -> Candidate | None:
    """Return the candidate to show beside the baseline: the chosen, or else the fastest one."""
    by_name = {c.name: c for c in report.candidates}
    choices = (d.choice for t, d in report.decisions.items() if t != "development")
    chosen = next((by_name[c] for c in choices if c), None)
    rest = [c for c in report.candidates if c.status == "OK" and not c.baseline and c.speedup]
    return chosen or max(rest, key=lambda c: c.speedup.median if c.speedup else 0, default=None)


def _pictures(report: Report, run: Run, files: Sequence[Path]) -> tuple[str, ...]:
    """Draw the images with most boxes as the baseline and the shown candidate see them."""
    shown, baseline = _shown(report), report.source.baseline
    if shown is None:
        return ()
    left = _kept(run, baseline)
    right = _kept(run, shown.name)
    busiest = sorted(range(len(files)), key=lambda i: -len(left[i]))
    # Neither empty scenes nor crowds show a difference: take from the busier half, evenly.
    chosen = busiest[: max(1, len(busiest) // 2)]
    chosen = chosen[:: max(1, len(chosen) // PICTURES)][:PICTURES]
    made = []
    for number, index in enumerate(chosen, 1):
        picture = side_by_side(
            decode(files[index]),
            left[index],
            right[index],
            (baseline, shown.name),
            report.source.spec.classes,
        )
        path = run.pictures / f"sample-{number}.jpg"
        with replacing(path) as draft:
            draft.write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
        made.append(path.relative_to(run.folder).as_posix())
    return tuple(made)


def _kept(run: Run, name: str) -> list[Detections]:
    """Return what a candidate found, at the confidence that people use."""
    threshold = Selection().confidence
    found = []
    for detections in load_detections(run.state / f"found-{name}.npz"):
        keep = np.flatnonzero(detections.scores >= threshold)
        found.append(
            Detections(detections.boxes[keep], detections.scores[keep], detections.labels[keep])
        )
    return found
