"""Bad input through the command line: one line, one hint, exit code 2, nothing half-written."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from raudo.build import ModelInfo
from raudo.cli import app
from raudo.inputs import gathering
from raudo.inputs.data import open_dataset
from raudo.records import Spec

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "samples"
DATA = SAMPLES / "coco-mini" / "data.yaml"
MODEL = SAMPLES / "model.pt"


def refused(folder: Path, *words: str) -> str:
    """Type a command that must be refused; returns the error's line."""
    before = listing(folder)
    ended = CliRunner().invoke(app, list(words))
    assert ended.exit_code == 2, (ended.exit_code, ended.output, ended.exception)
    assert not ended.stdout
    lines = ended.stderr.rstrip("\n").split("\n")
    assert len(lines) == 2, ended.stderr
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("hint: ")
    assert len(lines[1]) > len("hint: ")
    assert listing(folder) == before, "something was left behind"
    return lines[0]


def listing(folder: Path) -> set[tuple[Path, int]]:
    return {(f, f.stat().st_size if f.is_file() else 0) for f in folder.rglob("*")}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare opening the sample's model: these tests are about the rest."""
    classes = open_dataset(DATA, ("val",)).classes
    spec = Spec(family="any", height=416, width=416, classes=classes)
    told = ModelInfo(spec, has_module=True, sha256="0" * 64)
    monkeypatch.setattr(gathering, "inspect", lambda _file, _timeout: told)


class Malicious:
    """Its pickle runs a command."""

    def __reduce__(self) -> Any:
        return os.system, ("echo pwned > pwned",)


def checkpoint(path: Path, content: object) -> bytes:
    """Return a file as PyTorch writes it, around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, protocol=2))
        archive.writestr("archive/version", "3\n")
    return path.read_bytes()


@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "truncated",
        "malicious",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("empty", "text", "folder", "other", "video")
        ),
    ],
)
def test_model_files(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pt"
    contents = {
        "empty": b"",
        "truncated": MODEL.read_bytes()[:300_000],
        "text": b"I am no checkpoint\n" * 100,
        "malicious": checkpoint(tmp_path / "m", {"model": Malicious()}),
        "other": checkpoint(tmp_path / "o", {"weights": [1, 2, 3]}),
        "video": (SAMPLES / "highway_960x540.mp4").read_bytes()[:100_000],
    }
    for scratch in ("m", "o"):
        (tmp_path / scratch).unlink()
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(contents[kind])
    error = refused(tmp_path, "optimize", "model.pt", "--data", str(DATA), "--output", "runs")
    assert "model.pt" in error
    assert refused(tmp_path, "export", "model.pt", "--output", "made")
    if kind in ("missing", "empty", "folder"):
        assert "model.pt" in refused(tmp_path, "optimize", "model.pt"), "before any missing option"
    assert not (tmp_path / "pwned").exists()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["segment", "pose"])
def test_tasks_other_than_detection(task: str, ultralytics: Any, tmp_path: Path) -> None:
    suffix = {"segment": "-seg", "pose": "-pose"}[task]
    path = tmp_path / "model.pt"
    ultralytics.YOLO(f"yolo11n{suffix}.yaml").save(str(path))
    error = refused(tmp_path, "optimize", str(path), "--data", str(DATA))
    assert task in error.lower().replace("segmentation", "segment")


def bomb(side: int) -> bytes:
    """Return a PNG of a huge size: 5 GB of pixels in some 100 bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


JPEG = sorted((SAMPLES / "coco-mini/images/val").glob("*.jpg"))[0].read_bytes()


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("bomb.png", bomb(40_000), "100 million pixels"),
        ("zero.jpg", b"", "zero.jpg"),
        ("half.jpg", JPEG[: len(JPEG) // 3], "half.jpg"),
        ("text.png", b"no image", "text.png"),
    ],
    ids=["bomb", "zero", "half", "text"],
)
def test_bad_images(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    project = dataset(tmp_path)
    (project / "images/val" / name).write_bytes(content)
    (project / "labels/val" / name).with_suffix(".txt").write_text("0 0.5 0.5 0.2 0.2\n")
    words = ("--data", str(project / "data.yaml"), "--output", str(tmp_path / "runs"))
    assert said in refused(tmp_path, "optimize", str(MODEL), *words)


def dataset(folder: Path) -> Path:
    """Make a data set of the sample's first two images."""
    project = folder / "set"
    for split, count in (("val", 2), ("calib", 2)):
        for image in sorted((SAMPLES / "coco-mini/images" / split).glob("*.jpg"))[:count]:
            label = SAMPLES / "coco-mini/labels" / split / f"{image.stem}.txt"
            for file in (image, label):
                target = project / file.relative_to(SAMPLES / "coco-mini")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
    shutil.copy(DATA, project)
    return project


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize(
    "line",
    [
        "0 nan 0.5 0.1 0.1",
        "0 -0.2 0.5 0.1 0.1",
        "0 0.5 0.5 -0.1 0.1",
        "0 1.5 0.5 0.1 0.1",
        "99 0.5 0.5 0.1 0.1",
        "-1 0.5 0.5 0.1 0.1",
        "cat 0.5 0.5 0.1 0.1",
        "0 0.5 0.5",
    ],
)
def test_bad_labels(line: str, tmp_path: Path) -> None:
    project = dataset(tmp_path)
    label = sorted((project / "labels/val").glob("*.txt"))[1]
    label.write_text(f"0 0.5 0.5 0.2 0.2\n{line}\n")
    words = ("--data", str(project / "data.yaml"), "--output", str(tmp_path / "runs"))
    error = refused(tmp_path, "optimize", str(MODEL), *words)
    assert label.name in error
    assert "2" in error, "the line is named"


@pytest.mark.usefixtures("opened")
def test_an_empty_data_set(tmp_path: Path) -> None:
    project = dataset(tmp_path)
    for file in (project / "images/val").iterdir():
        file.unlink()
    words = ("--data", str(project / "data.yaml"), "--output", str(tmp_path / "runs"))
    refused(tmp_path, "optimize", str(MODEL), *words)


@pytest.mark.usefixtures("opened")
def test_a_data_set_of_other_classes(tmp_path: Path) -> None:
    project = dataset(tmp_path)
    (project / "data.yaml").write_text("path: .\nval: images/val\nnames: [cat, dog]\n")
    for file in (project / "labels/val").iterdir():
        file.write_text("1 0.5 0.5 0.2 0.2\n")
    words = ("--data", str(project / "data.yaml"), "--output", str(tmp_path / "runs"))
    error = refused(tmp_path, "optimize", str(MODEL), *words)
    assert "2 classes" in error
    assert "80" in error


@pytest.mark.usefixtures("opened")
def test_calibration_on_what_validation_scores(tmp_path: Path) -> None:
    words = ("--calibration", str(DATA.parent / "images/val"), "--output", str(tmp_path / "runs"))
    error = refused(tmp_path, "optimize", str(MODEL), "--data", str(DATA), *words)
    assert "91 of the calibration images" in error


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize(
    "words",
    [
        ("--data", "nowhere.yaml"),
        ("--images", "nowhere"),
        (),
        ("--data", str(DATA), "--only", "magic-fp32"),
        ("--data", str(DATA), "--gate", "production_cpu.speedup"),
        ("--data", str(DATA), "--gate", "production_cpu.luck=2"),
        ("--data", str(DATA), "--gate", "production_cpu.speedup=fast"),
        ("--data", str(DATA), "--target", "toaster"),
        ("--data", str(DATA), "--size", "12by12"),
        ("--data", str(DATA), "--timing-budget", "-1"),
        ("--data", str(DATA), "--config", "missing.yaml"),
        ("--data", str(DATA), "--splits", "moon"),
        ("--resume",),
    ],
)
def test_options_that_make_no_sense(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(tmp_path, "optimize", str(MODEL), *words)


def test_commands_without_what_they_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "known: " in CliRunner().invoke(app, ["export", str(MODEL), "--to", "null"]).stderr
    refused(tmp_path, "export", str(MODEL), "--to", "null")
    refused(tmp_path, "export", str(MODEL), "--to", "onnx", "--precision", "int3")
    refused(tmp_path, "export", str(MODEL), "--to", "")
    assert "no model" in refused(tmp_path, "optimize")
    refused(tmp_path, "report")
    refused(tmp_path, "report", "runs/none")
    assert "engine file" in refused(tmp_path, "detect", "none.onnx", str(SAMPLES))
    refused(tmp_path, "benchmark", "none.onnx", "--images", str(DATA))
    refused(tmp_path, "validate", "none.onnx", "--data", str(DATA))
    Path("plain.onnx").write_bytes(b"no engine")
    assert "no manifest" in refused(tmp_path, "detect", "plain.onnx", str(SAMPLES))


@pytest.mark.usefixtures("opened")
def test_a_file_in_place_of_the_output_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("mine")
    words = ("--data", str(DATA), "--output", str(tmp_path / "runs"))
    assert "runs" in refused(tmp_path, "optimize", str(MODEL), *words)
    assert (tmp_path / "runs").read_text() == "mine"


@pytest.mark.usefixtures("opened")
@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="NO READ-ONLY: root may write anywhere"
)
def test_a_read_only_output_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir(mode=0o500)
    words = ("--data", str(DATA), "--output", str(tmp_path / "runs"))
    refused(tmp_path, "optimize", str(MODEL), *words)


@pytest.mark.usefixtures("opened")
@pytest.mark.skipif(not Path("/proc/version").exists(), reason="NO /proc TO WRITE INTO")
def test_an_output_folder_that_nobody_can_write(tmp_path: Path) -> None:
    words = ("--data", str(DATA), "--output", "/proc/runs")
    assert "/proc/runs" in refused(tmp_path, "optimize", str(MODEL), *words)


def test_a_damaged_image_is_told_by_its_name_and_blamed_on_no_engine(tmp_path: Path) -> None:
    from null_engines import null_engine

    engine = str(null_engine(tmp_path / "e.npz"))
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "good.jpg").write_bytes(JPEG)
    (folder / "half.jpg").write_bytes(JPEG[: len(JPEG) // 3])
    assert "half.jpg" in refused(tmp_path, "benchmark", engine, "--images", str(folder))
    assert "half.jpg" in refused(tmp_path, "detect", engine, str(folder / "half.jpg"))
    ended = CliRunner().invoke(app, ["detect", engine, str(folder)])
    assert ended.exit_code == 0
    assert ended.stdout.startswith("1 frame, ")
    assert ended.stdout.count("half.jpg") == 1


def test_images_of_every_kind_are_read(tmp_path: Path) -> None:
    """Grey, 16-bit, CMYK, EXIF-rotated and 1x1 images are no bad input."""
    from PIL import Image

    random = np.random.default_rng(0)
    grey = random.integers(0, 255, (40, 60), np.uint8)
    colour = Image.fromarray(random.integers(0, 255, (40, 60, 3), np.uint8))
    folder = tmp_path / "images"
    folder.mkdir()
    cv2.imencode(".png", grey)[1].tofile(folder / "grey.png")
    cv2.imencode(".png", grey.astype(np.uint16) * 257)[1].tofile(folder / "deep.png")
    colour.convert("CMYK").save(folder / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    colour.save(folder / "turned.jpg", exif=exif)
    colour.resize((1, 1)).save(folder / "one.png")
    from null_engines import null_engine

    engine = null_engine(tmp_path / "e.npz")
    lines = tmp_path / "lines.jsonl"
    ended = CliRunner().invoke(app, ["detect", str(engine), str(folder), "--jsonl", str(lines)])
    assert ended.exit_code == 0, ended.output
    assert len(lines.read_text().splitlines()) == 5


def test_the_sample_itself_is_no_bad_input() -> None:
    assert len(open_dataset(DATA, ("val",)).images) == 91
