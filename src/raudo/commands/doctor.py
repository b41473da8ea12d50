"""Checks what a machine can do before a run finds out halfway."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil
from pydantic import Field

from raudo import discover, machine
from raudo.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from raudo.backends.base import Backend, Library
    from raudo.passes.base import Pass

GIB = 1 << 30
LOW_MEMORY = 4 * GIB
LOW_DISK = 2 * GIB
OLDEST_PYTHON = (3, 10)
REQUIREMENT = re.compile(r"""^([\w.-]+)(?:\[([\w,\s-]+)\])?.*;.*\bextra\s*==\s*['"]([\w-]+)['"]""")
FAST_INT8 = ("VNNI", "AMX INT8", "NEON dot product", "NEON INT8")
FAST_BF16 = ("BF16",)


class Check(Record):
    """One line of the diagnosis."""

    name: str
    status: Literal["ok", "missing", "note"] = Field(
        description="missing: the main job cannot run; note: something optional is not there"
    )
    found: str
    hint: str = Field(default="", description="What to do about it; empty where all is well")


def diagnose(output: Path = Path("runs")) -> tuple[Check, ...]:
    """Check the machine and the installation.

    Args:
        output: The folder that runs would be written to.

    Returns:
        The checks; `is_ready` tells whether the main job can run.
    """
    return (
        _python(),
        _main_job(),
        *(_plugin("backend", backend) for backend in discover.backends()),
        *(_plugin("pass", quantizer) for quantizer in discover.passes()),
        *(_extra(f"family {family.name}", family.extra) for family in discover.families()),
        _extra("HTML report", "report"),
        *_processor(),
        _memory(),
        _disk(output),
        _writable(output),
        *_gpu(),
        _video(),
    )


def is_ready(checks: Iterable[Check]) -> bool:
    """Tell whether the main job, `raudo optimize`, can run."""
    return all(check.status != "missing" for check in checks)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return Check(name="Python", status="ok", found=version)
    oldest = ".".join(map(str, OLDEST_PYTHON))
    hint = f"install Python {oldest} or newer and run setup_hu04 again"
    return Check(name="Python", status="missing", found=version, hint=hint)


def _main_job() -> Check:
    """The baseline, and a faster engine to compare to it: less than that proves nothing."""
    backends = discover.backends()
    ranks = {b.baseline_rank: b for b in backends if b.baseline_rank is not None}
    baseline = ranks[min(ranks)]
    devices = {"cpu", "gpu"} if machine.describe().gpus else {"cpu"}
    able = [b for b in backends if devices & {variant.device for variant in b.variants}]
    engines = [b.title for b in able if b is not baseline and b.targets and not b.missing()]
    lacking = [baseline.title] if baseline.missing() else []
    if not engines:
        lacking.append(f"any engine to compare with {baseline.title}")
    lacking += [f.title for f in discover.report_formats() if f.missing()]
    if not lacking:
        found = f"{baseline.title} against {', '.join(engines)}"
        return Check(name="main job", status="ok", found=found)
    hint = "run ./setup_hu04.sh (Windows: .\\setup_hu04.ps1)"
    return Check(
        name="main job", status="missing", found=f"lacks {' and '.join(lacking)}", hint=hint
    )


def _plugin(kind: str, plugin: Backend | Pass) -> Check:
    name = f"{kind} {plugin.name}"
    if missing := plugin.missing():
        return _not_installed(name, missing, plugin.extra)
    owners = machine.owners(plugin.modules)
    return Check(name=name, status="ok", found=_versions(owners) or "built in")


def _extra(name: str, extra: str) -> Check:
    try:
        wanted = requirements(extra)
    except metadata.PackageNotFoundError:
        found = "unknown: raudo can be imported, but is not installed"
        return Check(name=name, status="note", found=found, hint=f"pip install 'raudo[{extra}]'")
    installed = machine.versions(*wanted)
    if missing := tuple(sorted(wanted - installed.keys())):
        return _not_installed(name, missing, extra)
    return Check(name=name, status="ok", found=_versions(wanted))


def requirements(extra: str) -> frozenset[str]:
    """Return the distributions that an extra of raudo brings, those of nested extras included.

    Raises:
        PackageNotFoundError: raudo is on the path, but was not installed.
    """
    declared = [REQUIREMENT.match(line) for line in metadata.requires("raudo") or ()]
    found: set[str] = set()
    for match in declared:
        if match is None or match[3] != extra:
            continue
        if match[1] == "raudo":
            nested = (match[2] or "").replace(" ", "").split(",")
            found |= {name for inner in nested for name in requirements(inner)}
        else:
            found.add(match[1])
    return frozenset(found)


def _not_installed(name: str, missing: Iterable[str], extra: str | None) -> Check:
    found = f"not installed: {', '.join(missing)}"
    return Check(name=name, status="note", found=found, hint=f"pip install 'raudo[{extra}]'")


def _versions(distributions: Iterable[str]) -> str:
    return ", ".join(f"{k} {v}" for k, v in machine.versions(*sorted(distributions)).items())


def _processor() -> tuple[Check, Check]:
    described = machine.describe()
    cpu = Check(name="CPU", status="ok", found=f"{described.cpu}, {described.cores} cores")
    isa = ", ".join(described.isa) or "unknown"
    slow = [
        precision
        for precision, sets in (("INT8", FAST_INT8), ("BF16", FAST_BF16))
        if not any(name in isa for name in sets)
    ]
    hint = f"no instructions for {' and '.join(slow)}: expect less speedup from it" if slow else ""
    return cpu, Check(
        name="instruction sets", status="note" if slow else "ok", found=isa, hint=hint
    )


def _memory() -> Check:
    memory = psutil.virtual_memory()
    found = f"{memory.total / GIB:.1f} GiB, {memory.available / GIB:.1f} GiB free"
    if memory.available >= LOW_MEMORY:
        return Check(name="memory", status="ok", found=found)
    hint = "close other programs; a run wants 4 GiB"
    return Check(name="memory", status="note", found=found, hint=hint)


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    folder = folder.resolve()
    return next(f for f in (folder, *folder.parents) if f.exists())


def _disk(output: Path) -> Check:
    free = shutil.disk_usage(_nearest(output)).free
    found = f"{free / GIB:.1f} GiB free"
    if free >= LOW_DISK:
        return Check(name="disk", status="ok", found=found)
    hint = "make room; a run wants 2 GiB for large models"
    return Check(name="disk", status="note", found=found, hint=hint)


def _writable(output: Path) -> Check:
    name, folder = "output folder", _nearest(output)
    try:
        with tempfile.TemporaryFile(dir=folder):
            return Check(name=name, status="ok", found=f"{output}{os.sep} can be written")
    except OSError as error:
        found = f"{folder} cannot be written: {error.strerror or error}"
        return Check(name=name, status="missing", found=found, hint="work in another folder")


def _gpu() -> tuple[Check, ...]:
    """The GPU and its driver, and the libraries that engines load there."""
    gpus = machine.describe().gpus
    if not gpus:
        return (_no_gpu(),)
    found = ", ".join(f"{gpu.name} (compute capability {gpu.compute_capability})" for gpu in gpus)
    cuda = machine.driver_cuda() or "unknown"
    driver = f"{gpus[0].driver}, runs programs made for CUDA {cuda} and older"
    return (
        Check(name="NVIDIA GPU", status="ok", found=found),
        Check(name="NVIDIA driver", status="ok", found=driver),
        *(_library(b, each) for b in discover.backends() for each in b.libraries),
    )


def _no_gpu() -> Check:
    try:
        machine.ask_driver(*machine.GPU_QUERY)
        why, remedy = "nvidia-smi shows none", "check that the GPU is there and enabled"
    except FileNotFoundError:
        why, remedy = "none: no nvidia-smi", "with a GPU, install its driver"
        remedy += " from NVIDIA" if sys.platform == "win32" else ": the package nvidia-driver"
    except OSError as error:
        why, remedy = str(error), "install the NVIDIA driver again, a newer one, and restart"
    hint = f"production_gpu is SKIPPED; {remedy}"
    return Check(name="NVIDIA GPU", status="note", found=why, hint=hint)


def _library(backend: Backend, library: Library) -> Check:
    name = f"{library.title} for {backend.title}"
    if found := machine.find_library(library.stem):
        return Check(name=name, status="ok", found=Path(found).name)
    hint = library.windows if sys.platform == "win32" else library.linux
    return Check(name=name, status="note", found="not found", hint=hint)


def _video() -> Check:
    import cv2

    registry = cv2.videoio_registry
    readers = [registry.getBackendName(reader) for reader in registry.getStreamBackends()]
    decoders = [reader for reader in readers if reader not in {"CV_IMAGES", "CV_MJPEG"}]
    found = f"OpenCV {cv2.__version__}: {', '.join(decoders) or 'no video decoder'}"
    if decoders:
        return Check(name="video", status="ok", found=found)
    hint = "pip install --force-reinstall opencv-python-headless"
    return Check(name="video", status="note", found=found, hint=hint)
