"""Writes TFLite files: tensors, operators, and the table of contents around them.

Schema: https://github.com/google-ai-edge/LiteRT/blob/main/tflite/converter/schema/schema.fbs
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SIGNATURE = "serving_default"
IDENTIFIER = b"TFL3"
ALIGNMENT = 16
"""Bytes; what kernels like their weights to be aligned to."""


@dataclass(frozen=True)
class Stored:
    """A tensor in the file.

    Attributes:
        index: Its number.
        shape: As stored.
        last: Whether it has its channels last while in ONNX they come second.
    """

    index: int
    shape: tuple[int, ...]
    last: bool = False


class TfliteFile:
    """A file in the making.

    Args:
        schema: The module generated from TFLite's schema.
    """

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self.scope = ""
        """Prefix of the names of the tensors that are added."""
        self._types = {
            np.dtype(np.float32): schema.TensorType.FLOAT32,
            np.dtype(np.uint8): schema.TensorType.UINT8,
            np.dtype(np.int32): schema.TensorType.INT32,
        }
        self._tensors: list[Any] = []
        self._buffers: list[Any] = [schema.BufferT()]  # the first is empty, by convention
        self._operators: list[Any] = []
        self._codes: list[int] = []

    def tensor(self, shape: Iterable[int], kind: Any = np.float32, data: Any = None) -> Stored:
        """Add a tensor; `data` are the values of a constant one."""
        tensor = self.schema.TensorT()
        tensor.name, tensor.type = f"{self.scope}/{len(self._tensors)}", self._types[np.dtype(kind)]
        tensor.shape = np.array(list(shape), np.int32)
        if data is not None:
            tensor.buffer = len(self._buffers)
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self._buffers.append(buffer)
        self._tensors.append(tensor)
        return Stored(len(self._tensors) - 1, tuple(tensor.shape.tolist()))

    def constant(self, values: Any, kind: Any = np.float32) -> Stored:
        """Add a constant."""
        array = np.asarray(values, kind)
        return self.tensor(array.shape, kind, array)

    def is_float(self, tensor: Stored) -> bool:
        """Tell whether a tensor is of float32."""
        found: bool = self._tensors[tensor.index].type == self.schema.TensorType.FLOAT32
        return found

    def emit(
        self,
        operator: str,
        inputs: Iterable[Stored],
        shape: Iterable[int],
        table: str = "",
        **options: Any,
    ) -> Stored:
        """Add an operator, and return its output, of float32.

        Args:
            operator: Its name in the schema.
            inputs: Its tensors.
            shape: Of its output, as stored.
            table: Name of its table of options in the schema.
            options: Fields of that table.
        """
        code = getattr(self.schema.BuiltinOperator, operator)
        if code not in self._codes:
            self._codes.append(code)
        output = self.tensor(shape)
        added = self.schema.OperatorT()
        added.opcodeIndex = self._codes.index(code)
        added.inputs = np.array([tensor.index for tensor in inputs], np.int32)
        added.outputs = np.array([output.index], np.int32)
        if table:
            added.builtinOptionsType = getattr(self.schema.BuiltinOptions, table)
            added.builtinOptions = getattr(self.schema, f"{table}T")()
            for field, value in options.items():
                setattr(added.builtinOptions, field, value)
        self._operators.append(added)
        return output

    def pack(self, inputs: Mapping[str, Stored], outputs: Mapping[str, Stored]) -> bytes:
        """Return the content of the file, with inputs and outputs to be found by name."""
        schema = self.schema
        graph, model, names = schema.SubGraphT(), schema.ModelT(), schema.SignatureDefT()
        graph.name, names.signatureKey = b"main", SIGNATURE
        graph.tensors, graph.operators = self._tensors, self._operators
        graph.inputs = np.array([tensor.index for tensor in inputs.values()], np.int32)
        graph.outputs = np.array([tensor.index for tensor in outputs.values()], np.int32)
        names.inputs, names.outputs = self._named(inputs), self._named(outputs)
        model.version, model.description = 3, b"raudo"
        model.subgraphs, model.buffers, model.signatureDefs = [graph], self._buffers, [names]
        model.operatorCodes = []
        for number in self._codes:
            code = schema.OperatorCodeT()
            code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
            model.operatorCodes.append(code)
        return _serialize(model)

    def _named(self, tensors: Mapping[str, Stored]) -> Sequence[Any]:
        named = []
        for name, tensor in tensors.items():
            entry = self.schema.TensorMapT()
            entry.name, entry.tensorIndex = name, tensor.index
            named.append(entry)
        return named


def _serialize(model: Any) -> bytes:
    import flatbuffers

    class Builder(flatbuffers.Builder):  # type: ignore[misc]
        def StartVector(self, size: int, count: int, alignment: int) -> Any:  # noqa: N802
            return super().StartVector(size, count, max(alignment, ALIGNMENT))

    builder = Builder(1 << 20)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())
