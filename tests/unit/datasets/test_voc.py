from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from raudo.errors import DataError
from raudo.inputs import data

if TYPE_CHECKING:
    from pathlib import Path


def described(name: str, box: tuple[object, ...], difficult: int = 0) -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    inner = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<bndbox>{inner}</bndbox></object>"
    )


def annotate(folder: Path, name: str, *objects: str) -> None:
    text = f"<annotation>{''.join(objects)}</annotation>"
    (folder / "Annotations" / f"{name}.xml").write_text(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / part).mkdir(parents=True)
    for name in ("a", "b", "c"):
        path = tmp_path / "JPEGImages" / f"{name}.jpg"
        assert cv2.imwrite(str(path), np.zeros((40, 80, 3), np.uint8))
    annotate(tmp_path, "a", described("dog", (1, 1, 80, 40)), described("cat", (3, 4, 5, 6), 1))
    annotate(tmp_path, "b")
    annotate(tmp_path, "c", described("ant", (2, 2, 9, 9)))
    (tmp_path / "ImageSets/Main/val.txt").write_text("a\nb\n")
    (tmp_path / "ImageSets/Main/train.txt").write_text("c  1\n")
    (tmp_path / "ImageSets/Main/dog_val.txt").write_text("a 1\nb -1\n")
    return tmp_path


def problem(folder: Path, splits: tuple[str, ...] = ("val",)) -> str:
    with pytest.raises(DataError) as caught:
        data.open_dataset(folder, splits)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_pixels_count_from_one(folder: Path) -> None:
    dataset = data.open_dataset(folder, ("val",))
    assert dataset.classes == ("ant", "cat", "dog")
    first, second = dataset.images
    np.testing.assert_array_equal(first.boxes, [[0, 0, 80, 40], [2, 3, 5, 6]])
    assert first.labels.tolist() == [2, 1]
    assert first.crowd.tolist() == [False, True]
    assert len(second.boxes) == 0


def test_a_list_of_classes_orders_them(folder: Path) -> None:
    (folder / "classes.txt").write_text("dog\ncat\nant\n")
    assert data.open_dataset(folder, ("train",)).classes == ("dog", "cat", "ant")
    (folder / "classes.txt").write_text("dog\n")
    assert "class 'cat' is unknown" in problem(folder)


def test_splits_are_the_lists(folder: Path) -> None:
    assert data.has_split(folder, "train")
    assert not data.has_split(folder, "dog_val")
    assert "no split 'test'" in problem(folder, ("test",))
    assert len(data.open_dataset(folder, ("train", "val")).images) == 3


@pytest.mark.parametrize(
    ("described_box", "says"),
    [
        (described("dog", ("nan", 1, 5, 5)), "not a number"),
        (described("dog", (9, 1, 5, 5)), "no positive width"),
        (described("dog", (-9, 1, 5, 5)), "outside of the 80x40"),
        (described("dog", (1, 1, 99, 5)), "outside of the 80x40"),
        (described("dog", ("one", 1, 5, 5)), "no box of four numbers"),
        (described("", (1, 1, 5, 5)), "has no name"),
        (described("dog", (1, 1, 80, 40)), "the same label as"),
        ("<object><name>dog</name></object>", "no box of four numbers"),
    ],
)
def test_labels_that_cannot_be_right(folder: Path, described_box: str, says: str) -> None:
    annotate(folder, "a", described("dog", (1, 1, 80, 40)), described_box)
    message = problem(folder)
    assert says in message
    assert str(folder / "Annotations" / "a.xml") in message


def test_files_that_cannot_be_right(folder: Path) -> None:
    file = folder / "Annotations" / "a.xml"
    file.write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>')
    assert "defines entities" in problem(folder)
    file.write_text("<annotation><object>")
    assert "cannot read" in problem(folder)
    file.unlink()
    assert "no such annotation" in problem(folder)


def test_lists_that_cannot_be_right(folder: Path) -> None:
    (folder / "ImageSets/Main/val.txt").write_text("a\n\nz\n")
    assert "val.txt, line 3: no image 'z'" in problem(folder)
    (folder / "ImageSets/Main/val.txt").write_text("\n")
    assert "lists no image" in problem(folder)
    (folder / "ImageSets/Main/val.txt").write_text("b\n")
    assert "none of the 1 images" in problem(folder)
