"""report.json: the fields that machines rely on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from raudo.records import TARGETS, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REQUIRED = {
    "name",
    "backend",
    "precision",
    "status",
    "reason",
    "latency_ms",
    "throughput_fps",
    "speedup",
    "map50",
    "map50_95",
    "map50_loss_percent",
    "similarity_percent",
    "size_bytes",
    "peak_memory_bytes",
}


def test_reads_back_to_the_same_record(
    rendered: Callable[[str, str], str], reports: Mapping[str, Report]
) -> None:
    for kind, report in reports.items():
        assert Report.model_validate_json(rendered("json", kind)) == report


def test_has_what_machines_read(rendered: Callable[[str, str], str]) -> None:
    report = json.loads(rendered("json", "full"))
    assert all(set(candidate) >= REQUIRED for candidate in report["candidates"])
    by_name = {candidate["name"]: candidate for candidate in report["candidates"]}
    ran = by_name["openvino-fp32"]
    assert set(ran["latency_ms"]) >= {"p50", "p90", "p95", "p99"}
    assert set(ran["speedup"]) == {"median", "low", "high"}
    assert set(ran["map50_loss_percent"]) == {"value", "low", "high"}
    assert by_name["onnxruntime-int8"]["latency_ms"] is None
    assert set(report["decisions"]) == set(TARGETS)
    chosen = report["decisions"]["production_cpu"]
    assert (chosen["verdict"], chosen["choice"]) == ("PASS", "openvino-fp32")
