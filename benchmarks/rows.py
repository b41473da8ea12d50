"""What every benchmark prints: one row for each case, as a table or as JSON lines."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RESAMPLES = 2000


@dataclass(frozen=True)
class Row:
    """One case.

    Attributes:
        case: What was compared.
        ratio: How many times better; the median of the rounds.
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        goal: Lowest ratio that is good enough; None where there is none.
        extra: Whatever else helps.
    """

    case: str
    ratio: float
    low: float
    high: float
    goal: float | None = None
    extra: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the ratio reaches the goal."""
        return self.goal is None or self.ratio >= self.goal


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], seed: int = 0
) -> tuple[float, float, float]:
    """Return the median of the rounds' ratios with its bootstrap interval (95 %).

    Args:
        numerators: One value for each round.
        denominators: One for each round, measured next to its numerator.
        seed: Seed of the bootstrap.
    """
    ratios = np.array(numerators, np.float64) / np.array(denominators, np.float64)
    drawn = np.random.default_rng(seed).choice(ratios, size=(RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def show(rows: Sequence[Row], as_json: bool) -> None:
    """Print the rows: one JSON object a line, or a table."""
    if as_json:
        for row in rows:
            shown = {"case": row.case, "ratio": row.ratio, "low": row.low, "high": row.high}
            print(json.dumps({**shown, "goal": row.goal, "ok": row.ok, **row.extra}))
        return
    table = Table("case", "ratio", "95 % interval", "goal", "", "more")
    for row in rows:
        more = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in row.extra.items()
        )
        goal = "" if row.goal is None else f">= {row.goal:g}"
        mark = "[green]ok[/]" if row.ok else "[red]MISSED[/]"
        interval = f"{row.low:.2f} to {row.high:.2f}"
        table.add_row(row.case, f"{row.ratio:.2f}x", interval, goal, mark, more)
    Console().print(table)
