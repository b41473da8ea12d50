"""`raudo list` names every plug-in, and answers without the packages that take long to import."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from raudo import discover
from raudo.commands.catalogue import catalogue

if TYPE_CHECKING:
    import pytest

HEAVY = {
    "typer._adapters",
    "cv2",
    "jinja2",
    "matplotlib",
    "numpy",
    "onnx",
    "onnxruntime",
    "openvino",
    "torch",
}


def test_every_plug_in_is_listed_once() -> None:
    listed = [(entry.kind, entry.name) for entry in catalogue()]
    assert len(set(listed)) == len(listed)
    assert len(listed) == sum(len(discover.names(folder)) for folder in discover.FOLDERS)


def test_backends_give_their_candidates_and_passes_their_precision() -> None:
    gives = {entry.name: entry.gives for entry in catalogue() if entry.kind in {"backend", "pass"}}
    for backend in discover.backends():
        assert gives[backend.name] == tuple(f"{backend.name}-{v.name}" for v in backend.variants)
    for each in discover.passes():
        assert gives[each.name] == (each.precision,)


def test_what_is_missing_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = discover.backends()[0]
    monkeypatch.setattr(type(backend), "modules", ("no_such_module",))
    (entry,) = (e for e in catalogue() if e.name == backend.name)
    assert entry.missing == ("no_such_module",)


def heavy_after(code: str) -> set[str]:
    names = f"import sys; print(*set({sorted(HEAVY)!r}) & set(sys.modules))"
    ended = subprocess.run(
        [sys.executable, "-c", f"{code}\n{names}"], capture_output=True, text=True, check=True
    )
    return set(ended.stdout.splitlines()[-1].split())


def test_light_commands_import_nothing_heavy() -> None:
    assert heavy_after("import numpy") == {"numpy"}, "the test sees what is imported"
    assert heavy_after("import raudo.cli, raudo.presentation.console") == set()
    assert heavy_after("from raudo.commands.catalogue import catalogue; catalogue()") == set()
    # Typer converts values with pydantic, which takes longer than all of the list.
    assert heavy_after("from raudo.cli import app; app(['list'], standalone_mode=False)") == set()
