"""Inline SVG: the Pareto front, densities, and nothing that depends on a page or a clock."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raudo.presentation.plots import (
    Point,
    Spread,
    density,
    latency_against_quality,
    latency_spreads,
    pareto_front,
)

pytest.importorskip("matplotlib", reason="NO MATPLOTLIB: plots go untested")

POINTS = (
    Point("slow", 60, 0.50, "baseline"),
    Point("best", 20, 0.50, "chosen"),
    Point("fast", 10, 0.35, "fail"),
    Point("beaten", 30, 0.49, "pass"),
)


def texts(svg: str) -> list[str]:
    return ["".join(t.itertext()) for t in tree(svg).iter("text")]


def tree(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.replace("xlink:", ""))  # noqa: S314 (our own text)


def spread(name: str, *samples: float) -> Spread:
    p50, p99 = float(np.median(samples)), max(samples)
    return Spread(name, samples, p50, p99, p99, "pass")


def test_pareto_front_drops_what_is_beaten() -> None:
    assert [p.name for p in pareto_front(POINTS)] == ["fast", "best"]


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), min_size=1).map(
        lambda pairs: [Point(f"p{i}", x, y, "pass") for i, (x, y) in enumerate(pairs)]
    )
)
def test_pareto_front_is_what_nothing_beats(points: list[Point]) -> None:
    front = pareto_front(points)

    def beats(a: Point, b: Point) -> bool:
        as_good = a.latency <= b.latency and a.quality >= b.quality
        return as_good and (a.latency < b.latency or a.quality > b.quality)

    unbeaten = [p for p in points if not any(beats(other, p) for other in points)]
    assert {(p.latency, p.quality) for p in front} == {(p.latency, p.quality) for p in unbeaten}


@pytest.mark.parametrize("wide", [True, False])
def test_every_point_is_named_and_the_kinds_are_in_the_legend(wide: bool) -> None:
    shown = texts(latency_against_quality(POINTS, "mAP@0.5", wide=wide, label="x"))
    assert {p.name for p in POINTS} <= set(shown)
    assert {"baseline", "chosen", "fails", "passes", "Pareto front", "mAP@0.5"} <= set(shown)


def test_a_name_beside_another_point_has_a_line_to_its_own() -> None:
    """Where others crowd round a point, its name goes where there is room."""

    def lines(svg: str) -> int:
        return svg.count("stroke-width: 0.7")

    alone = [Point("left", 10, 0.5, "baseline"), Point("right", 90, 0.5, "chosen")]
    assert lines(latency_against_quality(alone, "q", wide=True, label="x")) == 0
    crowd = [Point(f"engine-of-the-crowd-{i}", 50 + i, 0.5 + i / 1e4, "pass") for i in range(8)]
    crowded = latency_against_quality(crowd, "q", wide=True, label="x")
    named = sum(name.startswith("engine-of") for name in texts(crowded))
    assert named > 2
    assert 0 < lines(crowded) < named


def test_names_are_text_not_markup_nor_formulas() -> None:
    hostile = '<b>$x$ & "y"'
    svg = latency_against_quality([Point(hostile, 1, 1, "chosen")], "q", wide=True, label=hostile)
    assert hostile in texts(svg)
    assert tree(svg).get("aria-label") == hostile
    assert hostile in texts(latency_spreads([spread(hostile, 1, 2)], wide=True, label="x"))


@pytest.mark.parametrize("count", [1, 2, 30])
def test_many_candidates_and_equal_values(count: int) -> None:
    points = [Point(f"engine-{i}", 5.0, 0.5, "pass") for i in range(count)]
    assert texts(latency_against_quality(points, "q", wide=True, label="x"))
    shown = texts(
        latency_spreads([spread(f"engine-{i}", 5.0) for i in range(count)], wide=False, label="x")
    )
    assert sum(name.startswith("engine-") for name in shown) == count


@pytest.mark.parametrize("wide", [True, False])
def test_a_name_longer_than_the_space_beside_its_row_takes_two_lines(wide: bool) -> None:
    spreads = [spread("onnxruntime-fp32@352x416+own", 1, 2), spread("onnxruntime-fp32", 1, 2)]
    shown = texts(latency_spreads(spreads, wide=wide, label="x"))
    assert {"onnxruntime-", "fp32@352x416+own", "onnxruntime-fp32"} <= set(shown)


def test_a_long_tail_leaves_room_for_the_rest() -> None:
    """One engine that once waited for seconds must not press all others against the axis."""

    def ticks(*spreads: Spread) -> list[float]:
        shown = texts(latency_spreads(spreads, wide=True, label="x"))
        return [float(text) for text in shown if re.fullmatch(r"[\d.]+", text)]

    usual = ticks(spread("a", 10.0, 12.0, 15.0), spread("b", 11.0, 13.0))
    assert usual[0] == 0
    tailed = ticks(spread("a", 10.0, 12.0, 15.0), spread("b", 11.0, 11.0, 2000.0))
    assert tailed[0] > 0
    assert {10.0, 100.0, 1000.0} <= set(tailed)


def test_plots_are_deterministic_and_stand_alone() -> None:
    one, two = (latency_against_quality(POINTS, "q", wide=True, label="x") for _ in range(2))
    assert one == two
    assert "http" not in one
    assert "DejaVu" not in one
    assert not re.search(r"#[0-9a-f]{6}\b", one), "colours are the page's variables"


def test_density_peaks_at_one_where_the_samples_are() -> None:
    edges = np.linspace(0, 100, 101)
    heights = density([40.0] * 5 + [41.0] * 5 + [80.0], edges)
    assert heights.shape == (100,)
    assert heights.max() == pytest.approx(1)
    assert heights.argmax() in (40, 41)
    assert heights[80] > 0.05
    assert heights[10] == 0
    assert not density([], edges).any()
