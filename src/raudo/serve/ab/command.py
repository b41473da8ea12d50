"""`raudo ab`: parse -> call -> print."""

from __future__ import annotations

from typing import Annotated

import typer

ab = typer.Typer(no_args_is_help=True, help="A/B and shadow experiments of `raudo serve`.")


@ab.callback()
def _group() -> None:
    """Keep `report` a command of its own, though it is the only one."""


@ab.command()
def report(
    source: Annotated[
        str, typer.Argument(help="Address of a service, or the run folder that it served.")
    ] = "http://127.0.0.1:8000",
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Show what an experiment has found; exit code 0: it holds, 1: rolled back, 3: open."""
    from raudo.serve.ab.report import EXIT_CODES, find, show

    experiment = find(source)
    show(experiment, as_json=json)
    raise typer.Exit(EXIT_CODES[experiment.verdict])
