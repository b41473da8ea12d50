"""Whole runs on canned engines, in this process: for tests of what a run does around them."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

import raudo
from raudo import benchmark, job, pipeline, plan
from raudo.backends import null
from raudo.backends.base import Variant
from raudo.backends.null import NullBackend, canned
from raudo.build import ModelInfo
from raudo.commands import export
from raudo.config import OptimizeSettings
from raudo.inputs import gathering
from raudo.measuring import station
from raudo.measuring.station import Opened, Station
from raudo.records import Artifact, Gpu, Manifest, PrecisionAudit, Spec
from raudo.reports import html
from raudo.workspace import read_artifact, sha256, write_manifest

if TYPE_CHECKING:
    from types import TracebackType

    import pytest
    from typing_extensions import Self

    from raudo.build import ModelFile
    from raudo.inputs.data import CalibrationSet
    from raudo.plan import Plan

CLASSES = ("cat", "dog")
SIDE = 128
SPEC = Spec(family="any", height=SIDE, width=SIDE, classes=CLASSES)
VARIANTS = (
    Variant("base", "fp32", {"call_ms": 2.0}, batches=(1,)),
    Variant("same", "fp32", batches=(1,), streams=False),
    Variant("other", "fp32", {"seed": 1}, batches=(1,)),
    Variant("small", "int8", batches=(1,)),
    Variant("gpu-base", "fp32", batches=(1,), device="gpu"),
    Variant("gpu-same", "fp32", batches=(1,), device="gpu"),
)
"""`null-base` is the baseline, and slow; `null-other` detects other things than all the rest.
Those for GPUs are candidates where there is one: see `with_gpu`."""
SAMPLES = Path(__file__).parents[1] / "samples"


@dataclass
class Faults:
    """What goes wrong, by action and candidate; and what was asked for, in order."""

    planned: dict[tuple[str, str], BaseException] = field(default_factory=dict)
    audits: dict[str, PrecisionAudit] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    limits: dict[tuple[str, str], float] = field(default_factory=dict)
    """Seconds that an action of a candidate was given."""

    def called(self, action: str) -> list[str]:
        """Return the candidates that an action was asked for, in order."""
        return [name for each, name in self.calls if each == action]


class Clock:
    """Stands for `time`: what sleeps lets it go on at once, and nothing else takes long.

    So a run that measures takes no longer than its arithmetic, however busy the machine. Each
    sleep and each look at it varies by a tenth, in the same way each time.
    """

    LOOK = 1e-4

    def __init__(self) -> None:
        self._lock, self._random, self._now = threading.Lock(), random.Random(0), 0.0

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._now += seconds * self._random.uniform(0.9, 1.1)

    def perf_counter(self) -> float:
        self.sleep(self.LOOK)
        return self._now

    monotonic = perf_counter


class CannedStation(Station):
    """Makes canned engines instead of real ones; all else is the real station."""

    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self._faults = faults

    def inspect(self, file: ModelFile) -> ModelInfo:
        height, width = file.size or (SIDE, SIDE)
        spec = SPEC.model_copy(update={"height": height, "width": width})
        return ModelInfo(spec, has_module=True, sha256=sha256(file.path))

    def write_onnx(self, file: ModelFile, path: Path) -> None:
        path.write_bytes(b"graph")

    def build(self, *arguments: Any) -> Artifact:
        return _build(*arguments)

    def open(self, engine: Path, *arguments: Any, **options: Any) -> Opened:
        opened = super().open(engine, *arguments, **options)
        precision = read_artifact(engine).manifest.precision
        audit = self._faults.audits.get(engine.stem, PrecisionAudit(found={precision: 1}))
        return Opened(opened.load_seconds, audit)


def _build(
    chosen: Plan,
    _file: ModelFile,
    info: ModelInfo,
    _onnx: Path,
    engine: Path,
    calibration: CalibrationSet | None,
) -> Artifact:
    seed, quantized = int(chosen.variant.options.get("seed", 0)), chosen.precision == "int8"
    NullBackend().write_graph(canned(info.spec, anchors=100, objects=3, seed=seed), engine)
    artifact = Artifact(
        engine,
        Manifest(
            name=chosen.name,
            backend=chosen.backend,
            precision=chosen.precision,
            device=chosen.variant.device,
            options=dict(chosen.variant.options),
            spec=info.spec,
            source="model.pt",
            source_sha256=info.sha256,
            files_sha256={engine.name: sha256(engine)},
            calibration=calibration.record if calibration and quantized else None,
        ),
    )
    write_manifest(artifact)
    return artifact


class InProcess:
    """A `Worker` without a process."""

    faults: Faults

    def __init__(self, name: str, *, timeout: float, **_options: Any) -> None:
        self.name, self._timeout = name, timeout
        self._station = CannedStation(self.faults)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def call(self, action: str, *arguments: Any) -> Any:
        name = self.name.rpartition(" ")[2]
        self.faults.calls.append((action, name))
        self.faults.limits[action, name] = self._timeout
        if fault := self.faults.planned.get((action, name)):
            raise fault
        return getattr(self._station, action)(*arguments)


class QuietMachine:
    """Stands in for the monitor of other programs' load: verdicts depend on it."""

    def share(self) -> float:
        return 0.0


def install(patch: pytest.MonkeyPatch) -> Faults:
    """Let runs take canned engines as their candidates, and work in this process."""
    faults = Faults()
    worker = type("Worker", (InProcess,), {"faults": faults})
    for module in (benchmark, export, gathering, job):
        patch.setattr(module, "Worker", worker)
    clock = Clock()
    for module in (benchmark, station, null):
        patch.setattr(module, "time", clock)
    patch.setattr(benchmark, "MIN_THROUGHPUT_SECONDS", 10 * Clock.LOOK)
    patch.setattr(benchmark, "LoadMonitor", QuietMachine)
    # Drawing takes half of such a run, and has tests of its own.
    patch.setattr(html, "_both", lambda title, _draw: html.Plot(title, "", ""))
    for name, value in {
        "variants": VARIANTS,
        "targets": ("development", "production_cpu", "production_gpu", "edge"),
        "baseline_rank": -1,
    }.items():
        patch.setattr(NullBackend, name, value)
    names = tuple(f"null-{variant.name}" for variant in VARIANTS)
    plans = plan.all_plans
    patch.setattr(plan, "all_plans", lambda: tuple(p for p in plans() if p.name in names))
    return faults


def with_gpu(patch: pytest.MonkeyPatch) -> None:
    """Let runs believe that there is a GPU."""
    gpu = Gpu(name="Tesla T4", compute_capability="7.5", memory_bytes=None, driver="580.1")
    machine = pipeline.describe().model_copy(update={"gpus": (gpu,)})
    patch.setattr(pipeline, "describe", lambda: machine)


LANDSCAPES = ("000000000785.jpg", "000000000885.jpg", "000000001000.jpg")


def labelled(folder: Path, engine: Path) -> Path:
    """Make a data set of some of the sample's images, labelled with what an engine finds."""
    chosen = [SAMPLES / "coco-mini/images/val" / name for name in LANDSCAPES]
    for name in ("images", "labels"):
        (folder / name / "val").mkdir(parents=True)
    with raudo.load(engine) as detector:
        for image in chosen:
            height, width = 160, 240
            small = folder / "images/val" / f"{image.stem}.png"
            cv2.imwrite(str(small), cv2.resize(cv2.imread(str(image)), (width, height)))
            found = detector.detect(small)
            rows = [
                f"{label} {(x + v) / 2 / width} {(y + w) / 2 / height} "
                f"{(v - x) / width} {(w - y) / height}"
                for label, (x, y, v, w) in zip(found.labels, found.boxes, strict=True)
            ]
            (folder / "labels/val" / f"{image.stem}.txt").write_text("\n".join(rows))
    description = folder / "data.yaml"
    description.write_text(f"path: .\nval: images/val\nnames: [{', '.join(CLASSES)}]\n")
    return description


@dataclass
class Project:
    """A folder with a model and a data set that its baseline is right about.

    Attributes:
        folder: The folder.
        data: The data set's description.
        faults: What goes wrong, and what was asked for.
    """

    folder: Path
    data: Path
    faults: Faults

    def settings(self, **given: Any) -> OptimizeSettings:
        """Return settings of a short run; without labels if `images` are given."""
        usual = {"data": None if "images" in given else self.data, "name": "run"}
        return OptimizeSettings(
            model=self.folder / "model.pt",
            output=self.folder / "runs",
            bootstrap=100,
            **{**usual, "timing_budget": 0.2, "shapes": "own", **given},
        )
