"""The frozen records that every part of raudo passes around; `report.json` is made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

Precision = Literal["fp32", "tf32", "fp16", "bf16", "int8"]
Target = Literal["development", "production_cpu", "production_gpu", "edge"]
Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE", "SKIPPED"]
Status = Literal["OK", "FAILED", "SKIPPED"]
Stage = Literal["decode", "prepare", "infer", "select", "end_to_end"]
Device = Literal["cpu", "gpu"]
Ranges = Literal["mean", "quantile"]
OptionValue = bool | int | float | str

PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "fp16", "bf16", "int8")
RANGES: tuple[Ranges, ...] = ("mean", "quantile")
TARGETS: tuple[Target, ...] = ("development", "production_cpu", "production_gpu", "edge")
STAGES: tuple[Stage, ...] = ("decode", "prepare", "infer", "select", "end_to_end")
MAX_SIDE = 16384


class Record(BaseModel):
    """Base of all records: immutable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Letterbox(Record):
    """How an image is fitted into the input rectangle of an engine."""

    placement: Literal["center", "top_left", "stretch"] = Field(
        default="center", description="Where the scaled image lies; `stretch` ignores its aspect"
    )
    rounding: Literal["round", "floor"] = Field(
        default="round", description="How the scaled width and height become whole pixels"
    )
    fill: Annotated[int, Field(ge=0, le=255)] = Field(
        default=114, description="Grey of the padding"
    )


class Spec(Record):
    """What an engine takes and gives: all that is needed to prepare images and read outputs."""

    family: str = Field(description="The model family that the engine was made from")
    height: Annotated[int, Field(gt=0, le=MAX_SIDE)]
    width: Annotated[int, Field(gt=0, le=MAX_SIDE)]
    classes: Annotated[tuple[str, ...], Field(min_length=1, max_length=100_000)]
    letterbox: Letterbox = Field(default_factory=Letterbox)
    output: Literal["dense", "topk"] = Field(
        default="dense", description="dense: boxes and scores of all anchors; topk: NMS-free"
    )
    nms_iou: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.7, description="IoU above which the family's own NMS drops a box"
    )


class PrecisionAudit(Record):
    """What a loaded engine really executes, as far as its runtime tells."""

    found: dict[str, int] = Field(
        default_factory=dict, description="Number of nodes by the precision they run in"
    )
    providers: dict[str, int] = Field(
        default_factory=dict, description="Number of nodes by the device or provider that runs them"
    )
    per_node: bool = Field(default=True, description="False where the runtime tells no node's own")
    note: str = ""


class NodeProfile(Record):
    """How long one node of a runtime's own graph takes, or several nodes together."""

    name: str
    type: str = Field(description="Convolution, Softmax, ..., in the runtime's own words")
    precision: str = Field(description="What it really computes in")
    milliseconds: float
    nodes: int = Field(default=1, description="Number of nodes that this is the sum of")


class Calibration(Record):
    """The images that an INT8 engine was calibrated on, by content."""

    source: str
    images: int
    sha256: str = Field(description="Hash over the images' sorted content hashes")


class Manifest(Record):
    """What lies beside an engine file as `<file>.json`."""

    manifest_version: Literal[1] = 1
    name: str = Field(description="The candidate's name, `<backend>-<variant>`")
    backend: str
    precision: Precision = Field(description="The precision that was asked for")
    device: Device = Field(default="cpu", description="What it runs on; gpu is an NVIDIA GPU")
    options: dict[str, OptionValue] = Field(
        default_factory=dict, description="Load options of the backend, for instance its threads"
    )
    spec: Spec
    audit: PrecisionAudit | None = Field(
        default=None, description="The precision found in the loaded engine"
    )
    source: str = Field(description="File name of the model that the engine was made from")
    source_sha256: str
    files_sha256: dict[str, str] = Field(
        description="Hash of the engine file and of the files that belong to it, by file name"
    )
    calibration: Calibration | None = None
    rectangles: tuple[str, ...] = Field(
        default=(),
        description="Engine files of the same network for smaller input rectangles, beside it",
    )
    ranges: Ranges = Field(
        default="mean", description="How calibration found the ranges of activations"
    )
    kept_layers: tuple[str, ...] = Field(
        default=(), description="Layers that were kept from quantization, to keep its accuracy"
    )
    machine: dict[str, str] = Field(
        default_factory=dict, description="What the engine needs to find again: GPU, driver, ..."
    )
    versions: dict[str, str] = Field(default_factory=dict, description="Tools that made the engine")


@dataclass(frozen=True)
class Artifact:
    """An engine file together with its manifest."""

    path: Path
    manifest: Manifest


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best score first.

    Attributes:
        boxes: float32 [n, 4], xyxy in pixels of the original image.
        scores: float32 [n], 0 to 1.
        labels: int64 [n], index into `Spec.classes`.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)


class Interval(Record):
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float


class Speedup(Record):
    """Median of the per-round ratios to the baseline, with its bootstrap interval (95 %)."""

    median: float
    low: float
    high: float


class Percentiles(Record):
    """Milliseconds a frame."""

    p50: float
    p90: float
    p95: float
    p99: float
    mean: float


class Throughput(Record):
    """Frames a second of one setting of streams and batch size, decoding excluded."""

    streams: int
    batch: int
    fps: float

    @property
    def title(self) -> str:
        """The setting in words."""
        streams = "1 stream" if self.streams == 1 else f"{self.streams} streams"
        return f"{streams}, batch {self.batch}"


class Measurement(Record):
    """What the timed rounds say of one engine; all times in milliseconds a frame.

    `end_to_end` is frame in memory -> detections (prepare + infer + select). Decoding is timed
    apart, because it is the same for all engines and depends on where the frames come from.
    """

    stages: dict[Stage, Percentiles]
    rounds: int
    samples_ms: tuple[float, ...] = Field(description="End-to-end times, thinned, for plots")
    load_seconds: float
    peak_memory_bytes: int
    other_load: float = Field(default=0.0, description="Share of the cores, by other programs")
    throughput: tuple[Throughput, ...] = ()
    reference: str | None = Field(
        default=None, description="Name of the engine that speedups are relative to"
    )
    speedup: Speedup | None = Field(default=None, description="End to end")
    speedup_model: Speedup | None = Field(default=None, description="The infer stage alone")


class ClassAccuracy(Record):
    """Average precision of one class; None where the data set has no box of it."""

    name: str
    boxes: int
    ap50: float | None
    ap50_95: float | None


class Accuracy(Record):
    """mAP of one engine on a labelled data set, and its loss against the baseline.

    A loss in percent is relative to the baseline's mAP; in points it is the plain difference
    times 100. Intervals are paired bootstraps over images.
    """

    images: int
    boxes: int
    map50: float
    map50_95: float
    classes: tuple[ClassAccuracy, ...] = ()
    map50_loss_percent: Interval | None = None
    map50_95_loss_percent: Interval | None = None
    map50_loss_points: Interval | None = None
    map50_95_loss_points: Interval | None = None


DivergingStage = Literal["preparation", "rectangle", "network", "selection"]
"""rectangle: the input has another size, so that no later stage gets the same pixels."""


class Similarity(Record):
    """How alike the detections of an engine and of the baseline are on the same images.

    Detections at confidence >= 0.25 are matched by class at IoU >= 0.5, one to one.
    """

    images: int
    f1_percent: float
    f1_interval: Interval | None = Field(default=None, description="Of F1, over draws of images")
    mean_iou: float | None = Field(description="Of the matched pairs; None without any")
    score_shift: float | None = Field(description="Mean of engine minus baseline score")
    confidence: float | None = Field(
        default=None,
        description="Where the engine finds as many objects as the baseline does at 0.25",
    )
    boxes_cosine: float | None = Field(default=None, description="Cosine of the raw boxes tensors")
    scores_cosine: float | None = Field(
        default=None, description="Cosine of the raw scores tensors"
    )
    diverges: DivergingStage | None = Field(
        default=None, description="The first stage that differs from the baseline's, if one does"
    )


class Candidate(Record):
    """One engine in the report: what it is, how fast, how alike, how accurate."""

    name: str
    backend: str
    precision: Precision
    size: tuple[int, int] | None = Field(default=None, description="Input (height, width)")
    status: Status
    reason: str = ""
    untried: bool = Field(default=False, description="Skipped for want of time")
    baseline: bool = Field(default=False, description="Others on its device are compared to it")
    targets: tuple[Target, ...] = ()
    file: str | None = Field(default=None, description="Engine file, relative to the run folder")
    latency_ms: Percentiles | None = Field(default=None, description="End to end")
    throughput_fps: float | None = Field(default=None, description="At the best setting")
    throughput_setting: Throughput | None = Field(
        default=None, description="The streams and the batch size of the most frames a second"
    )
    speedup: Speedup | None = None
    map50: float | None = None
    map50_95: float | None = None
    map50_loss_percent: Interval | None = None
    similarity_percent: float | None = None
    size_bytes: int | None = None
    peak_memory_bytes: int | None = None
    audit: PrecisionAudit | None = None
    measurement: Measurement | None = None
    profile: tuple[NodeProfile, ...] = Field(
        default=(), description="Time of one run by kind of node and precision, the longest first"
    )
    accuracy: Accuracy | None = None
    similarity: Similarity | None = None
    remedy: str = Field(
        default="", description="How INT8 that detects worse was to be mended, or why it was not"
    )


class Decision(Record):
    """What one target should run, and why."""

    verdict: Verdict
    choice: str | None = Field(description="The candidate of the best latency, or None")
    best_throughput: str | None = Field(
        default=None, description="The passing candidate of the most frames a second"
    )
    throughput_setting: Throughput | None = Field(
        default=None, description="How many streams and which batch size it reaches them with"
    )
    reasons: tuple[str, ...]
    next_steps: tuple[str, ...] = ()


class StepResult(Record):
    """How one step of a run ended."""

    step: str
    status: Status
    reason: str = ""
    seconds: float


class Gpu(Record):
    """One NVIDIA GPU, as its driver describes it."""

    name: str
    compute_capability: str = Field(description="Major and minor version, for instance 8.6")
    memory_bytes: int | None = Field(description="None where it has no memory of its own")
    driver: str = Field(description="Version of the driver")


class Machine(Record):
    """The machine that measured, and what else it was doing."""

    cpu: str
    isa: tuple[str, ...] = Field(description="Instruction sets that matter for inference")
    cores: int
    memory_bytes: int
    system: str
    python: str
    gpus: tuple[Gpu, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    other_load: float | None = Field(
        default=None, description="Share of all cores that other programs took while timing"
    )
    disturbed: bool = False


class RunSource(Record):
    """What a run started from."""

    model: str
    model_sha256: str
    spec: Spec
    baseline: str = Field(description="Name of the candidate that all others are compared to")
    data: str | None = Field(description="Labelled data set, or None")
    images: int
    calibration: Calibration | None = None
    accuracy_validated: bool


class Report(Record):
    """The whole of a run: `report.json`, and what the other formats are rendered from."""

    report_version: Literal[1] = 1
    name: str
    created: str = Field(description="ISO 8601, UTC")
    seconds: float
    source: RunSource
    machine: Machine
    gates: dict[str, dict[str, float]] = Field(description="Per target: gate name -> bound")
    candidates: tuple[Candidate, ...]
    decisions: dict[Target, Decision]
    pareto: tuple[str, ...] = Field(
        default=(), description="Candidates that none beats in both latency and quality"
    )
    pareto_throughput: tuple[str, ...] = Field(
        default=(), description="The same for frames a second and quality"
    )
    steps: tuple[StepResult, ...]
    warnings: tuple[str, ...] = ()
    samples: tuple[str, ...] = Field(
        default=(), description="Side-by-side pictures, files relative to the run folder"
    )
