"""What nodes take, added up by kind."""

from __future__ import annotations

from raudo.measuring.profiling import by_kind
from raudo.records import NodeProfile


def node(kind: str, precision: str, milliseconds: float) -> NodeProfile:
    return NodeProfile(name="n", type=kind, precision=precision, milliseconds=milliseconds)


def test_nodes_of_one_type_and_precision_are_one_row_and_the_longest_comes_first() -> None:
    rows = by_kind(
        [
            node("Conv", "int8", 1.0),
            node("Softmax", "fp32", 3.0),
            node("Conv", "fp32", 0.5),
            node("Conv", "int8", 4.0),
        ]
    )
    assert [(r.type, r.precision, r.milliseconds, r.nodes) for r in rows] == [
        ("Conv", "int8", 5.0, 2),
        ("Softmax", "fp32", 3.0, 1),
        ("Conv", "fp32", 0.5, 1),
    ]


def test_what_exceeds_the_rows_is_the_last_row_and_nothing_is_lost() -> None:
    rows = by_kind([node(f"kind {n}", "fp32", float(n)) for n in range(1, 8)], most=3)
    assert [r.type for r in rows] == ["kind 7", "kind 6", "other"]
    assert rows[-1].nodes == 5
    assert sum(r.milliseconds for r in rows) == sum(range(1, 8))


def test_without_nodes_there_are_no_rows() -> None:
    assert by_kind([]) == ()
