"""Engine files with their manifests, and run folders, on the disk."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raudo import workspace
from raudo.chosen import find_engine
from raudo.errors import EngineError, OutputError, UsageError
from raudo.records import Artifact, Calibration, Interval, Manifest, Spec
from raudo.workspace import (
    Run,
    create_run,
    manifest_path,
    read_artifact,
    replacing,
    resolve_run,
    sha256,
    write_manifest,
    write_text,
)


def make_engine(folder: Path, name: str = "e.xml", content: bytes = b"engine") -> Artifact:
    """Write an engine of two files, and its manifest."""
    engine = folder / name
    engine.write_bytes(content)
    companion = engine.with_suffix(".bin")
    companion.write_bytes(b"weights")
    manifest = Manifest(
        name="any-int8",
        backend="any",
        precision="int8",
        options={"rest": "fp32", "threads": 2, "fast": True, "share": 0.5},
        spec=Spec(family="any", height=64, width=96, classes=("a", "ñ")),
        source="model.pt",
        source_sha256="ab" * 32,
        files_sha256={file.name: sha256(file) for file in (engine, companion)},
        calibration=Calibration(source="train", images=3, sha256="cd" * 32),
    )
    artifact = Artifact(engine, manifest)
    write_manifest(artifact)
    return artifact


def contents(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*")}


# Writing


def test_replacing_shows_the_file_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "e.xml"
    with replacing(path) as draft:
        assert draft.suffix == ".xml"
        draft.write_text("half")
        assert not path.exists()
        draft.write_text("whole")
    assert path.read_text() == "whole"
    assert contents(tmp_path) == {"new", "new/e.xml"}


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt()])
def test_replacing_leaves_nothing_of_a_failure(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "e.xml"
    path.write_text("before")

    def fail() -> None:
        with replacing(path) as draft:
            draft.write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_text() == "before"
    assert contents(tmp_path) == {"e.xml"}


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write") as caught:
        write_text(tmp_path / "file" / "e.txt", "text")
    assert "\n" not in caught.value.message
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="cannot write"):
        write_text(tmp_path / "folder", "text")
    assert contents(tmp_path) == {"file", "folder"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="NO /dev/full on this system")
def test_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "e.txt"

    def fill() -> None:
        with replacing(path) as draft:
            draft.symlink_to("/dev/full")
            draft.write_text("text")

    with pytest.raises(UsageError, match=r"cannot write .*e.txt: No space left"):
        fill()
    assert contents(tmp_path) == set()


# Manifests


def test_a_manifest_survives_its_file(tmp_path: Path) -> None:
    artifact = make_engine(tmp_path)
    assert manifest_path(artifact.path) == tmp_path / "e.xml.json"
    assert read_artifact(artifact.path) == artifact


def test_an_engine_may_be_copied_with_its_files(tmp_path: Path) -> None:
    artifact = make_engine(tmp_path)
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert read_artifact(tmp_path / "copy" / "e.xml").manifest == artifact.manifest


@pytest.mark.parametrize("name", ["e.xml", "e.bin"])
@pytest.mark.parametrize("how", ["changed", "gone", "a folder"])
def test_tampered_files_are_refused(tmp_path: Path, name: str, how: str) -> None:
    artifact = make_engine(tmp_path)
    file = tmp_path / name
    if how == "changed":
        file.write_bytes(file.read_bytes() + b"!")
    else:
        file.unlink()
    if how == "a folder":
        file.mkdir()
    with pytest.raises(EngineError, match=r"is not the file that|no such engine"):
        read_artifact(artifact.path)


def test_a_manifest_of_another_engine_is_refused(tmp_path: Path) -> None:
    make_engine(tmp_path, "one.xml", b"one")
    make_engine(tmp_path, "two.xml", b"two")
    shutil.copyfile(tmp_path / "one.xml.json", tmp_path / "two.xml.json")
    with pytest.raises(EngineError, match="does not describe"):
        read_artifact(tmp_path / "two.xml")


def test_an_engine_without_its_manifest(tmp_path: Path) -> None:
    (tmp_path / "e.onnx").write_bytes(b"engine")
    with pytest.raises(EngineError, match="has no manifest"):
        read_artifact(tmp_path / "e.onnx")
    with pytest.raises(EngineError, match="no such engine file"):
        read_artifact(tmp_path / "absent.onnx")


@pytest.mark.parametrize("name", ["", ".", "..", "../e.bin", "a/b", "x" * 5000, "nul\0", "/e.xml"])
def test_a_manifest_speaks_of_files_beside_it_only(tmp_path: Path, name: str) -> None:
    artifact = make_engine(tmp_path)
    files = artifact.manifest.files_sha256 | {name: artifact.manifest.files_sha256["e.xml"]}
    write_manifest(
        Artifact(artifact.path, artifact.manifest.model_copy(update={"files_sha256": files}))
    )
    with pytest.raises(EngineError, match="is not the file that"):
        read_artifact(artifact.path)


@pytest.mark.parametrize(
    "change",
    [
        {"manifest_version": 2},
        {"precision": "int3"},
        {"unknown": 1},
        {"spec": {}},
        {"files_sha256": None},
        {"options": {"a": [1]}},
    ],
)
def test_manifests_of_another_kind_name_what_is_wrong(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    artifact = make_engine(tmp_path)
    file = manifest_path(artifact.path)
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | change))
    with pytest.raises(EngineError, match=f"not a manifest .*{next(iter(change))}") as caught:
        read_artifact(artifact.path)
    assert "\n" not in caught.value.message


def test_a_field_with_a_line_in_its_name_is_refused_in_one_line(tmp_path: Path) -> None:
    artifact = make_engine(tmp_path)
    file = manifest_path(artifact.path)
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"a\n\x1b[2Jb": 1}))
    with pytest.raises(EngineError, match=r"a  \[2Jb: Extra inputs"):
        read_artifact(artifact.path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(sorted(Manifest.model_fields))


@given(
    st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(FIELDS, JSON, min_size=1)
)
def test_a_fuzzed_manifest_is_read_or_refused(value: bytes | dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        artifact = make_engine(Path(folder))
        file = manifest_path(artifact.path)
        if isinstance(value, dict):
            value = json.dumps(json.loads(file.read_bytes()) | value).encode()
        file.write_bytes(value)
        try:
            found = read_artifact(artifact.path)
        except EngineError as error:
            assert "\n" not in error.message  # noqa: PT017
        else:
            assert "e.xml" in found.manifest.files_sha256


# Runs


@pytest.fixture(autouse=True)
def _close_logs() -> Any:
    yield
    logger = logging.getLogger("raudo")
    for handler in logger.handlers[:]:
        if isinstance(handler, logging.FileHandler):
            logger.removeHandler(handler)
            handler.close()
    logger.propagate = True


def test_latest_points_to_the_last_run(tmp_path: Path) -> None:
    for name in ("one", "two"):
        create_run(tmp_path, name).become_latest()
        assert resolve_run(tmp_path / "latest").folder == (tmp_path / name).resolve()
    assert contents(tmp_path / "two") == {"engines", "state", "pictures", "raudo.log"}
    assert resolve_run(tmp_path / "one").folder.name == "one"


def test_latest_is_a_file_where_links_are_not_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("a required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    for name in ("one", "two ñ"):
        create_run(tmp_path, name).become_latest()
        assert (tmp_path / "latest").is_file()
        assert resolve_run(tmp_path / "latest").folder == (tmp_path / name).resolve()
    with pytest.raises(EngineError, match="has no report"):
        find_engine(tmp_path / "latest")


def test_no_such_run(tmp_path: Path) -> None:
    for name in ("absent", "latest"):
        with pytest.raises(EngineError, match="no such run folder"):
            resolve_run(tmp_path / name)
    (tmp_path / "latest").write_text("gone")
    with pytest.raises(EngineError, match="no such run folder"):
        find_engine(tmp_path / "latest")


@pytest.mark.parametrize("whole", [True, False])
def test_what_a_failed_block_made_goes_again(tmp_path: Path, whole: bool) -> None:
    @workspace.unmade(tmp_path / "new" / "deep", whole=whole)
    @workspace.unmade(tmp_path / "before", whole=whole)
    def interrupted() -> None:
        (tmp_path / "new" / "deep").mkdir(parents=True)
        raise KeyboardInterrupt

    (tmp_path / "before").mkdir()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert contents(tmp_path) == {"before"}


@pytest.mark.parametrize("whole", [True, False])
def test_what_a_failed_block_wrote_goes_if_that_was_asked_for(tmp_path: Path, whole: bool) -> None:
    kept, new = tmp_path / "kept", tmp_path / "new"

    def write(folder: Path) -> None:
        with workspace.unmade(folder, whole=whole):
            workspace.write_text(folder / "engine", "whole")
            raise OutputError("the disk is full", hint="make room")

    kept.mkdir()
    for folder in (kept, new):
        with pytest.raises(OutputError):
            write(folder)
    assert contents(kept) == {"engine"}
    assert new.exists() != whole


def test_a_folder_that_cannot_point_to_its_latest_run(tmp_path: Path) -> None:
    run = create_run(tmp_path / "runs", "run")
    (tmp_path / "runs" / "latest").mkdir()
    with pytest.raises(UsageError, match="cannot write the run folder"):
        run.become_latest()
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"run", "latest"}


def test_a_run_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write the run folder"):
        create_run(tmp_path / "file", "run")


def test_a_step_is_recalled_or_forgotten(tmp_path: Path) -> None:
    run = create_run(tmp_path, "run")
    assert run.recall("step", Interval) is None
    run.save("step", Interval(value=1, low=0, high=2))
    assert run.recall("step", Interval) == Interval(value=1, low=0, high=2)
    (run.state / "step.json").write_text("{")
    assert run.recall("step", Interval) is None


def test_the_log_goes_to_the_run(tmp_path: Path) -> None:
    for name in ("one", "two"):
        create_run(tmp_path, name)
        logging.getLogger("raudo.test").info("speaking of %s", name)
    assert "speaking of one" in (tmp_path / "one" / "raudo.log").read_text("utf-8")
    assert "speaking of one" not in (tmp_path / "two" / "raudo.log").read_text("utf-8")


def test_an_unfinished_run_says_how_to_finish_it(tmp_path: Path) -> None:
    run = create_run(tmp_path, "run")
    run.settings.touch()
    run.become_latest()
    with pytest.raises(EngineError, match="has no report yet") as caught:
        find_engine(tmp_path / "latest")
    assert "raudo optimize --resume" in caught.value.hint


def test_a_folder_that_is_no_run_is_not_to_be_finished(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"has no report$") as caught:
        find_engine(tmp_path)
    assert "--resume" not in caught.value.hint


def test_a_damaged_report(tmp_path: Path) -> None:
    run = create_run(tmp_path, "run")
    run.report.write_text('{"report_version": 9}')
    with pytest.raises(EngineError, match="is not a report that this raudo reads"):
        find_engine(run.folder)


def test_the_run_knows_where_its_things_lie(tmp_path: Path) -> None:
    run = Run(tmp_path)
    places = {run.engines, run.state, run.pictures, run.settings, run.log, run.report}
    assert len(places) == 6
    assert {place.parent for place in places} == {tmp_path}
    assert os.fspath(workspace.engine_files(tmp_path / "e.xml", [".bin"])[1]).endswith("e.bin")
