"""Strict settings, shared by YAML files, the command line and Python."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from raudo.errors import UsageError, first_problem
from raudo.records import Target

S = TypeVar("S", bound="Settings")
Percent = Annotated[float, Field(ge=0, le=100)]


class Settings(BaseModel):
    """Base of all settings: immutable, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Gates(Settings):
    """What a candidate must reach to be chosen for one target."""

    speedup: Annotated[float, Field(gt=0)] = Field(
        description="Lowest end-to-end speedup over the baseline"
    )
    map50_loss_percent: Percent = Field(
        description="Highest loss of mAP@0.5, in percent of the baseline's"
    )
    map50_95_loss_percent: Percent | None = Field(
        default=None, description="Highest loss of mAP@0.5:0.95, in percent; None does not gate it"
    )
    similarity_percent: Percent = Field(
        default=98.0, description="Lowest F1 of the detections matched with the baseline's"
    )


def default_gates() -> dict[Target, Gates]:
    """Return the gates of each target; `development` has none, it takes the baseline."""
    return {
        "production_cpu": Gates(speedup=1.5, map50_loss_percent=1.0),
        "production_gpu": Gates(speedup=2.5, map50_loss_percent=2.0),
        "edge": Gates(speedup=1.5, map50_loss_percent=1.0),
    }


class OptimizeSettings(Settings):
    """All settings of a run; `raudo optimize --config FILE` reads them from YAML."""

    model: Path = Field(description="The model file: a checkpoint or an ONNX detector")
    data: Path | None = Field(default=None, description="Labelled data set that validation scores")
    splits: tuple[str, ...] = Field(default=("val",), description="Splits that validation scores")
    images: Path | None = Field(
        default=None, description="Images or a video, to compare on where there are no labels"
    )
    calibration: Path | None = Field(
        default=None, description="Data set or folder for INT8; None takes the data set's own"
    )
    calibration_split: str = Field(default="train", description="Split used for calibration")
    calibration_images: Annotated[int, Field(gt=0)] = Field(
        default=300, description="Most images to calibrate on"
    )
    size: tuple[int, int] | None = Field(
        default=None, description="Input (height, width); None takes the model's own"
    )
    shapes: Literal["auto", "own"] = Field(
        default="auto", description="auto: also try input rectangles that fit the images; own: not"
    )
    time_budget: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Seconds after which nothing new is tried; None sets no limit"
    )
    recovery_budget: Annotated[float, Field(ge=0)] = Field(
        default=75.0,
        description="Most seconds, and of the time budget half of what is left, to mend INT8 that "
        "detects worse: another calibration, layers that it should leave alone; 0 does not",
    )
    candidates: tuple[str, ...] = Field(
        default=(), description="Names of the candidates to try; empty tries all"
    )
    targets: tuple[Target, ...] = Field(
        default=(),
        description="Targets that the exit code speaks of; empty: production_cpu, "
        "and production_gpu where there is a GPU",
    )
    gates: dict[Target, Gates] = Field(default_factory=default_gates)
    output: Path = Field(default_factory=lambda: Path("runs"), description="Folder of the runs")
    name: Annotated[str, Field(pattern=r"^\w[\w.@+-]*$")] | None = Field(
        default=None, description="Name of the run, a plain folder name; None makes one"
    )
    timing_budget: Annotated[float, Field(gt=0)] = Field(
        default=120.0, description="Most seconds to spend on timed rounds"
    )
    timeout: Annotated[float, Field(gt=0)] = Field(
        default=300.0,
        description="Seconds after which an engine that does not answer has hung; making one may "
        "take longer, where its backend says so",
    )
    bootstrap: Annotated[int, Field(ge=100)] = Field(
        default=1000, description="Resamples of the intervals"
    )
    seed: int = 0
    trust_checkpoint: bool = Field(
        default=False, description="Open a checkpoint even though it imports unknown code"
    )

    @field_validator("name")
    @classmethod
    def _is_free(cls, name: str | None) -> str | None:
        if name == "latest":
            raise ValueError("'latest' is the link to the last run")
        return name


def dump_settings(settings: OptimizeSettings) -> str:
    """Return settings as YAML that `read_settings` reads from any folder."""
    paths = ("model", "data", "images", "calibration", "output")
    whole = {name: getattr(settings, name) for name in paths}
    absolute = {name: path.absolute() for name, path in whole.items() if path is not None}
    return yaml.safe_dump(
        settings.model_copy(update=absolute).model_dump(mode="json", exclude_none=True),
        sort_keys=False,
        allow_unicode=True,
    )


def _merged_gates(given: object, assignments: object) -> dict[str, object]:
    """Lay the gates that a user gives over the default ones, bound by bound."""
    merged: dict[str, object] = {t: g.model_dump() for t, g in default_gates().items()}
    layers: list[tuple[str, object]] = []
    if isinstance(given, dict):
        layers.extend(given.items())
    elif given is not None:
        raise UsageError("gates: not a mapping", hint="write `gates: {production_cpu: {...}}`")
    if isinstance(assignments, list | tuple):
        layers.extend(_parse_gate(str(text)) for text in assignments)
    for target, bounds in layers:
        before = merged.get(target, {})
        if isinstance(before, dict) and isinstance(bounds, dict):
            merged[target] = before | bounds
        else:
            merged[target] = bounds
    return merged


def _parse_gate(text: str) -> tuple[str, dict[str, str]]:
    path, equals, bound = text.partition("=")
    target, dot, gate = path.partition(".")
    if not (equals and dot and gate and bound):
        raise UsageError(
            f"--gate {text}: not of the form TARGET.GATE=BOUND",
            hint="for instance --gate production_cpu.speedup=2",
        )
    return target.strip(), {gate.strip(): bound.strip()}


def read_settings(file: Path | None, **overrides: object) -> OptimizeSettings:
    """Read settings from a YAML file, and let the command line's values win.

    Args:
        file: A YAML file, or None.
        overrides: Values by field name; None means not given. `gate_assignments` holds texts
            such as `production_cpu.speedup=2`.

    Raises:
        UsageError: The file is missing or not YAML, or a value is not valid.
    """
    values: dict[str, object] = {}
    if file is not None:
        try:
            loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UsageError(
                f"cannot read the settings in {file}: {' '.join(str(error).split())}",
                hint="it must be a YAML file; see 'raudo optimize --help'",
            ) from error
        if not isinstance(loaded, dict):
            raise UsageError(
                f"{file} holds no settings",
                hint="write lines such as `model: model.pt`",
            )
        values.update(loaded)
    assignments = overrides.pop("gate_assignments", None) or ()
    values.update({key: value for key, value in overrides.items() if value is not None})
    if "model" not in values:
        raise UsageError("no model was given", hint="raudo optimize MODEL --data DATA.yaml")
    values["gates"] = _merged_gates(values.get("gates"), assignments)
    return checked(OptimizeSettings, "optimize", **values)


def checked(kind: type[S], command: str, **values: object) -> S:
    """Return a command's settings, of values that may be anything.

    Raises:
        UsageError: A value is not valid, or there is no such setting.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UsageError(
            first_problem(error), hint=f"see 'raudo {command} --help' for what it takes"
        ) from error
