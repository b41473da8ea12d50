"""Builds an engine for NVIDIA GPUs from an ONNX graph."""

from __future__ import annotations

import logging
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from raudo.errors import EngineError, SourceError, UsageError
from raudo.gpu import cuda
from raudo.machine import cache_folder
from raudo.records import PrecisionAudit
from raudo.workspace import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raudo.backends.base import Variant
    from raudo.gpu.toolkit import Toolkit

log = logging.getLogger(__name__)

FLAGS = {"tf32": ("TF32",), "fp16": ("FP16",), "int8": ("INT8", "FP16")}
"""Precision -> builder flags that allow it, where the graph alone does not decide."""
CONSTRAINTS = {"fp16": "OBEY_PRECISION_CONSTRAINTS", "int8": "PREFER_PRECISION_CONSTRAINTS"}
"""How layers are held to a precision: where the graph is INT8, 8.5 finds no way to obey."""
PRECISION_NAMES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8"}
HEAVY = frozenset({"CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "FULLY_CONNECTED"})
ARITHMETIC = frozenset({"ELEMENTWISE", "UNARY", "ACTIVATION", "SOFTMAX", "REDUCE"})
CONVERSIONS = frozenset({"IDENTITY", "CAST"})
UNHELD = CONVERSIONS | {"CONSTANT", "SHAPE", "QUANTIZE", "DEQUANTIZE"}
"""Layers whose precision is what they are for, or none."""
FLOATS = ("FLOAT", "HALF")
SOURCES = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
"""Kernels that are considered beside the plainest: the library's own, without cuBLAS and cuDNN."""
TIMINGS = 4
"""Of each kernel: with one, noise chooses; there are tens of thousands of kernels to time."""
BRANCHES = 3
"""Streams beside the first, for branches of the network. By itself 8.6 takes none for YOLO11n; with
three it is 1.1 times as fast on an H100, with more no faster."""


class TimingCache:
    """How long each kernel took, kept by GPU and version in the user's cache folder.

    With it a second build measures nothing, and takes seconds.

    Args:
        machine: What the cache is valid for.
    """

    def __init__(self, machine: Mapping[str, str]) -> None:
        words = "-".join(machine[key] for key in sorted(machine))
        self.path = cache_folder() / f"{re.sub(r'[^0-9A-Za-z.]+', '-', words)}.timing"
        self._cache: Any = None

    def attach(self, config: Any) -> None:
        """Let a build use and fill it; one that the library does not read is begun anew."""
        known = self.path.read_bytes() if self.path.is_file() else b""
        self._cache = config.create_timing_cache(known) or config.create_timing_cache(b"")
        if not config.set_timing_cache(self._cache, False):
            self._cache = config.create_timing_cache(b"")
            config.set_timing_cache(self._cache, False)

    def keep(self, config: Any) -> None:
        """Write what a build measured, together with what other builds wrote meanwhile."""
        if self.path.is_file():
            other = config.create_timing_cache(self.path.read_bytes())
            if other is not None:
                self._cache.combine(other, True)
        try:
            with replacing(self.path) as draft:
                draft.write_bytes(self._cache.serialize())
        except UsageError as error:
            log.warning("the timing cache is not kept: %s", error.message)


class Build:
    """One build.

    Args:
        toolkit: The library.
        model: A serialized ONNX graph.
        variant: What to build.
        gpus: Kinds of GPU to build for; () is the one that is here.

    Raises:
        SourceError: The library lacks an operator of the graph.
        EngineError: It cannot build at all here.
    """

    def __init__(
        self, toolkit: Toolkit, model: bytes, variant: Variant, gpus: tuple[str, ...]
    ) -> None:
        self._toolkit, self._trt, self._variant = toolkit, toolkit.module, variant
        self._log = toolkit.logger()
        try:
            self._builder = self._trt.Builder(self._log)
        except (TypeError, RuntimeError) as error:  # some versions give none without a GPU
            raise EngineError(
                f"{toolkit.title} cannot build here: {self._log.reason()}",
                hint="'raudo doctor' tells which GPU and driver are found",
            ) from error
        self._network = self._builder.create_network(toolkit.network)
        self._config = self._builder.create_builder_config()
        if gpus:
            self._config.num_compute_capabilities = len(gpus)
            for place, gpu in enumerate(gpus):
                kind = getattr(self._trt.ComputeCapability, gpu.upper())
                self._config.set_compute_capability(kind, place)
        self._parse(model)

    def _parse(self, model: bytes) -> None:
        parser = self._trt.OnnxParser(self._network, self._log)
        if parser.parse(model):
            return
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        said = "; ".join(map(_describe_error, errors)) or self._log.reason()
        raise SourceError(
            f"{self._toolkit.title} cannot take the model: {said}",
            hint="this model can run in the other formats ('raudo list')",
        )

    def run(self, cache: TimingCache | None) -> bytes:
        """Return the engine.

        Args:
            cache: What earlier builds measured; None where nothing is measured.

        Raises:
            EngineError: There is none, for instance for want of memory.
        """
        config = self._config
        config.profiling_verbosity = self._trt.ProfilingVerbosity.DETAILED
        if self._toolkit.branches:
            config.max_aux_streams = BRANCHES
        self._allow_precision()
        self._add_profiles()
        if cache is not None:
            cache.attach(config)
        plan = self._builder.build_serialized_network(self._network, config)
        if plan is None:
            raise _failure(self._toolkit.title, self._log)
        if cache is not None:
            cache.keep(config)
        return bytes(plan)

    def _allow_precision(self) -> None:
        config, flag = self._config, self._trt.BuilderFlag
        names = FLAGS.get(self._variant.precision, ())
        if "TF32" not in names:
            config.clear_flag(flag.TF32)
        if self._toolkit.typed:
            return
        known = self._trt.TacticSource.__members__
        config.set_tactic_sources(sum(1 << int(known[name]) for name in SOURCES if name in known))
        config.avg_timing_iterations = TIMINGS
        for name in names:
            config.set_flag(getattr(flag, name))
        if "FP16" in names:
            config.set_flag(getattr(flag, CONSTRAINTS[self._variant.precision]))
            self._hold_precision()

    def _hold_precision(self) -> None:
        """Hold layers to the precision that the graph gives them.

        Kernels of another precision are not even timed then, which halves what a build does.
        """
        kinds, decoding = self._trt.DataType, self._decoding()
        halves = self._variant.precision == "fp16"
        for layer in self._layers():
            if layer.type.name in UNHELD or layer.get_output(0).dtype.name not in FLOATS:
                continue
            if layer.name not in decoding:
                kind = kinds.HALF if halves else None
            else:
                kind = kinds.FLOAT if halves or layer.type.name in ARITHMETIC else None
            if kind is not None:
                layer.precision = kind
                layer.set_output_type(0, kind)

    def _decoding(self) -> set[str]:
        """Return the names of the layers behind the network: what turns cells into boxes."""
        makers = self._makers()
        found: set[str] = set()
        ahead = [self._network.get_output(i).name for i in range(self._network.num_outputs)]
        while ahead:
            layer = makers.get(ahead.pop())
            if layer is None or layer.name in found or self._ends_network(layer):
                continue
            found.add(layer.name)
            given = (layer.get_input(i) for i in range(layer.num_inputs))
            ahead += [tensor.name for tensor in given if tensor is not None]
        return found

    def _ends_network(self, layer: Any) -> bool:
        if self._variant.precision != "fp16":
            return bool(layer.type.name == "CONVOLUTION")
        # The library tells FLOAT of most tensors, whatever the graph says; conversions it knows.
        converts = layer.type.name in CONVERSIONS and layer.get_output(0).dtype.name == "FLOAT"
        return converts and layer.get_input(0).dtype.name in FLOATS

    def _layers(self) -> list[Any]:
        return [self._network.get_layer(i) for i in range(self._network.num_layers)]

    def _makers(self) -> dict[str, Any]:
        """Return the layer that makes each tensor, by the tensor's name."""
        return {
            layer.get_output(i).name: layer
            for layer in self._layers()
            for i in range(layer.num_outputs)
        }

    def _add_profiles(self) -> None:
        """Tune for one image, and for as many as are worth trying."""
        images = self._network.get_input(0)
        if images.shape[0] != -1:
            return
        sides, most = tuple(images.shape)[1:], max(self._variant.batches)
        for least, largest in {(1, 1), (min(2, most), most)}:
            profile = self._builder.create_optimization_profile()
            profile.set_shape(
                images.name, *((count, *sides) for count in (least, largest, largest))
            )
            self._config.add_optimization_profile(profile)

    def audit(self) -> PrecisionAudit:
        """Count the computing layers of the graph by their precision, which is what will run."""
        makers = self._makers()
        found: Counter[str] = Counter()
        for layer in makers.values():
            if layer.type.name not in HEAVY:
                continue
            given = layer.get_input(0)
            before = makers.get(given.name)
            quantized = before is not None and before.type.name == "DEQUANTIZE"
            kind = given.dtype.name
            found["int8" if quantized else PRECISION_NAMES.get(kind, kind)] += 1
        if self._variant.precision == "tf32":
            found = Counter({"tf32" if p == "fp32" else p: n for p, n in found.items()})
        return PrecisionAudit(
            found=dict(found),
            providers={"GPU": sum(found.values())},
            note="read off the graph that was built: there is no such GPU here to load the engine",
        )


def _failure(title: str, log: Any) -> EngineError:
    """Say why there is no engine: a want of memory is told first, and what it leads to last."""
    memory = next((text for text in log.errors if "memory" in text.lower()), None)
    if memory is None:
        said, hint = log.reason(), "is enough of the GPU's memory free? the log says more"
    else:
        said, hint = memory.strip().partition("\n")[0], cuda.HINTS[cuda.MEMORY_ERROR]
    return EngineError(f"{title} cannot build the engine: {said}", hint=hint)


def _describe_error(error: Any) -> str:
    said = error.desc().strip().partition("\n")[0]
    if hasattr(error, "node_operator"):
        return f"{error.node_operator()} in node '{error.node_name()}': {said}"
    return f"node {error.node()}: {said}"
