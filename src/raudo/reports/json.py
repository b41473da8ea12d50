"""The report that machines read: the `Report` record as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raudo.reports.base import ReportFormat

if TYPE_CHECKING:
    from pathlib import Path

    from raudo.records import Report


class JsonReport(ReportFormat):
    """`report.json`; `Report.model_validate_json` reads it back."""

    name = "json"
    title = "JSON"
    suffix = ".json"

    def render(self, report: Report, folder: Path) -> str:
        """Return the record as JSON."""
        del folder
        return report.model_dump_json(indent=2) + "\n"
