"""The Open Inference Protocol, version 2, over HTTP, with the extensions that it names.

Source: https://github.com/kserve/open-inference-protocol, `inference_rest.md`; the binary tensor,
model configuration and statistics extensions as Triton's documentation has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from raudo.serve import oip
from raudo.serve.errors import BadRequestError, NotReadyError
from raudo.serve.http import Answer, answer_json
from raudo.serve.json_body import read_json, write_json
from raudo.serve.records import REQUEST_ID

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from numpy.typing import NDArray

    from raudo.serve.core import Service
    from raudo.serve.http import Buffer, Call
    from raudo.serve.records import Reply

HEADER = "inference-header-content-length"
BINARY = "application/octet-stream"
INFER = "/v2/models/{model}/infer"


class OpenInference:
    """The handlers of all paths below `/v2`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def handlers(self) -> dict[tuple[str, str], Callable[[Call], Awaitable[Answer]]]:
        """Return the handlers by method and path."""
        name = "/v2/models/{model}"
        found: dict[tuple[str, str], Callable[[Call], Awaitable[Answer]]] = {
            ("POST", INFER): self.infer,
            ("POST", f"{name}/versions/{{version}}/infer"): self.infer,
            ("GET", "/v2"): self.server,
            ("GET", "/v2/health/live"): self.live,
            ("GET", "/v2/health/ready"): self.ready,
            ("GET", "/v2/models/stats"): self.all_stats,
        }
        for path in (name, f"{name}/versions/{{version}}"):
            found["GET", path] = self.model
            found["GET", f"{path}/ready"] = self.model_ready
            found["GET", f"{path}/config"] = self.config
            found["GET", f"{path}/stats"] = self.stats
        return found

    async def server(self, _: Call) -> Answer:
        """Describe the server."""
        return answer_json(oip.server())

    async def live(self, _: Call) -> Answer:
        """Tell that the process answers."""
        return answer_json({"live": True})

    async def ready(self, _: Call) -> Answer:
        """Tell whether requests are taken."""
        if not self._service.ready():
            raise NotReadyError("the service takes no requests now")
        return answer_json({"ready": True})

    async def model(self, call: Call) -> Answer:
        """Describe the model."""
        return answer_json(oip.metadata(self._service, self._version(call)))

    async def model_ready(self, call: Call) -> Answer:
        """Tell whether a version takes requests."""
        version = self._version(call)
        if not self._service.ready(version.version):
            raise NotReadyError("the service drains")
        return answer_json({"name": self._service.model, "ready": True})

    async def config(self, call: Call) -> Answer:
        """Tell how the model is served."""
        return answer_json(oip.configuration(self._service, self._version(call)))

    async def stats(self, call: Call) -> Answer:
        """Tell what a version, or all of them, did."""
        self._version(call)
        return answer_json(oip.statistics(self._service, call.path.get("version", "")))

    async def all_stats(self, _: Call) -> Answer:
        """Tell what all versions did."""
        return answer_json(oip.statistics(self._service))

    def _version(self, call: Call) -> Any:
        return oip.model(self._service, call.path["model"], call.path.get("version", ""))

    async def infer(self, call: Call) -> Answer:
        """Run a batch."""
        version = call.path.get("version")
        model = oip.model(self._service, call.path["model"], version or "")
        head, binary = split(call)
        given = checked(head, "id", str, "")
        if REQUEST_ID.fullmatch(given):
            call.id = given  # errors have it too
        ask = oip.Ask(
            id=given or call.id,
            inputs=read_inputs(head, binary),
            outputs=tuple(asked := read_outputs(head)),
            parameters=checked(head, "parameters", dict, {}),
            version=version,
        )
        oip.check_outputs(model, ask.outputs)
        request, wanted = oip.to_request(ask)
        reply = await self._service.infer(request)
        return respond(reply, oip.outputs_of(reply, wanted), asked, ask.parameters)


def checked(content: Any, name: str, kind: type, default: Any) -> Any:
    """Return a field that must be of one type where it is there.

    Raises:
        BadRequestError: It is of another.
    """
    value = content.get(name, default)
    if not isinstance(value, kind):
        raise BadRequestError(f"'{name}' is no {kind.__name__}")
    return value


def split(call: Call) -> tuple[dict[str, Any], memoryview]:
    """Return the JSON part of a body, and what follows it.

    Raises:
        BadRequestError: The body has no such parts.
    """
    size = call.headers.get(HEADER, str(len(call.body)))
    if not (
        size.isascii() and size.isdecimal() and len(size) <= 10 and int(size) <= len(call.body)
    ):
        raise BadRequestError(f"{HEADER} is longer than the body, or no number")
    head = read_json(memoryview(call.body)[: int(size)])
    return head, memoryview(call.body)[int(size) :]


def read_inputs(head: dict[str, Any], binary: memoryview) -> list[oip.Tensor]:
    """Return the input tensors, each with its list or its share of the binary part.

    Raises:
        BadRequestError: They are not what the protocol says, or bytes are left over.
    """
    found = []
    for entry in checked(head, "inputs", list, []):
        if not isinstance(entry, dict):
            raise BadRequestError("an input is no object")
        shape = checked(entry, "shape", list, [])
        if not all(type(side) is int and 0 <= side < 1 << 32 for side in shape):
            raise BadRequestError("a shape is not of whole numbers from 0")
        size = checked(entry, "parameters", dict, {}).get("binary_data_size")
        data: Any = checked(entry, "data", list, [])
        if size is not None:
            if type(size) is not int or not 0 <= size <= len(binary) or "data" in entry:
                raise BadRequestError("a binary_data_size does not fit the body")
            data, binary = binary[:size], binary[size:]
        name, datatype = checked(entry, "name", str, ""), checked(entry, "datatype", str, "")
        found.append(oip.Tensor(name, datatype, tuple(shape), data))
    if binary:
        raise BadRequestError(f"{len(binary)} bytes follow the last tensor")
    return found


def read_outputs(head: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the outputs that are asked for, each with its parameters.

    Raises:
        BadRequestError: They are not what the protocol says.
    """
    found = {}
    for entry in checked(head, "outputs", list, []):
        if not isinstance(entry, dict):
            raise BadRequestError("an output is no object")
        found[checked(entry, "name", str, "")] = checked(entry, "parameters", dict, {})
    return found


def respond(
    reply: Reply,
    outputs: dict[str, NDArray[Any]],
    asked: dict[str, dict[str, Any]],
    parameters: Any,
) -> Answer:
    """Answer with tensors, binary where that was asked for."""
    every = parameters.get("binary_data_output") is True
    described: list[dict[str, Any]] = []
    pieces: list[Buffer] = []
    for name, value in outputs.items():
        entry: dict[str, Any] = {
            "name": name,
            "datatype": oip.DATATYPES[value.dtype.str],
            "shape": list(value.shape),
        }
        if asked.get(name, {}).get("binary_data", every) is True:
            entry["parameters"] = {"binary_data_size": value.nbytes}
            pieces.append(np.ascontiguousarray(value).data.cast("B"))
        else:
            entry["data"] = value.reshape(-1).tolist()
        described.append(entry)
    content = {
        "model_name": reply.model,
        "model_version": reply.version,
        "id": reply.id,
        "parameters": {"variant": reply.variant},
        "outputs": described,
    }
    head = write_json(content)
    if not pieces:
        return Answer((head,))
    return Answer((head, *pieces), type=BINARY, headers={HEADER: str(len(head))})
