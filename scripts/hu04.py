"""What the HU-04 commands share: they run raudo, on model.pt and the data that lies beside it."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "samples"
VENV_PYTHONS = (ROOT / ".venv" / "bin" / "python", ROOT / ".venv" / "Scripts" / "python.exe")


def raudo(*arguments: str | Path) -> int:
    """Show and run one raudo command, and return its exit code."""
    words = [str(argument) for argument in arguments]
    print("$ raudo", *words, flush=True)
    return subprocess.call([interpreter(), "-m", "raudo.cli", *words])


def interpreter() -> str:
    """Return this Python if raudo is installed in it, else the one of .venv."""
    if find_spec("raudo"):
        return sys.executable
    for python in VENV_PYTHONS:
        if python.exists():
            return str(python)
    sys.exit(r"raudo is not installed: run ./setup_hu04.sh first (Windows: .\setup_hu04.ps1)")


def export(arguments: list[str]) -> int:
    """Export a model to ONNX, say why not to TensorRT, and time it if that is asked for."""
    parser = argparse.ArgumentParser(description="Exports a model to ONNX, and to TensorRT.")
    parser.add_argument("--model", type=Path, default=Path("model.pt"))
    parser.add_argument("--output", type=Path, default=Path("models"))
    parser.add_argument("--benchmark", action="store_true", help="time it against PyTorch")
    parser.add_argument("--budget", default="60", help="most seconds for that")
    given = parser.parse_args(arguments)
    code = raudo("export", given.model, "--to", "onnx", "--output", given.output)
    if code:
        return code
    skip_tensorrt()
    if not given.benchmark:
        return 0
    onnx = given.output / f"{given.model.stem}.onnx"
    words = (onnx, "--model", given.model, "--images", data(given.model))
    return raudo("benchmark", *words, "--budget", given.budget)


def model() -> Path:
    """Return model.pt of the current folder or of the project, else the sample; say which."""
    found = next((f for f in (Path("model.pt"), ROOT / "model.pt") if f.is_file()), None)
    return say("model", found or SAMPLES / "model.pt")


def data(model: Path) -> Path:
    """Return the data.yaml beside a model, else the sample's; say which."""
    beside = model.parent / "data.yaml"
    return say("data set", beside if beside.is_file() else SAMPLES / "coco-mini" / "data.yaml")


def engine() -> Path:
    """Return models/model.onnx, or stop where it was not exported yet."""
    found = shorten(ROOT / "models" / "model.onnx")
    if not found.is_file():
        sys.exit(
            f"{found} is missing; make it first: "
            "python scripts/export_to_tensorrt.py --model model.pt --output models"
        )
    return found


def skip_tensorrt() -> None:
    """Say why there is no TensorRT engine."""
    if shutil.which("nvidia-smi") is None:
        print("SKIPPED TensorRT: no NVIDIA GPU on this machine (nvidia-smi was not found)")
    else:
        print("SKIPPED TensorRT: this version of raudo does not build TensorRT engines yet")


def say(what: str, path: Path) -> Path:
    """Print which file is used, and return it as short as it can be written."""
    path = shorten(path)
    print(f"{what}: {path}", flush=True)
    return path


def shorten(path: Path) -> Path:
    """Return a path relative to the current folder where it lies below it."""
    absolute, here = path.resolve(), Path.cwd()
    return absolute.relative_to(here) if here in absolute.parents else absolute
