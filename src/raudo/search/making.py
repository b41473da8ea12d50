"""Makes the engines of plans, those of one backend and pass in one process."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from raudo import discover
from raudo.build import combine, remove_drafts
from raudo.errors import RaudoError
from raudo.plan import pass_for
from raudo.records import Candidate
from raudo.workspace import engine_files, manifest_path

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from raudo.build import ModelFile, ModelInfo
    from raudo.job import Job
    from raudo.measuring.sensitivity import Remedy
    from raudo.passes.base import Pass
    from raudo.plan import Plan
    from raudo.worker import Worker


class Maker:
    """Makes engines; a context manager.

    What a process calibrated serves the next engines of the same backend and pass. One in which
    anything went wrong makes nothing more.

    Args:
        job: The run.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._process = contextlib.ExitStack()
        self._worker: Worker | None = None
        self._kind: tuple[str, Pass | None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._worker = None
        self._process.__exit__(kind, error, trace)

    def make(self, chosen: Plan) -> None:
        """Make the engine of a plan, unless the run has it from before, and note its file.

        Raises:
            RaudoError: It cannot be made; nothing half-written is left.
        """
        job, name = self._job, chosen.name
        engine = chosen.engine_file(job.run.engines)
        backend = discover.backend(chosen.backend)
        parts = [part.engine_file(job.run.engines) for part in chosen.parts]
        if job.run.recall(f"built-{name}", Candidate) is None:
            for part, path in zip(chosen.parts, parts, strict=True):
                if path == engine or not manifest_path(path).is_file():
                    self._make_part(part, path)
            if len(parts) > 1:
                combine(name, parts, engine)
        files = [f for e in {engine, *parts[1:]} for f in engine_files(e, backend.companions)]
        row = job.update(
            name,
            file=engine.relative_to(job.run.folder).as_posix(),
            size_bytes=sum(f.stat().st_size for f in files),
        )
        job.run.save(f"built-{name}", row)

    def find_remedy(self, chosen: Plan, seconds: float) -> Remedy:
        """Measure what makes a quantized engine lose less; see `raudo.measuring.sensitivity`."""
        _, info = self._at_size(chosen)
        arguments = (chosen, info, self._onnx(chosen), self._job.inputs.calibration, seconds)
        found: Remedy = self._call(chosen, "find_remedy", *arguments)
        return found

    def _make_part(self, chosen: Plan, engine: Path) -> None:
        """Make an engine of one input size."""
        file, info = self._at_size(chosen)
        onnx = self._onnx(chosen)
        try:
            if discover.backend(chosen.backend).made_from == "onnx" and not onnx.is_file():
                self._call(chosen, "write_onnx", file, onnx)
            arguments = (chosen, file, info, onnx, engine, self._job.inputs.calibration)
            self._call(chosen, "build", *arguments)
        finally:
            remove_drafts(engine.parent)

    def _onnx(self, chosen: Plan) -> Path:
        return self._job.run.engines / f"model{chosen.size_suffix}.onnx"

    def _at_size(self, chosen: Plan) -> tuple[ModelFile, ModelInfo]:
        """Return the model's file and info at the size of a plan."""
        inputs = self._job.inputs
        if chosen.size is None:
            return inputs.file, inputs.info
        height, width = chosen.size
        spec = inputs.info.spec.model_copy(update={"height": height, "width": width})
        return replace(inputs.file, size=chosen.size), replace(inputs.info, spec=spec)

    def _call(self, chosen: Plan, action: str, *arguments: Any) -> Any:
        kind = (chosen.backend, pass_for(chosen.variant))
        if self._worker is None or kind != self._kind:
            self._process.close()
            self._worker = self._process.enter_context(self._job.maker(chosen))
            self._kind = kind
        self._worker.name = f"making {chosen.name}"
        try:
            return self._worker.call(action, *arguments)
        except RaudoError:
            self._worker = None
            raise
