"""The frozen records that go into the service and come out of it, whatever the transport."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raudo.detector import DEFAULT_SELECTION, Selection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from raudo.backends.base import Outputs
    from raudo.records import Artifact, Detections, Spec
    from raudo.serve.instance import Rectangle


STAGES = ("decode", "queue", "infer", "select", "total")
"""The stages whose times a client is told; see `Stages`."""
REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
"""What a client's request id must be for headers and errors to carry it."""
PRIMARY = "primary"
"""The variant that every service has: what it was started with, or was swapped to since."""


@dataclass(frozen=True)
class DetectRequest:
    """One encoded image to detect in.

    Attributes:
        image: A whole file: JPEG, PNG, BMP, TIFF or WEBP.
        id: Request id, made by the client or by the transport.
        selection: What becomes a detection.
        timeout: Seconds from now until which an engine must have taken it; None: the service's.
        version: Version to ask; None: the one that the routing chooses.
    """

    image: bytes
    id: str
    selection: Selection = DEFAULT_SELECTION
    timeout: float | None = None
    version: str | None = None


@dataclass(frozen=True)
class InferRequest:
    """A batch of prepared, or of encoded, images.

    Attributes:
        images: uint8 [n, height, width, 3] as the engine takes it, or n encoded images.
        id: Request id.
        raw: Whether to return the engine's own outputs.
        selection: What becomes a detection; None: no detections are wanted. They are in pixels of
            the original images where those came encoded, else in pixels of the engine's input.
        timeout: As in `DetectRequest`.
        version: As in `DetectRequest`.
    """

    images: NDArray[np.uint8] | tuple[bytes, ...]
    id: str
    raw: bool = True
    selection: Selection | None = None
    timeout: float | None = None
    version: str | None = None


@dataclass(frozen=True)
class Stages:
    """Seconds that a request spent at each stage, and what it shared them with.

    Attributes:
        decode: Reading the image file and preparing the engine's input, waiting included.
        queue: From there until an engine took it.
        infer: In the engine.
        select: Choosing detections.
        total: From the service's first sight of it to the reply.
        batch: Images that the engine ran at once; what they took is not this request's alone.
    """

    decode: float = 0.0
    queue: float = 0.0
    infer: float = 0.0
    select: float = 0.0
    total: float = 0.0
    batch: int = 1


@dataclass(frozen=True)
class Reply:
    """What the service found.

    Attributes:
        id: The request's id.
        model: Name of the served model.
        version: Version that answered.
        variant: Variant that it runs as.
        classes: Names of the labels.
        stages: Where the time went.
        detections: One for each image; empty where none were asked for.
        outputs: The engine's own, where asked for.
    """

    id: str
    model: str
    version: str
    variant: str
    classes: tuple[str, ...]
    stages: Stages
    detections: tuple[Detections, ...] = ()
    outputs: Outputs | None = None


@dataclass(frozen=True)
class ModelVersion:
    """One engine that is, or was, loaded.

    Attributes:
        version: Its number, "1" for the first that the service ever loaded.
        variant: What it runs as.
        artifact: The engine file and its manifest.
        run: Name of the run folder that chose it; None for an engine file.
        max_batch: Most images that it takes at once.
        rectangles: The input rectangles that it takes images in, the model's own first.
        ready: Whether it takes requests.
    """

    version: str
    variant: str
    artifact: Artifact
    run: str | None = None
    max_batch: int = 1
    rectangles: tuple[Rectangle, ...] = ()
    ready: bool = True

    @property
    def spec(self) -> Spec:
        """What the engine takes and gives at the model's own size."""
        return self.artifact.manifest.spec

    @property
    def outputs(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Data type and shape of each output for one image; -1 where rectangles differ."""
        found: dict[str, tuple[str, tuple[int, ...]]] = {}
        for rectangle in self.rectangles:
            for name, (dtype, shape) in rectangle.outputs.items():
                before = found.get(name, (dtype, shape))[1]
                same = (a if a == b else -1 for a, b in zip(before, shape, strict=True))
                found[name] = (dtype, tuple(same))
        return found
