"""Each image goes to the smallest rectangle that holds it, alone or in a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from null_engines import mixed_engine, part, spec_of
from raudo.backends.null import NullEngine, canned
from raudo.detector import load
from raudo.errors import DataError, EngineError
from raudo.images import fit
from raudo.rectangles import RectanglesEngine, smallest

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

OWN, WIDE, TALL = (64, 64), (32, 64), (64, 32)
FRAMES = {WIDE: (90, 200), TALL: (200, 90), OWN: (200, 200)}


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """An engine of three rectangles."""
    return mixed_engine(tmp_path / "mixed.npz", (OWN, WIDE, TALL))


def frame(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


@pytest.mark.parametrize("size", FRAMES)
def test_an_image_keeps_its_scale_in_the_smallest(size: tuple[int, int]) -> None:
    specs = [spec_of(each) for each in (OWN, WIDE, TALL)]
    chosen = smallest([FRAMES[size]], specs)
    assert (chosen.height, chosen.width) == size
    assert fit(*FRAMES[size], chosen).scale_x == fit(*FRAMES[size], specs[0]).scale_x


def test_one_batch_takes_the_rectangle_that_holds_all_of_it() -> None:
    specs = [spec_of(each) for each in (OWN, WIDE, TALL)]
    assert smallest([FRAMES[WIDE], FRAMES[TALL]], specs) == specs[0]
    assert smallest([FRAMES[WIDE], FRAMES[WIDE]], specs) == specs[1]


@pytest.mark.parametrize("size", FRAMES)
def test_it_detects_what_the_engine_of_that_rectangle_detects(
    engine: Path, size: tuple[int, int]
) -> None:
    alone = engine.with_name(f"null@{size[0]}x{size[1]}.npz")
    with load(engine) as mixed, load(alone) as single:
        ours, theirs = (d.detect(frame(FRAMES[size])) for d in (mixed, single))
    assert len(ours) > 0
    assert np.array_equal(ours.boxes, theirs.boxes)
    assert np.array_equal(ours.scores, theirs.scores)


def test_a_mixed_batch_finds_what_one_by_one_finds(engine: Path) -> None:
    frames = [frame(FRAMES[size], n) for n, size in enumerate((WIDE, TALL, WIDE, OWN, TALL))]
    with load(engine) as detector:
        together = detector.detect_batch(frames)
        for ours, image in zip(together, frames, strict=True):
            theirs = detector.detect(image)
            assert np.array_equal(ours.boxes, theirs.boxes)
            assert np.array_equal(ours.labels, theirs.labels)


def test_memory_is_that_of_the_engine_of_the_rectangle() -> None:
    class Named(NullEngine):
        def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
            return np.full(shape, self.spec.height, np.uint8)

    mixed = RectanglesEngine([Named(s, canned(s)) for s in map(spec_of, (OWN, WIDE, TALL))])
    for size in (OWN, WIDE, TALL):
        batch = mixed.empty((2, *size, 3))
        assert batch.shape == (2, *size, 3)
        assert (batch == size[0]).all()


def test_what_is_no_image_is_refused_before_it_has_a_shape(engine: Path) -> None:
    with load(engine) as detector, pytest.raises(DataError, match="an image must be uint8"):
        detector.detect(np.zeros(5, np.uint8))


def test_a_batch_of_no_rectangle_is_refused(engine: Path) -> None:
    with load(engine) as detector, pytest.raises(EngineError, match=r"64, 64, 3.*48, 64, 3"):
        detector.engine.run(np.zeros((1, 48, 64, 3), np.uint8))


def test_an_engine_of_another_model_is_no_rectangle_of_it(engine: Path) -> None:
    part(engine.parent, TALL, source="1" * 64)
    with pytest.raises(EngineError, match="no engine of the same network"):
        load(engine)


def test_a_missing_rectangle_is_told(engine: Path) -> None:
    engine.with_name("null@64x32.npz").unlink()
    with pytest.raises(EngineError, match="no such engine file"):
        load(engine)
