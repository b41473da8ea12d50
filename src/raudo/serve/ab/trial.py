"""What `--ab` and `--shadow` ask for, found in a run folder and made ready."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from raudo.errors import EngineError, UsageError
from raudo.serve.ab.comparison import Plan
from raudo.serve.ab.guards import GUARDS
from raudo.serve.ab.memory import FILE
from raudo.serve.ab.routing import ShadowRouting, SplitRouting
from raudo.serve.records import PRIMARY
from raudo.workspace import read_artifact, read_report, resolve_run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from raudo.records import Artifact, Report
    from raudo.serve.ab.guards import Guard
    from raudo.serve.ab.records import Mode

BASELINE = "baseline"
"""What the run's own baseline is called; its other candidates go by their names."""


@dataclass(frozen=True)
class Trial:
    """A second engine, and the routing between it and the one that is served.

    Attributes:
        variant: Name of the second variant.
        artifact: Its engine.
        routing: Also the observer that counts; to be closed in the end.
    """

    variant: str
    artifact: Artifact
    routing: SplitRouting | ShadowRouting


def prepare_trial(
    source: Path,
    served: Path,
    *,
    split: str | None = None,
    shadow: str | None = None,
    guards: Sequence[str] = (),
) -> Trial | None:
    """Prepare what the options of `raudo serve` ask for.

    Args:
        source: The run folder that is served.
        served: The engine file that is served of it.
        split: `NAME=PERCENT` of the requests that go to another engine of the run.
        shadow: `NAME` or `NAME=PERCENT` of the requests that another engine gets a copy of.
        guards: `FIGURE=LIMIT`, other limits than the usual ones.

    Returns:
        None where neither is asked for.

    Raises:
        UsageError: The options make no sense.
        EngineError: The run has no such engine.
    """
    limits = parse_guards(guards)
    if split and shadow:
        raise UsageError("--ab and --shadow exclude each other", hint="choose one of them")
    if split is not None:
        variant, share = parse_share(split, "--ab")
        mode: Mode = "split"
    elif shadow is not None:
        variant, share = parse_share(shadow, "--shadow", default=100.0)
        mode = "shadow"
    elif guards:
        raise UsageError("--guard needs a comparison", hint="add --ab or --shadow")
    else:
        return None
    if source.is_file():
        raise UsageError(
            f"{source} is one engine: there is nothing to compare it with",
            hint="serve a run folder",
        )
    run = resolve_run(source)
    report = read_report(run)
    candidate = _name_of(served, run.folder, report)
    other = report.source.baseline if variant == BASELINE else variant
    if other == candidate:
        raise UsageError(f"{other} is what is served already", hint=_choose_from(report, candidate))
    expected = proven_agreement(report, candidate) if other == report.source.baseline else 100.0
    plan = Plan(mode, PRIMARY, variant, share / 100, expected, limits)
    kind = SplitRouting if mode == "split" else ShadowRouting
    routing = kind(plan, f"{run.folder.name}/{candidate}/{other}", run.folder / FILE)
    return Trial(variant, _engine(run.folder, report, other, candidate), routing)


def parse_share(text: str, option: str, default: float | None = None) -> tuple[str, float]:
    """Read `NAME=PERCENT`; `NAME` alone where there is a default.

    Raises:
        UsageError: It is neither.
    """
    name, equals, number = text.partition("=")
    try:
        percent = float(number) if equals or default is None else default
    except ValueError:
        percent = -1.0
    if not name or name == PRIMARY or not 0 < percent <= 100:
        raise UsageError(f"{option} {text}: not NAME=PERCENT", hint=f"try {option} {BASELINE}=10")
    return name, percent


def parse_guards(texts: Sequence[str]) -> tuple[Guard, ...]:
    """Return the guards, with the limits that `FIGURE=LIMIT` changes.

    Raises:
        UsageError: There is no such guard, or the limit is not above 0.
    """
    guards = {guard.figure: guard for guard in GUARDS}
    for text in texts:
        figure, _, number = text.partition("=")
        found = next((guard for name, guard in guards.items() if name == figure), None)
        try:
            limit = float(number)
        except ValueError:
            limit = 0.0
        if found is None or not 0 < limit < float("inf"):
            raise UsageError(
                f"--guard {text}: not FIGURE=LIMIT", hint=f"figures are {', '.join(guards)}"
            )
        guards[found.figure] = replace(found, limit=limit)
    return tuple(guards.values())


def proven_agreement(report: Report, candidate: str) -> float:
    """Return the F1 that the run measured of a candidate's detections with the baseline's."""
    found = next((c for c in report.candidates if c.name == candidate), None)
    percent = found.similarity_percent if found else None
    return 100.0 if percent is None else percent


def _name_of(engine: Path, folder: Path, report: Report) -> str:
    """Return which candidate of a run an engine file is."""
    names = (
        c.name
        for c in report.candidates
        if c.file and (folder / c.file).resolve() == engine.resolve()
    )
    return next(names, engine.stem)


def _engine(folder: Path, report: Report, name: str, served: str) -> Artifact:
    found = next((c for c in report.candidates if c.name == name and c.file), None)
    if found is None or found.file is None:
        raise EngineError(f"{folder} has no engine {name!r}", hint=_choose_from(report, served))
    return read_artifact(folder / found.file)


def _choose_from(report: Report, served: str) -> str:
    baseline = report.source.baseline
    names = (c.name for c in report.candidates if c.file and c.name not in (served, baseline))
    return f"choose from {', '.join([BASELINE, *names])}"
