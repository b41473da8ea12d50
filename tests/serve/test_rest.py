"""HTTP: what people and programs send, and what they get."""

from __future__ import annotations

import base64
import http.client
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from null_engines import null_engine
from raudo.serve import openapi
from raudo.serve.http import STATUS
from serving import served

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE = cv2.imencode(".png", np.full((100, 200, 3), 90, np.uint8))[1].tobytes()
PNG = {"Content-Type": "image/png"}
JSON = {"Content-Type": "application/json"}
INFER = "/v2/models/detector/infer"
PIXELS = bytes(64 * 64 * 3)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    engine = null_engine(tmp_path_factory.mktemp("engine") / "e.npz")
    with served(engine) as url:
        yield url.removeprefix("http://")


def call(
    address: str, method: str, path: str, body: bytes | None = None, headers: Any = None
) -> tuple[int, dict[str, str], Any]:
    connection = http.client.HTTPConnection(address, timeout=20)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        content = response.read()
        named = {name.lower(): value for name, value in response.getheaders()}
        is_json = named.get("content-type") == "application/json" and content
        return response.status, named, json.loads(content) if is_json else content
    finally:
        connection.close()


def form(*parts: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    pieces = [b"--edge\r\n" + head.encode() + b"\r\n\r\n" + body + b"\r\n" for head, body in parts]
    kind = {"Content-Type": "multipart/form-data; boundary=edge"}
    return b"".join(pieces) + b"--edge--\r\n", kind


FILE = 'Content-Disposition: form-data; name="photo"; filename="../../etc/passwd"'


def tensor(**changes: Any) -> dict[str, Any]:
    whole = {"name": "images", "datatype": "UINT8", "shape": [1, 64, 64, 3]}
    return {**whole, "parameters": {"binary_data_size": len(PIXELS)}, **changes}


def binary(content: dict[str, Any], data: bytes = PIXELS) -> tuple[bytes, dict[str, str]]:
    head = json.dumps(content).encode()
    return head + data, {"Inference-Header-Content-Length": str(len(head))}


def test_an_image_may_come_in_three_ways(address: str) -> None:
    text = json.dumps({"image": base64.b64encode(IMAGE).decode()}).encode()
    ways = [(IMAGE, PNG), form((FILE, IMAGE)), (text, JSON)]
    found = [call(address, "POST", "/v1/detect", *way)[2] for way in ways]
    assert found[0]["detections"] == found[1]["detections"] == found[2]["detections"]
    first = found[0]["detections"][0]
    assert first.keys() == {"box", "score", "label", "name"}
    assert first["name"] in {"cat", "dog"}
    assert found[0]["stages_ms"]["total"] >= found[0]["stages_ms"]["infer"]
    assert (found[0]["model"], found[0]["version"], found[0]["variant"]) == (
        "detector",
        "1",
        "primary",
    )


def test_a_client_chooses_what_is_kept(address: str) -> None:
    def count(query: str) -> int:
        return len(call(address, "POST", f"/v1/detect{query}", IMAGE, PNG)[2]["detections"])

    assert count("") == 3
    assert count("?confidence=0.9") == 1
    assert count("?limit=2") == 2
    assert count("?version=1") == 3


def test_a_request_keeps_its_id(address: str) -> None:
    _, headers, content = call(address, "POST", "/v1/detect", IMAGE, {**PNG, "X-Request-ID": "a-1"})
    assert headers["x-request-id"] == content["request_id"] == "a-1"
    _, _, content = call(address, "POST", "/v1/detect", b"", {**PNG, "X-Request-ID": "a b!"})
    assert content["request_id"] not in {"", "a b!"}


FORM = form((FILE, IMAGE))[1]


@pytest.mark.parametrize(
    ("status", "method", "path", "body", "headers"),
    [
        (400, "POST", "/v1/detect", b"", PNG),
        (400, "POST", "/v1/detect", b"no image", PNG),
        (400, "POST", "/v1/detect", IMAGE[:50], PNG),
        (400, "POST", "/v1/detect?confidence=nan", IMAGE, PNG),
        (400, "POST", "/v1/detect?confidence=2", IMAGE, PNG),
        (400, "POST", "/v1/detect?url=http://x/", IMAGE, PNG),
        (400, "POST", "/v1/detect", b"{", JSON),
        (400, "POST", "/v1/detect", b"[]", JSON),
        (400, "POST", "/v1/detect", b'{"image": "http://x/a.png"}', JSON),
        (400, "POST", "/v1/detect", b'{"image": 3}', JSON),
        (400, "POST", "/v1/detect", b"[" * 100_000, JSON),
        (400, "POST", "/v1/detect", b"x", {"Content-Type": "multipart/form-data"}),
        (400, "POST", "/v1/detect", b"--edge\r\nnothing", FORM),
        (400, "POST", "/v1/detect", *form(('Content-Disposition: form-data; name="a"', b"x"))),
        (404, "POST", "/v1/detect?version=9", IMAGE, PNG),
        (413, "POST", "/v1/detect", b'{"a": [' + b"{}," * 700_000 + b"0]}", JSON),
        (413, "POST", INFER, b'{"inputs": [' + b"0," * 2_000_001 + b"0]}", {}),
        (413, "POST", INFER, b"{" + b'"a":0,' * 10_000 + b'"b":0}', {}),
        (413, "POST", "/v1/detect", bytes((20 << 20) + 1), PNG),
        (415, "POST", "/v1/detect", IMAGE, {"Content-Type": "text/plain"}),
        (415, "POST", "/v1/detect", IMAGE, {**PNG, "Content-Encoding": "gzip"}),
        (405, "GET", "/v1/detect", None, {}),
        (404, "GET", "/nowhere", None, {}),
        (404, "GET", "/v2/models/..%2f..%2fetc", None, {}),
        (404, "GET", "/v2/models/detector/versions/2", None, {}),
        (403, "POST", "/v1/admin/swap", b"{}", JSON),
        (404, "POST", "/v2/models/other/infer", *binary({"inputs": [tensor()]})),
        (400, "POST", INFER, b"", {}),
        (400, "POST", INFER, b"{}", {}),
        (400, "POST", INFER, b"{}", {"Inference-Header-Content-Length": "9999"}),
        (400, "POST", INFER, b"{}", {"Inference-Header-Content-Length": "-1"}),
        (400, "POST", INFER, *binary({"inputs": 3})),
        (400, "POST", INFER, *binary({"inputs": [3]})),
        (400, "POST", INFER, *binary({"inputs": [tensor()], "outputs": [3]})),
        (400, "POST", INFER, *binary({"inputs": [tensor()], "outputs": [{"name": "x"}]})),
        (400, "POST", INFER, *binary({"inputs": [tensor()]}, PIXELS + b"x")),
        (400, "POST", INFER, *binary({"inputs": [tensor()]}, PIXELS[:-1])),
        (400, "POST", INFER, *binary({"inputs": [tensor(shape=[1, 64, 64, 4])]})),
        (400, "POST", INFER, *binary({"inputs": [tensor(shape=[1, 32, 128, 3])]})),
        (400, "POST", INFER, *binary({"inputs": [tensor(shape=[2**62, 2**62])]})),
        (400, "POST", INFER, *binary({"inputs": [tensor(shape=[1.5])]})),
        (400, "POST", INFER, *binary({"inputs": [tensor(datatype="FP16")]})),
        (400, "POST", INFER, *binary({"inputs": [tensor(parameters={"binary_data_size": -1})]})),
        (400, "POST", INFER, b'{"inputs": [{"shape": [NaN]}]}', {}),
    ],
)
def test_every_refusal_looks_the_same(
    address: str, status: int, method: str, path: str, body: bytes | None, headers: Any
) -> None:
    found, named, content = call(address, method, path, body, headers)
    assert (found, content.keys()) == (status, {"error", "code", "request_id", "hint"})
    assert "log" not in content["hint"]  # which no client can see
    assert STATUS[content["code"]] == status
    assert named["x-request-id"] == content["request_id"]
    assert "Traceback" not in content["error"]


def counted(address: str) -> Counter[tuple[str, str]]:
    """How many requests ended with each code, by code and method."""
    told = call(address, "GET", "/metrics")[2].decode()
    sample = re.compile(r'raudo_requests_total{code="(\w+)",method="(\w+)",variant="\w+"} (\d+)')
    found: Counter[tuple[str, str]] = Counter()
    for code, method, count in sample.findall(told):
        found[code, method] += int(count)
    return found


@pytest.mark.parametrize(
    ("code", "path", "body", "headers"),
    [
        ("ok", "/v1/detect", IMAGE, PNG),
        ("bad_request", "/v1/detect", b"no image", PNG),
        ("bad_request", "/v1/detect", b"{", JSON),
        ("unsupported_media", "/v1/detect", IMAGE, {"Content-Type": "text/plain"}),
        ("too_large", "/v1/detect", bytes((20 << 20) + 1), PNG),
        ("bad_request", INFER, *binary({"inputs": [tensor()], "outputs": [{"name": "x"}]})),
        ("bad_request", INFER, *binary({"inputs": [tensor(shape=[1, 32, 128, 3])]})),
        ("not_found", "/v2/models/other/infer", *binary({"inputs": [tensor()]})),
    ],
)
def test_each_request_is_counted_once(
    address: str, code: str, path: str, body: bytes, headers: Any
) -> None:
    before = counted(address)
    call(address, "POST", path, body, headers)
    method = "detect" if path.endswith("detect") else "infer"
    assert counted(address) - before == Counter({(code, method): 1})


def test_a_refusal_has_the_id_that_the_request_had(address: str) -> None:
    body, headers = binary({"id": "mine", "inputs": [tensor(datatype="FP16")]})
    _, named, content = call(address, "POST", INFER, body, headers)
    assert named["x-request-id"] == content["request_id"] == "mine"


@pytest.mark.parametrize("path", ["/v1/detect", INFER])
def test_the_service_lives_on_after_refusals(address: str, path: str) -> None:
    assert call(address, "GET", "/v2/health/ready")[0] == 200
    stats = call(address, "GET", "/v2/models/detector/stats")[2]["model_stats"][0]
    assert stats["inference_stats"]["success"]["count"] == stats["execution_count"]


def test_the_document_names_every_path_that_there_is(address: str) -> None:
    document = call(address, "GET", "/openapi.json")[2]
    assert document["paths"].keys() == openapi.document()["paths"].keys()
    for path, operations in document["paths"].items():
        real = path.replace("{model}", "detector").replace("{version}", "1")
        for method in operations:
            status = call(address, method.upper(), real, b"{}", JSON)[0]
            assert str(status) in operations[method]["responses"], (method, path, status)


def test_the_document_refers_to_what_it_defines() -> None:
    document = openapi.document()
    referred = re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document))
    assert set(referred) <= document["components"]["schemas"].keys()
    assert "DetectReply" in referred
