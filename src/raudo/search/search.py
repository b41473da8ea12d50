"""Looks for engines that detect as well as the baseline: the cheapest evidence first.

Each plan is tried at the smallest input rectangle that may do, then at larger ones, until it
passes the gates of accuracy and similarity. A rectangle at which not even FP32 passes is dropped
for all plans. Where validating on all images would take long, a few of them come first.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from raudo import discover, plan
from raudo.accuracy.scoring import Scorer
from raudo.build import record_audit
from raudo.errors import OutputError, RaudoError, WorkerError
from raudo.images import read_size
from raudo.measuring.evaluate import Evaluation, evaluate, load_detections, save_detections
from raudo.records import Candidate, Record
from raudo.search import shapes
from raudo.search.making import Maker
from raudo.validate import similarity
from raudo.workspace import read_artifact

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from raudo.job import Job
    from raudo.measuring.station import Opened
    from raudo.plan import Plan
    from raudo.search.shapes import Size
    from raudo.worker import Worker

QUICK_IMAGES = 24
QUICK_MARGIN = 5.0
"""A few images drop a candidate whose similarity is this many points below the gate."""
CLEARLY_SLOWER = 1.5
"""An engine that took this many times as long to validate as another is not the choice."""
WORTH_MENDING = 1.25
"""A quantized engine is not mended unless it is this many times as fast as one that passes."""
QUICK_SECONDS = 20.0
"""Validating in less time than this is done whole at once."""


class Validated(Record):
    """How long it took to run one engine over all images, without its start."""

    seconds: float


class Tried(Record):
    """How many seconds it took to make an engine, and to check how well it detects."""

    making: float
    checking: float


class Search:
    """The search of one run.

    Args:
        job: The run.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._sizes: list[Size | None] = [None]
        self._mixed: tuple[Size, ...] = ()
        self._seconds: dict[str, float] = {}
        self._tried: dict[str, Tried] = {}
        self._maker = Maker(job)
        self._scorer: Scorer | None = None
        self._baseline: Evaluation | None = None

    def explore(self) -> None:
        """Make and validate candidates; the report's rows are left in the job.

        Raises:
            WorkerError: The baseline does not run.
        """
        with self._maker:
            self._explore()

    def _explore(self) -> None:
        job = self._job
        self._establish_baseline()
        bases = [p for p in job.plans if p in job.baselines.values()]
        others = [p for p in job.plans if p not in bases]
        for base in bases[1:]:
            self._try(base)  # those of other devices: only their speed is compared with
        probe = next((p for p in others if self._can_probe(p)), None)
        if probe is not None and job.settings.shapes == "auto" and job.settings.size is None:
            self._probe_shapes(probe)
            if self._mixed or len(self._sizes) > 1:
                others += bases  # PyTorch at the smaller sizes, for fairness
        failed = [chosen for chosen in others if not self._try_sizes(chosen)]
        for chosen in sorted(failed, key=self._seconds_at_first_size):
            self._recover(replace(chosen, size=self._sizes[0]))
        for chosen in others if self._mixed else ():
            if self._may_win(chosen):
                self._try(replace(chosen, rectangles=self._mixed))

    def _probe_shapes(self, probe: Plan) -> None:
        """Find the rectangles that change nothing of what is found."""
        spec = self._job.inputs.info.spec
        sizes = [read_size(file) for file in self._job.inputs.files]
        proposed = shapes.propose(sizes, spec)
        self._sizes = [s for s in proposed if self._try(replace(probe, size=s))] + [None]
        mixed = shapes.propose_mixed(sizes, spec)
        self._mixed = next((m for m in mixed if self._try(replace(probe, rectangles=m))), ())

    def _may_win(self, chosen: Plan) -> bool:
        """Tell whether an engine passes that is not clearly slower than the fastest that does.

        Validation gives the times; they are rough, since its images were not timed side by side.
        """
        job = self._job
        mixed = replace(chosen, rectangles=self._mixed).name
        passing = [n for n in self._seconds if n != mixed and job.detects_as_well(n)]
        own = [n for n in passing if plan.base_name(n) == chosen.name]
        if not own or mixed in job.candidates:
            return False
        targets = set(job.candidates[own[0]].targets)
        rivals = [n for n in passing if targets & set(job.candidates[n].targets)]
        fastest = min(self._seconds[n] for n in rivals)
        return min(self._seconds[n] for n in own) <= CLEARLY_SLOWER * fastest

    def _establish_baseline(self) -> None:
        job = self._job
        chosen = job.baseline
        if not self._make(chosen):
            self._give_up()
        start = time.monotonic()
        try:
            with job.worker(chosen.name) as worker:
                self._baseline = self._evaluate(chosen, worker, job.inputs.files)
        except RaudoError as error:
            job.fail(chosen.name, "validate", error, start)
            self._give_up()
        job.note(f"validate {chosen.name}", "OK", "", start)
        assert self._baseline is not None  # noqa: S101 (set above, or given up)
        self._scorer = Scorer(
            job.inputs.dataset,
            self._baseline,
            resamples=job.settings.bootstrap,
            seed=job.settings.seed,
        )
        self._score(chosen.name, self._baseline)

    def _give_up(self) -> None:
        job = self._job
        name = job.baseline.name
        raise WorkerError(
            f"the baseline {name} failed: {job.candidates[name].reason}",
            hint=f"nothing can be compared without it; {job.run.log} says more",
        )

    def _can_probe(self, chosen: Plan) -> bool:
        """Tell whether a plan shows what a rectangle alone does: FP32, and quickly built."""
        targets = discover.backend(chosen.backend).targets_of(chosen.variant)
        gated = any(target in self._job.settings.gates for target in targets)
        return chosen.precision == "fp32" and gated and self._obstacle(chosen) is None

    def _obstacle(self, chosen: Plan) -> str | None:
        job = self._job
        reason = plan.obstacle(
            chosen,
            job.machine,
            has_module=job.inputs.info.has_module,
            calibrated=job.inputs.calibration is not None,
        )
        if reason is None and (base := job.baselines.get(chosen.variant.device)):
            row = job.candidates.get(base.name)
            if row and row.name != chosen.name and row.status != "OK":
                return f"its baseline {row.name} {row.status}: {row.reason}"
        return reason

    def _try_sizes(self, chosen: Plan) -> bool:
        """Try a plan at one size after the other, until it detects as well as the baseline."""
        job = self._job
        for size in self._sizes:
            sized = replace(chosen, size=size)
            known = sized.name in job.candidates
            if job.detects_as_well(sized.name) if known else self._try(sized):
                return True
        return False

    def _seconds_at_first_size(self, chosen: Plan) -> float:
        return self._seconds.get(replace(chosen, size=self._sizes[0]).name, math.inf)

    def _recover(self, chosen: Plan) -> None:
        """Mend an INT8 engine that detects worse: another calibration, layers given back.

        Nothing is begun that would not end within the budget, going by what it took before. In
        other precisions the same one without calibration is there to be chosen instead.
        """
        job, name, start = self._job, chosen.name, time.monotonic()
        seconds = min(job.settings.recovery_budget, job.seconds_left / 2)
        if chosen.precision != "int8" or job.inputs.calibration is None or seconds <= 0:
            return
        if (before := self._tried.get(name)) is None:
            return
        if rival := self._rival(name):
            reason = f"{rival} passes and is as fast or nearly so"
            job.update(name, remedy=f"not mended: {reason}")
            job.note(f"recover {name}", "SKIPPED", reason, start)
            return
        making = max(self._tried[n].making for n in self._tried if self._shares(n, chosen))
        needed = 2 * making + before.checking  # to measure takes about as long as to make
        if needed > seconds:
            reason = f"it would take {needed:.0f} s at least, its budget is {seconds:.0f} s"
            job.update(name, remedy=f"not mended: {reason}")
            job.note(f"recover {name}", "SKIPPED", reason, start)
            return
        attempts = self._attempts(chosen, seconds / 2)
        expected = before.checking
        if attempts and (attempts[0].ranges, attempts[0].images) != (chosen.ranges, chosen.images):
            expected += making
        for mended in attempts:
            if time.monotonic() - start + expected > seconds:
                job.note(f"recover {name}", "SKIPPED", "its time budget was spent", start)
                return
            begun = time.monotonic()
            if self._try(mended):
                return
            expected = time.monotonic() - begun

    def _shares(self, name: str, chosen: Plan) -> bool:
        """Tell whether an engine was made of the graph of a plan, so that one of both was quick."""
        row = self._job.candidates[name]
        size = chosen.size or (self._job.inputs.info.spec.height, self._job.inputs.info.spec.width)
        return (row.backend, row.precision, row.size) == (chosen.backend, chosen.precision, size)

    def _attempts(self, chosen: Plan, seconds: float) -> list[Plan]:
        """Measure what may mend an engine; return the plans to try, the cheapest first."""
        job, name, start = self._job, chosen.name, time.monotonic()
        job.listener.step(f"Looking for what {name} loses by", None)
        try:
            remedy = self._maker.find_remedy(chosen, seconds)
        except RaudoError as error:
            job.note(f"rank {name}", "FAILED", error.message, start)
            return []
        job.note(f"rank {name}", "OK", remedy.title, start)
        job.update(name, remedy=remedy.title)
        mended = replace(chosen, ranges=remedy.ranges, images=remedy.images)
        kept = [replace(mended, keep=keep) for keep in remedy.keep_lists]
        return kept if mended == chosen else [mended, *kept]

    def _rival(self, name: str) -> str | None:
        """Name an engine for the same target that passes, and that a mended one would not beat.

        One that gives layers back only gets slower, and what is left must be worth the time.
        """
        job, targets = self._job, set(self._job.candidates[name].targets)
        rivals = (
            n
            for n, seconds in self._seconds.items()
            if seconds < WORTH_MENDING * self._seconds[name]
            and targets & set(job.candidates[n].targets)
        )
        return next((n for n in rivals if job.detects_as_well(n)), None)

    def _try(self, chosen: Plan) -> bool:
        """Make and validate one candidate; tells whether it detects as well as the baseline."""
        job, name, begun = self._job, chosen.name, time.monotonic()
        if not self._make(chosen):
            return False
        start = time.monotonic()
        try:
            evaluation = self._validate(chosen)
        except OutputError:
            raise
        except RaudoError as error:
            job.fail(name, "validate", error, start)
            return False
        if evaluation is None:
            return False
        job.note(f"validate {name}", "OK", "", start)
        self._score(name, evaluation)
        tried = Tried(making=start - begun, checking=time.monotonic() - start)
        self._tried[name] = job.run.recall(f"tried-{name}", Tried) or tried
        job.run.save(f"tried-{name}", self._tried[name])
        return job.detects_as_well(name)

    def _make(self, chosen: Plan) -> bool:
        """Build the engine of a plan and give it a row; tells whether there is one."""
        job = self._job
        start, name = time.monotonic(), chosen.name
        job.candidates[name] = Candidate(
            name=name,
            backend=chosen.backend,
            precision=chosen.precision,
            size=chosen.size or (job.inputs.info.spec.height, job.inputs.info.spec.width),
            status="OK",
            baseline=name in {base.name for base in job.baselines.values()},
            targets=discover.backend(chosen.backend).targets_of(chosen.variant),
        )
        if reason := self._obstacle(chosen):
            job.skip(name, reason, start)
            return False
        if job.seconds_left <= 0 and name != job.baseline.name:
            job.skip(name, "the time budget was spent before it", start, untried=True)
            return False
        job.listener.step(f"Making {name}")
        try:
            self._maker.make(chosen)
        except OutputError:  # no fault of the engine: the run goes on once there is room
            raise
        except RaudoError as error:
            job.fail(name, "build", error, start)
            return False
        job.note(f"build {name}", "OK", "", start)
        job.listener.finished(name, "OK", "")
        return True

    def _validate(self, chosen: Plan) -> Evaluation | None:
        """Run a candidate over the images, a few of them first; None if these were enough."""
        job = self._job
        files, opened = job.inputs.files, None
        step = len(files) // QUICK_IMAGES
        kept = job.run.state / f"found-{chosen.name}.npz"
        with job.worker(chosen.name) as worker:
            if step >= 2 and not kept.is_file():
                start = time.monotonic()
                few = self._evaluate(chosen, worker, files[::step], keep=False)
                if self._dropped_early(chosen, few, step, start):
                    return None
                opened = few.opened
            return self._evaluate(chosen, worker, files, opened=opened)

    def _dropped_early(self, chosen: Plan, few: Evaluation, step: int, start: float) -> bool:
        """Drop a candidate on every `step`th image, where all of them would take long."""
        job, baseline = self._job, self._baseline
        assert baseline is not None  # noqa: S101 (it is established first)
        alike = similarity(baseline.detections[::step], few.detections).f1_percent
        lowest = min((g.similarity_percent for g in job.gates(chosen.name)), default=0.0)
        if few.seconds * step < QUICK_SECONDS or alike >= lowest - QUICK_MARGIN:
            return False
        job.update(chosen.name, similarity_percent=alike)
        reason = (
            f"dropped early: similarity {alike:.1f} % on {len(few.detections)} images, "
            f"gate {lowest:.0f} %"
        )
        job.skip(chosen.name, reason, start)
        return True

    def _evaluate(
        self,
        chosen: Plan,
        worker: Worker,
        files: Sequence[Path],
        *,
        opened: Opened | None = None,
        keep: bool = True,
    ) -> Evaluation:
        """Run a candidate over images, and check that it executes what was asked for."""
        job, name = self._job, chosen.name
        engine = chosen.engine_file(job.run.engines)
        kept = job.run.state / f"found-{name}.npz"
        known = load_detections(kept) if keep and kept.is_file() else None
        before = job.run.recall(f"validated-{name}", Validated)
        job.listener.step(f"Validating {name}", len(files))
        evaluation = evaluate(
            worker,
            engine,
            files,
            trust=job.settings.trust_checkpoint,
            known=known,
            opened=opened,
            on_images=job.listener.advance,
        )
        record_audit(read_artifact(engine), evaluation.opened.audit)
        if keep and known is None:
            save_detections(kept, evaluation.detections)
            before = Validated(seconds=evaluation.seconds)
            job.run.save(f"validated-{name}", before)
        if before is not None:
            self._seconds[name] = before.seconds
        return evaluation

    def _score(self, name: str, evaluation: Evaluation) -> None:
        assert self._scorer is not None  # noqa: S101 (made with the baseline)
        accuracy, alike = self._scorer.score(evaluation)
        self._job.update(
            name,
            audit=evaluation.opened.audit,
            accuracy=accuracy,
            similarity=alike,
            similarity_percent=alike.f1_percent,
            map50=accuracy.map50 if accuracy else None,
            map50_95=accuracy.map50_95 if accuracy else None,
            map50_loss_percent=accuracy.map50_loss_percent if accuracy else None,
        )
