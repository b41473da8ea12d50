"""Scores what one engine found: against the labels, and against the baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raudo import validate

if TYPE_CHECKING:
    from raudo.datasets.base import Dataset
    from raudo.measuring.evaluate import Evaluation
    from raudo.records import Accuracy, Similarity


class Scorer:
    """Holds what the baseline found, and scores other engines beside it.

    Args:
        dataset: The labelled images, or None without labels.
        baseline: What the baseline found in the same images.
        resamples: Bootstrap resamples of the loss intervals.
        seed: Of the bootstrap.

    Raises:
        DataError: The baseline detects nothing, so that a loss relative to it is undefined.
    """

    def __init__(
        self,
        dataset: Dataset | None,
        baseline: Evaluation,
        *,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        self._dataset = dataset
        self._baseline = baseline
        self._resamples = resamples
        self._seed = seed
        self._table = validate.match(dataset, baseline.detections) if dataset else None
        if self._table:
            validate.reference_map(self._table)

    def score(self, evaluation: Evaluation) -> tuple[Accuracy | None, Similarity]:
        """Return an engine's accuracy with its losses (None without labels) and similarity."""
        accuracy = None
        if self._dataset is not None and self._table is not None:
            own = evaluation is self._baseline
            table = self._table if own else validate.match(self._dataset, evaluation.detections)
            accuracy = validate.with_losses(self._table, table, self._resamples, self._seed)
        divergence = validate.diverging_stage(self._baseline.probes, evaluation.probes)
        similarity = validate.similarity(
            self._baseline.detections,
            evaluation.detections,
            divergence,
            resamples=self._resamples,
            seed=self._seed,
        )
        return accuracy, similarity
