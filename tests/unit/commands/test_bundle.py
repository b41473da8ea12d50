from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from raudo.commands.bundle import EXAMPLE, write_bundle
from raudo.errors import EngineError, UsageError
from raudo.records import Artifact, Manifest, Spec
from raudo.workspace import read_artifact, sha256, write_manifest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def engine(tmp_path: Path, tiny_spec: Spec) -> Path:
    """An engine file of two parts, with its manifest."""
    folder = tmp_path / "models"
    folder.mkdir()
    parts = [folder / "m.xml", folder / "m.bin"]
    for part in parts:
        part.write_text(part.name)
    manifest = Manifest(
        name="abacus-fp32",
        backend="abacus",
        precision="fp32",
        spec=tiny_spec,
        source="m.pt",
        source_sha256="",
        files_sha256={part.name: sha256(part) for part in parts},
    )
    write_manifest(Artifact(parts[0], manifest))
    return parts[0]


def test_a_bundle_has_all_that_belongs_to_an_engine(engine: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "new" / "bundle"
    write_bundle(bundle, [engine])
    assert read_artifact(bundle / engine.name).manifest == read_artifact(engine).manifest
    assert {file.name for file in bundle.iterdir()} == {"m.xml", "m.bin", "m.xml.json", *EXAMPLE}
    assert "raudo::raudo_detector" in (bundle / "CMakeLists.txt").read_text()


def test_what_the_user_wrote_is_left_alone(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "main.cpp").write_text("mine")
    write_bundle(tmp_path, [engine])
    assert (tmp_path / "main.cpp").read_text() == "mine"


def test_a_damaged_engine_is_refused(engine: Path, tmp_path: Path) -> None:
    engine.with_suffix(".bin").write_text("other")
    with pytest.raises(EngineError, match=r"m\.bin"):
        write_bundle(tmp_path / "bundle", [engine])


def test_a_folder_that_cannot_be_made_is_refused(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"):
        write_bundle(tmp_path / "file", [engine])
