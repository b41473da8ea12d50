"""Engines in processes of their own: the same results, and they may be killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import psutil
import pytest

from null_engines import null_engine
from raudo.backends.base import Resources
from raudo.detector import DEFAULT_SELECTION, open_artifact
from raudo.errors import EngineError
from raudo.serve import gpus
from raudo.serve.arena import Arena
from raudo.serve.core import Service
from raudo.serve.instance import Part
from raudo.serve.observer import NullObserver
from raudo.serve.process import ProcessInstance, ProcessOpener
from raudo.serve.records import InferRequest, ModelVersion
from raudo.serve.settings import Limits
from raudo.workspace import read_artifact

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from pathlib import Path

    from raudo.records import Artifact
    from raudo.serve.records import Reply

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX: hands over descriptors")
SIDE = 64
BATCH = np.zeros((2, SIDE, SIDE, 3), np.uint8)


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena(slots=2, size=1 << 16)
    yield arena
    arena.close()


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return read_artifact(null_engine(tmp_path / "e.npz", side=SIDE))


class Restarts(NullObserver):
    """Remembers why engines were started again."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def worker_restarted(self, version: ModelVersion, reason: str) -> None:
        self.reasons.append(reason)


def test_results_are_those_of_the_engine_itself(artifact: Artifact, arena: Arena) -> None:
    detector = open_artifact(artifact)
    expected = detector.engine.run(BATCH)

    async def story() -> None:
        (instance,) = await ProcessOpener(1, 1, 4, arena)(artifact)
        assert instance.facts.batch == 4
        assert instance.facts.rectangles[0].outputs["scores"] == ("<f4", (100, 2))
        parts = [Part(BATCH[:1], False, DEFAULT_SELECTION), Part(BATCH, True, None)]
        found, raw = await instance.run(parts)
        assert found.outputs is None
        np.testing.assert_array_equal(found.detections[0].boxes, detector.detect(BATCH[0]).boxes)
        assert raw.outputs is not None
        assert raw.batch == 3
        np.testing.assert_array_equal(raw.outputs.boxes, expected.boxes)
        np.testing.assert_array_equal(raw.outputs.scores, expected.scores)
        pid = instance.pid
        await instance.close()
        assert not psutil.pid_exists(pid)

    run(story())


def test_images_reach_the_engine_as_they_are(tiny_artifact: Artifact, arena: Arena) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
    expected = open_artifact(tiny_artifact).engine.run(images)

    async def story() -> None:
        instance = ProcessInstance(tiny_artifact, Resources(batch=4), arena)
        await instance.start()
        shared = arena.empty(images.nbytes + 7)[7:].reshape(images.shape)
        shared[:] = images
        assert arena.place(shared) is not None
        (whole,) = await instance.run([Part(shared, True, None)])
        assert whole.outputs is not None
        np.testing.assert_allclose(whole.outputs.scores, expected.scores, rtol=0, atol=1e-6)
        for one, others in ((images, images), (shared, images), (images, shared)):
            parts = [Part(one[:1], True, None), Part(others[1:], True, None)]
            first, second = [r.outputs for r in await instance.run(parts)]
            assert first is not None
            assert second is not None
            scores = np.concatenate([first.scores, second.scores])
            np.testing.assert_allclose(scores, expected.scores, rtol=0, atol=1e-6)
        await instance.close()

    run(story())


def test_many_at_once_get_what_is_in_their_own_images(tiny_artifact: Artifact) -> None:
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(24)]
    files = [cv2.imencode(".png", picture)[1].tobytes() for picture in pictures]
    engine = open_artifact(tiny_artifact).engine
    expected = [engine.run(picture[None]).scores for picture in pictures]

    async def story() -> None:
        arena = Arena()
        opener, limits = ProcessOpener(1, 1, 4, arena), Limits(timeout=60)
        service = Service("detector", opener, limits, allocate=arena.empty)
        await service.swap(tiny_artifact)
        requests = [InferRequest((file,), str(n)) for n, file in enumerate(files)]
        replies = await asyncio.gather(*(service.infer(request) for request in requests))
        for reply, scores in zip(replies, expected, strict=True):
            assert reply.outputs is not None
            np.testing.assert_allclose(reply.outputs.scores, scores, rtol=0, atol=1e-6)
        await service.drain()
        arena.close()

    run(story())


@pytest.mark.slow
def test_killing_engines_fails_no_request(artifact: Artifact, arena: Arena) -> None:
    async def story() -> None:
        observer, opener = Restarts(), ProcessOpener(1, 1, 4, arena)
        instances: list[ProcessInstance] = []

        async def opened(artifact: Artifact) -> list[ProcessInstance]:
            instances.extend(await opener(artifact))
            return instances

        limits = Limits(queue=1000, timeout=30)
        service = Service("detector", opened, limits, observer=observer)
        await service.swap(artifact)
        (instance,) = instances

        async def client(number: int) -> list[Reply]:
            request = InferRequest(BATCH[:1], str(number))
            return [await service.infer(request) for _ in range(40)]

        clients = [asyncio.ensure_future(client(number)) for number in range(8)]
        for _ in range(2):
            await asyncio.sleep(0.02)
            before = instance.pid
            os.kill(before, signal.SIGKILL)
            while instance.pid == before:
                await asyncio.sleep(0.01)
            await service.infer(InferRequest(BATCH[:1], "after"))
        replies = await asyncio.gather(*clients)
        assert sum(map(len, replies)) == 320
        assert [reason.split(" (")[0] for reason in observer.reasons] == ["was killed"] * 2
        await service.drain()

    run(story())


def test_engines_for_gpus_share_them_out(
    artifact: Artifact, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def seen(device: str) -> list[str | None]:
        made_for = artifact.manifest.model_copy(update={"device": device})
        started = await ProcessOpener(3, 1, 1, arena)(replace(artifact, manifest=made_for))
        environments = [psutil.Process(each.pid).environ() for each in started]
        await asyncio.gather(*(each.close() for each in started))
        return [environment.get(gpus.VISIBLE) for environment in environments]

    monkeypatch.setenv(gpus.VISIBLE, "GPU-a, GPU-b")
    assert asyncio.run(seen("gpu")) == ["GPU-a", "GPU-b", "GPU-a"]
    assert asyncio.run(seen("cpu")) == ["GPU-a, GPU-b"] * 3
    monkeypatch.setenv(gpus.VISIBLE, "3")
    assert asyncio.run(seen("gpu")) == ["3"] * 3


def test_an_engine_that_cannot_open_leaves_no_process(artifact: Artifact, arena: Arena) -> None:
    async def story() -> None:
        artifact.path.write_bytes(b"no engine")
        before = set(psutil.Process().children())
        with pytest.raises(EngineError, match="canned outputs"):
            await ProcessOpener(1, 1, 1, arena)(artifact)
        assert set(psutil.Process().children()) == before

    run(story())
