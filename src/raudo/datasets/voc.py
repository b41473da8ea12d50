"""Pascal VOC data sets: `Annotations/*.xml`, `JPEGImages/` and `ImageSets/Main/<split>.txt`.

M. Everingham et al., "The Pascal Visual Object Classes Challenge", IJCV 2010. Pixels count from 1
and a box includes its last one, so (1, 1, width, height) is the whole image. Objects marked as
difficult are neither hits nor misses. Class names are sorted, unless a `classes.txt` orders them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

from raudo.datasets.base import (
    Dataset,
    DatasetFormat,
    Label,
    LabelledImage,
    labelled_image,
    refuse_duplicates,
    refuse_empty,
)
from raudo.errors import DataError
from raudo.images import IMAGE_SUFFIXES, read_size

if TYPE_CHECKING:
    from pathlib import Path
    from xml.etree.ElementTree import Element


class Voc(DatasetFormat):
    """Reads a folder laid out as VOC's."""

    name = "voc"
    title = "Pascal VOC"

    def recognizes(self, path: Path) -> bool:
        """Accept a folder with Annotations, JPEGImages and ImageSets/Main."""
        return (
            all((path / part).is_dir() for part in ("Annotations", "JPEGImages"))
            and (path / "ImageSets" / "Main").is_dir()
        )

    def splits(self, path: Path) -> tuple[str, ...]:
        """Return the names of the lists; those of one class (`dog_val`) are left out."""
        lists = (path / "ImageSets" / "Main").glob("*.txt")
        return tuple(sorted(file.stem for file in lists if "_" not in file.stem))

    def read(self, path: Path, splits: tuple[str, ...]) -> Dataset:
        """Read some splits; see `DatasetFormat.read`."""
        classes = _class_names(path)
        files = dict.fromkeys(image for split in splits for image in self.image_files(path, split))
        images = tuple(_read_image(path, image, classes) for image in files)
        refuse_empty(f"{path} ({', '.join(splits)})", images)
        return Dataset(path.resolve().name, classes, images, by_name=True)

    def image_files(self, path: Path, split: str) -> tuple[Path, ...]:
        """Return the image files of one split; see `DatasetFormat.image_files`."""
        file = path / "ImageSets" / "Main" / f"{split}.txt"
        if not file.is_file():
            raise DataError(
                f"{path} has no split '{split}'",
                hint=f"it has: {', '.join(self.splits(path)) or 'none'}",
            )
        by_name = {
            image.stem: image
            for image in (path / "JPEGImages").iterdir()
            if image.suffix.lower() in IMAGE_SUFFIXES
        }
        found = []
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            name = line.split()[0]
            if name not in by_name:
                raise DataError(
                    f"{file}, line {number}: no image '{name}' in {path / 'JPEGImages'}",
                    hint="correct the list, or copy the image there",
                )
            found.append(by_name[name])
        if not found:
            raise DataError(f"{file} lists no image", hint="name another split")
        return tuple(dict.fromkeys(found))


def _class_names(path: Path) -> tuple[str, ...]:
    order = path / "classes.txt"
    if order.is_file():
        return tuple(line.strip() for line in order.read_text().splitlines() if line.strip())
    files = sorted((path / "Annotations").glob("*.xml"))
    return tuple(sorted({_name(e, f) for f in files for e in _root(f).iter("object")}))


def _root(file: Path) -> Element:
    try:
        content = file.read_bytes()
        if b"<!ENTITY" in content:
            raise DataError(f"{file} defines entities", hint="an annotation needs none; remove it")
        return ElementTree.fromstring(content)  # noqa: S314 (entities are refused above)
    except FileNotFoundError as error:
        raise DataError(
            f"no such annotation: {file}", hint="each image of a split needs one"
        ) from error
    except (OSError, ElementTree.ParseError) as error:
        raise DataError(f"cannot read {file}: {error}", hint="is the file complete?") from error


def _name(element: Element, file: Path) -> str:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise DataError(f"{file}: an object has no name", hint="correct that object")
    return name


def _read_image(path: Path, image: Path, classes: tuple[str, ...]) -> LabelledImage:
    file = path / "Annotations" / f"{image.stem}.xml"
    labels = [
        _label(element, classes, file, f"{file}, object {number}")
        for number, element in enumerate(_root(file).iter("object"), 1)
    ]
    refuse_duplicates(labels)
    return labelled_image(image, read_size(image), labels, len(classes))


def _label(element: Element, classes: tuple[str, ...], file: Path, where: str) -> Label:
    name = _name(element, file)
    if name not in classes:
        raise DataError(f"{where}: the class '{name}' is unknown", hint="add it to classes.txt")
    texts = [element.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x1, y1, x2, y2 = (float(text or "") for text in texts)
    except ValueError:
        raise DataError(
            f"{where}: no box of four numbers: {texts}", hint="correct that object"
        ) from None
    crowd = (element.findtext("difficult") or "0").strip() == "1"
    return Label((x1 - 1, y1 - 1, x2, y2), classes.index(name), crowd, where)
