from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from raudo.datasets.base import Dataset, LabelledImage
from raudo.errors import DataError
from raudo.inputs import data
from raudo.records import Spec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine different plain images."""
    for index in range(9):
        image = np.full((8, 8, 3), index * 20, np.uint8)
        assert cv2.imwrite(str(tmp_path / f"{index}.png"), image)
    return tmp_path


def spec(*classes: str) -> Spec:
    return Spec(family="any", height=64, width=64, classes=classes)


def dataset(*classes: str, labels: tuple[int, ...], by_name: bool = False) -> Dataset:
    number = len(labels)
    boxes, crowd = np.tile([0.0, 0, 5, 5], (number, 1)), np.zeros(number, np.bool_)
    image = LabelledImage(Path("a.jpg"), boxes, np.array(labels, np.int64), crowd)
    return Dataset("set", classes, (image,), by_name)


@pytest.mark.parametrize("name", ["nothing", "0.png", "."])
def test_what_is_no_data_set(folder: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        data.open_dataset(folder / name, ("val",))
    assert str(folder / name) in caught.value.message


def test_calibration_images_are_the_same_for_the_same_seed(folder: Path) -> None:
    chosen = data.calibration_images(folder, "train", 4, seed=1)
    assert chosen == data.calibration_images(folder, "train", 4, seed=1)
    assert len(set(chosen)) == 4
    others = {data.calibration_images(folder, "train", 4, seed=seed) for seed in range(5)}
    assert len(others) > 1
    assert data.calibration_images(folder, "train", 99, seed=1) == data.image_source(folder)


def test_calibration_images_of_a_split(samples: Path) -> None:
    chosen = data.calibration_images(samples / "coco-mini", "train", 300, seed=0)
    assert len(chosen) == 48
    scored = [image.path for image in data.open_dataset(samples / "coco-mini", ("val",)).images]
    data.check_disjoint(chosen, scored)


def test_sources_without_labels(folder: Path) -> None:
    assert [path.name for path in data.image_source(folder)] == [f"{i}.png" for i in range(9)]
    assert data.image_source(folder / "3.png") == (folder / "3.png",)
    assert not data.has_split(folder, "train")
    (folder / "text.txt").write_text("no image")
    for wrong in ("text.txt", "nothing"):
        with pytest.raises(DataError, match=wrong):
            data.image_source(folder / wrong)


def test_overlap_is_found_by_content(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = data.image_source(folder)
    data.check_disjoint(files[:4], files[4:])
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    copies = [Path(shutil.copy(file, elsewhere / f"copy-{file.name}")) for file in files[2:4]]
    with pytest.raises(DataError, match=r"2 of the calibration images") as caught:
        data.check_disjoint(files[:4], copies)
    assert str(files[2]) in caught.value.message
    assert str(copies[0]) in caught.value.message


def test_content_hashes_follow_the_content(folder: Path) -> None:
    files = data.image_source(folder)
    hashes = data.content_hashes(files)
    assert len(set(hashes)) == len(files)
    assert data.content_hashes(files[:1]) == hashes[:1]
    with pytest.raises(DataError, match="missing"):
        data.content_hashes([folder / "missing.png"])


def test_class_counts_must_agree() -> None:
    with pytest.raises(DataError) as caught:
        data.check_classes(dataset("ant", "bee", labels=()), spec("ant", "bee", "cat"))
    assert "has 2 classes" in caught.value.message
    assert "has 3" in caught.value.message


def test_other_names_are_a_warning() -> None:
    assert data.check_classes(dataset("ant", "Bee", labels=()), spec("ant", "bee")) is None
    warning = data.check_classes(dataset("ant", "cow", labels=()), spec("ant", "bee"))
    assert warning is not None
    assert "'cow'" in warning
    assert "'bee'" in warning


def test_classes_in_another_order_are_renumbered() -> None:
    aligned = data.align_classes(dataset("bee", "ant", labels=(0, 1, 1)), spec("ant", "bee"))
    assert aligned.classes == ("ant", "bee")
    assert aligned.images[0].labels.tolist() == [1, 0, 0]


def test_only_formats_by_name_may_lack_classes() -> None:
    model = spec("ant", "bee", "cat")
    by_name = data.align_classes(dataset("cat", "ant", labels=(0, 1), by_name=True), model)
    assert (by_name.classes, by_name.images[0].labels.tolist()) == (model.classes, [2, 0])
    by_index = dataset("cat", "ant", labels=(0, 1))
    assert data.align_classes(by_index, model) is by_index


def test_unlabelled_classes_may_be_unknown_to_the_model() -> None:
    model = spec("ant", "bee")
    extra = dataset("animals", "bee", labels=(1,), by_name=True)
    aligned = data.align_classes(extra, model)
    assert (aligned.classes, aligned.images[0].labels.tolist()) == (model.classes, [1])
    labelled = dataset("animals", "bee", labels=(0, 1), by_name=True)
    assert data.align_classes(labelled, model) is labelled


def test_names_that_say_nothing_are_left_alone() -> None:
    same = dataset("ant", "ant", labels=(0,))
    assert data.align_classes(same, spec("ant", "bee")) is same
    fits = dataset("ant", "bee", labels=(0,))
    assert data.align_classes(fits, spec("ant", "bee")) is fits
    assert data.align_classes(fits, spec("ant", "ant")) is fits
