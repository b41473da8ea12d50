"""Every engine on one NVIDIA GPU: made where it is missing, timed in turns, validated.

Three steps, which leave what they make in one folder, so that each can run where its tools are:
`graphs` (PyTorch, onnx, NNCF; no GPU), `engines` (a runtime alone, in an interpreter of its own if
need be) and `measure`. Batches of 1 and 32 get an engine each, its batch size fixed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raudo import discover
from raudo.accuracy.scoring import Scorer
from raudo.benchmark import (
    TIMED_FRAMES,
    TimingPlan,
    WorkerOptions,
    ratio_interval,
    speedups,
    summarize,
    time_rounds,
)
from raudo.build import (
    ModelFile,
    ModelInfo,
    build,
    compile_graph,
    inspect_model,
    make_graph,
    precision_problem,
    write_onnx,
)
from raudo.errors import RaudoError
from raudo.inputs import data
from raudo.inputs.data import CalibrationSet, calibration_set
from raudo.machine import available_threads, describe
from raudo.measuring.evaluate import PROBED_IMAGES, Evaluation
from raudo.plan import NO_GPU, Plan, all_plans, baseline_plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from raudo.records import Device
    from raudo.worker import Worker

ROOT = Path(__file__).resolve().parents[1]
ASSETS = Path(os.environ.get("RAUDO_ASSETS", ROOT.parent / "shared" / "assets")).resolve()
NETWORK_ROUNDS, NETWORK_IMAGES, LEAST_RUNS, WARM_UPS = 12, 60, 12, 10
RESAMPLES = 1000


@dataclass(frozen=True)
class Contender:
    """One candidate at one batch size, and where its files lie."""

    folder: Path
    plan: Plan
    batch: int

    @property
    def graph(self) -> Path:
        """The finished graph."""
        return self.folder / "graphs" / str(self.batch) / f"{self.plan.name}.onnx"

    @property
    def engine(self) -> Path:
        """The engine file."""
        return self.plan.engine_file(self.folder / "engines" / str(self.batch))


class Workshop:
    """The folder that the steps share.

    Args:
        folder: Where graphs and engines lie.
        device: What is measured; a dry run takes the CPU.
        only: Names of candidates; none means all that a GPU can run.
        batches: Batch sizes; latencies are those of the first.
    """

    def __init__(
        self, folder: Path, device: Device, only: Sequence[str], batches: Sequence[int]
    ) -> None:
        self.folder, self.device, self.batches = folder.resolve(), device, batches
        plans = [p for p in all_plans() if p.variant.device == device]
        self.plans = [p for p in plans if not only or p.name in only]
        self.file = ModelFile(self.folder / "model.pt")
        self.folder.mkdir(parents=True, exist_ok=True)

    def contenders(self, batch: int) -> list[Contender]:
        """Return the candidates at a batch size."""
        return [Contender(self.folder, plan, batch) for plan in self.plans]

    @property
    def source(self) -> tuple[ModelInfo, CalibrationSet]:
        """What the model is, and what INT8 was calibrated on; both as `graphs` left them."""
        kept: tuple[ModelInfo, CalibrationSet] = pickle.loads(  # noqa: S301 (our own file)
            (self.folder / "source.pickle").read_bytes()
        )
        return kept

    def make_graphs(self, model: Path, images: Path) -> None:
        """Write the graphs that are missing, each with its batch size fixed."""
        contract = self.folder / "model.onnx"
        if not contract.is_file():
            shutil.copyfile(model, self.file.path)
            calibration = calibration_set(data.calibration_images(images, "train", 300, 0), "train")
            kept = pickle.dumps((inspect_model(self.file), calibration))
            (self.folder / "source.pickle").write_bytes(kept)
            write_onnx(self.file, contract)
        info, calibration = self.source
        for plan in self.plans:
            missing = [
                c
                for b in self.batches
                if not (c := Contender(self.folder, plan, b)).graph.is_file()
            ]
            if discover.backend(plan.backend).made_from == "model" or not missing:
                continue
            graph = make_graph(plan, info.spec, contract, calibration)
            for contender in missing:
                fix_batch(graph, contender.batch)
                contender.graph.parent.mkdir(parents=True, exist_ok=True)
                contender.graph.write_bytes(graph.SerializeToString())

    def make_engines(self, pythons: dict[str, str]) -> dict[str, str]:
        """Make the engines that are missing; returns why one could not be made, by name."""
        reasons: dict[str, str] = {}
        info, calibration = self.source
        for contender in (c for batch in self.batches for c in self.contenders(batch)):
            plan, name = contender.plan, contender.plan.name
            if contender.engine.is_file() or name in reasons:
                continue
            if python := pythons.get(plan.backend):
                self._make_elsewhere(python, name)
            elif reason := unavailable(plan):
                reasons[name] = f"SKIPPED: {reason}"
            else:
                try:
                    make_engine(contender, self.file, info, calibration)
                except RaudoError as error:
                    reasons[name] = f"FAILED: {error.message}"
        return reasons

    def _make_elsewhere(self, python: str, name: str) -> None:
        batches = ",".join(map(str, self.batches))
        words = ("--step", "engines", "--only", name, "--batches", batches, "--device", self.device)
        subprocess.run([python, __file__, str(self.folder), *words], check=False)


def unavailable(plan: Plan) -> str | None:
    """Tell why a finished graph cannot be made an engine here; None if it can."""
    backend, machine = discover.backend(plan.backend), describe()
    if missing := backend.missing():
        return f"not installed: {', '.join(missing)}"
    if plan.variant.device == "gpu" and not machine.gpus:
        return NO_GPU
    return backend.unsupported(plan.variant, machine)


def fix_batch(model: Any, batch: int) -> None:
    """Give an ONNX graph one batch size: engines are made faster, and run a little faster."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = batch


def make_engine(
    contender: Contender, file: ModelFile, info: ModelInfo, calibration: CalibrationSet
) -> None:
    """Make one engine, and tell how long it took."""
    start, plan = time.perf_counter(), contender.plan
    if discover.backend(plan.backend).made_from == "model":
        build(plan, file, info, contender.graph, contender.engine, None)
    else:
        compile_graph(plan, file, info, contender.graph, contender.engine, calibration)
    seconds = round(time.perf_counter() - start, 1)
    contender.engine.with_suffix(".seconds").write_text(str(seconds), encoding="utf-8")
    print(f"made {plan.name}, batch {contender.batch}: {seconds} s", file=sys.stderr, flush=True)


class Arena:
    """Open engines of one batch size, each in its own process; a context manager."""

    def __init__(self, options: WorkerOptions, frames: Sequence[Path]) -> None:
        self.contenders: dict[str, Contender] = {}
        self.workers: dict[str, Worker] = {}
        self.opened: dict[str, Any] = {}
        self.failed: dict[str, str] = {}
        self._options, self._frames, self._stack = options, frames, ExitStack()

    def __enter__(self) -> Arena:
        return self

    def add(self, contenders: Iterable[Contender]) -> None:
        """Open those engines that there are."""
        made = [c for c in contenders if c.engine.is_file()]
        from_model = [c for c in made if discover.backend(c.plan.backend).made_from == "model"]
        with ThreadPoolExecutor() as pool:  # opening a checkpoint is work for a CPU
            list(pool.map(self._open, from_model))
        for contender in (c for c in made if c not in from_model):  # these time their kernels
            self._open(contender)

    def _open(self, contender: Contender) -> None:
        name, plan = contender.plan.name, contender.plan
        worker = self._stack.enter_context(self._options.worker(name, contender.engine))
        try:
            told = worker.call(
                "open", contender.engine, available_threads(), 1, contender.batch, False
            )
            decoded = worker.call("load_frames", self._frames)
        except RaudoError as error:
            self.failed[name] = f"FAILED: {error.message}"
            return
        if problem := precision_problem(plan.precision, told.audit):
            self.failed[name] = f"FAILED: {problem}"
            return
        self.contenders[name], self.workers[name] = contender, worker
        self.opened[name] = told, decoded

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def time_network(self) -> dict[str, NDArray[np.float64]]:
        """Time the networks in turns; returns seconds [rounds, 2] of network and of `run`."""
        medians: dict[str, list[Any]] = {name: [] for name in self.workers}
        for _ in range(NETWORK_ROUNDS):
            for name in list(self.workers):
                runs = max(LEAST_RUNS, NETWORK_IMAGES // self.contenders[name].batch)
                taken = self._ask(name, "time_network", WARM_UPS + runs)
                if taken is not None:
                    medians[name].append(np.median(np.array(taken)[WARM_UPS:], axis=0))
        return {name: np.array(medians[name]) for name in self.workers}

    def _ask(self, name: str, *words: Any) -> Any:
        """Let a worker do something; an engine that fails is not asked again, and gives None."""
        try:
            return self.workers[name].call(*words)
        except RaudoError as error:
            self.failed[name] = f"FAILED: {error.message}"
            del self.workers[name]
            return None

    def evaluations(self, files: Sequence[Path]) -> dict[str, Evaluation]:
        """Run all engines over the labelled images, several at once: nothing is timed."""

        def run(name: str) -> Evaluation | None:
            found = self._ask(name, "evaluate", files)
            probes = None if found is None else self._ask(name, "probe", files[:PROBED_IMAGES])
            return None if probes is None else Evaluation(self.opened[name][0], found, probes)

        names = list(self.workers)
        with ThreadPoolExecutor(4) as pool:
            done = dict(zip(names, pool.map(run, names), strict=True))
        return {name: evaluation for name, evaluation in done.items() if evaluation is not None}


def interval(values: NDArray[np.float64]) -> dict[str, float]:
    """Return the median of the rounds and its bootstrap interval (95 %)."""
    found = ratio_interval(values, seed=0)
    return {"value": found.median, "low": found.low, "high": found.high}


def measure(
    shop: Workshop, images: Path, splits: Sequence[str], options: WorkerOptions, budget: float
) -> dict[str, Any]:
    """Time and validate all engines; returns what the JSON file holds."""
    info, _ = shop.source
    dataset = data.align_classes(data.open_dataset(images, tuple(splits)), info.spec)
    files = tuple(image.path for image in dataset.images)
    frames = files[:: max(1, -(-len(files) // TIMED_FRAMES))]
    rows: dict[str, dict[str, Any]] = {}
    baseline = baseline_plan(info.has_module, shop.device).name
    with Arena(options, frames) as arena:
        arena.add(shop.contenders(shop.batches[0]))
        scores = arena.evaluations(files)
        scorer = Scorer(dataset, scores[baseline], resamples=RESAMPLES)
        plan = TimingPlan(budget, lambda _: False)
        timings = time_rounds(arena.workers, baseline, len(frames), plan)
        whole, alone = (speedups(timings, baseline, plan, model_only=m) for m in (False, True))
        network = arena.time_network()
        arena.failed.update({n: f"FAILED: {why}" for n, why in timings.failed.items()})
        for name in whole.keys() & network.keys():
            opened, decoded = arena.opened[name]
            accuracy, similarity = scorer.score(scores[name])
            memory = arena.workers[name].call("peak_memory")
            measured = summarize(timings.rounds[name], decoded, opened.load_seconds, memory)
            rows[name] = {
                "status": "OK",
                "audit": opened.audit.model_dump(),
                "network_ms": interval(network[name][:, 0] * 1e3),
                "run_ms": interval(network[name][:, 1] * 1e3),
                "measurement": measured.model_copy(
                    update={"speedup": whole[name], "speedup_model": alone[name]}
                ).model_dump(exclude={"samples_ms", "throughput"}),
                "accuracy": accuracy.model_dump(exclude={"classes"}) if accuracy else None,
                "similarity": similarity.model_dump(),
            }
    failed = arena.failed
    boxes = sum(len(image.labels) for image in dataset.images)
    for batch in shop.batches[1:]:
        with Arena(options, frames) as arena:
            arena.add(shop.contenders(batch))
            for name, rounds in arena.time_network().items():
                rows.setdefault(name, {"status": "OK"})[f"images_a_second_of_{batch}"] = {
                    "network": interval(batch / rounds[:, 0]),
                    "run": interval(batch / rounds[:, 1]),
                }
            failed = {**{f"{n}, batch {batch}": why for n, why in arena.failed.items()}, **failed}
    rows.update({name: {"status": reason} for name, reason in failed.items()})
    return {"baseline": baseline, "images": len(files), "boxes": boxes, "rows": rows}


def described(shop: Workshop, model: Path) -> dict[str, Any]:
    """Return what a result holds for: machine, model, and how long engines took to make."""
    machine = describe().model_dump(exclude={"other_load", "disturbed"})
    seconds = {
        f"{c.plan.name}, batch {batch}": float(note.read_text(encoding="utf-8"))
        for batch in shop.batches
        for c in shop.contenders(batch)
        if (note := c.engine.with_suffix(".seconds")).is_file()
    }
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"created": created, "model": model.name, "machine": machine, "made_in_s": seconds}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="folder for graphs and engines")
    parser.add_argument("--model", type=Path, default=ASSETS / "models" / "yolo11n_bccd.pt")
    parser.add_argument("--data", type=Path, default=ASSETS / "datasets" / "bccd" / "data.yaml")
    parser.add_argument("--splits", default="val,test")
    parser.add_argument("--step", choices=("graphs", "engines", "measure"), help="only this one")
    parser.add_argument("--only", default="", help="names of candidates, with commas")
    parser.add_argument("--batches", default="1,32", help="batch sizes, with commas")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="cpu: a dry run")
    parser.add_argument(
        "--python", action="append", default=[], help="BACKEND=INTERPRETER that has its runtime"
    )
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of timing rounds")
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--verbose", action="store_true", help="what runtimes tell")
    return parser.parse_args()


def main() -> None:
    """Run the steps."""
    given = parse()
    logging.basicConfig(level=logging.DEBUG if given.verbose else logging.WARNING)
    only = [name for name in given.only.split(",") if name]
    batches = [int(batch) for batch in given.batches.split(",")]
    shop = Workshop(given.work, given.device, only, batches)
    pythons = dict(word.partition("=")[::2] for word in given.python)
    steps = (given.step,) if given.step else ("graphs", "engines", "measure")
    reasons: dict[str, str] = {}
    if "graphs" in steps:
        shop.make_graphs(given.model, given.data)
    if "engines" in steps:
        reasons = shop.make_engines(pythons)
        for name, reason in reasons.items():
            print(f"{name} {reason}", file=sys.stderr)
    if "measure" in steps:
        options = WorkerOptions(timeout=300.0, log=given.work / "log", pythons=pythons)
        found = measure(shop, given.data, given.splits.split(","), options, given.budget)
        found["rows"] |= {name: {"status": why} for name, why in reasons.items()}
        text = json.dumps({**described(shop, given.model), **found}, indent=1)
        (given.json or given.work / "gpu.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
