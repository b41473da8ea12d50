"""Gathers and checks all that a run works on, before any long work starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
from pydantic import Field

from raudo.build import ModelFile, ModelInfo
from raudo.checkpoints.source import first_bytes
from raudo.errors import UsageError
from raudo.images import VIDEO_SUFFIXES, decode, open_video
from raudo.inputs import data
from raudo.records import Calibration, Record, Spec
from raudo.worker import Worker
from raudo.workspace import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from raudo.config import OptimizeSettings
    from raudo.datasets.base import Dataset
    from raudo.inputs.data import CalibrationSet

VIDEO_FRAMES = 64


@dataclass(frozen=True)
class Inputs:
    """All that a run works on.

    Attributes:
        file: The model file.
        info: What the model is.
        dataset: Labelled images, or None.
        files: The images that all engines are compared on.
        calibration: Images for INT8, or None.
        warnings: What the user should know.
    """

    file: ModelFile
    info: ModelInfo
    dataset: Dataset | None
    files: tuple[Path, ...]
    calibration: CalibrationSet | None
    warnings: tuple[str, ...]

    def identity(self) -> Identity:
        """Return what the results of a run hold for."""
        return Identity(
            model=self.info.sha256,
            input=self.info.spec,
            images=data.digest(data.content_hashes(self.files)),
            calibration=self.calibration.record if self.calibration else None,
        )


class Identity(Record):
    """What the results of a run hold for: it is not resumed with anything else."""

    model: str = Field(description="SHA-256 of the file")
    input: Spec
    images: str = Field(description="SHA-256 over the images' content hashes, in order")
    calibration: Calibration | None

    def difference(self, other: Identity) -> str:
        """Name what differs."""
        fields = type(self).model_fields
        return " and ".join(f for f in fields if getattr(self, f) != getattr(other, f))


def gather(settings: OptimizeSettings, scratch: Path) -> Inputs:
    """Open the model and the images, and check that they fit together.

    Args:
        settings: What the user asked for.
        scratch: Folder for the frames of a video.

    Raises:
        RaudoError: Something is missing, damaged or does not fit.
    """
    first_bytes(settings.model)  # a wrong path is told first, and at once
    if settings.data is None and settings.images is None:
        raise UsageError(
            "nothing to validate on",
            hint="give a labelled data set with --data, or images or a video with --images",
        )
    file = ModelFile(settings.model, settings.size, settings.trust_checkpoint)
    info = inspect(file, settings.timeout)
    warnings: list[str] = []
    dataset = _dataset(settings, info.spec, warnings)
    calibration = _calibration(settings, warnings)
    files = tuple(i.path for i in dataset.images) if dataset else _images(settings, scratch)
    if calibration:
        data.check_disjoint(calibration.files, files)
    for each in (*files, *(calibration.files if calibration else ())):
        decode(each)  # a damaged image is told now, not after an engine was made
    return Inputs(file, info, dataset, files, calibration, tuple(warnings))


def inspect(file: ModelFile, timeout: float) -> ModelInfo:
    """Open a model file in a process of its own and tell what it is."""
    with Worker(f"opening {file.path.name}", timeout=timeout) as worker:
        info: ModelInfo = worker.call("inspect", file)
    return info


def _dataset(settings: OptimizeSettings, spec: Spec, warnings: list[str]) -> Dataset | None:
    if settings.data is None:
        warnings.append("accuracy not validated: no labelled data set was given")
        return None
    dataset = data.align_classes(data.open_dataset(settings.data, settings.splits), spec)
    if warning := data.check_classes(dataset, spec):
        warnings.append(warning)
    return dataset


def _images(settings: OptimizeSettings, scratch: Path) -> tuple[Path, ...]:
    source = settings.images
    if source is None:
        raise UsageError("no images", hint="give some with --images")
    if source.suffix.lower() in VIDEO_SUFFIXES:
        return extract_frames(source, scratch)
    return data.image_source(source)


def extract_frames(video: Path, folder: Path, most: int = VIDEO_FRAMES) -> tuple[Path, ...]:
    """Write evenly spaced frames of a video as PNG files, and return them in order.

    Raises:
        DataError: It is no video, or has no frame.
    """
    files: list[Path] = []
    with open_video(video) as source:
        step = max(1, (source.frames or 0) // most)
        for number, (_, frame) in enumerate(source):
            if number % step:
                continue
            file = folder / f"frame-{number:06d}.png"
            with replacing(file) as draft:
                draft.write_bytes(cv2.imencode(".png", frame)[1].tobytes())
            files.append(file)
            if len(files) == most:
                break
    return tuple(files)


def _calibration(settings: OptimizeSettings, warnings: list[str]) -> CalibrationSet | None:
    source, split = settings.calibration or settings.data, settings.calibration_split
    if source is None:
        return None
    if settings.calibration is None and not data.has_split(source, split):
        warnings.append(f"the data set has no split '{split}' to calibrate on")
        return None
    files = data.calibration_images(source, split, settings.calibration_images, settings.seed)
    return data.calibration_set(files, str(source.name))
