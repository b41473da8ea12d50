"""PyTorch on the CPU: as most people run it, and at its best."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from raudo.backends.base import Backend, Engine, Outputs, Resources, Variant
from raudo.errors import EngineError
from raudo.records import PrecisionAudit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from raudo.records import Artifact, Machine, Target

BF16_HARDWARE = frozenset({"AVX-512 BF16", "AMX BF16", "NEON BF16"})


class Torch(Backend):
    """PyTorch, from the model file itself."""

    name = "torch"
    title = "PyTorch"
    format = "torch"
    suffix = ".pt"
    modules: ClassVar[tuple[str, ...]] = ("torch",)
    extra = "torch"
    made_from: ClassVar[Literal["model", "onnx"]] = "model"
    targets: ClassVar[tuple[Target, ...]] = ("development",)
    variants: ClassVar[tuple[Variant, ...]] = (
        Variant("fp32", "fp32"),
        Variant("bf16", "bf16", {"channels_last": True}),
        Variant("compiled", "fp32", {"channels_last": True, "compile": True}, batches=(1,)),
    )
    baseline_rank = 0

    def unsupported(self, variant: Variant, machine: Machine) -> str | None:
        """Tell why this machine cannot run a variant; None if it can."""
        if variant.precision == "bf16" and not BF16_HARDWARE & set(machine.isa):
            return "this CPU has no BF16 arithmetic"
        return missing_toolchain() if variant.options.get("compile") else None

    def open(self, artifact: Artifact, resources: Resources) -> Engine:
        """Load a model file; see `Backend.open`."""
        return TorchEngine(artifact, resources)


def missing_toolchain() -> str | None:
    """Tell what `torch.compile` lacks here to compile its C++ kernels; None if nothing."""
    usual = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    compiler = os.environ.get("CXX", usual)
    if shutil.which(next(iter(shlex.split(compiler)), "")) is None:
        return f"torch.compile needs a C++ compiler: '{compiler}' was not found"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return "torch.compile needs the headers of Python, which are not installed (python3-dev)"
    return None


class TorchEngine(Engine):
    """A family's module, run eagerly or compiled."""

    def __init__(self, artifact: Artifact, resources: Resources) -> None:
        manifest = artifact.manifest
        super().__init__(manifest.spec)
        import torch

        torch.set_num_threads(max(1, resources.threads // resources.streams))
        module = resources.model.module() if resources.model else None
        if module is None:
            raise EngineError(
                f"{artifact.path} holds no PyTorch module", hint="run it with another backend"
            )
        if manifest.options.get("channels_last"):
            module = module.to(memory_format=torch.channels_last)
        self._module = module
        self._call: Any = torch.compile(module) if manifest.options.get("compile") else module
        self._autocast = manifest.precision == "bf16"

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        import torch

        half = torch.autocast("cpu", torch.bfloat16) if self._autocast else nullcontext()
        with torch.inference_mode(), half:
            boxes, scores, *labels = self._call(torch.from_numpy(images))
        return Outputs(
            boxes.float().numpy(), scores.float().numpy(), labels[0].numpy() if labels else None
        )

    def audit(self) -> PrecisionAudit:
        """Count the convolutions and matrix products of one run by the type of their result."""
        import torch

        found: Counter[str] = Counter()
        names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}

        def note(_module: Any, _inputs: Any, output: Any) -> None:
            found[names.get(output.dtype, str(output.dtype))] += 1

        layers = (torch.nn.Conv2d, torch.nn.Linear)
        hooks = [
            layer.register_forward_hook(note)
            for layer in self._module.modules()
            if isinstance(layer, layers)
        ]
        half = torch.autocast("cpu", torch.bfloat16) if self._autocast else nullcontext()
        images = torch.zeros(1, self.spec.height, self.spec.width, 3, dtype=torch.uint8)
        with torch.inference_mode(), half:
            self._module(images)
        for hook in hooks:
            hook.remove()
        return PrecisionAudit(found=dict(found), providers={"CPU": sum(found.values())})
