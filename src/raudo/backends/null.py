"""The null backend: answers at once with canned outputs, so that what remains is raudo's own time.

Its manifest may ask it to take a while (`call_ms`, `image_ms`): so a service can be given more
than it can do, though the processor idles. It is no deployment: no target takes it, and it has no
variant for `optimize` to try.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from raudo.backends.base import Backend, Engine, Outputs
from raudo.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from raudo.backends.base import Resources
    from raudo.records import Artifact, Precision, PrecisionAudit, Spec

ANCHORS_PER_OBJECT = 8
"""Anchors that a detector without NMS in its graph typically lets fire on one object."""


def canned(spec: Spec, *, anchors: int = 8400, objects: int = 12, seed: int = 0) -> Outputs:
    """Make outputs as a detector gives them for one image with some objects in it.

    Each object fires several neighbouring anchors of a dense engine, and one of a top-k engine;
    all other scores lie far below any usual confidence.

    Args:
        spec: What the outputs must fit.
        anchors: Number of anchors, or of k.
        objects: Number of objects.
        seed: Of the random numbers.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    side = np.array([spec.width, spec.height], np.float32)
    low = random.uniform(0, 0.8, (anchors, 2))
    boxes = np.hstack([low, low + random.uniform(0.05, 0.2, (anchors, 2))]) * np.tile(side, 2)
    each = ANCHORS_PER_OBJECT if spec.output == "dense" else 1
    fired = random.choice(anchors, (objects, each), replace=False)
    boxes[fired] = boxes[fired[:, :1]] + random.normal(0, 0.004, (objects, each, 4)) * side.mean()
    kinds = random.integers(len(spec.classes), size=(objects, 1))
    strong = random.uniform(0.3, 0.95, (objects, each))
    if spec.output == "topk":
        labels = random.integers(len(spec.classes), size=anchors)
        scores = random.uniform(0, 0.01, anchors)
        labels[fired], scores[fired] = kinds, strong
        return Outputs(
            boxes[None].astype(np.float32), scores[None].astype(np.float32), labels[None]
        )
    scores = random.uniform(0, 0.01, (anchors, len(spec.classes)))
    scores[fired, kinds] = strong
    return Outputs(boxes[None].astype(np.float32), scores[None].astype(np.float32))


def write_canned(
    path: Path,
    spec: Spec,
    outputs: Outputs,
    *,
    precision: Precision = "fp32",
    pauses: Mapping[str, float] | None = None,
) -> Artifact:
    """Write an engine of no model that answers with canned outputs, and its manifest.

    Args:
        path: The engine file.
        spec: What the outputs fit.
        outputs: Those of one image.
        precision: What it says that it computes in.
        pauses: Milliseconds that it takes: `call_ms`, `image_ms`.
    """
    from raudo.records import Artifact, Manifest
    from raudo.workspace import sha256, write_manifest

    path.parent.mkdir(parents=True, exist_ok=True)
    NullBackend().write_graph(outputs, path)
    manifest = Manifest(
        name=f"{NullBackend.name}-{path.stem}",
        backend=NullBackend.name,
        precision=precision,
        options=dict(pauses or {}),
        spec=spec,
        source="model.pt",
        source_sha256="0" * 64,
        files_sha256={path.name: sha256(path)},
    )
    artifact = Artifact(path, manifest)
    write_manifest(artifact)
    return artifact


class NullEngine(Engine):
    """Gives the same outputs for whatever image.

    Args:
        spec: What the outputs fit.
        outputs: Those of one image.
        call_ms: Milliseconds that a call takes, however many images it has.
        image_ms: Milliseconds that each image adds.
    """

    def __init__(
        self, spec: Spec, outputs: Outputs, *, call_ms: float = 0.0, image_ms: float = 0.0
    ) -> None:
        super().__init__(spec)
        self._outputs = outputs
        self._call_ms, self._image_ms = call_ms, image_ms

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        one, batch = self._outputs, len(images)
        if pause := self._call_ms + self._image_ms * batch:
            time.sleep(pause / 1000)
        if batch == 1:
            return one
        labels = None if one.labels is None else one.labels.repeat(batch, axis=0)
        return Outputs(one.boxes.repeat(batch, axis=0), one.scores.repeat(batch, axis=0), labels)

    def audit(self) -> PrecisionAudit:
        """Tell that nothing is executed."""
        from raudo.records import PrecisionAudit

        return PrecisionAudit(note="canned outputs: nothing is executed")


class NullBackend(Backend):
    """Reads canned outputs from a NumPy archive."""

    name = "null"
    title = "Null (measures the harness)"
    format = "null"
    suffix = ".npz"
    modules = ()
    extra = None
    variants = ()
    targets = ()

    def write_graph(self, graph: Any, path: Path) -> None:
        """Write `Outputs` of one image as an engine file."""
        import numpy as np

        tensors = {"boxes": graph.boxes, "scores": graph.scores, "labels": graph.labels}
        np.savez(path, **{name: value for name, value in tensors.items() if value is not None})

    def open(self, artifact: Artifact, resources: Resources) -> Engine:
        """Load canned outputs."""
        import zipfile

        import numpy as np

        del resources
        try:
            with np.load(artifact.path, allow_pickle=False) as tensors:
                labels = tensors.get("labels")
                outputs = Outputs(tensors["boxes"], tensors["scores"], labels)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise EngineError(
                f"{artifact.path} holds no canned outputs: {error}",
                hint="write it with NullBackend.write_graph",
            ) from error
        options = artifact.manifest.options
        pauses = {name: float(options.get(name, 0)) for name in ("call_ms", "image_ms")}
        return NullEngine(artifact.manifest.spec, outputs, **pauses)
