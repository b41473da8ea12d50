"""What every data set format must do; formats are found by scanning their folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from raudo import discover
from raudo.datasets.base import DatasetFormat
from raudo.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

EVERY = pytest.mark.parametrize("name", discover.names("datasets"))
SAMPLES = ("coco-mini", "coco-mini/data.yaml", "coco-mini/annotations/val.json")


def load(name: str) -> DatasetFormat:
    found = discover.load("datasets", name)
    assert isinstance(found, DatasetFormat)
    return found


@EVERY
def test_is_named_after_its_file(name: str) -> None:
    assert load(name).name == name
    assert load(name).title


@EVERY
def test_recognizes_nothing_in_what_is_no_data_set(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for file, content in {"a.txt": b"text", "b.json": b"{}", "c.jpg": b"", "d.pt": b"\x80"}.items():
        (tmp_path / file).write_bytes(content)
    for path in (tmp_path / "missing", tmp_path, *tmp_path.iterdir()):
        assert not load(name).recognizes(path)


@pytest.mark.parametrize("entry", SAMPLES)
def test_one_format_recognizes_each_sample(samples: Path, entry: str) -> None:
    recognized = [each for each in discover.dataset_formats() if each.recognizes(samples / entry)]
    assert len(recognized) == 1


@pytest.mark.parametrize("entry", SAMPLES)
def test_samples_are_read_as_promised(samples: Path, entry: str) -> None:
    path = samples / entry
    (found,) = (each for each in discover.dataset_formats() if each.recognizes(path))
    assert "val" in found.splits(path)
    dataset = found.read(path, ("val",))
    assert [image.path for image in dataset.images] == list(found.image_files(path, "val"))
    assert len(dataset.images) == 91
    assert len(dataset.classes) == 80
    for image in dataset.images:
        number = len(image.labels)
        assert image.path.is_file()
        assert (image.boxes.shape, image.boxes.dtype) == ((number, 4), np.float64)
        assert (image.labels.shape, image.labels.dtype) == ((number,), np.int64)
        assert (image.crowd.shape, image.crowd.dtype) == ((number,), np.bool_)
        assert (image.boxes[:, 2:] > image.boxes[:, :2]).all()
        assert ((image.labels >= 0) & (image.labels < 80)).all()


@pytest.mark.parametrize("entry", SAMPLES)
def test_an_unknown_split_is_an_error_that_names_the_others(samples: Path, entry: str) -> None:
    path = samples / entry
    (found,) = (each for each in discover.dataset_formats() if each.recognizes(path))
    for ask in (lambda: found.read(path, ("nowhere",)), lambda: found.image_files(path, "nowhere")):
        with pytest.raises(DataError, match="nowhere") as caught:
            ask()
        assert "val" in caught.value.hint
