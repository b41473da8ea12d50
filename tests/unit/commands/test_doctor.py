from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
import pytest

from raudo import discover, machine
from raudo.commands import doctor
from raudo.records import Gpu, Machine

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import DriverSays

PLAIN = Machine(cpu="Plain", isa=("AVX2",), cores=2, memory_bytes=1, system="X", python="3.10.0")


class Memory(NamedTuple):
    total: int
    available: int


def check(checks: tuple[doctor.Check, ...], name: str) -> doctor.Check:
    (found,) = (c for c in checks if c.name == name)
    return found


def describe_as(monkeypatch: pytest.MonkeyPatch, described: Machine) -> None:
    monkeypatch.setattr(machine, "describe", lambda: described)


def miss(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Pretend that some modules are not installed, for every backend and report format."""
    for plugin in (*discover.backends(), *discover.report_formats()):
        lacking = tuple(m for m in plugin.modules if m in modules)
        monkeypatch.setattr(plugin, "missing", lambda lacking=lacking: lacking)


def test_a_full_installation_is_ready(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    miss(monkeypatch)  # nothing
    checks = doctor.diagnose(tmp_path / "runs")
    assert doctor.is_ready(checks), [c for c in checks if c.status == "missing"]
    assert all(c.found for c in checks)


def test_every_plugin_that_installs_something_is_checked(tmp_path: Path) -> None:
    checked = {c.name.rpartition(" ")[2] for c in doctor.diagnose(tmp_path)}
    plugins: list[Any] = [*discover.backends(), *discover.passes(), *discover.families()]
    assert {p.name for p in plugins} <= checked


def test_without_the_baseline_runtime_the_main_job_cannot_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    miss(monkeypatch, "torch")
    checks = doctor.diagnose(tmp_path)
    assert not doctor.is_ready(checks)
    job = check(checks, "main job")
    assert job.status == "missing"
    assert "PyTorch" in job.found
    assert "setup_hu04" in job.hint
    runtime = check(checks, "backend torch")
    assert (runtime.status, runtime.found) == ("note", "not installed: torch")
    assert runtime.hint == "pip install 'raudo[torch]'"


def test_without_any_engine_the_main_job_cannot_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    modules = {m for b in discover.backends() if b.baseline_rank != 0 for m in b.modules}
    miss(monkeypatch, *(modules - {"torch"}))
    assert check(doctor.diagnose(tmp_path), "main job").status == "missing"


def test_without_its_report_the_main_job_cannot_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    miss(monkeypatch, "matplotlib")
    job = check(doctor.diagnose(tmp_path), "main job")
    assert (job.status, job.found) == ("missing", "lacks the HTML report")


def test_an_engine_for_gpus_alone_is_none_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    describe_as(monkeypatch, PLAIN)
    monkeypatch.setattr(machine.shutil, "which", lambda _name: None)
    for backend in discover.backends():
        on_cpu = any(variant.device == "cpu" for variant in backend.variants)
        lacking = ("a_module",) if on_cpu and backend.baseline_rank != 0 else ()
        monkeypatch.setattr(backend, "missing", lambda lacking=lacking: lacking)
    assert check(doctor.diagnose(tmp_path), "main job").status == "missing"


@pytest.mark.parametrize(
    ("isa", "status", "slow"),
    [
        (("AVX2",), "note", "INT8 and BF16"),
        (("AVX2", "AVX-512 VNNI"), "note", "BF16"),
        (("AVX2", "AVX-512 VNNI", "AVX-512 BF16"), "ok", ""),
    ],
)
def test_what_the_processor_lacks_is_said(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    isa: tuple[str, ...],
    status: str,
    slow: str,
) -> None:
    describe_as(monkeypatch, PLAIN.model_copy(update={"isa": isa}))
    found = check(doctor.diagnose(tmp_path), "instruction sets")
    assert found.status == status
    assert slow in found.hint
    assert bool(found.hint) == bool(slow)


T4 = Gpu(name="Tesla T4", compute_capability="7.5", memory_bytes=16 << 30, driver="580.1")


@pytest.mark.parametrize("platform", ["linux", "win32"])
@pytest.mark.parametrize("there", [True, False])
def test_a_gpu_is_told_with_its_driver_and_the_libraries_of_engines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, there: bool
) -> None:
    describe_as(monkeypatch, PLAIN.model_copy(update={"gpus": (T4,)}))
    monkeypatch.setattr(machine, "driver_cuda", lambda: "13.0")
    found = "/x/lib{}.so.9" if there else ""
    monkeypatch.setattr(machine, "find_library", lambda stem: found.format(stem) or None)
    monkeypatch.setattr(doctor.sys, "platform", platform)
    checks = doctor.diagnose(tmp_path)
    assert "Tesla T4 (compute capability 7.5)" in check(checks, "NVIDIA GPU").found
    assert check(checks, "NVIDIA driver").found.startswith("580.1, ")
    assert "CUDA 13.0" in check(checks, "NVIDIA driver").found
    libraries = [(b, each) for b in discover.backends() for each in b.libraries]
    assert libraries
    for backend, library in libraries:
        line = check(checks, f"{library.title} for {backend.title}")
        assert line.status == ("ok" if there else "note")
        if there:
            assert line.found == f"lib{library.stem}.so.9"
        else:
            assert line.hint == (library.windows if platform == "win32" else library.linux)


@pytest.mark.parametrize(
    ("text", "code", "word", "remedy"),
    [
        ("No devices were found", 0, "shows none", "enabled"),
        ('Field "compute_cap" is not a valid field', 2, "not a valid field", "newer"),
        ("NVIDIA-SMI has failed: no driver", 9, "has failed", "again"),
    ],
)
def test_a_driver_that_shows_no_gpu_is_told_with_a_remedy(
    driver_says: DriverSays,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    text: str,
    code: int,
    word: str,
    remedy: str,
) -> None:
    describe_as(monkeypatch, PLAIN)
    driver_says(text, code)
    found = check(doctor.diagnose(tmp_path), "NVIDIA GPU")
    assert found.status == "note"
    assert word in found.found
    assert "SKIPPED" in found.hint
    assert remedy in found.hint


def test_a_machine_without_a_driver_is_told_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    describe_as(monkeypatch, PLAIN)
    monkeypatch.setattr(machine.shutil, "which", lambda _name: None)
    checks = doctor.diagnose(tmp_path)
    assert check(checks, "NVIDIA GPU").found == "none: no nvidia-smi"
    assert "driver" in check(checks, "NVIDIA GPU").hint
    assert not [c for c in checks if c.name == "NVIDIA driver"]


def test_low_memory_is_noted_but_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    miss(monkeypatch)  # nothing
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(8 * doctor.GIB, doctor.GIB))
    checks = doctor.diagnose(tmp_path)
    assert check(checks, "memory").status == "note"
    assert doctor.is_ready(checks)


def test_an_output_folder_that_cannot_be_written_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    checks = doctor.diagnose(tmp_path / "deep" / "runs")
    folder = check(checks, "output folder")
    assert folder.status == "missing"
    assert str(tmp_path) in folder.found
    assert "Permission denied" in folder.found
    assert not doctor.is_ready(checks)


def test_the_check_leaves_nothing_behind(tmp_path: Path) -> None:
    doctor.diagnose(tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_on_the_path_but_not_installed_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unknown(name: str) -> None:
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "requires", unknown)
    found = check(doctor.diagnose(tmp_path), "HTML report")
    assert found.status == "note"
    assert "is not installed" in found.found
    assert "pip install" in found.hint


def test_requirements_follow_nested_extras() -> None:
    assert doctor.requirements("torch") == {"torch", "onnx"}
    assert doctor.requirements("ultralytics") == {"torch", "onnx", "ultralytics", "torchvision"}
    assert doctor.requirements("report") == {"jinja2", "matplotlib"}
    assert doctor.requirements("no-such-extra") == frozenset()


@pytest.mark.parametrize("mark", ["'", '"'])
def test_requirements_read_metadata_as_any_tool_writes_it(
    monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    declared = [
        "numpy>=1.26",
        f"alpha-core>=1; extra == {mark}one{mark}",
        f"beta; python_version > '3' and extra == {mark}one{mark}",
        f"raudo[one, two]; extra == {mark}all{mark}",
        f"gamma[fast]>=2; extra == {mark}two{mark}",
    ]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: declared)
    assert doctor.requirements("one") == {"alpha-core", "beta"}
    assert doctor.requirements("all") == {"alpha-core", "beta", "gamma"}
