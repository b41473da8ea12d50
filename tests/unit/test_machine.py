"""The machine, and what else keeps it busy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from raudo import machine
from raudo.machine import DISTURBED_SHARE, LoadMonitor, describe, versions

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_this_machine_is_described() -> None:
    found = describe()
    assert found.cpu
    assert found.cores == machine.available_threads() >= 1
    assert found.memory_bytes > 1e8
    assert found.versions["raudo"]


def test_only_installed_packages_have_versions() -> None:
    assert set(versions("numpy", "no-such-package")) == {"numpy"}


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


def test_a_driver_that_fails_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda _name: "nvidia-smi")

    def told(text: str, code: int) -> None:
        ended = SimpleNamespace(stdout=text, returncode=code)
        monkeypatch.setattr(machine.subprocess, "run", lambda *_args, **_options: ended)

    told("NVIDIA H200\nNVIDIA L4\n", 0)
    assert machine.gpu_names() == ("NVIDIA H200", "NVIDIA L4")
    told("NVIDIA-SMI has failed\n", 9)
    assert machine.gpu_names() == ()
