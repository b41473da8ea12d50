"""The rules that keep the project's shape: see CONTRIBUTING.md, "Rules"."""

from __future__ import annotations

import ast
import graphlib
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

from raudo import discover
from raudo.records import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
FILES = sorted((SOURCE / "raudo").rglob("*.py"))
CODE = [*FILES, *(f for d in ("benchmarks", "scripts", "models") for f in (ROOT / d).glob("*.py"))]

MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 400, 50, 7
MAX_TOP_MODULES = 30
MAX_FILE_BYTES = 5_000_000

# Packages that only extras bring: none may be needed to import raudo's modules.
OPTIONAL = ("torch", "torchvision", "onnx", "onnxruntime", "openvino", "nncf", "ultralytics")
OPTIONAL += ("matplotlib", "jinja2", "pycocotools", "faster_coco_eval", "tensorrt")
OPTIONAL += ("tensorrt_rtx", "tensorrt_rtx_bindings", "cuda")
OPTIONAL += ("starlette", "uvicorn", "grpc", "google", "prometheus_client", "python_multipart")
OPTIONAL += ("ncnn", "pnnx", "ai_edge_litert", "ai_edge_quantizer", "flatbuffers", "ray")
HEAVY = ("pydantic", "numpy", "cv2", "PIL", *OPTIONAL)

# The folders whose plug-ins nobody else may know; metrics, by contrast, are known to the report.
GUARDED = ("passes", "families", "backends")

# Plug-ins whose names are also those of a package that model code imports, or of a file format.
# They may be written; what they may not do is choose: be looked up, or compared to a plug-in.
AMBIGUOUS = {"torch", "onnx", "null"}
LOOKUPS = {"backend", "load", "metric", "family"}
CHOSEN_BY = {"backend", "family", "format", "name"}


@cache
def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def module_name(file: Path) -> str:
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def identify(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


each_file = pytest.mark.parametrize("file", FILES, ids=identify)
each_code = pytest.mark.parametrize("file", CODE, ids=identify)


# --- a plug-in's name appears in its own file only ------------------------------------------------


def guarded_names() -> dict[str, Path]:
    """Names of the plug-ins that must not be known elsewhere, with the file of each."""
    return {
        name: SOURCE / "raudo" / folder / f"{name}.py"
        for folder in GUARDED
        for name in discover.names(folder)
        if name not in get_args(Precision)
    }


def exempt(tree: ast.Module) -> set[ast.AST]:
    """Docstrings, which explain, and values of `extra`, which names a part of pyproject.toml."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found.add(node.value)
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(t, ast.Name) and t.id == "extra" for t in targets) and node.value:
                found.update(ast.walk(node.value))
    return found


def words(node: ast.AST) -> list[str]:
    """What a node says by itself: its identifier, its string, the modules it imports."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.Import | ast.ImportFrom):
        origin = [getattr(node, "module", None) or ""]
        return origin + [alias.name for alias in node.names]
    named = ("id", "attr", "arg", "name")
    return [word for key in named if isinstance(word := getattr(node, key, None), str)]


def mentions(tree: ast.Module, names: set[str]) -> list[str]:
    skipped = exempt(tree)
    return [
        f"line {getattr(node, 'lineno', 0)}: {word}"
        for node in ast.walk(tree)
        if node not in skipped
        for word in words(node)
        if names & set(re.split(r"[^a-z0-9]+", word.lower()))
    ]


def choices(tree: ast.Module, names: set[str]) -> list[str]:
    """Where a name chooses: looked up, compared to a plug-in's, or part of a candidate's name."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and last_name(node.func) in LOOKUPS:
            asked = strings(*node.args)
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            asked = strings(*sides) if CHOSEN_BY & {last_name(side) for side in sides} else []
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            first, dash, _ = node.value.partition("-")
            asked = [first] if dash else []
        else:
            continue
        found += [f"line {node.lineno}: {word}" for word in asked if word in names]
    return found


def last_name(node: ast.AST) -> str:
    return str(getattr(node, "attr", getattr(node, "id", "")))


def strings(*nodes: ast.AST) -> list[str]:
    return [
        inner.value
        for node in nodes
        for inner in ast.walk(node)
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str)
    ]


@each_file
def test_plugins_are_named_in_their_own_file_only(file: Path) -> None:
    others = {name for name, home in guarded_names().items() if home != file}
    assert mentions(parse(file), others - AMBIGUOUS) == []
    assert choices(parse(file), others & AMBIGUOUS) == []


@pytest.mark.parametrize(
    "line",
    [
        "if name == 'openvino-int8': pass",
        "import openvino",
        "from raudo.backends import openvino",
        "from raudo.backends.openvino import OpenVino",
        "self.openvino = 1",
        "hint = 'install openvino first'",
    ],
)
def test_a_mention_would_be_noticed(line: str) -> None:
    assert mentions(ast.parse(line), {"openvino"})


@pytest.mark.parametrize(
    ("line", "chosen"),
    [
        ("if plan.backend == 'torch': pass", True),
        ("if plan.backend in ('torch', 'x'): pass", True),
        ("discover.backend('torch')", True),
        ("ready = 'torch-eager'", True),
        ("import torch", False),
        ("if evidence.kind == 'torch': pass", False),
        ("allowed = {'torch': 'Size'}", False),
    ],
)
def test_a_choice_would_be_noticed(line: str, chosen: bool) -> None:
    assert bool(choices(ast.parse(line), {"torch"})) == chosen


def test_docstrings_and_extras_may_name_anything() -> None:
    text = "class A:\n    'like openvino'\n    extra = 'openvino'\n    extra: str = 'openvino'\n"
    assert mentions(ast.parse(text), {"openvino"}) == []


# --- imports point one way ------------------------------------------------------------------------


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree without what only type checkers execute."""
    if isinstance(tree, ast.If) and last_name(tree.test) == "TYPE_CHECKING":
        return
    yield tree
    for child in ast.iter_child_nodes(tree):
        yield from runtime_nodes(child)


@cache
def import_graph() -> dict[str, set[str]]:
    """Modules of raudo, each with the modules of raudo that it imports, lazily or not."""
    known = {module_name(file) for file in FILES}
    graph = {}
    for file in FILES:
        imported = set()
        for node in runtime_nodes(parse(file)):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        graph[module_name(file)] = (imported & known) - {"raudo", module_name(file)}
    return graph


def reachable(module: str) -> set[str]:
    found, open_ends = set(), {module}
    while open_ends:
        found |= open_ends
        open_ends = {n for m in open_ends for n in import_graph()[m]} - found
    return found - {module}


def is_plugin_code(module: str) -> bool:
    return module.split(".")[1:2] in [[folder] for folder in discover.FOLDERS]


def test_no_import_goes_round_in_circles() -> None:
    order = list(graphlib.TopologicalSorter(import_graph()).static_order())
    assert {"raudo.records", "raudo.errors"} <= set(order)


def test_folders_point_one_way() -> None:
    """What a folder's `base.py` says of its plug-ins may be known by all."""

    def folder(module: str) -> str | None:
        parts = module.split(".")
        return parts[1] if len(parts) > 2 and parts[-1] != "base" else None

    graph: dict[str, set[str]] = {}
    for module, imported in import_graph().items():
        if own := folder(module):
            graph.setdefault(own, set()).update({f for m in imported if (f := folder(m))} - {own})
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert set(discover.FOLDERS) <= set(order)


@pytest.mark.parametrize("module", ["raudo.records", "raudo.errors"])
def test_the_foundations_import_nothing_of_raudo(module: str) -> None:
    assert import_graph()[module] == set()


def test_plugins_look_down_only() -> None:
    """Whoever imports `discover` is above the plug-ins; so plug-ins must not reach it."""
    for module in filter(is_plugin_code, import_graph()):
        above = {m for m in reachable(module) if "raudo.discover" in {m, *import_graph()[m]}}
        assert above == set(), f"{module} reaches {above}"


def test_plugins_are_reached_through_discover_only() -> None:
    for module, imported in import_graph().items():
        plugins = {m for m in imported if m.split(".")[1] in GUARDED and m.count(".") == 2}
        assert {m for m in plugins if not m.endswith(".base")} == set(), f"{module} imports one"


def test_only_the_program_imports_the_command_line() -> None:
    users = {module for module, imported in import_graph().items() if "raudo.cli" in imported}
    assert users <= {"raudo.__main__"}


# --- what starts, starts light --------------------------------------------------------------------


def python(program: str, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_every_module_imports_without_its_optional_runtime() -> None:
    modules = sorted(set(import_graph()) - {"raudo.__main__"})
    program = f"""
import importlib, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
for name in sys.argv[1:]:
    importlib.import_module(name)
print(len(sys.argv) - 1)
"""
    assert python(program, *modules).strip() == str(len(modules))


@pytest.mark.parametrize("command", [["--help"], ["optimize", "--help"], ["list"]])
def test_light_commands_import_nothing_heavy(command: list[str]) -> None:
    program = f"""
import runpy, sys
sys.argv = ["raudo", *{command!r}]
try:
    runpy.run_module("raudo.cli", run_name="__main__")
except SystemExit as ended:
    assert not ended.code, ended.code
print("heavy:", sorted(set(sys.modules) & set({HEAVY!r})))
"""
    assert python(program).splitlines()[-1] == "heavy: []"


# --- sizes and names ------------------------------------------------------------------------------


@each_code
def test_files_are_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES


def functions(file: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [
        n for n in ast.walk(parse(file)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


@each_code
def test_functions_are_short(file: Path) -> None:
    lengths = {f.name: length(f) for f in functions(file)}
    assert {k: v for k, v in lengths.items() if v > MAX_FUNCTION_LINES} == {}


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring, and without the options that a command declares.

    So explaining is never too long.
    """
    start = function.body[0].lineno if is_command(function) else function.lineno
    lines = (function.end_lineno or 0) - start + 1
    docstring = function.body[0] if ast.get_docstring(function) is not None else None
    return lines - ((docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0)


@each_code
def test_functions_take_few_parameters(file: Path) -> None:
    counts = {f.name: parameters(f) for f in functions(file) if not is_command(f)}
    assert {k: v for k, v in counts.items() if v > MAX_PARAMETERS} == {}


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    taken = function.args
    named = [*taken.posonlyargs, *taken.args, *taken.kwonlyargs]
    return len([a for a in named if a.arg not in {"self", "cls"}])


def is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A command's parameters are its options, which the command line declares one by one."""
    decorators = [d.func if isinstance(d, ast.Call) else d for d in function.decorator_list]
    return any(last_name(d) == "command" for d in decorators)


def test_no_file_is_a_drawer_for_leftovers() -> None:
    drawers = {"utils.py", "util.py", "helpers.py", "helper.py", "misc.py", "common.py"}
    assert [f for f in tracked() if f.name in drawers] == []


def test_the_map_in_contributing_names_what_is_at_the_top() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    top = SOURCE / "raudo"
    modules = {f.name for f in FILES if f.parent == top and f.stem != "__init__"}
    folders = {f"{f.parent.name}/" for f in FILES if f.parent.parent == top}
    assert len(modules) <= MAX_TOP_MODULES, "which of them share a folder's purpose?"
    assert [name for name in sorted(modules | folders) if f"`{name}`" not in text] == []


def test_folders_say_what_may_go_in() -> None:
    packages = [f for f in FILES if f.name == "__init__.py"]
    assert {f.parent for f in FILES} == {f.parent for f in packages}
    assert [identify(f) for f in packages if ast.get_docstring(parse(f)) is None] == []


# --- what is committed ----------------------------------------------------------------------------


@cache
def tracked() -> list[Path]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("NO GIT: what is committed cannot be listed")
    listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [file for file in files if file.is_file()]


# Written in pieces, so that this file does not hold what it looks for.
MACHINE_PATH = re.compile(
    r"(?<![\w.~-])/(?:"
    + "|".join(("wo" + "rk", "ro" + "ot", "ho" + "me/[a-z]", "op" + "t"))
    + r")\b/"
    r"|[A-Z]:\\\\?" + "Users" + r"\\",
)
REGISTRY = re.compile(
    "|".join((r"py" + r"pi\.org", "python" + "hosted", r"download\.py" + "torch"))
)


def test_nothing_committed_names_a_machine_or_a_registry() -> None:
    found = []
    for file in tracked():
        data = file.read_bytes()
        if b"\0" in data:
            continue
        for number, line in enumerate(data.decode("utf-8").splitlines(), 1):
            if MACHINE_PATH.search(line) or REGISTRY.search(line):
                found.append(f"{identify(file)}:{number}: {line.strip()}")
    assert found == []


def test_a_machine_path_would_be_noticed() -> None:
    for path in ("/wo" + "rk/main", "see /ro" + "ot/x", "C:\\Us" + "ers\\me"):
        assert MACHINE_PATH.search(path)
    for path in ("network/main", "docs/wo" + "rk/x", "../shared/assets"):
        assert not MACHINE_PATH.search(path)


def test_no_large_file_is_committed() -> None:
    assert [identify(f) for f in tracked() if f.stat().st_size > MAX_FILE_BYTES] == []


def test_nothing_made_with_agpl_software_is_committed() -> None:
    """The samples are the three named in samples/README.md, and nothing else is a model."""
    models = {".pt", ".pth", ".onnx", ".engine", ".tflite", ".bin"}
    assert [identify(f) for f in tracked() if f.suffix in models] == ["samples/model.pt"]
