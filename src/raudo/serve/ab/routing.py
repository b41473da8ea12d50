"""Routing by an experiment: deals or copies requests, and takes out a candidate that fails."""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Generic

from raudo.serve.ab.comparison import Comparison, Plan, W
from raudo.serve.ab.likeness import compare, total
from raudo.serve.ab.watches import ShadowWatch, SplitWatch
from raudo.serve.observer import NullObserver

if TYPE_CHECKING:
    from raudo.serve.observer import Finished
    from raudo.serve.records import Reply, Stages

logger = logging.getLogger(__name__)

FAILED = "engine_failed"
"""The one error that is a variant's own; a full queue, say, is everybody's."""


def drawn(request_id: str, salt: str, share: float) -> bool:
    """Tell whether a request is in a share of all; the same request always is, or never.

    Args:
        request_id: Any text.
        salt: Name of the experiment: the draws of two experiments have nothing in common.
        share: Part of all requests, 0 to 1.
    """
    digest = hashlib.blake2b(request_id.encode(), key=salt.encode()[:64], digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def engine_ms(stages: Stages) -> float:
    """Return the variant's own milliseconds, infer + select; a microsecond at least."""
    return max(1000 * (stages.infer + stages.select), 1e-3)


class ExperimentRouting(NullObserver, ABC, Generic[W]):
    """What both ways to compare have in common: `serve/routing.py` and observer in one.

    Args:
        comparison: What takes the observations and concludes.
        name: Of the experiment.
    """

    def __init__(self, comparison: Comparison[W], name: str) -> None:
        self.comparison = comparison
        self._plan, self._name = comparison.plan, name

    @abstractmethod
    def choose(self, request_id: str) -> str:
        """Return the variant that answers a request."""

    @abstractmethod
    def shadow(self, request_id: str) -> str | None:
        """Return the variant that gets a copy of a request, if any does."""

    @abstractmethod
    def compare(self, served: Reply, shadow: Reply) -> None:
        """Take the replies of both to one request."""

    @abstractmethod
    def _observe(self, candidate: float, stages: Stages | None) -> None:
        """Take how a request of one side went; None: the variant failed."""

    def request_finished(self, finished: Finished) -> None:
        """Count a request that reached an engine, and act where that breaks a guard."""
        side = self.comparison.sides.get(finished.variant or "")
        if side is None or self.comparison.rolled_back:
            return
        if finished.stages is None and finished.code != FAILED:
            return
        side.count(engine_ms(finished.stages) if finished.stages else None)
        self._observe(float(finished.variant == self._plan.candidate), finished.stages)
        if not finished.shadow and self.comparison.request_ended():
            logger.error(
                "rolled back from %s to %s: %s",
                self._plan.candidate,
                self._plan.baseline,
                self.comparison.reason,
            )


class SplitRouting(ExperimentRouting[SplitWatch]):
    """Deals each request to the candidate or to the baseline, by its id."""

    def __init__(self, plan: Plan, name: str) -> None:
        super().__init__(Comparison(plan, SplitWatch), name)

    def choose(self, request_id: str) -> str:
        """Return the variant that answers a request."""
        if self.comparison.rolled_back or drawn(request_id, self._name, self._plan.share):
            return self._plan.baseline
        return self._plan.candidate

    def shadow(self, request_id: str) -> None:
        """Return None: nothing is copied."""

    def compare(self, served: Reply, shadow: Reply) -> None:
        """Never called: nothing is copied."""

    def _observe(self, candidate: float, stages: Stages | None) -> None:
        watch = self.comparison.watch
        if stages is None:
            watch.add(candidate, 1.0, failed=1.0)
        else:
            watch.add(candidate, engine_ms(stages), failed=0.0, batch=stages.batch)


class ShadowRouting(ExperimentRouting[ShadowWatch]):
    """The candidate answers; the baseline gets copies of the same requests."""

    def __init__(self, plan: Plan, name: str) -> None:
        watch = partial(ShadowWatch, expected_percent=plan.expected_percent)
        super().__init__(Comparison(plan, watch), name)

    def choose(self, request_id: str) -> str:
        """Return the variant that answers a request."""
        del request_id
        return self._plan.baseline if self.comparison.rolled_back else self._plan.candidate

    def shadow(self, request_id: str) -> str | None:
        """Return the variant that gets a copy of a request, if any does."""
        if self.comparison.rolled_back or not drawn(request_id, self._name, self._plan.share):
            return None
        return self._plan.baseline

    def compare(self, served: Reply, shadow: Reply) -> None:
        """Take the replies of both to one request, all its images as one observation."""
        if (served.variant, shadow.variant) != (self._plan.candidate, self._plan.baseline):
            return
        watch, ours, theirs = self.comparison.watch, served.stages, shadow.stages
        if served.detections:
            pairs = zip(served.detections, shadow.detections, strict=True)
            watch.add(total([compare(*pair) for pair in pairs]))
        if ours.batch == theirs.batch:
            watch.add_latencies(engine_ms(ours) / engine_ms(theirs))

    def _observe(self, candidate: float, stages: Stages | None) -> None:
        self.comparison.watch.add_outcome(candidate, float(stages is None))
