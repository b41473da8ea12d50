"""What a model family is: it recognizes its files and loads them into the engine contract."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

    from raudo.records import Spec

ONNX_OPSET = 17
SPEC_KEY = "raudo_spec"
"""Key of the spec, as JSON, in the metadata of ONNX files that raudo writes."""


@dataclass(frozen=True)
class Evidence:
    """What a model file shows before any of its code could run.

    Attributes:
        kind: `checkpoint` (a PyTorch zip or pickle) or `onnx`.
        imports: `module.name` of everything that unpickling would import; empty for ONNX.
        strings: All text in the pickle (keys of the state dict among it), or for ONNX the
            metadata keys and values.
        shapes: For ONNX: shape by tensor name of inputs and outputs; -1 where it is dynamic.
        trusted: The user vouches for what the file imports beyond the allow-list.
    """

    path: Path
    kind: Literal["checkpoint", "onnx"]
    imports: frozenset[str]
    strings: frozenset[str]
    shapes: dict[str, tuple[int, ...]]
    trusted: bool = False


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
        import onnx
        import torch

        names = ["boxes", "scores", "labels"][: 2 if self.spec.output == "dense" else 3]
        example = torch.zeros(1, self.spec.height, self.spec.width, 3, dtype=torch.uint8)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer, and about the exporter's age
            shapes = [tuple(output.shape) for output in self._module(example)]
            # The tracing exporter: models of this field need no control flow, opset 17 is what
            # TensorRT 8 reads, and the newer exporter refuses modules that cache their anchors.
            torch.onnx.export(
                self._module,
                (example,),
                str(path),
                dynamo=False,
                opset_version=ONNX_OPSET,
                input_names=["images"],
                output_names=names,
                dynamic_axes={name: {0: "batch"} for name in ["images", *names]},
            )
        # The exporter forgets every shape that follows a dynamic axis.
        model = onnx.load(path)
        for output, shape in zip(model.graph.output, shapes, strict=True):
            for dim, side in list(zip(output.type.tensor_type.shape.dim, shape, strict=True))[1:]:
                dim.dim_value = side
        model.metadata_props.add(key=SPEC_KEY, value=self.spec.model_dump_json())
        onnx.save(model, path)


def torch_module(forward: Callable[..., Any], **members: Any) -> torch.nn.Module:
    """Make a module of a plain function; classes of modules would need torch at import time.

    Args:
        forward: Called with the module itself and its inputs.
        members: Attributes of the module; tensors become buffers that are not saved.
    """
    import torch

    class Block(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
        def forward(self, *inputs: Any) -> Any:
            return forward(self, *inputs)

    block = Block()
    for name, member in members.items():
        if isinstance(member, torch.Tensor):
            block.register_buffer(name, member, persistent=False)
        else:
            setattr(block, name, member)
    return block


class Family(ABC):
    """One model family."""

    name: ClassVar[str]
    title: ClassVar[str]
    extra: ClassVar[str] = "torch"
    allowed_imports: ClassVar[tuple[str, ...]] = ()
    """Modules, with all below them, whose classes its checkpoints may hold objects of."""
    allowed_calls: ClassVar[tuple[str, ...]] = ()
    """`module.name` of what its checkpoints may call while they are unpickled."""

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
