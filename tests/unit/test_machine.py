"""The machine, and what else keeps it busy."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from raudo import machine
from raudo.machine import DISTURBED_SHARE, LoadMonitor, describe, owners, versions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import DriverSays


def test_this_machine_is_described() -> None:
    found = describe()
    assert found.cpu
    assert found.cores == machine.available_threads() >= 1
    assert found.memory_bytes > 1e8
    assert found.versions["raudo"]


def test_only_installed_packages_have_versions() -> None:
    assert set(versions("numpy", "no-such-package")) == {"numpy"}


def test_packages_are_known_by_the_modules_that_they_install() -> None:
    assert owners(("cv2", "yaml", "no_such_module")) >= {"opencv-python-headless", "PyYAML"}
    assert owners(()) == frozenset()


@pytest.mark.parametrize(
    ("busy", "own", "share"),
    [(0.0, 0.0, 0.0), (50.0, 50.0, 0.0), (50.0, 10.0, 0.4), (100.0, 0.0, 1.0), (10.0, 12.0, 0.0)],
)
def test_the_load_of_others_is_what_is_busy_and_not_our_own(
    busy: float, own: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clock(*values: float) -> Iterator[float]:
        yield from values

    total, all_, ours = clock(0, 100), clock(0, busy), clock(0, own)
    monkeypatch.setattr(machine, "_total_seconds", lambda: next(total))
    monkeypatch.setattr(machine, "_busy_seconds", lambda: next(all_))
    monkeypatch.setattr(machine, "_own_seconds", lambda: next(ours))
    assert LoadMonitor().share() == pytest.approx(share)
    assert (share > DISTURBED_SHARE) == (share == 0.4 or share == 1.0)


TOLD = "NVIDIA H200, 9.0, 143771, 580.159.04\nNVIDIA GB10, 12.1, [N/A], 580.159.04\n"


def test_gpus_are_what_the_driver_lists(driver_says: DriverSays) -> None:
    driver_says(TOLD)
    h200, gb10 = machine.gpus()
    assert (h200.name, h200.compute_capability, h200.driver) == ("NVIDIA H200", "9.0", "580.159.04")
    assert h200.memory_bytes == 143771 * 2**20
    assert gb10.memory_bytes is None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("NVIDIA-SMI has failed\n", 9),
        ('Field "compute_cap" is not a valid field to query.\n', 2),
        ("No devices were found\n", 0),
        ("", 0),
    ],
)
def test_a_driver_that_shows_no_gpu_is_no_gpu(
    driver_says: DriverSays, text: str, code: int
) -> None:
    driver_says(text, code)
    assert machine.gpus() == ()


def test_a_driver_that_is_not_there_or_hangs_is_no_gpu(
    driver_says: DriverSays, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver_says(TOLD)
    monkeypatch.setattr(machine.shutil, "which", lambda _name: None)
    assert machine.gpus() == ()
    assert machine.driver_cuda() is None

    def hang(command: list[str], **_options: object) -> None:
        raise subprocess.TimeoutExpired(command, 20)

    driver_says(TOLD)
    monkeypatch.setattr(machine.subprocess, "run", hang)
    assert machine.gpus() == ()


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ("| Driver Version: 580.159.04     CUDA Version: 13.0     |\n", "13.0"),
        ("| KMD Version: 590.1  CUDA UMD Version: 13.1 |\n", "13.1"),
        ("nothing of the kind", None),
    ],
)
def test_the_driver_tells_which_cuda_it_runs(
    driver_says: DriverSays, told: str, version: str | None
) -> None:
    driver_says(told)
    assert machine.driver_cuda() == version


def test_libraries_of_pip_s_packages_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "nvidia" / "cudnn" / "lib"
    folder.mkdir(parents=True)
    (folder / "libcudnn.so.9").touch()
    monkeypatch.setattr(machine.sysconfig, "get_path", lambda _kind: str(tmp_path))
    monkeypatch.setattr(machine.sys, "platform", "linux")
    assert machine.find_library("cudnn") == str(folder / "libcudnn.so.9")
    assert machine.find_library("no_such_library_anywhere") is None
