"""What a comparison of two variants has found so far: what is saved, served and reported."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from raudo.records import Record, Verdict

Mode = Literal["split", "shadow"]


class FigureState(Record):
    """How much worse the candidate is than the baseline; larger is worse.

    All intervals of an experiment hold at all times, all at once, with probability 95 %.
    """

    name: str
    unit: str
    value: float | None = Field(description="None before anything was seen")
    low: float | None = Field(description="Low end of the interval; None: unbounded")
    high: float | None = Field(description="High end of the interval; None: unbounded")
    count: int = Field(description="Requests that it rests on")
    limit: float | None = Field(default=None, description="The guard's; None: only watched")
    tolerated: float | None = Field(default=None, description="Above this the guard is broken")
    verdict: Verdict | None = Field(default=None, description="Of the guard")
    needed: int | None = Field(
        default=None, description="About how many requests in all would settle the guard"
    )


class VariantState(Record):
    """One of the two variants, as its requests went; times are infer + select."""

    name: str
    engine_sha256: str = Field(
        description="Of its engine's files and of how they are run; empty before it is loaded"
    )
    requests: int
    failed: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class RollBack(Record):
    """When and why the candidate was taken out."""

    figure: str
    reason: str
    requests: int = Field(description="Requests of this experiment until then")
    at: str = Field(description="ISO 8601, UTC")


class Experiment(Record):
    """A comparison at one moment."""

    ab_version: Literal[1] = 1
    mode: Mode
    candidate: VariantState
    baseline: VariantState
    share_percent: float = Field(description="split: the baseline's part; shadow: what is copied")
    expected_agreement_percent: float
    started: str = Field(description="ISO 8601, UTC")
    updated: str = Field(description="ISO 8601, UTC")
    requests: int
    epoch: int = Field(description="The figures start afresh from time to time, to notice changes")
    verdict: Verdict = Field(description="PASS: all guards hold; FAIL: rolled back")
    held_after: int | None = Field(
        default=None, description="Requests after which all guards held for the first time"
    )
    rolled_back: RollBack | None = None
    figures: tuple[FigureState, ...]
