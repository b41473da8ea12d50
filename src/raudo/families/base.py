"""What a model family is: it recognizes its files and loads them into the engine contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from raudo.records import Spec

ONNX_OPSET = 17


@dataclass(frozen=True)
class Evidence:
    """What a model file shows before any of its code could run.

    Attributes:
        kind: `checkpoint` (a PyTorch zip or pickle) or `onnx`.
        imports: `module.name` of everything that unpickling would import; empty for ONNX.
        strings: All text in the pickle (keys of the state dict among it), or for ONNX the
            metadata keys and values.
        shapes: For ONNX: shape by tensor name of inputs and outputs; -1 where it is dynamic.
    """

    path: Path
    kind: Literal["checkpoint", "onnx"]
    imports: frozenset[str]
    strings: frozenset[str]
    shapes: dict[str, tuple[int, ...]]


class Model(ABC):
    """A loaded model: its spec, and the ways to turn it into engines."""

    spec: Spec

    @abstractmethod
    def write_onnx(self, path: Path) -> None:
        """Write an ONNX file that obeys the engine contract, with a dynamic batch axis."""

    def module(self) -> torch.nn.Module | None:
        """Return the module that obeys the engine contract, in eval mode, or None without one.

        It maps uint8 [batch, height, width, 3] to (boxes, scores) or (boxes, scores, labels).
        """
        return None


class TorchModel(Model):
    """A model that is a PyTorch module."""

    def __init__(self, spec: Spec, module: torch.nn.Module) -> None:
        self.spec = spec
        self._module = module.eval()

    def module(self) -> torch.nn.Module:
        """Return the module; see `Model.module`."""
        return self._module

    def write_onnx(self, path: Path) -> None:
        """Write the module as ONNX; see `Model.write_onnx`."""
        import torch

        outputs = ["boxes", "scores", "labels"][: 2 if self.spec.output == "dense" else 3]
        example = torch.zeros(1, self.spec.height, self.spec.width, 3, dtype=torch.uint8)
        # The tracing exporter: models of this field need no control flow, opset 17 is what
        # TensorRT 8 reads, and the newer exporter refuses modules that cache their anchors.
        torch.onnx.export(
            self._module,
            (example,),
            str(path),
            dynamo=False,
            opset_version=ONNX_OPSET,
            input_names=["images"],
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in ["images", *outputs]},
        )


class Family(ABC):
    """One model family."""

    name: ClassVar[str]
    title: ClassVar[str]
    extra: ClassVar[str] = "torch"
    allowed_imports: ClassVar[tuple[str, ...]] = ()
    """Module prefixes that its checkpoints may import, beside torch, numpy and collections."""

    @abstractmethod
    def recognizes(self, evidence: Evidence) -> bool:
        """Tell from its contents whether a file is of this family."""

    @abstractmethod
    def load(self, evidence: Evidence, size: tuple[int, int] | None) -> Model:
        """Load a file that `recognizes` accepted and whose imports were found harmless.

        Args:
            evidence: The file and what was found in it.
            size: Input (height, width) in pixels; None takes the model's own.

        Raises:
            SourceError: The file is damaged, or of a task that is not detection.
            MissingDependencyError: The family's package is not installed.
        """


Plugin = Family
