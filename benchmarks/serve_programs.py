"""The servers that are measured, each started as a user would, and the engines that they serve."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from raudo.backends.null import canned, write_canned
from raudo.machine import describe
from raudo.records import Candidate, Decision, Report, RunSource, Spec
from raudo.workspace import read_artifact
from serve_load import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SAMPLE = Path(__file__).parents[1] / "samples" / "model.pt"
START_SECONDS, STOP_SECONDS = 180.0, 40.0
TOKEN = "loopback"  # noqa: S105 (of a service that ends with the benchmark)
CLASSES = tuple(f"class {number}" for number in range(80))


@dataclass(frozen=True)
class Engine:
    """A null engine: NMS-free, as small an answer as a detector gives.

    Attributes:
        side: Height and width of its input.
        call_ms: Milliseconds that a call takes.
        image_ms: Milliseconds that each image adds.
        seed: Engines of one seed detect the same.
    """

    side: int
    call_ms: float = 0.0
    image_ms: float = 0.0
    seed: int = 0


def write_engine(path: Path, engine: Engine) -> Path:
    """Write a null engine with its manifest, and return its path."""
    spec = Spec(family="any", height=engine.side, width=engine.side, classes=CLASSES, output="topk")
    outputs = canned(spec, anchors=300, objects=12, seed=engine.seed)
    pauses = {"call_ms": engine.call_ms, "image_ms": engine.image_ms}
    return write_canned(path, spec, outputs, pauses=pauses).path


def export_sample(folder: Path, runtime: str, side: int) -> Path:
    """Export the embedded sample for a runtime at a square input, and return the engine's path."""
    command = ["export", str(SAMPLE), "--to", runtime, "--size", str(side), "--output", str(folder)]
    exported = subprocess.run(
        [sys.executable, "-m", "raudo.cli", *command, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    (engine,) = json.loads(exported.stdout)
    return Path(engine["path"])


def write_run(folder: Path, engine: Engine) -> Path:
    """Write a run folder that chose a null engine, and return its path."""
    file = write_engine(folder / "engines" / "null.npz", engine)
    name, spec = "null-null", read_artifact(file).manifest.spec
    chosen = Candidate(
        name=name,
        backend="null",
        precision="fp32",
        status="OK",
        targets=("production_cpu",),
        file=f"engines/{file.name}",
    )
    report = Report(
        name=folder.name,
        created="",
        seconds=0.0,
        source=RunSource(
            model="model.pt",
            model_sha256="0" * 64,
            spec=spec,
            baseline=name,
            data=None,
            images=0,
            accuracy_validated=False,
        ),
        machine=describe(),
        gates={},
        candidates=(chosen,),
        decisions={"production_cpu": Decision(verdict="PASS", choice=name, reasons=())},
        steps=(),
    )
    (folder / "report.json").write_text(report.model_dump_json(), encoding="utf-8")
    return folder


@dataclass(frozen=True)
class Program:
    """A server that runs.

    Attributes:
        process: Its first process.
        port: Its port on loopback.
        path: Path to ask.
    """

    process: psutil.Popen
    port: int
    path: str

    @property
    def url(self) -> str:
        """The address to ask."""
        return f"http://{HOST}:{self.port}{self.path}"

    def memory(self) -> int:
        """Return the resident memory of all its processes, in bytes."""
        processes = [self.process, *self.process.children(recursive=True)]
        return sum(process.memory_info().rss for process in processes)

    def swap(self, run: str) -> None:
        """Let it serve another run, as an administrator."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
        try:
            connection.request("POST", "/v1/admin/swap", json.dumps({"run": run}), headers)
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise RuntimeError(f"no swap to {run}: {answer.read()!r}")
        finally:
            connection.close()

    def workers(self) -> list[psutil.Process]:
        """Return the processes that it started."""
        return list(self.process.children(recursive=True))


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def answers(port: int, path: str) -> bool:
    """Tell whether GET of a path is answered with 200."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


@contextlib.contextmanager
def started(command: Sequence[str], port: int, path: str, health: str) -> Iterator[Program]:
    """Start a server, wait until it is healthy, and end it and all that it started."""
    process = psutil.Popen(
        [sys.executable, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"RAUDO_ADMIN_TOKEN": TOKEN},
    )
    program = Program(process, port, path)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers(port, health):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command} did not start: {process.poll()}")
            time.sleep(0.1)
        yield program
    finally:
        _end(program)


def _end(program: Program) -> None:
    if program.process.poll() is not None:
        return
    started = program.workers()
    program.process.send_signal(signal.SIGTERM)
    try:
        program.process.wait(STOP_SECONDS)
    except psutil.TimeoutExpired:
        program.process.kill()
        program.process.wait()
    for worker in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()


@contextlib.contextmanager
def raudo(engine: Path, *options: str) -> Iterator[Program]:
    """Start `raudo serve` with an engine, or with a run folder."""
    port = free_port()
    command = ["-m", "raudo.cli", "serve", str(engine), "--port", str(port), *options]
    path = "/v2/models/detector/infer"
    with started(command, port, path, "/v2/health/ready") as program:
        yield program


@contextlib.contextmanager
def peer(engine: Path, settings: Sequence[str]) -> Iterator[Program]:
    """Start LitServe with an engine."""
    port = free_port()
    script = str(Path(__file__).with_name("serve_peer.py"))
    command = [script, str(engine), "--port", str(port), *settings]
    with started(command, port, "/predict", "/health") as program:
        yield program
