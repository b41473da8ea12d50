"""The OpenAPI document of the HTTP interface, from the models that its bodies are checked by."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema

import raudo
from raudo.serve import schemas
from raudo.serve.ab.records import Experiment
from raudo.serve.http import JSON, STATUS
from raudo.serve.live import LiveState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel

BINARY = "application/octet-stream"
COMMON = ("bad_request", "not_found", "method_not_allowed")
BODY = ("too_large", "unsupported_media", "deadline")
BUSY = (*BODY, "queue_full", "not_ready")
V2 = "/v2/models/{model}"
ANY_FILE = {"schema": {"type": "string", "format": "binary"}}
PLAIN_TEXT = {"text/plain": {"schema": {"type": "string"}}}
FORM = {
    "schema": {
        "type": "object",
        "required": ["image"],
        "properties": {"image": {"type": "string", "format": "binary"}},
    }
}
IMAGES = {
    "image/*": ANY_FILE,
    BINARY: ANY_FILE,
    "multipart/form-data": FORM,
}


class Document:
    """Grows path by path."""

    def __init__(self) -> None:
        models = [m for m in vars(schemas).values() if _is_body(m)]
        models += [Experiment, LiveState]
        _, defined = models_json_schema(
            [(model, "validation") for model in models],
            ref_template="#/components/schemas/{model}",
        )
        self.schemas: dict[str, Any] = defined["$defs"]
        self.paths: dict[str, Any] = {}

    def add(
        self,
        method: str,
        path: str,
        summary: str,
        reply: type[BaseModel] | None,
        *,
        errors: Iterable[str] = (),
        **more: object,
    ) -> None:
        """Add an operation.

        Args:
            method: In lower case.
            path: With placeholders.
            summary: What it does, in one line.
            reply: The body of its 200 response; None: plain text.
            errors: Codes of the errors it may answer with, besides those that any may.
            more: Further fields of the operation.
        """
        codes = (*COMMON, *errors, "internal")
        responses = {
            str(status): {
                "description": ", ".join(sorted(c for c in codes if STATUS.get(c, 500) == status)),
                "content": {JSON: {"schema": _reference(schemas.Problem)}},
            }
            for status in sorted({STATUS.get(code, 500) for code in codes})
        }
        content = {JSON: {"schema": _reference(reply)}} if reply else PLAIN_TEXT
        described = (reply.__doc__ or "").strip() if reply else "Text."
        responses["200"] = {"description": described, "content": content}
        words = re.sub(r"\W+", " ", path.replace("{", "by ")).split()
        parameters: list[Any] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"{(\w+)}", path)
        ]
        parameters += more.pop("parameters", [])  # type: ignore[arg-type]
        self.paths.setdefault(path, {})[method] = {
            "summary": summary,
            "operationId": "_".join([method, *words]),
            "parameters": parameters,
            "responses": responses,
            **more,
        }


def _is_body(model: Any) -> bool:
    return getattr(model, "__module__", "") == schemas.__name__ and isinstance(model, type)


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": content}


def _query(model: type[BaseModel]) -> list[dict[str, Any]]:
    properties = model.model_json_schema()["properties"]
    return [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in properties.items()
    ]


def _add_detection(document: Document) -> None:
    document.add(
        "post",
        "/v1/detect",
        "Detect in one image",
        schemas.DetectReply,
        errors=BUSY,
        parameters=_query(schemas.DetectOptions),
        requestBody=_body({**IMAGES, JSON: {"schema": _reference(schemas.DetectBody)}}),
    )
    document.add("get", "/v1/models", "List the loaded versions", schemas.LoadedVersions)
    document.add(
        "post",
        "/v1/admin/swap",
        "Serve another run, without losing a request",
        schemas.LoadedVersion,
        errors=(*BODY, "unauthorized", "forbidden", "not_ready"),
        requestBody=_body({JSON: {"schema": _reference(schemas.SwapBody)}}),
        security=[{"bearer": []}],
    )


def _add_protocol(document: Document) -> None:
    document.add("get", "/v2", "Describe the server", schemas.ServerMetadata)
    document.add("get", "/v2/health/live", "Tell that the process answers", schemas.Live)
    document.add(
        "get", "/v2/health/ready", "Tell if it is ready", schemas.Ready, errors=["not_ready"]
    )
    document.add("get", "/v2/models/stats", "Count of all versions", schemas.ModelStatistics)
    for path in (V2, V2 + "/versions/{version}"):
        for tail, summary, reply in (
            ("", "Describe the model", schemas.ModelMetadata),
            ("/ready", "Tell whether it takes requests", schemas.ModelReady),
            ("/config", "How it is served", schemas.ModelConfiguration),
            ("/stats", "What it did", schemas.ModelStatistics),
        ):
            document.add("get", path + tail, summary, reply, errors=["not_ready"])
        document.add(
            "post",
            f"{path}/infer",
            "Run a batch",
            schemas.InferReply,
            errors=BUSY,
            parameters=[_header()],
            requestBody=_body({JSON: {"schema": _reference(schemas.InferBody)}, BINARY: ANY_FILE}),
        )
        document.paths[f"{path}/infer"]["post"]["responses"]["200"]["content"][BINARY] = ANY_FILE


def _add_telemetry(document: Document) -> None:
    document.add("get", "/v1/live", "Tell how it goes", LiveState)
    document.add("get", "/v1/ab", "Tell what the experiment has found", Experiment)
    document.add("get", "/metrics", "Count, for Prometheus", None)


def _header() -> dict[str, Any]:
    return {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "required": False,
        "description": "Length of the JSON part, where tensors follow it",
        "schema": {"type": "integer", "minimum": 0},
    }


@cache
def document() -> dict[str, Any]:
    """Return the document."""
    described = Document()
    _add_detection(described)
    _add_protocol(described)
    _add_telemetry(described)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "raudo serve",
            "version": raudo.__version__,
            "description": "Detections of the engine that raudo proved. Below /v2 is the Open "
            "Inference Protocol.",
        },
        "paths": described.paths,
        "components": {
            "schemas": described.schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }
