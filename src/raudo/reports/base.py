"""What a report format is: it renders one `Report` to one file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from raudo.requiring import Requiring

if TYPE_CHECKING:
    from pathlib import Path

    from raudo.records import Report


class ReportFormat(Requiring, ABC):
    """One report format; the file is `report<suffix>` in the run folder."""

    name: ClassVar[str]
    suffix: ClassVar[str]
    modules: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str | None] = None

    @abstractmethod
    def render(self, report: Report, folder: Path) -> str:
        """Return the file's text.

        Args:
            report: What to render.
            folder: The run folder, to read pictures from.
        """


Plugin = ReportFormat
