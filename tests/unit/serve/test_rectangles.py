"""One network, several input rectangles: each request is answered by the engine that fits it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from null_engines import mixed_engine
from raudo.backends.base import Resources
from raudo.detector import open_artifact
from raudo.serve import oip
from raudo.serve.arena import Arena
from raudo.serve.batching import Line, Waiting
from raudo.serve.core import Service
from raudo.serve.errors import BadRequestError
from raudo.serve.instance import InlineInstance, Part, open_engine
from raudo.serve.process import ProcessOpener
from raudo.serve.records import DetectRequest, InferRequest
from raudo.serve.settings import Limits
from raudo.workspace import read_artifact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from raudo.records import Artifact
    from raudo.serve.instance import Instance

OWN, WIDE, TALL = (64, 64), (32, 64), (64, 32)
FRAMES = {WIDE: (90, 200), TALL: (200, 90), OWN: (200, 200)}


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return read_artifact(mixed_engine(tmp_path / "mixed.npz", (OWN, WIDE, TALL)))


async def inline(artifact: Artifact) -> Sequence[Instance]:
    return [InlineInstance(*open_engine(artifact, Resources(batch=4)))]


@contextlib.asynccontextmanager
async def serving(artifact: Artifact) -> AsyncIterator[Service]:
    service = Service("detector", inline, Limits())
    await service.swap(artifact)
    yield service
    await service.drain()


def picture(size: tuple[int, int]) -> tuple[bytes, NDArray[np.uint8]]:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    return cv2.imencode(".png", image)[1].tobytes(), image


def batch(size: tuple[int, int], count: int = 1) -> NDArray[np.uint8]:
    return np.zeros((count, *size, 3), np.uint8)


@pytest.mark.parametrize("size", FRAMES)
def test_detections_are_those_of_the_detector(artifact: Artifact, size: tuple[int, int]) -> None:
    file, image = picture(FRAMES[size])

    async def story() -> None:
        arena = Arena()
        service = Service("detector", ProcessOpener(1, 1, 4, arena), Limits(), allocate=arena.empty)
        await service.swap(artifact)
        (found,) = (await service.detect(DetectRequest(file, "a"))).detections
        with open_artifact(artifact) as detector:
            expected, outputs = detector.detect(image), detector.engine.run(batch(size))
        assert len(found) > 0
        np.testing.assert_array_equal(found.boxes, expected.boxes)
        np.testing.assert_array_equal(found.scores, expected.scores)
        raw = (await service.infer(InferRequest(batch(size, 2), "b"))).outputs
        assert raw is not None
        np.testing.assert_array_equal(raw.boxes[1], outputs.boxes[0])
        await service.drain()
        arena.close()

    run(story())


def test_images_of_one_request_take_the_rectangle_that_holds_them_all(artifact: Artifact) -> None:
    wide, tall = picture(FRAMES[WIDE])[0], picture(FRAMES[TALL])[0]

    async def story() -> None:
        async with serving(artifact) as service:
            own = (await service.infer(InferRequest(batch(OWN), "a"))).outputs
            both = (await service.infer(InferRequest((wide, tall), "b"))).outputs
            assert own is not None
            assert both is not None
            np.testing.assert_array_equal(both.boxes[1], own.boxes[0])

    run(story())


def test_a_tensor_of_no_rectangle_is_refused_and_told_of_all(artifact: Artifact) -> None:
    async def story() -> None:
        async with serving(artifact) as service:
            with pytest.raises(BadRequestError) as refused:
                await service.infer(InferRequest(batch((48, 64)), "a"))
            for height, width in FRAMES:
                assert f"[n, {height}, {width}, 3]" in refused.value.hint

    run(story())


def test_metadata_and_configuration_tell_of_all(artifact: Artifact) -> None:
    async def story() -> None:
        async with serving(artifact) as service:
            (version,) = service.models()
            inputs = oip.metadata(service, version)["inputs"]
            assert inputs[0]["shape"] == [-1, -1, -1, 3]
            told = oip.configuration(service, version)["parameters"]["rectangles"]
            assert json.loads(told["string_value"]) == [[64, 64], [32, 64], [64, 32]]

    run(story())


def test_a_batch_has_one_size_and_everyone_else_keeps_the_place() -> None:
    async def story() -> None:
        line = Line()
        sizes = [WIDE, TALL, WIDE, OWN, TALL, WIDE]
        for size in sizes:
            line.put(Waiting(Part(batch(size), True, None), 1e12, lambda: None))
        taken = [line.take(2), line.take(1, WIDE), line.take(8), line.take(8)]
        found = [[waiting.part.size for waiting in each] for each in taken]
        assert found == [[WIDE, WIDE], [WIDE], [TALL, TALL], [OWN]]
        assert not line.take(8)

    run(story())
