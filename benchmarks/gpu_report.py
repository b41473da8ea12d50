"""Shows what `gpu.py` measured: the table of its JSON file in Markdown, and a plot beside it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

STAGES = {"prepare": "#9db4c0", "infer": "#253237", "select": "#e0a458"}
HEAD = (
    "engine",
    "network alone, ms",
    "end to end, ms",
    "speedup",
    "images/s, batch 32",
    "loss of mAP50, %",
)


def measured(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the engines that were measured, the fastest end to end first."""
    rows = [(name, row) for name, row in found["rows"].items() if "measurement" in row]
    return sorted(rows, key=lambda pair: float(stage(pair[1], "end_to_end")))


def stage(row: dict[str, Any], name: str) -> float:
    """Return the median milliseconds of a stage."""
    return float(row["measurement"]["stages"][name]["p50"])


def ends(value: dict[str, float], digits: int) -> str:
    """Write a value with its interval."""
    middle = value.get("value", value.get("median", 0.0))
    numbers = (middle, value["low"], value["high"])
    shown = [f"{round(number, digits) + 0.0:.{digits}f}" for number in numbers]  # no "-0.00"
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def table(found: dict[str, Any]) -> str:
    """Return the Markdown table, what was not measured at its end."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    for name, row in measured(found):
        many = row.get("images_a_second_of_32")
        cells = (
            f"`{name}`",
            ends(row["network_ms"], 2),
            f"{stage(row, 'end_to_end'):.2f}",
            ends(row["measurement"]["speedup"], 2),
            f"{many['network']['value']:,.0f}" if many else "",
            ends(row["accuracy"]["map50_loss_percent"], 2),
        )
        lines.append("| " + " | ".join(cells) + " |")
    absent = [(n, r["status"]) for n, r in found["rows"].items() if "measurement" not in r]
    return "\n".join([*lines, "", *(f"- `{name}`: {status}" for name, status in absent)])


def plot(found: dict[str, Any], path: Path) -> None:
    """Draw the stages of a frame as bars, the network alone as a mark."""
    from matplotlib.figure import Figure

    rows = measured(found)[::-1]
    figure = Figure(figsize=(9, 0.45 * len(rows) + 1.4), layout="constrained")
    axes = figure.add_subplot()
    names = [name for name, _ in rows]
    left = [0.0] * len(rows)
    for title, colour in STAGES.items():
        widths = [stage(row, title) for _, row in rows]
        axes.barh(names, widths, left=left, color=colour, label=title, height=0.6)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    alone = [row["network_ms"]["value"] for _, row in rows]
    axes.scatter(alone, names, marker="|", s=220, color="#d1495b", label="network alone", zorder=3)
    for place, (_, row) in enumerate(rows):
        total = f"{stage(row, 'end_to_end'):.2f}"
        axes.text(left[place] + 0.08, place, total, va="center", fontsize=9)
    gpu = found["machine"]["gpus"][0]["name"]
    axes.set_xlabel(f"milliseconds a frame of 640x640, batch 1, {gpu}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the table, and draw the plot beside the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path, help="JSON file of gpu.py")
    given = parser.parse_args()
    found = json.loads(given.result.read_text(encoding="utf-8"))
    print(table(found))
    plot(found, given.result.with_suffix(".png"))


if __name__ == "__main__":
    main()
