"""The C++ detector as people run it: the same detections as in Python, options, bad input."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

import rtsp_server
from cpp_build import MARKS, ROOT, cmake, tool
from raudo.build import combine
from raudo.commands.bundle import write_bundle
from raudo.measuring.station import Station
from raudo.workspace import sha256

if TYPE_CHECKING:
    from numpy.typing import NDArray

VIDEO = ROOT / "samples" / "highway_960x540.mp4"
MODEL = ROOT / "samples" / "model.pt"
DATA = ROOT / "samples" / "coco-mini" / "data.yaml"


pytestmark = MARKS


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built as the team's card says."""
    build = tmp_path_factory.mktemp("build")
    cmake(ROOT / "scripts", build)
    return build / "yolo_tensorrt_detector"


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runtimes keep what they compiled, instead of the user's own folder."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory, program: Path) -> dict[str, Path]:
    """An engine for each runtime that the program was built with."""
    folder = tmp_path_factory.mktemp("engines")
    built = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    found = {}
    if "openvino" in built:
        export(folder, "--to", "openvino", "--precision", "int8", "--calibration", str(DATA))
        found["openvino"] = folder / "model.int8.xml"
    if "onnxruntime" in built:
        export(folder, "--to", "onnx")
        found["onnxruntime"] = folder / "model.onnx"
    assert found, built
    return found


def export(folder: Path, *options: str) -> None:
    raudo("export", str(MODEL), "--output", str(folder), *options)


def raudo(*arguments: str) -> None:
    command = [sys.executable, "-m", "raudo.cli", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture(scope="session")
def engine(engines: dict[str, Path]) -> Path:
    """The engine that starts fastest."""
    return engines.get("onnxruntime") or engines["openvino"]


def detect(program: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def refused(program: Path, *arguments: str | Path) -> str:
    """Run what must be refused with one line and a hint, and return the line."""
    ended = detect(program, *arguments)
    lines = ended.stderr.splitlines()
    assert ended.returncode == 2, ended.stderr
    assert len(lines) == 2, ended.stderr
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("hint: ")
    return lines[0]


def lines_of(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_frame_by_frame_the_same_as_python(
    program: Path, engines: dict[str, Path], backend: str, tmp_path: Path
) -> None:
    if backend not in engines:
        pytest.skip(f"NO {backend} FOR C++: it goes untested")
    python = tmp_path / "python.jsonl"
    raudo("detect", str(engines[backend]), str(VIDEO), "--jsonl", str(python))
    for mode in ("latency", "throughput"):
        cpp = tmp_path / f"{mode}.jsonl"
        ended = detect(program, engines[backend], VIDEO, "--jsonl", cpp, "--mode", mode)
        assert ended.returncode == 0, ended.stderr
        assert_same_frames(lines_of(cpp), lines_of(python))


def test_a_video_takes_the_smallest_rectangle_that_keeps_its_scale(
    program: Path, engines: dict[str, Path], tmp_path: Path
) -> None:
    if "onnxruntime" not in engines:
        pytest.skip("NO onnxruntime FOR C++: it goes untested")
    own = copied(engines["onnxruntime"], tmp_path)
    mixed = with_rectangle(own, "256x416")
    tall = tmp_path / "tall.avi"
    write_video(tall, [cv2.rotate(frame, cv2.ROTATE_90_CLOCKWISE) for frame in frames_of(VIDEO, 4)])
    for video, takes_own in ((VIDEO, False), (tall, True)):
        options = (video, "--max-frames", "4", "--jsonl")
        found = [tmp_path / f"{number}.jsonl" for number in range(3)]
        raudo("detect", str(mixed), *map(str, options), str(found[0]))
        for engine, lines in zip((mixed, own), found[1:], strict=True):
            ended = detect(program, engine, *options, lines)
            assert ended.returncode == 0, ended.stderr
        assert found[1].read_text() == found[0].read_text()
        assert (found[1].read_text() == found[2].read_text()) == takes_own
    rewrite(tmp_path / "256x416.onnx.json", source_sha256="0" * 64)
    assert "of the same network" in refused(program, mixed, VIDEO)


def with_rectangle(own: Path, size: str) -> Path:
    """Make an engine of two rectangles of one of the model's own size."""
    folder = own.parent
    export(folder / size, "--to", "onnx", "--size", size)
    small = folder / f"{size}.onnx"
    shutil.move(folder / size / "model.onnx", small)
    manifest = folder / f"{small.name}.json"
    shutil.move(folder / size / "model.onnx.json", manifest)
    rewrite(manifest, files_sha256={small.name: sha256(small)})
    return combine("mixed", [own, small], folder / "mixed.onnx").path


def rewrite(manifest: Path, **fields: object) -> None:
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, **fields}))


def frames_of(video: Path, count: int) -> list[NDArray[np.uint8]]:
    capture = cv2.VideoCapture(str(video))
    return [capture.read()[1] for _ in range(count)]


def write_video(video: Path, frames: list[NDArray[np.uint8]], code: str = "MJPG") -> None:
    """Write frames, as MJPG each of which stands for itself."""
    height, width = frames[0].shape[:2]
    fourcc = cv2.VideoWriter.fourcc(*code)
    writer = cv2.VideoWriter(str(video), cv2.CAP_FFMPEG, fourcc, 25, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()


def assert_same_frames(ours: list[dict], theirs: list[dict]) -> None:  # type: ignore[type-arg]
    assert len(ours) == len(theirs) == 221
    assert sum(len(line["detections"]) for line in ours) > 500
    for one, other in zip(ours, theirs, strict=True):
        found, expected = one.pop("detections"), other.pop("detections")
        assert one == other
        assert_alike(found, expected)


def assert_alike(found: list[dict], expected: list[dict]) -> None:  # type: ignore[type-arg]
    assert [f["label"] for f in found] == [e["label"] for e in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["class"] == other["class"]
        assert abs(one["score"] - other["score"]) <= 1e-3
        assert iou(one["box"], other["box"]) >= 0.99


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / (both - shared) if both > shared else float(a == b)


def test_options_select_and_outputs_are_written(
    program: Path, engine: Path, tmp_path: Path
) -> None:
    video, jsonl = tmp_path / "new" / "out.mp4", tmp_path / "new" / "out.jsonl"
    options = ("--classes", "car,7", "--conf", "0.5", "--iou", "0.5", "--max-frames", "12")
    ended = detect(
        program, engine, VIDEO, *options, "--output", video, "--jsonl", jsonl, "--json",
        "--benchmark",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    summary = json.loads(ended.stdout)
    assert summary["frames"] == len(lines_of(jsonl)) == 12
    assert set(summary["stages_ms"]) == {"decode", "prepare", "infer", "select", "end_to_end"}
    found = [d for line in lines_of(jsonl) for d in line["detections"]]  # type: ignore[attr-defined]
    assert {d["label"] for d in found} <= {2, 7}
    assert len(found) == summary["detections"] > 0
    assert min(d["score"] for d in found) >= 0.5
    capture = cv2.VideoCapture(str(video))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 12
    drawn, plain = capture.read()[1], cv2.VideoCapture(str(VIDEO)).read()[1]
    assert np.abs(drawn.astype(int) - plain).max() > 100  # a box, not compression
    assert list(video.parent.iterdir()) in ([video, jsonl], [jsonl, video])


def test_ctrl_c_keeps_what_was_found(program: Path, engine: Path, tmp_path: Path) -> None:
    video, jsonl = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    command = [program, engine, VIDEO, "--output", video, "--jsonl", jsonl, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (jsonl.exists() and jsonl.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    summary = json.loads(text)
    assert summary["interrupted"]
    assert len(lines_of(jsonl)) == summary["frames"] > 0
    assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == summary["frames"]


def copied(engine: Path, folder: Path) -> Path:
    for file in (engine, engine.with_name(engine.name + ".json")):
        shutil.copy(file, folder)
    if engine.suffix == ".xml":
        shutil.copy(engine.with_suffix(".bin"), folder)
    return folder / engine.name


def test_engines_that_do_not_fit_are_refused(program: Path, engine: Path, tmp_path: Path) -> None:
    assert "no such engine file" in refused(program, tmp_path / "none.onnx", VIDEO)
    copy = copied(engine, tmp_path)
    manifest = copy.with_name(copy.name + ".json")
    good = manifest.read_text()
    with copy.open("rb+") as stream:
        stream.truncate(copy.stat().st_size // 2)
    assert "is not the file that" in refused(program, copy, VIDEO)
    shutil.copy(engine, copy)
    manifest.write_text(good.replace('"height": 416', '"height": 448'))
    assert "breaks its manifest" in refused(program, copy, VIDEO)
    manifest.write_text(good.replace('"height": 416', '"height": "tall"'))
    assert "spec.height" in refused(program, copy, VIDEO)
    backend = json.loads(good)["backend"]
    manifest.write_text(good.replace(f'"backend": "{backend}"', '"backend": "abacus"'))
    assert "abacus" in refused(program, copy, VIDEO)
    manifest.unlink()
    assert "has no manifest" in refused(program, copy, VIDEO)


def test_a_foreign_engine_is_refused(
    program: Path, engines: dict[str, Path], tmp_path: Path
) -> None:
    for engine in engines.values():
        copy = copied(engine, tmp_path)
        for content in (b"this is no engine", engine.read_bytes()[:3000]):
            copy.write_bytes(content)
            rewrite(copy.with_name(copy.name + ".json"), files_sha256={copy.name: sha256(copy)})
            assert "does not load" in refused(program, copy, VIDEO)


@pytest.mark.parametrize(
    ("rest", "limit"), [("fp16", "ONEDNN_MAX_CPU_ISA"), ("bf16", "OV_CPU_MAX_ISA")]
)
def test_another_precision_is_refused_as_in_python(
    program: Path,
    engines: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rest: str,
    limit: str,
) -> None:
    """OpenVINO takes one for the other; the limit keeps it from instructions that this CPU has."""
    if "openvino" not in engines:
        pytest.skip("NO openvino FOR C++: it goes untested")
    copy = copied(engines["openvino"], tmp_path)
    rewrite(copy.with_name(copy.name + ".json"), options={"rest": rest})
    monkeypatch.setenv(limit, "AVX2")
    ours = detect(program, copy, VIDEO)
    command = [sys.executable, "-m", "raudo.cli", "detect", str(copy), str(VIDEO)]
    theirs = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ours.returncode == theirs.returncode == 2
    assert ours.stderr == theirs.stderr
    assert f"computes in {rest.upper()}, and this CPU does not" in ours.stderr


def test_videos_that_cannot_be_read_are_refused(
    program: Path, engine: Path, tmp_path: Path
) -> None:
    assert "no such video" in refused(program, engine, tmp_path / "none.mp4")
    assert "no such video" in refused(program, engine, tmp_path)
    assert "there is no camera 99" in refused(program, engine, "99")
    assert "cannot read" in refused(program, engine, "rtsp://127.0.0.1:1/none")
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert "cannot read" in refused(program, engine, empty)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(VIDEO.read_bytes()[:2000])
    assert str(cut) in refused(program, engine, cut)


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_a_stream_that_ends_early_is_told_from_a_recording_at_its_end(
    program: Path, engine: Path, tmp_path: Path, share: float
) -> None:
    recording = tmp_path / "recording.avi"
    write_video(recording, [np.full((240, 320, 3), shade * 10, np.uint8) for shade in range(20)])
    data = recording.read_bytes()

    class Cut(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: int(share * len(data))])

    video, jsonl = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cut) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/video.avi"
        ended = detect(program, engine, address, "--output", video, "--jsonl", jsonl)
        server.shutdown()
    written = len(lines_of(jsonl))
    assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == written
    if share == 1:
        assert (ended.returncode, written) == (0, 20), ended.stderr
    else:
        assert 5 < written < 20
        assert ended.returncode == 2
        assert f"gave no more after {written} frames" in ended.stderr


@pytest.mark.parametrize(
    ("seconds", "goodbye", "shown"),
    [(0.8, True, 20), (None, True, 20), (None, False, 12)],
    ids=["a recording", "a camera that says goodbye", "a camera that is cut off"],
)
def test_an_rtsp_stream_is_followed_to_its_end(
    program: Path, engine: Path, tmp_path: Path, seconds: float | None, goodbye: bool, shown: int
) -> None:
    recording = tmp_path / "recording.avi"
    write_video(recording, frames_of(VIDEO, 20), code="FMP4")
    frames = rtsp_server.mpeg4_frames(recording)
    assert len(frames) == 20
    video, jsonl = tmp_path / "out.mp4", tmp_path / "out.jsonl"
    served = rtsp_server.Recording(frames[:shown], 25, seconds, goodbye)
    with rtsp_server.serving(served) as address:
        ended = detect(program, engine, address, "--output", video, "--jsonl", jsonl)
    found = lines_of(jsonl)
    assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == len(found)
    assert shown - 1 <= len(found) <= shown  # the last frame's end may not have been seen
    if seconds is not None:
        assert (ended.returncode, len(found)) == (0, shown), ended.stderr
    else:
        assert ended.returncode == 2
        assert f"gave no more after {len(found)} frames" in ended.stderr
    plain = tmp_path / "file.jsonl"
    assert detect(program, engine, recording, "--jsonl", plain).returncode == 0
    for ours, theirs in zip(found, lines_of(plain), strict=False):
        assert ours["detections"] == theirs["detections"]


def test_damaged_frames_are_skipped_and_counted(
    program: Path, engine: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.avi"
    write_video(damaged, [np.full((240, 320, 3), shade * 10, np.uint8) for shade in range(20)])
    data = bytearray(damaged.read_bytes())
    starts = [found.start() for found in re.finditer(b"00dc", data)][:20]
    length = int.from_bytes(data[starts[9] + 4 : starts[9] + 8], "little")
    data[starts[9] + 8 : starts[9] + 8 + length] = b"\x00" * length
    damaged.write_bytes(data)
    ours, theirs = tmp_path / "cpp.jsonl", tmp_path / "python.jsonl"
    ended = detect(program, engine, damaged, "--json", "--jsonl", ours)
    assert ended.returncode == 0, ended.stderr
    summary = json.loads(ended.stdout)
    assert (summary["frames"], summary["skipped"]) == (19, 1)
    raudo("detect", str(engine), str(damaged), "--jsonl", str(theirs))
    assert ours.read_text() == theirs.read_text()


def test_it_starts_from_what_python_compiled(
    program: Path, engines: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "openvino" not in engines:
        pytest.skip("NO openvino FOR C++: it goes untested")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    Station().keep_compiled(engines["openvino"], 1, trust=False)  # as export does in the end
    kept = {file: file.read_bytes() for file in (tmp_path / "raudo").iterdir()}
    assert len(kept) == 1
    for mode in ("latency", "throughput"):
        ended = detect(program, engines["openvino"], VIDEO, "--max-frames", "1", "--mode", mode)
        assert ended.returncode == 0, ended.stderr
    assert {file: file.read_bytes() for file in (tmp_path / "raudo").iterdir()} == kept
    write_bundle(tmp_path / "bundle", [engines["openvino"]])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    ended = detect(program, tmp_path / "bundle" / engines["openvino"].name, VIDEO)
    assert ended.returncode == 0, ended.stderr
    assert not (tmp_path / "elsewhere").exists()


def test_what_openvino_compiled_is_kept_and_made_again_when_damaged(
    program: Path, engines: dict[str, Path], tmp_path: Path
) -> None:
    if "openvino" not in engines:
        pytest.skip("NO openvino FOR C++: it goes untested")
    kept, lines = tmp_path / "kept", []
    for turn in range(3):
        jsonl = tmp_path / f"{turn}.jsonl"
        options = ("--max-frames", "3", "--cache", kept, "--jsonl", jsonl)
        ended = detect(program, engines["openvino"], VIDEO, *options)
        assert ended.returncode == 0, ended.stderr
        lines.append(jsonl.read_text())
        (blob,) = kept.iterdir()
        size = blob.stat().st_size
        if turn == 1:
            with blob.open("rb+") as stream:
                stream.seek(size // 4)  # among the weights
                stream.write(b"damaged")
    assert lines[0] == lines[1] == lines[2]
    assert size > 100_000


def test_outputs_that_cannot_be_written_are_refused(
    program: Path, engine: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    short = ("--max-frames", "2")
    for option, name in (("--output", "out.mp4"), ("--jsonl", "out.jsonl")):
        target = tmp_path / "file" / name
        assert "cannot write" in refused(program, engine, VIDEO, option, target, *short)
    assert ".mp4" in refused(program, engine, VIDEO, "--output", tmp_path / "out.gif", *short)
    copy = shutil.copy(VIDEO, tmp_path)
    assert "overwrite" in refused(program, engine, copy, "--output", copy, *short)
    assert Path(copy).read_bytes() == VIDEO.read_bytes()


@pytest.mark.parametrize(
    "wrong",
    [("--conf", "2"), ("--iou", "x"), ("--max-frames", "0"), ("--classes", "unicorn"), ("--what",)],
)
def test_wrong_options_are_refused(program: Path, engine: Path, wrong: tuple[str, ...]) -> None:
    assert wrong[-1].strip("-") in refused(program, engine, VIDEO, *wrong)


def test_the_bundle_builds_against_the_installed_package(
    program: Path, engine: Path, tmp_path: Path
) -> None:
    build, prefix, bundle = program.parent, tmp_path / "prefix", tmp_path / "bundle"
    subprocess.run(
        [tool("cmake"), "--install", build, "--prefix", prefix],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    export(tmp_path / "models", "--to", "onnx", "--cpp-bundle", str(bundle))
    cmake(bundle, tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    copied(engine, bundle)
    ended = subprocess.run(
        [tmp_path / "build" / "example", bundle / engine.name],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "416x416" in ended.stdout
    assert "80 classes" in ended.stdout
