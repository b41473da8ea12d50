"""The core without a transport: who gets an answer, from which engine, and who does not."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from null_engines import null_engine
from raudo.backends.base import Resources
from raudo.detector import DEFAULT_SELECTION, open_artifact
from raudo.errors import EngineError
from raudo.serve.core import Service
from raudo.serve.errors import (
    BadRequestError,
    DeadlineError,
    NotFoundError,
    NotReadyError,
    QueueFullError,
    ServeError,
    TooLargeError,
)
from raudo.serve.instance import InlineInstance, Part, Result, copied, open_engine, run_parts
from raudo.serve.observer import Finished, NullObserver
from raudo.serve.records import DetectRequest, InferRequest, ModelVersion, Reply
from raudo.serve.settings import Limits
from raudo.workspace import read_artifact

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path
    from typing import Any

    from raudo.records import Artifact

SIDE = 64
IMAGE = cv2.imencode(".png", np.full((100, 200, 3), 90, np.uint8))[1].tobytes()
LARGE = cv2.imencode(".png", np.zeros((50, 500), np.uint8))[1].tobytes()
BATCH = np.zeros((1, SIDE, SIDE, 3), np.uint8)


class GatedInstance:
    """An engine that waits to be let on, and remembers its batches."""

    def __init__(self, artifact: Artifact) -> None:
        self.detector, self.facts = open_engine(artifact, Resources(batch=8))
        self.gate = asyncio.Event()
        self.gate.set()
        self.batches: list[int] = []
        self.closed = False

    def on_restart(self, tell: Callable[[str], None]) -> None:
        self.tell = tell

    async def run(self, parts: Sequence[Part]) -> list[Result]:
        self.batches.append(sum(len(part.images) for part in parts))
        await self.gate.wait()
        images = np.concatenate([part.images for part in parts])
        return run_parts(self.detector, images, [part.want for part in parts], copied)

    async def close(self) -> None:
        self.closed = True


class Notes(NullObserver):
    """Remembers what the core told."""

    def __init__(self) -> None:
        self.finished: list[Finished] = []
        self.depths: list[int] = []
        self.refused: list[str] = []
        self.unloaded: list[str] = []

    def request_finished(self, finished: Finished) -> None:
        self.finished.append(finished)

    def queue_changed(self, version: ModelVersion, depth: int, limit: int) -> None:
        self.depths.append(depth)

    def model_refused(self, name: str, reason: str) -> None:
        self.refused.append(reason)

    def model_unloaded(self, version: ModelVersion) -> None:
        self.unloaded.append(version.version)


class Scene:
    """A service over engines that tests hold up and let go."""

    def __init__(self, engine: Path, limits: Limits | None = None, routing: Any = None) -> None:
        self.artifact = read_artifact(engine)
        self.instances: list[GatedInstance] = []
        self.notes = Notes()
        self.service = Service(
            "detector", self.open, limits or Limits(), observer=self.notes, routing=routing
        )

    async def open(self, artifact: Artifact) -> list[GatedInstance]:
        self.instances.append(GatedInstance(artifact))
        return self.instances[-1:]

    def infer(self, name: str = "r", **more: Any) -> asyncio.Task[Reply]:
        request = InferRequest(BATCH, name, **more)
        return asyncio.get_running_loop().create_task(self.service.infer(request))


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return null_engine(tmp_path / "e.npz", side=SIDE)


def test_detections_are_those_of_the_detector(engine: Path) -> None:
    async def story() -> None:
        scene = Scene(engine)
        version = await scene.service.swap(scene.artifact, run="yesterday")
        reply = await scene.service.detect(DetectRequest(IMAGE, "a"))
        expected = open_artifact(scene.artifact).detect(
            cv2.imdecode(np.frombuffer(IMAGE, np.uint8), cv2.IMREAD_COLOR)
        )
        (found,) = reply.detections
        np.testing.assert_array_equal(found.boxes, expected.boxes)
        np.testing.assert_array_equal(found.scores, expected.scores)
        assert (reply.id, reply.version, reply.variant) == ("a", "1", "primary")
        assert scene.service.models() == (version,)
        assert reply.stages.total >= reply.stages.infer > 0
        await scene.service.drain()

    run(story())


def test_an_idle_engine_never_waits_and_a_busy_one_fills_batches(engine: Path) -> None:
    async def story() -> None:
        scene = Scene(engine, Limits(max_batch=4, max_delay=0))
        await scene.service.swap(scene.artifact)
        (instance,) = scene.instances
        instance.gate.clear()
        asked = [scene.infer("0")]
        await settle()
        assert instance.batches == [1]
        asked += [scene.infer(str(number)) for number in range(1, 10)]
        await settle()
        instance.gate.set()
        replies = await asyncio.gather(*asked)
        assert instance.batches == [1, 4, 4, 1]
        assert [reply.id for reply in replies] == [str(number) for number in range(10)]
        await scene.service.drain()

    run(story())


def test_only_so_many_may_wait(engine: Path) -> None:
    async def story() -> None:
        scene = Scene(engine, Limits(queue=3, max_batch=1))
        await scene.service.swap(scene.artifact)
        (instance,) = scene.instances
        instance.gate.clear()
        asked = [scene.infer()]
        await settle()
        asked += [scene.infer() for _ in range(3)]
        await settle()
        with pytest.raises(QueueFullError):
            await scene.infer()
        assert max(scene.notes.depths) == 3
        instance.gate.set()
        assert len(await asyncio.gather(*asked)) == 4
        assert scene.notes.depths[-1] == 0
        await scene.service.drain()

    run(story())


def test_who_is_turned_down_is_told_when_those_who_wait_will_be_gone(engine: Path) -> None:
    async def story() -> None:
        scene = Scene(engine, Limits(queue=8, max_batch=2, timeout=30))
        await scene.service.swap(scene.artifact)
        (instance,) = scene.instances
        instance.gate.clear()
        first = scene.infer()
        await settle()
        assert instance.batches == [1]  # it was taken, and now takes more than 50 ms
        await asyncio.sleep(0.06)
        instance.gate.set()
        await first
        instance.gate.clear()
        asked = [scene.infer() for _ in range(2)]
        await settle()
        asked += [scene.infer() for _ in range(8)]
        await settle()
        with pytest.raises(QueueFullError) as refused:
            await scene.infer()
        assert 4 * 0.05 <= refused.value.retry_after <= 30
        instance.gate.set()
        await asyncio.gather(*asked)
        await scene.service.drain()

    run(story())


def test_a_deadline_ends_before_the_engine_and_the_client_can_leave(engine: Path) -> None:
    async def story() -> None:
        scene = Scene(engine, Limits(max_batch=1))
        await scene.service.swap(scene.artifact)
        (instance,) = scene.instances
        instance.gate.clear()
        under_way = scene.infer()
        await settle()
        late, gone = scene.infer(timeout=0.01), scene.infer()
        with pytest.raises(DeadlineError):
            await late
        gone.cancel()
        instance.gate.set()
        await under_way
        await scene.infer()
        assert instance.batches == [1, 1], "neither reached the engine"
        codes = [finished.code for finished in scene.notes.finished]
        assert sorted(codes) == ["cancelled", "deadline", "ok", "ok"]
        assert scene.notes.depths[-1] == 0
        await scene.service.drain()

    run(story())


def test_a_request_that_comes_too_late_never_reaches_an_idle_engine(engine: Path) -> None:
    async def story() -> None:
        scene = Scene(engine)
        await scene.service.swap(scene.artifact)
        with pytest.raises(DeadlineError):
            await scene.infer(timeout=1e-9)
        assert scene.instances[0].batches == []
        assert scene.notes.depths[-1] == 0
        await scene.service.drain()

    run(story())


def test_a_deadline_ends_the_wait_for_somebody_to_decode(engine: Path) -> None:
    async def story() -> None:
        scene, busy = Scene(engine, Limits(decoders=1)), threading.Event()
        await scene.service.swap(scene.artifact)
        scene.service._preparer._pool.submit(busy.wait)
        with pytest.raises(DeadlineError):
            await scene.service.detect(DetectRequest(IMAGE, "r", timeout=0.05))
        busy.set()
        await scene.service.drain()
        assert scene.instances[0].batches == []
        assert [finished.code for finished in scene.notes.finished] == ["deadline"]

    run(story())


def test_a_service_takes_nothing_before_all_of_it_is_loaded(engine: Path) -> None:
    async def story() -> None:
        scene = Scene(engine)
        scene.service.starting = True
        await scene.service.swap(scene.artifact)
        assert not scene.service.ready()
        with pytest.raises(NotReadyError):
            await scene.infer()
        scene.service.starting = False
        assert scene.service.ready()
        assert (await scene.infer()).version == "1"
        await scene.service.drain()

    run(story())


def test_a_swap_loses_no_request_and_frees_the_old_engine(engine: Path) -> None:
    async def story() -> None:
        scene = Scene(engine)
        await scene.service.swap(scene.artifact)
        scene.instances[0].gate.clear()
        before = [scene.infer() for _ in range(5)]
        await settle()
        await scene.service.swap(scene.artifact)
        assert (await scene.infer()).version == "2"
        assert not scene.instances[0].closed
        scene.instances[0].gate.set()
        assert {reply.version for reply in await asyncio.gather(*before)} == {"1"}
        await scene.service.drain()
        assert all(instance.closed for instance in scene.instances)
        assert scene.notes.unloaded == ["1", "2"]

    run(story())


def test_an_engine_that_does_not_fit_leaves_the_one_before_in_place(engine: Path) -> None:
    async def story() -> None:
        scene = Scene(engine)
        await scene.service.swap(scene.artifact)

        async def refuse(artifact: Artifact) -> list[GatedInstance]:
            raise EngineError("made for another GPU", hint="make it again")

        scene.service._opener = refuse
        with pytest.raises(EngineError):
            await scene.service.swap(scene.artifact)
        assert scene.notes.refused == ["made for another GPU"]
        assert (await scene.infer()).version == "1"
        await scene.service.drain()

    run(story())


def test_draining_answers_what_is_under_way_and_takes_nothing_new(engine: Path) -> None:
    async def story() -> None:
        scene = Scene(engine)
        assert not scene.service.ready()
        with pytest.raises(NotReadyError):
            await scene.infer()
        await scene.service.swap(scene.artifact)
        assert scene.service.ready()
        assert scene.service.ready("1")
        assert not scene.service.ready("2")
        scene.instances[0].gate.clear()
        asked = [scene.infer() for _ in range(5)]
        await settle()
        draining = asyncio.ensure_future(scene.service.drain())
        await settle()
        assert not scene.service.ready()
        with pytest.raises(NotReadyError):
            await scene.infer()
        scene.instances[0].gate.set()
        assert len(await asyncio.gather(*asked)) == 5
        await draining

    run(story())


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (InferRequest(np.zeros((1, 32, 64, 3), np.uint8), "r"), BadRequestError),
        (InferRequest(np.zeros((0, 64, 64, 3), np.uint8), "r"), BadRequestError),
        (InferRequest(np.zeros((9, 64, 64, 3), np.uint8), "r"), BadRequestError),
        (InferRequest((b"no image",), "r"), BadRequestError),
        (InferRequest((), "r"), BadRequestError),
        (InferRequest((IMAGE,), "r", version="7"), NotFoundError),
        (
            InferRequest((cv2.imencode(".png", np.zeros((50, 500)))[1].tobytes(),), "r"),
            TooLargeError,
        ),
    ],
)
def test_what_makes_no_sense_is_refused(
    engine: Path, request_: InferRequest, error: type[ServeError]
) -> None:
    async def story() -> None:
        scene = Scene(engine, Limits(pixels=20_000))
        await scene.service.swap(scene.artifact)
        with pytest.raises(error):
            await scene.service.infer(request_)
        await scene.service.drain()
        assert scene.instances[0].batches == []
        assert [finished.code for finished in scene.notes.finished] == [error.code]

    run(story())


class Following:
    """Routing to the primary, with a copy of everything to the baseline."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Reply, Reply]] = []

    def choose(self, request_id: str) -> str:
        return "baseline" if request_id == "split" else "primary"

    def shadow(self, request_id: str) -> str | None:
        return "baseline"

    def compare(self, served: Reply, shadow: Reply) -> None:
        self.pairs.append((served, shadow))


def test_a_shadow_gets_the_same_request_and_nobody_waits_for_it(engine: Path) -> None:
    async def story() -> None:
        scene = Scene(engine, routing=Following())
        await scene.service.swap(scene.artifact)
        await scene.service.swap(scene.artifact, variant="baseline")
        baseline = scene.instances[1]
        baseline.gate.clear()
        reply = await scene.service.infer(
            InferRequest(BATCH, "r", raw=False, selection=DEFAULT_SELECTION)
        )
        baseline.gate.set()
        assert (await scene.infer("split")).variant == "baseline"
        await scene.service.drain()
        first = scene.service.routing.pairs[0]
        assert [one.variant for one in first] == ["primary", "baseline"]
        assert first[0] is reply
        assert [f.shadow for f in scene.notes.finished if f.id == "r"] == [False, True]

    run(story())


def test_a_shadow_compares_detections_that_the_client_never_asked_for(engine: Path) -> None:
    async def story() -> None:
        scene = Scene(engine, routing=Following())
        await scene.service.swap(scene.artifact)
        await scene.service.swap(scene.artifact, variant="baseline")
        reply = await scene.infer()
        await scene.service.drain()
        assert reply.outputs is not None
        assert reply.detections == ()
        ((served, shadow),) = scene.service.routing.pairs
        assert len(served.detections[0]) == len(shadow.detections[0]) == 3

    run(story())


def test_an_inline_engine_runs_in_a_thread_of_its_own(engine: Path) -> None:
    async def story() -> None:
        instance = InlineInstance(*open_engine(read_artifact(engine), Resources(batch=2)))
        parts = [Part(BATCH, raw=True, selection=None), Part(BATCH, False, DEFAULT_SELECTION)]
        raw, found = await instance.run(parts)
        assert raw.outputs is not None
        assert raw.detections == ()
        assert found.outputs is None
        assert len(found.detections) == 1
        await instance.close()
        assert not [t for t in threading.enumerate() if t.name.startswith("raudo-engine")]

    run(story())
