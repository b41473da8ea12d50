"""The commands of the team's quick reference card, as a person types them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raudo.workspace import read_artifact

ROOT = Path(__file__).resolve().parents[2]
CARD = (
    "scripts/check_hu04_setup.py",
    "scripts/export_to_tensorrt.py",
    "scripts/validate_models.py",
    "models/benchmark_onnx_vs_pytorch.py",
    "models/convert_to_tensorrt.py",
)
GATED = {0, 1, 3}  # whether a gate passes depends on the machine; that it was decided does not


def python(folder: Path, *words: str, site: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a script in a folder; without `site` as in a Python that raudo is not installed in."""
    options = () if site else ("-S", "-E")
    return subprocess.run(
        [sys.executable, *options, *words], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def export(small_project: Path) -> subprocess.CompletedProcess[str]:
    """How the export to models/ ended."""
    card = ("--model", "model.pt", "--output", "models")
    return python(small_project, "scripts/export_to_tensorrt.py", *card)


@pytest.fixture(scope="module")
def exported(small_project: Path, export: subprocess.CompletedProcess[str]) -> Path:
    """The project's folder once the model was exported."""
    assert export.returncode == 0, export.stdout + export.stderr
    return small_project


def test_check(small_project: Path) -> None:
    ended = python(small_project, "scripts/check_hu04_setup.py")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Python" in ended.stdout


@pytest.mark.slow
def test_export_writes_an_engine_with_its_manifest(exported: Path) -> None:
    artifact = read_artifact(exported / "models" / "model.onnx")
    assert artifact.manifest.source == "model.pt"
    assert artifact.manifest.precision == "fp32"


@pytest.mark.slow
def test_export_says_why_there_is_no_tensorrt(export: subprocess.CompletedProcess[str]) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("NOT HERE: there is a GPU")
    (line,) = [text for text in export.stdout.splitlines() if text.startswith("SKIPPED TensorRT: ")]
    assert "no NVIDIA GPU here" in line


def test_export_of_a_missing_model_is_one_clear_line(small_project: Path) -> None:
    ended = python(small_project, "scripts/export_to_tensorrt.py", "--model", "missing.pt")
    assert ended.returncode == 2
    assert "missing.pt" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (small_project / "models" / "missing.onnx").exists()


@pytest.mark.slow
def test_export_can_time_what_it_wrote(small_project: Path) -> None:
    card = ("--model", "model.pt", "--output", "models", "--benchmark", "--budget", "2")
    ended = python(small_project, "scripts/export_to_tensorrt.py", *card)
    assert ended.returncode in GATED, ended.stdout + ended.stderr
    assert re.search(r"\d\.\d+x", ended.stdout)


@pytest.mark.slow
def test_benchmark(exported: Path) -> None:
    ended = python(exported, "models/benchmark_onnx_vs_pytorch.py", "--budget", "2")
    assert ended.returncode in GATED, ended.stdout + ended.stderr
    assert re.search(r"\d\.\d+x", ended.stdout)
    assert "data set: samples/coco-mini/data.yaml" in ended.stdout.replace("\\", "/")


@pytest.mark.slow
def test_validate(exported: Path) -> None:
    ended = python(exported, "scripts/validate_models.py")
    assert ended.returncode in GATED, ended.stdout + ended.stderr
    assert "model: model.pt" in ended.stdout
    assert "mAP50" in ended.stdout


@pytest.mark.slow
def test_own_data_beside_the_model_is_preferred(exported: Path) -> None:
    own = exported / "data.yaml"
    own.write_text("names: [one]\nval: nowhere\n")
    try:
        ended = python(exported, "scripts/validate_models.py")
    finally:
        own.unlink()
    assert "data set: data.yaml" in ended.stdout
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_convert_is_skipped_with_its_reason_where_there_is_no_gpu(exported: Path) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("NOT HERE: there is a GPU")
    ended = python(exported, "models/convert_to_tensorrt.py")
    assert ended.returncode == 0
    assert ended.stdout.splitlines()[-1].startswith("SKIPPED TensorRT: ")


@pytest.mark.slow
def test_convert_makes_an_engine_for_cards_that_are_not_here(exported: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="NO TENSORRT-RTX")
    ended = python(exported, "models/convert_to_tensorrt.py", "--gpu", "sm86,sm120")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    artifact = read_artifact(exported / "models" / "model.fp16.engine")
    assert artifact.manifest.machine["compute_capability"] == "8.6, 12.0"
    assert artifact.manifest.precision == "fp16"
    assert artifact.manifest.source == "model.onnx"


@pytest.mark.parametrize(
    "script",
    [
        "models/benchmark_onnx_vs_pytorch.py",
        pytest.param("models/convert_to_tensorrt.py", marks=pytest.mark.slow),
        pytest.param("scripts/validate_models.py", marks=pytest.mark.slow),
    ],
)
def test_without_an_engine_the_export_is_named(tmp_path: Path, script: str) -> None:
    for folder in ("scripts", "models"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.onnx*"))
    ended = python(tmp_path, script)
    assert ended.returncode == 2
    error, hint = ended.stderr.splitlines()
    assert error == "error: no such engine file: models/model.onnx"
    assert "scripts/export_to_tensorrt.py" in hint


def test_a_python_without_raudo_and_without_venv_is_told_to_set_up(small_project: Path) -> None:
    ended = python(small_project, "scripts/check_hu04_setup.py", site=False)
    assert ended.returncode == 2
    error, hint = ended.stderr.splitlines()
    assert error == "error: raudo is not installed"
    assert "./setup_hu04.sh" in hint


@pytest.mark.skipif(sys.platform == "win32", reason="links a POSIX virtual environment")
def test_a_python_without_raudo_finds_the_venv(small_project: Path) -> None:
    link = small_project / ".venv"
    link.symlink_to(sys.prefix, target_is_directory=True)
    try:
        ended = python(small_project, "scripts/check_hu04_setup.py", "--json", site=False)
    finally:
        link.unlink()
    assert ended.returncode == 0, ended.stderr
    assert '"Python"' in ended.stdout


def test_the_quick_start_walks_through_the_whole_card() -> None:
    text = (ROOT / "QUICK_START_HU04.md").read_text(encoding="utf-8")
    assert set(re.findall(r"python ((?:scripts|models)/\w+\.py)", text)) == set(CARD)


@pytest.mark.parametrize("script", CARD)
def test_commands_are_thin(script: str) -> None:
    assert len((ROOT / script).read_text().splitlines()) <= 15
