"""Sums up what each node of an engine takes: by the kind of node and the precision it runs in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raudo.records import NodeProfile

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_KINDS = 12


def by_kind(nodes: Sequence[NodeProfile], most: int = MOST_KINDS) -> tuple[NodeProfile, ...]:
    """Add up nodes of one type and precision, the longest first.

    Args:
        nodes: What `Engine.profile` returned.
        most: Most rows to return; the last is the sum of all others.
    """
    kinds: dict[tuple[str, str], NodeProfile] = {}
    for node in nodes:
        key = node.type, node.precision
        known = kinds.get(key)
        kinds[key] = _sum(node.type, node.precision, [known, node] if known else [node])
    rows = sorted(kinds.values(), key=lambda row: -row.milliseconds)
    if len(rows) > most:
        rows[most - 1 :] = [_sum("other", "", rows[most - 1 :])]
    return tuple(rows)


def _sum(kind: str, precision: str, rows: Sequence[NodeProfile]) -> NodeProfile:
    return NodeProfile(
        name=kind,
        type=kind,
        precision=precision,
        milliseconds=round(sum(row.milliseconds for row in rows), 4),
        nodes=sum(row.nodes for row in rows),
    )
