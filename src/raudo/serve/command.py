"""The commands that serve: parse -> call; no logic. `raudo.cli` takes them in as its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

service = typer.Typer()


@service.command()
def serve(
    source: Annotated[Path, typer.Argument(help="Run folder, or engine file.")],
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="HTTP port.", min=0, max=65535)] = 8000,
    grpc_port: Annotated[int | None, typer.Option(help="gRPC port.", min=0, max=65535)] = None,
    name: Annotated[str, typer.Option(help="What clients call the model.")] = "detector",
    target: Annotated[str | None, typer.Option(help="Which decision of a run to follow.")] = None,
    instances: Annotated[int, typer.Option(help="Engines side by side.", min=1)] = 1,
    max_batch: Annotated[int, typer.Option(help="Most images at once.", min=1)] = 8,
    queue: Annotated[int, typer.Option(help="Most requests that wait.", min=1)] = 64,
    timeout: Annotated[float, typer.Option(help="Seconds that a request may wait.")] = 5.0,
    ab: Annotated[str | None, typer.Option(help="baseline=PERCENT of the requests.")] = None,
    shadow: Annotated[str | None, typer.Option(help="baseline[=PERCENT] gets copies.")] = None,
    guard: Annotated[
        list[str] | None,
        typer.Option(help="FIGURE=LIMIT: agreement, latency or errors; repeatable."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow runs/latest.")] = False,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Serve from replicas of a Ray cluster.")
    ] = False,
    replicas: Annotated[str, typer.Option(help="How many, or LEAST-MOST, in a cluster.")] = "2",
) -> None:
    """Serve what a run chose, over HTTP and gRPC, until it is stopped."""
    from raudo.config import checked
    from raudo.serve.cluster import Replicas, deploy
    from raudo.serve.server import ServeSettings
    from raudo.serve.server import serve as run_service

    limits = {"max_batch": max_batch, "queue": queue, "timeout": timeout}
    settings = checked(
        ServeSettings,
        "serve",
        source=source,
        host=host,
        port=port,
        grpc_port=grpc_port,
        model=name,
        target=target,
        instances=instances,
        ab=ab,
        shadow=shadow,
        guards=tuple(guard or ()),
        watch=watch,
        limits=limits,
    )
    if cluster:
        least, _, most = replicas.partition("-")
        deploy(settings, checked(Replicas, "--replicas", least=least, most=most or least))
    else:
        run_service(settings)
