"""What a backend is: it makes the engine files of one runtime, and runs them.

The base classes check, the children do: `Engine.run` validates, `_run` is ten lines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from raudo.errors import EngineError
from raudo.requiring import Requiring

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

    from raudo.families.base import Model
    from raudo.records import (
        Artifact,
        Device,
        Machine,
        NodeProfile,
        OptionValue,
        Precision,
        PrecisionAudit,
        Spec,
        Target,
    )


PROFILED_RUNS = 10
UINT8, FLOAT32 = "|u1", "<f4"
"""By NumPy's `dtype.str`: a `dtype.name` is put together anew each time, ten times as slow."""
GPU_TARGETS = frozenset({"production_gpu"})
"""Targets for engines that run on a GPU; the others take those that run on a CPU."""


@dataclass(frozen=True)
class Variant:
    """One way to run a backend, a candidate of `optimize`.

    Attributes:
        name: Unique within the backend; the candidate is called `<backend>-<name>`.
        precision: What is asked for; a pass that makes it is applied if one exists.
        options: Load options, kept in the manifest.
        batches: Batch sizes worth trying for throughput.
        streams: Whether several streams are worth trying for it.
        device: What it runs on; `gpu` is an NVIDIA GPU.
        silu: How SiLU is computed: exactly, or in pieces that need no exponential.
    """

    name: str
    precision: Precision
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    batches: tuple[int, ...] = (1, 4)
    streams: bool = True
    device: Device = "cpu"
    silu: Literal["exact", "pieces"] = "exact"


@dataclass(frozen=True)
class Library:
    """A shared library that a runtime needs on a GPU and that may have to be installed apart.

    Attributes:
        stem: Its file's name without `lib`, version and suffix.
        title: What people call it.
        linux: How to get it there.
        windows: How to get it there.
    """

    stem: str
    title: str
    linux: str
    windows: str


@dataclass(frozen=True)
class Resources:
    """What a loaded engine may use.

    Attributes:
        threads: CPU threads in all, shared among the streams.
        streams: Number of `run` calls that may be under way at once.
        batch: Largest batch that `run` will be given.
        kept: Whether the runtime may start from what it compiled before on this machine, and keeps
            what it compiles now, in the user's cache folder.
        model: The loaded model, for backends that are `made_from` it.
    """

    threads: int = 1
    streams: int = 1
    batch: int = 1
    kept: bool = False
    model: Model | None = None


@dataclass(frozen=True)
class Made:
    """What making an engine file told.

    Attributes:
        machine: What the engine needs to find again; see `Manifest.machine`.
        audit: What it will execute, where this machine cannot load it to look.
    """

    machine: Mapping[str, str] = field(default_factory=dict)
    audit: PrecisionAudit | None = None


@dataclass(frozen=True)
class Outputs:
    """Raw outputs of an engine.

    Attributes:
        boxes: float32 [batch, n, 4], xyxy in pixels of the engine's input.
        scores: float32 [batch, n, classes] for dense engines, [batch, n] for top-k engines.
        labels: None for dense engines, integer [batch, n] for top-k engines.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64] | None = None


class Engine(ABC):
    """A loaded engine; a context manager, and safe to `run` from `Resources.streams` threads."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    @property
    def specs(self) -> tuple[Spec, ...]:
        """The input rectangles that it takes images in; the first is `spec`'s own."""
        return (self.spec,)

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return memory for a batch that `run` reads fastest; it takes any other, too.

        Args:
            shape: Batch, height, width, 3.

        Returns:
            uint8 of that shape and any content, nobody else's until nothing refers to it any more.

        Raises:
            RaudoError: There is no such memory left.
        """
        import numpy as np

        return np.empty(shape, np.uint8)

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Run a batch.

        The arrays returned may be the runtime's own memory: they hold until this thread's next
        `run`.

        Args:
            images: uint8 [batch, height, width, 3], BGR, letterboxed.

        Raises:
            EngineError: The images, or what the engine returned, break the contract.
        """
        expected = (self.spec.height, self.spec.width, 3)
        if images.dtype.str != UINT8 or images.shape[1:] != expected:
            raise EngineError(
                f"the engine takes uint8 [batch, {', '.join(map(str, expected))}], "
                f"not {images.dtype.name} {list(images.shape)}",
                hint="prepare images with raudo.images.letterbox and the engine's own spec",
            )
        outputs = self._run(images)
        self._check(outputs, len(images))
        return outputs

    def _check(self, outputs: Outputs, batch: int) -> None:
        boxes, scores, labels = outputs.boxes, outputs.scores, outputs.labels
        dense = self.spec.output == "dense"
        tail = (len(self.spec.classes),) if dense else ()
        fits = (
            boxes.ndim == 3
            and boxes.shape[0] == batch
            and boxes.shape[2] == 4
            and scores.shape == (*boxes.shape[:2], *tail)
            and boxes.dtype.str == scores.dtype.str == FLOAT32
            and (labels is None) == dense
            and (labels is None or labels.shape == scores.shape)
        )
        if not fits:
            raise EngineError(
                f"the engine's outputs break its spec ({self.spec.output}): boxes "
                f"{list(boxes.shape)}, scores {list(scores.shape)}",
                hint="its manifest belongs to another file; export the engine again",
            )

    @abstractmethod
    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        """Run a batch that fits the spec."""

    @abstractmethod
    def audit(self) -> PrecisionAudit:
        """Tell what the loaded engine really executes."""

    def profile(self, images: NDArray[np.uint8]) -> tuple[NodeProfile, ...]:
        """Time each node of the runtime's own graph; () where the runtime does not tell.

        Args:
            images: What `run` takes, of the batch size that the engine was opened with.

        Returns:
            The nodes in the order that they run, each with the least of a few runs.
        """
        del images
        return ()

    def time_network(self, images: NDArray[np.uint8], runs: int) -> tuple[float, ...]:
        """Time the network alone, its input and outputs on the device that runs it.

        Args:
            images: What `run` takes, of the batch size that the engine was opened with.
            runs: How many times to run, one after the other.

        Returns:
            Seconds of each run; () where `run` copies nothing to another device.
        """
        del images, runs
        return ()

    def close(self) -> None:  # noqa: B027 (most runtimes free themselves)
        """Free the runtime's memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Backend(Requiring, ABC):
    """One runtime: what it can do (as data), how its engine files are made, how they are run."""

    name: ClassVar[str]
    format: ClassVar[str]
    """The word that `raudo export --to` takes."""
    suffix: ClassVar[str]
    """Suffix of the engine file, with its dot."""
    companions: ClassVar[tuple[str, ...]] = ()
    """Suffixes of files that belong to the engine file and replace its suffix."""
    made_from: ClassVar[Literal["model", "onnx"]] = "onnx"
    variants: ClassVar[tuple[Variant, ...]]
    targets: ClassVar[tuple[Target, ...]]
    """The targets that its engines are candidates for, each on its device."""
    libraries: ClassVar[tuple[Library, ...]] = ()
    """What its variants for GPUs load besides their own package."""
    grid: ClassVar[Literal["offset", "symmetric"]] = "offset"
    """Where the INT8 steps of activations lie; see `QuantizationSettings.grid`."""
    making_factor: ClassVar[float] = 1.0
    """How many times `--timeout` it may take to make an engine."""
    keeps_compiled: ClassVar[bool] = False
    """Whether `Resources.kept` makes a difference: opening an engine compiles it."""
    baseline_rank: ClassVar[int | None] = None
    """The lowest rank that can open the model is the baseline; None never is."""

    def targets_of(self, variant: Variant) -> tuple[Target, ...]:
        """Return the targets that a variant's engines are candidates for: those of its device."""
        on_gpu = variant.device == "gpu"
        return tuple(t for t in self.targets if t == "development" or (t in GPU_TARGETS) == on_gpu)

    def unsupported(self, variant: Variant, machine: Machine) -> str | None:
        """Tell why this machine cannot run a variant; None if it can."""
        del variant, machine
        return None

    def read_graph(self, path: Path) -> Any:
        """Read a contract ONNX file into the graph object that passes work on."""
        raise NotImplementedError

    def write_graph(self, graph: Any, path: Path) -> None:
        """Write a graph object as this backend's engine file."""
        raise NotImplementedError

    def make(self, graph: Any, path: Path, variant: Variant, gpus: tuple[str, ...] = ()) -> Made:
        """Make the engine file of a variant; for most runtimes that is writing the graph.

        Args:
            graph: What `read_graph` returned, and passes changed.
            path: Where the engine file will lie.
            variant: What it will be opened as.
            gpus: Kinds of GPU to make it for (`sm86`, ...); () is this machine.

        Raises:
            RaudoError: It cannot be made.
        """
        del variant, gpus
        self.write_graph(graph, path)
        return Made()

    def compile(
        self, model: bytes, path: Path, variant: Variant, gpus: tuple[str, ...] = ()
    ) -> Made:
        """Make the engine file of a finished graph, by the runtime alone.

        Args:
            model: A graph of `read_graph` as ONNX, in the variant's precision.
            path: Where the engine file will lie.
            variant: What it will be opened as.
            gpus: Kinds of GPU to make it for; () is this machine.

        Raises:
            RaudoError: It cannot be made.
        """
        raise NotImplementedError

    def unable_to_aim(self, gpus: tuple[str, ...]) -> str | None:
        """Tell why engines cannot be made here for other kinds of GPU; None if they can."""
        del gpus
        return f"{self.title} engines are not made for one kind of GPU"

    @abstractmethod
    def open(self, artifact: Artifact, resources: Resources) -> Engine:
        """Load an engine file.

        Raises:
            EngineError: The file is damaged, or not for this machine.
        """


Plugin = Backend
