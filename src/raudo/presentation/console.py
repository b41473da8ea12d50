"""What the command line shows: progress on standard error, results as tables."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from raudo.listener import Listener

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from raudo.benchmark import Timed
    from raudo.commands.catalogue import Entry
    from raudo.commands.compare import Raced, Scored
    from raudo.commands.detect import Summary
    from raudo.records import (
        Candidate,
        Decision,
        Interval,
        Record,
        Report,
        Similarity,
        Speedup,
        Stage,
        Status,
    )

STYLES = {
    "PASS": "bold green",
    "OK": "green",
    "FAIL": "bold red",
    "FAILED": "red",
    "INCONCLUSIVE": "bold yellow",
    "SKIPPED": "dim",
}
MARKS = {"PASS": "✔", "FAIL": "✘", "INCONCLUSIVE": "?", "SKIPPED": "-"}
WIDE = 120
"""Columns of a terminal that have room for intervals."""


class Lines(Console):
    """A console whose lines stay whole in files and pipes; a terminal breaks them at words."""

    def say(self, text: str, *, markup: bool = True) -> None:
        """Print one line."""
        self.print(text, highlight=False, markup=markup, soft_wrap=not self.is_terminal)


out = Lines()
err = Lines(stderr=True)


class ProgressListener(Listener):
    """Shows how a run goes on, on standard error; a context manager.

    Ctrl-C is insisted on: some libraries catch whatever is raised while they are imported or
    trace a network, and a run went on as if nothing had been typed.
    """

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        self._task = self._progress.add_task("", total=None)
        self._interrupted = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        self._progress.start()
        return self

    def _interrupt(self, *_signal: object) -> None:
        self._interrupted = True
        raise KeyboardInterrupt

    def _insist(self) -> None:
        if self._interrupted:
            raise KeyboardInterrupt

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGINT, self._before)
        self._progress.stop()

    def step(self, title: str, total: float | None = None) -> None:
        """Show the step's title and an empty bar."""
        self._insist()
        self._progress.reset(self._task, description=title, total=total)

    def advance(self, done: float, total: float | None = None) -> None:
        """Fill the bar."""
        self._insist()
        self._progress.update(self._task, completed=done, total=total)

    def finished(self, name: str, status: Status, reason: str) -> None:
        """Print a line for the candidate, above the bar."""
        self._insist()
        why = f"  [dim]{escape(reason)}[/]" if reason else ""
        err.say(f"  {styled(status)} {name}{why}")


def styled(word: str) -> str:
    """Return a status or a verdict in its colour."""
    return f"[{STYLES[word]}]{word}[/]"


def show_report(report: Report, where: Path, *, explained: bool = False) -> None:
    """Print the verdict, the candidates and where the report lies."""
    from raudo.presentation.present import disturbance

    out.print(candidates_table(report.candidates, out.width))
    for c in report.candidates:
        if c.status != "OK":
            out.say(f"{styled(c.status)} {c.name}: {escape(c.reason)}")
    if explained:
        from raudo.presentation.explain import explain

        for name, why in explain(report):
            out.say(f"[bold]{name}[/]: {escape(why)}")
    for target, decision in report.decisions.items():
        show_decision(target, decision)
    show_warnings((*report.warnings, *disturbance(report.machine.other_load)))
    out.print(f"\nReport: {where}", highlight=False, soft_wrap=True)


def show_decision(target: str, decision: Decision) -> None:
    """Print one verdict with its reasons."""
    choice = f" -> [bold]{decision.choice}[/]" if decision.choice else ""
    if decision.best_throughput is not None and decision.throughput_setting is not None:
        other = decision.best_throughput != decision.choice
        name = f"{decision.best_throughput}, " if other else ""
        choice += f" (most frames a second: {name}{decision.throughput_setting.title})"
    mark = MARKS[decision.verdict]
    out.say(f"\n{mark} {target}: {styled(decision.verdict)}{choice}")
    for reason in decision.reasons:
        out.say(f"    {reason}", markup=False)
    for step in decision.next_steps:
        out.say(f"    next: {step}", markup=False)


def candidates_table(candidates: Sequence[Candidate], width: int) -> Table:
    """Return the table of the candidates that ran; a narrow one leaves intervals out."""
    wide = width >= WIDE
    more = ("mAP50-95",) if wide else ()
    titles = ("p50 ms", "p99 ms", "speedup", "mAP50", *more, "loss %", "alike %", "FPS")
    table = _numbers("candidate", *titles)
    for c in candidates:
        if c.status != "OK":
            continue
        latency = c.latency_ms
        table.add_row(
            c.name,
            _number(latency.p50 if latency else None, 1),
            _number(latency.p99 if latency else None, 1),
            _speedup(c.speedup, wide),
            _number(c.map50, 3),
            *((_number(c.map50_95, 3),) if wide else ()),
            _interval(c.map50_loss_percent, wide),
            _number(c.similarity_percent, 1),
            _number(c.throughput_fps, 1),
        )
    return table


def timing_table(timed: Timed, baseline: str, width: int) -> Table:
    """Return the table of `raudo benchmark`; a narrow one leaves intervals and some stages out."""
    wide = width >= WIDE
    stages: tuple[Stage, ...] = ("prepare", "infer", "select") if wide else ("infer",)
    table = _numbers("engine", *stages, "p50 ms", "p99 ms", "speedup", "network", "FPS")
    for name, measured in timed.measurements.items():
        total = measured.stages["end_to_end"]
        table.add_row(
            _named(name, baseline),
            *(f"{measured.stages[s].p50:.2f}" for s in stages),
            *(f"{value:.2f}" for value in (total.p50, total.p99)),
            _speedup(measured.speedup, wide),
            _speedup(measured.speedup_model, wide=False),
            _number(max((t.fps for t in measured.throughput), default=None), 1),
        )
    return table


def scores_table(found: Scored, width: int) -> Table:
    """Return the table of `raudo validate`; a narrow one leaves intervals out."""
    wide = width >= WIDE
    points = ("points",) if wide else ()
    titles = ("mAP50", "loss %", "points", "mAP50-95", "loss %", *points, "similar %")
    table = _numbers("engine", *titles)
    for name, scores in found.engines.items():
        accuracy, similarity = scores.accuracy, scores.similarity
        strict = (accuracy,) if wide else ()
        table.add_row(
            _named(name, found.baseline),
            _number(accuracy.map50 if accuracy else None, 4),
            _interval(accuracy.map50_loss_percent if accuracy else None, wide),
            _interval(accuracy.map50_loss_points if accuracy else None, wide=False),
            _number(accuracy.map50_95 if accuracy else None, 4),
            _interval(accuracy.map50_95_loss_percent if accuracy else None, wide),
            *(_interval(a.map50_95_loss_points if a else None, wide=False) for a in strict),
            _similar(similarity, wide),
        )
    return table


def _similar(found: Similarity | None, wide: bool) -> str:
    if found is None or found.f1_interval is None:
        return _number(found.f1_percent if found else None, 2)
    return _interval(found.f1_interval, wide)


def _numbers(first: str, *titles: str) -> Table:
    """Return an empty table: names on the left, numbers on the right."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(first, overflow="fold")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _named(name: str, baseline: str) -> str:
    return f"{name} (baseline)" if name == baseline else name


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else _fixed(value, digits)


def _fixed(value: float, digits: int = 2) -> str:
    """Format a number, without the sign that a rounded -0.001 would keep."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def _speedup(value: Speedup | None, wide: bool) -> str:
    if value is None:
        return "-"
    return f"{value.median:.2f}x" + (f" [{value.low:.2f}, {value.high:.2f}]" if wide else "")


def _interval(value: Interval | None, wide: bool) -> str:
    if value is None:
        return "-"
    ends = f" [{_fixed(value.low)}, {_fixed(value.high)}]" if wide else ""
    return _fixed(value.value) + ends


def show_raced(raced: Raced, *, as_json: bool) -> None:
    """Print what `raudo benchmark` measured."""
    from raudo.presentation.present import disturbance

    warnings = disturbance(raced.timed.other_load)
    if as_json:
        verdicts = {name: made.model_dump(mode="json") for name, made in raced.verdicts.items()}
        timed = raced.timed.model_dump(mode="json")
        content = {"baseline": raced.baseline, "verdicts": verdicts, "warnings": warnings}
        print_json(content | timed)
    else:
        out.print(timing_table(raced.timed, raced.baseline, out.width))
        show_verdicts(raced.verdicts)
        show_warnings(warnings)


def show_scored(found: Scored, *, as_json: bool) -> None:
    """Print what `raudo validate` found."""
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        out.print(scores_table(found, out.width))
        show_verdicts(found.verdicts)
        show_warnings(found.warnings)


def show_verdicts(verdicts: Mapping[str, Decision]) -> None:
    """Print how each engine stands to the gates."""
    for name, decision in verdicts.items():
        show_decision(escape(name), decision.model_copy(update={"choice": None}))


def show_warnings(warnings: Sequence[str]) -> None:
    """Print what the user should know."""
    for warning in warnings:
        out.say(f"\n[yellow]warning:[/] {escape(warning)}")


def show_detected(summary: Summary, *, as_json: bool) -> None:
    """Print what `raudo detect` did."""
    if as_json:
        print_json(summary.model_dump(mode="json"))
        return
    out.print(
        f"{_counted(summary.frames, 'frame')}, {_counted(summary.detections, 'detection')}, "
        f"{summary.fps:.1f} FPS with decoding and writing",
        highlight=False,
    )
    for file, reason in summary.skipped.items():
        where = "" if file in reason else f"{file}: "
        out.print(f"[yellow]warning:[/] {escape(where + reason)}", highlight=False, soft_wrap=True)
    for path in summary.outputs:
        out.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def show_records(records: Sequence[Record | Entry], *, as_json: bool) -> None:
    """Print records of one kind, one a line."""
    rows = [asdict(r) if is_dataclass(r) else r.model_dump(mode="json") for r in records]
    if as_json:
        print_json(rows)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in rows[0] if rows else ():
        table.add_column(column.replace("_", " "))
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    out.print(table)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    text = str(value)
    return (STYLES.get(text, "") and styled(text)) or escape(text)


def print_json(value: object) -> None:
    """Print plain JSON, never wrapped or coloured."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
