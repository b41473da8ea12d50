"""Calls of the Open Inference Protocol over gRPC that are made to hurt, as their bytes."""

from __future__ import annotations

import math
import struct
from typing import Any

from hostile_images import MEBIBYTE, encoded
from hostile_requests import BYTES, SIDE
from raudo.serve.grpc import messages

MAX_INT64 = 2**63 - 1


def call(
    name: str = "images",
    shape: tuple[int, ...] = (1, SIDE, SIDE, 3),
    datatype: str = "UINT8",
    raw: tuple[bytes, ...] = (bytes(BYTES),),
    **fields: Any,
) -> bytes:
    """A ModelInfer call; an honest one, unless told otherwise."""
    request = messages()["ModelInferRequest"](
        **{"model_name": "detector", "raw_input_contents": raw} | fields
    )
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    return bytes(request.SerializeToString())


def of_image(image: bytes) -> bytes:
    """A call with one encoded image among the raw contents."""
    return call("encoded", (1,), "BYTES", (struct.pack("<I", len(image)) + image,))


def typed(kind: str, values: list[Any], datatype: str = "UINT8") -> bytes:
    """A call whose numbers stand in the typed contents."""
    request = messages()["ModelInferRequest"].FromString(call(datatype=datatype, raw=()))
    getattr(request.inputs[0].contents, kind).extend(values)
    return bytes(request.SerializeToString())


def with_parameter(**value: Any) -> bytes:
    request = messages()["ModelInferRequest"].FromString(call())
    ((kind, given),) = value.items()
    setattr(request.parameters["timeout"], kind, given)
    return bytes(request.SerializeToString())


def hostile_calls() -> dict[str, bytes]:
    """ModelInfer calls that lie, by what is wrong with them."""
    jpeg, honest = encoded("JPEG"), call()
    return {
        "no message at all": b"\xff" * 100,
        "half a message": honest[: len(honest) // 2],
        "a field of endless length": b"\x0a\xff\xff\xff\xff\x0f",
        "100,000 groups in each other": b"\x0b" * 100_000,
        "text that is no UTF-8": b"\x0a\x02\xff\xfe",
        "nothing": b"",
        "a model of another place": call(model_name="../../../../etc/passwd"),
        "a model with a NUL": call(model_name="detector\0"),
        "a model of a million letters": call(model_name="a" * MEBIBYTE),
        "a version that climbs": call(model_version="../1"),
        "a version of -1": call(model_version="-1"),
        "a version beyond 64 bits": call(model_version="9" * 30),
        "a negative shape": call(shape=(-1, SIDE, SIDE, 3)),
        "a shape of 0 images": call(shape=(0, SIDE, SIDE, 3), raw=(b"",)),
        "a shape of no dimensions": call(shape=()),
        "a shape of 1000 dimensions": call(shape=(1,) * 1000),
        "a shape that overflows": call(shape=(MAX_INT64, MAX_INT64, MAX_INT64, 3)),
        "a shape of another size": call(shape=(1, 32, 128, 3)),
        "a shape of fewer bytes": call(raw=(bytes(BYTES - 1),)),
        "a shape of more bytes": call(raw=(bytes(BYTES + 1),)),
        "an unknown type": call(datatype="COMPLEX128"),
        "floats": call(datatype="FP32", raw=(bytes(BYTES * 4),)),
        "no type": call(datatype=""),
        "an unknown input": call(name="picture"),
        "an input of another place": call(name="../images"),
        "raw contents for two inputs": call(raw=(bytes(BYTES), bytes(BYTES))),
        "no contents": call(raw=()),
        "an unknown output": call(outputs=[{"name": "masks"}]),
        "a thousand outputs": call(outputs=[{"name": f"a{n}"} for n in range(1000)]),
        "numbers out of range": typed("uint_contents", [300] * BYTES),
        "numbers of another type": typed("fp32_contents", [math.nan] * BYTES),
        "text for pixels": typed("bytes_contents", [b"a"] * BYTES),
        "NaN as floats": typed("fp32_contents", [math.nan] * BYTES, "FP32"),
        "a negative timeout": with_parameter(int64_param=-1),
        "a timeout of NaN": with_parameter(double_param=math.nan),
        "an endless timeout": with_parameter(double_param=math.inf),
        "a timeout of words": with_parameter(string_param="soon"),
        "bytes of no image": of_image(b"nope"),
        "bytes longer than they are": call(
            "encoded", (1,), "BYTES", (struct.pack("<I", 2**32 - 1) + jpeg,)
        ),
        "bytes without a length": call("encoded", (1,), "BYTES", (b"\x01\x02",)),
        "fewer images than the shape": call(
            "encoded", (2,), "BYTES", (struct.pack("<I", len(jpeg)) + jpeg,)
        ),
        "a thousand empty images": call("encoded", (1000,), "BYTES", (bytes(4000),)),
        "25 MiB": call(raw=(bytes(25 * MEBIBYTE),)),
    }
