"""Which candidates there are for a model on this machine, and why one cannot be tried."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from raudo import discover
from raudo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from raudo.backends.base import Backend, Variant
    from raudo.passes.base import Pass
    from raudo.records import Device, Machine, Manifest, Precision, Ranges

NO_GPU = "no NVIDIA GPU here"
FIRST_CAPABILITY = {"fp16": (5, 3), "int8": (6, 1), "tf32": (8, 0), "bf16": (8, 0)}
"""Compute capability from which on a GPU computes in a precision (CUDA C++ programming guide)."""


@dataclass(frozen=True)
class Plan:
    """One candidate: a backend in one of its variants, at an input size.

    Attributes:
        backend: Name of the backend.
        variant: How it is run.
        size: Input (height, width) in pixels; None is the model's own.
        keep: Layers to keep from quantization.
        ranges: How calibration finds ranges; see `QuantizationSettings`.
        images: Most images to calibrate on; None takes all that there are.
        gpus: Kinds of GPU to make it for, `sm86` for instance; () is this machine.
        rectangles: Smaller sizes that have an engine each, for the images that they hold; the
            others go to the engine of the model's own size.
    """

    backend: str
    variant: Variant
    size: tuple[int, int] | None = None
    keep: tuple[str, ...] = ()
    ranges: Ranges = "mean"
    images: int | None = None
    gpus: tuple[str, ...] = ()
    rectangles: tuple[tuple[int, int], ...] = ()

    @property
    def name(self) -> str:
        """The candidate's name: `<backend>-<variant>[+<ranges>][+<n>images][+<kept>][@<sizes>]`."""
        ranges = "" if self.ranges == "mean" else f"+{self.ranges}"
        images = f"+{self.images}images" if self.images else ""
        kept = f"+{len(self.keep)}" if self.keep else ""
        return f"{self.backend}-{self.variant.name}{ranges}{images}{kept}{self.size_suffix}"

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


def variant_of(manifest: Manifest) -> Variant | None:
    """Return the variant that an engine was made as; None where it is none of today's."""
    backend = discover.backend(manifest.backend)
    name = base_name(manifest.name)
    return next((v for v in backend.variants if name == f"{backend.name}-{v.name}"), None)


def choose(wanted: Sequence[str], baselines: Mapping[Device, Plan]) -> tuple[Plan, ...]:
    """Return the wanted candidates and the baselines of their devices.

    Args:
        wanted: Names; nothing wanted means everything that a baseline stands for.
        baselines: By device, that of the CPU among them.

    Raises:
        UsageError: A wanted name is no candidate.
    """
    check_names(wanted)
    plans = all_plans()
    chosen = {p.name for p in plans if p.name in wanted}
    if not wanted:
        chosen = {p.name for p in plans if p.variant.device in baselines}
    devices = {"cpu", *(p.variant.device for p in plans if p.name in chosen)}
    chosen |= {baseline.name for device, baseline in baselines.items() if device in devices}
    return tuple(p for p in plans if p.name in chosen)


def baselines(has_module: bool, machine: Machine) -> dict[Device, Plan]:
    """Return the plan that all others on the same device are compared to, for each device here.

    Args:
        has_module: Whether the model is a PyTorch module.
        machine: Where it runs.

    Raises:
        MissingDependencyError: No backend that could be a baseline is installed.
    """
    devices: tuple[Device, ...] = ("cpu", "gpu") if machine.gpus else ("cpu",)
    return {device: baseline_plan(has_module, device) for device in devices}


def baseline_plan(has_module: bool, device: Device = "cpu") -> Plan:
    """Return the plan that all others on a device are compared to.

    Args:
        has_module: Whether the model is a PyTorch module.
        device: Where it runs.

    Raises:
        MissingDependencyError: No backend that could be the baseline is installed.
    """
    plans = [
        plan
        for plan in all_plans()
        if plan.variant.device == device
        and (backend := discover.backend(plan.backend)).baseline_rank is not None
        and (has_module or backend.made_from == "onnx")
    ]
    first = plans[0]
    discover.backend(first.backend).require()
    return first


def pass_for(variant: Variant) -> Pass | None:
    """Return the pass that makes a variant's graphs, or None if they need none."""
    return next((p for p in discover.passes() if p.makes(variant)), None)


def obstacle(plan: Plan, machine: Machine, *, has_module: bool, calibrated: bool) -> str | None:
    """Tell why a candidate cannot be tried; None if it can."""
    if plan.variant.device == "gpu" and not (plan.gpus or machine.gpus):
        return NO_GPU  # whatever else is missing would not help
    backend, quantizer = discover.backend(plan.backend), pass_for(plan.variant)
    lacking = [part for part in (backend, quantizer) if part and part.missing()]
    if lacking:
        modules = ", ".join(module for part in lacking for module in part.missing())
        extras = ",".join(dict.fromkeys(str(part.extra) for part in lacking))
        return f"not installed: {modules} (pip install 'raudo[{extras}]')"
    if backend.made_from == "model" and not has_module:
        return "the model file holds no PyTorch module"
    if quantizer and quantizer.needs_calibration and not calibrated:
        return "no calibration images (give some with --calibration)"
    if plan.gpus:
        return backend.unable_to_aim(plan.gpus)
    if plan.variant.device == "gpu" and (reason := _gpu_obstacle(plan.precision, machine)):
        return reason
    return backend.unsupported(plan.variant, machine)


def _gpu_obstacle(precision: Precision, machine: Machine) -> str | None:
    gpu = machine.gpus[0]
    capability = tuple(int(part) for part in gpu.compute_capability.split("."))
    if capability < FIRST_CAPABILITY.get(precision, (0, 0)):
        here = f"{gpu.name} (compute capability {gpu.compute_capability})"
        return f"{here} has no {precision.upper()}"
    return None
