"""What a data set is: images with their boxes, read lazily where that saves time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelledImage:
    """One image and what is in it.

    Attributes:
        path: The image file.
        boxes: float64 [n, 4], xyxy in pixels of the image.
        labels: int64 [n], index into the data set's classes.
        crowd: bool [n]; a crowd box is neither a hit nor a miss (COCO's `iscrowd`).
    """

    path: Path
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]


@dataclass(frozen=True)
class Dataset:
    """Labelled images of one or more splits.

    Attributes:
        name: What to call it.
        classes: Names of the classes, by index.
        images: The images.
        by_name: Whether the format knows classes by name, so that their order means nothing.
    """

    name: str
    classes: tuple[str, ...]
    images: tuple[LabelledImage, ...]
    by_name: bool = False


class DatasetFormat(ABC):
    """One way of storing labelled images."""

    name: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def recognizes(self, path: Path) -> bool:
        """Tell from its contents whether a file or folder is a data set of this format."""

    @abstractmethod
    def splits(self, path: Path) -> tuple[str, ...]:
        """Return the names of the splits that the data set has."""

    @abstractmethod
    def read(self, path: Path, splits: tuple[str, ...]) -> Dataset:
        """Read some splits.

        Raises:
            DataError: A split is unknown or empty, or a label cannot be right (NaN, negative,
                outside of the image, an unknown class); file and line are named.
        """

    @abstractmethod
    def image_files(self, path: Path, split: str) -> tuple[Path, ...]:
        """Return the image files of one split without reading labels (for calibration)."""


Plugin = DatasetFormat
