"""What a run works on is checked before any long work."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from raudo import images
from raudo.build import ModelInfo
from raudo.config import OptimizeSettings
from raudo.errors import DataError, UsageError
from raudo.inputs import data, gathering
from raudo.inputs.gathering import Inputs, extract_frames, gather
from raudo.records import Spec

SAMPLES = Path(__file__).parents[3] / "samples"
DATA = SAMPLES / "coco-mini" / "data.yaml"
VIDEO = SAMPLES / "highway_960x540.mp4"


@pytest.fixture
def info(monkeypatch: pytest.MonkeyPatch) -> ModelInfo:
    """Let every model file be a detector of the sample's 80 classes."""
    from raudo.inputs.data import open_dataset

    classes = open_dataset(DATA, ("val",)).classes
    found = ModelInfo(Spec(family="any", height=416, width=416, classes=classes), True, "0" * 64)
    monkeypatch.setattr(gathering, "inspect", lambda _file, _timeout: found)
    monkeypatch.setattr(gathering, "first_bytes", lambda _path: b"PK")
    return found


def settings(**given: Any) -> OptimizeSettings:
    return OptimizeSettings(model=Path("model.pt"), **given)


@pytest.mark.usefixtures("info")
def test_labels_give_images_and_the_calibration_split(tmp_path: Path) -> None:
    found = gather(settings(data=DATA), tmp_path)
    assert found.dataset is not None
    assert len(found.files) == len(found.dataset.images) == 91
    assert found.calibration is not None
    assert found.calibration.record.images == len(found.calibration.files) == 48
    assert found.warnings == ()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("info")
def test_nothing_to_validate_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to validate on"):
        gather(settings(), tmp_path)


@pytest.mark.usefixtures("info")
def test_a_missing_calibration_split_is_warned_of_and_calibrates_on_nothing(tmp_path: Path) -> None:
    found = gather(settings(data=DATA, calibration_split="calb"), tmp_path)
    assert found.calibration is None
    assert "no split 'calb'" in found.warnings[0]


@pytest.mark.usefixtures("info")
def test_calibration_on_a_scored_image_is_refused_whatever_its_name(tmp_path: Path) -> None:
    scored = sorted((DATA.parent / "images/val").glob("*.jpg"))[5]
    shutil.copy(scored, tmp_path / "renamed.jpg")
    with pytest.raises(DataError, match=r"1 of the calibration images .*renamed\.jpg"):
        gather(settings(data=DATA, calibration=tmp_path), tmp_path / "frames")
    assert not (tmp_path / "frames").exists()


@pytest.mark.usefixtures("info")
def test_unlabelled_images_warn_that_accuracy_is_not_validated(tmp_path: Path) -> None:
    found = gather(settings(images=DATA.parent / "images/calib"), tmp_path)
    assert found.dataset is None
    assert found.calibration is None
    assert len(found.files) == 48
    assert any("accuracy not validated" in warning for warning in found.warnings)


def test_another_number_of_classes_is_refused(
    info: ModelInfo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    few = replace(info, spec=info.spec.model_copy(update={"classes": ("cat", "dog")}))
    monkeypatch.setattr(gathering, "inspect", lambda _file, _timeout: few)
    with pytest.raises(DataError, match=r"80 classes .* the model has 2 \(cat, dog\)"):
        gather(settings(data=DATA), tmp_path)


@pytest.mark.slow
def test_frames_of_a_video_are_spread_over_it_and_exact(tmp_path: Path) -> None:
    files = extract_frames(VIDEO, tmp_path / "frames", most=5)
    assert len(files) == 5
    numbers = [int(file.stem.split("-")[1]) for file in files]
    assert numbers == [0, 44, 88, 132, 176]
    frames = list(images.read_video(VIDEO))
    for number, file in zip(numbers, files, strict=True):
        assert np.array_equal(images.decode(file), frames[number])
    assert set((tmp_path / "frames").iterdir()) == set(files)


def test_frames_do_not_pass_through_functions_that_others_replace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some training packages replace `cv2.imwrite` and `cv2.VideoCapture` is easily misled."""

    def never(*_: Any) -> None:
        raise AssertionError("cv2.imwrite was called")

    monkeypatch.setattr(cv2, "imwrite", never)
    assert len(extract_frames(VIDEO, tmp_path, most=2)) == 2


def test_a_short_video_gives_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "short.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for grey in (10, 100, 200):
        writer.write(np.full((48, 64, 3), grey, np.uint8))
    writer.release()
    assert len(extract_frames(path, tmp_path / "frames")) == 3


@pytest.mark.parametrize("content", [b"", b"no video at all", VIDEO.read_bytes()[:3000]])
def test_no_video_leaves_no_frame(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(DataError):
        extract_frames(path, tmp_path / "frames")
    assert not (tmp_path / "frames").exists()


def gathered(info: ModelInfo, files: list[Path]) -> Inputs:
    calibration = data.calibration_set(tuple(files[:1]), "calib")
    return Inputs(None, info, None, tuple(files[1:]), calibration, ())  # type: ignore[arg-type]


def test_identity_is_the_content_s_not_the_names(info: ModelInfo, tmp_path: Path) -> None:
    files = sorted((DATA.parent / "images/calib").glob("*.jpg"))[:4]
    copies = [shutil.copy(file, tmp_path / f"{i}.jpg") for i, file in enumerate(files)]
    known = gathered(info, files).identity()
    assert gathered(info, [Path(c) for c in copies]).identity() == known
    others = {
        "model": gathered(replace(info, sha256="1" * 64), files),
        "input": gathered(replace(info, spec=info.spec.model_copy(update={"height": 320})), files),
        "images": gathered(info, [files[0], *reversed(files[1:])]),
        "calibration": gathered(info, [files[1], *files[1:]]),
    }
    for name, other in others.items():
        assert known.difference(other.identity()) == name
    both = replace(others["model"], files=tuple(files[2:])).identity()
    assert known.difference(both) == "model and images"


def test_the_calibration_record_does_not_depend_on_the_order() -> None:
    files = sorted((DATA.parent / "images/calib").glob("*.jpg"))[:4]
    there, back = (data.calibration_set(tuple(f), "x").record for f in (files, files[::-1]))
    assert there == back
    assert there != data.calibration_set(tuple(files[:3]), "x").record
