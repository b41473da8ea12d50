"""The run folder, and the engine files with their manifests, as they lie on the disk."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from raudo.errors import EngineError, OutputError, first_problem
from raudo.records import Artifact, Manifest, Record, Report

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LATEST = "latest"
TARGET_ORDER = ("production_gpu", "production_cpu", "edge", "development")
R = TypeVar("R", bound=Record)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its name once the block succeeds.

    Nothing half-written is ever found under the final name. The temporary name keeps the suffix,
    since runtimes look at it.

    Raises:
        OutputError: The folder cannot be written, or its disk is full.
    """
    draft = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        draft.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}",
            hint="choose another folder with --output, or make room there",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


@contextlib.contextmanager
def unmade(folder: Path, *, whole: bool = False) -> Iterator[None]:
    """Take a folder away again, and its parents, if the block makes it and then fails.

    Args:
        folder: One that was there before stays.
        whole: Take it with all that is in it; else it stays unless it is empty.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        if missing and whole:
            shutil.rmtree(folder, ignore_errors=True)
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def manifest_path(engine: Path) -> Path:
    """Return where the manifest of an engine file lies."""
    return engine.with_name(engine.name + ".json")


def engine_files(engine: Path, companions: Iterable[str]) -> tuple[Path, ...]:
    """Return an engine file and the files that belong to it."""
    return (engine, *(engine.with_suffix(suffix) for suffix in companions))


def write_manifest(artifact: Artifact) -> None:
    """Write the manifest of an engine file beside it."""
    write_text(manifest_path(artifact.path), artifact.manifest.model_dump_json(indent=2) + "\n")


def read_artifact(engine: Path) -> Artifact:
    """Read the manifest of an engine file, and check that it is of this very file.

    Raises:
        EngineError: The file or its manifest is missing, or they do not belong together.
    """
    if not engine.is_file():
        raise EngineError(f"no such engine file: {engine}", hint="check the path")
    manifest = read_manifest(engine)
    beside = manifest_path(engine)
    if engine.name not in manifest.files_sha256:
        raise EngineError(
            f"{beside.name} does not describe {engine}",
            hint="engine and manifest keep the names that 'raudo export' gave them",
        )
    for name, digest in manifest.files_sha256.items():
        if not _is_file_of(engine.parent, name, digest):
            raise EngineError(
                f"{name!r} is not the file that {beside} describes",
                hint="it is damaged, missing or was replaced; make it again with 'raudo export'",
            )
    return Artifact(engine, manifest)


def read_manifest(engine: Path) -> Manifest:
    """Read the manifest of an engine file, whatever became of the file itself.

    Raises:
        EngineError: There is no manifest, or none that this raudo reads.
    """
    beside = manifest_path(engine)
    if not beside.is_file():
        raise EngineError(
            f"{engine} has no manifest {beside.name} beside it",
            hint="copy it along with the engine, or make both with 'raudo export'",
        )
    return read_record(
        beside, Manifest, "a manifest", hint="make the engine again with 'raudo export'"
    )


def read_record(path: Path, kind: type[R], what: str, hint: str) -> R:
    """Read a record that was written as JSON.

    Args:
        path: The file.
        kind: What it holds.
        what: How people call that, with its article.
        hint: What to do about a file that holds something else.

    Raises:
        FileNotFoundError: There is no such file.
        EngineError: It holds something else, or what another version wrote.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise EngineError(
            f"{path} is not {what} that this raudo reads: {first_problem(error)}", hint=hint
        ) from error


def rectangles_of(artifact: Artifact) -> tuple[Artifact, ...]:
    """Read the manifests of an engine's own for smaller input rectangles.

    Raises:
        EngineError: One is missing, or of another network.
    """
    found = []
    for name in artifact.manifest.rectangles:
        other = read_artifact(artifact.path.with_name(Path(name).name))
        ours, theirs = artifact.manifest, other.manifest
        same = ("backend", "precision", "options", "source_sha256")
        if any(getattr(ours, field) != getattr(theirs, field) for field in same):
            raise EngineError(
                f"{other.path} is no engine of the same network as {artifact.path}",
                hint="copy all engines of a run together, or make them again",
            )
        found.append(other)
    return tuple(found)


def _is_file_of(folder: Path, name: str, digest: str) -> bool:
    try:
        return Path(name).name == name and sha256(folder / name) == digest
    except (OSError, ValueError):  # missing, or no name that a file can have
        return False


@dataclass(frozen=True)
class Run:
    """One run folder."""

    folder: Path

    @property
    def engines(self) -> Path:
        """The folder of engine files and their manifests."""
        return self.folder / "engines"

    @property
    def state(self) -> Path:
        """The folder of what each finished step left, for resuming."""
        return self.folder / "state"

    @property
    def pictures(self) -> Path:
        """The folder of pictures that the reports show."""
        return self.folder / "pictures"

    @property
    def settings(self) -> Path:
        """The settings that the run was started with."""
        return self.folder / "settings.yaml"

    @property
    def log(self) -> Path:
        """The log file."""
        return self.folder / "raudo.log"

    @property
    def report(self) -> Path:
        """The report that machines read."""
        return self.folder / "report.json"

    @property
    def report_page(self) -> Path:
        """The report that people read."""
        return self.folder / "report.html"

    def save(self, name: str, record: Record) -> None:
        """Keep what a finished step left."""
        write_text(self.state / f"{name}.json", record.model_dump_json(indent=2) + "\n")

    def recall(self, name: str, kind: type[R]) -> R | None:
        """Return what a finished step left, or None."""
        file = self.state / f"{name}.json"
        try:
            return kind.model_validate_json(file.read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValidationError):
            return None

    def become_latest(self) -> None:
        """Let `latest`, beside the run folder, point to it.

        Raises:
            OutputError: The folder of the runs cannot be written.
        """
        latest = self.folder.with_name(LATEST)
        draft = latest.with_name(f".{secrets.token_hex(4)}.{LATEST}")
        try:
            try:
                draft.symlink_to(self.folder.name, target_is_directory=True)
            except OSError:  # Windows lets only some users make links: a file with the name serves
                draft.write_text(self.folder.name, encoding="utf-8")
            os.replace(draft, latest)  # noqa: PTH105 (Path.replace follows the link on some systems)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise _unwritable(self.folder, error) from error

    def log_to_file(self) -> None:
        """Send the log of everything below `raudo` to the run's log file."""
        handler = logging.FileHandler(self.log, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        logger = logging.getLogger("raudo")
        logger.setLevel(logging.INFO)
        for old in logger.handlers[:]:
            if isinstance(old, logging.FileHandler):
                logger.removeHandler(old)
                old.close()
        logger.addHandler(handler)
        logger.propagate = False


def create_run(parent: Path, name: str) -> Run:
    """Make a run folder, which `latest` does not point to yet.

    Raises:
        OutputError: The folder cannot be written.
    """
    run = Run(parent / name)
    try:
        for folder in (run.engines, run.state, run.pictures):
            folder.mkdir(parents=True, exist_ok=True)
        run.log_to_file()
    except OSError as error:
        raise _unwritable(run.folder, error) from error
    return run


def _unwritable(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write the run folder {folder}: {error.strerror or error}",
        hint="choose another folder with --output, or make room there",
    )


def resolve_run(path: Path) -> Run:
    """Return the run folder at a path, which may be `runs/latest` or the file that stands for it.

    Raises:
        EngineError: There is no run folder.
    """
    if path.name == LATEST and path.is_file():
        path = path.parent / path.read_text(encoding="utf-8").strip()
    if not path.is_dir():
        raise EngineError(f"no such run folder: {path}", hint="make one with 'raudo optimize'")
    return Run(path.resolve())


def settings_to_resume(parent: Path, name: str | None) -> Path:
    """Return the settings file of a run to go on with: a named one, or the latest.

    Raises:
        EngineError: There is no such run.
    """
    settings = resolve_run(parent / (name or LATEST)).settings
    if not settings.is_file():
        raise EngineError(
            f"{settings.parent} holds no settings to go on with",
            hint="start a new run with 'raudo optimize MODEL'",
        )
    return settings


def read_report(run: Run) -> Report:
    """Read the report of a run folder.

    Raises:
        EngineError: The run has no report, or none that this raudo reads.
    """
    try:
        return read_record(
            run.report, Report, "a report", hint="make the run again with 'raudo optimize'"
        )
    except FileNotFoundError as error:
        way_on = f"finish it: raudo optimize --resume --name {run.folder.name}"
        raise EngineError(
            f"{run.folder} has no report{' yet' if run.settings.is_file() else ''}",
            hint=way_on if run.settings.is_file() else "make a run with 'raudo optimize'",
        ) from error
