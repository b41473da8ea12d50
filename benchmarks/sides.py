"""One side of a comparison: a detector in its own process, timed while the other side sleeps."""

from __future__ import annotations

import multiprocessing
import os
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from raudo import images
from raudo.commands import detect
from raudo.detector import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

Kind = Literal["latency", "throughput"]
FRAMES, WARM_UP = 24, 3


@dataclass(frozen=True)
class Timing:
    """What one turn gave.

    Attributes:
        ms: Milliseconds a frame: the median for latency, the mean for throughput.
        found: Detections in all frames.
        frames: Number of frames.
    """

    ms: float
    found: int
    frames: int


@dataclass(frozen=True)
class Side(ABC):
    """A detector, and what it is timed on.

    Attributes:
        name: What the table calls it.
        model: The file that it opens.
        source: A video, or a folder of images.
        kind: latency: frames in memory, one by one; throughput: the whole video, decoding included.
    """

    name: str
    model: Path
    source: Path
    kind: Kind

    @abstractmethod
    def open(self) -> tuple[Callable[[NDArray[np.uint8]], int], Callable[[], tuple[int, int]]]:
        """Load it; return what detects in a frame, and what detects in the whole source.

        The first returns the number of detections, the second that and the number of frames.
        """

    def frames(self) -> list[NDArray[np.uint8]]:
        """Return a few frames of the source, evenly spaced."""
        if self.source.is_dir():
            files = images.list_images(self.source)
            return [images.decode(f) for f in files[:: max(1, len(files) // FRAMES)][:FRAMES]]
        every = list(images.read_video(self.source))
        return every[:: max(1, len(every) // FRAMES)][:FRAMES]


@dataclass(frozen=True)
class Raudo(Side):
    """raudo, as a user loads it."""

    def open(self) -> tuple[Callable[[NDArray[np.uint8]], int], Callable[[], tuple[int, int]]]:
        """See `Side.open`."""
        detector = load(self.model, mode=self.kind)

        def whole() -> tuple[int, int]:
            summary = detect.run(detector, self.source, mode=self.kind)
            return summary.detections, summary.frames

        return lambda frame: len(detector.detect(frame)), whole


@dataclass(frozen=True)
class Ultralytics(Side):
    """Ultralytics' `predict` with its own defaults, on the CPU."""

    def open(self) -> tuple[Callable[[NDArray[np.uint8]], int], Callable[[], tuple[int, int]]]:
        """See `Side.open`."""
        os.environ.setdefault("YOLO_OFFLINE", "1")
        os.environ.setdefault("YOLO_AUTOINSTALL", "0")
        from ultralytics import YOLO

        model: Any = YOLO(self.model, task="detect")

        def one(frame: NDArray[np.uint8]) -> int:
            return len(model.predict(frame, device="cpu", verbose=False)[0].boxes)

        def whole() -> tuple[int, int]:
            results = model.predict(str(self.source), stream=True, device="cpu", verbose=False)
            found = [len(result.boxes) for result in results]
            return sum(found), len(found)

        return one, whole


class Process:
    """A side in a process of its own; a context manager."""

    def __init__(self, side: Side) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.side = side
        self._pipe, there = spawn.Pipe()
        self._process = spawn.Process(target=_answer, args=(there, side), daemon=True)
        self._process.start()
        there.close()
        self._pipe.recv()

    def turn(self) -> Timing:
        """Let it detect in its source once."""
        self._pipe.send("turn")
        timing: Timing = self._pipe.recv()
        return timing

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pipe.close()
        self._process.join()


def _answer(pipe: Connection, side: Side) -> None:
    one, whole = side.open()
    frames = side.frames()
    one(frames[0])
    pipe.send("ready")
    try:
        while pipe.recv():
            pipe.send(_latency(one, frames) if side.kind == "latency" else _throughput(whole))
    except EOFError:
        return


def _latency(one: Callable[[NDArray[np.uint8]], int], frames: list[NDArray[np.uint8]]) -> Timing:
    for frame in frames[:WARM_UP]:
        one(frame)
    times, found = [], 0
    for frame in frames:
        start = time.perf_counter()
        found += one(frame)
        times.append(time.perf_counter() - start)
    return Timing(float(np.median(times)) * 1e3, found, len(frames))


def _throughput(whole: Callable[[], tuple[int, int]]) -> Timing:
    start = time.perf_counter()
    found, frames = whole()
    return Timing((time.perf_counter() - start) / frames * 1e3, found, frames)
