from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from raudo.errors import DataError
from raudo.inputs import data

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from raudo.datasets.base import LabelledImage

Content = dict[str, list[dict[str, Any]]]


def content() -> Content:
    return {
        "images": [
            {"id": 7, "file_name": "b.png", "width": 80, "height": 40},
            {"id": 3, "file_name": "a.png"},
        ],
        "categories": [{"id": 90, "name": "zebra"}, {"id": 1, "name": "ant"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "bbox": [10, 5, 20, 10], "iscrowd": 1},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 80, 40.5]},
        ],
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A COCO file laid out as COCO's own: annotations/ beside val2017/."""
    for part in ("annotations", "val2017"):
        (tmp_path / part).mkdir()
    for name in ("a", "b"):
        assert cv2.imwrite(
            str(tmp_path / "val2017" / f"{name}.png"), np.zeros((40, 80, 3), np.uint8)
        )
    path = tmp_path / "annotations/instances_val2017.json"
    path.write_text(json.dumps(content()))
    return path


def test_images_are_ordered_by_id_and_classes_too(file: Path) -> None:
    dataset = data.open_dataset(file, ("val",))
    assert dataset.classes == ("ant", "zebra")
    assert dataset.name == file.parent.parent.name
    first, second = dataset.images
    assert (first.path.name, len(first.boxes)) == ("a.png", 0)
    np.testing.assert_allclose(second.boxes, [[10, 5, 30, 15], [0, 0, 80, 40.5]])
    assert second.labels.tolist() == [1, 0]
    assert second.crowd.tolist() == [True, False]


def change(file: Path, edit: Callable[[Content], object]) -> None:
    changed = content()
    edit(changed)
    file.write_text(json.dumps(changed))


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda c: c["annotations"][1].update(bbox=[float("nan"), 0, 1, 1]), "not a number"),
        (lambda c: c["annotations"][1].update(bbox=[0, 0, -5, 5]), "no positive width"),
        (lambda c: c["annotations"][1].update(bbox=[70, 0, 20, 5]), "outside of the 80x40"),
        (lambda c: c["annotations"][1].update(bbox=[-9, 0, 20, 5]), "outside of the 80x40"),
        (lambda c: c["annotations"][1].update(bbox=[0, 0, 5]), "bbox is not"),
        (lambda c: c["annotations"][1].update(bbox=["0", 0, 5, 5]), "bbox is not"),
        (lambda c: c["annotations"][1].pop("bbox"), "no usable 'bbox'"),
        (lambda c: c["annotations"][1].update(category_id=2), "category 2 is unknown"),
        (lambda c: c["annotations"][1].update(image_id=99), "no image of id 99"),
        (lambda c: c["annotations"][1].update(id=1), "id 1 is there twice"),
    ],
)
def test_annotations_that_cannot_be_right(
    file: Path, edit: Callable[[Content], object], says: str
) -> None:
    change(file, edit)
    error = problem(file)
    assert says in error.message
    assert f"{file}, annotations[1]" in error.message


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda c: c["images"].append({"id": 7, "file_name": "a.png"}), "id 7 is there twice"),
        (lambda c: c["images"].append({"id": 9, "file_name": "c.png"}), "no such image"),
        (lambda c: c["images"][0].update(file_name="c.png"), "is not beside it"),
        (lambda c: c["images"].append({"file_name": "a.png"}), "no usable 'id'"),
        (lambda c: c["images"].clear(), "has no image"),
        (lambda c: c["annotations"].clear(), "none of the 2 images"),
        (lambda c: c["annotations"].pop(), "none of the 2 images"),
        (lambda c: c.update(annotations={}), "no list of annotations"),
    ],
)
def test_files_that_cannot_be_right(
    file: Path, edit: Callable[[Content], object], says: str
) -> None:
    change(file, edit)
    assert says in problem(file).message


def problem(file: Path, splits: tuple[str, ...] = ("val",)) -> DataError:
    with pytest.raises(DataError) as caught:
        data.open_dataset(file, splits)
    assert "\n" not in caught.value.message
    return caught.value


def test_a_truncated_file(file: Path) -> None:
    file.write_text(file.read_text()[:-9])
    assert "is not JSON" in problem(file).message


def test_siblings_are_the_other_splits(file: Path) -> None:
    assert not data.has_split(file, "train")
    assert "no split 'train'" in problem(file, ("train",)).message
    sibling = file.with_name("instances_train2017.json")
    sibling.write_text(json.dumps(content()))
    (file.parent.parent / "val2017").rename(file.parent.parent / "train2017")
    assert data.has_split(file, "train")
    chosen = data.calibration_images(file, "train", 10, seed=0)
    assert [path.parent.name for path in chosen] == ["train2017", "train2017"]


def test_siblings_must_have_the_same_categories(file: Path) -> None:
    changed = content()
    changed["categories"].append({"id": 2, "name": "bee"})
    file.with_name("instances_test2017.json").write_text(json.dumps(changed))
    shutil.copytree(file.parent.parent / "val2017", file.parent.parent / "test2017")
    assert "other categories" in problem(file, ("val", "test")).message


def test_a_file_of_any_name_is_what_to_validate_on(file: Path) -> None:
    plain = file.parent.parent / "val2017" / "labels.json"
    plain.write_text(json.dumps(content()))
    assert len(data.open_dataset(plain, ("val",)).images) == 2
    assert not data.has_split(plain, "train")


def test_the_same_data_set_in_two_formats(assets: Path) -> None:
    folder = assets / "datasets" / "coco-mini"
    yolo = data.open_dataset(folder, ("val",))
    coco = data.open_dataset(folder / "annotations/val.json", ("val",))
    assert coco.classes == yolo.classes
    assert sum(len(image.labels) for image in coco.images) == 716
    for ours, theirs in zip(coco.images, yolo.images, strict=True):
        assert ours.path == theirs.path
        # YOLO labels know no crowds, and keep six digits of a fraction.
        one, two = _rows(ours, ~ours.crowd), _rows(theirs, ~theirs.crowd)
        assert one.shape == two.shape
        np.testing.assert_allclose(one, two, atol=0.11)


def _rows(image: LabelledImage, kept: np.ndarray) -> np.ndarray:
    """Class and box of each label, in an order that rounding does not change."""
    rows = np.column_stack([image.labels, image.boxes.round(1)])[kept]
    return rows[np.lexsort(rows.round().T[::-1])]
