"""What `raudo serve` costs, what it bears, and how it compares with LitServe; all on loopback.

Every engine here is the null one, but that of `batching-cpu`: it answers at once, or after a sleep
where its manifest says so. What is left is the service. `speed` cases are ratios of interleaved
rounds; those of `faults` are what was counted under overload, swaps and kills, against what the
project allows.

    python benchmarks/serve.py --json
    python benchmarks/serve.py --case overhead --case litserve
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import serve_cluster
import serve_faults
from raudo.detector import load
from rows import Row, ratio_interval, show
from serve_load import wrk
from serve_programs import Engine, Program, export_sample, peer, raudo, write_engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve_load import Closed, Kind

SIDE = 640
OVERHEAD_MS, FASTER, BATCHING = 1.0, 3.0, 1.5
SMALL = (64, 128)
CALLS = 200


def bare_ms(engine: Path) -> float:
    """Return the median time of a call of the bare engine, in milliseconds."""
    with load(engine) as detector:
        images = np.full((1, SIDE, SIDE, 3), 114, np.uint8)
        times = []
        for _ in range(CALLS):
            start = time.perf_counter()
            detector.engine.run(images)
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def ask(program: Program, kind: Kind, side: int, connections: int, seconds: float) -> Closed:
    """Ask a program with wrk, and insist on answers."""
    measured = wrk(program.url, kind=kind, side=side, connections=connections, seconds=seconds)
    if measured.failed:
        raise RuntimeError(f"{program.url}: {measured.failed} of {measured.requests} failed")
    return measured


def overhead(folder: Path, rounds: int, seconds: float) -> list[Row]:
    """Compare the time that a request adds to the call of the engine with what it may add."""
    engine = write_engine(folder / "null.npz", Engine(SIDE))
    added, asked = [], []
    with raudo(engine) as service:
        ask(service, "v2", SIDE, 1, 2)
        for _ in range(rounds):
            asked.append(ask(service, "v2", SIDE, 1, seconds).p50_ms)
            added.append(asked[-1] - bare_ms(engine))
    extra = {"added_ms": statistics.median(added), "p50_ms": statistics.median(asked)}
    interval = ratio_interval([OVERHEAD_MS] * rounds, added)
    case = (
        f"{OVERHEAD_MS:g} ms against what a {SIDE}x{SIDE} binary tensor adds at p50, one at a time"
    )
    return [Row(case, *interval, goal=1.0, extra=extra)]


PEERS = (
    ["--kind", "raw"],
    ["--kind", "raw", "--fast-queue"],
    ["--kind", "raw", "--servers", "2"],
    ["--kind", "raw", "--servers", "2", "--fast-queue"],
    ["--kind", "raw", "--servers", "2", "--workers", "2", "--fast-queue"],
    ["--kind", "form", "--servers", "2", "--fast-queue"],
    ["--kind", "raw", "--servers", "2", "--fast-queue", "--batch", "8"],
)


def litserve(folder: Path, rounds: int, seconds: float) -> list[Row]:
    """Compare requests a second with LitServe's, at the best of its settings."""
    engine = write_engine(folder / "null.npz", Engine(SIDE))
    rates = {}
    for settings in PEERS:
        with peer(engine, settings) as program:
            ask(program, _kind(settings), SIDE, 16, 2)
            rates[" ".join(settings)] = ask(program, _kind(settings), SIDE, 16, seconds).rate
    best = max(rates, key=lambda settings: rates[settings])
    ours, theirs = [], []
    with raudo(engine) as service, peer(engine, best.split()) as program:
        for _ in range(rounds):
            ours.append(ask(service, "v2", SIDE, 16, seconds).rate)
            theirs.append(ask(program, _kind(best.split()), SIDE, 16, seconds).rate)
    extra: dict[str, float | str] = {
        "raudo_per_second": statistics.median(ours),
        "litserve_per_second": statistics.median(theirs),
        "litserve_settings": best,
    }
    case = f"requests a second against LitServe, {SIDE}x{SIDE} binary, 16 at a time"
    return [Row(case, *ratio_interval(ours, theirs), goal=FASTER, extra=extra)]


def _kind(settings: list[str]) -> Kind:
    return "form" if "form" in settings else "raw"


def batching(folder: Path, rounds: int, seconds: float) -> list[Row]:
    """Compare a service that batches with one that does not, for an engine that likes batches."""
    engine = write_engine(folder / "friendly.npz", Engine(64, call_ms=8.0, image_ms=1.0))
    case = "requests a second, batches against batch 1, engine of 8 ms + 1 ms an image"
    return [_batched(engine, 64, case, rounds, seconds)]


def batching_cpu(folder: Path, rounds: int, seconds: float) -> list[Row]:
    """Compare the same for networks that compute, on the cores that ask and serve as well."""
    rows = []
    for side in SMALL:
        for runtime in ("openvino", "onnx"):
            engine = export_sample(folder / f"{runtime}{side}", runtime, side)
            case = (
                f"requests a second, batches against batch 1, sample as {runtime} at {side}x{side}"
            )
            rows.append(_batched(engine, side, case, rounds, seconds))
    return rows


def _batched(engine: Path, side: int, case: str, rounds: int, seconds: float) -> Row:
    batched, single = [], []
    with raudo(engine) as one, raudo(engine, "--max-batch", "1") as other:
        for service in (one, other):
            ask(service, "v2", side, 16, 2)
        for _ in range(rounds):
            batched.append(ask(one, "v2", side, 16, seconds).rate)
            single.append(ask(other, "v2", side, 16, seconds).rate)
    extra = {"batched": statistics.median(batched), "single": statistics.median(single)}
    return Row(case, *ratio_interval(batched, single), goal=BATCHING, extra=extra)


SPEED: dict[str, Callable[[Path, int, float], list[Row]]] = {
    "overhead": overhead,
    "litserve": litserve,
    "batching": batching,
    "batching-cpu": batching_cpu,
}


def main() -> None:
    """Run the cases that were asked for and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each case of speed")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each round")
    parser.add_argument("--overload-seconds", type=float, default=60.0)
    faults = serve_faults.CASES | {"replica-kills": serve_cluster.replica_kills}
    cases = [*SPEED, *faults]
    parser.add_argument("--case", action="append", choices=cases, help="default: all")
    options = parser.parse_args()
    rows: list[Row] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for case in options.case or cases:
            if case in SPEED:
                rows += SPEED[case](folder, options.rounds, options.seconds)
            else:
                rows += faults[case](folder, options.overload_seconds)
    show(rows, options.json)


if __name__ == "__main__":
    main()
