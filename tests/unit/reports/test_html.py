"""report.html: self-contained, escaped, and honest about what is missing."""

from __future__ import annotations

import base64
import re
import sys
from collections import Counter
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from raudo.errors import MissingDependencyError
from raudo.reports.html import PICTURE_BYTES, HtmlReport, _template, pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from raudo.records import Report

    Render = Callable[[str, str], str]

pytest.importorskip("matplotlib", reason="NO MATPLOTLIB: the report goes untested")
pytest.importorskip("jinja2", reason="NO JINJA: the report goes untested")

VOID = {"meta", "img", "br", "link", "input", "hr", "path", "use"}
KINDS = ("full", "no labels", "nothing ran", "thirty candidates", "hostile names")


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("kind", KINDS)
def test_self_contained(kind: str, rendered: Render) -> None:
    text = rendered("html", kind)
    page = Page(text)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert value.startswith(("#", "data:image/jpeg;base64,")), (tag, name, value[:80])
        assert not name.startswith("on"), "no script in attributes"
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert "@import" not in text
    assert "@font-face" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))


@pytest.mark.parametrize("kind", KINDS)
def test_wellformed_and_accessible(kind: str, rendered: Render) -> None:
    page = Page(rendered("html", kind))
    assert page.tags["h1"] == 1
    texts = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert all(texts)
    assert len(texts) == page.tags["img"]
    plots = rendered("html", kind).count('<svg role="img" aria-label="')
    assert plots == page.tags["svg"] - 1, "all but the logo are described"


def test_hostile_names_are_shown_and_not_obeyed(rendered: Render) -> None:
    page = Page(rendered("html", "hostile names"))
    assert page.tags["script"] == 0
    assert "<script>alert('x')</script>" in page.text
    assert "../outside.png" not in rendered("html", "hostile names")


def test_verdict_comes_first(rendered: Render) -> None:
    text = rendered("html", "full")
    assert text.index("openvino-fp32 runs 2.29") < text.index('id="candidates"')
    assert "<title>PASS" in text
    assert "<title>INCONCLUSIVE" in rendered("html", "inconclusive")
    assert "<title>FAIL" in rendered("html", "nothing passes")
    assert "<title>SKIPPED" in rendered("html", "only the baseline")


def test_figures_are_in_the_table(rendered: Render) -> None:
    text = rendered("html", "full")
    table = text[text.index('class="candidates"') : text.index("</table>")]
    row = table[table.index("openvino-int8") : table.index("openvino-bf16")]
    figures = ("5.25", "[5.18, 5.33]", "network 5.41", "11.8", "15.0", "0.356", "29.0 %")
    for figure in (*figures, "14.5 points", "71.0 %", "1.95 MB"):
        assert figure in row
    assert "ran out of memory after 41 s" in table


def test_every_stage_has_its_percentiles_and_its_mean(rendered: Render) -> None:
    text = rendered("html", "full")
    table = text[text.index("Percentiles of the stages") :]
    row = re.search(r">openvino-int8</th><td>prepare</td>.*?</tr>", table)
    assert row is not None
    assert re.findall(r"<td>([\d.]+)</td>", row.group()) == ["0.42", "0.45", "0.46", "0.53", "0.43"]


def test_sections_without_data_are_left_out(rendered: Render) -> None:
    full, bare = rendered("html", "full"), rendered("html", "nothing ran")
    for section in ("speed", "classes", "pictures"):
        assert f'<section id="{section}">' in full
        assert f'<section id="{section}">' not in bare
        assert f'href="#{section}"' not in bare


def test_without_labels_similarity_takes_the_place_of_map(rendered: Render) -> None:
    text = rendered("html", "no labels")
    assert "Latency against similarity" in text
    assert "Accuracy not validated" in text
    assert "Latency against mAP" in rendered("html", "full")
    assert "Accuracy not validated" not in rendered("html", "full")


def test_only_a_disturbed_run_warns(rendered: Render) -> None:
    assert "other programs took 31.0 % of the cores" in rendered("html", "disturbed, with warnings")
    assert "other programs took" not in rendered("html", "full")


def test_every_class_and_every_candidate_is_named(
    rendered: Render, reports: Mapping[str, Report]
) -> None:
    text = rendered("html", "thirty candidates")
    for candidate in reports["thirty candidates"].candidates:
        assert f">{candidate.name}<" in text
    accuracy = reports["thirty candidates"].candidates[0].accuracy
    assert accuracy is not None
    for item in accuracy.classes:
        assert (f'title="{item.name}"' in text) == bool(item.boxes)


def test_plots_take_the_colours_of_the_page(rendered: Render) -> None:
    text = rendered("html", "full")
    plots = "".join(re.findall(r"<svg role.*?</svg>", text, re.DOTALL))
    assert set(re.findall(r"(?:fill|stroke): (#\w+|[a-z]+\b)", plots)) <= {"none", "var"}
    used = set(re.findall(r"var\(--([\w-]+)\)", text))
    assert used <= set(re.findall(r"--([\w-]+):", text)), "every variable is defined"


def test_pictures_are_embedded_small_and_in_colour(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (750, 1500, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "0.png"), noise)
    names = ("0.png",) * 8
    uris = pictures(names, tmp_path)
    raw = [base64.b64decode(uri.partition(",")[2]) for uri in uris]
    assert len(raw) == 8
    assert sum(map(len, raw)) <= PICTURE_BYTES
    decoded = cv2.imdecode(np.frombuffer(raw[0], np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded.shape[1] / decoded.shape[0] == pytest.approx(2, abs=0.02)


def test_pictures_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    cv2.imwrite(str(tmp_path / "outside.png"), np.zeros((4, 4, 3), np.uint8))
    cv2.imwrite(str(run / "fine.png"), np.zeros((4, 4, 3), np.uint8))
    (run / "empty.png").write_bytes(b"")
    (run / "damaged.png").write_bytes(b"no picture")
    names = ("../outside.png", "empty.png", "damaged.png", "missing.png", "fine.png")
    assert len(pictures(names, run)) == 1


def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, reports: Mapping[str, Report], folder: Path
) -> None:
    for module in ("jinja2", "matplotlib.figure"):
        _template.cache_clear()
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(MissingDependencyError) as caught:
                HtmlReport().render(reports["full"], folder)
        assert "raudo[report]" in caught.value.hint
