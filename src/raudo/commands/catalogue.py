"""What `raudo list` shows: every plug-in, and whether it can be used here."""

from __future__ import annotations

from dataclasses import dataclass

from raudo import discover


@dataclass(frozen=True)
class Entry:
    """One plug-in; no record, since pydantic needs longer for its first one than `raudo list`."""

    kind: str
    name: str
    title: str = ""
    gives: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def catalogue() -> tuple[Entry, ...]:
    """Return all plug-ins."""
    backends = (
        Entry(
            kind="backend",
            name=b.name,
            title=b.title,
            gives=tuple(f"{b.name}-{v.name}" for v in b.variants),
            missing=b.missing(),
        )
        for b in discover.backends()
    )
    passes = (
        Entry(kind="pass", name=p.name, title=p.title, gives=(p.precision,), missing=p.missing())
        for p in discover.passes()
    )
    families = (Entry(kind="family", name=f.name, title=f.title) for f in discover.families())
    # The rest by name alone: importing them takes longer than all of `raudo list` may.
    rest = (
        Entry(kind=kind, name=name)
        for folder, kind in (("datasets", "data set"), ("metrics", "metric"), ("reports", "report"))
        for name in discover.names(folder)
    )
    return (*families, *backends, *passes, *rest)
