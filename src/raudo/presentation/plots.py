"""Plots as inline SVG whose colours and fonts are the page's own, in light and in dark mode.

Matplotlib draws with stand-in colours; each becomes a CSS variable in the SVG text.
"""

from __future__ import annotations

import html
import io
import math
import re
import textwrap
import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from raudo.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox
    from numpy.typing import NDArray

Box = tuple[float, float, float, float]
Kind = Literal["baseline", "chosen", "pass", "undecided", "fail", "other"]

INK, MUTED, LINE, CARD, ACCENT = "#010101", "#020202", "#030303", "#040404", "#050505"
GOOD, BAD, OPEN = "#060606", "#070707", "#080808"
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    LINE: "line",
    CARD: "card",
    ACCENT: "accent",
    GOOD: "pass",
    BAD: "fail",
    OPEN: "open",
}
_STYLES: dict[Kind, tuple[str, str, float, str]] = {
    "baseline": ("s", MUTED, 60, "baseline"),
    "chosen": ("*", ACCENT, 210, "chosen"),
    "pass": ("o", GOOD, 62, "passes"),
    "undecided": ("D", OPEN, 48, "not decided"),
    "fail": ("X", BAD, 70, "fails"),
    "other": ("o", MUTED, 44, "other target"),
}
"""Marker, colour, area and legend text: the shape tells as much as the colour."""
_WIDE, _NARROW = (6.1, 4.5), (4.4, 4.5)
"""Inches; one is 72 units of the SVG, and a card is about 6.5 or 4.5 of them wide."""
_LABEL_ALL = 16
_ALWAYS_LABELLED: tuple[Kind, ...] = ("baseline", "chosen")
_SIDES = (
    *((1, 0), (-1, 0), (0, 14), (0, -14)),
    *((side, rise) for rise in (14, -14, 26, -26, 38, -38) for side in (1, -1, 0)),
)
"""Where a label may go, best first: side of the point, and pixels above it."""
_NAME_LENGTH, _ROW_NAME = 28, 17
"""Letters of a name that are shown, and that fit into one line beside a row."""
_LETTER, _LINE_HEIGHT = 6.3, 11.0
"""About how wide a letter and how tall a line of a label are, pixels."""
_FAR = 16.0
"""Pixels from its point past which a label needs a line to it."""
_BINS = 160
_LONG_TAIL = 8.0
"""Times the slowest median: a p99 past this would squeeze all the rest together."""


@dataclass(frozen=True)
class Point:
    """One candidate in the plot of latency against quality."""

    name: str
    latency: float
    quality: float
    kind: Kind


@dataclass(frozen=True)
class Spread:
    """The end-to-end times of one candidate, milliseconds."""

    name: str
    samples: Sequence[float]
    p50: float
    p95: float
    p99: float
    kind: Kind


def pareto_front(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return the points that no other beats in latency without being worse in quality."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.latency, -p.quality, p.name)):
        if not front or point.quality > front[-1].quality:
            front.append(point)
    return tuple(front)


def latency_against_quality(
    points: Sequence[Point], quality: str, *, wide: bool, label: str
) -> str:
    """Plot latency against quality, with the Pareto front.

    Args:
        points: At least one.
        quality: Title of the vertical axis.
        wide: For a screen rather than a phone.
        label: What a screen reader says.
    """
    figure = _figure(_WIDE if wide else _NARROW)
    axes = figure.add_axes((0.15, 0.13, 0.83, 0.74) if wide else (0.19, 0.13, 0.79, 0.71))
    _plain(axes)
    front = pareto_front(points)
    axes.step(
        [p.latency for p in front],
        [p.quality for p in front],
        where="post",
        color=ACCENT,
        linewidth=1.6,
        linestyle=(0, (4, 3)),
        zorder=2,
        label="Pareto front",
    )
    for kind, (marker, colour, area, title) in _STYLES.items():
        chosen = [p for p in points if p.kind == kind]
        if chosen:
            x, y = [p.latency for p in chosen], [p.quality for p in chosen]
            axes.scatter(
                x,
                y,
                s=area,
                c=colour,
                marker=marker,
                edgecolors=CARD,
                linewidths=1,
                zorder=3,
                label=title,
            )
    _frame_points(axes, points)
    axes.set_xlabel("Latency, ms a frame at p50 (further left is faster)", color=MUTED)
    axes.set_ylabel(quality, color=MUTED)
    _legend(axes, 4 if wide else 3)
    _label_points(axes, points, front)
    return _svg(figure, label)


def latency_spreads(spreads: Sequence[Spread], *, wide: bool, label: str) -> str:
    """Plot the distribution of each candidate's end-to-end times, one row each.

    Args:
        spreads: At least one.
        wide: For a screen rather than a phone.
        label: What a screen reader says.
    """
    width, least = _WIDE if wide else (_NARROW[0], 0.0)
    height = max(least, 0.9 + 0.46 * len(spreads))
    figure = _figure((width, height))
    left = 0.27 if wide else 0.35
    axes = figure.add_axes((left, 0.54 / height, 0.97 - left, 1 - 0.9 / height))
    _plain(axes)
    edges = _edges(spreads)
    if edges[0] > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    for index, spread in enumerate(spreads):
        _spread_row(axes, spread, len(spreads) - 1 - index, edges, 0.7 * min(1.0, len(spreads) / 6))
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(-0.35, len(spreads) - 0.15)
    axes.set_yticks([len(spreads) - 1 - i for i in range(len(spreads))])
    names = axes.set_yticklabels([_two_lines(s.name) for s in spreads], color=INK)
    for name in names:
        name.set_parse_math(False)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("ms a frame, end to end", color=MUTED)
    _spread_legend(axes)
    return _svg(figure, label)


def _edges(spreads: Sequence[Spread]) -> NDArray[np.float64]:
    """Return the edges of the bins, from 0; growing ones where long tails need most of the axis."""
    top = max(s.p99 for s in spreads) * 1.06
    if top <= _LONG_TAIL * max(s.p50 for s in spreads):
        return np.linspace(0, top, _BINS + 1)
    return np.geomspace(0.8 * min(min((s.p50, *s.samples)) for s in spreads), top, _BINS + 1)


def _spread_row(
    axes: Axes, spread: Spread, base: int, edges: NDArray[np.float64], tallest: float
) -> None:
    colour = _STYLES[spread.kind][1]
    heights = density(spread.samples, edges)
    centres = (edges[:-1] + edges[1:]) / 2
    shown = heights > 0.004
    axes.fill_between(
        centres, base, base + tallest * heights, where=shown, color=colour, alpha=0.45, linewidth=0
    )
    axes.hlines(base, spread.p50, spread.p99, colors=colour, linewidth=1.4)
    for value, marker in ((spread.p50, "o"), (spread.p95, "d"), (spread.p99, "|")):
        face = CARD if marker == "d" else colour
        axes.plot(
            value, base, marker, color=colour, markersize=6, markerfacecolor=face, clip_on=False
        )


def density(samples: Sequence[float], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a smoothed histogram, its peak at 1: float64 [len(edges) - 1]."""
    counts = np.histogram(samples, edges)[0].astype(np.float64)
    kernel = np.exp(-0.5 * (np.arange(-6, 7) / 1.6) ** 2)
    smooth: NDArray[np.float64] = np.convolve(counts, kernel, mode="same")
    return smooth / smooth.max() if smooth.any() else smooth


def _spread_legend(axes: Axes) -> None:
    for marker, face, title in (("o", MUTED, "p50"), ("d", CARD, "p95"), ("|", MUTED, "p99")):
        axes.plot(
            [],
            [],
            marker,
            color=MUTED,
            markerfacecolor=face,
            markersize=6,
            label=title,
        )
    _legend(axes, 3)


def _frame_points(axes: Axes, points: Sequence[Point]) -> None:
    x, y = [p.latency for p in points], [p.quality for p in points]
    # A tenth of a percent must not look like a cliff: the axis spans at least 4 % of its values.
    room = max((max(y) - min(y)) * 0.16, 0.02 * max(map(abs, y)), 0.01)
    axes.set_ylim(min(y) - room, max(y) + room)
    axes.set_xlim(0, max(x) * 1.14)


def _label_points(axes: Axes, points: Sequence[Point], front: Sequence[Point]) -> None:
    """Write names beside points, each on the first side where it covers nothing."""
    wanted = [
        p for p in points if len(points) <= _LABEL_ALL or p in front or p.kind in _ALWAYS_LABELLED
    ]
    wanted.sort(key=lambda p: (p.kind not in _ALWAYS_LABELLED, p not in front, p.latency))
    frame = axes.get_window_extent()
    spots = axes.transData.transform([(p.latency, p.quality) for p in points]).tolist()
    taken: list[Box] = [(x - 7, y - 7, x + 7, y + 7) for x, y in spots]
    taken += _steps(axes.transData.transform([(p.latency, p.quality) for p in front]))
    to_data = axes.transData.inverted().transform
    for point in wanted:
        name = _short(point.name)
        x, y = axes.transData.transform((point.latency, point.quality)).tolist()
        places = _free_places(x, y, _LETTER * len(name), frame, taken)
        if not places:
            continue
        near = [box for box in places if _belongs(box, (x, y), spots)]
        box = (near or places)[0]
        taken.append(box)
        side, edge = _anchor(box, x)
        left, low = to_data((edge, box[1] + 2.5))
        axes.text(left, low, name, ha=side, color=INK, fontsize=9, zorder=4, parse_math=False)
        if not near:  # a line must tell whose it is
            end = to_data((min(max(x, box[0]), box[2]), box[1] if box[1] > y else box[3]))
            axes.plot(
                *zip(end, (point.latency, point.quality), strict=True),
                color=MUTED,
                linewidth=0.7,
                zorder=2,
            )


def _free_places(x: float, y: float, width: float, frame: Bbox, taken: Sequence[Box]) -> list[Box]:
    """Return the places for a label beside (x, y) that cover nothing, in pixels, best first."""
    free = []
    for side, rise in _SIDES:
        left = x + 10 if side > 0 else x - 10 - width if side < 0 else x - width / 2
        low = y - _LINE_HEIGHT / 2 + rise
        box = (left, low, left + width, low + _LINE_HEIGHT)
        inside = frame.contains(box[0], box[1]) and frame.contains(box[2], box[3])
        if inside and not any(_meet(box, other) for other in taken):
            free.append(box)
    return free


def _anchor(box: Box, x: float) -> tuple[str, float]:
    """Return which side of a name is sure to lie where: the one nearest to its point at x."""
    if box[2] < x:
        return "right", box[2]
    return ("left", box[0]) if box[0] > x else ("center", (box[0] + box[2]) / 2)


def _belongs(box: Box, spot: Sequence[float], spots: Sequence[Sequence[float]]) -> bool:
    """Tell whether a label is read as that of its own point, which no other is nearer to."""
    return _distance(box, spot) <= _FAR and all(
        _distance(box, spot) <= _distance(box, other) for other in spots
    )


def _distance(box: Box, spot: Sequence[float]) -> float:
    """Return how far a point lies from a box, in pixels."""
    x, y = spot
    return math.hypot(max(box[0] - x, 0, x - box[2]), max(box[1] - y, 0, y - box[3]))


def _steps(corners: NDArray[np.float64]) -> list[Box]:
    """Return the thin boxes that the Pareto front's line covers."""
    boxes: list[Box] = []
    for (x, y), (next_x, next_y) in pairwise(corners.tolist()):
        boxes += [(x, y - 1, next_x, y + 1), (next_x - 1, y, next_x + 1, next_y)]
    return boxes


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _short(name: str) -> str:
    flat = " ".join(name.split())
    return flat if len(flat) <= _NAME_LENGTH else flat[: _NAME_LENGTH - 1] + "…"


def _two_lines(name: str) -> str:
    """Break a name that is longer than the space beside a row."""
    return "\n".join(textwrap.wrap(_short(name), _ROW_NAME, max_lines=2, placeholder="…"))


def _figure(size: tuple[float, float]) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "the plots of the report need matplotlib, which is not installed",
            hint="pip install 'raudo[report]'",
        ) from error
    figure = Figure(figsize=size, dpi=72)
    figure.patch.set_visible(False)
    return figure


def _plain(axes: Axes) -> None:
    axes.patch.set_visible(False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.grid(visible=True, color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=9, labelcolor=MUTED, pad=6)


def _legend(axes: Axes, columns: int) -> None:
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=columns,
        frameon=False,
        fontsize=9,
        labelcolor=MUTED,
        handletextpad=0.3,
        columnspacing=1.1,
        borderaxespad=0.2,
        scatterpoints=1,
    )


def _svg(figure: Figure, label: str) -> str:
    """Return the figure as an <svg> element without identity, date or colours of its own."""
    import matplotlib as mpl

    stream = io.StringIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": label}
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]+"', text)
    assert view is not None  # noqa: S101 (matplotlib always writes one)
    opening = f'<svg role="img" aria-label="{html.escape(label)}" {view.group()}>'
    text = opening + text[text.index(">") + 1 :]
    text = re.sub(
        r' id="(?:figure|axes|patch|text|line2d|matplotlib|xtick|ytick|legend|\w+'
        r'Collection)[\w.]*_\d+"',
        "",
        text,
    )
    # Versions of matplotlib differ in how they name the font: in one property, or in its own.
    text = re.sub(r"(font: [\d.]+px|font-family:) [^;\"]+", r"\1 var(--sans)", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    return re.sub(r"\s*\n\s*", "\n", text)
