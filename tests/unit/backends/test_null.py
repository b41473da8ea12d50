"""The null backend: canned outputs, and their file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from raudo.backends.base import Resources
from raudo.backends.null import NullBackend, canned
from raudo.errors import EngineError
from raudo.records import Artifact, Manifest, Spec

if TYPE_CHECKING:
    from pathlib import Path


def make_artifact(path: Path, output: Any, classes: tuple[str, ...] = ("a", "b")) -> Artifact:
    spec = Spec(family="any", height=32, width=48, classes=classes, output=output)
    manifest = Manifest(
        name="null-x",
        backend="null",
        precision="fp32",
        spec=spec,
        source="m.pt",
        source_sha256="",
        files_sha256={},
    )
    return Artifact(path, manifest)


@pytest.mark.parametrize("output", ["dense", "topk"])
def test_outputs_survive_their_file_and_are_repeated_for_a_batch(
    tmp_path: Path, output: str
) -> None:
    artifact = make_artifact(tmp_path / "e.npz", output)
    made = canned(artifact.manifest.spec, anchors=50, objects=2)
    NullBackend().write_graph(made, artifact.path)
    with NullBackend().open(artifact, Resources()) as engine:
        one = engine.run(np.zeros((1, 32, 48, 3), np.uint8))
        three = engine.run(np.zeros((3, 32, 48, 3), np.uint8))
        assert engine.audit().found == {}
    assert np.array_equal(one.boxes, made.boxes)
    assert np.array_equal(one.scores, made.scores)
    assert (one.labels is None) == (output == "dense")
    for index in range(3):
        assert np.array_equal(three.boxes[index], made.boxes[0])
        assert np.array_equal(three.scores[index], made.scores[0])


def test_it_takes_the_time_that_its_manifest_asks_for(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "e.npz", "dense")
    NullBackend().write_graph(canned(artifact.manifest.spec, anchors=50, objects=2), artifact.path)
    options = {"call_ms": 3, "image_ms": 0.5}
    slow = Artifact(artifact.path, artifact.manifest.model_copy(update={"options": options}))
    with (
        pytest.MonkeyPatch.context() as patch,
        NullBackend().open(slow, Resources()) as engine,
    ):
        slept: list[float] = []
        patch.setattr("raudo.backends.null.time.sleep", slept.append)
        engine.run(np.zeros((4, 32, 48, 3), np.uint8))
    assert slept == [0.005]


def test_outputs_of_another_spec_break_the_contract(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "e.npz", "dense")
    NullBackend().write_graph(canned(artifact.manifest.spec, anchors=50, objects=2), artifact.path)
    other = make_artifact(artifact.path, "dense", classes=("a", "b", "c"))
    with (
        NullBackend().open(other, Resources()) as engine,
        pytest.raises(EngineError, match="break its spec"),
    ):
        engine.run(np.zeros((1, 32, 48, 3), np.uint8))


def test_an_archive_without_outputs(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "e.npz", "dense")
    np.savez(artifact.path, something=np.zeros(3))
    with pytest.raises(EngineError, match="holds no canned outputs"):
        NullBackend().open(artifact, Resources())


def test_the_same_seed_gives_the_same_outputs() -> None:
    spec = make_artifact(None, "dense").manifest.spec  # type: ignore[arg-type]
    assert np.array_equal(canned(spec, seed=1).scores, canned(spec, seed=1).scores)
    assert not np.array_equal(canned(spec, seed=1).scores, canned(spec, seed=2).scores)
