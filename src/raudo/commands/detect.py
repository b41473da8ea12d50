"""Runs a detector over an image, a folder, a video or a camera, and writes what it found."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from raudo.detector import MODES, Mode, load
from raudo.errors import UsageError
from raudo.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from raudo.media.draw import draw
from raudo.media.frames import Frame, Reader, Source, find_source
from raudo.media.outputs import Lines, describe, open_writer
from raudo.media.stream import overlap
from raudo.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from raudo.detector import Detector
    from raudo.listener import Listener
    from raudo.records import Detections


@dataclass(frozen=True)
class DetectRequest:
    """What `raudo detect` is asked for.

    Attributes:
        engine: An engine file, or a run folder.
        source: An image, a folder of images, a video, or the index of a camera.
        output: Where to write images or the video with boxes drawn on them: a file or a folder.
        jsonl: Where to write one JSON object a line for each frame.
        confidence: Lowest score that is kept.
        iou: NMS threshold; None takes the model family's own.
        classes: Names or numbers of the classes to keep; None keeps all.
        target: Which decision of a run folder to follow; None takes the best that passed.
        max_frames: Frames after which to stop.
        mode: latency detects in each frame as it comes, with all cores; throughput reads ahead and
            works on several at once. The detections are the same. None takes throughput for
            videos and folders, latency for images and cameras.
        trust_checkpoint: Open a checkpoint even though it imports unknown code.
    """

    engine: Path
    source: str
    output: Path | None = None
    jsonl: Path | None = None
    confidence: float = 0.25
    iou: float | None = None
    classes: tuple[str, ...] | None = None
    target: str | None = None
    max_frames: int | None = None
    mode: Mode | str | None = None
    trust_checkpoint: bool = False


class Summary(Record):
    """What a run over a source did."""

    source: str
    frames: int = Field(description="Frames that were looked at")
    detections: int
    skipped: dict[str, str] = Field(description="Why, by the file that was not (wholly) read")
    seconds: float = Field(description="Decoding, drawing and writing included")
    fps: float
    outputs: tuple[Path, ...] = Field(description="Files and folders that were written")
    interrupted: bool = Field(
        description="Stopped by Ctrl-C; the outputs are kept as far as it got"
    )


def detect(request: DetectRequest, listener: Listener) -> Summary:
    """Load an engine and run it over a source.

    Raises:
        RaudoError: The engine, the source or an output cannot be used.
    """
    mode = _mode(request)
    listener.step(f"load {request.engine}")
    began = False

    def progress(done: int, total: int | None) -> None:
        nonlocal began
        if not began:
            listener.step(f"detect in {request.source}", total)
            began = True
        listener.advance(done)

    with load(
        request.engine,
        target=request.target,
        confidence=request.confidence,
        iou=request.iou,
        classes=request.classes,
        mode=mode,
        trust_checkpoint=request.trust_checkpoint,
    ) as detector:
        return run(
            detector,
            request.source,
            mode=mode,
            output=request.output,
            jsonl=request.jsonl,
            max_frames=request.max_frames,
            on_progress=progress,
        )


def _mode(request: DetectRequest) -> Mode:
    """Return the mode asked for; otherwise frames that are all there may wait for each other."""
    if request.mode is None:
        stored = find_source(request.source).kind in {"folder", "video"}
        return "throughput" if stored else "latency"
    for mode in MODES:
        if mode == request.mode:
            return mode
    raise UsageError(f"there is no mode {request.mode}", hint=f"choose {' or '.join(MODES)}")


def run(
    detector: Detector,
    source: str | Path,
    *,
    mode: Mode = "latency",
    output: Path | None = None,
    jsonl: Path | None = None,
    max_frames: int | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> Summary:
    """Detect in every frame of a source.

    Images and videos get their names once they are whole. The lines of `jsonl` are whole each, and
    written at once, so that another program can follow them. After Ctrl-C, what there is so far
    is finished and kept, and the summary says so.

    Args:
        detector: What detects.
        source: An image, a folder of images, a video, or the index of a camera.
        mode: latency detects in each frame as it comes; throughput reads ahead, and works on as
            many frames at once as the detector was opened for, while this thread draws and writes.
        output: Where to write images or the video with boxes drawn on them: a file or a folder.
        jsonl: Where to write one JSON object a line for each frame.
        max_frames: Frames after which to stop.
        on_progress: Called with the frames done and their number (None where it is unknown).

    Raises:
        UsageError: An output cannot be written, or is the input itself.
        DataError: The source is missing or unreadable; of a folder, every image is.
    """
    if max_frames is not None and max_frames < 1:
        raise UsageError(f"cannot stop after {max_frames} frames", hint="give at least 1")
    origin = find_source(source)
    target = None if output is None else _target(origin, output)
    _check_apart(origin, target, jsonl)
    reader = Reader(origin)
    classes = detector.spec.classes
    frames = found = 0
    interrupted = False
    start = time.perf_counter()
    with (
        reader,
        open_writer(origin, target, reader) as writer,
        Lines(jsonl) as lines,
        contextlib.closing(_detected(detector, islice(reader, max_frames), mode)) as detected,
    ):
        try:
            for frame, detections in detected:
                if jsonl is not None:
                    lines.write(describe(frame, detections, classes))
                if writer is not None:
                    writer.write(frame, draw(frame.image, detections, classes))
                frames, found = frames + 1, found + len(detections)
                if on_progress is not None:
                    on_progress(frames + len(reader.skipped), _least(reader.total, max_frames))
            if frames != max_frames:
                reader.check_end(frames)
        except KeyboardInterrupt:
            interrupted = True
    seconds = time.perf_counter() - start
    return Summary(
        source=str(source),
        frames=frames,
        detections=found,
        skipped=reader.skipped,
        seconds=seconds,
        fps=frames / seconds,
        outputs=tuple(path for path in (target, jsonl) if path is not None and path.exists()),
        interrupted=interrupted,
    )


def _detected(
    detector: Detector, frames: Iterable[Frame], mode: Mode
) -> Generator[tuple[Frame, Detections], None, None]:
    """Yield frames with what was found in them, in order."""
    if mode == "latency":
        return ((frame, detector.detect(frame.image)) for frame in frames)

    def work(some: Sequence[Frame]) -> list[Detections]:
        return detector.detect_batch([frame.image for frame in some])

    resources = detector.resources
    return overlap(frames, work, workers=resources.streams, batch=resources.batch)


def _least(*numbers: int | None) -> int | None:
    return min((number for number in numbers if number is not None), default=None)


def _target(origin: Source, output: Path) -> Path:
    """Return the file, or for a folder the folder, that the drawn frames go to."""
    suffix = output.suffix.lower()
    if origin.kind == "folder":
        if output.is_file() or suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
            raise UsageError(
                f"{output} is no folder, but {origin.path} is one", hint="give --output a folder"
            )
        return output
    if output.is_dir() or not suffix:
        if origin.kind == "image":
            return output / origin.path.name
        prefix = "camera-" if origin.kind == "camera" else ""
        return output / f"{prefix}{origin.path.stem}.mp4"
    allowed = IMAGE_SUFFIXES if origin.kind == "image" else {".mp4"}
    if suffix not in allowed:
        raise UsageError(
            f"cannot write {output}: what is made from this source is one of "
            f"{', '.join(sorted(allowed))}",
            hint="give --output such a file, or a folder",
        )
    return output


def _check_apart(origin: Source, target: Path | None, jsonl: Path | None) -> None:
    """Refuse to overwrite the source, or one output with the other."""
    paths = [path.resolve() for path in (origin.path, target, jsonl) if path is not None]
    if len(set(paths)) < len(paths) or any(
        path is not None and path.exists() and origin.path.exists() and path.samefile(origin.path)
        for path in (target, jsonl)
    ):
        raise UsageError(
            "the source and the outputs are not all different files",
            hint="give --output and --jsonl names of their own",
        )
