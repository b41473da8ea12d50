"""The service itself, which knows no transport: requests in, replies out."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from raudo.detector import DEFAULT_SELECTION
from raudo.errors import RaudoError
from raudo.records import Detections
from raudo.serve.arena import private
from raudo.serve.deployment import Deployment
from raudo.serve.errors import NotFoundError, NotReadyError, QueueFullError, ServeError
from raudo.serve.instance import Part
from raudo.serve.observer import Finished, NullObserver, Observers
from raudo.serve.preparing import Preparer
from raudo.serve.records import PRIMARY, InferRequest, ModelVersion, Reply, Stages
from raudo.serve.routing import PrimaryOnly
from raudo.serve.statistics import Statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from raudo.images import Fit
    from raudo.records import Artifact
    from raudo.serve.instance import Instance
    from raudo.serve.observer import Method, Observer
    from raudo.serve.records import DetectRequest
    from raudo.serve.routing import Routing
    from raudo.serve.settings import Limits


class Opener(Protocol):
    """Loads an engine, as often as it shall run side by side."""

    async def __call__(self, artifact: Artifact) -> Sequence[Instance]:
        """Load it and try it once.

        Raises:
            RaudoError: It cannot run here.
        """


class Service:
    """Serves one model, in one or more variants; all of it belongs to one event loop.

    Attributes:
        starting: Whether something that it needs is still being loaded.
        leaving: Whether clients should go elsewhere with their next request.

    Args:
        model: Name that clients know it by.
        opener: Loads engines.
        limits: What bounds the service.
        observer: Told of everything that happens; None: nobody is.
        routing: Chooses the variant of each request; None: the primary answers all.
        allocate: Returns memory for so many bytes, where images are decoded to.
    """

    def __init__(
        self,
        model: str,
        opener: Opener,
        limits: Limits,
        *,
        observer: Observer | None = None,
        routing: Routing | None = None,
        allocate: Callable[[int], NDArray[np.uint8]] = private,
    ) -> None:
        self.model = model
        self.limits = limits
        self.statistics = Statistics()
        self.observer: Observer = Observers(self.statistics, observer or NullObserver())
        self.routing: Routing = routing or PrimaryOnly()
        self._opener = opener
        self._preparer = Preparer(limits, allocate)
        self._deployments: dict[str, Deployment] = {}
        self._loaded = 0
        self._draining = self.leaving = self.starting = False
        self._background: set[asyncio.Task[None]] = set()

    def ready(self, version: str | None = None) -> bool:
        """Tell whether requests are taken, by a certain version or at all."""
        versions = {model.version for model in self.models()}
        taken = bool(versions) if version is None else version in versions
        return taken and not self.leaving and not self.starting

    def models(self) -> tuple[ModelVersion, ...]:
        """Return the versions that take requests, the primary variant first."""
        return tuple(deployment.version for deployment in self._deployments.values())

    def check(self) -> None:
        """Tell early that a request would be turned down, before its body is read.

        Raises:
            NotReadyError: No engine is loaded yet, or the service drains.
            QueueFullError: As many wait in every variant as may wait.
        """
        if self._draining or self.starting or not self._deployments:
            raise NotReadyError("the service drains" if self._draining else "no engine is loaded")
        deployments = self._deployments.values()
        if all(deployment.full for deployment in deployments):
            soonest = min(deployment.drain_seconds for deployment in deployments)
            raise QueueFullError("as many requests wait as may wait", retry_after=soonest)

    def turned_down(self, method: Method, request_id: str, error: ServeError, start: float) -> None:
        """Tell the observer of a request that was turned down before a variant was chosen.

        Args:
            method: What was asked for.
            request_id: The request's id.
            error: Why.
            start: When it came, by `time.monotonic`.
        """
        error.told = True
        self.observer.rejected(error.code, None)
        seconds = time.monotonic() - start
        self.observer.request_finished(Finished(request_id, method, error.code, seconds))

    async def swap(
        self, artifact: Artifact, *, variant: str = PRIMARY, run: str | None = None
    ) -> ModelVersion:
        """Load an engine, then let it take over a variant; what was under way ends where it began.

        Raises:
            RaudoError: It cannot run here; the variant stays what it was.
        """
        try:
            instances = await self._opener(artifact)
        except RaudoError as error:
            self.observer.model_refused(artifact.manifest.name, error.message)
            raise
        self._loaded += 1
        facts = instances[0].facts
        version = ModelVersion(
            str(self._loaded), variant, artifact, run, facts.batch, facts.rectangles
        )
        before = self._deployments.get(variant)
        loaded = Deployment(version, instances, self.limits, self.observer)
        others = {name: d for name, d in self._deployments.items() if name != variant}
        first = variant == PRIMARY
        self._deployments = {variant: loaded, **others} if first else {**others, variant: loaded}
        self.observer.model_loaded(version)
        if before is not None:
            self._start(self._retire(before))
        return version

    async def remove(self, variant: str) -> None:
        """Let a variant take no more requests, and free it; the routing must not choose it again.

        Raises:
            NotFoundError: There is no such variant.
        """
        if variant not in self._deployments:
            raise NotFoundError(f"there is no variant {variant!r}")
        await self._retire(self._deployments.pop(variant))

    def leave(self) -> None:
        """Say that the end is near: not ready any more, but answering still."""
        self.leaving = True

    async def drain(self) -> None:
        """Take nothing new, answer what is under way, then free everything."""
        self._draining = self.leaving = True
        await asyncio.gather(*(self._retire(d) for d in self._deployments.values()))
        await asyncio.gather(*self._background, return_exceptions=True)
        self._deployments.clear()
        self._preparer.close()

    async def _retire(self, deployment: Deployment) -> None:
        await deployment.close()
        self.observer.model_unloaded(replace(deployment.version, ready=False))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def detect(self, request: DetectRequest) -> Reply:
        """Detect in one encoded image; detections are in its own pixels.

        Raises:
            ServeError: It got no answer; the class says why.
        """
        batch = InferRequest(
            images=(request.image,),
            id=request.id,
            raw=False,
            selection=request.selection,
            timeout=request.timeout,
            version=request.version,
        )
        return await self._serve("detect", batch)

    async def infer(self, request: InferRequest) -> Reply:
        """Run a batch of images.

        Raises:
            ServeError: It got no answer; the class says why.
        """
        return await self._serve("infer", request)

    async def _serve(self, method: Method, request: InferRequest) -> Reply:
        start = time.monotonic()
        try:
            self.check()
            deployment = self._choose(request)
        except ServeError as error:
            self.turned_down(method, request.id, error, start)
            raise
        follower = self.routing.shadow(request.id)
        compared = follower is not None and request.selection is None
        asked = replace(request, selection=DEFAULT_SELECTION) if compared else request
        reply = await self._observed(method, asked, deployment, shadow=False)
        if follower is not None and not self._draining:
            self._start(self._follow(method, asked, follower, reply))
        return replace(reply, detections=()) if compared else reply

    def _choose(self, request: InferRequest) -> Deployment:
        if request.version is None:
            return self._deployments[self.routing.choose(request.id)]
        for deployment in self._deployments.values():
            if deployment.version.version == request.version:
                return deployment
        raise NotFoundError(f"there is no version {request.version!r}")

    async def _follow(
        self, method: Method, request: InferRequest, variant: str, served: Reply
    ) -> None:
        deployment = self._deployments.get(variant)
        if deployment is None:
            return  # it was removed since
        try:
            shadow = await self._observed(method, request, deployment, shadow=True)
        except ServeError:
            return  # the observer knows; no client waits for it
        self.routing.compare(served, shadow)

    async def _observed(
        self, method: Method, request: InferRequest, deployment: Deployment, *, shadow: bool
    ) -> Reply:
        start, version = time.monotonic(), deployment.version
        code, stages = "internal", None
        try:
            reply = await self._answer(request, deployment, start)
            code, stages = "ok", reply.stages
            if reply.detections:
                _soon(self.observer.detected, version, reply.detections)
            return reply
        except ServeError as error:
            code, error.told = error.code, True
            self.observer.rejected(code, version.variant)
            raise
        except asyncio.CancelledError:
            code = "cancelled"
            raise
        finally:
            finished = Finished(
                id=request.id,
                method=method,
                code=code,
                seconds=time.monotonic() - start,
                stages=stages,
                variant=version.variant,
                version=version.version,
                shadow=shadow,
                images=len(request.images),
            )
            _soon(self.observer.request_finished, finished)

    async def _answer(self, request: InferRequest, deployment: Deployment, start: float) -> Reply:
        limit = self.limits.timeout if request.timeout is None else request.timeout
        version = deployment.version
        with deployment.admit() as place:
            prepared, fits = await self._preparer.prepare(request, version, start + limit)
            decoded = time.monotonic()
            part = Part(prepared, request.raw, request.selection)
            taken, result = await deployment.run(part, start + limit, place)
        stages = Stages(
            decode=decoded - start,
            queue=taken - decoded,
            infer=result.infer,
            select=result.select,
            total=time.monotonic() - start,
            batch=result.batch,
        )
        detections = _in_images(result.detections, fits)
        return Reply(
            id=request.id,
            model=self.model,
            version=version.version,
            variant=version.variant,
            classes=version.spec.classes,
            stages=stages,
            detections=detections,
            outputs=result.outputs,
        )


def _soon(tell: Callable[..., None], *what: object) -> None:
    """Tell an observer as soon as the reply is on its way, so that the client does not wait."""
    asyncio.get_running_loop().call_soon(tell, *what)


def _in_images(found: tuple[Detections, ...], fits: tuple[Fit, ...]) -> tuple[Detections, ...]:
    """Map detections from the engine's pixels to those of the images, where they came encoded."""
    if not fits or not found:
        return found
    return tuple(
        Detections(fit.to_image(one.boxes), one.scores, one.labels)
        for one, fit in zip(found, fits, strict=True)
    )
