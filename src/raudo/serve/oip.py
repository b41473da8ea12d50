"""The Open Inference Protocol, version 2, without a transport: what tensors mean here.

A request has one input: `images`, the uint8 tensor of the engine's contract, or `encoded`, BYTES
that hold whole image files. It gets the engine's own outputs for the first, and detections for the
second, unless it names what it wants. `detections` is FP32 [n, most found, 6]: left, top, right,
bottom, score and label; rows that an image does not fill have the label -1.

Source: https://github.com/kserve/open-inference-protocol, `inference_rest.md`.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, ValidationError

import raudo
from raudo.config import Settings
from raudo.detector import Selection
from raudo.errors import first_problem
from raudo.serve.errors import BadRequestError, NotFoundError, NotReadyError
from raudo.serve.records import InferRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from raudo.serve.core import Service
    from raudo.serve.records import ModelVersion, Reply

IMAGES, ENCODED, DETECTIONS = "images", "encoded", "detections"
DATATYPES = {"|u1": "UINT8", "<f4": "FP32", "<i4": "INT32", "<i8": "INT64"}
"""By NumPy's `dtype.str`: its `dtype.name` takes ten microseconds."""
EXTENSIONS = ("binary_tensor_data", "model_configuration", "statistics")
MAX_DIMENSIONS = 8
LENGTH = struct.Struct("<I")
"""What stands before each element of a binary BYTES tensor."""


class Parameters(Settings):
    """The parameters of a request that mean something here; others are ignored."""

    confidence: Annotated[float, Field(ge=0, le=1)] = 0.25
    iou: Annotated[float, Field(ge=0, le=1)] | None = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 300
    timeout: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Microseconds until which an engine must have taken it; 0: no own"
    )

    @property
    def selection(self) -> Selection:
        """What becomes a detection."""
        return Selection(confidence=self.confidence, iou=self.iou, limit=self.limit)


@dataclass(frozen=True)
class Tensor:
    """One input as it came.

    Attributes:
        name: Its name.
        datatype: In the protocol's words.
        shape: Its shape, nothing checked yet.
        data: Bytes as in the binary extension, or a list as JSON has it.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: memoryview | bytes | Sequence[Any]


@dataclass(frozen=True)
class Ask:
    """A request as it came, whatever carried it.

    Attributes:
        id: Request id.
        inputs: Its inputs.
        outputs: Names of the outputs that are wanted; empty: the usual ones.
        parameters: The request's own.
        version: The version that is asked; None: any.
    """

    id: str
    inputs: Sequence[Tensor]
    outputs: tuple[str, ...] = ()
    parameters: Mapping[str, object] = field(default_factory=dict)
    version: str | None = None


def to_request(ask: Ask) -> tuple[InferRequest, tuple[str, ...]]:
    """Return what the core takes, and the names of the outputs that are wanted.

    Raises:
        BadRequestError: It makes no sense.
    """
    if len(ask.inputs) != 1 or ask.inputs[0].name not in {IMAGES, ENCODED}:
        raise BadRequestError(
            "a request has one input", hint=f"send '{IMAGES}' (UINT8) or '{ENCODED}' (BYTES)"
        )
    (tensor,) = ask.inputs
    known = {name: ask.parameters[name] for name in Parameters.model_fields & ask.parameters.keys()}
    try:
        parameters = Parameters.model_validate(known)
    except ValidationError as error:
        raise BadRequestError(f"parameters.{first_problem(error)}") from error
    raw = tensor.name == IMAGES
    images = read_pixels(tensor) if raw else read_elements(tensor)
    wanted = ask.outputs
    detections = DETECTIONS in wanted or (not wanted and not raw)
    request = InferRequest(
        images=images,
        id=ask.id,
        raw=bool(set(wanted) - {DETECTIONS}) or (not wanted and raw),
        selection=parameters.selection if detections else None,
        timeout=parameters.timeout / 1e6 or None,
        version=ask.version or None,
    )
    return request, wanted


def _count(tensor: Tensor, datatype: str) -> int:
    shape = tensor.shape
    if tensor.datatype != datatype:
        raise BadRequestError(f"'{tensor.name}' is {datatype}, not {tensor.datatype[:20]!r}")
    if not 1 <= len(shape) <= MAX_DIMENSIONS or min(shape) < 0:
        raise BadRequestError(f"'{tensor.name}' has an impossible shape")
    return prod(shape)


def read_pixels(tensor: Tensor) -> NDArray[np.uint8]:
    """Return a UINT8 tensor as an array; a view where it came as bytes.

    Raises:
        BadRequestError: Type, shape and data do not fit each other.
    """
    count = _count(tensor, "UINT8")
    if isinstance(tensor.data, bytes | memoryview):
        values = np.frombuffer(tensor.data, np.uint8)
    else:
        values = _from_list(tensor.data)
    if values.size != count:
        raise BadRequestError(
            f"'{tensor.name}' has {values.size} values, and a shape of {count}",
        )
    return values.reshape(tensor.shape)


def _from_list(data: Sequence[Any]) -> NDArray[np.uint8]:
    try:
        values = np.asarray(data)
    except (ValueError, OverflowError) as error:
        raise BadRequestError("the data is no even list of numbers") from error
    if not values.size:
        return np.empty(0, np.uint8)
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 255:
        raise BadRequestError("the data has values that are not whole numbers from 0 to 255")
    return values.astype(np.uint8).reshape(-1)


def read_elements(tensor: Tensor) -> tuple[bytes, ...]:
    """Return the elements of a BYTES tensor; in JSON they are base64.

    Raises:
        BadRequestError: Type, shape and data do not fit each other.
    """
    count = _count(tensor, "BYTES")
    if isinstance(tensor.data, bytes | memoryview):
        elements = _split(bytes(tensor.data))
    else:
        elements = tuple(decode_base64(text) for text in _flat(tensor.data))
    if len(elements) != count:
        raise BadRequestError(
            f"'{tensor.name}' has {len(elements)} elements, and a shape of {count}"
        )
    return elements


def _flat(data: Iterable[Any]) -> Iterator[Any]:
    for each in data:
        if isinstance(each, list):
            yield from _flat(each)
        else:
            yield each


def _split(data: bytes) -> tuple[bytes, ...]:
    elements, place = [], 0
    while place < len(data):
        head = data[place : place + LENGTH.size]
        place += LENGTH.size
        size = LENGTH.unpack(head)[0] if len(head) == LENGTH.size else len(data)
        if place + size > len(data):
            raise BadRequestError("a BYTES element is longer than the tensor")
        elements.append(data[place : place + size])
        place += size
    return tuple(elements)


def decode_base64(text: object) -> bytes:
    """Decode base64 text.

    Raises:
        BadRequestError: It is none.
    """
    if not isinstance(text, str):
        raise BadRequestError("BYTES in JSON are strings of base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequestError("the text is no base64") from error


def outputs_of(reply: Reply, wanted: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Return the outputs that were wanted, by name, in the order they were asked for.

    Raises:
        BadRequestError: The engine that answered has no such output.
    """
    found: dict[str, NDArray[Any]] = {}
    if reply.outputs is not None:
        found = {name: v for name, v in vars(reply.outputs).items() if v is not None}
    if reply.detections:
        found[DETECTIONS] = _rows(reply)
    _only(wanted, found)
    return {name: found[name] for name in wanted or found}


def check_outputs(version: ModelVersion, wanted: Sequence[str]) -> None:
    """Refuse, before an engine works for it, a request for what there is not.

    Raises:
        BadRequestError: The version has no such output.
    """
    if wanted:
        _only(wanted, (*version.outputs, DETECTIONS))


def _only(wanted: Sequence[str], outputs: Iterable[str]) -> None:
    if unknown := set(wanted).difference(outputs):
        raise BadRequestError(f"the model has no output {min(unknown)[:40]!r}")


def _rows(reply: Reply) -> NDArray[np.float32]:
    most = max(map(len, reply.detections))
    rows = np.zeros((len(reply.detections), most, 6), np.float32)
    rows[:, :, 5] = -1
    for row, found in zip(rows, reply.detections, strict=True):
        count = len(found)
        row[:count, :4], row[:count, 4], row[:count, 5] = found.boxes, found.scores, found.labels
    return rows


def model(service: Service, name: str, version: str = "") -> ModelVersion:
    """Return a version of the served model; without a number, the primary.

    Raises:
        NotFoundError: There is none.
        NotReadyError: No engine is loaded yet.
    """
    if name != service.model:
        raise NotFoundError(f"there is no model {name[:40]!r}", hint=f"it is {service.model!r}")
    versions = service.models()
    if not versions:
        raise NotReadyError("no engine is loaded")
    for loaded in versions:
        if version in {"", loaded.version}:
            return loaded
    raise NotFoundError(f"there is no version {version[:40]!r} of {name!r}")


def tensors(version: ModelVersion) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return name, datatype and shape of all inputs and of all outputs; -1 may be any number."""
    heights, widths = zip(*(rectangle.size for rectangle in version.rectangles), strict=True)
    height, width = (sides[0] if len(set(sides)) == 1 else -1 for sides in (heights, widths))
    inputs = [
        {"name": IMAGES, "datatype": "UINT8", "shape": [-1, height, width, 3]},
        {"name": ENCODED, "datatype": "BYTES", "shape": [-1]},
    ]
    outputs = [
        {"name": name, "datatype": DATATYPES[dtype], "shape": [-1, *shape]}
        for name, (dtype, shape) in version.outputs.items()
    ]
    outputs.append({"name": DETECTIONS, "datatype": "FP32", "shape": [-1, -1, 6]})
    return inputs, outputs


def server() -> dict[str, Any]:
    """Return what the protocol calls the metadata of the server."""
    return {"name": "raudo", "version": raudo.__version__, "extensions": list(EXTENSIONS)}


def metadata(service: Service, version: ModelVersion) -> dict[str, Any]:
    """Return what the protocol calls the metadata of a model."""
    inputs, outputs = tensors(version)
    return {
        "name": service.model,
        "versions": [loaded.version for loaded in service.models()],
        "platform": f"raudo_{version.artifact.manifest.backend}",
        "inputs": inputs,
        "outputs": outputs,
    }


def configuration(service: Service, version: ModelVersion) -> dict[str, Any]:
    """Return the model configuration: the fields of Triton's that have a meaning here."""
    inputs, outputs = tensors(version)
    manifest = version.artifact.manifest
    described = {
        "classes": json.dumps(list(version.spec.classes)),
        "rectangles": json.dumps([rectangle.size for rectangle in version.rectangles]),
        "engine": manifest.name,
        "precision": manifest.precision,
        "variant": version.variant,
        "run": version.run or "",
    }
    return {
        "name": service.model,
        "platform": f"raudo_{manifest.backend}",
        "backend": manifest.backend,
        "max_batch_size": version.max_batch,
        "input": [_configured(tensor, optional=True) for tensor in inputs],
        "output": [_configured(tensor) for tensor in outputs],
        "dynamic_batching": {
            "max_queue_delay_microseconds": round(service.limits.max_delay * 1e6),
            "default_queue_policy": {
                "max_queue_size": service.limits.queue,
                "default_timeout_microseconds": round(service.limits.timeout * 1e6),
            },
        },
        "parameters": {name: {"string_value": value} for name, value in described.items()},
    }


def statistics(service: Service, version: str = "") -> dict[str, Any]:
    """Return what a version did, or what all that are loaded did."""
    return {
        "model_stats": [
            service.statistics.as_json(service.model, loaded.version)
            for loaded in service.models()
            if version in {"", loaded.version}
        ]
    }


def _configured(tensor: dict[str, Any], **more: object) -> dict[str, Any]:
    """Describe a tensor as a configuration does: without the batch."""
    datatype = "STRING" if tensor["datatype"] == "BYTES" else tensor["datatype"]
    dims = tensor["shape"][1:] or [1]
    return {"name": tensor["name"], "data_type": f"TYPE_{datatype}", "dims": dims, **more}
