"""Runs an engine for NVIDIA GPUs, and reads what its inspector tells."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from raudo.backends.base import Outputs
from raudo.errors import EngineError, RaudoError
from raudo.gpu import cuda

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from raudo.gpu.toolkit import Toolkit
    from raudo.records import PrecisionAudit

DTYPES = {"FLOAT": "float32", "INT32": "int32", "INT64": "int64", "UINT8": "uint8"}
"""Data types of tensors -> NumPy's; `nptype` of 8.5 needs a NumPy before 1.24."""
HEAVY_WORDS = ("conv", "gemm", "matmul", "matrixmultiply", "fullyconnected")
FORMAT_WORDS = {
    "int8": "int8",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "fp16": "fp16",
    "half": "fp16",
    "fp32": "fp32",
    "float": "fp32",
}
"""Words in the inspector's description of a tensor -> precision, the narrowest first."""


class Lane:
    """A context of an engine with its stream, memory and graph; it runs one batch at a time.

    Args:
        toolkit: The library.
        engine: The engine.
        batch: Images that it runs at once.
        memory: Where images are copied from; a block holds those of one batch.
        log: The library's logger.

    Raises:
        EngineError: The engine takes no such batch, or CUDA fails; nothing stays taken.
    """

    def __init__(
        self, toolkit: Toolkit, engine: Any, batch: int, memory: cuda.PinnedMemory, log: Any
    ) -> None:
        self._trt, self._engine, self._log = toolkit.module, engine, log
        self._memory = memory
        self._stream = cuda.Stream()
        try:
            self._context = engine.create_execution_context()
            if self._context is None:
                raise self._failure()
            self._choose_profile(batch)
            names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
            self._outputs = {name: self._bind(name) for name in names if name != "images"}
            self._images = self._bind_images()
            self._frame()  # the first run takes memory, which a graph cannot
            self._stream.wait()
            self._graph = self._stream.record(self._frame)
        except RaudoError:
            self.close()
            raise

    def _failure(self) -> EngineError:
        return EngineError(
            f"the engine does not run: {self._log.reason()}", hint=cuda.HINTS[cuda.MEMORY_ERROR]
        )

    def _choose_profile(self, batch: int) -> None:
        shape = tuple(self._engine.get_tensor_shape("images"))
        if shape[0] != -1:
            _check_batch(batch, shape[0], shape[0])
            return
        ranges = []
        for number in range(self._engine.num_optimization_profiles):
            least, _, most = self._engine.get_tensor_profile_shape("images", number)
            ranges.append((least[0], most[0]))
            if least[0] <= batch <= most[0]:
                if number:
                    self._context.set_optimization_profile_async(number, self._stream.address)
                    self._stream.wait()
                self._context.set_input_shape("images", (batch, *shape[1:]))
                return
        _check_batch(batch, min(least for least, _ in ranges), max(most for _, most in ranges))

    def _layout(self, name: str) -> tuple[str, tuple[int, ...]]:
        kind = self._engine.get_tensor_dtype(name).name
        return kind, tuple(self._context.get_tensor_shape(name))

    def _bind_images(self) -> int:
        kind, shape = self._layout("images")
        if kind != "UINT8" or math.prod(shape) != self._memory.size:
            raise _breach("images", kind, shape)
        address = self._stream.memory(self._memory.size)
        self._context.set_tensor_address("images", address)
        return address

    def _bind(self, name: str) -> cuda.Tensor:
        kind, shape = self._layout(name)
        if kind not in DTYPES or min(shape, default=1) < 0:
            raise _breach(name, kind, shape)
        tensor = self._stream.tensor(shape, DTYPES[kind])
        self._context.set_tensor_address(name, tensor.device)
        return tensor

    def _frame(self) -> None:
        self._infer()
        for tensor in self._outputs.values():
            self._stream.download(tensor)

    def _infer(self) -> None:
        if not self._context.execute_async_v3(self._stream.address):
            raise self._failure()

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Run a batch, which may be short; the outputs hold until the next run."""
        count = len(images)
        held = self._memory.hold(images)
        self._stream.upload(held, self._images)
        self._stream.launch(self._graph)
        self._stream.wait()
        found = {name: tensor.array[:count] for name, tensor in self._outputs.items()}
        return Outputs(found["boxes"], found["scores"], found.get("labels"))

    def time(self, images: NDArray[np.uint8], runs: int) -> tuple[float, ...]:
        """Time the network without its copies on the GPU's clock; returns seconds of each run."""
        self.run(images)
        return self._stream.time(self._stream.record(self._infer), runs)

    def profile(self, images: NDArray[np.uint8], runs: int) -> dict[str, float]:
        """Return the least milliseconds of each layer; the lane only serves for this then."""
        best: dict[str, float] = {}
        base = self._trt.IProfiler

        class Profiler(base):  # type: ignore[misc,valid-type]  # known once the module is loaded
            def __init__(self) -> None:
                base.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                best[layer_name] = min(ms, best.get(layer_name, float("inf")))

        self.run(images)
        self._profiler = Profiler()
        self._context.profiler = self._profiler
        self._context.enqueue_emits_profile = False  # else 8.6 is silent where branches part
        for _ in range(runs):
            self._infer()
            self._stream.wait()
            self._context.report_to_profiler()
        return best

    def layers(self) -> list[dict[str, Any]]:
        """Return what the library tells of the engine's layers; [] if it tells nothing."""
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = self._context
        return read_layers(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def close(self) -> None:
        """Free what it took."""
        self._context = self._engine = None
        self._stream.close()


def _breach(name: str, kind: str, shape: tuple[int, ...]) -> EngineError:
    return EngineError(
        f"the engine's tensor {name} is {kind} {list(shape)}, which breaks the contract",
        hint="make it again with 'raudo export'",
    )


def _check_batch(batch: int, least: int, most: int) -> None:
    if not least <= batch <= most:
        raise EngineError(
            f"the engine takes {least} to {most} images at a time, not {batch}",
            hint="choose another batch size",
        )


def read_layers(text: str) -> list[dict[str, Any]]:
    """Read the inspector's JSON; layers without details are left out.

    Source: TensorRT developer guide, "Engine inspector". Version 8.6 puts U+001E between the names
    of what a layer was fused from, as it is, which JSON does not allow.
    """
    try:
        told = json.loads(text, strict=False)
    except ValueError:
        return []
    layers = told.get("Layers", []) if isinstance(told, dict) else []
    return [layer for layer in layers if isinstance(layer, dict) and "Name" in layer]


def audit_layers(layers: list[dict[str, Any]]) -> PrecisionAudit:
    """Count the layers that compute most by the precision of what they read."""
    from raudo.records import PrecisionAudit

    found = Counter(layer_precision(layer) for layer in layers if _is_heavy(layer))
    known = {precision: count for precision, count in found.items() if precision}
    return PrecisionAudit(
        found=known,
        providers={"GPU": len(layers)},
        per_node=bool(known),
        note="" if known else "the engine's inspector tells no layer's precision",
    )


def _is_heavy(layer: dict[str, Any]) -> bool:
    kinds = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}".lower()
    return any(word in kinds for word in HEAVY_WORDS)


def layer_precision(layer: dict[str, Any]) -> str:
    """Return the precision that a layer computes in, "" where it does not tell."""
    formats = " ".join(
        str(tensor.get("Format/Datatype", "")) for tensor in layer.get("Inputs", [])[:1]
    ).lower()
    found = next((FORMAT_WORDS[word] for word in FORMAT_WORDS if word in formats), "")
    if found == "fp32" and "tf32" in str(layer.get("TacticName", "")).lower():
        return "tf32"
    return found
