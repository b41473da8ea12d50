from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from raudo import images
from raudo.backends.base import Outputs
from raudo.checkpoints.source import open_model
from raudo.detector import Selection, select
from raudo.errors import MissingDependencyError, SourceError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow
BCCD = ("yolo11n_bccd.pt", "yolo26n_bccd.pt")
ARCHITECTURES = ("yolov5nu", "yolov8n", "yolov8n-p2", "yolov9t", "yolov10n", "yolo12n", "yolo26n")


@pytest.fixture(scope="module")
def package(ultralytics: Any) -> Any:
    return ultralytics


def untrained(package: Any, name: str, folder: Path, *, nms_free: bool = False) -> Path:
    """Save a checkpoint of random weights, with lively statistics in its BatchNorms."""
    torch.manual_seed(7)
    model = (package.RTDETR if name.startswith("rtdetr") else package.YOLO)(f"{name}.yaml")
    for module in model.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    if nms_free:
        model.model.end2end = True
        model.model.model[-1].fuse()
    path = folder / f"{name}.pt"
    model.save(path)
    return path


def run(module: Any, batch: np.ndarray) -> Outputs:
    with torch.no_grad():
        return Outputs(*(y.numpy() for y in module(torch.from_numpy(batch))))


def check_equal(found: Any, expected: Any) -> int:
    """Compare detections with the package's own, and return how many there are."""
    assert len(found) == len(expected)
    scores, boxes = expected.conf.numpy(), expected.xyxy.numpy()
    assert np.abs(found.scores - scores).max(initial=0) <= 1e-3
    assert np.array_equal(found.labels, expected.cls.numpy())
    low = np.maximum(found.boxes[:, :2], boxes[:, :2])
    high = np.minimum(found.boxes[:, 2:], boxes[:, 2:])
    shared = np.maximum(high - low, 0).prod(1)
    areas = [(b[:, 2:] - b[:, :2]).prod(1) for b in (found.boxes, boxes)]
    assert (shared / (areas[0] + areas[1] - shared)).min(initial=1) >= 0.99
    return len(found)


def compare_on_images(package: Any, path: Path, model: Any, files: list[Path]) -> int:
    own, pairs = package.YOLO(path), 0
    for file in files:
        frame = images.decode(file)
        batch, fit = images.letterbox(frame, model.spec)
        chosen = select(run(model.module(), batch[None]), 0, model.spec, Selection())
        found = type(chosen)(fit.to_image(chosen.boxes), chosen.scores, chosen.labels)
        expected = own.predict(frame, rect=False, verbose=False, device="cpu")[0].boxes
        pairs += check_equal(found, expected)
    return pairs


@pytest.mark.parametrize("name", BCCD)
def test_same_detections_on_real_images(package: Any, assets: Path, name: str) -> None:
    path = assets / "models" / name
    model = open_model(path)
    files = sorted((assets / "datasets/bccd/images/test").iterdir())[:6]
    assert compare_on_images(package, path, model, files) > 60
    assert model.spec.classes == ("RBC", "WBC", "Platelets")
    assert (model.spec.height, model.spec.width, model.spec.nms_iou) == (640, 640, 0.7)


def test_same_detections_of_an_nms_free_head(package: Any, assets: Path, tmp_path: Path) -> None:
    model = package.YOLO(assets / "models/yolo26n_bccd.pt")
    model.model.end2end = True
    model.model.model[-1].fuse()
    path = tmp_path / "nms_free.pt"
    model.save(path)
    ours = open_model(path)
    assert ours.spec.output == "topk"
    files = sorted((assets / "datasets/bccd/images/test").iterdir())[:3]
    assert compare_on_images(package, path, ours, files) > 30


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_same_tensors_of_every_architecture(package: Any, tmp_path: Path, name: str) -> None:
    path = untrained(package, name, tmp_path)
    model = open_model(path, size=(96, 128))
    batch = np.random.default_rng(0).integers(0, 256, (2, 96, 128, 3), np.uint8)
    outputs = run(model.module(), batch)
    own = package.YOLO(path)
    own.predict(batch[0], imgsz=[96, 128], rect=False, verbose=False, device="cpu")
    pixels = torch.from_numpy(batch).permute(0, 3, 1, 2).flip(1).float() / 255
    with torch.no_grad():
        expected = own.predictor.model(pixels)
    expected = (expected[0] if isinstance(expected, tuple | list) else expected).numpy()
    boxes, scores = expected[:, :4].swapaxes(1, 2), expected[:, 4:].swapaxes(1, 2)
    corners = np.concatenate(
        (boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2), -1
    )
    assert np.abs(outputs.boxes - corners).max() < 1e-2
    assert np.abs(outputs.scores - scores).max() < 1e-6
    assert outputs.scores.shape[2] == len(model.spec.classes) == 80


def test_rt_detr(package: Any, tmp_path: Path) -> None:
    path = untrained(package, "rtdetr-l", tmp_path)
    model = open_model(path, size=(160, 160))
    assert (model.spec.output, model.spec.letterbox.placement) == ("topk", "stretch")
    frame = np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8)
    batch, fit = images.letterbox(frame, model.spec)
    outputs = run(model.module(), batch[None])
    own = package.RTDETR(path)
    expected = own.predict(frame, imgsz=160, conf=0.001, verbose=False, device="cpu")[0].boxes
    assert len(expected) > 100
    assert np.abs(outputs.scores[0, : len(expected)] - expected.conf.numpy()).max() <= 1e-4
    boxes = fit.to_image(outputs.boxes[0, : len(expected)])
    assert np.abs(boxes - np.clip(expected.xyxy.numpy(), 0, [200, 120] * 2)).max() < 0.1


def test_precise_when_halved(package: Any, assets: Path) -> None:
    module = open_model(assets / "models/yolo11n_bccd.pt", size=(64, 64)).module()
    batch = torch.full((1, 64, 64, 3), 128, dtype=torch.uint8)
    with torch.no_grad():
        boxes, scores = module.bfloat16()(batch)
    assert boxes.dtype == scores.dtype == torch.float32
    assert not module.centres.is_floating_point()


@pytest.mark.parametrize("task", ["seg", "pose", "obb", "cls"])
def test_refuses_other_tasks(package: Any, tmp_path: Path, task: str) -> None:
    path = untrained(package, f"yolo11n-{task}", tmp_path)
    with pytest.raises(SourceError, match="another task"):
        open_model(path)


def test_refuses_sizes_that_do_not_fit(package: Any, assets: Path) -> None:
    with pytest.raises(UsageError, match="cannot take 100x64") as caught:
        open_model(assets / "models/yolo11n_bccd.pt", size=(100, 64))
    assert "128x64" in caught.value.hint


def test_a_constructor_call_is_refused(package: Any, tmp_path: Path) -> None:
    """Constructors evaluate text of the configuration they are given."""

    class Gadget:
        def __reduce__(self) -> Any:
            from ultralytics.nn.tasks import DetectionModel

            return DetectionModel, ({"activation": "exit()"},)

    torch.save({"model": Gadget()}, tmp_path / "model.pt")
    with pytest.raises(SourceError, match=r"DetectionModel\(\.\.\.\)"):
        open_model(tmp_path / "model.pt")


def test_damaged_weights(package: Any, assets: Path, tmp_path: Path) -> None:
    data = bytearray((assets / "models/yolo11n_bccd.pt").read_bytes())
    spot = data.index(b"DetectionModel")
    data[spot : spot + 14] = b"DetectionMould"
    (tmp_path / "model.pt").write_bytes(data)
    with pytest.raises(SourceError):
        open_model(tmp_path / "model.pt", trust=True)


def test_without_the_package(assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    with pytest.raises(MissingDependencyError) as caught:
        open_model(assets / "models/yolo11n_bccd.pt")
    assert "raudo[ultralytics]" in caught.value.hint


LEAVES_NO_TRACE = """
import os, sys
import cv2, numpy, torch
from pathlib import Path
from raudo.checkpoints.source import open_model

torch.set_num_threads(2)
def state():
    return dict(os.environ), cv2.getNumThreads(), torch.get_num_threads(), str(numpy.ones(2) / 3)
before = state()
assert "ultralytics" not in sys.modules
open_model(Path(sys.argv[1]))
assert "ultralytics" in sys.modules
assert state() == before, (before, state())
"""


def test_leaves_no_trace(package: Any, assets: Path, tmp_path: Path) -> None:
    """No settings, no output, no changed threads or environment; the name does not matter."""
    model = tmp_path / "it's a-world seg.bin"
    model.write_bytes((assets / "models/yolo11n_bccd.pt").read_bytes())
    home = tmp_path / "home"
    home.mkdir()
    homes = {name: str(home) for name in ("HOME", "USERPROFILE", "APPDATA", "XDG_CONFIG_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", LEAVES_NO_TRACE, str(model)],
        env={**os.environ, **homes},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(home.iterdir()) == []
