"""The C++ detector against `raudo detect`: whole processes, in turns, on the same engine and video.

usage: python benchmarks/cpp.py PROGRAM ENGINE VIDEO [--rounds N]

Each round runs both in each mode, and both for one frame alone, which tells the time from start to
first detection (`--cache` lets the C++ detector keep what its runtime compiles).
Frames per second are frames by the wall time of the whole process; the ratios are medians of the
rounds' own ratios, so that what else the machine does meets both sides.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

POLL_SECONDS = 0.005


@dataclass(frozen=True)
class Ran:
    """One whole process: wall seconds, and the most memory it ever had."""

    seconds: float
    peak_bytes: int


def run(command: list[str]) -> Ran:
    """Run a command to its end; stop where it fails."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        watched, peak = psutil.Process(process.pid), 0
        while process.poll() is None:
            try:
                peak = max(peak, watched.memory_info().rss)
            except psutil.NoSuchProcess:
                break
            time.sleep(POLL_SECONDS)
        process.wait()
        seconds = time.perf_counter() - start
        if process.returncode:
            error = process.stderr.read().decode() if process.stderr else ""
            sys.exit(f"{' '.join(command)} failed: {error}")
    return Ran(seconds, peak)


def commands(program: str, engine: str, video: str, folder: Path) -> dict[str, list[str]]:
    """Return what runs in each round, by name."""
    sides = {"python": [sys.executable, "-m", "raudo.cli", "detect"], "cpp": [program]}
    found = {}
    for mode in ("throughput", "latency"):
        for side, command in sides.items():
            lines = str(folder / f"{side}_{mode}.jsonl")
            found[f"{side}_{mode}"] = [*command, engine, video, "--mode", mode, "--jsonl", lines]
    for side, command in sides.items():
        found[f"{side}_first"] = [*command, engine, video, "--max-frames", "1"]
    cached = [*found["cpp_first"], "--cache", str(folder / "cache")]
    return {**found, "cpp_first_cached": cached}


def ratio(rounds: list[dict[str, Ran]], slow: str, fast: str) -> str:
    """Return the median, lowest and highest of the rounds' ratios of wall times."""
    found = [r[slow].seconds / r[fast].seconds for r in rounds]
    return f"{statistics.median(found):.2f}x [{min(found):.2f}, {max(found):.2f}]"


def main() -> None:
    """Run the rounds and print what they say."""
    parser = argparse.ArgumentParser(description="The C++ detector against raudo detect.")
    parser.add_argument("program")
    parser.add_argument("engine")
    parser.add_argument("video")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        todo = commands(given.program, given.engine, given.video, folder)
        for command in todo.values():  # once unmeasured: files come into the system's cache
            run(command)
        rounds = [{n: run(c) for n, c in todo.items()} for _ in range(given.rounds)]
        lines = {file.stem: file.read_text().splitlines() for file in folder.glob("*.jsonl")}
    frames = len(lines["python_latency"])
    for name in todo:
        seconds = statistics.median(r[name].seconds for r in rounds)
        peak = statistics.median(r[name].peak_bytes for r in rounds) / 1e6
        speed = f"{frames / seconds:7.1f} FPS" if name in lines else " " * 11
        print(f"{name:18} {seconds:6.2f} s {speed} {peak:6.0f} MB at most")
    for mode in ("throughput", "latency"):
        python, cpp = f"python_{mode}", f"cpp_{mode}"
        same = sum(a == b for a, b in zip(lines[python], lines[cpp], strict=True))
        print(f"{mode}: {ratio(rounds, python, cpp)}, {same} of {frames} lines are the same")
        share = statistics.median(r[cpp].peak_bytes / r[python].peak_bytes for r in rounds)
        print(f"{mode}: peak memory {share:.0%} of Python's")


if __name__ == "__main__":
    main()
