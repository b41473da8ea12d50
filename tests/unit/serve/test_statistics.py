"""What versions did, in the words of the protocol's statistics extension."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from null_engines import null_engine
from raudo.serve.observer import Finished
from raudo.serve.records import ModelVersion, Stages
from raudo.serve.statistics import Statistics
from raudo.workspace import read_artifact

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def version(tmp_path: Path) -> ModelVersion:
    return ModelVersion("1", "primary", read_artifact(null_engine(tmp_path / "e.npz")))


def told(version: ModelVersion) -> dict[str, Any]:
    """A batch of two requests, of one image and of three, then one of a single image; one fails."""
    statistics = Statistics()
    for images in (4, 1):
        statistics.batch_formed(version, images)
    for images, batch, infer in ((1, 4, 0.008), (3, 4, 0.008), (1, 1, 0.003)):
        stages = Stages(decode=0.001, queue=0.002, infer=infer, select=0.0005, batch=batch)
        done = Finished("r", "infer", "ok", 0.02, stages, "primary", "1", images=images)
        statistics.request_finished(done)
    statistics.request_finished(Finished("r", "infer", "deadline", 5.0, None, "primary", "1"))
    statistics.request_finished(Finished("r", "infer", "queue_full", 0.0))
    return statistics.as_json("detector", "1")


def test_requests_and_their_stages_add_up(version: ModelVersion) -> None:
    counted = told(version)
    assert (counted["inference_count"], counted["execution_count"]) == (5, 2)
    stats = counted["inference_stats"]
    assert stats["success"] == {"count": 3, "ns": 60_000_000}
    assert stats["fail"] == {"count": 1, "ns": 5_000_000_000}
    assert stats["queue"] == {"count": 3, "ns": 6_000_000}
    assert stats["compute_infer"] == {"count": 3, "ns": 19_000_000}


def test_the_time_of_a_batch_counts_once_however_many_share_it(version: ModelVersion) -> None:
    one, four = told(version)["batch_stats"]
    assert (one["batch_size"], four["batch_size"]) == (1, 4)
    assert one["compute_infer"] == {"count": 1, "ns": 3_000_000}
    assert four["compute_infer"] == {"count": 1, "ns": 8_000_000}
    assert four["compute_output"] == {"count": 1, "ns": 1_000_000}
    assert four["compute_input"] == {"count": 1, "ns": 2_000_000}
