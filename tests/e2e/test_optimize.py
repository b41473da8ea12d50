"""The main job as a person types it, on a few of the sample's images."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import pytest

import raudo
from raudo.records import Report
from raudo.workspace import read_artifact

pytestmark = pytest.mark.slow

RAUDO = (sys.executable, "-m", "raudo.cli")
GATED = {0, 1, 3}  # which gates pass depends on the machine; that they were decided does not
OPTIMIZE = ("optimize", "samples/model.pt", "--shapes", "own", "--timing-budget", "1")
DATA = ("--data", "samples/coco-mini/data.yaml")
ONLY = ("--only", "onnxruntime-fp32,openvino-int8")
NAMES = ("torch-fp32", "onnxruntime-fp32", "openvino-int8")
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
}
LIMIT = 600


def typed(folder: Path, *words: str, program: tuple[str, ...] = RAUDO) -> Any:
    """Type a command in a folder; nothing of it may be a traceback."""
    ended = subprocess.run(
        [*program, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
        timeout=LIMIT,
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended


def answer(folder: Path, *words: str, codes: set[int] = GATED) -> Any:
    """Type a command with `--json`, and return what it printed: JSON and nothing else."""
    ended = typed(folder, *words, "--json")
    assert ended.returncode in codes, ended.stderr
    return json.loads(ended.stdout)


def report_of(run: Path) -> Report:
    return Report.model_validate_json((run / "report.json").read_bytes())


@pytest.fixture(scope="module")
def ended(small_project: Path) -> Any:
    """How the run 'first' ended."""
    return typed(small_project, *OPTIMIZE, *DATA, *ONLY, "--name", "first")


@pytest.fixture(scope="module")
def run(small_project: Path, ended: Any) -> Path:
    """The finished run 'first'."""
    assert ended.returncode in GATED, ended.stdout + ended.stderr
    return small_project / "runs" / "first"


def test_the_run_leaves_all_that_it_promises(run: Path, small_project: Path) -> None:
    report = report_of(run)
    assert {c.name for c in report.candidates} >= set(NAMES)
    for candidate in report.candidates:
        assert candidate.status == "OK", candidate.reason
        artifact = read_artifact(run / str(candidate.file))
        assert artifact.manifest.audit is not None
        assert artifact.manifest.audit.found.get(candidate.precision, 0) > 0
        assert candidate.size_bytes == sum(
            (artifact.path.parent / name).stat().st_size for name in artifact.manifest.files_sha256
        )
    assert report.source.images == 6
    assert report.source.calibration is not None
    assert report.source.calibration.images == 4
    assert (small_project / "runs" / "latest").resolve() == run.resolve()
    names = {file.name for file in run.iterdir()}
    assert names >= {"engines", "report.html", "report.md", "report.json", "raudo.log"}
    assert names >= {"reproduce.sh", "settings.yaml", "pictures"}
    assert not [f for f in run.rglob(".*") if f.is_file()], "drafts were left"


def test_the_report_has_every_field_that_was_promised(run: Path) -> None:
    content = json.loads((run / "report.json").read_bytes())
    fields = {"name", "backend", "precision", "status", "reason", "latency_ms", "throughput_fps"}
    fields |= {"speedup", "map50", "map50_95", "map50_loss_percent", "similarity_percent"}
    fields |= {"size_bytes", "peak_memory_bytes"}
    for candidate in content["candidates"]:
        assert set(candidate) >= fields
        assert set(candidate["latency_ms"]) >= {"p50", "p90", "p95", "p99"}
        assert set(candidate["speedup"]) == {"median", "low", "high"}
        assert set(candidate["map50_loss_percent"]) == {"value", "low", "high"}
        assert all(candidate[name] is not None for name in fields)
        assert candidate["peak_memory_bytes"] > 1e7
        assert candidate["throughput_fps"] > 0
    targets = {"development", "production_cpu", "production_gpu", "edge"}
    assert set(content["decisions"]) == targets
    names = {candidate["name"] for candidate in content["candidates"]}
    for decision in content["decisions"].values():
        assert decision["verdict"] in {"PASS", "FAIL", "INCONCLUSIVE", "SKIPPED"}
        assert decision["choice"] is None or decision["choice"] in names
        assert decision["reasons"]


def test_the_page_is_one_small_file_that_needs_nothing_else(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 3_000_000
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?!data:|\#|["'])[^"'>\s]""", page)
    assert "url(http" not in page
    assert "@import" not in page
    for name in NAMES:
        assert name in page


def test_the_exit_code_is_the_verdict_s(ended: Any, run: Path) -> None:
    verdict = report_of(run).decisions["production_cpu"].verdict
    assert ended.returncode == {"PASS": 0, "SKIPPED": 0, "FAIL": 1, "INCONCLUSIVE": 3}[verdict]
    assert f"production_cpu: {verdict}" in ended.stdout
    assert "report.html" in ended.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell script")
def test_the_run_can_be_reproduced(run: Path, small_project: Path) -> None:
    script = str(run / "reproduce.sh")
    found = typed(small_project, "--only", "onnxruntime-fp32", program=(script,))
    assert found.returncode in GATED, found.stdout + found.stderr
    first, second = report_of(run), report_of(run.with_name("first-again"))
    kept = [c for c in first.candidates if c.name in {"torch-fp32", "onnxruntime-fp32"}]
    assert [(c.name, c.map50) for c in kept] == [(c.name, c.map50) for c in second.candidates]
    # A run's own settings name the data by its whole path, so that they work from anywhere.
    sources = [report.source.model_dump(exclude={"data"}) for report in (first, second)]
    assert sources[0] == sources[1]


def test_detecting_in_an_image_a_folder_and_a_video(run: Path, small_project: Path) -> None:
    images = sorted((small_project / "samples/coco-mini/images/val").glob("*.jpg"))
    out = small_project / "out"
    sources = {
        str(images[0]): (out / "one.jpg", 1),
        str(images[0].parent): (out / "all", len(images)),
        "samples/highway_960x540.mp4": (out / "video.mp4", 7),
    }
    for source, (target, frames) in sources.items():
        lines = out / f"{target.stem}.jsonl"
        words = ("--output", str(target), "--jsonl", str(lines), "--max-frames", "7")
        told = answer(small_project, "detect", str(run), source, *words, codes={0})
        assert told["frames"] == frames
        rows = [json.loads(line) for line in lines.read_text().splitlines()]
        assert len(rows) == frames
        assert sum(len(row["detections"]) for row in rows) == told["detections"]
    assert cv2.imread(str(out / "one.jpg")).shape == cv2.imread(str(images[0])).shape
    assert len(list((out / "all").iterdir())) == len(images)
    video = cv2.VideoCapture(str(out / "video.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 7
    video.release()


def test_detecting_from_python(run: Path, small_project: Path) -> None:
    image = sorted((small_project / "samples/coco-mini/images/val").glob("*.jpg"))[0]
    with raudo.load(run.parent / "latest", target="development") as baseline:
        expected = baseline.detect(image)
    assert len(expected) > 0
    with raudo.load(run / "engines" / "onnxruntime-fp32.onnx") as detector:
        found = detector.detect(image)
    assert len(found) == len(expected)
    assert abs(found.boxes - expected.boxes).max() < 1


def test_the_report_is_written_again(run: Path, small_project: Path) -> None:
    page = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    content = answer(small_project, "report", str(run), codes={0})
    assert content == json.loads((run / "report.json").read_bytes())
    assert (run / "report.html").stat().st_size == pytest.approx(len(page), rel=0.05)


def interrupted(folder: Path, words: tuple[str, ...], log: Path, sight: str) -> None:
    """Start a run and send Ctrl-C once its log says something."""
    process = subprocess.Popen(
        [*RAUDO, *words], cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    limit = time.monotonic() + LIMIT
    while not (log.is_file() and sight in log.read_text(encoding="utf-8", errors="replace")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit, f"never saw {sight}"
        time.sleep(0.05)
    log.write_text("")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "--resume" in errors


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_an_interrupted_run_goes_on_where_it_stopped(small_project: Path) -> None:
    """With real processes and signals; unit/test_pipeline.py interrupts every step."""
    run = small_project / "runs" / "stopped"
    words = (*OPTIMIZE, *DATA, "--only", "onnxruntime-fp32", "--name", "stopped")
    interrupted(small_project, words, run / "raudo.log", "validate torch-fp32 OK")
    assert not (run / "report.json").exists()
    told = typed(small_project, "report", str(run))
    assert told.returncode == 2
    assert "--resume" in told.stderr
    kept = [*(run / "engines").glob("torch-fp32.pt"), *(run / "state").glob("found-*.npz")]
    before = {file: file.stat().st_mtime_ns for file in kept}
    assert len(before) == 2
    again = ("optimize", "--resume", "--name", "stopped")
    interrupted(small_project, again, run / "raudo.log", "validate onnxruntime-fp32 OK")
    assert not (run / "state" / "timed.json").exists()
    ended = typed(small_project, *again)
    assert ended.returncode in GATED, ended.stdout + ended.stderr
    report = report_of(run)
    assert {c.name for c in report.candidates} == {"torch-fp32", "onnxruntime-fp32"}
    assert all(c.status == "OK" and c.speedup and c.map50 for c in report.candidates)
    assert {file: file.stat().st_mtime_ns for file in before} == before, "something was redone"


def test_an_onnx_file_of_another_package_is_a_source(
    assets: Path, ultralytics: Any, tmp_path: Path
) -> None:
    """Its baseline is not PyTorch: there is no module in it."""
    model = shutil.copy(assets / "models" / "yolo11n_bccd.pt", tmp_path)
    exported = Path(ultralytics.YOLO(model).export(format="onnx", imgsz=320, verbose=False))
    for split in ("images", "labels"):
        source = sorted((assets / "datasets" / "bccd" / split / "val").iterdir())[:4]
        (tmp_path / split / "val").mkdir(parents=True)
        for file in source:
            shutil.copy(file, tmp_path / split / "val")
    (tmp_path / "data.yaml").write_text("path: .\nval: images/val\nnames: [RBC, WBC, Platelets]\n")
    words = ("--data", "data.yaml", "--only", "openvino-fp32", "--shapes", "own")
    found = answer(tmp_path, "optimize", exported.name, *words, "--timing-budget", "1")
    report = Report.model_validate(found)
    assert report.source.baseline == "onnxruntime-fp32"
    assert {c.name: c.status for c in report.candidates} == {
        "onnxruntime-fp32": "OK",
        "openvino-fp32": "OK",
    }
    assert (report.candidates[0].map50 or 0) > 0.3
