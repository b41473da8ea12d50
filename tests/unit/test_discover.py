"""Finding plug-ins by file name."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from raudo import discover
from raudo.errors import UsageError


@pytest.mark.parametrize("folder", discover.FOLDERS)
def test_every_file_of_a_folder_is_a_plugin(folder: str) -> None:
    (place,) = import_module(f"raudo.{folder}").__path__
    files = {f.stem for f in Path(place).glob("*.py")} - {"__init__", "base"}
    assert discover.names(folder) == tuple(sorted(files))


@pytest.mark.parametrize(
    ("folder", "name"), [(f, n) for f in discover.FOLDERS for n in discover.names(f)]
)
def test_a_plugin_is_of_its_folder_s_kind_and_has_its_file_s_name(folder: str, name: str) -> None:
    plugin = discover.load(folder, name)
    assert isinstance(plugin, import_module(f"raudo.{folder}.base").Plugin)
    assert plugin.name == name
    assert type(plugin).__module__ == f"raudo.{folder}.{name}"


@pytest.mark.parametrize("name", ["base", "absent", "__init__", "../os", ""])
def test_what_is_no_plugin(name: str) -> None:
    with pytest.raises(UsageError, match=r"there is no .* among the backends") as caught:
        discover.backend(name)
    assert "null" in caught.value.hint


def test_names_import_nothing() -> None:
    code = (
        "import sys; from raudo import discover\n"
        "for folder in discover.FOLDERS: discover.names(folder)\n"
        "print([m for m in sys.modules if m.count('.') == 2 and m.startswith('raudo.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_each_use_of_a_metric_makes_its_own() -> None:
    for name in discover.names("metrics"):
        kind = discover.metric(name)
        assert isinstance(kind, type)
        assert kind is type(discover.load("metrics", name))
