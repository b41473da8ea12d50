"""LiteRT (TensorFlow Lite) on the CPU: FP32 and INT8, from TFLite files.

The input is uint8 [1, height, width, 3] inside of the graph. Making a file needs neither
TensorFlow nor PyTorch: `raudo.graphs.channels_last` translates the ONNX graph, and Google's AI Edge
Quantizer, a small Python package, makes it INT8.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import re
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from raudo.backends.base import Backend, Engine, Outputs, Resources, Variant
from raudo.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from raudo.passes.base import QuantizationSettings
    from raudo.records import Artifact, Machine, PrecisionAudit, Ranges, Target

COMPUTE = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL"})
CALIBRATION_IMAGES = 64
"""The quantizer keeps moving averages of the ranges, which forget all but some tens of images."""
PRECISION_NAMES = {"FLOAT32": "fp32", "FLOAT16": "fp16", "INT8": "int8"}


@dataclass(frozen=True)
class TfliteGraph:
    """The content of a TFLite file, which quantizes itself.

    Attributes:
        content: Of the file.
        origin: What it was quantized from; None for what is not quantized.
    """

    content: bytes
    origin: Origin | None = None
    methods: ClassVar[tuple[Ranges, ...]] = ("mean",)

    def layers(self) -> tuple[str, ...]:
        """Return the convolutions and products before the decoding, by the names of layers."""
        from raudo.graphs.fold import DECODING, OF_LAYER

        found = dict.fromkeys(
            name.partition(OF_LAYER)[0]
            for kind, name in _operators(self.content)
            if kind in COMPUTE and not name.startswith(DECODING)
        )
        return tuple(found)

    def quantize(
        self, calibration: Sequence[NDArray[np.uint8]], settings: QuantizationSettings
    ) -> TfliteGraph:
        """Return the graph in INT8, weights by channel; the decoding stays in float.

        Args:
            calibration: Prepared images, each uint8 [1, height, width, 3]; the first few are used.
            settings: How to quantize.

        Raises:
            EngineError: The quantizer has no such method.
        """
        from ai_edge_quantizer import calibrator

        from raudo.graphs.tflite import SIGNATURE
        from raudo.machine import available_threads

        if settings.ranges not in self.methods:
            raise EngineError(
                f"AI Edge Quantizer does not find ranges by '{settings.ranges}'",
                hint=f"it knows {', '.join(self.methods)}",
            )
        samples = {SIGNATURE: [{"images": images} for images in calibration[:CALIBRATION_IMAGES]]}
        with _silent():
            ranges = _quantizer(self.content, ()).calibrate(
                samples,
                num_threads=available_threads(),
                mode=calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED,
            )
        return _quantized(Origin(self.content, ranges), ())

    def restore(self, layers: Collection[str]) -> TfliteGraph:
        """Return the graph quantized by the same ranges, but for layers and their activations."""
        return self if self.origin is None else _quantized(self.origin, layers)


@dataclass(frozen=True)
class Origin:
    """What a graph was quantized from.

    Attributes:
        content: The file in float.
        ranges: Of its tensors, as AI Edge Quantizer found them.
    """

    content: bytes
    ranges: Mapping[str, Any]


def _quantized(origin: Origin, keep: Collection[str]) -> TfliteGraph:
    with _silent():
        made = _quantizer(origin.content, keep).quantize(copy.deepcopy(origin.ranges))
    return TfliteGraph(bytes(made.quantized_model), origin)


def _quantizer(content: bytes, keep: Collection[str]) -> Any:
    """Return a quantizer that leaves the decoding and some layers alone."""
    from ai_edge_quantizer import quantizer, recipe
    from ai_edge_quantizer.qtyping import TFLOperationName

    from raudo.graphs.fold import DECODING, OF_LAYER

    steps = quantizer.Quantizer(content, recipe.static_wi8_ai8())
    for beginning in (DECODING, *(layer + OF_LAYER for layer in keep)):
        steps.update_quantization_recipe(
            regex=f"^{re.escape(beginning)}",
            operation_name=TFLOperationName.ALL_SUPPORTED,
            algorithm_key=recipe.AlgorithmName.NO_QUANTIZE,
        )
    return steps


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep the quantizer from printing how it goes on."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


def _operators(content: bytes) -> list[tuple[str, str]]:
    """Return the kind of each operator of a file, and the name of its first output."""
    from ai_edge_litert import schema_py_generated as schema

    kinds = _numbers(schema.BuiltinOperator)
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    return [
        (
            kinds[model.operatorCodes[operator.opcodeIndex].builtinCode],
            graph.tensors[operator.outputs[0]].name.decode(),
        )
        for graph in model.subgraphs
        for operator in graph.operators
    ]


class LiteRt(Backend):
    """LiteRT's interpreter with its XNNPACK kernels."""

    name = "litert"
    title = "LiteRT (TFLite)"
    format = "litert"
    suffix = ".tflite"
    modules: ClassVar[tuple[str, ...]] = ("ai_edge_litert",)
    extra = "litert"
    targets: ClassVar[tuple[Target, ...]] = ("edge",)
    variants: ClassVar[tuple[Variant, ...]] = (
        Variant("fp32", "fp32", batches=(1,)),
        Variant("int8", "int8", batches=(1,)),
    )

    def unsupported(self, variant: Variant, machine: Machine) -> str | None:
        """Tell which package is missing to make a file; None if none is."""
        del machine
        needed = ("onnx", "ai_edge_quantizer") if variant.precision == "int8" else ("onnx",)
        missing = [module for module in needed if importlib.util.find_spec(module) is None]
        if missing:
            return f"not installed: {', '.join(missing)} (pip install 'raudo[litert-export]')"
        return None

    def read_graph(self, path: Path) -> Any:
        """Translate a contract ONNX file.

        Raises:
            SourceError: An operator has no translation.
        """
        import onnx
        from ai_edge_litert import schema_py_generated

        from raudo.graphs.channels_last import Translator
        from raudo.graphs.fold import fold

        return TfliteGraph(Translator(fold(onnx.load(path)), schema_py_generated).translate())

    def write_graph(self, graph: Any, path: Path) -> None:
        """Write the `.tflite` file."""
        path.write_bytes(graph.content)

    def open(self, artifact: Artifact, resources: Resources) -> Engine:
        """Load a TFLite file; see `Backend.open`."""
        return LiteRtEngine(artifact, resources)


class LiteRtEngine(Engine):
    """One interpreter for each thread that runs it; an interpreter takes one image at a time."""

    def __init__(self, artifact: Artifact, resources: Resources) -> None:
        from raudo.graphs.tflite import IDENTIFIER

        super().__init__(artifact.manifest.spec)
        self._content = artifact.path.read_bytes()
        self._threads = max(1, resources.threads // resources.streams)
        self._local = threading.local()
        try:
            if self._content[4:8] != IDENTIFIER:
                raise ValueError("it is no TFLite file")
            self._session()
        except (ValueError, RuntimeError, KeyError) as error:
            raise EngineError(
                f"{artifact.path} does not load: {str(error).strip().partition(chr(10))[0]}",
                hint="make it again with 'raudo export'",
            ) from error

    def _session(self) -> _Session:
        session: _Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = _Session(self._content, self._threads)
        return session

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        session = self._session()
        found = [session.run(images[place : place + 1]) for place in range(len(images))]
        if len(found) == 1:
            return Outputs(*found[0])
        import numpy as np

        boxes, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return Outputs(boxes, scores)

    def audit(self) -> PrecisionAudit:
        """Count the computing operators by the type of the tensors that they read.

        The interpreter has no other choice than to execute an operator in the types of its
        tensors.
        """
        from ai_edge_litert import schema_py_generated as schema

        from raudo.records import PrecisionAudit

        operators = _numbers(schema.BuiltinOperator)
        types = _numbers(schema.TensorType)
        model = schema.ModelT.InitFromPackedBuf(self._content, 0)
        found: Counter[str] = Counter()
        for graph in model.subgraphs:
            for operator in graph.operators:
                code = model.operatorCodes[operator.opcodeIndex].builtinCode
                if operators[code] in COMPUTE:
                    read = {types[graph.tensors[n].type] for n in operator.inputs[:2]}
                    kind = "/".join(sorted(PRECISION_NAMES.get(t, t.lower()) for t in read))
                    found[kind] += 1
        return PrecisionAudit(found=dict(found), providers={"CPU": sum(found.values())})

    def close(self) -> None:
        """Free the interpreters."""
        self._local = threading.local()


class _Session:
    """An interpreter with its tensors found by name."""

    def __init__(self, content: bytes, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        from raudo.graphs.tflite import SIGNATURE

        self._interpreter = Interpreter(model_content=content, num_threads=threads)
        self._interpreter.allocate_tensors()
        names = self._interpreter.get_signature_runner(SIGNATURE)
        self._images: int = names.get_input_details()["images"]["index"]
        outputs = names.get_output_details()
        self._outputs: tuple[int, int] = (outputs["boxes"]["index"], outputs["scores"]["index"])

    def run(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return boxes and scores of one image, uint8 [1, height, width, 3]."""
        self._interpreter.set_tensor(self._images, images)
        self._interpreter.invoke()
        boxes, scores = map(self._interpreter.get_tensor, self._outputs)
        return boxes, scores


def _numbers(names: type) -> dict[int, str]:
    """Return the names of an enumeration of the schema by their numbers."""
    return {value: name for name, value in vars(names).items() if isinstance(value, int)}
