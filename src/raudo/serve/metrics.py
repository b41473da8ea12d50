"""What Prometheus reads at `/metrics`: an observer of the core that counts.

Names follow https://prometheus.io/docs/practices/naming: base units, `_total` for counters. All
counting happens in the process of the core, which sees every request, so that nothing has to be
merged from workers. Labels have few values each: nothing that a client sends becomes one.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from raudo.serve.histograms import Histogram
from raudo.serve.observer import NullObserver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from raudo.records import Detections
    from raudo.serve.ab.records import Experiment
    from raudo.serve.observer import Finished
    from raudo.serve.records import ModelVersion

SECONDS = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05),
    *(0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0),
)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
FOUND = (0, 1, 2, 5, 10, 20, 50, 100, 300)
SCORES = tuple(number / 20 for number in range(21))
STAGES = ("decode", "queue", "infer", "select")
MOST_CLASSES = 100
"""A model of more classes is counted under one label: each label is a time series."""


class ServiceMetrics(NullObserver):
    """Counts what the core tells.

    Args:
        registry: Where the metrics are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter, Gauge

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        histogram = partial(Histogram, registry)
        self._requests = counter(
            "raudo_requests", "Requests by how they ended.", "method", "variant", "code"
        )
        self._durations = histogram(
            "raudo_request_duration_seconds",
            "From the first sight of a request to its end.",
            SECONDS,
            *("method", "variant"),
        )
        self._stages = histogram(
            "raudo_stage_duration_seconds",
            "Time that answered requests spent at each stage.",
            SECONDS,
            *("stage", "variant"),
        )
        self._batches = histogram(
            "raudo_batch_images", "Images that went to an engine at once.", IMAGES, "variant"
        )
        self._queues = QueueCollector()
        registry.register(self._queues)
        self._rejections = counter(
            "raudo_rejections", "Requests turned down, by reason.", "reason", "variant"
        )
        self._found = histogram(
            "raudo_detections_per_image", "Objects found in an image.", FOUND, "variant"
        )
        self._classes = counter(
            "raudo_detections", "Objects found, by class.", "variant", "class_name"
        )
        self._models = gauge(
            "raudo_model_info",
            "1 for each loaded version.",
            *("variant", "version", "engine", "precision", "run"),
        )
        self._refusals = counter("raudo_model_refusals", "Engines that were not loaded.", "engine")
        self._restarts = counter("raudo_worker_restarts", "Engine processes that died.", "variant")
        self._scores = histogram(
            "raudo_detection_score", "Scores of the objects found.", SCORES, "variant"
        )
        # Looking a label up takes the client library several times as long as counting.
        self._requests_of = cache(self._requests.labels)

    def request_finished(self, finished: Finished) -> None:
        """Count it; copies for comparison count as the method `shadow`."""
        method = "shadow" if finished.shadow else finished.method
        variant = finished.variant or "none"
        self._requests_of(method, variant, finished.code).inc()
        self._durations.of(method, variant).observe(finished.seconds)
        if finished.stages is not None:
            for stage in STAGES:
                self._stages.of(stage, variant).observe(getattr(finished.stages, stage))

    def batch_formed(self, version: ModelVersion, images: int) -> None:
        """Count it."""
        self._batches.of(version.variant).observe(images)

    def queue_changed(self, version: ModelVersion, depth: int, limit: int) -> None:
        """Note how long the queue is."""
        self._queues.now[version.variant] = (depth, limit)

    def rejected(self, reason: str, variant: str | None) -> None:
        """Count it."""
        self._rejections.labels(reason, variant or "none").inc()

    def detected(self, version: ModelVersion, detections: tuple[Detections, ...]) -> None:
        """Count objects by number, class and score."""
        variant, classes = version.variant, version.spec.classes
        per_image, scores = self._found.of(variant), self._scores.of(variant)
        for found in detections:
            per_image.observe(len(found))
            scores.observe_all(found.scores)
            if len(classes) > MOST_CLASSES:
                self._classes.labels(variant, "any").inc(len(found))
                continue
            for label, count in zip(*np.unique(found.labels, return_counts=True), strict=True):
                self._classes.labels(variant, classes[label]).inc(int(count))

    def model_loaded(self, version: ModelVersion) -> None:
        """Show it; a counter that starts at 0 lets Prometheus see its first increase."""
        self._models.labels(*_identity(version)).set(1)
        self._restarts.labels(version.variant)

    def model_unloaded(self, version: ModelVersion) -> None:
        """Show it no more."""
        self._models.remove(*_identity(version))

    def model_refused(self, name: str, reason: str) -> None:
        """Count it; the reason is in the log."""
        del reason
        self._refusals.labels(name).inc()

    def worker_restarted(self, version: ModelVersion, reason: str) -> None:
        """Count it; the reason is in the log."""
        del reason
        self._restarts.labels(version.variant).inc()


def _identity(version: ModelVersion) -> tuple[str, ...]:
    manifest = version.artifact.manifest
    return (version.variant, version.version, manifest.name, manifest.precision, version.run or "")


class QueueCollector:
    """The queues as they are when Prometheus asks: they change twice with each request.

    Attributes:
        now: Depth and limit of each variant's queue.
    """

    def __init__(self) -> None:
        self.now: dict[str, tuple[int, int]] = {}

    def collect(self) -> Iterable[Metric]:
        """Yield depth and limit."""
        from prometheus_client.metrics_core import GaugeMetricFamily

        depths = GaugeMetricFamily(
            "raudo_queue_depth", "Requests that wait for an engine.", labels=["variant"]
        )
        limits = GaugeMetricFamily(
            "raudo_queue_limit", "Requests that may wait.", labels=["variant"]
        )
        for variant, (depth, limit) in self.now.items():
            depths.add_metric([variant], depth)
            limits.add_metric([variant], limit)
        yield depths
        yield limits


class ExperimentCollector:
    """The figures of an A/B experiment, as they are when Prometheus asks.

    Args:
        state: Returns the experiment, or None while there is none.
    """

    def __init__(self, state: Callable[[], Experiment | None]) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        """Yield the figures; what is not known yet is left out."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        state = self._state()
        if state is None:
            return
        figures = GaugeMetricFamily(
            "raudo_ab_figure_ratio",
            "How much worse the candidate is: value, and ends of the confidence sequence.",
            labels=["figure", "bound"],
        )
        limits = GaugeMetricFamily(
            "raudo_ab_guard_limit_ratio", "Limits of the guards.", labels=["figure"]
        )
        for figure in state.figures:
            for bound, value in (
                ("value", figure.value),
                ("low", figure.low),
                ("high", figure.high),
            ):
                if value is not None:
                    figures.add_metric([figure.name, bound], value / 100)
            if figure.limit is not None:
                limits.add_metric([figure.name], figure.limit / 100)
        yield figures
        yield limits
        yield CounterMetricFamily(
            "raudo_ab_requests", "Requests of the experiment.", value=state.requests
        )
        yield GaugeMetricFamily(
            "raudo_ab_rolled_back",
            "1 once a guard broke and the baseline took over.",
            value=float(state.rolled_back is not None),
        )


def create_registry() -> CollectorRegistry:
    """Return a registry that has this process and, where there are some, the NVIDIA GPUs."""
    from prometheus_client import CollectorRegistry, Info, ProcessCollector

    import raudo
    from raudo.serve.gpus import GpuCollector

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    Info("raudo_build", "The version of raudo.", registry=registry).info(
        {"version": raudo.__version__}
    )
    registry.register(GpuCollector())
    return registry
