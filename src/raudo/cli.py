"""The command line: parse -> call -> print; no logic.

Heavy imports stand inside the commands, so that `raudo --help` answers at once.

Exit codes: 0 pass, 1 a gate failed, 2 wrong usage or bad input, 3 inconclusive, 130 interrupted.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from raudo.errors import UsageError
from raudo.serve.ab.command import ab
from raudo.serve.command import service
from raudo.shell import EXIT_INTERRUPTED, EXIT_USAGE, Commands, LightCommand

# Pydantic would look for plug-ins of its own in the metadata of every installed package.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


app = typer.Typer(
    cls=Commands,
    name="raudo",
    help="Turns a trained detector into the fastest deployment proven to detect as well.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(ab, name="ab")
app.add_typer(service)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Trust = Annotated[
    bool,
    typer.Option("--trust-checkpoint", help="Open a checkpoint that imports unknown code."),
]
Size = Annotated[
    str | None, typer.Option(help="Input size, HEIGHTxWIDTH or one side; default: the model's.")
]
Splits = Annotated[str, typer.Option(help="Splits to score on, with commas.")]
Timeout = Annotated[
    float,
    typer.Option(
        help="Seconds after which an engine counts as hung; making one may take longer, where its "
        "backend says so.",
        min=1,
    ),
]
Explain = Annotated[
    bool, typer.Option("--explain", help="Say of each candidate why it won or lost.")
]
Engines = Annotated[list[Path], typer.Argument(help="Engine files, each with its manifest.")]
Reference = Annotated[
    Path | None,
    typer.Option("--model", help="The model to compare with; default: the first engine."),
]


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Read `480x640`, or `640` for a square, as (height, width)."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if not 1 <= len(sides) <= 2 or not all(side.isdecimal() for side in sides):
        raise UsageError(f"--size {text}: not HEIGHTxWIDTH", hint="for instance --size 480x640")
    return int(sides[0]), int(sides[-1])


def words(text: str | None) -> tuple[str, ...] | None:
    """Split a list with commas; None stays None."""
    if text is None:
        return None
    return tuple(word.strip() for word in text.split(",") if word.strip())


@app.command()
def optimize(
    model: Annotated[Path | None, typer.Argument(help="Checkpoint (.pt) or ONNX file.")] = None,
    *,
    data: Annotated[Path | None, typer.Option(help="Labelled data set to score on.")] = None,
    splits: Annotated[str | None, typer.Option(help="Splits to score on, with commas.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Images or a video, where there are no labels.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Data set or folder of images for INT8.")
    ] = None,
    calibration_split: Annotated[
        str | None, typer.Option(help="Its split; default: train.")
    ] = None,
    size: Size = None,
    only: Annotated[
        str | None, typer.Option(help="Candidates to try, with commas; see 'raudo list'.")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Target that the exit code speaks of; repeatable.")
    ] = None,
    gate: Annotated[list[str] | None, typer.Option(help="TARGET.GATE=BOUND, repeatable.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with settings.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the runs; default: runs.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.")] = None,
    shapes: Annotated[
        str | None, typer.Option(help="auto: try input rectangles that fit; own: do not.")
    ] = None,
    time_budget: Annotated[
        float | None, typer.Option(help="Seconds after which nothing new is tried.")
    ] = None,
    recovery_budget: Annotated[
        float | None, typer.Option(help="Most seconds to mend INT8 that detects worse.")
    ] = None,
    timing_budget: Annotated[
        float | None, typer.Option(help="Most seconds for timed rounds.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(help="Seconds after which an engine counts as hung; default: 300."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run.")] = False,
    trust_checkpoint: Trust = False,
    explain: Explain = False,
    json: Json = False,
) -> None:
    """Export, quantize, measure, validate, decide and report, for every engine there is."""
    from raudo.config import read_settings
    from raudo.decide import asked_targets, exit_code
    from raudo.pipeline import optimize as run_pipeline
    from raudo.presentation import console
    from raudo.workspace import settings_to_resume

    settings = read_settings(
        settings_to_resume(output or Path("runs"), name) if resume else config,
        model=model,
        data=data,
        splits=words(splits),
        images=images,
        calibration=calibration,
        calibration_split=calibration_split,
        size=parse_size(size),
        candidates=words(only),
        targets=tuple(target) if target else None,
        gate_assignments=gate,
        output=output,
        name=name,
        shapes=shapes,
        time_budget=time_budget,
        recovery_budget=recovery_budget,
        timing_budget=timing_budget,
        timeout=timeout,
        trust_checkpoint=trust_checkpoint or None,
    )
    with console.ProgressListener() as listener:
        report, run = run_pipeline(settings, listener, resume=resume)
    if json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        console.show_report(report, run.report_page, explained=explain)
    targets = asked_targets(settings.targets, has_gpu=bool(report.machine.gpus))
    raise typer.Exit(exit_code(report.decisions, targets))


@app.command()
def export(
    model: Annotated[
        Path, typer.Argument(help="Checkpoint (.pt) or ONNX file; with --rebuild an engine.")
    ],
    *,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make an engine again, for this machine.")
    ] = False,
    to: Annotated[str, typer.Option(help="Formats, with commas; see 'raudo list'.")] = "onnx",
    precision: Annotated[str, typer.Option(help="Precisions, with commas.")] = "fp32",
    output: Annotated[Path, typer.Option(help="Folder for the engines.")] = Path("models"),
    calibration: Annotated[
        Path | None, typer.Option(help="Data set or folder of images for INT8.")
    ] = None,
    calibration_split: Annotated[str, typer.Option(help="Its split.")] = "train",
    cpp_bundle: Annotated[
        Path | None, typer.Option(help="Folder for the engines and a C++ example that runs them.")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(help="Kinds of GPU to make engines for, with commas: sm86,sm89,sm120."),
    ] = None,
    size: Size = None,
    timeout: Timeout = 600.0,
    trust_checkpoint: Trust = False,
    json: Json = False,
) -> None:
    """Write engine files with their manifests."""
    from raudo.build import ModelFile
    from raudo.commands.bundle import write_bundle
    from raudo.commands.export import ExportRequest, exit_code, parse_precisions
    from raudo.commands.export import export as run_export
    from raudo.commands.rebuild import rebuilding
    from raudo.presentation import console

    request = ExportRequest(
        file=ModelFile(model, parse_size(size), trust_checkpoint),
        formats=words(to) or (),
        precisions=parse_precisions(words(precision) or ()),
        output=output,
        calibration=calibration,
        calibration_split=calibration_split,
        timeout=timeout,
        gpus=words(gpu) or (),
    )
    if rebuild:
        request = rebuilding(model, request)
    with console.ProgressListener() as listener:
        results = run_export(request, listener)
    if cpp_bundle is not None:
        write_bundle(cpp_bundle, [r.path for r in results if r.path is not None])
    console.show_records(results, as_json=json)
    raise typer.Exit(exit_code(results))


@app.command()
def benchmark(
    engines: Engines,
    *,
    model: Reference = None,
    images: Annotated[Path, typer.Option(help="Image, folder, data set or video to time on.")],
    budget: Annotated[float, typer.Option(help="Most seconds for timed rounds.", min=0)] = 60.0,
    speedup: Annotated[float, typer.Option(help="Gate: lowest speedup.")] = 1.5,
    timeout: Timeout = 300.0,
    trust_checkpoint: Trust = False,
    json: Json = False,
) -> None:
    """Time engines side by side in interleaved rounds."""
    from raudo.benchmark import WorkerOptions
    from raudo.commands.compare import Contest, benchmark_engines, gates_of
    from raudo.decide import exit_code
    from raudo.presentation import console

    contest = Contest(tuple(engines), model, WorkerOptions(timeout, trust_checkpoint))
    gates = gates_of("benchmark", speedup=speedup)
    with console.ProgressListener() as listener:
        raced = benchmark_engines(contest, images, budget, gates, listener)
    console.show_raced(raced, as_json=json)
    raise typer.Exit(exit_code(raced.verdicts, raced.verdicts))


@app.command()
def validate(
    engines: Engines,
    *,
    data: Annotated[Path, typer.Option(help="Labelled data set.")],
    splits: Splits = "val",
    model: Reference = None,
    loss: Annotated[float, typer.Option(help="Gate: highest loss of mAP@0.5 in percent.")] = 1.0,
    similarity: Annotated[float, typer.Option(help="Gate: lowest similarity in percent.")] = 98.0,
    timeout: Timeout = 300.0,
    trust_checkpoint: Trust = False,
    json: Json = False,
) -> None:
    """Score engines on a labelled data set: mAP, its loss, and similarity."""
    from raudo.benchmark import WorkerOptions
    from raudo.commands.compare import Contest, gates_of, validate_engines
    from raudo.decide import exit_code
    from raudo.presentation import console

    contest = Contest(tuple(engines), model, WorkerOptions(timeout, trust_checkpoint))
    gates = gates_of("validate", map50_loss_percent=loss, similarity_percent=similarity)
    with console.ProgressListener() as listener:
        scored = validate_engines(contest, data, words(splits) or (), gates, listener)
    console.show_scored(scored, as_json=json)
    raise typer.Exit(exit_code(scored.verdicts, scored.verdicts))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Run folder.")] = Path("runs/latest"),
    *,
    explain: Explain = False,
    json: Json = False,
) -> None:
    """Show a run's verdict, and write its report again."""
    from raudo.presentation import console
    from raudo.reporting import rerender
    from raudo.workspace import resolve_run

    found = resolve_run(run)
    with console.ProgressListener() as listener:
        listener.step("Writing the report")
        content = rerender(found)
    if json:
        typer.echo(content.model_dump_json(indent=2))
    else:
        console.show_report(content, found.report_page, explained=explain)


@app.command()
def doctor(*, json: Json = False) -> None:
    """Check what this machine has, and what is missing."""
    from raudo.commands.doctor import diagnose, is_ready
    from raudo.presentation import console

    checks = diagnose()
    console.show_records(checks, as_json=json)
    raise typer.Exit(0 if is_ready(checks) else EXIT_USAGE)


@app.command("list", cls=LightCommand)
def list_(*, json: Json = False) -> None:
    """List the plug-ins and the candidates that they give."""
    from raudo.commands.catalogue import catalogue
    from raudo.presentation import console

    console.show_records(catalogue(), as_json=json)


@app.command()
def detect(
    engine: Annotated[Path, typer.Argument(help="Engine file or run folder.")],
    source: Annotated[str, typer.Argument(help="Image, folder, video or camera number.")],
    *,
    output: Annotated[
        Path | None, typer.Option(help="Image, folder or video to draw the boxes into.")
    ] = None,
    jsonl: Annotated[Path | None, typer.Option(help="File with one line a frame.")] = None,
    conf: Annotated[float, typer.Option(help="Lowest score.", min=0, max=1)] = 0.25,
    iou: Annotated[
        float | None, typer.Option(help="NMS threshold; default: the family's.", min=0, max=1)
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Names or numbers, with commas.")] = None,
    target: Annotated[str | None, typer.Option(help="Which decision of a run to follow.")] = None,
    max_frames: Annotated[int | None, typer.Option(help="Stop after so many.", min=1)] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="latency: each frame as it comes; throughput: several at once, the default for "
            "videos and folders."
        ),
    ] = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Share a folder out over a Ray cluster.")
    ] = False,
    trust_checkpoint: Trust = False,
    json: Json = False,
) -> None:
    """Detect in an image, a folder, a video or a camera; draw boxes, write JSON lines."""
    from raudo.commands.detect import DetectRequest
    from raudo.presentation import console

    if cluster:
        from raudo.cluster import detect_folder as run_detect
    else:
        from raudo.commands.detect import detect as run_detect

    request = DetectRequest(
        engine=engine,
        source=source,
        output=output,
        jsonl=jsonl,
        confidence=conf,
        iou=iou,
        classes=words(classes),
        target=target,
        max_frames=max_frames,
        mode=mode,
        trust_checkpoint=trust_checkpoint,
    )
    with console.ProgressListener() as listener:
        summary = run_detect(request, listener)
    console.show_detected(summary, as_json=json)
    raise typer.Exit(EXIT_INTERRUPTED if summary.interrupted else 0)


if __name__ == "__main__":
    app()
