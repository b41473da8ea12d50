"""What a C++ program needs to run engines: the files, and a tiny CMake project that links raudo."""

from __future__ import annotations

import shutil
from importlib import resources
from typing import TYPE_CHECKING

from raudo.errors import UsageError
from raudo.kept import ship
from raudo.workspace import manifest_path, read_artifact

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

EXAMPLE = ("CMakeLists.txt", "main.cpp")


def write_bundle(folder: Path, engines: Iterable[Path]) -> None:
    """Copy engines with all that belongs to them, and an example, into a folder.

    An example that is there already is left alone: its user may have begun to write in it.

    Raises:
        EngineError: An engine and its manifest do not belong together.
        UsageError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for engine in engines:
            digests = read_artifact(engine).manifest.files_sha256
            for file in (*(engine.with_name(name) for name in digests), manifest_path(engine)):
                shutil.copy(file, folder)
            ship(digests, folder)
        for name in EXAMPLE:
            if not (folder / name).exists():
                source = resources.files("raudo.commands") / "bundle_files" / name
                (folder / name).write_bytes(source.read_bytes())
    except OSError as error:
        raise UsageError(
            f"cannot write {folder}: {error.strerror or error}",
            hint="choose another folder with --cpp-bundle, or make room there",
        ) from error
