"""What watches a service, as the application answers it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest

from null_engines import null_engine
from raudo.backends.base import Resources
from raudo.serve.ab.comparison import Plan
from raudo.serve.ab.routing import ShadowRouting
from raudo.serve.core import Service
from raudo.serve.instance import InlineInstance, open_engine
from raudo.serve.rest import create_app
from raudo.serve.settings import Limits
from raudo.serve.telemetry import Telemetry
from raudo.workspace import read_artifact

if TYPE_CHECKING:
    from pathlib import Path

    from raudo.records import Artifact

pytest.importorskip("prometheus_client", reason="NO PROMETHEUS CLIENT: metrics go untested")


async def open_inline(artifact: Artifact) -> list[InlineInstance]:
    return [InlineInstance(*open_engine(artifact, Resources()))]


@dataclass
class Answer:
    """What the application answers to a GET."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks an ASGI application without a server; `answer` is the last one, or its beginning."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def get(self, path: str, **headers: str) -> Answer:
        scope = {
            "type": "http",
            "method": "GET",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        self.answer = answer = Answer()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            answer.status = message.get("status", answer.status)
            answer.headers |= {k.decode(): v.decode() for k, v in message.get("headers", [])}
            answer.body += message.get("body", b"")

        asyncio.run(self._app(scope, receive, send))
        return answer


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Client, Telemetry]:
    """The application of a service whose engine is loaded, and what watches it."""
    telemetry = Telemetry()
    service = Service("detector", open_inline, Limits(), observer=telemetry.observer)
    asyncio.run(load(service, read_artifact(null_engine(tmp_path / "e.npz"))))
    return Client(create_app(service, telemetry)), telemetry


async def load(service: Service, artifact: Artifact) -> None:
    await service.swap(artifact, run="today")


def test_the_state_of_the_service(scene: tuple[Client, Telemetry]) -> None:
    live: dict[str, Any] = scene[0].get("/v1/live").json()
    (version,) = live["versions"]
    assert (live["model"], live["ready"], live["experiment"]) == ("detector", True, None)
    assert (version["variant"], version["engine"], version["run"]) == (
        "primary",
        "null-e",
        "today",
    )
    assert len(live["moments"]) == 120


def test_metrics_are_text_that_prometheus_reads(scene: tuple[Client, Telemetry]) -> None:
    answer = scene[0].get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "raudo_model_info{" in answer.text
    opened = scene[0].get("/metrics", accept="application/openmetrics-text")
    assert opened.text.endswith("# EOF\n")


def test_an_experiment_where_there_is_one(scene: tuple[Client, Telemetry]) -> None:
    client, telemetry = scene
    missing = client.get("/v1/ab")
    assert (missing.status, missing.json()["code"]) == (404, "not_found")
    telemetry.follow(ShadowRouting(Plan("shadow", "primary", "baseline", 1.0), "trial"))
    assert client.get("/v1/ab").json()["verdict"] == "INCONCLUSIVE"
    assert client.get("/v1/live").json()["experiment"]["mode"] == "shadow"


def test_what_breaks_inside_is_told_as_every_error_is(
    scene: tuple[Client, Telemetry], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, telemetry = scene
    monkeypatch.setattr(telemetry, "live", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # for the server's log
        client.get("/v1/live")
    assert client.answer.status == 500
    told = client.answer.json()
    assert (told["code"], told["error"]) == ("internal", "internal error")
    assert told["request_id"]


def test_the_page_and_its_files_only(scene: tuple[Client, Telemetry]) -> None:
    page = scene[0].get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name, kind in (("main.js", "javascript"), ("look.css", "css"), ("icon.svg", "svg")):
        assert kind in scene[0].get(f"/page/{name}").headers["content-type"]


@pytest.mark.parametrize("name", ["..%2Ftelemetry.py", "%2Fetc%2Fpasswd", "..", "telemetry.py"])
def test_no_name_becomes_a_path(scene: tuple[Client, Telemetry], name: str) -> None:
    assert scene[0].get(f"/page/{name}").status == 404
