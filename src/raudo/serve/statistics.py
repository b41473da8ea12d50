"""Counts what was served since the start, as the protocol's statistics extension has it."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raudo.serve.observer import NullObserver

if TYPE_CHECKING:
    from raudo.serve.observer import Finished
    from raudo.serve.records import ModelVersion

NANOSECONDS = 1e9


@dataclass
class Sum:
    """So many times, so long in all."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.count += 1
        self.seconds += seconds

    def as_json(self) -> dict[str, int]:
        """Return it in the protocol's words."""
        return {"count": self.count, "ns": round(self.seconds * NANOSECONDS)}


WAIT, *COMPUTE = STAGES = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass
class Counts:
    """What one version did; `batches` has the sums of each stage that computes, by batch size."""

    images: int = 0
    last: float = 0.0
    success: Sum = field(default_factory=Sum)
    fail: Sum = field(default_factory=Sum)
    stages: dict[str, Sum] = field(default_factory=lambda: {name: Sum() for name in STAGES})
    batches: dict[int, dict[str, Sum]] = field(
        default_factory=lambda: defaultdict(lambda: {name: Sum() for name in COMPUTE})
    )


class Statistics(NullObserver):
    """Counts, for each version."""

    def __init__(self) -> None:
        self._versions: dict[str, Counts] = defaultdict(Counts)

    def batch_formed(self, version: ModelVersion, images: int) -> None:
        """Count a batch."""
        counts = self._versions[version.version]
        counts.images += images
        for spent in counts.batches[images].values():
            spent.count += 1

    def request_finished(self, finished: Finished) -> None:
        """Count a request."""
        if finished.version is None:
            return
        counts = self._versions[finished.version]
        counts.last = time.time()
        if finished.stages is None:
            counts.fail.add(finished.seconds)
            return
        counts.success.add(finished.seconds)
        stages = finished.stages
        spent = (stages.queue, stages.decode, stages.infer, stages.select)
        for name, seconds in zip(STAGES, spent, strict=True):
            counts.stages[name].add(seconds)
        share = finished.images / stages.batch  # each request of a batch tells all of its time
        own = (stages.decode, stages.infer * share, stages.select)
        for part, seconds in zip(counts.batches[stages.batch].values(), own, strict=True):
            part.seconds += seconds

    def as_json(self, model: str, version: str) -> dict[str, Any]:
        """Return one version's statistics in the protocol's words; times in nanoseconds."""
        counts = self._versions[version]
        return {
            "name": model,
            "version": version,
            "last_inference": round(counts.last * 1000),
            "inference_count": counts.images,
            "execution_count": sum(each[COMPUTE[0]].count for each in counts.batches.values()),
            "inference_stats": {
                "success": counts.success.as_json(),
                "fail": counts.fail.as_json(),
                **{name: spent.as_json() for name, spent in counts.stages.items()},
            },
            "batch_stats": [
                {"batch_size": size} | {name: spent.as_json() for name, spent in each.items()}
                for size, each in sorted(counts.batches.items())
            ],
        }
