"""The report that people look at: one self-contained HTML file that opens offline."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np

from raudo import checks
from raudo.presentation import plots, present
from raudo.reports.base import ReportFormat

if TYPE_CHECKING:
    from collections.abc import Callable

    from jinja2 import Template

    from raudo.records import Report

TEMPLATE = "report.html.jinja"
MOST_PICTURES = 8
PICTURE_BYTES = 1_700_000
"""For all pictures together, before base64 makes them a third larger."""
_WIDEST = 1460
_QUALITIES = (86, 76, 64, 50)


class HtmlReport(ReportFormat):
    """`report.html`: the verdict first, then the evidence."""

    name = "html"
    title = "the HTML report"
    suffix = ".html"
    modules: ClassVar[tuple[str, ...]] = ("jinja2", "matplotlib")
    extra = "report"

    def render(self, report: Report, folder: Path) -> str:
        """Return the page.

        Raises:
            MissingDependencyError: jinja2 or matplotlib is not installed.
        """
        self.require()
        page = _template().render(**_page(report, folder))
        return page.rstrip() + "\n"


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["tidy"] = _tidy
    return environment.get_template(TEMPLATE)


def _tidy(text: str) -> str:
    """Keep a number and its percent sign on one line."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def _page(report: Report, folder: Path) -> dict[str, Any]:
    """Return all that the template names."""
    target, decision = present.lead(report)
    rows = present.rows(report)
    medians = [row.candidate.speedup.median for row in rows if row.candidate.speedup]
    return {
        "report": report,
        "present": present,
        "gate_titles": checks.GATE_TITLES,
        "target": target,
        "decision": decision,
        "rows": rows,
        "featured": present.featured(report),
        "baseline": present.baseline(report),
        "fastest": max(medians, default=1.0),
        "classes": present.class_rows(report),
        "stages": present.stage_rows(report),
        "profiled": [row.candidate for row in rows if row.candidate.profile],
        "quality": _quality_plot(rows),
        "spreads": _spread_plot(rows),
        "pictures": pictures(report.samples, folder),
    }


@dataclass(frozen=True)
class Plot:
    """One plot, drawn for a screen and for a phone."""

    title: str
    wide: Any
    narrow: Any


def _both(title: str, draw: Callable[..., str]) -> Plot:
    from markupsafe import Markup

    # The SVG is written by matplotlib, which escapes the names in it.
    wide, narrow = (Markup(draw(wide=wide)) for wide in (True, False))  # noqa: S704
    return Plot(title, wide, narrow)


def _quality_plot(rows: tuple[present.Row, ...]) -> Plot | None:
    """Plot latency against mAP, or against similarity where there are no labels."""
    scored = any(row.candidate.map50 is not None for row in rows)
    points = []
    for row in rows:
        one = row.candidate
        likeness = 100.0 if one.baseline else one.similarity_percent
        quality = one.map50 if scored else likeness
        if one.latency_ms is not None and quality is not None:
            points.append(plots.Point(one.name, one.latency_ms.p50, quality, row.kind))
    if not points:
        return None
    axis = "mAP@0.5" if scored else "Similarity to the baseline, %"
    front = ", ".join(p.name for p in plots.pareto_front(points))
    label = f"Latency against {axis} of {len(points)} candidates. On the Pareto front: {front}."
    draw = partial(plots.latency_against_quality, points, axis, label=label)
    return _both(f"Latency against {'mAP' if scored else 'similarity'}", draw)


def _spread_plot(rows: tuple[present.Row, ...]) -> Plot | None:
    spreads = [
        plots.Spread(
            row.candidate.name,
            row.candidate.measurement.samples_ms,
            row.candidate.latency_ms.p50,
            row.candidate.latency_ms.p95,
            row.candidate.latency_ms.p99,
            row.kind,
        )
        for row in rows
        if row.candidate.measurement and row.candidate.latency_ms
    ]
    if not spreads:
        return None
    label = "Distribution of the end-to-end latency of " + ", ".join(
        f"{s.name} (p50 {present.number(s.p50)} ms, p99 {present.number(s.p99)} ms)"
        for s in spreads
    )
    return _both("Latency distributions", partial(plots.latency_spreads, spreads, label=label))


def pictures(files: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """Return the pictures of a run as JPEG data URIs, small enough for one page.

    A picture that is missing, damaged or outside of the run folder is left out.
    """
    shown = files[:MOST_PICTURES]
    root = folder.resolve()
    found = []
    for name in shown:
        path = (root / name).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            continue
        raw = np.frombuffer(path.read_bytes(), np.uint8)
        image = cv2.imdecode(raw, cv2.IMREAD_COLOR) if raw.size else None
        if image is not None:
            found.append(_data_uri(image, PICTURE_BYTES // len(shown)))
    return tuple(found)


def _data_uri(image: Any, most_bytes: int) -> str:
    """Return a JPEG below a size: first the quality gives way, then the resolution."""
    scale = min(1.0, _WIDEST / image.shape[1])
    while True:
        width, height = (max(1, round(side * scale)) for side in image.shape[1::-1])
        smaller = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        for quality in _QUALITIES:
            encoded = cv2.imencode(".jpg", smaller, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            if encoded.size <= most_bytes:
                return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
        scale *= 0.7
