"""What runtimes compile of engines, kept in the user's cache folder to start faster next time.

The C++ detector keeps its own there in the same form (`cpp/src/kept.cpp`): either finds what the
other compiled. What is shipped with an engine lies in a folder beside it, and is only read.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
from typing import TYPE_CHECKING

from raudo.errors import OutputError
from raudo.machine import cache_folder
from raudo.workspace import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

SUFFIX = ".blob"
DIGEST_BYTES = 64
"""A file begins with the SHA-256 of the rest: runtimes take damaged weights without a word."""
MOST_BYTES = 1 << 30
"""Of all files; those not used for longest go first."""
SHIPPED = "compiled"
"""The folder beside an engine."""


class Kept:
    """One file of the cache.

    Args:
        engine: The file that it is compiled of.
        words: All that what is compiled depends on, which the file is named after.
    """

    def __init__(self, engine: Path, words: Iterable[str]) -> None:
        name = re.sub(r"[^0-9A-Za-z.-]", "_", "-".join(words)) + SUFFIX
        self.path = cache_folder() / name
        self._shipped = engine.parent / SHIPPED / name

    def read(self) -> bytes | None:
        """Return what is kept, or else what was shipped; None where nothing whole is."""
        if (found := _read_whole(self.path)) is None:
            return _read_whole(self._shipped)
        with contextlib.suppress(OSError):  # a folder that only others may write
            os.utime(self.path)
        return found

    def write(self, content: bytes) -> None:
        """Keep something, in the place of what was not used for longest; where there is room."""
        try:
            with replacing(self.path) as draft:
                draft.write_bytes(hashlib.sha256(content).hexdigest().encode() + content)
        except OutputError as error:
            log.warning("what was compiled is not kept: %s", error.message)
        _bound()


def digest_word(files_sha256: Mapping[str, str]) -> str:
    """Return the word that all names begin with of what is compiled of an engine's files."""
    return "".join(files_sha256[name][:16] for name in sorted(files_sha256))


def ship(files_sha256: Mapping[str, str], folder: Path) -> None:
    """Copy what is kept of an engine to where it is looked for beside a copy in a folder."""
    for file in cache_folder().glob(f"{digest_word(files_sha256)}-*{SUFFIX}"):
        (folder / SHIPPED).mkdir(exist_ok=True)
        shutil.copy(file, folder / SHIPPED)


def _read_whole(file: Path) -> bytes | None:
    try:
        content = file.read_bytes()
    except OSError:
        return None
    digest, found = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    return found if hashlib.sha256(found).hexdigest().encode() == digest else None


def _bound() -> None:
    """Remove the files beyond the most that may be kept."""
    with contextlib.suppress(OSError):  # another process may remove them too
        used = [(f.stat().st_mtime, f.stat().st_size, f) for f in cache_folder().glob(f"*{SUFFIX}")]
        total = 0
        for _, size, file in sorted(used, reverse=True):
            total += size
            if total > MOST_BYTES:
                file.unlink(missing_ok=True)
