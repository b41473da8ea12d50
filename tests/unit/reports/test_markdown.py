"""report.md: what a reviewer sees in a pull request."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from raudo.reports.markdown import plain

if TYPE_CHECKING:
    from collections.abc import Callable


def test_verdict_first(rendered: Callable[[str, str], str]) -> None:
    assert rendered("markdown", "full").splitlines()[0] == (
        "## ✅ PASS: openvino-fp32 runs 2.29\N{MULTIPLICATION SIGN} as fast"
    )
    assert "INCONCLUSIVE" in rendered("markdown", "inconclusive").splitlines()[0]


def test_every_row_of_a_table_has_the_same_columns(rendered: Callable[[str, str], str]) -> None:
    for kind in ("full", "hostile names", "nothing ran"):
        text = rendered("markdown", kind)
        assert sum(line.startswith("|") for line in text.splitlines()) >= 3
        for block in text.split("\n\n"):
            rows = [r for r in block.splitlines() if r.startswith("|")]
            assert len({row.count("|") for row in rows}) <= 1
            assert len(rows) != 1


def test_candidates_show_their_figures(rendered: Callable[[str, str], str]) -> None:
    (row,) = re.findall(r"^\| openvino-int8 .*$", rendered("markdown", "full"), re.MULTILINE)
    figures = ("fails", "[5.18, 5.33]", "| 5.41\N{MULTIPLICATION SIGN} |", "11.8", "29.0 %")
    for figure in (*figures, "[25.8, 32.2]", "| 14.5 |", "71.0 %", "1.95 MB"):
        assert figure in row
    assert "**openvino-fp32**" in rendered("markdown", "full")


def test_the_machine_is_described(rendered: Callable[[str, str], str]) -> None:
    text = rendered("markdown", "full")
    assert "- Example CPU @ 2.60GHz, 2 cores, 25.3 GB, Linux 6.1" in text.replace("&#64;", "@")
    assert "- AVX2, AVX-512, AVX-512 VNNI, AVX-512 BF16" in text
    assert "Load of other programs while timing: 2.00 %" in text
    assert "- Python 3.11.9, raudo 0.1.0, numpy 2.2.0, torch 2.14.1" in text


def test_nothing_hostile_gets_through(rendered: Callable[[str, str], str]) -> None:
    text = rendered("markdown", "hostile names")
    assert "<script" not in text
    assert "](" not in text
    assert "\n## new" not in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain words, 1.5x [0, 1]", "plain words, 1.5x &#91;0, 1&#93;"),
        ("a|b", "a&#124;b"),
        ("<b>", "&#60;b&#62;"),
        ("@someone", "&#64;someone"),
        ("two\nlines", "two lines"),
        ("- item", "&#45; item"),
        ("1. item", "1&#46; item"),
        ("onnxruntime-fp32", "onnxruntime-fp32"),
    ],
)
def test_plain(text: str, expected: str) -> None:
    assert plain(text) == expected


def test_shows_what_the_chosen_engine_spends_its_time_on(
    rendered: Callable[[str, str], str],
) -> None:
    page = rendered("markdown", "full")
    title = next(line for line in page.splitlines() if line.startswith("### Inside "))
    precision = title.rpartition("-")[2].split("@")[0].split(",")[0].upper()
    assert f"| Convolution | {precision} | 78 |" in page
    assert ("% of the time outside INT8" in title) == (precision == "INT8")


def test_a_disturbed_run_says_so(rendered: Callable[[str, str], str]) -> None:
    assert "took 31.0 % of the cores" in rendered("markdown", "disturbed, with warnings")
    assert "so speedups may be too large" not in rendered("markdown", "full")
