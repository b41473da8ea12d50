"""`raudo benchmark` and `raudo validate`: engine files side by side, without a run around them."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from raudo import benchmark
from raudo.accuracy.scoring import Scorer
from raudo.benchmark import TimingPlan, WorkerOptions
from raudo.build import ModelFile, build
from raudo.errors import DataError, UsageError
from raudo.images import VIDEO_SUFFIXES, decode
from raudo.inputs import data
from raudo.inputs.gathering import extract_frames, inspect
from raudo.measuring.evaluate import evaluate
from raudo.plan import baseline_plan
from raudo.records import Accuracy, Record, Similarity
from raudo.worker import Worker
from raudo.workspace import read_artifact

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from raudo.benchmark import Timed
    from raudo.listener import Listener
    from raudo.records import Device, Spec, Speedup


class Scores(Record):
    """How well one engine detects."""

    accuracy: Accuracy | None = None
    similarity: Similarity | None = None


class Scored(Record):
    """What `raudo validate` found."""

    baseline: str = Field(description="The engine that the others are compared to")
    engines: dict[str, Scores]
    warnings: tuple[str, ...] = ()

    def others(self) -> tuple[Scores, ...]:
        """Return the scores of all engines but the baseline."""
        return tuple(scores for name, scores in self.engines.items() if name != self.baseline)


@dataclass(frozen=True)
class Entrants:
    """What is compared with what.

    Attributes:
        engines: Engine file by name, those of baselines among them.
        baseline: Name of the engine whose detections the others are compared with.
        references: The engine that an engine's speedup is relative to, on its own device.
        spec: What all of them take and give.
    """

    engines: dict[str, Path]
    baseline: str
    references: dict[str, str]
    spec: Spec


@dataclass(frozen=True)
class Contest:
    """Engine files to compare.

    Attributes:
        engines: The engine files.
        model: The model that they are compared to; None takes the first engine.
        options: How to run the workers.
    """

    engines: tuple[Path, ...]
    model: Path | None = None
    options: WorkerOptions = WorkerOptions()  # noqa: RUF009 (frozen)

    @contextlib.contextmanager
    def entered(self) -> Iterator[Entrants]:
        """Give the engines, and those of the model itself on each device that they run on.

        Raises:
            UsageError: There is nothing to compare.
            RaudoError: An engine or the model cannot be used.
        """
        artifacts = [read_artifact(engine) for engine in self.engines]
        named = {_label(a.path): a for a in artifacts}
        if not artifacts or len(named) < len(artifacts):
            raise UsageError("give engine files, each once", hint="for instance models/model.onnx")
        files = {name: a.path for name, a in named.items()}
        spec = artifacts[0].manifest.spec
        if self.model is None:
            first = next(iter(named))
            yield Entrants(files, first, dict.fromkeys(named, first), spec)
            return
        devices = {name: a.manifest.device for name, a in named.items()}
        with tempfile.TemporaryDirectory(prefix="raudo-") as folder:
            made = self._baselines(spec, Path(folder), dict.fromkeys(devices.values()))
            bases = {device: path.stem for device, path in made.items()}
            references = {name: bases[device] for name, device in devices.items()}
            files = {**{path.stem: path for path in made.values()}, **files}
            yield Entrants(files, next(iter(bases.values())), references, spec)

    def _baselines(self, spec: Spec, folder: Path, devices: Iterable[Device]) -> dict[Device, Path]:
        """Make the engines of the model itself, at the engines' input size, by device."""
        file = ModelFile(Path(str(self.model)), (spec.height, spec.width), self.options.trust)
        info = inspect(file, self.options.timeout)
        onnx, made = folder / "baseline.onnx", {}
        if not info.has_module:
            with Worker("the ONNX export", timeout=self.options.timeout) as worker:
                worker.call("write_onnx", file, onnx)
        for device in devices:
            plan = baseline_plan(info.has_module, device)
            made[device] = plan.engine_file(folder)
            build(plan, file, info, onnx, made[device], None)
        return made


def _label(engine: Path) -> str:
    return f"{engine.parent.name}/{engine.name}" if engine.parent.name else engine.name


def benchmark_engines(
    contest: Contest, images: Path, budget: float, threshold: float, listener: Listener
) -> tuple[Timed, str]:
    """Time engine files side by side.

    Args:
        contest: What to time.
        images: An image, a folder, a data set or a video to take frames from.
        budget: Most seconds for the rounds.
        threshold: The speedup that rounds are added for until it is decided.
        listener: Is told how it goes on.

    Returns:
        The measurements, and the baseline's name.
    """

    def settled(speedups: Mapping[str, Speedup]) -> bool:
        return not any(s.low < threshold <= s.high for s in speedups.values())

    listener.step("Opening the engines")
    with contest.entered() as entrants, tempfile.TemporaryDirectory() as scratch:
        files = frame_files(images, Path(scratch))
        for file in files:
            decode(file)  # a damaged image is no engine's fault
        listener.step("Timing, round by round", budget)
        plan = TimingPlan(
            budget,
            settled,
            on_round=lambda _rounds, left: listener.advance(budget - left),
            on_throughput=lambda name: listener.step(f"Throughput of {name}"),
            references=entrants.references,
        )
        timed = benchmark.benchmark(
            entrants.engines, entrants.baseline, files, plan, contest.options
        )
        return timed, entrants.baseline


def frame_files(source: Path, scratch: Path) -> tuple[Path, ...]:
    """Return image files of an image, a folder, a data set's validation split or a video."""
    if source.suffix.lower() in VIDEO_SUFFIXES:
        return extract_frames(source, scratch)
    if data.has_split(source, "val"):
        return tuple(image.path for image in data.open_dataset(source, ("val",)).images)
    return data.image_source(source)


def validate_engines(
    contest: Contest, source: Path, splits: Sequence[str], listener: Listener
) -> Scored:
    """Score engine files on a data set, against its labels and against the baseline.

    Args:
        contest: What to score.
        source: The labelled data set.
        splits: Splits to score on.
        listener: Is told how it goes on.
    """
    listener.step("Opening the engines")
    with contest.entered() as entrants:
        engines, baseline = entrants.engines, entrants.baseline
        dataset = data.align_classes(data.open_dataset(source, tuple(splits)), entrants.spec)
        warning = data.check_classes(dataset, entrants.spec)
        files = tuple(image.path for image in dataset.images)
        if not files:
            raise DataError(f"{source} has no images", hint="check its splits")
        listener.step("Validating", len(engines) * len(files))
        evaluations = {}
        for number, (name, engine) in enumerate(engines.items()):
            options = contest.options
            with options.worker(name, engine) as worker:
                evaluations[name] = evaluate(
                    worker,
                    engine,
                    files,
                    trust=options.trust,
                    on_images=partial(_advance, listener, number * len(files)),
                )
        scorer = Scorer(dataset, evaluations[baseline])
        listener.step("Comparing with the baseline", len(evaluations))
        scores = {}
        for done, (name, evaluation) in enumerate(evaluations.items(), 1):
            accuracy, similarity = scorer.score(evaluation)
            scores[name] = Scores(accuracy=accuracy, similarity=similarity)
            listener.advance(done)
    return Scored(baseline=baseline, engines=scores, warnings=(warning,) if warning else ())


def _advance(listener: Listener, before: int, count: int) -> None:
    listener.advance(before + count)


def speedup_exit_code(timed: Timed, baseline: str, gate: float) -> int:
    """Return 0 if every engine but the baseline is fast enough, 1 if one is not, 3 if unsettled."""
    speedups = [m.speedup for n, m in timed.measurements.items() if n != baseline and m.speedup]
    if timed.failed or any(s.high < gate for s in speedups):
        return 1
    return 3 if any(s.low < gate for s in speedups) else 0


def accuracy_exit_code(scored: Scored, loss: float, similarity: float) -> int:
    """Return 0 if every engine but the baseline is as good, 1 if one is not, 3 if unsettled."""
    losses = [s.accuracy.map50_loss_percent for s in scored.others() if s.accuracy]
    alike = [s.similarity.f1_percent for s in scored.others() if s.similarity]
    if any(i is not None and i.low >= loss for i in losses) or any(f <= similarity for f in alike):
        return 1
    return 3 if any(i is None or i.high >= loss for i in losses) else 0
