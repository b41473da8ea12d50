"""Reports to render in tests: realistic figures, and everything that may be missing or hostile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from raudo.config import default_gates
from raudo.decide import decide
from raudo.media.draw import side_by_side
from raudo.records import (
    Accuracy,
    Calibration,
    Candidate,
    ClassAccuracy,
    Detections,
    Interval,
    Machine,
    Measurement,
    NodeProfile,
    Percentiles,
    Precision,
    PrecisionAudit,
    Report,
    RunSource,
    Similarity,
    Spec,
    Speedup,
    StepResult,
    Target,
    Throughput,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

HOSTILE = "<script>alert('x')</script> | `*_[a](javascript:b)_*` & \"$x$\"\n## new & 犬"
_LABELS = Path(__file__).parents[1] / "samples" / "coco-mini" / "annotations" / "val.json"
CLASSES = tuple(c["name"] for c in json.loads(_LABELS.read_text(encoding="utf-8"))["categories"])
CPU: tuple[Target, ...] = ("production_cpu",)
BASELINE_MS = 62.0


def percentiles(p50: float) -> Percentiles:
    return Percentiles(p50=p50, p90=p50 * 1.06, p95=p50 * 1.1, p99=p50 * 1.27, mean=p50 * 1.02)


def measurement(latency: float, seed: int, *, baseline: bool) -> Measurement:
    rng = np.random.default_rng(seed)
    samples = latency * (0.97 + rng.gamma(2.0, 0.02, 240))
    ratio = BASELINE_MS / latency
    stages = {"decode": 4.1, "prepare": 0.42, "select": 0.31}
    stages |= {"infer": latency - 0.73, "end_to_end": latency}
    speedup = Speedup(median=ratio, low=ratio * 0.985, high=ratio * 1.014)
    return Measurement(
        stages={stage: percentiles(value) for stage, value in stages.items()},
        rounds=12,
        samples_ms=tuple(round(float(s), 3) for s in samples),
        load_seconds=0.4,
        peak_memory_bytes=round(310e6 + 4e6 * latency),
        throughput=(
            Throughput(streams=1, batch=1, fps=1000 / latency),
            Throughput(streams=2, batch=1, fps=1330 / latency),
            Throughput(streams=1, batch=4, fps=1100 / latency),
        ),
        speedup=None if baseline else speedup,
        speedup_model=None if baseline else Speedup(median=ratio * 1.03, low=ratio, high=ratio * 2),
    )


def accuracy(drop: float, width: float, classes: tuple[str, ...], seed: int) -> Accuracy:
    """Accuracy whose mAP@0.5 is `drop` percent lower than 0.502."""
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(1).uniform(0.15, 0.95, len(classes))
    found = np.clip(base * (1 - drop / 100) + rng.normal(0, 0.004 * drop, len(classes)), 0, 1)
    counts = (220 * np.exp(-np.arange(len(classes)) / 9)).astype(int)

    def loss(scale: float) -> Interval:
        middle = drop * scale
        return Interval(value=middle, low=middle - width, high=middle + width)

    return Accuracy(
        images=91,
        boxes=int(counts.sum()),
        map50=0.502 * (1 - drop / 100),
        map50_95=0.321 * (1 - 1.6 * drop / 100),
        classes=tuple(
            ClassAccuracy(
                name=name,
                boxes=int(count),
                ap50=round(float(ap), 4) if count else None,
                ap50_95=round(float(ap) * 0.64, 4) if count else None,
            )
            for name, count, ap in zip(classes, counts, found, strict=True)
        ),
        map50_loss_percent=loss(1),
        map50_95_loss_percent=loss(1.6),
        map50_loss_points=loss(0.5),
        map50_95_loss_points=loss(0.5),
    )


def profile(latency: float, precision: Precision) -> tuple[NodeProfile, ...]:
    kinds = (("Convolution", precision, 0.75, 78), ("Softmax", "fp32", 0.25, 2))
    return tuple(
        NodeProfile(name=kind, type=kind, precision=p, milliseconds=latency * share, nodes=nodes)
        for kind, p, share, nodes in kinds
    )


def candidate(
    name: str,
    latency: float,
    *,
    precision: Precision = "fp32",
    drop: float = 0.0,
    width: float = 0.05,
    similarity: float = 99.8,
    classes: tuple[str, ...] = CLASSES,
    labelled: bool = True,
    targets: tuple[Target, ...] = CPU,
    baseline: bool = False,
) -> Candidate:
    seed = sum(map(ord, name))
    timed = measurement(latency, seed, baseline=baseline)
    scored = accuracy(drop, width, classes, seed) if labelled else None
    if scored and baseline:
        scored = scored.model_copy(
            update={key: None for key in type(scored).model_fields if "_loss_" in key}
        )
    return Candidate(
        name=name,
        backend=name.partition("-")[0],
        precision=precision,
        status="OK",
        baseline=baseline,
        targets=targets,
        file=f"engines/{name}.bin",
        latency_ms=timed.stages["end_to_end"],
        throughput_fps=max(t.fps for t in timed.throughput),
        throughput_setting=max(timed.throughput, key=lambda t: t.fps),
        speedup=timed.speedup,
        map50=scored and scored.map50,
        map50_95=scored and scored.map50_95,
        map50_loss_percent=scored and scored.map50_loss_percent,
        similarity_percent=None if baseline else similarity,
        size_bytes=1_950_000 if precision == "int8" else 3_720_000,
        peak_memory_bytes=timed.peak_memory_bytes,
        profile=() if baseline else profile(latency, precision),
        audit=PrecisionAudit(
            found={"int8": 171, "fp32": 34} if precision == "int8" else {precision: 205},
            providers={"CPU": 205},
            per_node=not baseline,
            note="the runtime tells no node's own" if baseline else "",
        ),
        measurement=timed,
        accuracy=scored,
        similarity=None
        if baseline
        else Similarity(
            images=91,
            f1_percent=similarity,
            f1_interval=Interval(
                value=similarity, low=similarity - 0.6, high=min(similarity + 0.4, 100)
            ),
            mean_iou=0.991,
            score_shift=-0.004,
            boxes_cosine=0.99991,
            scores_cosine=0.9987,
            diverges="network" if similarity < 98 else None,
        ),
    )


def unable(name: str, status: str, reason: str, precision: Precision = "fp32") -> Candidate:
    return Candidate.model_validate(
        {
            "name": name,
            "backend": name.partition("-")[0],
            "precision": precision,
            "status": status,
            "reason": reason,
            "targets": CPU,
        }
    )


def report(
    *candidates: Candidate,
    labelled: bool = True,
    classes: tuple[str, ...] = CLASSES,
    name: str = "2026-05-04-sample",
    samples: tuple[str, ...] = (),
    **changes: object,
) -> Report:
    gates = default_gates()
    baseline = next((c.name for c in candidates if c.baseline), "torch-fp32")
    made = Report(
        name=name,
        created="2026-05-04T09:30:12Z",
        seconds=271.4,
        source=RunSource(
            model="model.pt",
            model_sha256="3b6f" * 16,
            spec=Spec(family="yolox", height=416, width=416, classes=classes),
            baseline=baseline,
            data="samples/coco-mini (val)" if labelled else None,
            images=91,
            calibration=Calibration(source="coco-mini (calib)", images=48, sha256="1c" * 32),
            accuracy_validated=labelled,
        ),
        machine=Machine(
            cpu="Example CPU @ 2.60GHz",
            isa=("AVX2", "AVX-512", "AVX-512 VNNI", "AVX-512 BF16"),
            cores=2,
            memory_bytes=25_300_000_000,
            system="Linux 6.1",
            python="3.11.9",
            versions={"raudo": "0.1.0", "numpy": "2.2.0", "torch": "2.14.1"},
            other_load=0.02,
        ),
        gates={target: g.model_dump(exclude_none=True) for target, g in gates.items()},
        candidates=candidates,
        decisions=decide(candidates, gates, accuracy_validated=labelled, has_gpu=False),
        steps=(
            StepResult(step="export", status="OK", seconds=11.2),
            StepResult(step="quantize", status="OK", seconds=38.0),
            StepResult(step="benchmark", status="OK", seconds=121.3),
            StepResult(step="validate", status="OK", seconds=97.9),
        ),
        samples=samples,
    )
    return made.model_copy(update=changes)


def pictures(folder: Path, count: int = 2) -> tuple[str, ...]:
    """Write side-by-side pictures into a run folder, as the pipeline does."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    names = []
    for index in range(count):
        y, x = np.mgrid[0:300, 0:400].astype(np.uint8)
        image = np.dstack([y, x, np.full_like(x, 40 * index)])
        boxes = np.array([[40, 60, 180, 220], [200, 40, 370, 260]], np.float32)
        found = Detections(boxes, np.array([0.9, 0.6], np.float32), np.array([0, 2], np.int64))
        less = Detections(boxes[:1], found.scores[:1], found.labels[:1])
        picture = side_by_side(image, found, less, ("torch-fp32", "openvino-int8"), CLASSES)
        name = f"pictures/{index}.png"
        cv2.imwrite(str(folder / name), picture)
        names.append(name)
    return tuple(names)


def full(samples: tuple[str, ...] = ()) -> Report:
    """The embedded sample's figures, as DESIGN.md has them: PASS, with all kinds of rows."""
    return report(
        candidate("torch-fp32", BASELINE_MS, baseline=True, targets=("development",)),
        candidate("torch-compiled", 41.0, targets=("development",)),
        candidate("onnxruntime-fp32", 39.2, targets=("production_cpu", "edge")),
        candidate("openvino-fp32", 27.1),
        candidate("openvino-bf16", 17.3, precision="bf16", drop=1.4, width=2.1, similarity=98.4),
        candidate("openvino-int8", 11.8, precision="int8", drop=29, width=3.2, similarity=71.0),
        unable("onnxruntime-int8", "FAILED", "the process ran out of memory after 41 s", "int8"),
        unable("tensorrt-fp16", "SKIPPED", "no NVIDIA GPU here", "fp16"),
        samples=samples,
    )


def every(folder: Path) -> Mapping[str, Report]:
    """All sample reports by what is special about them; pictures are written into `folder`."""
    base = candidate("torch-fp32", BASELINE_MS, baseline=True, targets=("development",))
    plain = candidate("torch-fp32", BASELINE_MS, baseline=True, labelled=False)
    hostile = (HOSTILE, f"{HOSTILE}2", "ok")
    crowd = (
        candidate(
            f"engine-{i:02d}", 14 + 1.7 * i, drop=(30 - i) / 12, width=0.3, similarity=97 + i / 10
        )
        for i in range(29)
    )
    slow = candidate("engine-slow", 55.0)
    machine = full().machine.model_copy(update={"disturbed": True, "other_load": 0.31})
    return {
        "full": full(pictures(folder)),
        "no labels": report(plain, candidate("engine-fp32", 30.0, labelled=False), labelled=False),
        "only the baseline": report(base),
        "nothing passes": report(base, slow),
        "inconclusive": report(
            base, candidate("engine-bf16", 20.0, precision="bf16", drop=0.6, width=1.5)
        ),
        "nothing ran": report(
            unable("torch-fp32", "FAILED", "it crashed").model_copy(update={"baseline": True})
        ),
        "thirty candidates": report(base, *crowd),
        "disturbed, with warnings": full().model_copy(
            update={"machine": machine, "warnings": ("no GPU", HOSTILE)}
        ),
        "hostile names": report(
            candidate(
                HOSTILE, BASELINE_MS, baseline=True, classes=hostile, targets=("development",)
            ),
            candidate(f"{HOSTILE}3", 20.0, classes=hostile),
            unable(f"{HOSTILE}4", "FAILED", HOSTILE),
            classes=hostile,
            name=HOSTILE,
            samples=(f"pictures/{HOSTILE}.png", "../outside.png"),
            warnings=(HOSTILE,),
            steps=(StepResult(step=HOSTILE, status="FAILED", reason=HOSTILE, seconds=1.0),),
        ),
    }
