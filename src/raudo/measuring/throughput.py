"""Measures how many frames a second an engine does, with several of them under way at once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from raudo.errors import RaudoError
from raudo.machine import available_threads
from raudo.plan import variant_of
from raudo.records import Throughput
from raudo.workspace import read_artifact

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from raudo.worker import Worker

log = logging.getLogger(__name__)

NOISE = 0.9
"""Of settings that reach this share of the most frames a second, none is certainly the fastest."""


def best_setting(measured: Sequence[Throughput]) -> Throughput | None:
    """Return the setting to use: of those that may be the fastest, the one with most streams.

    They were measured on frames in memory, for a second or so each. Where frames are decoded
    beside them, cores that share an image wait for each other: with one stream instead of two, a
    video took 1.5 times as long, frames in memory 1.2 times.

    Args:
        measured: All settings; none gives None.
    """
    most = max((setting.fps for setting in measured), default=0.0)
    fast = [setting for setting in measured if setting.fps >= NOISE * most]
    return max(fast, key=lambda setting: (setting.streams, -setting.batch), default=None)


def throughput(
    worker: Worker, engine: Path, *, trust: bool, seconds: float
) -> tuple[Throughput, ...]:
    """Measure frames a second of one engine at several numbers of streams and batch sizes.

    Larger batches are tried with the number of streams that is best for a batch of one: runtimes
    load, and some compile, an engine anew for each setting, which takes longer than to measure it.

    Args:
        worker: It has the engine loaded, at one stream and batch 1, and its frames.
        engine: The engine file.
        trust: Open a checkpoint even though it imports unknown code.
        seconds: How long to run at each.
    """
    threads = available_threads()
    manifest = read_artifact(engine).manifest
    variant = variant_of(manifest)
    streams_tried = {1}
    if variant is None or variant.streams:
        streams_tried |= {max(1, threads // 2), threads}
    found: list[Throughput] = []
    for streams in sorted(streams_tried):
        if found:
            worker.call("load", engine, threads, streams, 1, trust)
        fps = worker.call("throughput", seconds)
        found.append(Throughput(streams=streams, batch=1, fps=fps))
    best = best_setting(found)
    assert best is not None  # noqa: S101 (one stream was measured)
    for batch in sorted(set(variant.batches if variant else ()) - {1}):
        try:
            worker.call("load", engine, threads, best.streams, batch, trust)
        except RaudoError as error:
            # A file that someone else exported may have its batch fixed at one.
            log.info("%s takes no batch of %d: %s", manifest.name, batch, error)
            continue
        fps = worker.call("throughput", seconds)
        found.append(Throughput(streams=best.streams, batch=batch, fps=fps))
    return tuple(found)
