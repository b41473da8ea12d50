"""What a worker's process can do: it makes engines, or runs one on the frames it is timed on."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from raudo.errors import WorkerError
from raudo.machine import available_threads, peak_memory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from raudo.backends.base import Outputs
    from raudo.build import Calibrations, ModelFile, ModelInfo
    from raudo.detector import Detector
    from raudo.inputs.data import CalibrationSet
    from raudo.measuring.sensitivity import Remedy
    from raudo.plan import Plan
    from raudo.records import Artifact, Detections, NodeProfile, PrecisionAudit


@dataclass(frozen=True)
class Opened:
    """What opening an engine told.

    Attributes:
        load_seconds: From the file to the first result.
        audit: What the engine really executes.
    """

    load_seconds: float
    audit: PrecisionAudit


@dataclass(frozen=True)
class Probe:
    """What one image became at each stage of the runtime path.

    Attributes:
        size: Input (height, width) in pixels that the image took.
        prepared_sha256: Hash of the letterboxed bytes.
        outputs: Raw outputs of the engine.
        detections: In pixels of the image, at the default confidence.
    """

    size: tuple[int, int]
    prepared_sha256: str
    outputs: Outputs
    detections: Detections


class Station:
    """The answering side: makes engines, or runs one on the frames it is timed on."""

    def __init__(self) -> None:
        self._detector: Detector | None = None
        self._frames: list[NDArray[np.uint8]] = []
        self._batch = 1
        self._streams = 1

    @property
    def detector(self) -> Detector:
        """The open detector."""
        if self._detector is None:
            raise WorkerError("no engine is open", hint="call 'open' first")
        return self._detector

    def inspect(self, file: ModelFile) -> ModelInfo:
        """Open a model file and tell what it is."""
        from raudo.build import inspect_model

        return inspect_model(file)

    def write_onnx(self, file: ModelFile, path: Path) -> None:
        """Write the contract ONNX file of a model."""
        from raudo.build import write_onnx

        write_onnx(file, path)

    def build(
        self,
        plan: Plan,
        file: ModelFile,
        info: ModelInfo,
        onnx: Path,
        engine: Path,
        calibration: CalibrationSet | None,
    ) -> Artifact:
        """Make one engine file; see `raudo.build.build`."""
        from raudo.build import build

        return build(plan, file, info, onnx, engine, calibration, self._calibrations)

    @cached_property
    def _calibrations(self) -> Calibrations:
        from raudo.build import Calibrations

        return Calibrations()

    def find_remedy(
        self,
        plan: Plan,
        info: ModelInfo,
        onnx: Path,
        calibration: CalibrationSet,
        seconds: float,
    ) -> Remedy:
        """Measure what makes a quantized engine lose less; see `sensitivity.find_remedy`.

        Args:
            plan: The quantized candidate.
            info: What the model is.
            onnx: The model's contract ONNX file.
            calibration: Images to measure on; validation's are never looked at.
            seconds: Most time to take.
        """
        from raudo.build import prepared
        from raudo.measuring.sensitivity import MOST_IMAGES, Laboratory, find_remedy

        images = prepared(calibration.some(MOST_IMAGES), info.spec)
        return find_remedy(Laboratory.of(plan, info.spec, onnx), images, seconds)

    def keep_compiled(self, engine: Path, batch: int, trust: bool) -> Opened:
        """Load an engine file, and keep what its runtime compiles: its users start from it.

        That serves any number of threads and streams.
        """
        return self.open(engine, available_threads(), 1, batch, trust, kept=True)

    def open(
        self,
        engine: Path,
        threads: int,
        streams: int,
        batch: int,
        trust: bool,
        *,
        kept: bool = False,
    ) -> Opened:
        """Load an engine file, and tell what it really executes; see `load`."""
        seconds = self.load(engine, threads, streams, batch, trust, kept=kept)
        return Opened(seconds, self.detector.engine.audit())

    def load(
        self,
        engine: Path,
        threads: int,
        streams: int,
        batch: int,
        trust: bool,
        *,
        kept: bool = False,
    ) -> float:
        """Load an engine file, closing the one before; returns the seconds to its first result.

        One that several streams are not worth trying for gets one: PyTorch compiles the number of
        threads in, and would compile for validation what it does not time.
        """
        import numpy as np

        from raudo.backends.base import Resources
        from raudo.detector import open_artifact
        from raudo.plan import variant_of
        from raudo.workspace import read_artifact

        if self._detector is not None:
            self._detector.close()
        artifact = read_artifact(engine)
        variant = variant_of(artifact.manifest)
        streams = streams if variant is None or variant.streams else 1
        start = time.perf_counter()
        resources = Resources(threads=threads, streams=streams, batch=batch, kept=kept)
        self._detector = open_artifact(artifact, resources, trust=trust)
        for spec in self._detector.engine.specs:
            self._detector.engine.run(np.zeros((batch, spec.height, spec.width, 3), np.uint8))
        self._batch, self._streams = batch, streams
        return time.perf_counter() - start

    def load_frames(self, files: Sequence[Path]) -> list[float]:
        """Decode images and keep them for timing; returns the seconds that each took."""
        from raudo.images import decode

        seconds = []
        self._frames = []
        for file in files:
            start = time.perf_counter()
            self._frames.append(decode(file))
            seconds.append(time.perf_counter() - start)
        return seconds

    def time(self, indices: Sequence[int]) -> list[tuple[float, float, float]]:
        """Detect in kept frames, one by one; returns seconds of prepare, infer and select."""
        detector = self.detector
        taken = []
        for index in indices:
            frame = self._frames[index % len(self._frames)]
            start = time.perf_counter()
            batch, fits = detector.prepare([frame])
            prepared = time.perf_counter()
            outputs = detector.engine.run(batch)
            inferred = time.perf_counter()
            detector.select(outputs, fits)
            taken.append((prepared - start, inferred - prepared, time.perf_counter() - inferred))
        return taken

    def profile(self) -> tuple[NodeProfile, ...]:
        """Time the nodes of the open engine on kept frames, and add them up by kind."""
        from raudo.measuring.profiling import by_kind

        return by_kind(self.detector.engine.profile(self._kept_batch()))

    def _kept_batch(self) -> NDArray[np.uint8]:
        frames = [self._frames[i % len(self._frames)] for i in range(self._batch)]
        return self.detector.prepare(frames)[0]

    def time_network(self, runs: int) -> list[tuple[float, float]]:
        """Run the open engine; returns seconds of the network alone, and of `Engine.run`.

        The latter copies to the device and back; where nothing is copied they are the same.
        """
        engine, batch, whole = self.detector.engine, self._kept_batch(), []
        for _ in range(runs):
            start = time.perf_counter()
            engine.run(batch)
            whole.append(time.perf_counter() - start)
        alone = engine.time_network(batch, runs) or tuple(whole)
        return list(zip(alone, whole, strict=True))

    def throughput(self, seconds: float) -> float:
        """Detect in kept frames on all streams for a while; returns frames a second."""
        detector, frames, size = self.detector, itertools.cycle(self._frames), self._batch

        def work(deadline: float) -> int:
            done = 0
            while time.perf_counter() < deadline:
                detector.detect_batch(list(itertools.islice(frames, size)))
                done += size
            return done

        def warm_up(_stream: int) -> None:
            detector.detect_batch(list(itertools.islice(frames, size)))

        with ThreadPoolExecutor(self._streams) as pool:
            list(pool.map(work, [0.0] * self._streams))
            list(pool.map(warm_up, range(self._streams)))
            start = time.perf_counter()
            done = sum(pool.map(work, [start + seconds] * self._streams))
        return done / (time.perf_counter() - start)

    def evaluate(self, files: Sequence[Path]) -> list[Detections]:
        """Detect in image files at the setting that mAP is computed at, on all streams."""
        from raudo.detector import EVALUATION, Detector
        from raudo.media.stream import overlap

        detector = Detector(self.detector.engine, EVALUATION)

        def work(some: Sequence[Path]) -> list[Detections]:
            return [detector.detect(file) for file in some]

        return [found for _, found in overlap(files, work, workers=self._streams)]

    def probe(self, files: Sequence[Path]) -> list[Probe]:
        """Follow image files through every stage."""
        import hashlib

        from raudo.backends.base import Outputs
        from raudo.images import decode

        probes = []
        for file in files:
            batch, fits = self.detector.prepare([decode(file)])
            raw = self.detector.engine.run(batch)
            labels = None if raw.labels is None else raw.labels.copy()
            outputs = Outputs(raw.boxes.copy(), raw.scores.copy(), labels)
            digest = hashlib.sha256(batch.tobytes()).hexdigest()
            found = self.detector.select(outputs, fits)[0]
            probes.append(Probe((batch.shape[1], batch.shape[2]), digest, outputs, found))
        return probes

    def peak_memory(self) -> int:
        """Return the most memory that this process ever had resident, in bytes."""
        return peak_memory()
