"""Which candidates there are for a model on this machine, and why one cannot be tried."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from raudo import discover
from raudo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from raudo.backends.base import Backend, Variant
    from raudo.passes.base import Pass
    from raudo.records import Machine, Precision


@dataclass(frozen=True)
class Plan:
    """One candidate: a backend in one of its variants, at an input size.

    Attributes:
        backend: Name of the backend.
        variant: How it is run.
        size: Input (height, width) in pixels; None is the model's own.
        keep: Layers to keep from quantization.
        gpus: Kinds of GPU to make it for, `sm86` for instance; () is this machine.
        rectangles: Smaller sizes that have an engine each, for the images that they hold; the
            others go to the engine of the model's own size.
    """

    backend: str
    variant: Variant
    size: tuple[int, int] | None = None
    keep: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    rectangles: tuple[tuple[int, int], ...] = ()

    @property
    def name(self) -> str:
        """The candidate's name: `<backend>-<variant>[+<kept layers>][@<sizes>]`."""
        kept = f"+{len(self.keep)}" if self.keep else ""
        return f"{self.backend}-{self.variant.name}{kept}{self.size_suffix}"

    @property
    def size_suffix(self) -> str:
        """The end of names of files that hold for this size alone."""
        sizes = self.rectangles or ((self.size,) if self.size else ())
        told = "+".join(f"{height}x{width}" for height, width in sizes)
        return f"@{told}{'+own' if self.rectangles else ''}" if told else ""

    @property
    def parts(self) -> tuple[Plan, ...]:
        """The plans of the engines that it is put together from, the largest first; or itself."""
        own = replace(self, rectangles=())
        return (own, *(replace(own, size=size) for size in self.rectangles))

    @property
    def precision(self) -> Precision:
        """The precision that is asked for."""
        return self.variant.precision

    def engine_file(self, folder: Path) -> Path:
        """Return where the candidate's engine lies in a run."""
        return folder / f"{self.name}{discover.backend(self.backend).suffix}"


def all_plans() -> tuple[Plan, ...]:
    """Return every variant of every backend, the baseline's backend first."""

    def rank(backend: Backend) -> tuple[bool, int, str]:
        place = backend.baseline_rank
        return place is None, place or 0, backend.name

    ordered = sorted(discover.backends(), key=rank)
    return tuple(Plan(backend.name, variant) for backend in ordered for variant in backend.variants)


def check_names(wanted: Sequence[str]) -> None:
    """Check names of candidates.

    Raises:
        UsageError: One is no candidate.
    """
    known = [plan.name for plan in all_plans()]
    for name in wanted:
        if name not in known:
            raise UsageError(f"no candidate is called '{name}'", hint=f"known: {', '.join(known)}")


def base_name(name: str) -> str:
    """Return the part of a candidate's name that says backend and variant."""
    return re.split("[+@]", name)[0]


def choose(wanted: Sequence[str], baseline: str) -> tuple[Plan, ...]:
    """Return the wanted candidates and the baseline; nothing wanted means all.

    Raises:
        UsageError: A wanted name is no candidate.
    """
    check_names(wanted)
    plans = all_plans()
    return tuple(p for p in plans if not wanted or p.name in wanted or p.name == baseline)


def baseline_plan(has_module: bool) -> Plan:
    """Return the plan that all others are compared to.

    Args:
        has_module: Whether the model is a PyTorch module.

    Raises:
        MissingDependencyError: No backend that could be the baseline is installed.
    """
    plans = [
        plan
        for plan in all_plans()
        if (backend := discover.backend(plan.backend)).baseline_rank is not None
        and (has_module or backend.made_from == "onnx")
    ]
    first = plans[0]
    discover.backend(first.backend).require()
    return first


def pass_for(precision: Precision) -> Pass | None:
    """Return the pass that makes a precision, or None if graphs have it by themselves."""
    return next((p for p in discover.passes() if p.precision == precision), None)


def obstacle(plan: Plan, machine: Machine, *, has_module: bool, calibrated: bool) -> str | None:
    """Tell why a candidate cannot be tried; None if it can."""
    backend, quantizer = discover.backend(plan.backend), pass_for(plan.precision)
    missing = (*backend.missing(), *(quantizer.missing() if quantizer else ()))
    if missing:
        return f"not installed: {', '.join(missing)} (pip install 'raudo[{backend.extra}]')"
    if backend.made_from == "model" and not has_module:
        return "the model file holds no PyTorch module"
    if quantizer and quantizer.needs_calibration and not calibrated:
        return "no calibration images (give some with --calibration)"
    if plan.gpus:
        return backend.unable_to_aim(plan.gpus)
    return backend.unsupported(plan.variant, machine)
