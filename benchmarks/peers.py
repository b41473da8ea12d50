"""raudo against its peers, end to end: frame in memory, or video file, -> detections.

Both sides get the same model file and the same pictures. Each runs in a process of its own, as its
documentation tells a user to; they take turns, so that one sleeps while the other is timed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from raudo import discover
from raudo.records import Candidate, Report
from rows import Row, ratio_interval, show
from sides import Kind, Process, Raudo, Side, Timing, Ultralytics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "samples"
ASSETS = Path(os.environ.get("RAUDO_ASSETS", ROOT.parent / "shared" / "assets")).resolve()
BCCD = ASSETS / "datasets" / "bccd"
RAUDO = (sys.executable, "-m", "raudo.cli")
MODELS = ("yolo11n_bccd", "yolo26n_bccd")
SQUARE, WIDE, FOUR_THIRDS = (640, 640), (384, 640), (512, 640)
PROTOCOL_TOLERANCE = 0.002
EAGER_GOAL, SAMPLE_GOAL, VALIDATE_GOAL = 6.0, 1.5, 1.5


@dataclass(frozen=True)
class Scene:
    """Pictures, the input rectangle that fits them, and how much faster raudo is to be."""

    name: str
    source: Path
    size: tuple[int, int]
    kind: Kind
    goal: float


HIGHWAY = ASSETS / "videos" / "highway_960x540.mp4"
SCENES = (
    Scene("highway-latency", HIGHWAY, WIDE, "latency", 1.6),
    Scene("highway-throughput", HIGHWAY, WIDE, "throughput", 2.2),
    Scene("bccd-latency", BCCD / "images" / "val", FOUR_THIRDS, "latency", 1.25),
)


@dataclass(frozen=True)
class Proven:
    """An engine that passed the gates.

    Attributes:
        run: The run folder that it was chosen in.
        row: What was found out about it.
    """

    run: Path
    row: Candidate

    def told(self) -> dict[str, float | str]:
        """Return its losses and similarity, for the table."""
        scored = self.row.accuracy
        losses = (scored.map50_loss_percent, scored.map50_95_loss_percent) if scored else ()
        found: dict[str, float | str] = {
            f"{name} loss": f"{loss.value:.2f} % [{loss.low:.2f}, {loss.high:.2f}]"
            for name, loss in zip(("mAP50", "mAP50-95"), losses, strict=False)
            if loss is not None
        }
        return found | {"similarity": f"{self.row.similarity_percent or 0:.1f} %"}


class Workshop:
    """Makes the engines of both sides, each once, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        os.environ.setdefault("YOLO_CONFIG_DIR", str(self.folder))
        os.environ.setdefault("YOLO_OFFLINE", "1")
        os.environ.setdefault("YOLO_AUTOINSTALL", "0")
        self.data = self.folder / "bccd.yaml"
        self.folder.mkdir(parents=True, exist_ok=True)
        if BCCD.is_dir():
            described = yaml.safe_load((BCCD / "data.yaml").read_text(encoding="utf-8"))
            whole = yaml.safe_dump(described | {"path": str(BCCD)})
            self.data.write_text(whole, encoding="utf-8")

    def raudo(self, model: Path, size: tuple[int, int] | None, form: str, precision: str) -> Path:
        """Return an engine of `raudo export`."""
        side = "own" if size is None else f"{size[0]}x{size[1]}"
        output = self.folder / f"raudo-{form}-{precision}-{side}"
        stem = f"{model.stem}.{precision}" if precision != "fp32" else model.stem
        command = [*RAUDO, "export", str(model), "--to", form, "--precision", precision]
        if size is not None:
            command += ["--size", side]
        if not list(output.glob(f"{stem}*.json")):
            run([*command, "--output", str(output)])
        return next(iter(sorted(output.glob(f"{stem}*.json")))).with_suffix("")

    def proven(self, model: Path, size: tuple[int, int]) -> Proven:
        """Return what `raudo optimize` chooses among OpenVINO's engines of one size, on BCCD."""
        side = f"{size[0]}x{size[1]}"
        options = ["--data", str(self.data), "--splits", "val,test", "--size", side]
        options += ["--shapes", "own", "--recovery-budget", "300"]
        return self.optimized(model, f"{model.stem}-{side}", options)

    def optimized(self, model: Path, name: str, options: Sequence[str]) -> Proven:
        """Return what `raudo optimize` chooses among OpenVINO's engines.

        What its gates of accuracy and similarity refuse is not timed.
        """
        kept = self.folder / name / "report.json"
        if not kept.is_file():
            variants = discover.backend("openvino").variants
            command = [*RAUDO, "optimize", str(model), *options]
            command += ["--only", ",".join(f"openvino-{variant.name}" for variant in variants)]
            command += ["--gate", "production_cpu.speedup=1", "--timing-budget", "20"]
            run([*command, "--output", str(self.folder), "--name", name])
        report = Report.model_validate_json(kept.read_text(encoding="utf-8"))
        choice = report.decisions["production_cpu"].choice
        found = next((c for c in report.candidates if c.name == choice), None)
        if found is None:
            raise SystemExit(f"no engine of {name} passes the gates; see {kept.parent}")
        return Proven(kept.parent, found)

    def ultralytics(self, model: Path, size: tuple[int, int], form: str) -> Path:
        """Return an export of Ultralytics: INT8 for OpenVINO, FP32 for ONNX."""
        folder = self.folder / f"ultralytics-{form}-{size[0]}x{size[1]}"
        made = folder / f"{model.stem}{'_int8_openvino_model' if form == 'openvino' else '.onnx'}"
        if not made.exists():
            folder.mkdir(exist_ok=True)
            shutil.copy(model, folder)
            options: dict[str, Any] = {"format": form, "imgsz": list(size), "device": "cpu"}
            if form == "openvino":
                options |= {"int8": True, "data": str(self.data)}
            script = f"from ultralytics import YOLO; YOLO({model.name!r}).export(**{options!r})"
            run([sys.executable, "-c", script], folder)
        return made


def run(command: Sequence[str], folder: Path | None = None) -> str:
    """Run a command and return what it printed; its own messages go to standard error."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1, 3):  # 1 and 3 are raudo's verdicts
        sys.stderr.write(done.stdout + done.stderr)
        raise SystemExit(f"failed: {' '.join(command)}")
    return done.stdout


def against(case: str, ours: Side, theirs: Side, goal: float | None, rounds: int) -> Row:
    """Let two sides take turns, in random order."""
    order = random.Random(0)
    with Process(ours) as our_process, Process(theirs) as their_process:
        sides = [our_process, their_process]
        for side in sides:
            side.turn()
        turns: dict[int, list[Timing]] = {id(side): [] for side in sides}
        for _ in range(rounds):
            for side in order.sample(sides, 2):
                turns[id(side)].append(side.turn())
    our_turns, their_turns = turns[id(our_process)], turns[id(their_process)]
    extra: dict[str, float | str] = {
        "raudo": ours.name,
        "raudo_ms": min(turn.ms for turn in our_turns),
        "peer": theirs.name,
        "peer_ms": min(turn.ms for turn in their_turns),
        "found": f"{our_turns[0].found} and {their_turns[0].found} in {our_turns[0].frames} frames",
    }
    ratio = ratio_interval([turn.ms for turn in their_turns], [turn.ms for turn in our_turns])
    return Row(case, *ratio, goal=goal, extra=extra)


def scene_rows(scene: Scene, model: str, workshop: Workshop, rounds: int) -> list[Row]:
    """Compare with Ultralytics' own OpenVINO INT8 export, square and of the same rectangle."""
    file = ASSETS / "models" / f"{model}.pt"
    size = f"{scene.size[0]}x{scene.size[1]}"
    engine = workshop.proven(file, scene.size)
    ours = Raudo(f"{engine.row.name} {size}", engine.run, scene.source, scene.kind)
    rows = []
    for peer_size in (SQUARE, scene.size):
        export = workshop.ultralytics(file, peer_size, "openvino")
        told = f"Ultralytics predict, its defaults, OpenVINO INT8 {peer_size[0]}x{peer_size[1]}"
        theirs = Ultralytics(told, export, scene.source, scene.kind)
        own = peer_size == SQUARE
        name = f"{model} {scene.name}" + ("" if own else f", peer exported by hand at {size}")
        row = against(name, ours, theirs, scene.goal if own else None, rounds)
        rows.append(replace(row, extra={**row.extra, **engine.told()}))
    return rows


def eager_rows(model: str, workshop: Workshop, rounds: int) -> list[Row]:
    """Compare with PyTorch as Ultralytics runs it."""
    file = ASSETS / "models" / f"{model}.pt"
    rows = []
    for scene in (scene for scene in SCENES if scene.kind == "latency"):
        engine = workshop.proven(file, scene.size)
        ours = Raudo(engine.row.name, engine.run, scene.source, "latency")
        theirs = Ultralytics("Ultralytics predict, PyTorch FP32", file, scene.source, "latency")
        row = against(f"{model} eager, {scene.name}", ours, theirs, EAGER_GOAL, rounds)
        rows.append(replace(row, extra={**row.extra, **engine.told()}))
    return rows


def sample_rows(workshop: Workshop, rounds: int) -> list[Row]:
    """Compare the embedded sample with ONNX Runtime at its own, square size.

    Its 91 images cannot show that a loss is below 1 %: the gate is 2 %, and the row tells the loss.
    """
    model, data = SAMPLES / "model.pt", SAMPLES / "coco-mini"
    options = ["--data", str(data / "data.yaml"), "--gate", "production_cpu.map50_loss_percent=2"]
    engine = workshop.optimized(model, "sample", options)
    reference = workshop.raudo(model, None, "onnx", "fp32")
    source = data / "images" / "val"
    ours = Raudo(engine.row.name, engine.run, source, "latency")
    theirs = Raudo("ONNX Runtime FP32", reference, source, "latency")
    row = against("sample latency", ours, theirs, SAMPLE_GOAL, rounds)
    return [replace(row, extra={**row.extra, **engine.told()})]


ULTRALYTICS_VAL = """
import json, sys
from ultralytics import YOLO
metrics = YOLO(sys.argv[1], task="detect").val(
    data=sys.argv[2], split="val", batch=1, rect=False, device="cpu", plots=False, verbose=False
)
print("\\n" + json.dumps({"map50": metrics.box.map50, "map50_95": metrics.box.map}))
"""


def validate_rows(model: str, workshop: Workshop, rounds: int) -> list[Row]:
    """Time both commands from their start to their end, on the same FP32 network and runtime."""
    file = ASSETS / "models" / f"{model}.pt"
    ours = workshop.raudo(file, SQUARE, "onnx", "fp32")
    theirs = workshop.ultralytics(file, SQUARE, "onnx")
    our_command = [*RAUDO, "validate", str(ours), "--data", str(workshop.data), "--json"]
    their_command = [sys.executable, "-c", ULTRALYTICS_VAL, str(theirs), str(workshop.data)]
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    told = {}
    for _ in range(rounds):
        for name, command in (("theirs", their_command), ("ours", our_command)):
            start = time.perf_counter()
            told[name] = run(command, workshop.folder)
            times[name].append(time.perf_counter() - start)
    scored = json.loads(told["ours"])
    accuracy = scored["engines"][scored["baseline"]]["accuracy"]
    peer = json.loads(told["theirs"].strip().splitlines()[-1])
    extra: dict[str, float | str] = {
        "raudo_s": min(times["ours"]),
        "peer": "Ultralytics val, ONNX 640x640, batch 1",
        "peer_s": min(times["theirs"]),
    }
    ratio = ratio_interval(times["theirs"], times["ours"])
    rows = [Row(f"{model} validate", *ratio, goal=VALIDATE_GOAL, extra=extra)]
    for name in ("map50", "map50_95"):
        apart = abs(accuracy[name] - peer[name])
        within = PROTOCOL_TOLERANCE / max(apart, 1e-9)
        seen: dict[str, float | str] = {"raudo": accuracy[name], "peer": peer[name]}
        case = f"{model} validate, {name}: {PROTOCOL_TOLERANCE} against the difference"
        rows.append(Row(case, within, within, within, 1.0, {**seen, "apart": apart}))
    return rows


def cases(workshop: Workshop, rounds: int) -> dict[str, Callable[[], list[Row]]]:
    """Return all cases by name."""
    found: dict[str, Callable[[], list[Row]]] = {}
    for model in MODELS:
        for scene in SCENES:
            found[f"{model}-{scene.name}"] = partial(scene_rows, scene, model, workshop, rounds)
        found[f"{model}-eager"] = partial(eager_rows, model, workshop, rounds)
        found[f"{model}-validate"] = partial(validate_rows, model, workshop, rounds)
    return found | {"sample": partial(sample_rows, workshop, rounds)}


def main() -> None:
    """Run the cases and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each side")
    parser.add_argument("--cases", default="", help="words that names of cases contain, commas")
    parser.add_argument("--keep", type=Path, help="folder to keep the engines in, and to reuse")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="raudo-peers-") as folder:
        workshop = Workshop(options.keep or Path(folder))
        wanted = options.cases.split(",")
        for name, case in cases(workshop, options.rounds).items():
            if not any(word in name for word in wanted):
                continue
            if name != "sample" and importlib.util.find_spec("ultralytics") is None:
                sys.stderr.write(f"SKIPPED {name}: Ultralytics is not installed\n")
            elif name != "sample" and not BCCD.is_dir():
                sys.stderr.write(f"SKIPPED {name}: no {ASSETS}; set RAUDO_ASSETS\n")
            else:
                show(case(), options.json)


if __name__ == "__main__":
    main()
