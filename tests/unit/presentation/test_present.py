"""Numbers as text, the order of candidates, and what a report opens with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sample_report
from raudo.checks import Check
from raudo.presentation import present
from raudo.records import Speedup

if TYPE_CHECKING:
    from pathlib import Path

    from raudo.checks import Gate, Outcome


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (-0.001, "0.00"),
        (1.234, "1.23"),
        (9.994, "9.99"),
        (9.996, "10.0"),
        (12.34, "12.3"),
        (99.96, "100.0"),
        (1234.5, "1,234"),
        (-3.456, "-3.46"),
        (None, present.MISSING),
        (math.nan, present.MISSING),
        (math.inf, present.MISSING),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert present.number(value) == text


def test_units() -> None:
    assert present.average_precision(0.5016) == "0.502"
    assert present.average_precision(None) == present.MISSING
    assert present.megabytes(3_720_000) == "3.72 MB"
    assert present.megabytes(None) == present.MISSING
    assert present.change(-0.04) == "0.0"
    assert present.change(1.25) == "+1.2"
    assert present.interval(Speedup(median=2, low=1.5, high=12.5)) == "[1.50, 12.5]"
    assert present.interval(None) == present.MISSING


@given(
    st.sampled_from(("speedup", "map50_loss_percent", "similarity_percent")),
    st.floats(-100, 100),
    st.lists(st.floats(-100, 100), min_size=3, max_size=3).map(sorted),
)
def test_gauge_keeps_the_order_and_stays_inside(
    gate: Gate, bound: float, ends: list[float]
) -> None:
    low, value, high = ends
    outcome: Outcome = "undecided"
    gauge = present.Gauge.of(Check(gate, bound, outcome, value, low, high))
    assert gauge is not None
    assert 0 <= gauge.low <= gauge.value <= gauge.high <= 100
    assert 0 <= gauge.gate <= 100
    assert (gauge.gate <= gauge.value) or bound > value
    assert gauge.passing_left == (gate == "map50_loss_percent")


def test_no_gauge_without_a_measurement() -> None:
    assert present.Gauge.of(Check("speedup", 1.5, "undecided")) is None


def test_rows_are_ordered_and_marked() -> None:
    rows = present.rows(sample_report.full())
    assert [(r.candidate.name, r.kind) for r in rows] == [
        ("torch-fp32", "baseline"),
        ("openvino-int8", "fail"),
        ("openvino-bf16", "undecided"),
        ("openvino-fp32", "chosen"),
        ("onnxruntime-fp32", "chosen"),
        ("torch-compiled", "other"),
        ("onnxruntime-int8", "other"),
        ("tensorrt-fp16", "other"),
    ]
    assert rows[4].chosen_for == ("Edge",)


def test_lead_is_the_target_that_was_decided(tmp_path: Path) -> None:
    reports = sample_report.every(tmp_path)
    assert present.lead(reports["full"])[0] == "production_cpu"
    assert present.lead(reports["only the baseline"])[1].verdict == "SKIPPED"


def test_featured_is_the_choice_or_the_closest(tmp_path: Path) -> None:
    reports = sample_report.every(tmp_path)
    names = {
        kind: row and row.candidate.name
        for kind in reports
        for row in [present.featured(reports[kind])]
    }
    assert names["full"] == "openvino-fp32"
    assert names["nothing passes"] == "engine-slow"
    assert names["thirty candidates"] == "engine-15", "the only one with one open gate"
    assert names["nothing ran"] is None


def test_headlines(tmp_path: Path) -> None:
    reports = sample_report.every(tmp_path)
    assert present.headline(reports["full"]).startswith("openvino-fp32 runs 2.29")
    assert present.headline(reports["inconclusive"]) == "Production on CPU: not decided yet"
    assert present.headline(reports["nothing passes"]) == "Production on CPU: no engine passes"


def test_classes_without_boxes_are_left_out() -> None:
    rows = present.class_rows(sample_report.full())
    assert rows
    assert all(row.boxes and row.change is not None for row in rows)
    assert [row.boxes for row in rows] == sorted((row.boxes for row in rows), reverse=True)


def test_best_throughput() -> None:
    chosen = present.featured(sample_report.full())
    assert chosen is not None
    assert present.best_throughput(chosen.candidate) == "2 streams, batch 1"
    failed = sample_report.unable("engine-x", "FAILED", "crashed")
    assert present.best_throughput(failed) == ""
