"""Builds and runs the C++ detector for its tests.

Nothing is installed here; cpp/install_tools.sh tells what has to be. What is missing is skipped
loudly.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="NO LINUX: the C++ detector goes untested"),
]
"""Of all that builds or runs the detector."""
NOT_INSTALLED = re.compile(
    r"Could not find a package.*?\"(\w+)\"|Could NOT find (\w+)|No package '([\w-]+)' found", re.S
)


def tool(name: str) -> str:
    """Find a program; skip where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"NO {name}: the C++ detector goes untested (cpp/install_tools.sh)")
    return found


def cmake(source: Path, build: Path, *options: str, target: str = "all") -> None:
    """Configure and build; skip where a package is not installed."""
    tool("c++")
    # The tests' own Python has the runtimes.
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix}
    configured = subprocess.run(
        [tool("cmake"), "-S", source, "-B", build, "-DRAUDO_WERROR=ON", *options],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if configured.returncode:
        if missing := NOT_INSTALLED.search(configured.stderr):
            name = next(filter(None, missing.groups()))
            pytest.skip(f"NO {name}: the C++ detector goes untested (cpp/install_tools.sh)")
        pytest.fail(configured.stdout + configured.stderr)
    built = subprocess.run(
        [tool("cmake"), "--build", build, "-j2", "--target", target],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
