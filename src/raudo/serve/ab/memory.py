"""The state of an experiment on disk: for `raudo ab report`, and to stay rolled back."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from raudo.errors import UsageError
from raudo.serve.ab.records import Experiment
from raudo.workspace import read_record, write_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from raudo.serve.ab.comparison import AnyComparison

logger = logging.getLogger(__name__)

FILE = "ab.json"
EVERY_SECONDS = 30.0


class Memory:
    """Writes the state now and then, and whenever the verdict changes.

    Args:
        path: The file; what it holds already is read.
        now: Tells seconds.

    Raises:
        EngineError: It holds something else.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._path, self._now = path, now
        self._last = read(path) if path.is_file() else None
        self._due = now() + EVERY_SECONDS
        self._verdict = "INCONCLUSIVE"

    def note(self, comparison: AnyComparison) -> None:
        """Write the state if it is time to."""
        if comparison.verdict != self._verdict or self._now() >= self._due:
            self.write(comparison)

    def write(self, comparison: AnyComparison) -> None:
        """Write the state; a folder that cannot be written to costs the memory, no request."""
        self._due = self._now() + EVERY_SECONDS
        self._verdict = comparison.verdict
        self._last = comparison.state()
        try:
            write_text(self._path, self._last.model_dump_json(indent=2) + "\n")
        except UsageError as error:
            logger.warning("the A/B state is not kept: %s", error.message)

    def recall(self, comparison: AnyComparison) -> bool:
        """Roll a comparison back that was rolled back before, of the very same two engines."""
        before = self._last
        if before is None:
            return False
        sides = {v.name: v.engine_sha256 for v in (before.candidate, before.baseline)}
        same = {name: side.engine_sha256 for name, side in comparison.sides.items()} == sides
        if not same or before.rolled_back is None or comparison.rolled_back:
            return False
        comparison.rolled_back = before.rolled_back
        logger.error("to try this engine again, remove %s", self._path)
        return True


def read(path: Path) -> Experiment:
    """Read a state that was kept.

    Raises:
        EngineError: It is damaged.
    """
    hint = "remove it, and the experiment starts afresh"
    return read_record(path, Experiment, "an A/B state", hint)
