"""Histograms as Prometheus reads them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raudo.serve.histograms import Histogram

client = pytest.importorskip("prometheus_client", reason="NO PROMETHEUS CLIENT")
CollectorRegistry, Theirs = client.CollectorRegistry, client.Histogram

BOUNDS = (0.1, 0.25, 1.0)


def samples(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    """Values by the end of the name and the bound, which may be written as 1 or as 1.0."""
    return {
        (sample.name.removeprefix("h"), str(float(sample.labels.get("le", "nan")))): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }


@given(st.lists(st.one_of(st.sampled_from(BOUNDS), st.floats(0, 2, width=32)), min_size=1))
def test_the_same_as_the_client_librarys(values: list[float]) -> None:
    ours, together, theirs = CollectorRegistry(), CollectorRegistry(), CollectorRegistry()
    one = Histogram(ours, "h", "text", BOUNDS, "kind").of("a")
    for value in values:
        one.observe(value)
    Histogram(together, "h", "text", BOUNDS, "kind").of("a").observe_all(np.array(values))
    reference = Theirs("h", "text", ["kind"], buckets=BOUNDS, registry=theirs).labels("a")
    for value in values:
        reference.observe(value)
    expected = samples(theirs)
    for found in (samples(ours), samples(together)):
        assert found.keys() == expected.keys()
        np.testing.assert_allclose([found[k] for k in expected], list(expected.values()))


def test_each_set_of_labels_is_a_series() -> None:
    registry = CollectorRegistry()
    histogram = Histogram(registry, "h", "text", BOUNDS, "kind")
    histogram.of("a").observe(0.2)
    histogram.of("b").observe(0.3)
    histogram.of("a").observe(5)
    assert registry.get_sample_value("h_count", {"kind": "a"}) == 2
    assert registry.get_sample_value("h_bucket", {"kind": "b", "le": "0.25"}) == 0
