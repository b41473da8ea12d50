"""Describes the machine that measures, and notices what else keeps it busy."""

from __future__ import annotations

import contextlib
import ctypes.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from raudo.records import Gpu, Machine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ISA_FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "avx512_fp16": "AVX-512 FP16",
    "amx_bf16": "AMX BF16",
    "amx_int8": "AMX INT8",
    "asimd": "NEON",
    "asimddp": "NEON dot product",
    "i8mm": "NEON INT8",
    "bf16": "NEON BF16",
}
"""Flag in the CPU's own list -> the name that people know."""
PACKAGES = (
    "raudo",
    "numpy",
    "opencv-python-headless",
    "onnx",
    "torch",
    "nncf",
)
DISTURBED_SHARE = 0.1
GPU_QUERY = (
    "--query-gpu=name,compute_cap,memory.total,driver_version",
    "--format=csv,noheader,nounits",
)
LIBRARY_FOLDERS = ("nvidia/*/lib", "nvidia/*/bin", "nvidia/*/bin/*", "*_libs", "torch/lib")
"""Where pip's packages keep the libraries that runtimes for GPUs load."""


def cpu_flags() -> frozenset[str]:
    """Return the CPU's feature flags in Linux's spelling; empty where nothing tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    from numpy._core import _multiarray_umath as core  # type: ignore[attr-defined]

    features: dict[str, bool] = getattr(core, "__cpu_features__", {})
    return frozenset(name.lower() for name, present in features.items() if present)


def ask_driver(*words: str) -> str:
    """Return what the NVIDIA driver's own program, nvidia-smi, prints.

    Raises:
        OSError: It is not there or fails; the message says how.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        raise FileNotFoundError("there is no nvidia-smi")
    try:
        ended = subprocess.run(
            [program, *words], capture_output=True, text=True, timeout=20, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError("nvidia-smi does not answer") from error
    if ended.returncode:
        said = (ended.stdout + ended.stderr).strip().partition("\n")[0]
        raise OSError(f"nvidia-smi fails: {said}")
    return ended.stdout


def gpus() -> tuple[Gpu, ...]:
    """Return the NVIDIA GPUs that the driver shows; empty without a driver that works."""
    try:
        listed = ask_driver(*GPU_QUERY)
    except OSError:
        return ()
    rows = [[cell.strip() for cell in row.split(",")] for row in listed.splitlines()]
    return tuple(
        Gpu(
            name=name,
            compute_capability=capability,
            memory_bytes=int(mib) << 20 if mib.isdecimal() else None,
            driver=driver,
        )
        for name, capability, mib, driver in (row for row in rows if len(row) == 4)
    )


def driver_cuda() -> str | None:
    """Return the newest CUDA version that the NVIDIA driver runs; None without a driver."""
    try:
        told = re.search(r"CUDA[\w ]*Version:\s*([\d.]+)", ask_driver())
    except OSError:
        return None
    return told[1] if told else None


def find_library(stem: str) -> str | None:
    """Return the file of a shared library, as pip or the system installed it; None without one.

    Args:
        stem: Its file's name without `lib`, version and suffix.
    """
    pattern = f"{stem}*.dll" if sys.platform == "win32" else f"lib{stem}.so*"
    for folder in sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}):
        for packages in LIBRARY_FOLDERS:
            if found := next(Path(folder).glob(f"{packages}/{pattern}"), None):
                return str(found)
    return ctypes.util.find_library(stem)


def cache_folder() -> Path:
    """Return the folder for what can be made again, as the system has it for this user."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "raudo"


def available_threads() -> int:
    """Return the number of CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # Windows, macOS
        return os.cpu_count() or 1


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of some distributions, without those not installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def owners(modules: Iterable[str]) -> frozenset[str]:
    """Return the distributions that installed some modules."""
    installed = _distributions()
    return frozenset(owner for module in modules for owner in installed.get(module, ()))


@cache
def _distributions() -> Mapping[str, set[str]]:
    """Return the distributions by module.

    Python 3.10's own `metadata.packages_distributions` misses those without a `top_level.txt`,
    which most build tools no longer write.
    """
    found: dict[str, set[str]] = {}
    for distribution in metadata.distributions():
        files = (str(file) for file in distribution.files or ())
        for module in {f.partition("/")[0].removesuffix(".py") for f in files if f.endswith(".py")}:
            found.setdefault(module, set()).add(distribution.name)
    return found


@cache
def describe() -> Machine:
    """Describe this machine."""
    flags = cpu_flags()
    return Machine(
        cpu=_cpu_name(),
        isa=tuple(title for flag, title in ISA_FLAGS.items() if flag in flags),
        cores=available_threads(),
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        gpus=gpus(),
        versions=versions(*PACKAGES),
    )


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_memory() -> int:
    """Return the most memory that this process ever had resident, in bytes."""
    if sys.platform == "linux":
        # Not getrusage: a child starts with its parent's peak there.
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    memory = psutil.Process().memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))


class LoadMonitor:
    """Measures which share of all cores *other* programs took between its start and `share`."""

    def __init__(self) -> None:
        self._all, self._own = _busy_seconds(), _own_seconds()
        self._clock = _total_seconds()

    def share(self) -> float:
        """Return the share, 0 to 1."""
        elapsed = _total_seconds() - self._clock
        others = (_busy_seconds() - self._all) - (_own_seconds() - self._own)
        return max(0.0, min(1.0, others / elapsed)) if elapsed > 0 else 0.0


def _total_seconds() -> float:
    return float(sum(psutil.cpu_times()[:8]))  # guest times, at the end, are counted in user time


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return _total_seconds() - float(times.idle) - float(getattr(times, "iowait", 0.0))


def _own_seconds() -> float:
    """CPU time of this process and its living descendants."""
    seconds = 0.0
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds += float(times.user) + float(times.system)
    return seconds
