"""Running a detector over sources, and what it writes."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from raudo import images
from raudo.backends.base import Outputs, Resources
from raudo.backends.null import NullEngine, canned, write_canned
from raudo.commands import detect
from raudo.detector import MODES, Detector
from raudo.detector import load as load_detector
from raudo.errors import DataError, EngineError, UsageError
from raudo.listener import Listener
from raudo.media.frames import find_source
from raudo.records import Artifact, Manifest, Spec
from raudo.workspace import sha256, write_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from raudo.detector import Mode

OBJECTS = 3


@pytest.fixture(scope="module")
def detector() -> Detector:
    spec = Spec(family="any", height=64, width=64, classes=("cat", "dog", "ñandú"))
    return Detector(NullEngine(spec, canned(spec, anchors=200, objects=OBJECTS, seed=1)))


def write_image(path: Path, grey: int = 40, size: tuple[int, int] = (48, 64)) -> Path:
    data = cv2.imencode(path.suffix, np.full((*size, 3), grey, np.uint8))[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes())
    return path


def write_video(path: Path, frames: int = 10, fps: float = 12.5) -> Path:
    code = cv2.VideoWriter.fourcc(*("mp4v" if path.suffix == ".mp4" else "MJPG"))
    writer = cv2.VideoWriter(str(path), code, fps, (64, 48))
    for index in range(frames):
        writer.write(np.full((48, 64, 3), 10 * index % 256, np.uint8))
    writer.release()
    return path


def contents(folder: Path) -> set[str]:
    """All files below a folder, hidden drafts among them."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_an_image(tmp_path: Path, detector: Detector) -> None:
    source = write_image(tmp_path / "in" / "a.png")
    out, lines = tmp_path / "out" / "drawn.png", tmp_path / "out" / "a.jsonl"
    summary = detect.run(detector, source, output=out, jsonl=lines)
    expected = detector.detect(source)
    (line,) = read_lines(lines)
    assert (summary.frames, summary.detections) == (1, len(expected))
    assert summary.outputs == (out, lines)
    assert not summary.skipped
    assert not summary.interrupted
    assert (line["source"], line["frame"], line["time_ms"]) == (str(source), 0, None)
    assert (line["width"], line["height"]) == (64, 48)
    assert len(line["detections"]) == len(expected) >= OBJECTS
    for found, box, score, label in zip(
        line["detections"], expected.boxes, expected.scores, expected.labels, strict=True
    ):
        assert found["box"] == pytest.approx(box.tolist(), abs=0.006)
        assert found["score"] == pytest.approx(score, abs=6e-5)
        assert found["class"] == detector.spec.classes[label]
        assert found["label"] == label
    assert not np.array_equal(images.decode(out), images.decode(source))
    assert contents(tmp_path / "out") == {"drawn.png", "a.jsonl"}


def test_lines_are_readable_as_they_are(tmp_path: Path, detector: Detector) -> None:
    detect.run(detector, write_image(tmp_path / "a.png"), jsonl=tmp_path / "a.jsonl")
    text = (tmp_path / "a.jsonl").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    found = text[text.index("detections") :]
    assert max(len(places) for places in re.findall(r"\d\.(\d+)", found)) <= 4


def test_an_image_into_a_folder_keeps_its_name(tmp_path: Path, detector: Detector) -> None:
    summary = detect.run(detector, write_image(tmp_path / "a.jpg"), output=tmp_path / "new")
    assert summary.outputs == (tmp_path / "new" / "a.jpg",)
    assert contents(tmp_path) == {"a.jpg", "new/a.jpg"}


def test_a_folder_with_a_damaged_image(tmp_path: Path, detector: Detector) -> None:
    source = tmp_path / "in"
    for name in ("a.png", "c.jpg", "d.webp"):
        write_image(source / name)
    (source / "b.jpg").write_bytes(b"damaged")
    (source / "notes.txt").touch()
    done: list[tuple[int, int | None]] = []
    summary = detect.run(
        detector,
        source,
        output=tmp_path / "out",
        jsonl=tmp_path / "x.jsonl",
        on_progress=lambda *progress: done.append(progress),
    )
    assert summary.frames == 3
    assert list(summary.skipped) == [str(source / "b.jpg")]
    assert "damaged" in summary.skipped[str(source / "b.jpg")]
    assert contents(tmp_path / "out") == {"a.png", "c.jpg", "d.webp"}
    names = [Path(line["source"]).name for line in read_lines(tmp_path / "x.jsonl")]
    assert names == ["a.png", "c.jpg", "d.webp"]
    assert done == [(1, 4), (3, 4), (4, 4)]


def test_a_folder_of_nothing_but_damaged_images(tmp_path: Path, detector: Detector) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "in" / name).touch()
    with pytest.raises(DataError, match="none of the 2 images") as caught:
        detect.run(detector, tmp_path / "in", output=tmp_path / "out")
    assert "empty" in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["v.mp4", "v.avi"])
def test_a_video_keeps_its_size_and_pace(tmp_path: Path, detector: Detector, name: str) -> None:
    source = write_video(tmp_path / name)
    out = tmp_path / "out" / "v.mp4"
    summary = detect.run(detector, source, output=tmp_path / "out", jsonl=tmp_path / "v.jsonl")
    assert summary.outputs == (out, tmp_path / "v.jsonl")
    assert summary.frames == 10
    assert summary.fps == pytest.approx(10 / summary.seconds)
    with images.open_video(out) as video:
        frames = [frame for _, frame in video]
        assert (video.fps, len(frames), frames[0].shape) == (12.5, 10, (48, 64, 3))
    lines = read_lines(tmp_path / "v.jsonl")
    assert [line["frame"] for line in lines] == list(range(10))
    assert [line["time_ms"] for line in lines] == pytest.approx([80 * n for n in range(10)])
    assert contents(tmp_path / "out") == {"v.mp4"}


def test_only_the_first_frames(tmp_path: Path, detector: Detector) -> None:
    done: list[tuple[int, int | None]] = []
    summary = detect.run(
        detector,
        write_video(tmp_path / "v.mp4"),
        output=tmp_path / "out.mp4",
        max_frames=4,
        on_progress=lambda *progress: done.append(progress),
    )
    assert (summary.frames, summary.skipped) == (4, {})
    assert done[-1] == (4, 4)
    assert len(list(images.read_video(tmp_path / "out.mp4"))) == 4
    with pytest.raises(UsageError, match="cannot stop after 0 frames"):
        detect.run(detector, tmp_path / "v.mp4", max_frames=0)


def test_a_video_that_ends_early_is_kept_and_told(tmp_path: Path, detector: Detector) -> None:
    source = write_video(tmp_path / "v.avi", frames=60)
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) // 2])
    summary = detect.run(detector, source, output=tmp_path / "out.mp4")
    assert 10 < summary.frames < 50
    assert summary.skipped[str(source)].startswith(f"ended after {summary.frames} of 60 frames")
    assert len(list(images.read_video(tmp_path / "out.mp4"))) == summary.frames


def test_damaged_frames_in_the_middle_are_left_out_and_counted(
    tmp_path: Path, detector: Detector
) -> None:
    source = write_video(tmp_path / "v.avi", frames=20)
    data = bytearray(source.read_bytes())
    starts = [found.start() for found in re.finditer(b"00dc", data)]
    for start in (starts[9], starts[10], starts[15]):
        length = int.from_bytes(data[start + 4 : start + 8], "little")
        data[start + 8 : start + 8 + length] = bytes(length)
    source.write_bytes(data)
    summary = detect.run(detector, source)
    assert summary.frames == 17
    assert summary.skipped[str(source)].startswith("3 of 20 frames are damaged")


@pytest.mark.parametrize("content", [b"", b"no video"])
def test_what_is_no_video_leaves_nothing(
    tmp_path: Path, detector: Detector, content: bytes
) -> None:
    (tmp_path / "v.mp4").write_bytes(content)
    with pytest.raises(DataError, match="as a video"):
        detect.run(detector, tmp_path / "v.mp4", output=tmp_path / "o", jsonl=tmp_path / "l")
    assert contents(tmp_path) == {"v.mp4"}


class Stubborn:
    """Stands for a detector that is interrupted, or fails, at one frame."""

    def __init__(self, detector: Detector, at: int, error: BaseException) -> None:
        self.spec = detector.spec
        self._detector, self._at, self._error = detector, at, error

    def detect(self, image: Any) -> Any:
        self._at -= 1
        if self._at < 0:
            raise self._error
        return self._detector.detect(image)


def test_an_interrupt_keeps_what_there_is(tmp_path: Path, detector: Detector) -> None:
    source = write_video(tmp_path / "v.mp4")
    stubborn: Any = Stubborn(detector, 6, KeyboardInterrupt())
    out = tmp_path / "o" / "o.mp4"
    summary = detect.run(stubborn, source, output=out, jsonl=tmp_path / "l.jsonl")
    assert summary.interrupted
    assert summary.frames == len(read_lines(tmp_path / "l.jsonl")) == 6
    assert len(list(images.read_video(out))) == 6
    assert contents(tmp_path / "o") == {"o.mp4"}


def test_an_interrupt_before_the_first_frame(tmp_path: Path, detector: Detector) -> None:
    stubborn: Any = Stubborn(detector, 0, KeyboardInterrupt())
    source = write_video(tmp_path / "v.mp4")
    summary = detect.run(stubborn, source, output=tmp_path / "o.mp4")
    assert (summary.interrupted, summary.frames, summary.outputs) == (True, 0, ())
    assert contents(tmp_path) == {"v.mp4"}


def test_a_failure_leaves_no_half_video(tmp_path: Path, detector: Detector) -> None:
    stubborn: Any = Stubborn(detector, 6, RuntimeError("engine"))
    source = write_video(tmp_path / "v.mp4")
    with pytest.raises(RuntimeError, match="engine"):
        detect.run(stubborn, source, output=tmp_path / "o.mp4")
    assert contents(tmp_path) == {"v.mp4"}


def test_lines_can_be_followed_while_it_runs(tmp_path: Path, detector: Detector) -> None:
    seen: list[int] = []
    detect.run(
        detector,
        write_video(tmp_path / "v.mp4", 3),
        jsonl=tmp_path / "l.jsonl",
        on_progress=lambda done, total: seen.append(len(read_lines(tmp_path / "l.jsonl"))),
    )
    assert seen == [1, 2, 3]


def test_a_camera(tmp_path: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    video = write_video(tmp_path / "v.avi", 5)
    opened: list[int] = []

    def open_camera(index: int) -> images.Video:
        opened.append(index)
        return images.open_video(video)

    monkeypatch.setattr(images, "open_camera", open_camera)
    monkeypatch.chdir(tmp_path)
    lines = tmp_path / "l.jsonl"
    summary = detect.run(detector, "1", output=tmp_path / "o", jsonl=lines, max_frames=4)
    assert opened == [1]
    assert summary.outputs[0] == tmp_path / "o" / "camera-1.mp4"
    times = [line["time_ms"] for line in read_lines(lines)]
    assert times == sorted(times)
    assert [line["source"] for line in read_lines(lines)] == ["1"] * 4


def test_no_such_camera(tmp_path: Path, detector: Detector) -> None:
    with pytest.raises(DataError, match="there is no camera 97"):
        detect.run(detector, "97")


def test_a_file_named_like_a_camera_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0").mkdir()
    assert find_source("0").kind == "folder"
    assert find_source("1").kind == "camera"


@pytest.mark.parametrize(
    ("prepare", "source", "output", "words"),
    [
        (write_image, "a.png", "a.png", "not all different"),
        (write_image, "a.png", ".", "not all different"),
        (write_image, "a.png", "b.mp4", "cannot write .*b.mp4"),
        (write_image, "a.png", "b.xyz", "cannot write .*b.xyz"),
        (write_video, "v.mp4", "v.mp4", "not all different"),
        (write_video, "v.mp4", "v.png", "cannot write .*v.png"),
        (write_image, "in/a.png", "in/a.png/out.png", "cannot write"),
        (write_video, "v.mp4", "v.mp4/out.mp4", "cannot write"),
    ],
)
def test_outputs_that_cannot_be(
    tmp_path: Path,
    detector: Detector,
    prepare: Callable[[Path], Path],
    source: str,
    output: str,
    words: str,
) -> None:
    before = prepare(tmp_path / source).read_bytes()
    with pytest.raises(UsageError, match=words) as caught:
        detect.run(detector, tmp_path / source, output=tmp_path / output)
    assert "\n" not in caught.value.message + caught.value.hint
    assert contents(tmp_path) == {source}
    assert (tmp_path / source).read_bytes() == before


@pytest.mark.parametrize("output", ["in", "in/../in", "out.mp4", "file"])
def test_folder_outputs_that_cannot_be(tmp_path: Path, detector: Detector, output: str) -> None:
    write_image(tmp_path / "in" / "a.png")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError):
        detect.run(detector, tmp_path / "in", output=tmp_path / output)
    assert contents(tmp_path) == {"in/a.png", "file"}


def test_a_hard_link_to_the_source_is_the_source(tmp_path: Path, detector: Detector) -> None:
    source = write_image(tmp_path / "a.png")
    os.link(source, tmp_path / "b.png")
    with pytest.raises(UsageError, match="not all different"):
        detect.run(detector, source, output=tmp_path / "b.png")


def test_lines_over_the_source_or_the_output(tmp_path: Path, detector: Detector) -> None:
    source = write_image(tmp_path / "a.png")
    with pytest.raises(UsageError, match="not all different"):
        detect.run(detector, source, jsonl=source)
    with pytest.raises(UsageError, match="not all different"):
        detect.run(detector, source, output=tmp_path / "b.png", jsonl=tmp_path / "b.png")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="NO /dev/full on this system")
def test_lines_on_a_full_disk(tmp_path: Path, detector: Detector) -> None:
    source = write_video(tmp_path / "v.mp4")
    with pytest.raises(UsageError, match="cannot write /dev/full: No space"):
        detect.run(detector, source, output=tmp_path / "o.mp4", jsonl=Path("/dev/full"))
    assert contents(tmp_path) == {"v.mp4"}


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from raudo.commands import detect
from raudo.backends.null import NullBackend, NullEngine, canned
from raudo.detector import Detector
from raudo.errors import UsageError
from raudo.records import Spec
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
spec = Spec(family="any", height=64, width=64, classes=("cat",))
detector = Detector(NullEngine(spec, canned(spec)))
try:
    detect.run(detector, sys.argv[1], output=Path(sys.argv[2]))
except UsageError as error:
    print(error.message)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="NO file size limit on Windows")
@pytest.mark.parametrize("name", ["v.mp4", "a.png"])
def test_pictures_on_a_full_disk(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 240, 320, 3), np.uint8)
    source = tmp_path / name
    if name == "a.png":
        cv2.imwrite(str(source), noise[0])
    else:
        writer = cv2.VideoWriter(str(source), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (320, 240))
        for frame in noise:
            writer.write(frame)
        writer.release()
    command = [sys.executable, "-c", FULL_DISK, str(source), str(tmp_path / "out" / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"cannot write {tmp_path / 'out' / name}")
    assert contents(tmp_path) == {name}


def test_a_frame_of_another_size_ends_a_video(tmp_path: Path, detector: Detector) -> None:
    class Growing:
        fps, frames = 25.0, None

        def __iter__(self) -> Any:
            for side in (32, 32, 64):
                yield 0.0, np.zeros((side, side, 3), np.uint8)

        def close(self) -> None:
            pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "open_camera", lambda index: Growing())
        with pytest.raises(DataError, match="frame 2 of 7 is 64x64, but the first is 32x32"):
            detect.run(detector, "7", output=tmp_path / "o.mp4")
        assert contents(tmp_path) == set()
        assert detect.run(detector, "7", jsonl=tmp_path / "l.jsonl").frames == 3


def test_sources_that_cannot_be(tmp_path: Path, detector: Detector) -> None:
    (tmp_path / "a.pdf").touch()
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    (tmp_path / "empty").mkdir()
    for name, words in {
        "a.pdf": "suffix of neither",
        "a.gif": "GIF, which is not supported",
        "empty": "no image in",
        "absent.mp4": "no such image, folder or video",
    }.items():
        with pytest.raises(DataError, match=words):
            detect.run(detector, tmp_path / name, jsonl=tmp_path / "l.jsonl")
    with pytest.raises(DataError, match="rtsp://camera/1 is an address") as caught:
        detect.run(detector, "rtsp://camera/1", jsonl=tmp_path / "l.jsonl")
    assert "C++" in caught.value.hint
    assert not (tmp_path / "l.jsonl").exists()


@pytest.fixture
def engine(tmp_path: Path, detector: Detector) -> Path:
    outputs = canned(detector.spec, anchors=200, objects=OBJECTS, seed=1)
    return write_canned(tmp_path / "engine" / "e.npz", detector.spec, outputs).path


class Listening(Listener):
    """Stands for the pipeline's listener, which the command line implements."""

    def __init__(self) -> None:
        self.heard: list[float | None] = []

    def step(self, title: str, total: float | None = None) -> None:
        self.heard.append(total)

    def advance(self, done: float, total: float | None = None) -> None:
        self.heard.append(done)


def test_a_request_loads_the_engine_and_tells_its_progress(
    tmp_path: Path, detector: Detector, engine: Path
) -> None:
    told = Listening()
    source = write_video(tmp_path / "v.mp4", 3)
    lines = tmp_path / "l.jsonl"
    request = detect.DetectRequest(engine, str(source), jsonl=lines, confidence=0.5, iou=0.1)
    detect.detect(request, told)
    assert told.heard == [None, 3, 1, 2, 3]
    found = [found for line in read_lines(lines) for found in line["detections"]]
    assert len(found) > 3
    assert min(one["score"] for one in found) >= 0.5


def test_only_some_classes(tmp_path: Path, detector: Detector, engine: Path) -> None:
    source = write_image(tmp_path / "a.png")
    present = {int(label) for label in detector.detect(source).labels}
    label = min(present)

    def labels(*words: str) -> set[int]:
        request = detect.DetectRequest(
            engine, str(source), jsonl=tmp_path / "l.jsonl", classes=words
        )
        detect.detect(request, Listening())
        (line,) = read_lines(tmp_path / "l.jsonl")
        return {found["label"] for found in line["detections"]}

    assert labels(detector.spec.classes[label]) == labels(str(label)) == {label}
    assert labels(*(str(one) for one in range(3))) == present
    with pytest.raises(UsageError, match="no class 'unicorn'"):
        labels("cat", "unicorn")


class Shades(NullEngine):
    """Finds a box as wide as the mean of the image is bright; may fail, or keep a run waiting."""

    def __init__(self, spec: Spec, fails_at: int | None = None) -> None:
        super().__init__(spec, canned(spec))
        self.fails_at = fails_at
        self.batches: list[int] = []

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        self.batches.append(len(images))
        if self.fails_at is not None and sum(self.batches) > self.fails_at:
            raise EngineError("the engine broke down", hint="none")
        time.sleep(next(PAUSES))
        boxes = np.zeros((len(images), 1, 4), np.float32)
        boxes[:, 0, 2] = images.mean(axis=(1, 2, 3)) / 8
        boxes[:, 0, 3] = 50
        scores = np.zeros((len(images), 1, 3), np.float32)
        scores[:, 0, 1] = 0.9
        return Outputs(boxes, scores)


PAUSES = itertools.cycle((0.0, 0.003, 0.0, 0.001))


def shades(
    streams: int = 2, batch: int = 1, fails_at: int | None = None
) -> tuple[Detector, Shades]:
    spec = Spec(family="any", height=64, width=64, classes=("cat", "dog", "ñandú"))
    engine = Shades(spec, fails_at)
    return Detector(engine, resources=Resources(streams=streams, batch=batch)), engine


@pytest.mark.parametrize(("streams", "batch"), [(1, 1), (2, 1), (3, 4), (2, 50)])
def test_both_modes_find_the_same_in_a_video(tmp_path: Path, streams: int, batch: int) -> None:
    source = write_video(tmp_path / "v.mp4", 23)
    detector, engine = shades(streams, batch)
    one_by_one = detect.run(detector, source, jsonl=tmp_path / "a", output=tmp_path / "a.mp4")
    assert engine.batches == [1] * 23
    engine.batches.clear()
    together = detect.run(
        detector, source, mode="throughput", jsonl=tmp_path / "b", output=tmp_path / "b.mp4"
    )
    assert sum(engine.batches) == 23
    assert max(engine.batches) == min(batch, 23)
    assert together.detections == one_by_one.detections == 23
    lines = read_lines(tmp_path / "a")
    assert read_lines(tmp_path / "b") == lines
    assert [line["frame"] for line in lines] == list(range(23))
    assert len({tuple(line["detections"][0]["box"]) for line in lines}) > 15
    for left, right in zip(
        images.read_video(tmp_path / "a.mp4"), images.read_video(tmp_path / "b.mp4"), strict=True
    ):
        assert np.array_equal(left, right)


def test_a_folder_of_images_of_all_sizes(tmp_path: Path) -> None:
    for number, size in enumerate([(30, 40), (40, 30), (7, 9), (100, 20), (64, 64)]):
        write_image(tmp_path / "in" / f"{number}.png", 50 * number, size)
    (tmp_path / "in" / "2b.png").write_bytes(b"damaged")
    detector, _ = shades(streams=2, batch=2)
    summaries = {}
    for mode in MODES:
        lines, out = tmp_path / f"{mode}.jsonl", tmp_path / mode
        summaries[mode] = detect.run(detector, tmp_path / "in", mode=mode, jsonl=lines, output=out)
        assert contents(out) == {f"{number}.png" for number in range(5)}
    assert read_lines(tmp_path / "latency.jsonl") == read_lines(tmp_path / "throughput.jsonl")
    assert summaries["latency"].skipped == summaries["throughput"].skipped
    assert summaries["throughput"].frames == 5


def test_an_engine_that_fails_midway(tmp_path: Path) -> None:
    source = write_video(tmp_path / "v.mp4", 20)
    detector, _ = shades(streams=1, batch=4, fails_at=8)
    lines = tmp_path / "l.jsonl"
    with pytest.raises(EngineError, match="broke down"):
        detect.run(detector, source, mode="throughput", jsonl=lines, output=tmp_path / "o.mp4")
    assert [line["frame"] for line in read_lines(lines)] == list(range(8))
    assert contents(tmp_path) == {"v.mp4", "l.jsonl"}


def test_a_stop_reads_and_detects_no_further(tmp_path: Path) -> None:
    detector, engine = shades(streams=2, batch=3)
    source = write_video(tmp_path / "v.mp4", 20)
    summary = detect.run(detector, source, mode="throughput", max_frames=7)
    assert (summary.frames, sum(engine.batches), summary.skipped) == (7, 7, {})


@pytest.mark.parametrize("mode", MODES)
def test_a_cut_off_video_in_each_mode(tmp_path: Path, mode: Mode) -> None:
    source = write_video(tmp_path / "v.avi", frames=60)
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) // 2])
    summary = detect.run(shades(2, 2)[0], source, mode=mode)
    assert 10 < summary.frames < 50
    assert "of 60 frames" in summary.skipped[str(source)]


def test_a_video_without_a_frame_in_throughput_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_video(tmp_path / "v.avi", 1)
    monkeypatch.setattr(cv2.VideoCapture, "read", lambda self: (False, None), raising=False)
    with pytest.raises(DataError, match="no frame in"):
        detect.run(shades()[0], source, mode="throughput", output=tmp_path / "o.mp4")
    assert contents(tmp_path) == {"v.avi"}


def test_frames_that_change_their_size_midway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resized(self: images.Video) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        for number in range(12):
            side = 32 if number < 6 else 80
            yield number * 40.0, np.full((side, side, 3), 20 * number, np.uint8)

    monkeypatch.setattr(images.Video, "__iter__", resized)
    source, detector = write_video(tmp_path / "v.mp4", 12), shades(2, 4)[0]
    for mode in MODES:
        summary = detect.run(detector, source, mode=mode, jsonl=tmp_path / mode)
        assert summary.frames == 12
        with pytest.raises(DataError, match=r"frame 6 of .* is 80x80, but the first is 32x32"):
            detect.run(detector, source, mode=mode, output=tmp_path / "o.mp4")
    lines = read_lines(tmp_path / "throughput")
    assert lines == read_lines(tmp_path / "latency")
    assert [line["width"] for line in lines] == [32] * 6 + [80] * 6


def test_an_interrupt_while_several_are_worked_on(tmp_path: Path) -> None:
    def interrupt(done: int, total: int | None) -> None:
        if done == 5:
            raise KeyboardInterrupt

    summary = detect.run(
        shades(2, 2)[0],
        write_video(tmp_path / "v.mp4", 40),
        mode="throughput",
        jsonl=tmp_path / "l.jsonl",
        output=tmp_path / "o.mp4",
        on_progress=interrupt,
    )
    assert summary.interrupted
    assert summary.frames == len(read_lines(tmp_path / "l.jsonl")) == 5
    assert len(list(images.read_video(tmp_path / "o.mp4"))) == 5


@pytest.mark.parametrize(
    ("make", "mode", "opened"),
    [
        (write_video, None, "throughput"),
        (write_video, "latency", "latency"),
        (write_image, None, "latency"),
        (write_image, "throughput", "throughput"),
    ],
)
def test_the_mode_of_a_source(
    tmp_path: Path,
    engine: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], Path],
    mode: Mode | None,
    opened: Mode,
) -> None:
    asked: list[Mode] = []

    def load(*arguments: Any, **options: Any) -> Detector:
        asked.append(options["mode"])
        return load_detector(*arguments, **options)

    monkeypatch.setattr("raudo.commands.detect.load", load)
    source = make(tmp_path / ("v.mp4" if make is write_video else "a.png"))
    detect.detect(detect.DetectRequest(engine, str(source), mode=mode), Listening())
    assert asked == [opened]
    with pytest.raises(UsageError, match="no mode hasty"):
        detect.detect(detect.DetectRequest(engine, str(source), mode="hasty"), Listening())


@pytest.mark.slow
def test_both_modes_find_the_same_on_the_highway(
    tmp_path: Path, samples: Path, tiny_onnx: Path, tiny_spec: Spec
) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / tiny_onnx.name
    path.write_bytes(tiny_onnx.read_bytes())
    manifest = Manifest(
        name="onnxruntime-fp32",
        backend="onnxruntime",
        precision="fp32",
        spec=tiny_spec,
        source=path.name,
        source_sha256="0",
        files_sha256={path.name: sha256(path)},
    )
    write_manifest(Artifact(path, manifest))
    for mode in MODES:
        request = detect.DetectRequest(
            path,
            str(samples / "highway_960x540.mp4"),
            mode=mode,
            confidence=0.4,
            jsonl=tmp_path / mode,
        )
        assert detect.detect(request, Listening()).frames == 221
    lines = read_lines(tmp_path / "throughput")
    assert lines == read_lines(tmp_path / "latency")
    assert len({len(line["detections"]) for line in lines}) > 1
