"""Fixtures that many tests share: the assets, the embedded sample, a tiny engine."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
import pytest

from raudo import machine
from raudo.records import Artifact, Letterbox, Manifest, Spec
from raudo.workspace import sha256, write_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx
    from numpy.typing import NDArray

# No test may depend on luck or on time: hypothesis tries the same examples each time, however long
# they take. `pytest --hypothesis-profile=default` looks for new ones, `brief` tries few.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None, database=None)
hypothesis.settings.register_profile(
    "brief", hypothesis.settings.get_profile("steady"), max_examples=25
)
hypothesis.settings.load_profile("steady")
REPOSITORY = Path(__file__).resolve().parents[1]
# Two processes of tests share the cores: what waits in one must not spin in the way of the other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
TINY_SIDE, TINY_CELL = 64, 16


def pytest_configure(config: pytest.Config) -> None:
    """Let all processes of the tests share a cache folder of their own, not the user's."""
    if not hasattr(config, "workerinput"):  # a worker of xdist inherits its parent's
        folder = tempfile.mkdtemp(prefix="raudo-tests-")
        os.environ["XDG_CACHE_HOME"] = os.environ["LOCALAPPDATA"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture(autouse=True)
def log_reaches_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test see what raudo logs.

    A run before it keeps the log to its own file, and libraries change what the root lets through.
    """
    logger = logging.getLogger("raudo")
    monkeypatch.setattr(logger, "propagate", True)
    logger.setLevel(logging.INFO)


@pytest.fixture
def logged() -> Iterator[list[logging.LogRecord]]:
    """What raudo logs, as its own loggers hand it on: no matter what is set further up."""
    records: list[logging.LogRecord] = []
    keeper = logging.Handler()
    keeper.emit = records.append  # type: ignore[method-assign]
    logging.disable(logging.NOTSET)
    known = logging.root.manager.loggerDict.items()
    ours = [
        each
        for name, each in known
        if name.startswith("raudo.") and isinstance(each, logging.Logger)
    ]
    for logger in ours:
        logger.disabled = False
        logger.setLevel(logging.INFO)
        logger.addHandler(keeper)
    yield records
    for logger in ours:
        logger.removeHandler(keeper)
        logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def assets() -> Path:
    """Models, data sets and videos that are not part of the repository."""
    folder = Path(os.environ.get("RAUDO_ASSETS", REPOSITORY.parent / "shared" / "assets"))
    if not (folder / "models").is_dir():
        pytest.skip(f"NO ASSETS: {folder} is absent; set RAUDO_ASSETS to the folder that has them")
    return folder.resolve()


DriverSays = Callable[..., None]


@pytest.fixture
def driver_says(monkeypatch: pytest.MonkeyPatch) -> DriverSays:
    """Called with a text and an exit code: what `nvidia-smi` then prints, and ends with."""
    monkeypatch.setattr(machine.shutil, "which", lambda _name: "nvidia-smi")

    def told(text: str, code: int = 0) -> None:
        ended = SimpleNamespace(stdout=text, stderr="", returncode=code)
        monkeypatch.setattr(machine.subprocess, "run", lambda *_args, **_options: ended)

    return told


@pytest.fixture(scope="session")
def samples() -> Path:
    """The embedded sample: model.pt, coco-mini/ and highway_960x540.mp4."""
    return REPOSITORY / "samples"


@pytest.fixture(scope="module")
def small_project(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to type commands in: model.pt, the team's commands, and a few of the samples."""
    folder = tmp_path_factory.mktemp("project")
    for commands in ("scripts", "models"):
        (folder / commands).mkdir()
        for script in (REPOSITORY / commands).glob("*.py"):
            shutil.copy(script, folder / commands)
    kept = folder / "samples"
    kept.mkdir()
    for name in ("model.pt", "highway_960x540.mp4"):
        shutil.copy(samples / name, kept)
    shutil.copy(samples / "model.pt", folder)
    for split, count in (("val", 6), ("calib", 4)):
        images = sorted((samples / "coco-mini" / "images" / split).glob("*.jpg"))[:count]
        for image in images:
            label = samples / "coco-mini" / "labels" / split / f"{image.stem}.txt"
            for file in (image, label):
                target = kept / file.relative_to(samples)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
    shutil.copy(samples / "coco-mini" / "data.yaml", kept / "coco-mini")
    return folder


@pytest.fixture(scope="session")
def ultralytics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The Ultralytics package, kept from writing settings and from looking for the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLO_CONFIG_DIR", str(tmp_path_factory.mktemp("settings")))
        patch.setenv("YOLO_OFFLINE", "1")
        patch.setenv("YOLO_VERBOSE", "0")
        patch.setenv("YOLO_AUTOINSTALL", "0")
        yield pytest.importorskip("ultralytics", reason="NO ULTRALYTICS: its models go untested")


@pytest.fixture(scope="session")
def tiny_spec() -> Spec:
    """The spec of `tiny_onnx`."""
    return Spec(
        family="onnx",
        height=TINY_SIDE,
        width=TINY_SIDE,
        classes=("blue", "green", "red"),
        letterbox=Letterbox(),
        output="dense",
        nms_iou=0.5,
    )


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file that obeys the engine contract: 64x64, 16 anchors, 3 classes.

    Each anchor is a cell of 16x16 pixels. Its score of class c is close to the mean of channel c
    over the cell, divided by 255; its box is the cell, grown on each side by up to 4 pixels with
    the best score. A stem of convolution and SiLU gives quantizers something to work on.
    """
    onnx = pytest.importorskip("onnx", reason="NO ONNX: engines go untested")

    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    onnx.save(_tiny_model(), path)
    return path


def _tiny_model() -> onnx.ModelProto:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node
    constants = _tiny_constants()
    nodes = [
        node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        node("Mul", ["nchw", "unit"], ["scaled"]),
        node("Conv", ["scaled", "stem"], ["features"], pads=[1, 1, 1, 1]),
        node("Sigmoid", ["features"], ["gate"]),
        node("Mul", ["features", "gate"], ["silu"]),
        node("Conv", ["silu", "head"], ["cells"], strides=[TINY_CELL, TINY_CELL]),
        node("Reshape", ["cells", "flat"], ["rows"]),
        node("Transpose", ["rows"], ["scores"], perm=[0, 2, 1]),
        node("ReduceMax", ["scores"], ["best"], axes=[2], keepdims=1),
        node("Mul", ["best", "growth"], ["grown"]),
        node("Add", ["grown", "grid"], ["boxes"]),
    ]
    anchors = (TINY_SIDE // TINY_CELL) ** 2
    value = helper.make_tensor_value_info
    images = value("images", TensorProto.UINT8, ["batch", TINY_SIDE, TINY_SIDE, 3])
    boxes = value("boxes", TensorProto.FLOAT, ["batch", anchors, 4])
    scores = value("scores", TensorProto.FLOAT, ["batch", anchors, 3])
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "tiny", [images], [boxes, scores], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def _tiny_constants() -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
    gain = 6.0  # far into the part where SiLU is the identity
    stem = np.zeros((3, 3, 3, 3), np.float32)
    head = np.zeros((3, 3, TINY_CELL, TINY_CELL), np.float32)
    for channel in range(3):
        stem[channel, channel, 1, 1] = gain
        head[channel, channel] = 1 / (gain * TINY_CELL**2)
    starts = np.arange(0, TINY_SIDE, TINY_CELL)
    y, x = (axis.reshape(-1) for axis in np.meshgrid(starts, starts, indexing="ij"))
    grid = np.stack([x, y, x + TINY_CELL, y + TINY_CELL], axis=1)[None]
    return {
        "unit": np.array(1 / 255, np.float32),
        "stem": stem,
        "head": head,
        "flat": np.array([0, 3, -1], np.int64),
        "growth": np.array([[[-4, -4, 4, 4]]], np.float32),
        "grid": grid.astype(np.float32),
    }


PROMETHEUS = REPOSITORY / ".venv" / "prometheus" / "usr" / "bin"


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus's own tool; `tests/install_tools.sh` gets it."""
    return installed("promtool", PROMETHEUS)


@pytest.fixture(scope="session")
def prometheus() -> Path:
    """Prometheus itself."""
    return installed("prometheus", PROMETHEUS)


def installed(program: str, folder: Path) -> Path:
    """Return where a program is, on the path or in a folder; skip the test where it is missing."""
    found = shutil.which(program) or shutil.which(program, path=folder)
    if found is None:
        pytest.skip(f"NO {program.upper()}: the service is tested less (tests/install_tools.sh)")
    return Path(found)


@pytest.fixture(scope="session")
def tiny_artifact(tiny_onnx: Path, tiny_spec: Spec) -> Artifact:
    """`tiny_onnx` as an engine with its manifest."""
    manifest = Manifest(
        name="onnxruntime-fp32",
        backend="onnxruntime",
        precision="fp32",
        spec=tiny_spec,
        source="tiny.pt",
        source_sha256="0" * 64,
        files_sha256={tiny_onnx.name: sha256(tiny_onnx)},
    )
    artifact = Artifact(tiny_onnx, manifest)
    write_manifest(artifact)
    return artifact
