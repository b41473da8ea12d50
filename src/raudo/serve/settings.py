"""How the service behaves: strict settings with safe defaults."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raudo.config import Settings

MEBIBYTE = 1 << 20


class Limits(Settings):
    """What bounds the service, so that it answers what it takes in time, and refuses the rest."""

    queue: Annotated[int, Field(ge=1)] = Field(
        default=64, description="Most requests that wait for an engine; more are turned down"
    )
    timeout: Annotated[float, Field(gt=0)] = Field(
        default=5.0, description="Seconds until which an engine must have taken a request"
    )
    max_batch: Annotated[int, Field(ge=1, le=256)] = Field(
        default=8, description="Most images that an engine gets at once"
    )
    max_delay: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.002,
        description="Most seconds that a busy engine waits to fill a batch; an idle one never does",
    )
    decoders: Annotated[int, Field(ge=1)] = Field(
        default=2, description="Threads that decode and prepare images"
    )
    pixels: Annotated[int, Field(ge=1)] = Field(
        default=50_000_000, description="Most pixels of an image, by its header"
    )
    body: Annotated[int, Field(ge=1)] = Field(
        default=20 * MEBIBYTE, description="Most bytes of a request"
    )
