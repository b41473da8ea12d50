"""All that watches a service, and what it answers when asked: metrics, curves, the experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import raudo
from raudo.serve.errors import NotFoundError
from raudo.serve.live import LiveCurves, LiveState
from raudo.serve.metrics import ExperimentCollector, ServiceMetrics, create_registry
from raudo.serve.observer import Observers

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from raudo.serve.ab.records import Experiment
    from raudo.serve.ab.routing import ShadowRouting, SplitRouting
    from raudo.serve.core import Service

PAGE = Path(__file__).parent / "page"
LOOK = Path(__file__).parents[1] / "reports" / "look.css"
FILES = {file.name: file for file in (*PAGE.iterdir(), LOOK)}
"""What the page is made of; nothing else can be asked for, so no name becomes a path."""

TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",
}
"""The page loads from its own service only, and nothing may frame it."""


class Telemetry:
    """The observers of one service."""

    def __init__(self) -> None:
        self.registry = create_registry()
        self._curves = LiveCurves()
        self._experiment: SplitRouting | ShadowRouting | None = None
        self.registry.register(ExperimentCollector(self.experiment))
        self.observer = Observers(ServiceMetrics(self.registry), self._curves)

    def follow(self, experiment: SplitRouting | ShadowRouting | None) -> None:
        """Let an experiment hear of the requests that it routes, and show it; no other any more."""
        if self._experiment:
            self.observer.remove(self._experiment)
        self._experiment = experiment
        if experiment:
            self.observer.add(experiment)

    def close(self) -> None:
        """Keep what the experiment knows."""
        if self._experiment:
            self._experiment.close()

    def experiment(self) -> Experiment | None:
        """Return the experiment as it is now; None if there is none."""
        return self._experiment.comparison.state() if self._experiment else None

    def live(self, service: Service) -> LiveState:
        """Return what the page shows of a service."""
        return LiveState(
            raudo=raudo.__version__,
            model=service.model,
            ready=service.ready(),
            versions=tuple(self._curves.version(each) for each in service.models()),
            moments=self._curves.moments(),
            experiment=self.experiment(),
        )

    def routes(self, service: Service) -> list[Route]:
        """Return the page, `/metrics`, `/v1/live` and `/v1/ab` of a service."""
        from prometheus_client.exposition import choose_encoder
        from starlette.responses import Response
        from starlette.routing import Route

        files = {name: (file.read_bytes(), TYPES[file.suffix]) for name, file in FILES.items()}

        async def page(request: Request) -> Response:
            name = request.path_params.get("name", "index.html")
            if name not in files:
                raise NotFoundError("the page has no such file")
            content, kind = files[name]
            return Response(content, headers=HEADERS, media_type=kind)

        async def metrics(request: Request) -> Response:
            encode, kind = choose_encoder(request.headers.get("accept", ""))
            return Response(encode(self.registry), headers={"Content-Type": kind})

        async def live(_: Request) -> Response:
            return Response(self.live(service).model_dump_json(), media_type="application/json")

        async def experiment(_: Request) -> Response:
            state = self.experiment()
            if state is None:
                raise NotFoundError("no experiment runs: start with --ab or --shadow")
            return Response(state.model_dump_json(), media_type="application/json")

        return [
            Route("/", page),
            Route("/page/{name}", page),
            Route("/metrics", metrics),
            Route("/v1/live", live),
            Route("/v1/ab", experiment),
        ]
