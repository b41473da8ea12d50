"""A service in a thread of the test's own process, on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

from raudo.backends.base import Resources
from raudo.serve.core import Service
from raudo.serve.instance import InlineInstance, open_engine
from raudo.serve.rest import create_app
from raudo.serve.settings import Limits
from raudo.serve.telemetry import Telemetry
from raudo.workspace import read_artifact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from raudo.records import Artifact
    from raudo.serve.ab.routing import ShadowRouting, SplitRouting


async def open_inline(artifact: Artifact) -> list[InlineInstance]:
    return [InlineInstance(*open_engine(artifact, Resources()))]


@contextlib.contextmanager
def serving(
    variants: Mapping[str, Path],
    *,
    model: str = "detector",
    experiment: SplitRouting | ShadowRouting | None = None,
) -> Iterator[str]:
    """Serve engine files, by the variants that they run as; yields the address.

    Args:
        variants: Engine file of each variant.
        model: Name of the model.
        experiment: What routes between them.
    """
    import uvicorn

    telemetry = Telemetry()
    if experiment:
        telemetry.follow(experiment)
    service = Service(model, open_inline, Limits(), observer=telemetry.observer, routing=experiment)
    server = uvicorn.Server(uvicorn.Config(create_app(service, telemetry), log_level="warning"))
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))

        async def serve() -> None:
            for variant, engine in variants.items():
                await service.swap(read_artifact(engine), variant=variant)
            await server.serve([door])
            await service.drain()

        thread = threading.Thread(target=asyncio.run, args=[serve()])
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            assert server.started
            yield f"http://127.0.0.1:{door.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
