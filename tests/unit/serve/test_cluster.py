"""What a cluster of replicas refuses, before Ray starts."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from null_engines import null_engine
from raudo.errors import UsageError
from raudo.serve.cluster import Replicas, deploy, free_ports
from raudo.serve.server import ServeSettings


@pytest.mark.parametrize(
    "options", [{"ab": "baseline=10"}, {"shadow": "baseline"}, {"watch": True}, {"grpc_port": 1}]
)
def test_what_needs_one_service_is_refused_in_a_cluster(options: dict[str, Any]) -> None:
    settings = ServeSettings(source=Path("runs/latest"), **options)
    (name,) = options
    with pytest.raises(UsageError, match=f"without {name}: replicas know nothing of each other"):
        deploy(settings, Replicas())


def test_a_port_that_is_taken_is_refused_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    engine = null_engine(tmp_path / "model.npz")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = ServeSettings(source=engine, port=taken.getsockname()[1])
        with pytest.raises(UsageError, match="cannot listen on 127"):
            deploy(settings, Replicas())


def test_services_on_one_machine_get_ports_of_their_own() -> None:
    ports = free_ports(30)
    assert len(set(ports)) == 30
    assert min(ports) > 1023
