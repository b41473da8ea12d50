"""`raudo ab report`: where it looks, what it says, how it exits."""

from __future__ import annotations

import http.server
import json
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from raudo.cli import app
from raudo.serve.ab.comparison import Comparison, Plan
from raudo.serve.ab.watches import SplitWatch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from raudo.serve.ab.records import Experiment


def experiment(requests: int, slowdown: float = 1.0) -> Experiment:
    random = np.random.default_rng(0)
    watched = Comparison(Plan("split", "primary", "[red]rival", 0.5), SplitWatch)
    for _ in range(requests):
        candidate = float(random.random() < 0.5)
        took = random.lognormal(2, 0.2) * (slowdown if candidate else 1)
        watched.sides["primary" if candidate else "[red]rival"].count(took)
        watched.watch.add(candidate, took, 0.0)
        watched.request_ended()
    return watched.state()


def report(*arguments: str) -> tuple[int, str]:
    ended = CliRunner().invoke(app, ["ab", "report", *arguments])
    return ended.exit_code, ended.output


@pytest.mark.parametrize(
    ("requests", "slowdown", "code", "said"),
    [
        (50, 1.0, 3, "more requests have to tell"),
        (800, 1.0, 3, "would settle it"),
        (8000, 1.0, 0, "all guards were certain after"),
        (8000, 1.3, 1, "rolled back after"),
    ],
)
def test_a_run_folder_tells(
    tmp_path: Path, requests: int, slowdown: float, code: int, said: str
) -> None:
    state = experiment(requests, slowdown)
    (tmp_path / "ab.json").write_text(state.model_dump_json(), encoding="utf-8")
    exit_code, output = report(str(tmp_path))
    assert exit_code == code
    assert said in " ".join(output.split())
    assert "[red]rival" in output
    exit_code, output = report(str(tmp_path / "ab.json"), "--json")
    assert (exit_code, json.loads(output)) == (code, state.model_dump(mode="json"))


@pytest.fixture
def service() -> Iterator[str]:
    """A service that compares, but under /none does not, and under /odd is another program."""
    answers = {
        "/v1/ab": (200, experiment(50).model_dump_json()),
        "/none/v1/ab": (404, '{"error": "no experiment runs"}'),
        "/odd/v1/ab": (200, "hello"),
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[self.path]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_running_service_tells(service: str) -> None:
    code, output = report(service)
    assert code == 3
    assert "50 % of the requests go to" in output


@pytest.mark.parametrize(
    ("path", "said"), [("/none", "compares nothing"), ("/odd", "not an A/B state")]
)
def test_a_service_that_does_not_tell(service: str, path: str, said: str) -> None:
    code, output = report(service + path)
    assert code == 2
    assert said in output


def test_where_there_is_nothing(tmp_path: Path) -> None:
    code, output = report(str(tmp_path))
    assert code == 2
    assert "holds no comparison" in " ".join(output.split())
    code, output = report("http://127.0.0.1:1")
    assert (code, "does not answer" in output) == (2, True)
