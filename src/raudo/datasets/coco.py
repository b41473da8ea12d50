"""COCO data sets: one JSON file of images, annotations and categories for each split.

The format: https://cocodataset.org/#format-data. A file has one split. Its siblings, which have
the same name but for the word of the split (`instances_train2017.json` beside
`instances_val2017.json`), are the other splits.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from raudo.datasets.base import (
    Dataset,
    DatasetFormat,
    Label,
    LabelledImage,
    labelled_image,
    refuse_empty,
)
from raudo.errors import DataError
from raudo.images import read_size

if TYPE_CHECKING:
    from pathlib import Path

_WORDS = ("train", "val", "test", "calib")
_PARTS = ("images", "annotations", "categories")


class Coco(DatasetFormat):
    """Reads a COCO JSON file; images are looked for in the places usual for it."""

    name = "coco"
    title = "COCO (JSON)"

    def recognizes(self, path: Path) -> bool:
        """Accept a JSON file that has images, annotations and categories."""
        if not path.is_file() or path.suffix.lower() != ".json":
            return False
        content = path.read_bytes()
        return all(f'"{part}"'.encode() in content for part in _PARTS)

    def splits(self, path: Path) -> tuple[str, ...]:
        """Return the file's own split, and those of its siblings."""
        return tuple(_split_files(path))

    def read(self, path: Path, splits: tuple[str, ...]) -> Dataset:
        """Read some splits; see `DatasetFormat.read`."""
        classes: tuple[str, ...] = ()
        images: dict[Path, LabelledImage] = {}
        for split in splits:
            file = _split_file(path, split)
            names, found = _read_file(file)
            if classes and names != classes:
                raise DataError(
                    f"{file} has other categories than the other splits",
                    hint="validate on one of them at a time",
                )
            classes = names
            images.update((image.path, image) for image in found)
        refuse_empty(f"{path} ({', '.join(splits)})", tuple(images.values()))
        home = path.parent if path.parent.name != "annotations" else path.parent.parent
        return Dataset(home.resolve().name, classes, tuple(images.values()), by_name=True)

    def image_files(self, path: Path, split: str) -> tuple[Path, ...]:
        """Return the image files of one split; see `DatasetFormat.image_files`."""
        file = _split_file(path, split)
        return tuple(_locate(file, _content(file)["images"]).values())


def _split_files(path: Path) -> dict[str, Path]:
    """Return the file of each split; a file that names none is the one to validate on."""
    found = re.search("|".join(_WORDS), path.stem.lower())
    if not found:
        return {"val": path}
    start, end = found.span()
    files = {found[0]: path}
    for word in _WORDS:
        sibling = path.with_name(path.stem[:start] + word + path.stem[end:] + path.suffix)
        if sibling.is_file():
            files.setdefault(word, sibling)
    return files


def _split_file(path: Path, split: str) -> Path:
    files = _split_files(path)
    if split not in files:
        raise DataError(
            f"{path} has no split '{split}' beside it", hint=f"it has: {', '.join(files)}"
        )
    return files[split]


def _content(file: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is not JSON: {error}", hint="is the file complete?") from error
    for part in _PARTS:
        rows = content.get(part) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{file} has no list of {part}", hint="is it a COCO detection file?")
    if not content["images"]:
        raise DataError(f"{file} has no image", hint="name another data set or split")
    return {part: content[part] for part in _PARTS}


def _field(row: dict[str, Any], name: str, kind: type | tuple[type, ...], where: str) -> Any:
    value = row.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"{where}: no usable '{name}': {value!r}", hint="correct that entry")
    return value


def _locate(file: Path, rows: list[dict[str, Any]]) -> dict[int, Path]:
    """Return the path of each image by its id, ordered by id as COCO's own tools do."""
    names: dict[int, str] = {}
    for number, row in enumerate(rows):
        where = f"{file}, images[{number}]"
        key = _field(row, "id", int, where)
        if key in names:
            raise DataError(f"{where}: id {key} is there twice", hint="remove one of the two")
        names[key] = _field(row, "file_name", str, where)
    folder = _image_folder(file, next(iter(names.values())))
    located = {key: folder / names[key] for key in sorted(names)}
    for key, path in located.items():
        if not path.is_file():
            raise DataError(
                f"{file}, image id {key}: no such image: {path}",
                hint="copy the image there, or remove its entry",
            )
    return located


def _image_folder(file: Path, name: str) -> Path:
    home = file.parent.parent
    year = file.stem.removeprefix("instances_")
    found = re.search("|".join(_WORDS), year.lower())
    words = [year, found[0]] if found else [year]
    folders = [file.parent, file.parent / "images"]
    folders += [home / "images" / word for word in words] + [home / word for word in words]
    folders += [home / "images", home]
    for folder in folders:
        if (folder / name).is_file():
            return folder
    raise DataError(
        f"{file} names the image {name}, which is not beside it",
        hint=f"looked in {', '.join(str(folder) for folder in dict.fromkeys(folders))}",
    )


def _read_file(file: Path) -> tuple[tuple[str, ...], list[LabelledImage]]:
    content = _content(file)
    names: dict[int, str] = {}
    for number, row in enumerate(content["categories"]):
        where = f"{file}, categories[{number}]"
        names[_field(row, "id", int, where)] = _field(row, "name", str, where)
    classes = {key: index for index, key in enumerate(sorted(names))}
    located = _locate(file, content["images"])
    labels: dict[int, list[Label]] = defaultdict(list)
    seen: set[int] = set()
    for number, row in enumerate(content["annotations"]):
        where = f"{file}, annotations[{number}]"
        identity = row.get("id", -1 - number)
        if identity in seen:
            raise DataError(f"{where}: id {identity} is there twice", hint="remove one of the two")
        seen.add(identity)
        image = _field(row, "image_id", int, where)
        if image not in located:
            raise DataError(
                f"{where}: there is no image of id {image}", hint="add the image, or remove it"
            )
        labels[image].append(_label(row, classes, where))
    sizes = {row["id"]: _size(row, located[row["id"]]) for row in content["images"]}
    images = [
        labelled_image(path, sizes[key], labels[key], len(classes)) for key, path in located.items()
    ]
    return tuple(names[key] for key in classes), images


def _size(row: dict[str, Any], path: Path) -> tuple[int, int]:
    height, width = row.get("height"), row.get("width")
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        return height, width
    return read_size(path)


def _label(row: dict[str, Any], classes: dict[int, int], where: str) -> Label:
    category = _field(row, "category_id", int, where)
    if category not in classes:
        raise DataError(
            f"{where}: the category {category} is unknown", hint="add it to `categories`"
        )
    box = _field(row, "bbox", list, where)
    if len(box) != 4 or not all(isinstance(v, int | float) for v in box):
        raise DataError(
            f"{where}: bbox is not [x, y, width, height]: {box!r}", hint="correct that entry"
        )
    x, y, width, height = map(float, box)
    crowd = bool(row.get("iscrowd", 0))
    return Label((x, y, x + width, y + height), classes[category], crowd, where)
