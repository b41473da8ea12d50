"""An experiment for people: found at a service or in a run folder, shown in the terminal."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from raudo.errors import EngineError, first_problem
from raudo.presentation import console
from raudo.serve.ab.memory import FILE, read
from raudo.serve.ab.records import Experiment
from raudo.workspace import resolve_run

if TYPE_CHECKING:
    from raudo.records import Verdict
    from raudo.serve.ab.records import FigureState

EXIT_CODES: dict[Verdict, int] = {"PASS": 0, "SKIPPED": 0, "FAIL": 1, "INCONCLUSIVE": 3}
SECONDS = 10.0
TITLES = {
    "agreement": "agreement, drop",
    "latency": "latency, longer",
    "errors": "errors, more",
    "class_flips": "class flips",
    "score_shift": "scores, fall",
}


def find(source: str) -> Experiment:
    """Return the experiment of a running service, or what one left in its run folder.

    Args:
        source: `http://...`, a run folder, or the file in it.

    Raises:
        EngineError: There is none.
    """
    if source.startswith(("http://", "https://")):
        return ask(source)
    path = Path(source)
    if not path.is_file() or path.name != FILE:
        path = resolve_run(path).folder / FILE
    if not path.is_file():
        raise EngineError(
            f"{path.parent} holds no comparison yet: a service writes it now and then",
            hint="name the address of one that runs, or start one: "
            f"raudo serve {source} --shadow baseline",
        )
    return read(path)


def ask(address: str) -> Experiment:
    """Ask a running service.

    Raises:
        EngineError: It does not answer, or compares nothing.
    """
    url = f"{address.rstrip('/')}/v1/ab"
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:  # noqa: S310 (http, https)
            return Experiment.model_validate_json(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            raise EngineError(
                f"{address} compares nothing: it answered {error.code}",
                hint="start it with --ab baseline=10 or --shadow baseline",
            ) from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise EngineError(
            f"{address} does not answer: {reason}",
            hint="name the address of the service, or the run folder that it served",
        ) from error
    except ValidationError as error:
        raise EngineError(
            f"{url} is not an A/B state that this raudo reads: {first_problem(error)}",
            hint="use the raudo that the service runs",
        ) from error


def show(experiment: Experiment, *, as_json: bool) -> None:
    """Print an experiment, as tables or as JSON."""
    if as_json:
        console.print_json(experiment.model_dump(mode="json"))
        return
    one, other = experiment.candidate, experiment.baseline
    copies = "" if experiment.mode == "split" else "copies of "
    how = f"{copies}{experiment.share_percent:g} % of the requests go to {other.name}"
    console.out.print(escape(f"{one.name} against {other.name}: {how}"))
    verdict = console.styled(experiment.verdict)
    console.out.print(f"{verdict} {escape(conclusion(experiment))}\n")
    console.out.print(figures_table(experiment.figures))
    sides = Table("variant", "requests", "failed", "p50 ms", "p95 ms", "p99 ms", box=None)
    for side in (one, other):
        times = (_number(each) for each in (side.p50_ms, side.p95_ms, side.p99_ms))
        sides.add_row(escape(side.name), f"{side.requests:,}", f"{side.failed:,}", *times)
    console.out.print(sides)


def conclusion(experiment: Experiment) -> str:
    """Return what the verdict means, in a sentence."""
    if experiment.rolled_back:
        gone = experiment.rolled_back
        return f"rolled back after {gone.requests:,} requests: {gone.reason}"
    seen = f"{experiment.requests:,} requests so far"
    if experiment.verdict == "PASS":
        return f"all guards were certain after {experiment.held_after:,} requests; {seen}"
    needs = [figure.needed for figure in experiment.figures if figure.verdict == "INCONCLUSIVE"]
    known = [needed for needed in needs if needed is not None]
    if len(known) < len(needs) or not known:
        return f"more requests have to tell; {seen}"
    return f"about {max(known):,} requests would settle it; {seen}"


def figures_table(figures: tuple[FigureState, ...]) -> Table:
    """Return a row for each figure; larger is worse, and the intervals may be watched."""
    table = Table("worse by", "estimate", "95 %, at all times", "limit", "", box=None)
    for figure in figures:
        interval = "not yet"
        if figure.low is not None and figure.high is not None:
            interval = f"{figure.low:+.2f} to {figure.high:+.2f}"
        value = "-" if figure.value is None else f"{figure.value:+.2f} {figure.unit}"
        limit = "" if figure.limit is None else f"{figure.limit:g} {figure.unit}"
        verdict = console.styled(figure.verdict) if figure.verdict else "watched"
        table.add_row(TITLES.get(figure.name, escape(figure.name)), value, interval, limit, verdict)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
