"""What the HU-04 commands share: they run raudo, on model.pt and the data that lies beside it."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

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
    found = next((str(python) for python in VENV_PYTHONS if python.exists()), None)
    return found or stop(
        "raudo is not installed", r"run ./setup_hu04.sh first (Windows: .\setup_hu04.ps1)"
    )


def stop(message: str, hint: str) -> NoReturn:
    """End with an error, told as raudo tells it."""
    print(f"error: {message}\nhint: {hint}", file=sys.stderr)
    sys.exit(2)


def export(arguments: list[str]) -> int:
    """Export a model to ONNX and, where that can be done, to TensorRT; time them if asked to."""
    parser = argparse.ArgumentParser(description="Exports a model to ONNX, and to TensorRT.")
    parser.add_argument("--model", type=Path, default=Path("model.pt"))
    parser.add_argument("--output", type=Path, default=Path("models"))
    parser.add_argument("--gpu", help="kinds of GPU to make the engine for: sm86,sm89,sm120")
    parser.add_argument("--benchmark", action="store_true", help="time them against PyTorch")
    parser.add_argument("--budget", default="60", help="most seconds for that")
    given = parser.parse_args(arguments)
    code = raudo("export", given.model, "--to", "onnx", "--output", given.output)
    if code:
        return code
    engines = [given.output / f"{given.model.stem}.onnx"]
    code, made = to_tensorrt(engines[0], given.gpu)
    if made is not None and given.gpu is None:
        engines.append(made)
    if code or not given.benchmark:
        return code
    words = (*engines, "--model", given.model, "--images", data(given.model))
    return raudo("benchmark", *words, "--budget", given.budget)


def convert(arguments: list[str]) -> int:
    """Convert models/model.onnx to TensorRT, where that can be done."""
    parser = argparse.ArgumentParser(description="Converts models/model.onnx to TensorRT, in FP16.")
    parser.add_argument("--gpu", help="kinds of GPU to make the engine for: sm86,sm89,sm120")
    given = parser.parse_args(arguments)
    return to_tensorrt(engine(), given.gpu)[0]


def to_tensorrt(onnx: Path, gpus: str | None) -> tuple[int, Path | None]:
    """Make `<name>.fp16.engine` beside an ONNX file; return the exit code and the engine."""
    words = [
        *("export", str(onnx), "--to", "tensorrt", "--precision", "fp16"),
        *("--output", str(onnx.parent), *(("--gpu", gpus) if gpus else ()), "--json"),
    ]
    print("$ raudo", *words, flush=True)
    ended = subprocess.run(
        [interpreter(), "-m", "raudo.cli", *words], stdout=subprocess.PIPE, text=True, check=False
    )
    results = json.loads(ended.stdout or "[]")
    for result in results:
        print(result["status"], "TensorRT:", result["path"] or result["reason"])
    if not results or results[0]["status"] == "FAILED":
        return ended.returncode, None
    path = results[0]["path"]
    return 0, Path(path) if path else None


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
        export = "python scripts/export_to_tensorrt.py --model model.pt --output models"
        stop(f"no such engine file: {found}", f"make it first: {export}")
    return found


def say(what: str, path: Path) -> Path:
    """Print which file is used, and return it as short as it can be written."""
    path = shorten(path)
    print(f"{what}: {path}", flush=True)
    return path


def shorten(path: Path) -> Path:
    """Return a path relative to the current folder where it lies below it."""
    absolute, here = path.resolve(), Path.cwd()
    return absolute.relative_to(here) if here in absolute.parents else absolute
