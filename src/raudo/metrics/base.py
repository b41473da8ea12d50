"""What a metric is: update / compute / reset over frozen samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from raudo.datasets.base import LabelledImage
    from raudo.records import Detections


@dataclass(frozen=True)
class Sample:
    """What one engine found in one image, and what should be compared to it.

    Attributes:
        detections: What the engine found.
        truth: The labels, for metrics of accuracy.
        reference: What the baseline found in the same image, for metrics of similarity.
    """

    detections: Detections
    truth: LabelledImage | None = None
    reference: Detections | None = None


class Metric(ABC):
    """One metric; holds the samples of one engine."""

    name: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def update(self, sample: Sample) -> None:
        """Add one image."""

    @abstractmethod
    def compute(self) -> Any:
        """Return the metric's record over all images so far."""

    @abstractmethod
    def reset(self) -> None:
        """Forget all images."""


Plugin = Metric
