"""Finds plug-ins by file name, and imports them only when they are asked for.

A plug-in is a file in one of the plug-in folders that defines exactly one concrete subclass of
the class that the folder's `base.py` names as its `Plugin`. Its name is the file's name.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from typing import TYPE_CHECKING, Any

from raudo.errors import UsageError

if TYPE_CHECKING:
    from raudo.backends.base import Backend
    from raudo.datasets.base import DatasetFormat
    from raudo.families.base import Family
    from raudo.metrics.base import Metric
    from raudo.passes.base import Pass
    from raudo.reports.base import ReportFormat

FOLDERS = ("families", "backends", "passes", "metrics", "datasets", "reports")


@cache
def names(folder: str) -> tuple[str, ...]:
    """Names of the plug-ins in one folder, sorted; imports none of them."""
    package = importlib.import_module(f"raudo.{folder}")
    return tuple(sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name != "base"))


@cache
def load(folder: str, name: str) -> Any:
    """Import one plug-in and return an instance of its class.

    Raises:
        UsageError: The folder has no plug-in of that name.
    """
    if name not in names(folder):
        raise UsageError(
            f"there is no '{name}' among the {folder}", hint=f"known: {', '.join(names(folder))}"
        )
    base = importlib.import_module(f"raudo.{folder}.base").Plugin
    module = importlib.import_module(f"raudo.{folder}.{name}")
    (plugin,) = (
        member
        for member in vars(module).values()
        if inspect.isclass(member)
        and issubclass(member, base)
        and member.__module__ == module.__name__
        and not inspect.isabstract(member)
    )
    return plugin()


def backend(name: str) -> Backend:
    """Return the backend of that name."""
    plugin: Backend = load("backends", name)
    return plugin


def backends() -> tuple[Backend, ...]:
    """Return all backends, by name."""
    return tuple(backend(name) for name in names("backends"))


def families() -> tuple[Family, ...]:
    """Return all model families, by name."""
    return tuple(load("families", name) for name in names("families"))


def passes() -> tuple[Pass, ...]:
    """Return all passes, by name."""
    return tuple(load("passes", name) for name in names("passes"))


def metric(name: str) -> type[Metric]:
    """Return the class of a metric; a metric holds state, so each use makes its own."""
    plugin: type[Metric] = type(load("metrics", name))
    return plugin


def dataset_formats() -> tuple[DatasetFormat, ...]:
    """Return all data set formats, by name."""
    return tuple(load("datasets", name) for name in names("datasets"))


def report_formats() -> tuple[ReportFormat, ...]:
    """Return all report formats, by name."""
    return tuple(load("reports", name) for name in names("reports"))
