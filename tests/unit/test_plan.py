"""Which candidates there are, and why one cannot be tried."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from raudo import discover, plan
from raudo.errors import MissingDependencyError, UsageError
from raudo.machine import describe

if TYPE_CHECKING:
    from pathlib import Path

    from raudo.plan import Plan

PLANS = plan.all_plans()


def reason(chosen: Plan, *, has_module: bool = True, calibrated: bool = True) -> str | None:
    return plan.obstacle(chosen, describe(), has_module=has_module, calibrated=calibrated)


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
    monkeypatch.setattr(type(first), "modules", ("no_such_module",))
    with pytest.raises(MissingDependencyError, match="no_such_module") as caught:
        plan.baseline_plan(has_module=True)
    assert str(first.extra) in caught.value.hint


def test_nothing_wanted_is_everything_and_the_baseline_is_always_in() -> None:
    base = PLANS[0].name
    assert plan.choose((), base) == PLANS
    chosen = plan.choose((PLANS[-1].name,), base)
    assert [p.name for p in chosen] == [base, PLANS[-1].name]


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


def test_obstacles() -> None:
    needing = [p for p in PLANS if (q := plan.pass_for(p.precision)) and q.needs_calibration]
    assert needing, "no pass needs calibration: what does this test?"
    for chosen in needing:
        assert "--calibration" in str(reason(chosen, calibrated=False))
    for chosen in PLANS:
        from_model = discover.backend(chosen.backend).made_from == "model"
        assert ("no PyTorch module" in str(reason(chosen, has_module=False))) == from_model


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for chosen in PLANS:
        backend = discover.backend(chosen.backend)
        monkeypatch.setattr(type(backend), "missing", lambda _self: ("a_module",))
        assert reason(chosen) == f"not installed: a_module (pip install 'raudo[{backend.extra}]')"


def test_what_the_machine_cannot_do_is_said_by_the_backend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        type(discover.backend(PLANS[0].backend)), "unsupported", lambda *_: "too old a CPU"
    )
    assert reason(PLANS[0]) == "too old a CPU"
