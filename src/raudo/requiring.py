"""What plug-ins share that need packages which an extra brings."""

from __future__ import annotations

import importlib.util
from typing import ClassVar

from raudo.errors import MissingDependencyError


class Requiring:
    """A plug-in that does nothing without some modules."""

    title: ClassVar[str]
    """What people call it."""
    modules: ClassVar[tuple[str, ...]]
    """Importable modules without which nothing works."""
    extra: ClassVar[str | None]
    """The extra of pyproject.toml that brings them."""

    def missing(self) -> tuple[str, ...]:
        """Return the modules that are not installed."""
        return tuple(m for m in self.modules if importlib.util.find_spec(m) is None)

    def require(self) -> None:
        """Raise MissingDependencyError, with the command that installs, if a module is missing."""
        if missing := self.missing():
            raise MissingDependencyError(
                f"{self.title} needs {', '.join(missing)}, which is not installed",
                hint=f"pip install 'raudo[{self.extra}]'",
            )
