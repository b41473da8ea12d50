"""The C++ detector against `raudo detect`: whole processes, in turns, on the same engine and video.

usage: python benchmarks/cpp.py PROGRAM ENGINE VIDEO [--rounds N] [--json]

Each round runs both in each mode, and both for one frame alone, which tells the time from start to
first detection: with what `raudo export` left compiled, as at the first start where the engine was
made; with what a bundle brings compiled, as at the first start on another machine whose CPU has the
same instructions; and with nothing compiled, as on any other machine. Speed is that of the whole
process; ratios are of processes of the same round, so that what else the machine does meets both
sides. Memory is the most that a process had resident (on Linux).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from raudo.commands.bundle import write_bundle
from raudo.worker import Worker
from rows import Row, ratio_interval, show

SPEED_GOALS = {"throughput": 1.15, "latency": 1.2}
MEMORY_GOAL = 2.5  # times less than Python
START_SECONDS = 0.5


@dataclass(frozen=True)
class Ran:
    """One whole process: wall seconds, and the most memory it ever had."""

    seconds: float
    peak_bytes: int


def run(command: list[str]) -> Ran:
    """Run a command to its end; stop where it fails."""
    start = time.perf_counter()
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors) as process,
    ):
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            sys.exit(f"{' '.join(command)} failed: {errors.read().decode()}")
    return Ran(seconds, usage.ru_maxrss * 1024)


def commands(program: str, engine: str, video: str, folder: Path) -> dict[str, list[str]]:
    """Return what runs in each round, by name."""
    sides = {"python": [sys.executable, "-m", "raudo.cli", "detect"], "cpp": [program]}
    found = {}
    for mode in ("throughput", "latency"):
        for side, command in sides.items():
            lines = str(folder / f"{side}_{mode}.jsonl")
            found[f"{side}_{mode}"] = [*command, engine, video, "--mode", mode, "--jsonl", lines]
    first = [video, "--max-frames", "1"]
    for side, command in sides.items():
        found[f"{side}_first"] = [*command, engine, *first]
    shipped = str(folder / "bundle" / Path(engine).name)
    found["cpp_first_shipped"] = [program, shipped, *first, "--cache", ""]
    found["cpp_first_uncached"] = [program, engine, *first, "--cache", ""]
    return found


def compare(rounds: list[dict[str, Ran]], lines: dict[str, list[str]]) -> list[Row]:
    """Return one row for each goal."""

    def seconds(name: str) -> list[float]:
        return [r[name].seconds for r in rounds]

    def megabytes(name: str) -> list[float]:
        return [r[name].peak_bytes / 1e6 for r in rounds]

    rows = []
    for mode, goal in SPEED_GOALS.items():
        python, cpp = f"python_{mode}", f"cpp_{mode}"
        frames = len(lines[cpp])
        fps = {name: frames / statistics.median(seconds(name)) for name in (python, cpp)}
        same = sum(a == b for a, b in zip(lines[python], lines[cpp], strict=True))
        extra: dict[str, float | str] = {
            "python_fps": fps[python],
            "cpp_fps": fps[cpp],
            "same_lines": f"{same}/{frames}",
        }
        speed = ratio_interval(seconds(python), seconds(cpp))
        rows.append(Row(f"cpp: {mode}", *speed, goal=goal, extra=extra))
        sizes = {f"{n}_mb": statistics.median(megabytes(n)) for n in (python, cpp)}
        memory = ratio_interval(megabytes(python), megabytes(cpp))
        rows.append(Row(f"cpp: memory, {mode}", *memory, goal=MEMORY_GOAL, extra=sizes))
    python_start = statistics.median(seconds("python_first"))
    for name in ("cpp_first", "cpp_first_shipped", "cpp_first_uncached"):
        found = seconds(name)
        start = ratio_interval([START_SECONDS] * len(found), found)
        times = {"seconds": statistics.median(found), "python_seconds": python_start}
        case = f"{name}: {START_SECONDS} s by start to first detection"
        rows.append(Row(case, *start, goal=1.0, extra=times))
    return rows


def main() -> None:
    """Run the rounds and show what they say."""
    parser = argparse.ArgumentParser(description="The C++ detector against raudo detect.")
    parser.add_argument("program")
    parser.add_argument("engine")
    parser.add_argument("video")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        with Worker("export") as worker:  # of its own: a child's peak is never below its parent's
            worker.call("keep_compiled", Path(given.engine), 1, False)  # as export does in the end
        exported = sorted((folder / "cache").rglob("*.blob"))
        write_bundle(folder / "bundle", [Path(given.engine)])
        todo = commands(given.program, given.engine, given.video, folder)
        for command in todo.values():  # once unmeasured: files come into the system's cache
            run(command)
        if sorted((folder / "cache").rglob("*.blob")) != exported:
            sys.exit("what export left compiled is not what the commands look for")
        rounds = [{n: run(c) for n, c in todo.items()} for _ in range(given.rounds)]
        lines = {file.stem: file.read_text().splitlines() for file in folder.glob("*.jsonl")}
    show(compare(rounds, lines), given.json)


if __name__ == "__main__":
    main()
