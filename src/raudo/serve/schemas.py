"""What HTTP bodies look like: read strictly, and described by the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from raudo.config import Settings
from raudo.detector import Selection
from raudo.records import Record

Parameters = dict[str, JsonValue]
NONE: Parameters = {}
Size = Annotated[int, Field(ge=0, lt=1 << 32)]


class DetectOptions(Settings):
    """What a client may choose with an image."""

    confidence: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        default=0.25, description="Lowest score that is kept"
    )
    iou: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        default=None, description="NMS threshold; without it, the model family's own"
    )
    limit: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=300, description="Most detections"
    )
    timeout: Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)] | None = Field(
        default=None, description="Seconds until which an engine must have taken the image"
    )
    version: Annotated[str, Field(max_length=32)] | None = Field(
        default=None, description="The version to ask; without it, the service chooses"
    )

    @property
    def selection(self) -> Selection:
        """What becomes a detection."""
        return Selection(self.confidence, self.iou, self.limit)


class DetectBody(DetectOptions):
    """An image in JSON, with what may also stand in the query."""

    image: str = Field(
        description="The image file, base64", json_schema_extra={"contentEncoding": "base64"}
    )


class SwapBody(Settings):
    """Which run to serve from now on."""

    run: Annotated[str, Field(pattern=r"^\w[\w.-]{0,127}$")] = Field(
        description="Name of a run folder beside the one that is served"
    )


class Problem(Record):
    """Why a request got no answer."""

    error: str = Field(description="In one line")
    code: str = Field(description="What programs tell errors apart by")
    request_id: str
    hint: str = Field(description="What to do")


class DetectedObject(Record):
    """One detection."""

    box: tuple[float, float, float, float] = Field(
        description="Left, top, right, bottom, in pixels of the image as it is shown"
    )
    score: float
    label: int
    name: str


class StageTimes(Record):
    """Milliseconds that the request spent at each stage."""

    decode: float
    queue: float
    infer: float
    select: float
    total: float


class DetectReply(Record):
    """What was found in an image, best score first."""

    detections: tuple[DetectedObject, ...]
    model: str
    version: str
    variant: str
    request_id: str
    stages_ms: StageTimes


class LoadedVersion(Record):
    """One engine that takes requests."""

    version: str
    variant: str
    run: str | None
    engine: str
    precision: str
    input: tuple[int, int] = Field(description="Height and width of the model's own input")
    rectangles: tuple[tuple[int, int], ...] = Field(
        description="Height and width of each input that it takes; an image goes to the smallest"
    )
    classes: tuple[str, ...]
    max_batch: int


class LoadedVersions(Record):
    """All engines that take requests."""

    models: tuple[LoadedVersion, ...]


class ServerMetadata(Record):
    """The server."""

    name: str
    version: str
    extensions: tuple[str, ...]


class Live(Record):
    """The process answers."""

    live: Literal[True]


class Ready(Record):
    """Requests are taken."""

    ready: Literal[True]


class ModelReady(Ready):
    """A version takes requests."""

    name: str


class TensorMetadata(Record):
    """One input or output; -1 may be any number."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(Record):
    """The model."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class ModelConfiguration(Record):
    """How the model is served."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: tuple[dict[str, JsonValue], ...]
    output: tuple[dict[str, JsonValue], ...]
    dynamic_batching: dict[str, JsonValue]
    parameters: dict[str, dict[str, str]]


class ModelStatistics(Record):
    """What versions did since the start."""

    model_stats: tuple[dict[str, JsonValue], ...]


class InputTensor(Record):
    """One input: its data here, or after the JSON part as the binary extension has it."""

    name: str
    shape: tuple[Size, ...]
    datatype: str
    parameters: Parameters = NONE
    data: list[Any] | None = None


class OutputRequest(Record):
    """One output that is wanted."""

    name: str
    parameters: Parameters = NONE


class InferBody(Record):
    """The JSON part of an inference request."""

    id: str = ""
    parameters: Parameters = NONE
    inputs: tuple[InputTensor, ...]
    outputs: tuple[OutputRequest, ...] = ()


class OutputTensor(Record):
    """One output; without data where it follows the JSON part."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: Parameters = NONE
    data: list[float] | None = None


class InferReply(Record):
    """The JSON part of an inference response."""

    model_name: str
    model_version: str
    id: str
    parameters: dict[str, JsonValue]
    outputs: tuple[OutputTensor, ...]
