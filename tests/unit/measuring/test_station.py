"""What a worker's process opens an engine with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from null_engines import null_engine
from raudo.backends.base import Variant
from raudo.backends.null import NullBackend
from raudo.measuring.station import Station
from raudo.records import Artifact
from raudo.workspace import read_artifact, write_manifest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("worth", "opened"), [(True, 2), (False, 1)])
def test_streams_that_are_not_worth_trying_are_not_opened(
    worth: bool, opened: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NullBackend, "variants", (Variant("any", "fp32", streams=worth),))
    artifact = read_artifact(null_engine(tmp_path / "e.npz"))
    named = artifact.manifest.model_copy(update={"name": "null-any"})
    write_manifest(Artifact(artifact.path, named))
    station = Station()
    station.open(artifact.path, 2, 2, 1, trust=False)
    assert station.detector.resources.streams == opened
    station.detector.close()
