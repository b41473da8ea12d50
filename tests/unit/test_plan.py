"""Which candidates there are, and why one cannot be tried."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

import pytest

from raudo import discover, plan
from raudo.errors import MissingDependencyError, UsageError
from raudo.machine import describe
from raudo.records import Gpu

if TYPE_CHECKING:
    from pathlib import Path

    from raudo.plan import Plan
    from raudo.records import Machine

PLANS = plan.all_plans()
ON_GPU = [p for p in PLANS if p.variant.device == "gpu"]
HERE = describe().model_copy(update={"gpus": ()})
T4 = Gpu(name="Tesla T4", compute_capability="7.5", memory_bytes=16 << 30, driver="580.1")
WITH_T4 = HERE.model_copy(update={"gpus": (T4,)})
WITH_L4 = HERE.model_copy(update={"gpus": (T4.model_copy(update={"compute_capability": "8.9"}),)})


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every runtime be installed, whatever this machine has."""
    for plugin in (*discover.backends(), *discover.passes()):
        monkeypatch.setattr(type(plugin), "missing", lambda _self: ())


def reason(
    chosen: Plan, *, has_module: bool = True, calibrated: bool = True, machine: Machine = HERE
) -> str | None:
    return plan.obstacle(chosen, machine, has_module=has_module, calibrated=calibrated)


def test_the_baseline_s_backend_comes_first_and_names_are_unique() -> None:
    names = [p.name for p in PLANS]
    assert len(set(names)) == len(names) >= 6
    assert plan.baseline_plan(has_module=True).name == names[0]


def test_an_engine_of_several_rectangles_is_put_together_from_engines_of_other_names() -> None:
    for rectangles in (((384, 640),), ((384, 640), (640, 384))):
        mixed = replace(PLANS[0], rectangles=rectangles)
        names = [part.name for part in mixed.parts]
        assert names[0] == PLANS[0].name
        assert len({mixed.name, *names}) == len(rectangles) + 2
        assert plan.base_name(mixed.name) == PLANS[0].name
        assert plan.base_name(names[-1]) == PLANS[0].name


def test_the_baseline_of_a_graph_without_module_is_made_from_onnx() -> None:
    chosen = plan.baseline_plan(has_module=False)
    assert discover.backend(chosen.backend).made_from == "onnx"
    assert chosen.precision == "fp32"


def test_a_baseline_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never a quiet substitute: all speedups would mean something else."""
    first = discover.backend(plan.baseline_plan(has_module=True).backend)
    monkeypatch.setattr(type(first), "missing", lambda _self: ("no_such_module",))
    with pytest.raises(MissingDependencyError, match="no_such_module") as caught:
        plan.baseline_plan(has_module=True)
    assert str(first.extra) in caught.value.hint


def test_nothing_wanted_is_everything_and_the_baseline_is_always_in() -> None:
    baselines = plan.baselines(True, WITH_T4)
    assert plan.choose((), baselines) == PLANS
    last = [p for p in PLANS if p.variant.device == "cpu"][-1].name
    assert [p.name for p in plan.choose((last,), baselines)] == [PLANS[0].name, last]


def test_candidates_for_gpus_come_with_a_baseline_of_their_own() -> None:
    baselines = plan.baselines(True, WITH_T4)
    assert baselines["gpu"].variant.device == "gpu"
    assert baselines["gpu"].precision == "fp32"
    wanted = next(p for p in ON_GPU if p.backend != baselines["gpu"].backend)
    chosen = {p.name for p in plan.choose((wanted.name,), baselines)}
    assert chosen == {wanted.name, *(p.name for p in baselines.values())}


def test_without_a_gpu_its_candidates_are_tried_only_if_asked_for() -> None:
    baselines = plan.baselines(True, HERE)
    assert list(baselines) == ["cpu"]
    assert not {p.name for p in ON_GPU} & {p.name for p in plan.choose((), baselines)}
    asked = ON_GPU[0]
    assert asked in plan.choose((asked.name,), baselines)
    assert {reason(p) for p in ON_GPU} == {plan.NO_GPU}


def test_without_a_gpu_nobody_is_sent_to_install_its_runtime(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for chosen in ON_GPU:
        kind = type(discover.backend(chosen.backend))
        monkeypatch.setattr(kind, "missing", lambda _self: ("a_module",))
    assert {reason(p) for p in ON_GPU} == {plan.NO_GPU}
    aimed = (replace(p, gpus=("sm86",)) for p in ON_GPU)
    assert all("a_module" in str(reason(p)) for p in aimed)
    assert all("a_module" in str(reason(p, machine=WITH_L4)) for p in ON_GPU)


def test_an_old_gpu_is_told_what_it_lacks() -> None:
    with_tf32 = next(p for p in ON_GPU if p.precision == "tf32")
    told = "Tesla T4 (compute capability 7.5) has no TF32"
    assert reason(with_tf32, machine=WITH_T4) == told
    assert reason(with_tf32, machine=WITH_L4) != told
    halved = next(p for p in ON_GPU if p.precision == "fp16")
    assert "FP16" not in str(reason(halved, machine=WITH_T4))


def test_a_package_without_cuda_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The packages for CPUs install under the same module names."""
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda _name: ModuleSpec("any", None, is_package=True)
    )
    for chosen in ON_GPU:
        backend = discover.backend(chosen.backend)
        if backend.baseline_rank is not None:
            assert "CUDA" in str(backend.unsupported(chosen.variant, WITH_L4))


@pytest.mark.parametrize("name", ["tensorflow-fp32", "", PLANS[0].backend, PLANS[0].name.upper()])
def test_an_unknown_candidate_is_refused_with_those_known(name: str) -> None:
    with pytest.raises(UsageError, match="no candidate is called") as caught:
        plan.check_names([PLANS[0].name, name])
    assert PLANS[0].name in caught.value.hint


def test_names_and_files_tell_the_size_if_it_is_not_the_model_s_own(tmp_path: Path) -> None:
    own, sized = PLANS[0], replace(PLANS[0], size=(320, 416))
    assert sized.name == f"{own.name}@320x416"
    assert own.engine_file(tmp_path) != sized.engine_file(tmp_path)
    assert sized.engine_file(tmp_path).suffix == discover.backend(own.backend).suffix


def test_obstacles(monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in discover.backends():
        monkeypatch.setattr(type(backend), "unsupported", lambda *_: None)
    needing = [p for p in PLANS if (q := plan.pass_for(p.variant)) and q.needs_calibration]
    assert needing, "no pass needs calibration: what does this test?"
    for chosen in needing:
        assert "--calibration" in str(reason(chosen, calibrated=False, machine=WITH_L4))
    for chosen in PLANS:
        from_model = discover.backend(chosen.backend).made_from == "model"
        found = reason(chosen, has_module=False, machine=WITH_L4)
        assert ("no PyTorch module" in str(found)) == from_model


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for chosen in PLANS:
        backend = discover.backend(chosen.backend)
        monkeypatch.setattr(type(backend), "missing", lambda _self: ("a_module",))
        told = f"not installed: a_module (pip install 'raudo[{backend.extra}]')"
        assert reason(chosen, machine=WITH_L4) == told


def test_a_pass_that_is_not_installed_is_named_with_its_own_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for chosen in PLANS:
        if quantizer := plan.pass_for(chosen.variant):
            monkeypatch.setattr(type(quantizer), "missing", lambda _self: ("a_module",))
            told = f"not installed: a_module (pip install 'raudo[{quantizer.extra}]')"
            assert reason(chosen, machine=WITH_L4) == told


def test_what_the_machine_cannot_do_is_said_by_the_backend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        type(discover.backend(PLANS[0].backend)), "unsupported", lambda *_: "too old a CPU"
    )
    assert reason(PLANS[0]) == "too old a CPU"
