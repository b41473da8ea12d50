"""Detections are kept whole on the disk, and what is known is not done again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from raudo.measuring import evaluate as evaluating
from raudo.measuring.evaluate import (
    CHUNK,
    PROBED_IMAGES,
    evaluate,
    load_detections,
    save_detections,
)
from raudo.records import Detections

if TYPE_CHECKING:
    import pytest


def found(count: int, seed: int = 0) -> Detections:
    random = np.random.default_rng(seed)
    return Detections(
        random.uniform(0, 99, (count, 4)).astype(np.float32),
        random.uniform(0, 1, count).astype(np.float32),
        random.integers(0, 80, count),
    )


@settings(max_examples=30)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_detections_survive_their_file(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("kept") / "found.npz"
    kept = [found(count, seed) for seed, count in enumerate(counts)]
    save_detections(path, kept)
    read = load_detections(path)
    assert [len(d) for d in read] == counts
    for ours, theirs in zip(kept, read, strict=True):
        for name in ("boxes", "scores", "labels"):
            assert np.array_equal(getattr(ours, name), getattr(theirs, name))
            assert getattr(ours, name).dtype == getattr(theirs, name).dtype
    assert [f.name for f in path.parent.iterdir()] == ["found.npz"]


class FakeWorker:
    """Finds as many objects in a file as its number says."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def call(self, action: str, *arguments: Any) -> Any:
        files = arguments[0]
        self.asked.append((action, len(files) if isinstance(files, tuple) else 0))
        if action == "evaluate":
            return [found(file) for file in files]
        return action


def test_images_go_in_chunks_and_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluating, "CHUNK_SECONDS", 0.0)  # no chunk is too short
    worker, told = FakeWorker(), []
    files: Any = tuple(range(2 * CHUNK + 3))
    evaluation = evaluate(worker, "e", files, trust=False, on_images=told.append)  # type: ignore[arg-type]
    assert [len(d) for d in evaluation.detections] == list(files)
    assert told == [CHUNK, 2 * CHUNK, 2 * CHUNK + 3]
    assert worker.asked == [
        ("open", 0),
        ("evaluate", CHUNK),
        ("evaluate", CHUNK),
        ("evaluate", 3),
        ("probe", PROBED_IMAGES),
    ]


def test_chunks_grow_where_images_take_no_time() -> None:
    worker = FakeWorker()
    files: Any = tuple(range(CHUNK + 100))
    evaluation = evaluate(worker, "e", files, trust=False)  # type: ignore[arg-type]
    assert [len(d) for d in evaluation.detections] == list(files)
    assert worker.asked == [
        ("open", 0),
        ("evaluate", CHUNK),
        ("evaluate", 100),
        ("probe", PROBED_IMAGES),
    ]


def test_what_is_known_is_not_done_again_but_the_engine_is_opened() -> None:
    worker = FakeWorker()
    files: Any = tuple(range(10))
    known = [found(file) for file in files]
    evaluation = evaluate(worker, "e", files, trust=False, known=known)  # type: ignore[arg-type]
    assert evaluation.detections == known
    assert [action for action, _ in worker.asked] == ["open", "probe"]


def test_an_engine_that_is_open_is_not_opened_again() -> None:
    worker, files = FakeWorker(), tuple(range(3))
    opened: Any = object()
    evaluation = evaluate(worker, "e", files, trust=False, opened=opened)  # type: ignore[arg-type]
    assert evaluation.opened is opened
    assert [action for action, _ in worker.asked] == ["evaluate", "probe"]
