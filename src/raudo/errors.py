"""The one tree of errors that raudo raises on purpose.

RaudoError                  exit code 2: the user can mend it, the hint says how
├── UsageError              an option, a setting or a command that makes no sense
│   └── OutputError         a folder that cannot be written into, or is full
├── MissingDependencyError  an extra that is not installed
├── SourceError             the model file: missing, damaged, unknown, unsafe
├── DataError               a data set, an image or a video that cannot be used
├── EngineError             an engine file or its manifest does not fit
└── WorkerError             an engine's process crashed, hung or ran out of memory
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


LET_READ = "let this user read it, or run raudo as one who may"
"""What to do about a file that the system keeps from raudo."""


class RaudoError(Exception):
    """An error with one line that says what is wrong and one that says what to do.

    Args:
        message: What went wrong, in one line, with the value that caused it.
        hint: What the user can do next, in one line.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """Errors travel between processes; a keyword-only argument needs help for that."""
        return functools.partial(type(self), hint=self.hint), (self.message,)


class UsageError(RaudoError):
    """An option, a setting or a combination of them that makes no sense."""


class OutputError(UsageError):
    """A folder cannot be written into, or its disk is full."""


class MissingDependencyError(RaudoError):
    """A package that an optional part needs is not installed."""


class SourceError(RaudoError):
    """The model file is missing, damaged, of an unknown family or unsafe to open."""


class DataError(RaudoError):
    """A data set, an image or a video cannot be used."""


class EngineError(RaudoError):
    """An engine file, or the manifest beside it, does not fit what it is used for."""


class WorkerError(RaudoError):
    """The process that ran an engine crashed, hung or ran out of memory."""


def first_problem(error: ValidationError) -> str:
    """Return the first problem of a validation in one line, whatever its fields are called."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    text = f"{where}: {problem['msg']}" if where else str(problem["msg"])
    return "".join(letter if letter.isprintable() else " " for letter in text)
