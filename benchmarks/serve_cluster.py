"""What a killed replica of a Ray cluster costs: kill -9, again and again, under load.

Requests are of several sizes: HAProxy can ask another replica only for what it still has.
"""

from __future__ import annotations

import asyncio
import csv
import os
import random
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING

from serve_faults import allowed, while_asked
from serve_load import HOST
from serve_programs import Engine, free_port, raudo, write_engine

if TYPE_CHECKING:
    from pathlib import Path

    import psutil

    from rows import Row
    from serve_programs import Program

SIDES = (64, 640)
KILLS, REPLICAS, CONNECTIONS = 6, 2, 4
REPLICA = "ray::ServeReplica"
STATS_PORT = "RAY_SERVE_HAPROXY_STATS_PORT"
CALL_MS = 5.0


def replicas_up() -> int:
    """Return how many replicas HAProxy sends requests to, as it tells itself."""
    page = f"http://{HOST}:{os.environ[STATS_PORT]}/stats;csv"
    with urllib.request.urlopen(page, timeout=10) as answer:
        rows = list(csv.DictReader(answer.read().decode().lstrip("# ").splitlines()))
    return sum(
        row["pxname"].startswith("http-raudo")
        and row["svname"] not in {"FRONTEND", "BACKEND"}
        and row["status"].startswith("UP")
        and row["bck"] == "0"
        for row in rows
    )


def replicas(service: Program) -> list[psutil.Process]:
    """Return the processes of a service that are replicas."""
    return [each for each in service.workers() if each.name().startswith(REPLICA[:15])]


async def _kill_each_time(service: Program) -> None:
    for _ in range(KILLS):
        while replicas_up() < REPLICAS:
            await asyncio.sleep(0.5)
        await asyncio.sleep(random.uniform(1, 2))
        random.choice(replicas(service)).kill()
        await asyncio.sleep(2)


def replica_kills(folder: Path, _: float) -> list[Row]:
    """Kill a replica with SIGKILL, again and again, under load of small and of large requests."""
    rows = []
    os.environ[STATS_PORT] = str(free_port())
    for side in SIDES:
        engine = write_engine(folder / f"replica{side}.npz", Engine(side, call_ms=CALL_MS))
        with raudo(engine, "--cluster", "--replicas", str(REPLICAS)) as service:
            answers = asyncio.run(
                while_asked(service, CONNECTIONS, lambda: _kill_each_time(service), side)
            )
        failed = Counter(status for status in answers.status if status != 200)
        case = f"failed requests in {KILLS} kills of a replica, {side}x{side}"
        extra = {str(status): float(count) for status, count in failed.items()}
        rows.append(allowed(case, 0, failed.total(), requests=len(answers.status), **extra))
    return rows
