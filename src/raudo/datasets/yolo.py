"""YOLO data sets: `data.yaml`, and one text file of labels for each image.

A label file has one line for each object: `class x_center y_center width height`, all but the
class as fractions of the image; or `class x1 y1 x2 y2 x3 y3 ...`, a polygon, of which the
enclosing box counts. An image without a label file has no objects.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from raudo.datasets.base import (
    Dataset,
    DatasetFormat,
    Label,
    LabelledImage,
    labelled_image,
    refuse_duplicates,
    refuse_empty,
)
from raudo.errors import LET_READ, DataError
from raudo.images import IMAGE_SUFFIXES, read_size

_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_SPLITS = ("train", "val", "test")
_BOX_FIELDS = 5


class Yolo(DatasetFormat):
    """Reads `data.yaml` or the folder that holds it."""

    name = "yolo"
    title = "YOLO (data.yaml)"

    def recognizes(self, path: Path) -> bool:
        """Accept a YAML file, or a folder with one of the usual name."""
        return _settings_file(path) is not None

    def splits(self, path: Path) -> tuple[str, ...]:
        """Return those of train, val and test that the file names."""
        _, settings = _settings(path)
        return tuple(split for split in _SPLITS if settings.get(split))

    def read(self, path: Path, splits: tuple[str, ...]) -> Dataset:
        """Read some splits; see `DatasetFormat.read`."""
        file, settings = _settings(path)
        classes = _class_names(file, settings)
        files = dict.fromkeys(image for split in splits for image in self.image_files(path, split))
        images = tuple(_read_image(image, len(classes)) for image in files)
        name = file.parent.resolve().name if file.name in _FILES else file.stem
        refuse_empty(f"{file} ({', '.join(splits)})", images)
        return Dataset(name, classes, images)

    def image_files(self, path: Path, split: str) -> tuple[Path, ...]:
        """Return the image files of one split; see `DatasetFormat.image_files`."""
        file, settings = _settings(path)
        entry = settings.get(split)
        if not entry:
            raise DataError(
                f"{file} has no split '{split}'",
                hint=f"it has: {', '.join(self.splits(path)) or 'none'}",
            )
        root = file.parent / str(settings.get("path") or ".")
        found: list[Path] = []
        for each in entry if isinstance(entry, list) else [entry]:
            found += _images_at(_resolve(root, file, str(each)), root)
        if not found:
            raise DataError(
                f"split '{split}' of {file} has no image",
                hint=f"looked for {', '.join(sorted(IMAGE_SUFFIXES))}",
            )
        return tuple(dict.fromkeys(found))


def _settings_file(path: Path) -> Path | None:
    if path.is_dir():
        return next((path / name for name in _FILES if (path / name).is_file()), None)
    return path if path.is_file() and path.suffix.lower() in {".yaml", ".yml"} else None


def _settings(path: Path) -> tuple[Path, dict[str, Any]]:
    file = _settings_file(path)
    if file is None:
        raise DataError(f"no data.yaml at {path}", hint="check the path")
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(
            f"cannot read {file}: {' '.join(str(error).split())}", hint="it must be a YAML file"
        ) from error
    if not isinstance(settings, dict):
        raise DataError(f"{file} describes no data set", hint="it needs `names:` and `val:`")
    return file, settings


def _class_names(file: Path, settings: dict[str, Any]) -> tuple[str, ...]:
    names = settings.get("names")
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(
            f"{file} has no list of class names",
            hint="write `names:` as a list, or as `0: name`, `1: name` and so on without gaps",
        )
    if settings.get("nc", len(names)) != len(names):
        raise DataError(
            f"{file} says nc: {settings['nc']} but names {len(names)} classes",
            hint="correct one of the two",
        )
    return tuple(str(name) for name in names)


def _resolve(root: Path, file: Path, entry: str) -> Path:
    """Return where an entry of a split lies; some tools write `../` where they mean `./`."""
    candidates = [root / entry, root / entry.removeprefix("../")]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise DataError(
        f"{file} names {entry}, which is not at {candidates[0]}",
        hint="correct `path:` or the split there; paths are relative to that file",
    )


def _images_at(place: Path, root: Path) -> list[Path]:
    if place.is_dir():
        return sorted(p for p in place.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if place.suffix.lower() in IMAGE_SUFFIXES:
        return [place]
    lines = _text(place).splitlines()
    return [
        _listed(line.strip(), f"{place}, line {number}", (place.parent, root))
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]


def _listed(entry: str, where: str, folders: tuple[Path, Path]) -> Path:
    for folder in folders:
        if (folder / entry).is_file():
            return folder / entry
    raise DataError(
        f"{where}: no such image: {entry}", hint="correct the list, or copy the image there"
    )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except PermissionError as error:
        raise DataError(f"cannot read {file}: {error.strerror}", hint=LET_READ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file} as text", hint="is the file damaged?") from error


def label_file(image: Path) -> Path:
    """Return where the labels of an image lie: in `labels` where it lies in `images`."""
    parts = list(image.parent.parts)
    for index in range(len(parts) - 1, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts, image.stem + ".txt")


def _read_image(image: Path, classes: int) -> LabelledImage:
    height, width = size = read_size(image)
    file = label_file(image)
    labels = _labels(file, height, width) if file.exists() else []
    refuse_duplicates(labels)
    return labelled_image(image, size, labels, classes)


def _labels(file: Path, height: int, width: int) -> list[Label]:
    labels = []
    for number, line in enumerate(_text(file).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        label, (x1, y1, x2, y2) = _fields(line, where)
        box = (x1 * width, y1 * height, x2 * width, y2 * height)
        labels.append(Label(box, label, crowd=False, where=where))
    return labels


def _fields(line: str, where: str) -> tuple[int, tuple[float, float, float, float]]:
    """Return class and box (x1, y1, x2, y2, fractions of the image) of one line."""
    try:
        first, *values = map(float, line.split())
        label = int(first)
    except (ValueError, OverflowError):
        raise _malformed(line, where) from None
    number = len(values) + 1
    if label != first or number < _BOX_FIELDS or number % 2 == 0:
        raise _malformed(line, where)
    if number == _BOX_FIELDS:
        x, y, width, height = values
        return label, (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    across, down = values[::2], values[1::2]
    return label, (min(across), min(down), max(across), max(down))


def _malformed(line: str, where: str) -> DataError:
    return DataError(
        f"{where}: not a label: '{line.strip()[:60]}'",
        hint="a line is `class x_center y_center width height`, fractions of the image",
    )
