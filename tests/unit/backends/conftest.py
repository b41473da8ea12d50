"""Fixtures that several backends share: the embedded sample, and what ONNX Runtime makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from raudo import images
from raudo.backends.base import Outputs
from raudo.build import ModelFile, ModelInfo, inspect_model, write_onnx
from raudo.inputs.data import CalibrationSet, calibration_set

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class RealModel:
    """The embedded sample.

    Attributes:
        file: The model file.
        info: What it is.
        onnx: Its contract ONNX file.
        frames: Prepared images, each uint8 [1, height, width, 3].
        expected: What ONNX Runtime makes of each.
        calibration: A few other images.
    """

    file: ModelFile
    info: ModelInfo
    onnx: Path
    frames: tuple[NDArray[np.uint8], ...]
    expected: tuple[Outputs, ...]
    calibration: CalibrationSet


@pytest.fixture(scope="session")
def real_model(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> RealModel:
    """The embedded sample, exported."""
    pytest.importorskip("torch", reason="NO TORCH: the sample cannot be exported")
    onnxruntime = pytest.importorskip("onnxruntime", reason="NO ONNX RUNTIME to compare with")
    file = ModelFile(samples / "model.pt")
    onnx = tmp_path_factory.mktemp("real") / "model.onnx"
    write_onnx(file, onnx)
    info = inspect_model(file)
    folder = samples / "coco-mini" / "images"
    chosen = sorted((folder / "val").glob("*.jpg"))[:3]
    frames = tuple(images.letterbox(images.decode(f), info.spec)[0][None] for f in chosen)
    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    expected = tuple(Outputs(*session.run(None, {"images": frame})) for frame in frames)
    calibration = calibration_set(tuple(sorted((folder / "calib").glob("*.jpg"))[:4]), "calib")
    return RealModel(file, info, onnx, frames, expected, calibration)
