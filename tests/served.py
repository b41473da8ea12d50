"""`raudo serve` in a process of its own, as a user starts it."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LISTENS = re.compile(r"serving \S+ at (http://\S+)")


@contextlib.contextmanager
def served(source: Path, *options: str) -> Iterator[str]:
    """Serve a run folder or an engine on a free port; yields the address once it is ready.

    Args:
        source: What to serve.
        options: More options of the command.
    """
    command = [sys.executable, "-m", "raudo.cli", "serve", str(source), "--port", "0", *options]
    log = (source if source.is_dir() else source.parent) / "served.log"
    with log.open("w") as written, subprocess.Popen(command, stderr=written) as process:
        try:
            yield address(process, log)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, log.read_text()
        finally:
            process.kill()


def address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Return where the service listens, once it does."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
        said = log.read_text()
        found = LISTENS.search(said)
        if found:
            return found[1]
        assert process.poll() is None, said
