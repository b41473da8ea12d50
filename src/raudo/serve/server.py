"""A service from its start to its end: engines, ports, signals."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib.util
import logging
import os
import signal
import socket
import struct
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from raudo.config import Settings
from raudo.errors import MissingDependencyError, RaudoError, UsageError
from raudo.machine import available_threads
from raudo.serve import grpc
from raudo.serve.ab.trial import prepare_trial
from raudo.serve.arena import Arena
from raudo.serve.core import Service
from raudo.serve.errors import NotReadyError
from raudo.serve.http import refusal
from raudo.serve.process import ProcessOpener
from raudo.serve.rest import create_app
from raudo.serve.routing import PrimaryOnly
from raudo.serve.settings import Limits
from raudo.serve.telemetry import Telemetry
from raudo.serve.uploads import UploadProtocol
from raudo.serve.versions import Source, load_best

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import uvicorn

    from raudo.serve.records import ModelVersion
    from raudo.workspace import Run

MODULES = ("starlette", "uvicorn", "httptools", "grpc", "prometheus_client", "python_multipart")
TOKEN = "RAUDO_ADMIN_TOKEN"  # noqa: S105 (where the token is found, not the token)
GRACE_SECONDS = 3.0
"""How long clients may use their open connections once the service is asked to end."""
WATCH_SECONDS = 2.0
ACCEPT_SECONDS = 0.1
BACKLOG = 2048
SO_ATTACH_FILTER, BPF_RETURN = 26, 0x06  # linux/socket.h, linux/filter.h

log = logging.getLogger(__name__)


class ServeSettings(Settings):
    """All settings of a service."""

    source: Path = Field(description="Run folder, or engine file")
    target: str | None = Field(default=None, description="The decision of a run to follow")
    host: str = Field(default="127.0.0.1", description="Address to listen on")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(default=8000, description="HTTP port")
    grpc_port: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        default=None, description="gRPC port; None: no gRPC"
    )
    model: Annotated[str, Field(pattern=r"^\w[\w.-]{0,63}$")] = Field(
        default="detector", description="Name that clients know the model by"
    )
    instances: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="Processes that run the engine side by side"
    )
    ab: str | None = Field(default=None, description="baseline=PERCENT: split the requests")
    shadow: str | None = Field(default=None, description="baseline[=PERCENT]: copy requests")
    guards: tuple[str, ...] = Field(default=(), description="FIGURE=LIMIT, when to roll back")
    watch: bool = Field(default=False, description="Serve a new run as soon as it is the latest")
    limits: Limits = Limits()


def serve(settings: ServeSettings) -> None:
    """Serve until a signal ends it; then answer what is under way.

    Raises:
        RaudoError: It cannot start.
    """
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"serving needs {', '.join(missing)}, which is not installed",
            hint="pip install 'raudo[serve]'",
        )
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        level=logging.INFO,
        stream=sys.stderr,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # it would say that it runs too early
    with listening(settings.host, settings.port) as door:
        if importlib.util.find_spec("uvloop"):
            import uvloop

            uvloop.install()
        asyncio.run(Server(settings).run(door))


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Take a port before anything slow happens.

    Raises:
        UsageError: It is not to be had.
    """
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(kind) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((host, port))
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"cannot listen on {host}:{port}: {getattr(error, 'strerror', error)}",
                hint="choose another --port or --host",
            ) from error
        yield door


def deafen(door: socket.socket) -> None:
    """Let no new connection begin, where the system can; those that began are still accepted.

    A socket that is closed at once resets the connections that wait for it, requests and all. The
    filter (see `man 7 socket`, SO_ATTACH_FILTER) drops every packet that comes for a new one. Some
    systems let only root set one: what comes in the very moment of the end is reset there.
    """
    if sys.platform == "linux":
        drop = ctypes.create_string_buffer(struct.pack("@HBBI", BPF_RETURN, 0, 0, 0))
        program = struct.pack("@HP", 1, ctypes.addressof(drop))
        with contextlib.suppress(PermissionError):
            door.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


class Server:
    """One service with its ports."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._source = Source(settings.source, settings.target)
        self._files = self._source.files()  # before anything else starts, or is logged
        self._stop = asyncio.Event()
        self._telemetry = Telemetry()

    async def run(self, door: socket.socket) -> None:
        """Listen, load, serve, drain."""
        settings, arena = self._settings, Arena()
        opener = ProcessOpener(
            settings.instances, available_threads(), settings.limits.max_batch, arena
        )
        observer = self._telemetry.observer
        self._service = service = Service(
            settings.model, opener, settings.limits, observer=observer, allocate=arena.empty
        )
        service.starting = True
        try:
            async with self._listening(door, arena) as serving:
                if await self._unless_stopped(asyncio.create_task(self._load())):
                    address, port = door.getsockname()[:2]
                    log.info("serving %s at http://%s:%d", settings.model, address, port)
                    watching = asyncio.create_task(self._watch()) if settings.watch else None
                    await self._unless_stopped(asyncio.shield(serving))
                    if watching is not None:
                        watching.cancel()
        finally:
            await service.drain()
            self._telemetry.close()
            arena.close()

    async def _load(self) -> None:
        """Load what is to be served, and what it is to be compared with; requests get 503 so far.

        Raises:
            RaudoError: There is nothing to serve, or to compare it with.
        """
        run = self._source.run().folder.name if self._source.is_run else None
        served = await load_best(self._service, self._files, run=run)
        await self._compare(served, self._settings.source)
        self._service.starting = False
        gc.collect()
        gc.freeze()  # what is there now stays: no collection need look at it again

    async def _unless_stopped(self, work: asyncio.Future[None]) -> bool:
        """Wait for some work, and tell whether it came to its end; a signal cancels it."""
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((work, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if work.done():
            work.result()
            return True
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        return False

    async def _compare(self, served: ModelVersion, source: Path) -> None:
        """Start the experiment that was asked for, if one was, with another engine of a source."""
        settings, service = self._settings, self._service
        trial = prepare_trial(
            source,
            served.artifact.path,
            split=settings.ab,
            shadow=settings.shadow,
            guards=settings.guards,
        )
        if trial is None:
            return
        other = await load_best(
            service, [trial.artifact.path], variant=trial.variant, run=served.run
        )
        for version in (served, other):
            trial.routing.model_loaded(version)
        self._telemetry.follow(trial.routing)
        service.routing = trial.routing

    @contextlib.asynccontextmanager
    async def _listening(
        self, door: socket.socket, arena: Arena
    ) -> AsyncIterator[asyncio.Task[None]]:
        """Answer, until the block ends; yields what ends when the HTTP server does."""
        import uvicorn

        service, settings = self._service, self._settings
        swap = self.swap if self._source.is_run else None
        app = create_app(service, self._telemetry, token=os.environ.get(TOKEN), swap=swap)
        protocol = partial(UploadProtocol, settings.limits.body, arena.empty, refusal)
        config = uvicorn.Config(
            app,
            http=protocol,  # type: ignore[arg-type]
            interface="asgi3",
            proxy_headers=False,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            backlog=BACKLOG,
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        http = uvicorn.Server(config)
        http.capture_signals = contextlib.nullcontext  # type: ignore[assignment]
        serving = asyncio.create_task(http.serve([door]))
        try:
            while not (http.started or serving.done()):
                await asyncio.sleep(0.01)
            async with contextlib.AsyncExitStack() as stack:
                if settings.grpc_port is not None:
                    await stack.enter_async_context(
                        grpc.listening(service, settings.host, settings.grpc_port)
                    )
                yield serving
                await self._leave(http, door)
        finally:
            http.should_exit = True
            await serving

    async def _leave(self, http: uvicorn.Server, door: socket.socket) -> None:
        """Take no new connections, and give clients time to leave the open ones."""
        log.info("draining")
        self._service.leave()
        deafen(door)
        await asyncio.sleep(ACCEPT_SECONDS)
        for each in http.servers:
            each.close()
        until = time.monotonic() + GRACE_SECONDS
        while http.server_state.connections and time.monotonic() < until:
            await asyncio.sleep(0.02)

    async def swap(self, name: str) -> ModelVersion:
        """Serve another run from now on.

        Raises:
            NotReadyError: The first one is still being loaded.
            RaudoError: There is none of that name, or nothing in it passed and fits.
        """
        if self._service.starting:
            raise NotReadyError("no engine is loaded")
        return await self._take_over(self._source.named(name))

    async def _take_over(self, run: Run) -> ModelVersion:
        """Serve another run, and compare it with its own baseline if that was asked for."""
        files = self._source.files(run)
        served = await load_best(self._service, files, run=run.folder.name)
        try:
            await self._compare(served, run.folder)
        except RaudoError as error:
            log.error("%s is served, and compared with nothing: %s", served.run, error.message)
            self._telemetry.follow(None)
            self._service.routing = PrimaryOnly()
        return served

    async def _watch(self) -> None:
        """Serve every run that becomes the latest, once it is finished."""
        seen = self._source.run().folder
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                run = self._source.run()
                if run.folder == seen or not run.report.is_file():
                    continue
                seen = run.folder
                await self._take_over(run)
            except RaudoError as error:
                log.error("the latest run is not served: %s", error.message)
                self._service.observer.model_refused("the latest run", error.message)
