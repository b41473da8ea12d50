"""What a service bears: overload, many requests, swaps of its engine, killed workers, SIGTERM.

Each row's ratio is what the project allows against what was counted, so 1 and above is good.
"""

from __future__ import annotations

import asyncio
import math
import random
import signal
from typing import TYPE_CHECKING

import numpy as np

from rows import Row
from serve_load import BROKEN, REFUSED, Answers, at_rate, infer_request, until, wrk
from serve_programs import Engine, raudo, write_engine, write_run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from serve_programs import Program

SIDE = 64
OVERLOAD, DEADLINE, GOODPUT = 5.0, 1.0, 0.95
WAITING = 24
REJECTED_MS, RECOVERY_SECONDS, SWIFT = 10.0, 2.0, 0.3
REQUESTS, GROWTH = 200_000, 1.05
SWAPS, KILLS, STOPS = 100, 10, 5
PACED = Engine(SIDE, call_ms=80.0, image_ms=10.0)
"""Slow enough that five times what it can do is little for whoever sends it, on the same cores."""


def allowed(case: str, most: float, counted: float, **extra: float | str) -> Row:
    """Return the row of something that was counted once and may not be more than `most`.

    Where nothing at all is allowed, one is added on both sides.
    """
    ratio = most / counted if most and counted else (most + 1) / (counted + 1)
    return Row(case, ratio, ratio, ratio, goal=1.0, extra={"counted": counted, **extra})


def percentile(values: np.ndarray[tuple[int], np.dtype[np.float64]], q: float) -> float:
    """Return a percentile; infinite where there is nothing."""
    return float(np.percentile(values, q)) if len(values) else math.inf


def overload(folder: Path, seconds: float) -> list[Row]:
    """Ask for five times as much as the service can do, then for half, and look at all answers."""
    engine = write_engine(folder / "paced.npz", PACED)
    with raudo(engine, "--queue", str(WAITING)) as service:
        path, port = service.path, service.port
        closed = wrk(service.url, kind="v2", side=SIDE, connections=WAITING, seconds=8)
        if closed.failed:  # a rejection is soon there, and would count as one more that was served
            raise RuntimeError(f"{closed.failed} of {closed.requests} failed before any overload")
        peak = closed.rate
        request = infer_request(path, SIDE, DEADLINE)
        flood = asyncio.run(at_rate(port, request, OVERLOAD * peak, seconds))
        after = asyncio.run(at_rate(port, request, peak / 2, 8.0))
    admitted, rejected = flood.seconds(200), flood.seconds(429)
    good = int((admitted <= DEADLINE).sum())
    goodput = good / seconds / peak
    counts: dict[str, float | str] = {
        "peak_per_second": peak,
        "asked": len(flood.status),
        "admitted": len(admitted),
        "rejected": len(rejected),
    }
    rejected_ms = percentile(rejected, 99) * 1000
    return [
        Row("goodput of the peak, five times overload", goodput, goodput, goodput, GOODPUT, counts),
        allowed("p99 of the admitted, in seconds", DEADLINE, percentile(admitted, 99)),
        allowed(
            "p99 of a rejection, in ms", REJECTED_MS, rejected_ms, median_ms=_median_ms(rejected)
        ),
        allowed(
            "5xx and broken answers", 0, flood.count(500, 600) + flood.count(REFUSED, BROKEN + 1)
        ),
        allowed("seconds until recovered", RECOVERY_SECONDS, _recovery(after)),
    ]


def _median_ms(seconds: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    return percentile(seconds, 50) * 1000


def _recovery(answers: Answers) -> float:
    """Return when the last request was due that was turned down, or answered slowly."""
    rows = zip(answers.due, answers.taken, answers.status, strict=True)
    return max((due for due, taken, status in rows if status != 200 or taken > SWIFT), default=0.0)


def memory(folder: Path, _: float) -> list[Row]:
    """Compare the resident memory before and after very many requests."""
    engine = write_engine(folder / "small.npz", Engine(SIDE))
    with raudo(engine) as service:

        def ask(seconds: float) -> int:
            asked = wrk(service.url, kind="v2", side=SIDE, connections=16, seconds=seconds)
            return asked.requests if not asked.failed else 0

        ask(5)
        before, asked = service.memory(), 0
        while asked < REQUESTS:
            asked += ask(10)
        growth = service.memory() / before
    case = f"resident memory after {asked} requests, of that before"
    return [allowed(case, GROWTH, growth, before_mib=before / 2**20)]


async def while_asked(
    service: Program, connections: int, disturb: Callable[[], Awaitable[None]], side: int = SIDE
) -> Answers:
    """Ask all the time while something is done to the service."""
    stop = asyncio.Event()
    request = infer_request(service.path, side)
    load = asyncio.create_task(until(stop, service.port, request, connections))
    await asyncio.sleep(1)
    await disturb()
    await asyncio.sleep(1)
    stop.set()
    return await load


def swaps(folder: Path, _: float) -> list[Row]:
    """Swap the engine many times under load."""
    runs = [
        write_run(folder / name, Engine(SIDE, call_ms=5.0, seed=seed))
        for seed, name in enumerate(("monday", "tuesday"))
    ]
    with raudo(runs[0]) as service:

        async def disturb() -> None:
            for number in range(SWAPS):
                await asyncio.to_thread(service.swap, runs[(number + 1) % 2].name)

        answers = asyncio.run(while_asked(service, 8, disturb))
    failed = len(answers.status) - answers.count(200, 201)
    case = f"failed requests in {SWAPS} swaps"
    return [allowed(case, 0, failed, requests=len(answers.status))]


def kills(folder: Path, _: float) -> list[Row]:
    """Kill a worker with SIGKILL, again and again, under load."""
    engine = write_engine(folder / "paced.npz", PACED)
    with raudo(engine) as service:

        async def disturb() -> None:
            for _ in range(KILLS):
                random.choice(service.workers()).kill()
                await asyncio.sleep(2)

        answers = asyncio.run(while_asked(service, 8, disturb))
    failed = len(answers.status) - answers.count(200, 201)
    case = f"failed requests in {KILLS} kills of a worker"
    return [allowed(case, KILLS, failed, requests=len(answers.status))]


async def _terminate(service: Program) -> None:
    service.process.send_signal(signal.SIGTERM)


def sigterm(folder: Path, _: float) -> list[Row]:
    """Send SIGTERM under load: each request that was taken has to be answered."""
    engine = write_engine(folder / "paced.npz", PACED)
    lost = turned_down = answered = 0
    for _ in range(STOPS):
        with raudo(engine) as service:
            answers = asyncio.run(while_asked(service, 16, lambda: _terminate(service)))
        lost += answers.count(BROKEN, BROKEN + 1)
        answered += answers.count(200, 201)
        turned_down += answers.count(503, 504) + answers.count(REFUSED, REFUSED + 1)
    case = f"lost requests in {STOPS} stops by SIGTERM"
    return [allowed(case, 0, lost, answered=answered, turned_down=turned_down)]


CASES: dict[str, Callable[[Path, float], list[Row]]] = {
    "overload": overload,
    "memory": memory,
    "swaps": swaps,
    "kills": kills,
    "sigterm": sigterm,
}
