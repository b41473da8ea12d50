"""What the documents promise: links lead somewhere, code runs, commands work."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from raudo.config import OptimizeSettings

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / name for name in ("README.md", "QUICK_START_HU04.md", "CONTRIBUTING.md")]
DOCUMENTS.append(ROOT / "samples" / "README.md")
README = DOCUMENTS[0].read_text(encoding="utf-8")

# Verdicts on six images depend on the machine; that there is one does not.
GATED = {"optimize", "benchmark", "validate"}

# The last value of an option counts, so these keep the timed rounds short.
HURRY = {"optimize": ["--timing-budget", "3"], "benchmark": ["--budget", "3"]}


class Ran(NamedTuple):
    """A command of the README, and how it ended."""

    command: list[str]
    ended: subprocess.CompletedProcess[str]


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def commands() -> list[list[str]]:
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def anchors(document: Path) -> set[str]:
    """Anchors as code hosts make them of headings."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
    assert links
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_settings_are_valid() -> None:
    found = blocks("yaml")
    assert found
    for block in found:
        given = yaml.safe_load(block)
        gates = given.pop("gates")
        OptimizeSettings.model_validate(given)
        defaults = {t: g.model_dump() for t, g in OptimizeSettings(model="m").gates.items()}
        merged = {t: defaults[t] | bounds for t, bounds in gates.items()}
        OptimizeSettings.model_validate(given | {"gates": merged})


def test_every_extra_is_listed() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    listed = re.findall(r"^\| (`[\w-]+`(?:, `[\w-]+`)*) \|.*\|.*\|$", README, re.M)
    assert set(re.findall(r"^([\w-]+) = \[", table, re.M)) <= set(
        re.findall(r"`([\w-]+)`", " ".join(listed))
    )


def test_every_bash_line_is_a_command_of_raudo() -> None:
    assert {words[0] for words in commands()} == {"raudo"}


def test_every_command_is_shown() -> None:
    """In blocks that are executed, or in others where it serves, or asks a service."""
    listed = set(re.findall(r"^\| `raudo (\w+)", README, re.M))
    endless = re.findall(r"^raudo (serve|ab)\b", "".join(blocks("sh")), re.M)
    assert {words[1] for words in commands()} | set(endless) == listed


@pytest.mark.slow
def test_options_that_are_only_shown_exist() -> None:
    help_texts: dict[str, str] = {}
    lines = [line for line in "".join(blocks("sh")).splitlines() if line.startswith("raudo ")]
    assert lines
    for line in lines:
        _, name, *words = shlex.split(line, comments=True)
        if name not in help_texts:
            program = [sys.executable, "-m", "raudo.cli", name, "--help"]
            ended = subprocess.run(program, capture_output=True, text=True, check=True)
            help_texts[name] = ended.stdout
        options = {word for word in words if word.startswith("--")}
        assert {o for o in options if o not in help_texts[name]} == set(), line


@pytest.fixture(scope="module")
def ran(small_project: Path) -> list[Ran]:
    """All commands of the README in their order, on a few images and with little time."""
    results = []
    for _, name, *options in commands():
        words = [name, *options, *HURRY.get(name, ())]
        ended = subprocess.run(
            [sys.executable, "-m", "raudo.cli", *words],
            cwd=small_project,
            capture_output=True,
            text=True,
            check=False,
        )
        results.append(Ran(words, ended))
    return results


@pytest.mark.slow
def test_commands_run(ran: list[Ran], small_project: Path) -> None:
    for command, ended in ran:
        allowed = {0, 1, 3} if command[0] in GATED else {0}
        assert ended.returncode in allowed, f"{command}\n{ended.stdout}\n{ended.stderr}"
        assert "Traceback" not in ended.stderr
    for made in ("models/model.onnx", "models/model.xml", "models/model.int8.xml"):
        assert (small_project / made).is_file()
    assert (small_project / "highway.mp4").stat().st_size > 0
    assert len((small_project / "detected.jsonl").read_text().splitlines()) == 6
    assert (small_project / "runs" / "latest" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("python"), ids=lambda b: b.strip().splitlines()[-1])
def test_python_runs(ran: list[Ran], small_project: Path, block: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", block],
        cwd=small_project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip()
