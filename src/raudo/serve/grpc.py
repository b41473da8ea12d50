"""The Open Inference Protocol, version 2, over gRPC.

Messages are made from the descriptor of `open_inference.proto` in a pool of their own, so no code
is generated, and no other library that knows the same protocol gets in the way.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raudo.errors import UsageError
from raudo.serve import oip
from raudo.serve.errors import BadRequestError, QueueFullError, ServeError, as_served
from raudo.serve.records import REQUEST_ID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from raudo.serve.core import Service
    from raudo.serve.records import Reply

    Handler = Callable[[bytes, Any], Awaitable[Any]]
    Refused = Callable[[ServeError, str, float], None]
    Refusal = tuple[str, str, tuple[tuple[str, str], ...]]

DESCRIPTOR = Path(__file__).with_name("open_inference.binpb")
PACKAGE, SERVICE, INFER = "inference", "GRPCInferenceService", "ModelInfer"
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
        return self._make("ServerMetadataResponse", **oip.server())

    async def model_metadata(self, request: Any) -> Any:
        """Describe the model."""
        version = oip.model(self._service, request.name, request.version)
        return self._make("ModelMetadataResponse", **oip.metadata(self._service, version))

    async def model_config(self, request: Any) -> Any:
        """Tell how the model is served."""
        version = oip.model(self._service, request.name, request.version)
        described = oip.configuration(self._service, version)
        return self._read("ModelConfigResponse", {"config": described})

    async def model_statistics(self, request: Any) -> Any:
        """Tell what a version, or all of them, did."""
        if request.name:
            oip.model(self._service, request.name, request.version)
        counted = oip.statistics(self._service, request.version)
        return self._read("ModelStatisticsResponse", counted)

    def _read(self, message: str, content: dict[str, Any]) -> Any:
        from google.protobuf.json_format import ParseDict

        return ParseDict(content, self._make(message))

    async def model_infer(self, request: Any) -> Any:
        """Run a batch."""
        model = oip.model(self._service, request.model_name, request.model_version)
        ask = oip.Ask(
            id=request.id,
            inputs=read_inputs(request),
            outputs=tuple(output.name for output in request.outputs),
            parameters={name: value_of(p) for name, p in request.parameters.items()},
            version=request.model_version,
        )
        oip.check_outputs(model, ask.outputs)
        asked, wanted = oip.to_request(ask)
        reply = await self._service.infer(asked)
        return self._respond(reply, oip.outputs_of(reply, wanted))

    def refused(self, error: ServeError, request_id: str, start: float) -> None:
        """Count a request that never came to the core."""
        if not error.told:
            self._service.turned_down("infer", request_id, error, start)

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


def answering(
    kind: Any, handle: Callable[[Any], Awaitable[Any]], refused: Refused | None = None
) -> Handler:
    """Wrap a handler: what it raises becomes a status, and trailing metadata.

    It parses as well: whatever gRPC's own deserializer raises is a fault of the server to clients.

    Args:
        kind: The message that it takes.
        handle: The handler.
        refused: Told of each error, with the request's id and when it came, by `time.monotonic`;
            None: nobody is.
    """

    async def attempt(data: bytes) -> tuple[Any, Refusal | None]:
        start, request_id = time.monotonic(), secrets.token_hex(16)
        try:
            request = parse(kind, data)
            if hasattr(request, "id"):
                request.id = request_id = request.id or request_id
            return await handle(request), None
        except Exception as error:
            wrong = as_served(error)
            if wrong.code == ServeError.code:
                log.exception("request %s failed", request_id)
            if refused is not None:
                refused(wrong, request_id, start)
            status, told = STATUS.get(wrong.code, "INTERNAL"), trailers(wrong, request_id)
            refusal = (status, wrong.message, told)
            del wrong  # its traceback keeps this frame alive, and so the message, maybe megabytes
            return None, refusal

    async def answer(data: bytes, context: Any) -> Any:
        import grpc

        reply, refusal = await attempt(data)
        del data
        if refusal is not None:
            status, message, told = refusal
            await context.abort(getattr(grpc.StatusCode, status), message, told)
        return reply

    return answer


def trailers(error: ServeError, request_id: str) -> tuple[tuple[str, str], ...]:
    """Return what comes with an error: what HTTP says in its body and headers.

    `grpc-retry-pushback-ms` is when a gRPC client with a retry policy tries again by itself.
    """
    told = [("code", error.code)]
    if REQUEST_ID.fullmatch(request_id):  # metadata takes no other text
        told.append(("request-id", request_id))
    if isinstance(error, QueueFullError):
        told.append(("retry-after", str(error.seconds)))
        told.append(("grpc-retry-pushback-ms", str(1000 * error.seconds)))
    return tuple(told)


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
    # Its handlers of forks, which engines' processes do not need, tell of each that they skip.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    import grpc

    found, handlers = messages(), OpenInference(service)
    calls = [name.removesuffix("Request") for name in found if name.endswith("Request")]
    methods = {
        call: grpc.unary_unary_rpc_method_handler(
            answering(
                found[f"{call}Request"],
                getattr(handlers, snake(call)),
                handlers.refused if call == INFER else None,
            ),
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
