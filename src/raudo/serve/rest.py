"""The whole HTTP interface of a service, as one ASGI application."""

from __future__ import annotations

import hmac
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from raudo.errors import first_problem
from raudo.serve import openapi
from raudo.serve.errors import (
    BadRequestError,
    ForbiddenError,
    MethodNotAllowedError,
    NotFoundError,
    ServeError,
    UnauthorizedError,
    UnsupportedMediaError,
    as_served,
)
from raudo.serve.http import JSON, STATUS, Answer, Call, Endpoint, answer_error, answer_json
from raudo.serve.json_body import read_json
from raudo.serve.oip import decode_base64
from raudo.serve.records import STAGES, DetectRequest
from raudo.serve.schemas import DetectBody, DetectOptions, SwapBody
from raudo.serve.v2 import INFER, OpenInference

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.applications import Starlette
    from starlette.requests import Request

    from raudo.config import Settings
    from raudo.serve.core import Service
    from raudo.serve.http import Receive, Scope, Send
    from raudo.serve.observer import Method
    from raudo.serve.records import ModelVersion, Reply
    from raudo.serve.telemetry import Telemetry

    Handlers = dict[tuple[str, str], Callable[[Call], Awaitable[Answer]]]
    Swap = Callable[[str], Awaitable[ModelVersion]]
    ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]

MULTIPART = "multipart/form-data"
MAX_FIELDS = 8
METHODS: dict[str, Method] = {"detect": "detect", "infer": "infer"}
"""What paths that end so ask of the service."""


class Detecting:
    """The handlers for people: an image in, detections out."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def detect(self, call: Call) -> Answer:
        """Detect in one image."""
        image, options = await read_image(call)
        request = DetectRequest(
            image=image,
            id=call.id,
            selection=options.selection,
            timeout=options.timeout,
            version=options.version,
        )
        reply = await self._service.detect(request)
        return answer_json(describe(reply), headers={"x-request-id": reply.id})

    async def models(self, _: Call) -> Answer:
        """List what is loaded."""
        return answer_json({"models": [describe_version(v) for v in self._service.models()]})


def checked(kind: type[Settings], values: object) -> Any:
    """Read settings that a client sent.

    Raises:
        BadRequestError: One is not what it must be.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise BadRequestError(first_problem(error)[:200]) from error


async def read_image(call: Call) -> tuple[bytes, DetectOptions]:
    """Return the image of a request, whatever holds it, and what the client chose.

    Raises:
        BadRequestError: There is no image.
        UnsupportedMediaError: The body is of another type.
    """
    if call.type == JSON:
        body: DetectBody = checked(DetectBody, {**call.query, **read_json(call.body)})
        return decode_base64(body.image), body
    options: DetectOptions = checked(DetectOptions, call.query)
    if call.type == MULTIPART:
        return await read_multipart(call), options
    if call.type.startswith("image/") or call.type == "application/octet-stream":
        return bytes(call.body), options
    raise UnsupportedMediaError(
        f"the body is of type {call.type[:40]!r}", hint=f"send image/*, {MULTIPART} or {JSON}"
    )


async def read_multipart(call: Call) -> bytes:
    """Return the first file of a form.

    Raises:
        BadRequestError: The form is damaged, or has no file.
    """
    from starlette.datastructures import Headers, UploadFile
    from starlette.formparsers import MultiPartException, MultiPartParser

    async def pieces() -> Any:
        yield bytes(call.body)
        yield b""

    parser = MultiPartParser(
        Headers(call.headers), pieces(), max_files=MAX_FIELDS, max_fields=MAX_FIELDS
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, LookupError) as error:
        raise BadRequestError(f"the form is damaged: {error}"[:200]) from error
    try:
        for _, value in form.multi_items():
            if isinstance(value, UploadFile):
                return await value.read()
    finally:
        await form.close()
    raise BadRequestError("the form has no file", hint="send the image as a file, any name")


def describe(reply: Reply) -> dict[str, object]:
    """Return a reply as JSON has it: boxes in pixels of the image, times in milliseconds."""
    (found,) = reply.detections
    stages = reply.stages
    return {
        "detections": [
            {"box": box, "score": score, "label": label, "name": reply.classes[label]}
            for box, score, label in zip(
                found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
            )
        ],
        "model": reply.model,
        "version": reply.version,
        "variant": reply.variant,
        "request_id": reply.id,
        "stages_ms": {name: round(1000 * getattr(stages, name), 3) for name in STAGES},
    }


def describe_version(version: ModelVersion) -> dict[str, object]:
    """Return a loaded version as JSON has it."""
    manifest = version.artifact.manifest
    return {
        "version": version.version,
        "variant": version.variant,
        "run": version.run,
        "engine": manifest.name,
        "precision": manifest.precision,
        "input": [manifest.spec.height, manifest.spec.width],
        "rectangles": [list(rectangle.size) for rectangle in version.rectangles],
        "classes": list(manifest.spec.classes),
        "max_batch": version.max_batch,
    }


class Administration:
    """The handlers that change what is served; they are off without a token.

    Args:
        token: What a client must bear; None: nobody may.
        swap: Loads a run by its name, and lets it take over.
    """

    def __init__(self, token: str | None, swap: Swap | None) -> None:
        self._token = token
        self._swap = swap

    def authorize(self, call: Call) -> None:
        """Let only those through who bear the token.

        Raises:
            ForbiddenError: Admin calls are off.
            UnauthorizedError: The token is missing, or a wrong one.
        """
        if not self._token:
            raise ForbiddenError("admin calls are off", hint="start with RAUDO_ADMIN_TOKEN set")
        scheme, _, given = call.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(
            given.strip().encode(), self._token.encode()
        ):
            raise UnauthorizedError("the token is missing or wrong")

    async def swap(self, call: Call) -> Answer:
        """Serve another run, without losing a request."""
        self.authorize(call)
        body: SwapBody = checked(SwapBody, read_json(call.body))
        if self._swap is None:
            raise NotFoundError("this service was not started from a run folder")
        return answer_json(describe_version(await self._swap(body.run)))


def create_app(
    service: Service,
    telemetry: Telemetry | None = None,
    *,
    token: str | None = None,
    swap: Swap | None = None,
) -> Starlette:
    """Make the ASGI application of a service.

    Args:
        service: What answers.
        telemetry: What watches it; None: nothing does.
        token: What admin calls must bear; None switches them off.
        swap: Loads a run by its name and lets it take over; None where there are no runs.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.routing import Route

    detecting, admin = Detecting(service), Administration(token, swap)
    handlers: Handlers = {
        ("POST", "/v1/detect"): detecting.detect,
        **OpenInference(service).handlers(),
        ("GET", "/v1/models"): detecting.models,
        ("POST", "/v1/admin/swap"): admin.swap,
        ("GET", "/openapi.json"): _document,
    }
    endpoints = {
        (method, path): Endpoint(handler, service, METHODS.get(path.rpartition("/")[2]))
        for (method, path), handler in handlers.items()
    }
    ours = [Route(path, each, methods=[method]) for (method, path), each in endpoints.items()]
    more = telemetry.routes(service) if telemetry else []
    refusals = dict.fromkeys((HTTPException, ServeError, Exception), _refuse)
    app = Starlette(routes=[*ours, *more], exception_handlers=refusals)
    app.add_middleware(Shortcut, endpoint=endpoints["POST", INFER], path=INFER, model=service.model)
    return app


class Shortcut:
    """Hands what nearly all programs ask for to its endpoint, past the patterns of all routes.

    Routing takes as long as reading such a request.

    Args:
        app: Answers all else.
        endpoint: Answers POST to the path.
        path: With `{model}` for the model's name.
        model: That name.
    """

    def __init__(self, app: ASGI, endpoint: Endpoint, path: str, model: str) -> None:
        self._app, self._endpoint = app, endpoint
        self._path, self._model = path.format(model=model), model

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and (scope["method"], scope["path"]) == ("POST", self._path):
            scope["path_params"] = {"model": self._model}
            await self._endpoint(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _refuse(request: Request, error: Exception) -> Any:
    """Answer what no endpoint of this module answered; the server logs what is broken inside."""
    headers = {n.lower(): v for n, v in (getattr(error, "headers", None) or {}).items()}
    status = getattr(error, "status_code", None)
    if status == STATUS[NotFoundError.code]:
        error = NotFoundError("there is no such path", hint="see /openapi.json")
    elif status is not None:
        error = MethodNotAllowedError("the path has no such method", hint="see /openapi.json")
    answer = answer_error(as_served(error), Call.of(request.scope).id)
    return replace(answer, headers={**answer.headers, **headers})


async def _document(_: Call) -> Answer:
    return answer_json(openapi.document())
