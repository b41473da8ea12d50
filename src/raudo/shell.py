"""How commands behave: they answer at once, errors are a line and a hint, exit codes tell."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

from raudo.errors import LET_READ, RaudoError

if TYPE_CHECKING:
    from collections.abc import Iterator

EXIT_USAGE, EXIT_INTERRUPTED = 2, 130
MISTYPED: type[Exception] = typer.BadParameter.__mro__[1]
"""Base of all errors about what was typed; some versions of Typer bring Click's inside of them."""


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


@contextlib.contextmanager
def explained(typed: Any = None) -> Iterator[None]:
    """Turn errors into a line, a hint and an exit code.

    Args:
        typed: Context of the commands; it knows which one was typed, as not every error does.
    """
    try:
        yield
    except RaudoError as error:
        complain(error.message, error.hint)
        raise typer.Exit(error.exit_code) from error
    except MISTYPED as error:
        message = error.format_message()  # type: ignore[attr-defined]
        if len(message.splitlines()) != 1:  # the help of commands that were typed without one
            raise
        context = getattr(error, "ctx", None)
        command = context.command_path if context else _command(typed)
        complain(message, f"see '{command} --help' for what it takes")
        raise typer.Exit(EXIT_USAGE) from error
    except PermissionError as error:
        complain(f"{error.filename}: {error.strerror}", LET_READ)
        raise typer.Exit(EXIT_USAGE) from error
    except KeyboardInterrupt as error:
        way_on = f"\nhint: {error}" if error.args else ""
        typer.echo(f"interrupted{way_on}", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from error


def _command(typed: Any) -> str:
    words = (typed.command_path, typed.invoked_subcommand) if typed else ("raudo",)
    return " ".join(filter(None, words))


class Commands(Light, TyperGroup):
    """The commands; errors become one line, a hint and an exit code."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Read what was typed before the command."""
        with explained():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was typed."""
        with explained(ctx):
            return super().invoke(ctx)
