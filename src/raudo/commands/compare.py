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
from raudo.checks import assess
from raudo.config import Gates, checked, default_gates
from raudo.decide import judge
from raudo.errors import DataError, UsageError
from raudo.images import VIDEO_SUFFIXES, decode
from raudo.inputs import data
from raudo.inputs.gathering import extract_frames, inspect
from raudo.measuring.evaluate import evaluate
from raudo.plan import baseline_plan
from raudo.records import Accuracy, Candidate, Decision, Record, Similarity
from raudo.worker import Worker
from raudo.workspace import read_artifact

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from raudo.benchmark import Timed
    from raudo.listener import Listener
    from raudo.records import Device, Manifest, Spec, Speedup


class Scores(Record):
    """How well one engine detects."""

    accuracy: Accuracy | None = None
    similarity: Similarity | None = None


class Scored(Record):
    """What `raudo validate` found."""

    baseline: str = Field(description="The engine that the others are compared to")
    engines: dict[str, Scores]
    verdicts: dict[str, Decision] = Field(
        default_factory=dict, description="Of every engine but the baseline"
    )
    warnings: tuple[str, ...] = ()


def gates_of(command: str, **bounds: float) -> Gates:
    """Return the usual gates, but for those that a command was given.

    Raises:
        UsageError: A bound makes no sense.
    """
    return checked(Gates, command, **(default_gates()["production_cpu"].model_dump() | bounds))


@dataclass(frozen=True)
class Entrants:
    """What is compared with what.

    Attributes:
        engines: Engine file by name, those of baselines among them.
        baseline: Name of the engine whose detections the others are compared with.
        references: The engine that an engine's speedup is relative to, on its own device.
        manifests: Of the engines, without those of baselines that were made for them.
        spec: What all of them take and give.
    """

    engines: dict[str, Path]
    baseline: str
    references: dict[str, str]
    manifests: dict[str, Manifest]
    spec: Spec

    def candidate(self, name: str, **measured: object) -> Candidate:
        """Return one of the engines as gates are held against it."""
        manifest = self.manifests[name]
        return Candidate.model_validate(
            {
                "name": name,
                "backend": manifest.backend,
                "precision": manifest.precision,
                "status": "OK",
                "targets": ("production_gpu" if manifest.device == "gpu" else "production_cpu",),
                **measured,
            }
        )


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
        manifests = {name: a.manifest for name, a in named.items()}
        spec = artifacts[0].manifest.spec
        if self.model is None:
            first = next(iter(named))
            yield Entrants(files, first, dict.fromkeys(named, first), manifests, spec)
            return
        devices = {name: manifest.device for name, manifest in manifests.items()}
        with tempfile.TemporaryDirectory(prefix="raudo-") as folder:
            made = self._baselines(spec, Path(folder), dict.fromkeys(devices.values()))
            bases = {device: path.stem for device, path in made.items()}
            references = {name: bases[device] for name, device in devices.items()}
            files = {**{path.stem: path for path in made.values()}, **files}
            yield Entrants(files, next(iter(bases.values())), references, manifests, spec)

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


@dataclass(frozen=True)
class Raced:
    """What `raudo benchmark` found.

    Attributes:
        baseline: The engine that the others are compared to.
        timed: The measurements.
        verdicts: Of every engine but the baseline.
    """

    baseline: str
    timed: Timed
    verdicts: dict[str, Decision]


def benchmark_engines(
    contest: Contest, images: Path, budget: float, gates: Gates, listener: Listener
) -> Raced:
    """Time engine files side by side.

    Args:
        contest: What to time.
        images: An image, a folder, a data set or a video to take frames from.
        budget: Most seconds for the rounds.
        gates: Of them the speedup; rounds are added until it is decided.
        listener: Is told how it goes on.
    """

    def settled(speedups: Mapping[str, Speedup]) -> bool:
        return not any(s.low < gates.speedup <= s.high for s in speedups.values())

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
        verdicts = {
            name: _verdict_on_speed(entrants, name, timed, gates)
            for name in entrants.manifests
            if name != entrants.baseline
        }
        return Raced(entrants.baseline, timed, verdicts)


def _verdict_on_speed(entrants: Entrants, name: str, timed: Timed, gates: Gates) -> Decision:
    if name in timed.failed:
        return Decision(verdict="FAIL", choice=None, reasons=(f"{name}: {timed.failed[name]}",))
    measured = timed.measurements[name]
    candidate = entrants.candidate(name, speedup=measured.speedup, measurement=measured)
    checks = assess(candidate, gates, accuracy_validated=False)
    return judge(candidate, [check for check in checks if check.gate == "speedup"])


def frame_files(source: Path, scratch: Path) -> tuple[Path, ...]:
    """Return image files of an image, a folder, a data set's validation split or a video."""
    if source.suffix.lower() in VIDEO_SUFFIXES:
        return extract_frames(source, scratch)
    if data.has_split(source, "val"):
        return tuple(image.path for image in data.open_dataset(source, ("val",)).images)
    return data.image_source(source)


def validate_engines(
    contest: Contest, source: Path, splits: Sequence[str], gates: Gates, listener: Listener
) -> Scored:
    """Score engine files on a data set, against its labels and against the baseline.

    Args:
        contest: What to score.
        source: The labelled data set.
        splits: Splits to score on.
        gates: Of them the losses and the similarity.
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
        scores, verdicts = {}, {}
        for done, (name, evaluation) in enumerate(evaluations.items(), 1):
            accuracy, similarity = scorer.score(evaluation)
            scores[name] = Scores(accuracy=accuracy, similarity=similarity)
            if name != baseline and name in entrants.manifests:
                verdicts[name] = _verdict_on_accuracy(entrants, name, scores[name], gates)
            listener.advance(done)
    warnings = (warning,) if warning else ()
    return Scored(baseline=baseline, engines=scores, verdicts=verdicts, warnings=warnings)


def _verdict_on_accuracy(entrants: Entrants, name: str, scores: Scores, gates: Gates) -> Decision:
    accuracy, similarity = scores.accuracy, scores.similarity
    candidate = entrants.candidate(
        name,
        accuracy=accuracy,
        map50_loss_percent=accuracy.map50_loss_percent if accuracy else None,
        similarity=similarity,
        similarity_percent=similarity.f1_percent if similarity else None,
    )
    checks = assess(candidate, gates, accuracy_validated=True)
    return judge(candidate, [check for check in checks if check.gate != "speedup"])


def _advance(listener: Listener, before: int, count: int) -> None:
    listener.advance(before + count)
