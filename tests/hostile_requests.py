"""Requests that are made to hurt: wrong tensors, forms, paths, lengths, and HTTP that is none."""

from __future__ import annotations

import base64
import gzip
import json
import struct
from typing import Any

from hostile_images import MEBIBYTE, encoded

INFER = "/v2/models/detector/infer"
DETECT = "/v1/detect"
SIDE = 64
BYTES = SIDE * SIDE * 3


def request(
    path: str, body: bytes, kind: str = "image/jpeg", method: str = "POST", **headers: str
) -> bytes:
    """A whole request; its connection ends with the answer."""
    given = {"Host": "127.0.0.1", "Connection": "close", "Content-Type": kind}
    given |= {"Content-Length": str(len(body))}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("utf-8", "surrogateescape") + body


def tensor(**changes: Any) -> dict[str, Any]:
    """The one input of an inference request, with changes."""
    honest = {"name": "images", "shape": [1, SIDE, SIDE, 3], "datatype": "UINT8"}
    return honest | {"parameters": {"binary_data_size": BYTES}} | changes


def infer(asked: Any, pixels: bytes = bytes(BYTES), length: str | None = None) -> bytes:
    """An inference request of the binary extension: its JSON, then the tensors' bytes."""
    header = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    return request(
        INFER,
        header + pixels,
        "application/octet-stream",
        Inference_Header_Content_Length=str(len(header)) if length is None else length,
    )


def of_shape(shape: Any, pixels: bytes = bytes(BYTES)) -> bytes:
    return infer({"inputs": [tensor(shape=shape)]}, pixels)


def of_bytes(data: bytes, shape: Any = (1,)) -> bytes:
    """An inference request of encoded images, each with its length before it."""
    sized = {"binary_data_size": len(data)}
    given = tensor(name="encoded", datatype="BYTES", shape=shape, parameters=sized)
    return infer({"inputs": [given]}, data)


def with_data(data: Any, **changes: Any) -> bytes:
    """An inference request whose numbers stand in the JSON."""
    given = tensor(data=data, **changes)
    del given["parameters"]
    body = json.dumps({"inputs": [given]}).encode()
    return request(INFER, body, "application/json")


def asked_json(text: str | bytes) -> bytes:
    body = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return request(INFER, body, "application/json")


def hostile_tensors() -> dict[str, bytes]:
    """Inference requests that lie about their tensors."""
    jpeg = encoded("JPEG")
    nan_shape = json.dumps({"inputs": [tensor(shape=[1, float("nan"), SIDE, 3])]}).encode()
    size = {"parameters": {"binary_data_size": 0}}
    return {
        "a shape with NaN": infer(nan_shape),
        "a shape with infinity": infer(nan_shape.replace(b"NaN", b"1e999")),
        "a negative shape": of_shape([-1, SIDE, SIDE, 3]),
        "a shape of 0 images": of_shape([0, SIDE, SIDE, 3], b""),
        "a shape of fractions": of_shape([1.0, 64.5, SIDE, 3]),
        "a shape of truths": of_shape([True, SIDE, SIDE, 3]),
        "a shape of words": of_shape(["1", "64", "64", "3"]),
        "a shape that is none": of_shape("1,64,64,3"),
        "a shape of no dimensions": of_shape([]),
        "a shape of 1000 dimensions": of_shape([1] * 1000),
        "a shape that overflows": of_shape([2**62, 4, 1, 1]),
        "a shape beyond 64 bits": of_shape([10**30, SIDE, SIDE, 3]),
        "a shape of 4 billion images": of_shape([2**32, SIDE, SIDE, 3]),
        "a shape of another size": of_shape([1, 32, 128, 3]),
        "an unknown type": infer({"inputs": [tensor(datatype="COMPLEX128")]}),
        "a type that is no word": infer({"inputs": [tensor(datatype=8)]}),
        "floats": infer({"inputs": [tensor(datatype="FP32")]}, bytes(BYTES * 4)),
        "an unknown input": infer({"inputs": [tensor(name="picture")]}),
        "an input twice": infer({"inputs": [tensor(), tensor()]}, bytes(BYTES * 2)),
        "no inputs": infer({"inputs": []}),
        "inputs that are none": infer({"inputs": "images"}),
        "an unknown output": infer({"inputs": [tensor()], "outputs": [{"name": "masks"}]}),
        "outputs that are none": infer({"inputs": [tensor()], "outputs": {"name": "boxes"}}),
        "parameters that are none": infer({"inputs": [tensor()], "parameters": [1]}),
        "a timeout of NaN": infer({"inputs": [tensor()], "parameters": {"timeout": float("nan")}}),
        "a negative timeout": infer({"inputs": [tensor()], "parameters": {"timeout": -1}}),
        "too few bytes": of_shape([1, SIDE, SIDE, 3], bytes(BYTES - 1)),
        "too many bytes": of_shape([1, SIDE, SIDE, 3], bytes(BYTES + 1)),
        "a size of 0": infer({"inputs": [tensor() | size]}),
        "a negative size": infer({"inputs": [tensor(parameters={"binary_data_size": -5})]}),
        "a size of 10^30": infer({"inputs": [tensor(parameters={"binary_data_size": 10**30})]}),
        "a size of words": infer({"inputs": [tensor(parameters={"binary_data_size": "all"})]}),
        "a header longer than all": infer({"inputs": [tensor()]}, length="999999999"),
        "a header of -1": infer({"inputs": [tensor()]}, length="-1"),
        "a header of words": infer({"inputs": [tensor()]}, length="ten"),
        "a header in the middle": infer({"inputs": [tensor()]}, length="10"),
        "no JSON at all": infer(b"\x00\xff\xfe"),
        "bytes of no image": of_bytes(struct.pack("<I", 4) + b"nope"),
        "bytes longer than they are": of_bytes(struct.pack("<I", 2**32 - 1) + jpeg),
        "bytes without a length": of_bytes(b"\x01\x02"),
        "fewer bytes than the shape": of_bytes(struct.pack("<I", len(jpeg)) + jpeg, [2]),
        "more bytes than the shape": of_bytes((struct.pack("<I", len(jpeg)) + jpeg) * 2),
        "a thousand images": of_bytes(struct.pack("<I", 0) * 1000, [1000]),
        "numbers out of range": with_data([300] * BYTES),
        "negative numbers": with_data([-1] * BYTES),
        "fractions": with_data([0.5] * BYTES),
        "words for numbers": with_data(["a"] * BYTES),
        "too few numbers": with_data([1, 2, 3]),
        "numbers in 50 lists": with_data(nested(50)),
        "text for bytes": with_data(["no base64!"], name="encoded", datatype="BYTES", shape=[1]),
        "text of no image": with_data(["AAAA"], name="encoded", datatype="BYTES", shape=[1]),
        "numbers for bytes": with_data([1], name="encoded", datatype="BYTES", shape=[1]),
        "JSON 100,000 deep": asked_json("[" * 100_000 + "]" * 100_000),
        "JSON that ends early": asked_json('{"inputs": ['),
        "JSON with NaN": asked_json('{"inputs": NaN}'),
        "JSON of a list": asked_json("[1]"),
        "JSON of null": asked_json("null"),
        "JSON of one huge number": asked_json("1" * 100_000),
        "JSON of wrong UTF-8": asked_json(b'{"inputs": "\xff\xfe"}'),
        "JSON with half a character": asked_json('{"id": "\ud800", "inputs": []}'),
        "an empty JSON": asked_json("{}"),
        "an empty body": asked_json(""),
    }


def nested(depth: int) -> Any:
    data: Any = [1]
    for _ in range(depth):
        data = [data]
    return data


def form(*parts: tuple[str, bytes], boundary: str = "x", end: str = "--x--\r\n") -> bytes:
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: {header}\r\n\r\n".encode() + data + b"\r\n"
        for header, data in parts
    )
    return request(DETECT, body + end.encode(), f"multipart/form-data; boundary={boundary}")


def hostile_uploads() -> dict[str, bytes]:
    """What people might send to detect in, and should not."""
    jpeg = encoded("JPEG")
    file = 'form-data; name="image"; filename="a.jpg"'
    escaping = 'form-data; name="other"; filename="../../../../etc/cron.d/x"'

    def in_json(value: Any) -> bytes:
        return request(DETECT, json.dumps(value).encode(), "application/json")

    def packed(how: str) -> bytes:
        return request(DETECT, gzip.compress(bytes(64 * MEBIBYTE)), Content_Encoding=how)

    return {
        "a form without parts": form(),
        "a form without its end": form((file, jpeg), end=""),
        "a form without a boundary": request(DETECT, jpeg, "multipart/form-data"),
        "a form of another boundary": request(DETECT, jpeg, "multipart/form-data; boundary=y"),
        "a form with a file that climbs": form((escaping, b"../../x")),
        "a form with text for an image": form(('form-data; name="image"', b"a.jpg")),
        "a form of 5000 parts": form(*[(f'form-data; name="a{n}"', b"1") for n in range(5000)]),
        "a form with a header of 1 MB": form((file + "; x=" + "y" * MEBIBYTE, jpeg)),
        "JSON without an image": in_json({}),
        "JSON with a number for an image": in_json({"image": 7}),
        "JSON with no base64": in_json({"image": "@@@@"}),
        "JSON with base64 of no image": in_json({"image": base64.b64encode(b"x" * 99).decode()}),
        "JSON with an address": in_json({"image": "http://127.0.0.1:1/a.jpg"}),
        "JSON with a file": in_json({"image": "file:///etc/passwd"}),
        "JSON with a list": in_json([1, 2]),
        "text": request(DETECT, jpeg, "text/plain"),
        "no type": request(DETECT, jpeg, ""),
        "a gzip body": packed("gzip"),
        "a br body": packed("br"),
        "a body of 21 MiB": request(DETECT, bytes(21 * MEBIBYTE)),
        "a confidence of NaN": request(DETECT + "?confidence=nan", jpeg),
        "a confidence of 1e999": request(DETECT + "?confidence=1e999", jpeg),
        "a confidence of words": request(DETECT + "?confidence=high", jpeg),
        "a wrong method": request(DETECT, b"", method="DELETE"),
    }


def hostile_paths() -> dict[str, bytes]:
    """Paths that look for files, or for models that are none."""
    names = (
        "/v2/models/../../../../etc/passwd",
        "/v2/models/..%2f..%2f..%2fetc%2fpasswd",
        "/v2/models/%2e%2e/%2e%2e/etc/passwd/ready",
        "/v2/models/model%00/ready",
        "/v2/models/" + "a" * 5000,
        "/v2/models/%ff%fe/ready",
        "/v2/models/detector/versions/99999999999999999999999999/ready",
        "/v2/models/detector/versions/-1/ready",
        "/v2/models/detector/versions/..%2f1/ready",
        "/v2/models/C:%5cwindows/ready",
        "/v2/models//ready",
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/static/../../../etc/passwd",
        "/static/..%2f..%2f..%2fetc%2fpasswd",
        "/.git/config",
    )
    return {name[:50]: request(name, b"", method="GET") for name in names}


def broken_http() -> dict[str, bytes]:
    """What is no honest HTTP/1.1 (RFC 9112); any answer but a 5xx will do, and so will none."""
    start = f"POST {DETECT} HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\n".encode()
    chunked = start + b"Transfer-Encoding: chunked\r\n"
    smuggled = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
    return {
        "a length longer than the body": start + b"Content-Length: 1000\r\n\r\nabc",
        "a length shorter than the body": start + b"Content-Length: 3\r\n\r\n" + bytes(5000),
        "a negative length": start + b"Content-Length: -1\r\n\r\nabc",
        "a length of words": start + b"Content-Length: many\r\n\r\nabc",
        "a length of 10^18": start + b"Content-Length: 1000000000000000000\r\n\r\nabc",
        "a length of 10^30": start + b"Content-Length: 1" + b"0" * 30 + b"\r\n\r\nabc",
        "two lengths": start + b"Content-Length: 3\r\nContent-Length: 50\r\n\r\nabc",
        "a length and chunks": chunked + b"Content-Length: 4\r\n\r\n0\r\n\r\n" + smuggled,
        "chunked twice over": chunked + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n" + smuggled,
        "a chunk of words": chunked + b"\r\nxyz\r\nabc\r\n0\r\n\r\n",
        "a chunk that overflows": chunked + b"\r\nffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "a negative chunk": chunked + b"\r\n-1\r\nabc\r\n0\r\n\r\n",
        "a folded header": start + b"X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
        "a space before a colon": start + b"Content-Length : 3\r\n\r\nabc",
        "a NUL in a header": start + b"X-A: a\0b\r\nContent-Length: 0\r\n\r\n",
        "a bare line feed": start.replace(b"\r\n", b"\n") + b"Content-Length: 0\n\n",
        "a header of 1 MB": start + b"X-A: " + b"a" * MEBIBYTE + b"\r\nContent-Length: 0\r\n\r\n",
        "20,000 headers": start + b"X-A: b\r\n" * 20_000 + b"Content-Length: 0\r\n\r\n",
        "a path of 1 MB": b"GET /" + b"a" * MEBIBYTE + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        "no host": b"GET /v2 HTTP/1.1\r\n\r\n",
        "HTTP/0.9": b"GET /v2\r\n\r\n",
        "HTTP/9.9": b"GET /v2 HTTP/9.9\r\nHost: a\r\n\r\n",
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(500),
        "CONNECT": b"CONNECT example.org:80 HTTP/1.1\r\nHost: example.org:80\r\n\r\n",
        "another host's address": b"GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n",
        "an upgrade": start + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "a type of noise": request(DETECT, encoded("JPEG"), "\x7f/\x7f"),
        "noise": bytes(range(256)) * 40,
    }
