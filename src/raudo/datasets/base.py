"""What a data set is: images with their boxes; and the checks of labels that all formats share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from raudo.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


SLACK_PIXELS, SLACK_SHARE = 1.0, 0.01
"""How far a box may reach outside of its image: whichever is more, for the rounding of formats."""


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


@dataclass(frozen=True)
class Label:
    """One labelled box as it was read.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the image.
        label: Index of its class.
        crowd: Whether it is neither a hit nor a miss.
        where: The place it was read from, for instance `labels/val/7.txt, line 3`.
    """

    box: tuple[float, float, float, float]
    label: int
    crowd: bool
    where: str


def labelled_image(
    path: Path, size: tuple[int, int], labels: Sequence[Label], classes: int
) -> LabelledImage:
    """Check the labels of one image and put them together.

    Args:
        path: The image file.
        size: Its height and width in pixels.
        labels: What was read.
        classes: Number of classes.

    Raises:
        DataError: A box is not finite, has no area or lies outside of its image, or a class is
            unknown.
    """
    boxes = np.array([each.box for each in labels], np.float64).reshape(-1, 4)
    indices = np.array([each.label for each in labels], np.int64)
    for problem, wrong in _problems(boxes, indices, size, classes):
        if wrong.any():
            culprit = labels[int(np.argmax(wrong))]
            box = ", ".join(f"{value:g}" for value in culprit.box)
            raise DataError(
                f"{culprit.where}: {problem} (class {culprit.label}, box {box})",
                hint="correct that label, or remove it",
            )
    crowd = np.array([each.crowd for each in labels], np.bool_)
    return LabelledImage(path, boxes, indices, crowd)


def _problems(
    boxes: NDArray[np.float64], indices: NDArray[np.int64], size: tuple[int, int], classes: int
) -> list[tuple[str, NDArray[np.bool_] | np.bool_]]:
    height, width = size
    limit = np.array([width, height] * 2, np.float64)
    slack = np.maximum(SLACK_PIXELS, SLACK_SHARE * limit)
    outside = (boxes < -slack) | (boxes > limit + slack)
    return [
        ("a coordinate is not a number", ~np.isfinite(boxes).all(axis=1)),
        ("the box has no positive width and height", (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)),
        (f"the box reaches outside of the {width}x{height} image", outside.any(axis=1)),
        (
            f"the class is unknown, the data set has {classes}",
            (indices < 0) | (indices >= classes),
        ),
    ]


def refuse_duplicates(labels: Sequence[Label]) -> None:
    """Refuse labels of one image that say the same twice: no detector can find both.

    Raises:
        DataError: Two labels are the same.
    """
    seen: dict[tuple[int, tuple[float, ...]], str] = {}
    for each in labels:
        first = seen.setdefault((each.label, each.box), each.where)
        if first != each.where:
            raise DataError(
                f"{each.where}: the same label as {first}", hint="remove one of the two"
            )


def refuse_empty(name: str, images: Sequence[LabelledImage]) -> None:
    """Refuse a data set without a single box to find.

    Args:
        name: What to call the data set in the error.
        images: Its images.

    Raises:
        DataError: There is no image, or no box.
    """
    if not images:
        raise DataError(f"{name} has no image", hint="name another data set or split")
    if all(image.crowd.all() for image in images):
        raise DataError(
            f"none of the {len(images)} images of {name} has a label",
            hint="are the labels where the format wants them? Unlabelled images: use --images",
        )


Plugin = DatasetFormat
