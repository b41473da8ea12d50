"""How commands behave: they answer at once, errors are a line and a hint, exit codes tell."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from raudo.errors import LET_READ, RaudoError

EXIT_USAGE, EXIT_INTERRUPTED = 2, 130


class Light:
    """Part of a command that may not wait for pydantic, which Typer would ask about `--help`."""

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option; where nobody typed it, it is False rather than nothing."""
        option = super().get_help_option(ctx)  # type: ignore[misc]
        if option is not None:
            option.default = False
        return option


class LightCommand(Light, TyperCommand):
    """A command that answers at once."""


def complain(message: str, hint: str) -> None:
    """Say what is wrong in one line, and what to do about it in another."""
    typer.echo(f"error: {message}\nhint: {hint}", err=True)


class Commands(Light, TyperGroup):
    """The commands; errors become one line, a hint and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was typed."""
        try:
            return super().invoke(ctx)
        except RaudoError as error:
            complain(error.message, error.hint)
            raise typer.Exit(error.exit_code) from error
        except typer.BadParameter as error:
            command = error.ctx.command_path if error.ctx else "raudo"
            complain(error.format_message(), f"see '{command} --help' for what it takes")
            raise typer.Exit(EXIT_USAGE) from error
        except PermissionError as error:
            complain(f"{error.filename}: {error.strerror}", LET_READ)
            raise typer.Exit(EXIT_USAGE) from error
        except KeyboardInterrupt as error:
            way_on = f"\nhint: {error}" if error.args else ""
            typer.echo(f"interrupted{way_on}", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from error
