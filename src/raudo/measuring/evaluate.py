"""Runs engines over images in their own processes: what they find, and what they make of pixels."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raudo.machine import available_threads
from raudo.records import Detections
from raudo.workspace import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from raudo.measuring.station import Opened, Probe
    from raudo.worker import Worker

CHUNK = 8
CHUNK_SECONDS = 2.0
"""Between two images that are waited for, the streams run dry: not more often than this."""
MOST_STREAMS = 8
"""Images worked on at once; with more cores than that, each gets several."""
PROBED_IMAGES = 4


@dataclass(frozen=True)
class Evaluation:
    """What one engine did with a set of images.

    Attributes:
        opened: How it loaded, and what it really executes.
        detections: Per image, at the setting that mAP is computed at.
        probes: The first few images at every stage.
        seconds: What detecting took, decoding included; of images that were known, nothing.
    """

    opened: Opened
    detections: list[Detections]
    probes: list[Probe]
    seconds: float = 0.0


def evaluate(
    worker: Worker,
    engine: Path,
    files: Sequence[Path],
    *,
    trust: bool,
    known: list[Detections] | None = None,
    opened: Opened | None = None,
    on_images: Callable[[int], None] = lambda _count: None,
) -> Evaluation:
    """Open an engine in a worker and run it over image files, several at once.

    Args:
        worker: A worker of the engine's own.
        engine: The engine file.
        files: The images.
        trust: Open a checkpoint even though it imports unknown code.
        known: What an earlier, interrupted run found already.
        opened: What opening it told, where the worker has it open.
        on_images: Called with the number of images done.

    Raises:
        RaudoError: The engine does not load, or fails on an image.
    """
    threads = available_threads()
    if opened is None:
        opened = worker.call("open", engine, threads, min(threads, MOST_STREAMS), 1, trust)
    found = list(known or ())
    chunk, seconds = CHUNK, 0.0
    while len(found) < len(files):
        start = time.monotonic()
        found.extend(worker.call("evaluate", files[len(found) : len(found) + chunk]))
        taken = time.monotonic() - start
        on_images(len(found))
        chunk, seconds = max(CHUNK, int(chunk * CHUNK_SECONDS / max(taken, 1e-3))), seconds + taken
    return Evaluation(opened, found, worker.call("probe", files[:PROBED_IMAGES]), seconds)


def save_detections(path: Path, detections: Sequence[Detections]) -> None:
    """Keep the detections of a set of images in one `.npz` file."""
    with replacing(path) as draft:
        np.savez_compressed(
            draft,
            counts=np.array([len(d) for d in detections], np.int64),
            boxes=np.concatenate([d.boxes for d in detections]),
            scores=np.concatenate([d.scores for d in detections]),
            labels=np.concatenate([d.labels for d in detections]),
        )


def load_detections(path: Path) -> list[Detections]:
    """Read what `save_detections` kept."""
    with np.load(path, allow_pickle=False) as kept:
        cuts = np.cumsum(kept["counts"])[:-1]
        columns = (np.split(kept[name], cuts) for name in ("boxes", "scores", "labels"))
        return [Detections(*row) for row in zip(*columns, strict=True)]
