"""Routing by an experiment: deals or copies requests, and takes out a candidate that fails."""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Generic

from raudo.serve.ab.comparison import Comparison, Plan, W
from raudo.serve.ab.likeness import compare, total
from raudo.serve.ab.memory import Memory
from raudo.serve.ab.watches import ShadowWatch, SplitWatch
from raudo.serve.observer import NullObserver

if TYPE_CHECKING:
    from pathlib import Path

    from raudo.records import Manifest
    from raudo.serve.observer import Finished
    from raudo.serve.records import ModelVersion, Reply, Stages

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


def identity(engine: Manifest) -> str:
    """Return a SHA-256 of all that tells one engine from another.

    Its own file does not: where the precision is a hint to the runtime, several have the same.
    """
    told = engine.model_dump_json(include={"backend", "precision", "options", "files_sha256"})
    return hashlib.sha256(told.encode()).hexdigest()


class ExperimentRouting(NullObserver, ABC, Generic[W]):
    """What both ways to compare have in common: `serve/routing.py` and observer in one.

    A variant that gets another engine is another experiment: it starts afresh, and what is kept of
    the former one stays as it is.

    Args:
        plan: What is compared.
        name: Of the experiment.
        keep: Where the state is kept; what was rolled back stays so when the service starts again.
    """

    def __init__(self, plan: Plan, name: str, keep: Path | None = None) -> None:
        self._plan, self._name = plan, name
        self._memory = Memory(keep) if keep else None
        self.comparison = self._begin()

    @abstractmethod
    def _begin(self) -> Comparison[W]:
        """Return a comparison that has seen nothing."""

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
            self._tell("rolled back")
        if self._memory:
            self._memory.note(self.comparison)

    def model_loaded(self, version: ModelVersion) -> None:
        """Begin again if a side has got another engine; recall that one was rolled back before."""
        side = self.comparison.sides.get(version.variant)
        if side is None:
            return
        digest = identity(version.artifact.manifest)
        if side.engine_sha256 not in ("", digest):
            engines = {name: each.engine_sha256 for name, each in self.comparison.sides.items()}
            self.comparison, self._memory = self._begin(), None
            for name, engine in engines.items():
                self.comparison.sides[name].engine_sha256 = engine
        self.comparison.sides[version.variant].engine_sha256 = digest
        if self._memory and self._memory.recall(self.comparison):
            self._tell("still rolled back")

    def close(self) -> None:
        """Keep the state as it is now."""
        if self._memory:
            self._memory.write(self.comparison)

    def _tell(self, what: str) -> None:
        plan, reason = self._plan, self.comparison.reason
        logger.error("%s from %s to %s: %s", what, plan.candidate, plan.baseline, reason)


class SplitRouting(ExperimentRouting[SplitWatch]):
    """Deals each request to the candidate or to the baseline, by its id."""

    def _begin(self) -> Comparison[SplitWatch]:
        return Comparison(self._plan, SplitWatch)

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

    def _begin(self) -> Comparison[ShadowWatch]:
        watch = partial(ShadowWatch, expected_percent=self._plan.expected_percent)
        return Comparison(self._plan, watch)

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
        if self.comparison.rolled_back:
            return
        if (served.variant, shadow.variant) != (self._plan.candidate, self._plan.baseline):
            return
        watch, ours, theirs = self.comparison.watch, served.stages, shadow.stages
        pairs = zip(served.detections, shadow.detections, strict=True)
        watch.add(total([compare(*pair) for pair in pairs]))
        if ours.batch == theirs.batch:
            watch.add_latencies(engine_ms(ours) / engine_ms(theirs))

    def _observe(self, candidate: float, stages: Stages | None) -> None:
        self.comparison.watch.add_outcome(candidate, float(stages is None))
