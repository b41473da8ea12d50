"""Labelled data sets, calibration images and plain images, whatever format they are stored in."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from raudo import discover
from raudo.errors import DataError
from raudo.images import IMAGE_SUFFIXES, list_images
from raudo.records import Calibration
from raudo.workspace import sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from raudo.datasets.base import Dataset, DatasetFormat
    from raudo.records import Spec


@dataclass(frozen=True)
class CalibrationSet:
    """The images to calibrate on, and their record for the manifest."""

    files: tuple[Path, ...]
    record: Calibration

    def some(self, most: int | None) -> CalibrationSet:
        """Return at most so many of the images, evenly spaced; None takes all."""
        if most is None or most >= len(self.files):
            return self
        places = [number * len(self.files) // most for number in range(most)]
        return calibration_set(tuple(self.files[place] for place in places), self.record.source)


def calibration_set(files: tuple[Path, ...], source: str) -> CalibrationSet:
    """Return images together with their record for the manifest."""
    hashes = digest(sorted(content_hashes(files)))
    return CalibrationSet(files, Calibration(source=source, images=len(files), sha256=hashes))


def digest(hashes: Iterable[str]) -> str:
    """Return one hex SHA-256 over several."""
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def open_dataset(path: Path, splits: tuple[str, ...]) -> Dataset:
    """Read some splits of a labelled data set; its format is found from its contents.

    Args:
        path: `data.yaml` or its folder, a COCO JSON file, a VOC folder, or what another plug-in
            of `datasets/` recognizes.
        splits: Names of the splits.

    Raises:
        DataError: It is no data set, or one that cannot be used.
    """
    return _format(path).read(path, splits)


def has_split(path: Path, split: str) -> bool:
    """Tell whether a data set has a split of that name; a folder of plain images has none.

    Raises:
        DataError: The path does not exist, or the data set's description cannot be read.
    """
    found = _recognize(path)
    return found is not None and split in found.splits(path)


def calibration_images(path: Path, split: str, limit: int, seed: int) -> tuple[Path, ...]:
    """Choose images to calibrate on.

    Args:
        path: A data set, or a folder of images.
        split: The data set's split; a plain folder has none.
        limit: Most images to return.
        seed: The same seed chooses the same images.

    Returns:
        Image files, sorted.

    Raises:
        DataError: There is no image.
    """
    found = _recognize(path)
    files = found.image_files(path, split) if found else image_source(path)
    if len(files) <= limit:
        return tuple(sorted(files))
    return tuple(sorted(random.Random(seed).sample(sorted(files), limit)))  # noqa: S311


def image_source(path: Path) -> tuple[Path, ...]:
    """Return the images of an unlabelled source: a folder of images, or one image.

    Raises:
        DataError: There is no image.
    """
    _require_there(path)
    if path.is_dir():
        return list_images(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return (path,)
    raise DataError(
        f"{path} is neither a folder of images nor an image",
        hint=f"images end in {', '.join(sorted(IMAGE_SUFFIXES))}",
    )


def content_hashes(files: Sequence[Path]) -> tuple[str, ...]:
    """Return the hex SHA-256 of each file.

    Raises:
        DataError: A file cannot be read.
    """
    try:
        return tuple(sha256(file) for file in files)
    except OSError as error:
        raise DataError(
            f"cannot read {error.filename}: {error.strerror}", hint="check the file"
        ) from error


def check_disjoint(calibration: Sequence[Path], validation: Sequence[Path]) -> None:
    """Refuse calibration on an image that validation scores, by content.

    Raises:
        DataError: The same image is in both.
    """
    scored = dict(zip(content_hashes(validation), validation, strict=True))
    shared = [
        (file, scored[digest])
        for file, digest in zip(calibration, content_hashes(calibration), strict=True)
        if digest in scored
    ]
    if shared:
        ours, theirs = shared[0]
        raise DataError(
            f"{len(shared)} of the calibration images are scored by validation too, "
            f"for instance {ours} (the same image as {theirs})",
            hint="calibrate on another split: an engine must not be tuned on what it is judged by",
        )


def align_classes(dataset: Dataset, spec: Spec) -> Dataset:
    """Number a data set's classes as the model does, where their names allow it.

    A data set whose names are the model's in another order is renumbered. One whose format knows
    classes by name (`Dataset.by_name`) is also renumbered if the model knows every class that is
    labelled. Any other data set is returned as it is.
    """
    if dataset.classes == spec.classes or len(set(spec.classes)) < len(spec.classes):
        return dataset
    if len(set(dataset.classes)) < len(dataset.classes):
        return dataset
    used = set(dataset.classes)
    if dataset.by_name:
        labels = np.concatenate([np.zeros(0, np.int64), *(i.labels for i in dataset.images)])
        used = {dataset.classes[label] for label in np.unique(labels)}
        fits = used <= set(spec.classes)
    else:
        fits = used == set(spec.classes)
    if not fits:
        return dataset
    index = {name: number for number, name in enumerate(spec.classes)}
    numbers = np.array([index.get(name, -1) for name in dataset.classes], np.int64)
    images = tuple(replace(image, labels=numbers[image.labels]) for image in dataset.images)
    return replace(dataset, classes=spec.classes, images=images)


def check_classes(dataset: Dataset, spec: Spec) -> str | None:
    """Check that a data set's classes are the model's.

    Returns:
        A warning if there are as many but their names differ, else None.

    Raises:
        DataError: Their numbers differ.
    """
    ours, theirs = dataset.classes, spec.classes
    if len(ours) != len(theirs):
        raise DataError(
            f"the data set {dataset.name} has {len(ours)} classes ({_some(ours)}), "
            f"the model has {len(theirs)} ({_some(theirs)})",
            hint="validate on a data set of the classes that the model was trained on",
        )
    for index, (name, other) in enumerate(zip(ours, theirs, strict=True)):
        if name.casefold().strip() != other.casefold().strip():
            return (
                f"class {index} is '{name}' in the data set {dataset.name} but '{other}' in the "
                "model: if they are not the same thing, mAP means nothing"
            )
    return None


def _some(names: tuple[str, ...], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _require_there(path: Path) -> None:
    if not path.exists():
        raise DataError(f"no such data set, folder or image: {path}", hint="check the path")


def _recognize(path: Path) -> DatasetFormat | None:
    _require_there(path)
    return next((each for each in discover.dataset_formats() if each.recognizes(path)), None)


def _format(path: Path) -> DatasetFormat:
    found = _recognize(path)
    if found is None:
        known = ", ".join(each.title for each in discover.dataset_formats())
        raise DataError(
            f"{path} is not a labelled data set that raudo knows", hint=f"known: {known}"
        )
    return found
