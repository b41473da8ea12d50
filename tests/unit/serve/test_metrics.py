"""What Prometheus reads: the names, the counts, and that nothing else becomes a label."""

from __future__ import annotations

import subprocess
import types
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from raudo.records import Artifact, Detections, Manifest, Spec
from raudo.serve import gpus
from raudo.serve.ab.comparison import Comparison, Plan
from raudo.serve.ab.watches import SplitWatch
from raudo.serve.metrics import ExperimentCollector, ServiceMetrics, create_registry
from raudo.serve.observer import Finished
from raudo.serve.records import ModelVersion, Stages

if TYPE_CHECKING:
    from pathlib import Path

client = pytest.importorskip("prometheus_client", reason="NO PROMETHEUS CLIENT")
parser = pytest.importorskip("prometheus_client.parser", reason="NO PROMETHEUS CLIENT")
CollectorRegistry, generate_latest = client.CollectorRegistry, client.generate_latest
text_string_to_metric_families = parser.text_string_to_metric_families


def version(classes: tuple[str, ...] = ("cat", "dog")) -> ModelVersion:
    manifest = Manifest(
        name="fast-fp32",
        backend="fast",
        precision="fp32",
        spec=Spec(family="f", height=64, width=64, classes=classes),
        source="m.pt",
        source_sha256="0",
        files_sha256={},
    )
    return ModelVersion("1", "primary", Artifact(None, manifest), run="today")  # type: ignore[arg-type]


def detections(*scores: float, label: int = 0) -> Detections:
    count = len(scores)
    return Detections(
        np.zeros((count, 4), np.float32),
        np.array(scores, np.float32),
        np.full(count, label, np.int64),
    )


@pytest.fixture
def registry() -> CollectorRegistry:
    """A registry in which everything happened that can happen."""
    registry = create_registry()
    metrics, served = ServiceMetrics(registry), version()
    metrics.model_loaded(served)
    metrics.model_refused("slow-int8", "it did not pass")
    metrics.worker_restarted(served, "killed")
    metrics.queue_changed(served, 3, 64)
    metrics.batch_formed(served, 4)
    metrics.detected(served, (detections(0.9, 0.5), detections(0.7, label=1)))
    stages = Stages(decode=0.002, queue=0.001, infer=0.02, select=0.0005, total=0.0235)
    metrics.request_finished(Finished("a", "detect", "ok", 0.0235, stages, "primary", "1"))
    metrics.request_finished(
        Finished("a", "detect", "ok", 0.03, stages, "baseline", "2", shadow=True)
    )
    metrics.request_finished(Finished("b", "detect", "not_ready", 0.0001))
    metrics.rejected("not_ready", None)
    comparison = Comparison(Plan("split", "primary", "baseline", 0.5), SplitWatch)
    for number in range(400):
        comparison.watch.add(float(number % 2), 10.0 + number % 7, 0.0)
        comparison.request_ended()
    registry.register(ExperimentCollector(comparison.state))
    return registry


def value(registry: CollectorRegistry, sample: str, **labels: str) -> float | None:
    return registry.get_sample_value(sample, labels)


def test_events_are_counted(registry: CollectorRegistry) -> None:
    def requests(**labels: str) -> float | None:
        return value(registry, "raudo_requests_total", **labels)

    assert requests(method="detect", variant="primary", code="ok") == 1
    assert requests(method="shadow", variant="baseline", code="ok") == 1
    assert requests(method="detect", variant="none", code="not_ready") == 1
    assert value(registry, "raudo_rejections_total", reason="not_ready", variant="none") == 1
    assert value(registry, "raudo_queue_depth", variant="primary") == 3
    assert value(registry, "raudo_queue_limit", variant="primary") == 64
    assert value(registry, "raudo_batch_images_sum", variant="primary") == 4
    assert value(registry, "raudo_worker_restarts_total", variant="primary") == 1
    assert value(registry, "raudo_model_refusals_total", engine="slow-int8") == 1


def test_stages_in_seconds(registry: CollectorRegistry) -> None:
    def stage(end: str, name: str, **more: str) -> float | None:
        full = f"raudo_stage_duration_seconds_{end}"
        return value(registry, full, stage=name, variant="primary", **more)

    assert stage("sum", "infer") == pytest.approx(0.02)
    assert stage("bucket", "infer", le="0.015") == 0
    assert stage("bucket", "infer", le="0.02") == 1


def test_detections_by_class_and_score(registry: CollectorRegistry) -> None:
    assert value(registry, "raudo_detections_total", variant="primary", class_name="cat") == 2
    assert value(registry, "raudo_detections_per_image_count", variant="primary") == 2
    assert value(registry, "raudo_detection_score_count", variant="primary") == 3
    assert value(registry, "raudo_detection_score_sum", variant="primary") == pytest.approx(2.1)
    buckets = {
        le: value(registry, "raudo_detection_score_bucket", variant="primary", le=le)
        for le in ("0.45", "0.5", "0.75", "+Inf")
    }
    assert buckets == {"0.45": 0, "0.5": 1, "0.75": 2, "+Inf": 3}


def test_versions_come_and_go() -> None:
    registry = CollectorRegistry()
    metrics, served = ServiceMetrics(registry), version()
    labels = {"variant": "primary", "version": "1", "engine": "fast-fp32", "precision": "fp32"}
    metrics.model_loaded(served)
    assert value(registry, "raudo_model_info", **labels, run="today") == 1
    metrics.model_unloaded(served)
    assert value(registry, "raudo_model_info", **labels, run="today") is None


def test_many_classes_are_one_series() -> None:
    registry = CollectorRegistry()
    served = version(tuple(f"class {number}" for number in range(365)))
    ServiceMetrics(registry).detected(served, (detections(0.9, 0.8, label=300),))
    assert value(registry, "raudo_detections_total", variant="primary", class_name="any") == 2


def test_the_experiment_as_ratios(registry: CollectorRegistry) -> None:
    low = value(registry, "raudo_ab_figure_ratio", figure="latency", bound="low")
    high = value(registry, "raudo_ab_figure_ratio", figure="latency", bound="high")
    assert low is not None
    assert high is not None
    assert -1 < low < 0 < high < 1
    assert value(registry, "raudo_ab_guard_limit_ratio", figure="latency") == pytest.approx(0.1)
    assert value(registry, "raudo_ab_requests_total") == 400
    assert value(registry, "raudo_ab_rolled_back") == 0


def test_without_an_experiment_nothing_is_told() -> None:
    assert list(ExperimentCollector(lambda: None).collect()) == []


def test_gpus_where_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    class NotSupportedError(Exception):
        pass

    def rates(handle: int) -> Any:
        if handle:
            raise NotSupportedError
        return types.SimpleNamespace(gpu=40)

    nvml = types.SimpleNamespace(
        NVMLError_NotSupported=NotSupportedError,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda _: "H100",
        nvmlDeviceGetMemoryInfo=lambda _: types.SimpleNamespace(used=10, total=80),
        nvmlDeviceGetUtilizationRates=rates,
    )
    monkeypatch.setattr(gpus, "open_nvml", lambda: nvml)
    registry = create_registry()
    first, second = ({"gpu": index, "name": "H100"} for index in "01")
    assert value(registry, "raudo_gpu_utilization_ratio", **first) == 0.4
    assert value(registry, "raudo_gpu_utilization_ratio", **second) is None
    assert value(registry, "raudo_gpu_memory_used_bytes", **second) == 10


def test_the_text_is_read_back(registry: CollectorRegistry) -> None:
    families = {
        f.name: f for f in text_string_to_metric_families(generate_latest(registry).decode())
    }
    assert families["raudo_stage_duration_seconds"].type == "histogram"
    assert families["raudo_detection_score"].type == "histogram"
    assert families["raudo_requests"].type == "counter"
    assert all(family.documentation for family in families.values())


def test_promtool_accepts_the_names(registry: CollectorRegistry, promtool: Path) -> None:
    checked = subprocess.run(
        [promtool, "check", "metrics"],
        input=generate_latest(registry),
        capture_output=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
