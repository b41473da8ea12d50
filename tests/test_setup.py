"""The two setup files: what can be checked without installing anything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import tree_sitter_powershell
from tree_sitter import Language, Node, Parser

ROOT = Path(__file__).resolve().parents[1]
SHELL, POWERSHELL = ROOT / "setup_hu04.sh", ROOT / "setup_hu04.ps1"
POSIX = pytest.mark.skipif(os.name == "nt", reason="setup_hu04.sh is not for Windows")

# A Python that logs how it is called, can make a .venv of itself and pretends to install.
FAKE_PYTHON = """#!/bin/sh
echo "$@" >> "$FAKE_LOG"
case "$*" in
    *version_info*) exit "${FAKE_OLD:-0}" ;;
    *ensurepip*) exit "${FAKE_NO_VENV:-0}" ;;
    *"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    *"pip install"*) exit "${FAKE_PIP:-0}" ;;
esac
"""


def nodes(node: Node) -> list[Node]:
    return [node, *(inner for child in node.children for inner in nodes(child))]


@pytest.fixture(scope="module")
def powershell() -> Node:
    parser = Parser(Language(tree_sitter_powershell.language()))
    return parser.parse(POWERSHELL.read_bytes()).root_node


def test_the_powershell_file_parses(powershell: Node) -> None:
    broken = [n for n in nodes(powershell) if n.type == "ERROR" or n.is_missing]
    assert [(n.start_point.row + 1, n.text) for n in broken] == []


def test_a_broken_powershell_file_would_be_noticed() -> None:
    parser = Parser(Language(tree_sitter_powershell.language()))
    assert parser.parse(POWERSHELL.read_bytes().replace(b") {", b") ", 1)).root_node.has_error


def test_the_powershell_file_has_the_switches(powershell: Node) -> None:
    (block,) = [n for n in powershell.children if n.type == "param_block"]
    text = (block.text or b"").decode()
    assert re.findall(r"\[switch\]\$(\w+)", text) == ["Demo", "Test"]


def test_both_files_install_the_same_extras() -> None:
    shell = dict(re.findall(r'install (demo|test) "([\w,]+)"', SHELL.read_text()))
    windows = dict(re.findall(r'Install-Raudo "(\w+)" "([\w,]+)"', POWERSHELL.read_text()))
    assert shell == windows
    assert set(shell) == {"demo", "test"}


def test_what_they_install_are_extras_of_the_project() -> None:
    project = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    extras = set(re.findall(r"^(\w+) = \[", project.partition("\n[project.scripts]")[0], re.M))
    for asked in re.findall(r'install \w+ "([\w,]+)"', SHELL.read_text()):
        assert set(asked.split(",")) <= extras


def test_the_demo_needs_no_agpl_software() -> None:
    (demo,) = re.findall(r'install demo "([\w,]+)"', SHELL.read_text())
    assert not {"ultralytics", "all"} & set(demo.split(","))


def test_both_files_run_the_same_programs() -> None:
    windows = re.findall(r"Invoke-InVenv (\w.*)", POWERSHELL.read_text().replace("\\", "/"))
    shell = SHELL.read_text()
    assert windows
    for command in windows:
        assert f".venv/bin/{command}" in shell, command


@POSIX
def test_the_shell_file_parses() -> None:
    subprocess.run([bash(), "-n", SHELL], check=True)


def bash() -> str:
    found = shutil.which("bash")
    assert found is not None
    return found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the setup file, a project to install and a fake Python."""
    shutil.copy(SHELL, tmp_path)
    (tmp_path / "pyproject.toml").write_text("first")
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "model.pt").write_text("weights")
    fake = tmp_path / "fake_python"
    fake.write_text(FAKE_PYTHON)
    fake.chmod(0o755)
    return tmp_path


def setup(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [bash(), project / SHELL.name, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={
            "PATH": os.environ["PATH"],
            "PYTHON": str(project / "fake_python"),
            "FAKE_LOG": str(project / "log"),
            **environment,
        },
    )


def installs(project: Path) -> list[str]:
    log = (project / "log").read_text().splitlines()
    return [line for line in log if "pip install" in line]


@POSIX
def test_set_up_once_is_set_up(project: Path) -> None:
    assert setup(project).returncode == 0
    assert len(installs(project)) == 1
    assert installs(project)[0].endswith("-e .[torch,onnx,openvino,report]")
    assert setup(project).returncode == 0
    assert len(installs(project)) == 1


@POSIX
def test_a_changed_project_is_installed_again(project: Path) -> None:
    setup(project)
    (project / "pyproject.toml").write_text("second")
    assert setup(project).returncode == 0
    assert len(installs(project)) == 2


@POSIX
def test_a_moved_project_is_installed_again(project: Path, tmp_path: Path) -> None:
    setup(project)
    moved = tmp_path / "elsewhere"
    shutil.copytree(project, moved, ignore=shutil.ignore_patterns("elsewhere"))
    assert setup(moved).returncode == 0
    assert len(installs(moved)) == 2


@POSIX
def test_an_install_that_failed_is_tried_again(project: Path) -> None:
    failed = setup(project, FAKE_PIP="1")
    assert failed.returncode == 2
    assert "pip could not install raudo" in failed.stderr
    assert setup(project).returncode == 0
    assert len(installs(project)) == 2


@POSIX
def test_what_the_tests_need_is_installed_for_them_only(project: Path) -> None:
    setup(project)
    setup(project, "--lint")
    assert installs(project)[1].endswith("-e .[all,dev]")
    setup(project)
    assert len(installs(project)) == 2


@POSIX
def test_more_arguments_reach_pip(project: Path) -> None:
    setup(project, RAUDO_PIP_ARGS="--extra-index-url file:///wheels --pre")
    assert " --extra-index-url file:///wheels --pre pip>=23 " in installs(project)[0]


@POSIX
@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"FAKE_OLD": "1"}, "is no Python 3.10 or newer"),
        ({"FAKE_NO_VENV": "1"}, "sudo apt install python3-venv"),
        ({"PYTHON": "/no/such/python"}, "is no Python 3.10 or newer"),
    ],
)
def test_a_python_that_does_not_do_is_one_clear_line(
    project: Path, environment: dict[str, str], message: str
) -> None:
    ended = setup(project, **environment)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not (project / ".venv").exists()


@POSIX
def test_without_any_python_it_says_so(project: Path) -> None:
    tools = project / "tools"
    tools.mkdir()
    for name in ("dirname", "uname", "cksum", "cat"):
        (tools / name).symlink_to(str(shutil.which(name)))
    ended = setup(project, PATH=str(tools), PYTHON="")
    assert ended.returncode == 2
    assert ended.stderr.startswith("setup_hu04: no Python 3.10 or newer was found")


@POSIX
def test_the_sample_stands_in_for_a_missing_model_and_says_so(project: Path) -> None:
    assert "copy of samples/model.pt" in setup(project).stdout
    assert (project / "model.pt").read_text() == "weights"


@POSIX
def test_the_own_model_is_left_alone(project: Path) -> None:
    (project / "model.pt").write_text("own")
    assert "copy of samples" not in setup(project).stdout
    assert (project / "model.pt").read_text() == "own"


@POSIX
def test_an_unknown_option_is_a_usage_error(project: Path) -> None:
    ended = setup(project, "--dmeo")
    assert ended.returncode == 2
    assert "usage:" in ended.stderr
    assert not (project / "log").exists()
