"""A short report for a pull request, in GitHub's Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from raudo.checks import GATE_TITLES
from raudo.presentation import present
from raudo.reports.base import ReportFormat

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from raudo.records import Report

_SPECIAL = re.compile(r"^[-+]|[\\`*_{}\[\]#|~<>&@$]")
_MARKS = {"PASS": "✅", "FAIL": "❌", "INCONCLUSIVE": "❔", "SKIPPED": "⏭️"}


class MarkdownReport(ReportFormat):
    """`report.md`: verdicts, candidates, and what to try next."""

    name = "markdown"
    title = "Markdown"
    suffix = ".md"

    def render(self, report: Report, folder: Path) -> str:
        """Return the report as Markdown."""
        del folder
        parts = [_opening(report), _decisions(report), _candidates(report), _profile(report)]
        parts.append(_run(report))
        return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: object) -> str:
    """Return text on one line that Markdown and HTML leave as it is."""
    flat = " ".join(str(text).split())
    escaped = _SPECIAL.sub(lambda found: f"&#{ord(found.group())};", flat)
    return re.sub(r"^(\d+)\.(\s)", r"\1&#46;\2", escaped)


def _table(titles: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---", *("--:" for _ in titles[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (titles, rule, *lines))


def _opening(report: Report) -> str:
    _, decision = present.lead(report)
    lines = [
        f"## {_MARKS[decision.verdict]} {decision.verdict}: {plain(present.headline(report))}",
        f"Run {plain(report.name)}: {plain(report.source.model)}, compared with "
        f"{plain(report.source.baseline)} on {report.source.images} images.",
    ]
    warnings = (*present.disturbance(report.machine.other_load), *report.warnings)
    lines += [f"> ⚠️ {plain(warning)}" for warning in warnings]
    return "\n\n".join(lines)


def _decisions(report: Report) -> str:
    lines = ["### Decisions"]
    for target, decision in report.decisions.items():
        choice = f", {plain(decision.choice)}" if decision.choice else ""
        mark, title = _MARKS[decision.verdict], present.TARGET_TITLES[target]
        lines.append(f"- {mark} **{title}: {decision.verdict}**{choice}")
        lines += [f"  - {plain(reason)}" for reason in decision.reasons]
        lines += [f"  - *Next:* {plain(step)}" for step in decision.next_steps]
    return "\n".join(lines)


def _candidates(report: Report) -> str:
    titles = ["Candidate", "Status", "Speedup", "Network", "p50 ms", "p90", "p95", "p99", "FPS"]
    titles += ["mAP@0.5", "mAP@0.5:0.95", "Loss of mAP@0.5", "Points", "Similarity"]
    titles += ["Size", "Memory"]
    return "### Candidates\n\n" + _table(titles, (_line(row) for row in present.rows(report)))


def _line(row: present.Row) -> list[str]:
    one, times = row.candidate, row.candidate.latency_ms
    speedup, loss, number = one.speedup, one.map50_loss_percent, present.number
    network = one.measurement.speedup_model if one.measurement else None
    points = one.accuracy.map50_loss_points if one.accuracy else None
    similarity = one.similarity_percent
    spread = one.similarity.f1_interval if one.similarity and not one.baseline else None
    ranks = (times.p50, times.p90, times.p95, times.p99) if times else (None,) * 4
    return [
        f"**{plain(one.name)}**" if row.chosen_for else plain(one.name),
        plain(f"{one.status}: {one.reason}" if one.reason else _standing(row)),
        f"{number(speedup.median)}{present.TIMES} {present.interval(speedup)}"
        if speedup
        else present.MISSING,
        f"{number(network.median)}{present.TIMES}" if network else present.MISSING,
        *(number(rank) for rank in ranks),
        number(one.throughput_fps),
        present.average_precision(one.map50),
        present.average_precision(one.map50_95),
        f"{number(loss.value)} % {present.interval(loss)}" if loss else present.MISSING,
        number(points.value) if points else present.MISSING,
        present.MISSING
        if similarity is None
        else f"{number(similarity)} %{f' {present.interval(spread)}' if spread else ''}",
        present.megabytes(one.size_bytes),
        present.megabytes(one.peak_memory_bytes),
    ]


def _standing(row: present.Row) -> str:
    if row.candidate.baseline:
        return "baseline"
    if row.chosen_for:
        return "chosen"
    return present.OUTCOME_WORDS[row.outcome] if row.outcome else row.candidate.status


def _profile(report: Report) -> str:
    """Where the featured engine's time goes; nothing where no runtime told."""
    row = present.featured(report)
    if row is None or not row.candidate.profile:
        return ""
    one, outside = row.candidate, present.outside_int8(row.candidate)
    note = "" if outside is None else f", {present.number(outside)} % of the time outside INT8"
    titles = ["Kind of node", "Precision", "Nodes", "ms"]
    lines = (
        [plain(p.type), plain(p.precision.upper()), str(p.nodes), present.number(p.milliseconds)]
        for p in one.profile
    )
    return f"### Inside {plain(one.name)}{note}\n\n" + _table(titles, lines)


def _run(report: Report) -> str:
    title = "<details><summary>Gates, machine and steps</summary>"
    return "\n".join([title, "", *_facts(report), "", "</details>"])


def _facts(report: Report) -> Iterator[str]:
    titles = {str(gate): title for gate, title in GATE_TITLES.items()}
    for target, gates in report.gates.items():
        asked = ", ".join(f"{titles.get(g, plain(g))} {bound:g}" for g, bound in gates.items())
        yield f"- Gates of {plain(target)}: {asked}"
    machine = report.machine
    memory = present.number(machine.memory_bytes / 1e9)
    yield f"- {plain(machine.cpu)}, {machine.cores} cores, {memory} GB, {plain(machine.system)}"
    yield f"- {plain(', '.join(machine.isa)) or 'no special instructions known'}"
    if machine.other_load is not None:
        yield f"- Load of other programs while timing: {present.number(machine.other_load * 100)} %"
    versions = {"Python": machine.python, **machine.versions}
    yield f"- {plain(', '.join(f'{name} {v}' for name, v in versions.items()))}"
    for step in report.steps:
        reason = f" ({plain(step.reason)})" if step.reason else ""
        yield f"- {plain(step.step)}: {step.status} in {present.number(step.seconds)} s{reason}"
    yield f"- Model SHA-256: {plain(report.source.model_sha256)}"
