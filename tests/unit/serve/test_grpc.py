"""The gRPC interface: the messages are those of the specification."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from raudo.serve import grpc, oip
from raudo.serve.errors import BadRequestError, QueueFullError

pytest.importorskip("grpc", reason="NO GRPC: it goes untested")

FOLDER = Path(grpc.__file__).parent
PROTO = FOLDER / "open_inference.proto"


def test_the_descriptor_is_made_from_the_proto_file(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc", reason="NO GRPCIO-TOOLS")
    made = tmp_path / "made.binpb"
    words = ["protoc", f"-I{FOLDER}", f"--descriptor_set_out={made}", PROTO.name]
    assert protoc.main(words) == 0
    assert made.read_bytes() == grpc.DESCRIPTOR.read_bytes()


def test_names_numbers_and_types_are_those_that_nvidia_published() -> None:
    service = pytest.importorskip("tritonclient.grpc.service_pb2", reason="NO TRITONCLIENT")
    config = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="NO TRITONCLIENT")
    ours = grpc.messages()
    for name, message in ours.items():
        other = service if hasattr(service, name.partition(".")[0]) else config
        for part in name.split("."):
            other = getattr(other, part)
        published = {f.name: (f.number, f.type) for f in other.DESCRIPTOR.fields}
        mine = {f.name: (f.number, f.type) for f in message.DESCRIPTOR.fields}
        mine.pop("properties", None)  # Triton left it out
        assert mine.items() <= published.items(), name


def test_every_call_of_the_service_has_a_handler() -> None:
    calls = re.findall(r"rpc (\w+)", PROTO.read_text(encoding="utf-8"))
    assert len(calls) == 8
    for call in calls:
        assert callable(getattr(grpc.OpenInference, grpc.snake(call)))
        assert {f"{call}Request", f"{call}Response"} <= grpc.messages().keys()


def test_typed_contents_are_read_as_raw_ones_are() -> None:
    request = grpc.messages()["ModelInferRequest"]()
    request.inputs.add(name="images", datatype="UINT8", shape=[3])
    request.inputs[0].contents.uint_contents.extend([1, 2, 255])
    (tensor,) = grpc.read_inputs(request)
    assert oip.read_pixels(tensor).tolist() == [1, 2, 255]
    request.inputs[0].contents.uint_contents.append(256)
    with pytest.raises(BadRequestError):
        grpc.read_inputs(request)


def test_an_error_comes_with_what_http_says_of_it() -> None:
    full = dict(grpc.trailers(QueueFullError("full", retry_after=1.2), "a-1"))
    assert full == {
        "code": "queue_full",
        "request-id": "a-1",
        "retry-after": "2",
        "grpc-retry-pushback-ms": "2000",
    }
    assert dict(grpc.trailers(BadRequestError("no"), "ä\n")) == {"code": "bad_request"}


def test_raw_contents_stand_for_as_many_inputs() -> None:
    request = grpc.messages()["ModelInferRequest"](raw_input_contents=[b"a", b"b"])
    request.inputs.add(name="encoded", datatype="BYTES", shape=[1])
    with pytest.raises(BadRequestError):
        grpc.read_inputs(request)
