"""Under overload one machine and a Ray cluster behave the same: one suite, run against both.

A cluster of one replica has one queue, as one machine has, so that answers can be counted.
"""

from __future__ import annotations

import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from serving import PATIENCE, ask, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from serving import Reply, Server

pytestmark = pytest.mark.slow
QUEUE, CALL_MS, BURST = 4, 400, 24
LIMITS = ("--queue", str(QUEUE), "--max-batch", "1", "--timeout", "20")
CLUSTER = ("--cluster", "--replicas", "1")
KINDS = [pytest.param((), id="machine"), pytest.param(CLUSTER, id="cluster")]


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Server]:
    """A service that takes 400 ms for an image, lets four wait, and answers one at a time."""
    folder: Path = tmp_path_factory.mktemp("engines")
    options = (*LIMITS, *request.param)
    with serving(folder, *options, pauses={"call_ms": CALL_MS}) as server:
        yield server


def batches(server: Server) -> int:
    """The number of batches that an engine has begun."""
    with urllib.request.urlopen(f"{server.address}/v2/models/detector/stats") as answer:  # noqa: S310
        (version,) = json.load(answer)["model_stats"]
    return int(version["execution_count"])


def burst(server: Server, count: int, **parameters: Any) -> list[Reply]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: ask(server.port, **parameters), range(count)))


def test_what_does_not_fit_is_turned_down_at_once_and_explained(server: Server) -> None:
    replies = burst(server, BURST)
    answered = [reply for reply in replies if reply.status == 200]
    refused = [reply for reply in replies if reply.status == 429]
    assert len(answered) + len(refused) == BURST
    assert QUEUE + 1 <= len(answered) < BURST  # those that wait, and the one in the engine
    for reply in refused:
        assert int(reply.headers["retry-after"]) >= 1
        assert set(reply.content) == {"error", "code", "request_id", "hint"}
        assert reply.content["code"] == "queue_full"
    assert max(r.seconds for r in refused) < max(r.seconds for r in answered)


def test_once_it_is_over_everything_is_answered(server: Server) -> None:
    assert [reply.status for reply in burst(server, QUEUE)] == [200] * QUEUE


def test_a_request_whose_time_is_over_never_reaches_the_engine(server: Server) -> None:
    with ThreadPoolExecutor(QUEUE) as pool:
        before = batches(server)
        first = [pool.submit(ask, server.port) for _ in range(QUEUE - 1)]
        until = time.monotonic() + PATIENCE
        while batches(server) == before:
            assert time.monotonic() < until
            time.sleep(0.01)
        late = ask(server.port, timeout=50_000)  # microseconds, as Triton has them
        assert {each.result().status for each in first} == {200}
    assert late.status == 504
    assert late.content["code"] == "deadline"
    assert batches(server) == before + len(first)


def test_it_explains_what_it_cannot_read(server: Server) -> None:
    reply = ask(server.port, body=b"{}")
    assert reply.status == 400
    assert reply.content["code"] == "bad_request"
    assert ask(server.port, body=bytes(21 << 20)).status == 413
    assert ask(server.port, model="cat").content["code"] == "not_found"


def test_it_says_who_it_is(server: Server) -> None:
    reply = ask(server.port)
    assert reply.content["model_name"] == "detector"
    assert [output["name"] for output in reply.content["outputs"]] == ["boxes", "scores"]
    assert json.loads(reply.body)["model_version"] == "1"
