"""REST: what people and programs call over HTTP."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from raudo.serve.errors import ServeError
from raudo.serve.records import DetectRequest

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from raudo.serve.core import Service
    from raudo.serve.records import Reply
    from raudo.serve.telemetry import Telemetry

STATUS = {
    "bad_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "too_large": 413,
    "unsupported_media": 415,
    "queue_full": 429,
    "not_ready": 503,
    "deadline": 504,
}
"""HTTP status of each `ServeError.code`; what is not here is a 500."""


def create_app(service: Service, telemetry: Telemetry | None = None) -> Starlette:
    """Make the ASGI application of a service, with what watches it, if anything does."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def detect(request: Request) -> Response:
        reply = await service.detect(DetectRequest(await request.body(), id=str(uuid.uuid4())))
        return JSONResponse(describe(reply))

    async def refuse(_: Request, error: Exception) -> Response:
        assert isinstance(error, ServeError)  # noqa: S101 (registered for it alone)
        content = {"error": error.message, "code": error.code}
        return JSONResponse(content, STATUS.get(error.code, 500))

    return Starlette(
        routes=[
            Route("/v1/detect", detect, methods=["POST"]),
            *(telemetry.routes(service) if telemetry else []),
        ],
        exception_handlers={ServeError: refuse},
    )


def describe(reply: Reply) -> dict[str, object]:
    """Return a reply as JSON has it."""
    (found,) = reply.detections
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
        "stages_ms": {
            name: 1000 * getattr(reply.stages, name)
            for name in ("decode", "queue", "infer", "select", "total")
        },
    }
