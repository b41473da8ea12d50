"""Work shared out over a Ray cluster: large folders of images."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raudo import images
from raudo.backends.base import Resources
from raudo.chosen import find_engine
from raudo.commands.detect import Summary
from raudo.detector import Selection, labels_of, open_artifact
from raudo.errors import DataError, MissingDependencyError, UsageError
from raudo.media.frames import Frame, find_source
from raudo.media.outputs import Lines, describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import ModuleType

    from raudo.commands.detect import DetectRequest
    from raudo.listener import Listener
    from raudo.records import Artifact

BLOCK = 64
"""Images that a process is given at once."""


@contextlib.contextmanager
def joined(environment: Mapping[str, str]) -> Iterator[ModuleType]:
    """Join the cluster that RAY_ADDRESS names, or start one of this machine alone; then leave it.

    Args:
        environment: Set before Ray is imported, which reads it then and never again.

    Raises:
        MissingDependencyError: Ray is not installed.
    """
    for name, value in ({"RAY_USAGE_STATS_ENABLED": "0"} | dict(environment)).items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError(
            "Ray is not installed", hint="pip install 'raudo[cluster]'"
        ) from error
    address = os.environ.get("RAY_ADDRESS", "local")
    ray.init(address=address, log_to_driver=False, logging_level="WARNING", include_dashboard=False)
    try:
        yield ray
    finally:
        ray.shutdown()


class FolderDetector:
    """An engine in one of the cluster's processes.

    Args:
        engine: The engine file, under a path that every machine knows.
        request: What is asked for.
    """

    def __init__(self, engine: Artifact, request: DetectRequest) -> None:
        spec = engine.manifest.spec
        kept = None if request.classes is None else labels_of(request.classes, spec)
        self._detector = open_artifact(
            engine,
            Resources(threads=1),
            Selection(confidence=request.confidence, iou=request.iou, classes=kept),
            trust=request.trust_checkpoint,
        )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Detect in one file; return its line, or why there is none."""
        file = Path(row["file"])
        try:
            frame = Frame(images.decode(file), file, row["number"], None)
        except DataError as error:
            return {"file": row["file"], "line": None, "problem": error.message}
        line = describe(frame, self._detector.detect(frame.image), self._detector.spec.classes)
        return {"file": row["file"], "line": json.dumps(line), "problem": None}


def detect_folder(request: DetectRequest, listener: Listener) -> Summary:
    """Detect in every image of a folder, on all cores or GPUs of a cluster.

    Engine and images have to lie under the same paths on every machine. The lines are those of
    `raudo.commands.detect.detect`, in the same order.

    Raises:
        UsageError: The source is no folder, or images shall be drawn.
        DataError: The folder has no image, or none that can be read.
        MissingDependencyError: Ray is not installed.
    """
    if find_source(request.source).kind != "folder" or request.output is not None:
        raise UsageError(
            "a cluster detects in folders only, and draws nothing",
            hint="give it a folder and --jsonl, or leave --cluster out",
        )
    engine = find_engine(request.engine, request.target)
    files = images.list_images(Path(request.source))[: request.max_frames]
    with joined({}) as ray, Lines(request.jsonl) as lines:
        listener.step(f"detect in {request.source}", len(files))
        start, found, skipped = time.perf_counter(), 0, dict[str, str]()
        for number, row in enumerate(_detected(ray, engine, files, request), 1):
            if row["problem"] is None:
                line = json.loads(row["line"])
                lines.write(line)
                found += len(line["detections"])
            else:
                skipped[row["file"]] = row["problem"]
            listener.advance(number)
        seconds = time.perf_counter() - start
    if len(skipped) == len(files):
        raise DataError(
            f"none of the {len(files)} images in {request.source} can be read",
            hint=next(iter(skipped.values())),
        )
    return Summary(
        source=request.source,
        frames=len(files) - len(skipped),
        detections=found,
        skipped=skipped,
        seconds=seconds,
        fps=(len(files) - len(skipped)) / seconds,
        outputs=() if request.jsonl is None else (request.jsonl,),
        interrupted=False,
    )


def _detected(
    ray: ModuleType, engine: Artifact, files: tuple[Path, ...], request: DetectRequest
) -> Iterable[dict[str, Any]]:
    """Yield what was found in each file, in their order."""
    from ray.data import ActorPoolStrategy, DataContext, from_items

    needs_gpu = engine.manifest.device == "gpu"
    processes = max(1, int(ray.cluster_resources().get("GPU" if needs_gpu else "CPU", 1)))
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    items = [{"number": number, "file": str(file)} for number, file in enumerate(files)]
    blocks = max(processes, len(items) // BLOCK)
    rows: Iterable[dict[str, Any]] = (
        from_items(items, override_num_blocks=min(blocks, len(items)))
        .map(
            FolderDetector,
            fn_constructor_args=(engine, request),
            compute=ActorPoolStrategy(size=processes),
            num_cpus=1,
            num_gpus=1 if needs_gpu else 0,
        )
        .iter_rows()
    )
    return rows
