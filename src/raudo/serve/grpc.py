"""The Open Inference Protocol, version 2, over gRPC.

Messages are made from the descriptor of `open_inference.proto` in a pool of their own, so no code
is generated, and no other library that knows the same protocol gets in the way.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import raudo
from raudo.errors import RaudoError, UsageError
from raudo.serve import oip
from raudo.serve.errors import BadRequestError, ServeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from raudo.serve.core import Service
    from raudo.serve.records import Reply

    Handler = Callable[[bytes, Any], Awaitable[Any]]

DESCRIPTOR = Path(__file__).with_name("open_inference.binpb")
PACKAGE, SERVICE = "inference", "GRPCInferenceService"
STATUS = {
    "bad_request": "INVALID_ARGUMENT",
    "unauthorized": "UNAUTHENTICATED",
    "forbidden": "PERMISSION_DENIED",
    "not_found": "NOT_FOUND",
    "too_large": "INVALID_ARGUMENT",
    "unsupported_media": "INVALID_ARGUMENT",
    "queue_full": "RESOURCE_EXHAUSTED",
    "not_ready": "UNAVAILABLE",
    "deadline": "DEADLINE_EXCEEDED",
}
"""gRPC status of each `ServeError.code`; what is not here is INTERNAL."""
ENVELOPE = 1 << 20
"""Bytes that a message may have besides its tensors."""
GRACE_SECONDS = 5.0

log = logging.getLogger(__name__)


@cache
def messages() -> dict[str, Any]:
    """Return the protocol's messages by their names, without the package."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTOR.read_bytes()).file
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.Add(file)
    found = message_factory.GetMessageClassesForFiles([file.name for file in files], pool)
    return {name.partition(".")[2]: message for name, message in found.items()}


class OpenInference:
    """The handlers of all calls; each is named as its call."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._messages = messages()

    def _make(self, message: str, /, **fields: object) -> Any:
        return self._messages[message](**fields)

    async def server_live(self, _: Any) -> Any:
        """Tell that the process answers."""
        return self._make("ServerLiveResponse", live=True)

    async def server_ready(self, _: Any) -> Any:
        """Tell whether requests are taken."""
        return self._make("ServerReadyResponse", ready=self._service.ready())

    async def model_ready(self, request: Any) -> Any:
        """Tell whether a version takes requests."""
        version = oip.model(self._service, request.name, request.version)
        return self._make("ModelReadyResponse", ready=self._service.ready(version.version))

    async def server_metadata(self, _: Any) -> Any:
        """Describe the server."""
        return self._make("ServerMetadataResponse", name="raudo", version=raudo.__version__)

    async def model_metadata(self, request: Any) -> Any:
        """Describe the model."""
        version = oip.model(self._service, request.name, request.version)
        return self._make("ModelMetadataResponse", **oip.metadata(self._service, version))

    async def model_infer(self, request: Any) -> Any:
        """Run a batch."""
        oip.model(self._service, request.model_name, request.model_version)
        ask = oip.Ask(
            id=request.id or secrets.token_hex(16),
            inputs=read_inputs(request),
            outputs=tuple(output.name for output in request.outputs),
            parameters={name: value_of(p) for name, p in request.parameters.items()},
            version=request.model_version,
        )
        asked, wanted = oip.to_request(ask)
        reply = await self._service.infer(asked)
        return self._respond(reply, oip.outputs_of(reply, wanted))

    def _respond(self, reply: Reply, outputs: dict[str, Any]) -> Any:
        response = self._make(
            "ModelInferResponse",
            model_name=reply.model,
            model_version=reply.version,
            id=reply.id,
            raw_output_contents=[value.tobytes() for value in outputs.values()],
        )
        response.parameters["variant"].string_param = reply.variant
        for name, value in outputs.items():
            datatype = oip.DATATYPES[value.dtype.str]
            response.outputs.add(name=name, datatype=datatype, shape=value.shape)
        return response


def value_of(parameter: Any) -> object:
    """Return the value of an InferParameter; None for an empty one."""
    kind = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, kind) if kind else None


def read_inputs(request: Any) -> list[oip.Tensor]:
    """Return the input tensors, whichever way their data came.

    Raises:
        BadRequestError: There are more, or fewer, raw contents than inputs.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise BadRequestError(f"{len(raw)} raw contents for {len(request.inputs)} inputs")
    found = []
    for index, tensor in enumerate(request.inputs):
        data = raw[index] if raw else _packed(tensor)
        found.append(oip.Tensor(tensor.name, tensor.datatype, tuple(tensor.shape), data))
    return found


def _packed(tensor: Any) -> bytes:
    """Return typed contents as the bytes that the raw ones would be."""
    contents = tensor.contents
    if tensor.datatype == "BYTES":
        parts = contents.bytes_contents
        return b"".join(oip.LENGTH.pack(len(part)) + part for part in parts)
    values = np.asarray(contents.uint_contents, np.uint32)
    if values.size and values.max() > np.iinfo(np.uint8).max:
        raise BadRequestError("the data has values above 255")
    return values.astype(np.uint8).tobytes()


def parse(kind: Any, data: bytes) -> Any:
    """Return the message of that kind that some bytes are.

    Raises:
        BadRequestError: They are none.
    """
    from google.protobuf.message import DecodeError

    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise BadRequestError(f"this is no {kind.DESCRIPTOR.name}") from error


def answering(kind: Any, handle: Callable[[Any], Awaitable[Any]]) -> Handler:
    """Wrap a handler: what it raises becomes a status, with the error's code beside it.

    It parses as well: whatever gRPC's own deserializer raises is a fault of the server to clients.
    """

    async def answer(data: bytes, context: Any) -> Any:
        import grpc

        try:
            return await handle(parse(kind, data))
        except RaudoError as error:
            code = error.code if isinstance(error, ServeError) else "bad_request"
            message = error.message
        except Exception:
            log.exception("a call failed")
            code, message = "internal", "internal error"
        status = getattr(grpc.StatusCode, STATUS.get(code, "INTERNAL"))
        await context.abort(status, message, (("code", code),))
        return None

    return answer


def snake(name: str) -> str:
    """Return the handler's name of a call: ModelInfer -> model_infer."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


@contextlib.asynccontextmanager
async def listening(service: Service, host: str, port: int) -> AsyncIterator[int]:
    """Answer calls until the block ends; then finish those that are under way.

    Yields:
        The port, which was chosen if 0 was asked for.

    Raises:
        UsageError: The port is not to be had.
    """
    import grpc

    found, handlers = messages(), OpenInference(service)
    calls = [name.removesuffix("Request") for name in found if name.endswith("Request")]
    methods = {
        call: grpc.unary_unary_rpc_method_handler(
            answering(found[f"{call}Request"], getattr(handlers, snake(call))),
            response_serializer=found[f"{call}Response"].SerializeToString,
        )
        for call in calls
    }
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", service.limits.body + ENVELOPE),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
    )
    handler = grpc.method_handlers_generic_handler(f"{PACKAGE}.{SERVICE}", methods)
    server.add_generic_rpc_handlers((handler,))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        taken = server.add_insecure_port(address)
    except RuntimeError as error:
        raise UsageError(
            f"cannot listen on {address} for gRPC", hint="choose another --grpc-port"
        ) from error
    await server.start()
    log.info("serving gRPC at %s:%d", host, taken)
    try:
        yield taken
    finally:
        await server.stop(GRACE_SECONDS)
