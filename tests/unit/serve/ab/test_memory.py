"""What an experiment leaves on disk, and what comes of it when the service starts again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from null_engines import null_engine
from raudo.errors import EngineError
from raudo.records import Artifact
from raudo.serve.ab.comparison import Plan
from raudo.serve.ab.memory import EVERY_SECONDS, Memory, read
from raudo.serve.ab.routing import ShadowRouting
from raudo.serve.observer import Finished
from raudo.serve.records import ModelVersion, Stages
from raudo.workspace import read_artifact

if TYPE_CHECKING:
    from pathlib import Path

PLAN = Plan("shadow", "primary", "baseline", 1.0)


class Scene:
    """A service's experiment, as the core sees it, over engines in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "ab.json"
        self.begin()

    def begin(self, *, primary: int = 0) -> None:
        """Start the service: with an engine of that seed, and a baseline."""
        self.routing = ShadowRouting(PLAN, "trial", self.file)
        self.load("primary", primary)
        self.load("baseline", 99)

    def load(self, variant: str, seed: int) -> None:
        engine = null_engine(self.folder / f"{seed}.npz", seed=seed)
        self.routing.model_loaded(ModelVersion("1", variant, read_artifact(engine)))

    def fail(self) -> None:
        """Let the candidate fail until it goes."""
        for number in range(200):
            stages = Stages(infer=0.01)
            self.routing.request_finished(
                Finished(f"{number}", "detect", "ok", 1.0, stages, "baseline", shadow=True)
            )
            self.routing.request_finished(
                Finished(f"{number}", "detect", "engine_failed", 1.0, None, "primary")
            )


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_roll_back_is_kept_at_once(scene: Scene) -> None:
    scene.fail()
    kept = read(scene.file)
    assert kept.verdict == "FAIL"
    assert kept.rolled_back == scene.routing.comparison.rolled_back
    assert kept.candidate.engine_sha256 != kept.baseline.engine_sha256 != ""


def test_a_service_that_starts_again_stays_rolled_back(
    scene: Scene, logged: list[logging.LogRecord]
) -> None:
    scene.fail()
    logged.clear()
    scene.begin()
    assert scene.routing.choose("r") == "baseline"
    assert any("still rolled back" in record.getMessage() for record in logged)
    assert all(record.levelno == logging.ERROR for record in logged)


def test_another_engine_is_tried(scene: Scene) -> None:
    scene.fail()
    scene.begin(primary=1)
    assert scene.routing.choose("r") == "primary"


def test_the_same_file_in_another_precision_is_another_engine(scene: Scene) -> None:
    scene.fail()
    before, artifact = scene.routing.comparison, read_artifact(scene.folder / "0.npz")
    other = artifact.manifest.model_copy(update={"precision": "bf16"})
    scene.routing.model_loaded(ModelVersion("2", "primary", Artifact(artifact.path, other)))
    assert scene.routing.comparison is not before
    assert scene.routing.choose("r") == "primary"


def test_another_engine_in_a_running_service_is_tried(scene: Scene) -> None:
    scene.fail()
    scene.load("primary", 1)
    assert scene.routing.choose("r") == "primary"
    assert scene.routing.comparison.state().candidate.requests == 0
    scene.routing.close()
    assert read(scene.file).verdict == "FAIL"  # of the former one, as long as it is kept


def test_the_same_engine_loaded_again_changes_nothing(scene: Scene) -> None:
    before = scene.routing.comparison
    scene.load("primary", 0)
    scene.load("another variant", 5)
    assert scene.routing.comparison is before


def test_without_the_file_it_is_tried_again(scene: Scene) -> None:
    scene.fail()
    scene.file.unlink()
    scene.begin()
    assert scene.routing.choose("r") == "primary"


def test_the_state_is_kept_now_and_then(tmp_path: Path) -> None:
    clock = [0.0]
    memory = Memory(tmp_path / "ab.json", lambda: clock[0])
    comparison = ShadowRouting(PLAN, "trial").comparison
    memory.note(comparison)
    assert not (tmp_path / "ab.json").exists()
    clock[0] = EVERY_SECONDS
    memory.note(comparison)
    assert read(tmp_path / "ab.json") == comparison.state()


def test_a_state_that_cannot_be_kept_costs_no_request(
    tmp_path: Path, logged: list[logging.LogRecord]
) -> None:
    (tmp_path / "file").touch()
    memory = Memory(tmp_path / "file" / "ab.json")
    memory.write(ShadowRouting(PLAN, "trial").comparison)
    (said,) = logged
    assert "is not kept" in said.getMessage()


def test_a_damaged_state_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "ab.json").write_text('{"ab_version": 1', encoding="utf-8")
    with pytest.raises(EngineError, match="not an A/B state"):
        ShadowRouting(PLAN, "trial", tmp_path / "ab.json")
