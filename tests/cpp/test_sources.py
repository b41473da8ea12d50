"""The C++ sources: warnings, clang-tidy, unit tests under sanitizers, the CUDA kernel.

Sources are compiled together ("unity"): headers, by far the most of it, are read once.
"""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from cpp_build import MARKS, ROOT, cmake, tool

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = MARKS


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unit tests, in a build for debugging under AddressSanitizer and UBSan."""
    build = tmp_path_factory.mktemp("sanitized")
    cmake(
        ROOT / "cpp",
        build,
        "-DCMAKE_BUILD_TYPE=Debug",
        "-DCMAKE_UNITY_BUILD=ON",
        "-DCMAKE_UNITY_BUILD_BATCH_SIZE=0",
        "-DRAUDO_BUILD_TESTS=ON",
        "-DRAUDO_SANITIZE=address,undefined",
        "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON",
        target="raudo_tests",
    )
    return build


def test_unit_tests_pass_under_sanitizers(sanitized: Path) -> None:
    ended = subprocess.run(
        [tool("ctest"), "--test-dir", sanitized, "-j2", "--output-on-failure"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    assert int(re.findall(r"out of (\d+)", ended.stdout)[-1]) > 60


@pytest.mark.parametrize(("version", "used"), [("2026.2.0", False), ("2026.3.0", True)])
def test_an_openvino_that_decodes_in_fp16_is_left_out(
    version: str, used: bool, tmp_path: Path
) -> None:
    (tmp_path / "OpenVINOConfig.cmake").write_text("set(OpenVINO_FOUND TRUE)")
    (tmp_path / "OpenVINOConfigVersion.cmake").write_text(f"set(PACKAGE_VERSION {version})")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\nproject(finds LANGUAGES NONE)\n"
        f"set(RAUDO_OPENVINO ON)\nset(OpenVINO_DIR {tmp_path})\n"
        f"include({ROOT}/cpp/cmake/RaudoBackends.cmake)\nraudo_find_backends()\n"
    )
    ended = subprocess.run(
        [tool("cmake"), "-S", tmp_path, "-B", tmp_path / "build"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode == 0) == used, ended.stderr
    assert ("runtimes: OPENVINO" in ended.stdout) == used
    assert (f"OpenVINO {version} is left out" in ended.stdout) != used


def test_clang_tidy_finds_nothing(sanitized: Path) -> None:
    rules = (ROOT / "cpp" / ".clang-tidy").read_text(encoding="utf-8")
    rules = rules.replace("bugprone-*,", "bugprone-*, -bugprone-suspicious-include,")  # unity
    ended = subprocess.run(
        [
            tool("run-clang-tidy"), "-quiet", "-j2", "-p", sanitized, "-config", rules,
            r"raudo_(core|app)\.dir|/app/main\.cpp|detector\.dir",
        ],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.count("clang-tidy") >= 3, "a part was left out"


def test_the_cuda_kernel_compiles(tmp_path: Path) -> None:
    source = ROOT / "cpp" / "src" / "backends" / "letterbox.cu"
    include = ROOT / "cpp" / "include"
    command = [tool("nvcc"), "-std=c++17", "-Werror", "all-warnings", "-I", include, "-c", source]
    subprocess.run([*command, "-o", tmp_path / "kernel.o"], check=True)
    assert (tmp_path / "kernel.o").stat().st_size > 0
