from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from raudo.errors import DataError
from raudo.inputs import data

if TYPE_CHECKING:
    from pathlib import Path

    from raudo.datasets.base import Dataset

HEIGHT, WIDTH = 40, 80


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images of 80x40; the second has no label file."""
    for part in ("images/val", "labels/val"):
        (tmp_path / part).mkdir(parents=True)
    for name in ("a", "b"):
        picture(tmp_path / "images/val" / f"{name}.png")
    labels(tmp_path).write_text("1 0.5 0.5 0.25 0.5\n")
    describe(tmp_path)
    return tmp_path


def picture(path: Path) -> None:
    assert cv2.imwrite(str(path), np.zeros((HEIGHT, WIDTH, 3), np.uint8))


def labels(folder: Path) -> Path:
    return folder / "labels/val/a.txt"


def describe(folder: Path, text: str = "val: images/val\nnames: [ant, bee]\n") -> None:
    (folder / "data.yaml").write_text(text)


def problem(folder: Path, splits: tuple[str, ...] = ("val",)) -> DataError:
    with pytest.raises(DataError) as caught:
        data.open_dataset(folder, splits)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("entry", ["", "data.yaml"])
def test_boxes_are_pixels(folder: Path, entry: str) -> None:
    dataset = data.open_dataset(folder / entry, ("val",))
    assert dataset.classes == ("ant", "bee")
    assert dataset.name == folder.name
    first, second = dataset.images
    np.testing.assert_allclose(first.boxes, [[30, 10, 50, 30]])
    assert (first.labels.tolist(), first.crowd.tolist()) == ([1], [False])
    assert second.boxes.shape == (0, 4)
    assert second.path.name == "b.png"


def test_a_polygon_is_its_enclosing_box(folder: Path) -> None:
    labels(folder).write_text("0 0.1 0.2 0.3 0.2 0.2 0.5\n")
    (box,) = data.open_dataset(folder, ("val",)).images[0].boxes
    np.testing.assert_allclose(box, [8, 8, 24, 20])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0 nan 0.5 0.2 0.2", "not a number"),
        ("0 0.5 inf 0.2 0.2", "not a number"),
        ("0 0.5 0.5 -0.2 0.2", "no positive width"),
        ("0 0.5 0.5 0.2 0", "no positive width"),
        ("0 -0.5 0.5 0.2 0.2", "outside of the 80x40"),
        ("0 1.5 0.5 0.2 0.2", "outside of the 80x40"),
        ("0 0.5 0.95 0.2 0.3", "outside of the 80x40"),
        ("0 40 20 10 10", "outside of the 80x40"),
        ("2 0.5 0.5 0.2 0.2", "class is unknown"),
        ("-1 0.5 0.5 0.2 0.2", "class is unknown"),
        ("0.5 0.5 0.5 0.2 0.2", "not a label"),
        ("nan 0.5 0.5 0.2 0.2", "not a label"),
        ("0 0.5 0.5 0.2", "not a label"),
        ("0 0.5 0.5 0.2 0.2 0.9", "not a label"),
        ("0 a b c d", "not a label"),
        ("bee", "not a label"),
        ("1 0.5 0.5 0.25 0.5", "the same label as"),
    ],
)
def test_labels_that_cannot_be_right(folder: Path, line: str, says: str) -> None:
    labels(folder).write_text(f"1 0.5 0.5 0.25 0.5\n\n{line}\n")
    error = problem(folder)
    assert says in error.message
    assert f"{labels(folder)}, line 3" in error.message


def test_the_rounding_of_formats_is_let_pass(folder: Path) -> None:
    labels(folder).write_text("0 0.5 0.5 1.0001 1.0001\n")
    assert len(data.open_dataset(folder, ("val",)).images[0].boxes) == 1


def test_a_label_file_that_is_no_text(folder: Path) -> None:
    labels(folder).write_bytes(b"\xff\xfe\x00\x80")
    assert "as text" in problem(folder).message


def test_no_label_at_all(folder: Path) -> None:
    labels(folder).unlink()
    assert "none of the 2 images" in problem(folder).message


def test_no_image(folder: Path) -> None:
    for image in (folder / "images/val").iterdir():
        image.unlink()
    assert "has no image" in problem(folder).message


def test_an_image_that_is_none(folder: Path) -> None:
    (folder / "images/val/a.png").write_bytes(b"")
    assert "a.png" in problem(folder).message


def test_an_unknown_split(folder: Path) -> None:
    error = problem(folder, ("test",))
    assert "no split 'test'" in error.message
    assert "val" in error.hint


def test_a_missing_folder(folder: Path) -> None:
    describe(folder, "val: pictures\nnames: [ant, bee]\n")
    assert "pictures" in problem(folder).message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("val: images/val\n", "no list of class names"),
        ("val: images/val\nnames: []\n", "no list of class names"),
        ("val: images/val\nnames: {0: ant, 2: bee}\n", "no list of class names"),
        ("val: images/val\nnames: [ant, bee]\nnc: 3\n", "nc: 3"),
        ("- a\n- b\n", "describes no data set"),
        ("val: [images\nnames: {", "cannot read"),
    ],
)
def test_a_description_that_cannot_be_right(folder: Path, text: str, says: str) -> None:
    describe(folder, text)
    assert says in problem(folder).message


def test_names_as_a_dictionary(folder: Path) -> None:
    describe(folder, "val: images/val\nnames:\n  1: bee\n  0: ant\n")
    assert data.open_dataset(folder, ("val",)).classes == ("ant", "bee")


def test_splits_as_lists_of_folders_and_of_files(folder: Path) -> None:
    (folder / "images/more").mkdir()
    picture(folder / "images/more/c.png")
    (folder / "list.txt").write_text("./images/val/b.png\nimages/more/c.png\n\n")
    describe(
        folder, "train: list.txt\nval: [images/val, images/more]\ntest: list.txt\nnames: [ant, bee]"
    )
    assert _names(data.open_dataset(folder, ("val",))) == ["a.png", "b.png", "c.png"]
    # Images that two splits share count once.
    assert _names(data.open_dataset(folder, ("test", "val"))) == ["b.png", "c.png", "a.png"]
    (folder / "list.txt").write_text("./images/val/b.png\nimages/more/d.png\n")
    assert "list.txt, line 2: no such image" in problem(folder, ("test",)).message


def _names(dataset: Dataset) -> list[str]:
    return [image.path.name for image in dataset.images]


def test_path_is_relative_to_the_description(folder: Path) -> None:
    (folder / "sets").mkdir()
    other = folder / "sets" / "cells.yaml"
    other.write_text("path: ..\nval: images/val\nnames: [ant, bee]\n")
    dataset = data.open_dataset(other, ("val",))
    assert (dataset.name, len(dataset.images)) == ("cells", 2)


def test_one_folder_up_may_mean_this_folder(folder: Path) -> None:
    describe(folder, "val: ../images/val\nnames: [ant, bee]\n")
    assert len(data.open_dataset(folder, ("val",)).images) == 2
