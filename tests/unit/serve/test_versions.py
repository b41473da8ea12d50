"""Which engines of a run are served: only what passed, the best that fits this machine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from null_engines import null_engine, null_run
from raudo.backends.base import Resources
from raudo.errors import EngineError, UsageError
from raudo.serve.core import Service
from raudo.serve.errors import NotFoundError
from raudo.serve.instance import InlineInstance, open_engine
from raudo.serve.observer import NullObserver
from raudo.serve.settings import Limits
from raudo.serve.versions import Source, load_best
from raudo.workspace import Run, read_report, write_text

if TYPE_CHECKING:
    from pathlib import Path

    from raudo.records import Artifact


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return null_run(tmp_path / "runs" / "monday")


def names(source: Source) -> list[str]:
    return [file.stem for file in source.files()]


def test_what_passed_is_served_the_choice_first(folder: Path) -> None:
    assert names(Source(folder)) == ["fast", "other"]
    assert names(Source(folder, "production_cpu")) == ["fast", "other"]


def test_the_baseline_is_served_only_where_it_is_asked_for(folder: Path) -> None:
    assert names(Source(folder, "development")) == ["slow"]
    report = read_report(Run(folder))
    failed = report.decisions["production_cpu"].model_copy(
        update={"verdict": "FAIL", "choice": None}
    )
    decisions = {**report.decisions, "production_cpu": failed}
    changed = report.model_copy(update={"decisions": decisions})
    write_text(folder / "report.json", changed.model_dump_json())
    with pytest.raises(EngineError, match=r"nothing in .* passed"):
        Source(folder).files()
    with pytest.raises(EngineError, match="production_gpu"):
        Source(folder, "production_gpu").files()


def test_an_engine_file_is_served_as_it_is(tmp_path: Path) -> None:
    engine = null_engine(tmp_path / "e.npz")
    assert Source(engine).files() == (engine,)
    with pytest.raises(NotFoundError):
        Source(engine).named("monday")
    with pytest.raises(UsageError, match="one engine"):
        Source(engine, "production_cpu").files()


@pytest.mark.parametrize("name", ["..", ".", "tuesday", "monday/engines", "/etc", "latest"])
def test_only_runs_beside_it_have_names(folder: Path, name: str) -> None:
    assert Source(folder).named("monday").folder == folder.resolve()
    with pytest.raises(NotFoundError):
        Source(folder).named(name)


class Refusals(NullObserver):
    """Remembers which engines were refused."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def model_refused(self, name: str, reason: str) -> None:
        self.names.append(name)


async def open_inline(artifact: Artifact) -> list[InlineInstance]:
    return [InlineInstance(*open_engine(artifact, Resources()))]


def test_the_next_best_takes_over_where_the_choice_does_not_fit(folder: Path) -> None:
    async def story() -> None:
        observer = Refusals()
        service = Service("detector", open_inline, Limits(), observer=observer)
        files = Source(folder).files()

        async def picky(artifact: Artifact) -> list[InlineInstance]:
            if artifact.path.stem == "fast":
                raise EngineError("built for another GPU", hint="build it again")
            return await open_inline(artifact)

        service._opener = picky
        version = await load_best(service, files, run="monday")
        assert version.artifact.path.stem == "other"
        assert observer.names == ["null-fast"]
        files[1].write_bytes(b"damaged")
        with pytest.raises(EngineError, match="no engine can be served here"):
            await load_best(service, files)
        assert service.models() == (version,)
        assert observer.names == ["null-fast", "null-fast", "other.npz"]
        await service.drain()

    asyncio.run(asyncio.wait_for(story(), 20))
