"""The same application in Ray Serve replicas, behind HAProxy: more machines, and no new behaviour.

HAProxy hands each request to a replica's own HTTP server, so what a client sees is what
`create_app` answers, and the service's own queue is what turns requests down. Ray's limits lie
above it, explicit, and are not reached first. A replica that dies takes no request along: HAProxy
keeps each until its answer begins, and asks another replica. That is safe, for detecting changes
nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from raudo.cluster import joined
from raudo.config import Settings
from raudo.errors import UsageError
from raudo.serve.arena import Arena
from raudo.serve.core import Service
from raudo.serve.process import ProcessOpener
from raudo.serve.rest import create_app
from raudo.serve.server import listening
from raudo.serve.telemetry import Telemetry
from raudo.serve.versions import Source, load_best
from raudo.workspace import read_artifact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import ModuleType

    from starlette.applications import Starlette

    from raudo.serve.server import ServeSettings

APPLICATION = "raudo"
BUFFER_BYTES = 21 << 20
"""A whole request: the largest body and the largest head. What is not touched takes no memory."""

HEADROOM = 64
"""Requests of a replica beside those that wait or run: health checks, metrics, rejections."""

BURST = 1024
"""Requests that may arrive at once: until it looked at them, Ray counts them as queued."""

DIRECTIVES = (
    "conn-failure empty-response",
    "option http-buffer-request",
    "timeout http-request 30s",
)
"""For HAProxy's defaults: when to ask again, only with whole requests, which have to come in time.

Of a request that goes out before all of it has come in, HAProxy keeps nothing to ask again with.
Ray writes the first behind `retry-on` as it stands, so that more can follow; there is no other way
to give HAProxy any.
"""

ENVIRONMENT = {
    "RAY_worker_niceness": "0",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_RETRY_ON": "\n    ".join(DIRECTIVES),
    "RAY_SERVE_HAPROXY_RETRIES": "10",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(BUFFER_BYTES),
    "RAY_SERVE_HAPROXY_NBTHREAD": "2",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "1",
}
"""How Ray Serve is told. Each node of a cluster that runs already needs it before Ray starts."""

PORTS = (
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
)
"""What Ray gives fixed ports, which a second service on the same machine would find taken."""


class Replicas(Settings):
    """How many replicas there are, and what each of them gets."""

    least: Annotated[int, Field(ge=1)] = Field(
        default=2, description="Fewest replicas; a second one answers when the first dies"
    )
    most: Annotated[int, Field(ge=1)] = Field(
        default=2, description="Most replicas; Ray adds and removes them as requests pile up"
    )
    cpus: Annotated[int, Field(ge=1)] = Field(default=1, description="CPU cores of a replica")

    @model_validator(mode="after")
    def _in_order(self) -> Replicas:
        if self.least > self.most:
            raise ValueError(f"from {self.least} to {self.most} replicas")
        return self


def deploy(settings: ServeSettings, replicas: Replicas) -> None:
    """Let Ray serve until SIGTERM or SIGINT, then drain.

    Without RAY_ADDRESS, Ray is started on this machine, and ends with this. Engine or run folder
    have to lie under the same path on every machine.

    Raises:
        MissingDependencyError: Ray Serve is not installed.
        UsageError: The settings ask for what replicas cannot do, Ray has no room for them, or the
            port is taken.
        EngineError: There is nothing to serve.
    """
    single = ("ab", "shadow", "watch", "grpc_port")
    if asked := [name for name in single if getattr(settings, name)]:
        raise UsageError(
            f"a cluster serves without {', '.join(asked)}: replicas know nothing of each other",
            hint="leave --cluster out, or these options",
        )
    engine = read_artifact(Source(settings.source, settings.target).files()[0])
    gpus = 1 if engine.manifest.device == "gpu" else 0

    def build() -> Starlette:
        return application(settings, replicas.cpus)

    if "RAY_ADDRESS" not in os.environ:
        with listening(settings.host, settings.port):
            pass  # Ray would take half a minute to find that somebody else does
    own = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
    with joined(ENVIRONMENT | own):
        from ray import serve

        replica = serve.ingress(build)(_Replica)
        _run(serve, serve.deployment(replica, **options(settings, replicas, gpus)), settings)
        _wait_for_signal()
        serve.delete(APPLICATION)  # it drains; a shutdown right away would cut HAProxy off
        serve.shutdown()


class _Replica:
    """What Ray Serve hangs the application on; all behaviour is the application's."""


def application(settings: ServeSettings, threads: int) -> Starlette:
    """Make the application of a replica: it loads its engine first, and drains last.

    Args:
        settings: Of the service.
        threads: CPU cores that its engines may use.
    """
    source, telemetry = Source(settings.source, settings.target), Telemetry()
    arena = Arena()
    opener = ProcessOpener(settings.instances, threads, settings.limits.max_batch, arena)
    service = Service(
        settings.model,
        opener,
        settings.limits,
        observer=telemetry.observer,
        allocate=arena.empty,
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        run = source.run().folder.name if source.is_run else None
        await load_best(service, source.files(), run=run)
        yield
        await service.drain()
        arena.close()

    app = create_app(service, telemetry)
    app.router.lifespan_context = lifespan
    return app


def options(settings: ServeSettings, replicas: Replicas, gpus: int) -> dict[str, Any]:
    """Return Ray's options of the deployment; its limits lie above those of the service."""
    limits = settings.limits
    within = limits.queue + settings.instances * limits.max_batch
    return {
        "name": APPLICATION,
        "max_ongoing_requests": 2 * within + HEADROOM,
        "max_queued_requests": BURST,
        "backpressure_config": {"status_code": 429, "retry_after_s": 1},
        "autoscaling_config": {
            "min_replicas": replicas.least,
            "max_replicas": replicas.most,
            "target_ongoing_requests": settings.instances * limits.max_batch,
        },
        "ray_actor_options": {"num_cpus": replicas.cpus, "num_gpus": gpus},
        "health_check_period_s": 2,
        "graceful_shutdown_timeout_s": limits.timeout + 5,
    }


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nobody listens on."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("", 0))
        return [probe.getsockname()[1] for probe in probes]


def _run(serve: ModuleType, replica: Any, settings: ServeSettings) -> None:
    """Start the replicas and wait until they are there."""
    try:
        serve.start(http_options={"host": settings.host, "port": settings.port})
        serve.run(replica.bind(), name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        raise UsageError(
            f"Ray could not start the replicas of {settings.source}",
            hint="'ray status' shows its cores and GPUs, and its logs say the rest",
        ) from error


def _wait_for_signal() -> None:
    """Wait for SIGTERM or SIGINT; Ray has handlers of its own until here, which end the process."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
