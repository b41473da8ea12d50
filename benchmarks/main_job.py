"""The main job against its goals: what `raudo optimize` reaches, and how long it takes.

The speedups are those of one interleaved run each, with the intervals that the verdict rests on.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from raudo.config import Gates
from raudo.decide import passing
from raudo.records import Candidate, Report
from rows import Row, ratio_interval, show

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "samples"
ASSETS = Path(os.environ.get("RAUDO_ASSETS", ROOT.parent / "shared" / "assets"))
RAUDO = (sys.executable, "-m", "raudo.cli")
OPTIMIZE_SECONDS, START_SECONDS, LOSS_PERCENT = 360.0, 0.3, 1.0
STARTS = 15
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"


def optimize(*words: str) -> tuple[Report, float]:
    """Run `raudo optimize`; returns its report and the seconds that it took."""
    with tempfile.TemporaryDirectory(prefix="raudo-") as output:
        start = time.perf_counter()
        told = subprocess.run(
            [*RAUDO, "optimize", *words, "--output", output, "--json"],
            stdout=subprocess.PIPE,
            check=False,
        )
        seconds = time.perf_counter() - start
    if told.returncode == 2:
        raise SystemExit(told.returncode)
    return Report.model_validate_json(told.stdout), seconds


def fastest(report: Report, precision: str | None) -> Candidate | None:
    """Return the fastest engine that passes the gates of `production_cpu`: of a precision, or any.

    Without a precision it is what the run chose. Where the CPU computes in BF16 that may be faster
    than INT8, which has to pass all the same.
    """
    gates = Gates.model_validate(report.gates["production_cpu"])
    passed = passing(report.candidates, "production_cpu", gates, accuracy_validated=True)
    return next((c for c in passed if precision in {None, c.precision}), None)


def reached(case: str, report: Report, goal: float, precision: str | None = None) -> list[Row]:
    """Compare the speedup of what passes with its goal, and its loss with what is allowed.

    Where nothing passes in the precision that the goal asks for, the ratio is zero.
    """
    candidate, decision = fastest(report, precision), report.decisions["production_cpu"]
    extra: dict[str, float | str] = {
        "verdict": decision.verdict,
        "choice": decision.choice or "none",
        "other_load": report.machine.other_load or 0.0,
    }
    if candidate is None or candidate.speedup is None:
        return [Row(f"{case}: speedup", 0.0, 0.0, 0.0, goal=goal, extra=extra)]
    extra["engine"] = candidate.name
    speedup, loss = candidate.speedup, candidate.map50_loss_percent
    rows = [Row(f"{case}: speedup", speedup.median, speedup.low, speedup.high, goal, extra)]
    if loss is not None:
        kept = [100 - value for value in (loss.value, loss.high, loss.low)]
        allowed = 100 - LOSS_PERCENT
        ratios = [value / allowed for value in kept]
        percent = {"loss_percent": loss.value, "loss_high_percent": loss.high}
        case = f"{case}: mAP@0.5 that is kept, against {allowed:g} %"
        rows.append(Row(case, ratios[0], ratios[1], ratios[2], goal=1.0, extra=percent))
    return rows


def sample() -> list[Row]:
    """Optimize the embedded sample."""
    words = (str(SAMPLES / "model.pt"), "--data", str(SAMPLES / "coco-mini" / "data.yaml"))
    report, seconds = optimize(*words)
    ratio = OPTIMIZE_SECONDS / seconds
    extra = {"seconds": seconds, "other_load": report.machine.other_load or 0.0}
    case = f"{OPTIMIZE_SECONDS:g} s against optimize of the sample"
    return [*reached("sample", report, 1.5), Row(case, ratio, ratio, ratio, goal=1.0, extra=extra)]


def blood_cells() -> list[Row]:
    """Optimize YOLO11n of blood cells: its INT8 engine passes."""
    model, data = ASSETS / "models" / "yolo11n_bccd.pt", ASSETS / "datasets" / "bccd" / "data.yaml"
    if not model.is_file():
        print(f"SKIPPED yolo11n_bccd: no {model}; set RAUDO_ASSETS", file=sys.stderr)
        return []
    report, seconds = optimize(str(model), "--data", str(data), "--splits", "val,test")
    print(f"yolo11n_bccd: {seconds:.0f} s", file=sys.stderr)
    return reached("yolo11n_bccd in INT8", report, 3.0, "int8")


def start_up(command: str) -> Row:
    """Time how long a light command takes, the fastest of several: the rest is other load.

    The first start is not timed: Python compiles raudo in it, and keeps the result.
    """
    keeping = {key: value for key, value in os.environ.items() if key != NO_BYTECODE}
    times = []
    for _ in range(STARTS + 1):
        start = time.perf_counter()
        subprocess.run([*RAUDO, command], stdout=subprocess.DEVNULL, env=keeping, check=True)
        times.append(time.perf_counter() - start)
    del times[0]
    _, low, high = ratio_interval([START_SECONDS] * STARTS, times)
    best = START_SECONDS / min(times)
    extra = {"best_s": min(times), "median_s": float(np.median(times))}
    case = f"{START_SECONDS:g} s against raudo {command}"
    return Row(case, best, min(low, best), max(high, best), goal=1.0, extra=extra)


def start_ups() -> list[Row]:
    """Time the commands that have to answer at once."""
    return [start_up("--help"), start_up("list")]


CASES: dict[str, Callable[[], list[Row]]] = {
    "start": start_ups,
    "sample": sample,
    "bccd": blood_cells,
}


def main() -> None:
    """Run the cases and print what they reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--case", action="append", choices=CASES, help="only this one; repeatable; default: all"
    )
    options = parser.parse_args()
    show([row for case in options.case or CASES for row in CASES[case]()], options.json)


if __name__ == "__main__":
    main()
