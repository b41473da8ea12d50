"""TensorRT: engines built without a GPU, run on a fake one, and everything that can go wrong."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import fake_gpu
from raudo import discover
from raudo.backends.base import Resources
from raudo.build import build, precision_problem
from raudo.errors import EngineError, MissingDependencyError, SourceError
from raudo.gpu import build as gpu_build
from raudo.gpu import cuda
from raudo.gpu.lane import audit_layers, read_layers
from raudo.gpu.toolkit import Toolkit
from raudo.machine import describe
from raudo.plan import Plan, obstacle
from raudo.records import Artifact, Manifest

if TYPE_CHECKING:
    from pathlib import Path

    from raudo.records import Precision, Spec

BACKEND = discover.backend("tensorrt")
MODULE = sys.modules[type(BACKEND).__module__]
VARIANTS = {variant.precision: variant for variant in BACKEND.variants}
HERE = {"runtime": "TensorRT 8.5.3", "gpu": "Fake 3000", "compute_capability": "8.6"}


# --- built for real, where there is no GPU --------------------------------------------------------


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    return tmp_path / "cache" / "raudo"


@pytest.fixture(scope="session")
def rtx() -> Toolkit:
    """TensorRT for RTX, which builds without a GPU."""
    bindings = pytest.importorskip("tensorrt_rtx_bindings", reason="NO TENSORRT-RTX")
    return Toolkit.of(bindings, "TensorRT-RTX")


def make(real_model: Any, precision: Precision, folder: Path) -> Artifact:
    chosen = Plan(BACKEND.name, VARIANTS[precision], gpus=("sm86", "SM120"))
    engine = folder / f"model.{precision}.engine"
    return build(
        chosen, real_model.file, real_model.info, real_model.onnx, engine, real_model.calibration
    )


@pytest.fixture(scope="module")
def engines(
    rtx: Toolkit, real_model: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[Precision, Artifact]:
    """The sample in three precisions, for cards of two generations."""
    folder = tmp_path_factory.mktemp("engines")
    wanted: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    return {precision: make(real_model, precision, folder) for precision in wanted}


@pytest.mark.slow
def test_the_sample_is_built_for_cards_that_are_not_here(
    engines: dict[Precision, Artifact],
) -> None:
    sizes = {precision: made.path.stat().st_size for precision, made in engines.items()}
    assert 3e6 < sizes["fp16"] < 0.95 * sizes["fp32"]
    found = {}
    for precision, made in engines.items():
        audit, machine = made.manifest.audit, made.manifest.machine
        assert audit is not None
        assert precision_problem(precision, audit) is None
        found[precision] = audit.found
        assert machine["compute_capability"] == "8.6, 12.0"
        assert machine["runtime"].startswith("TensorRT-RTX 1.")
        assert len(machine["onnx_sha256"]) == 64
        assert "gpu" not in machine
    assert found == {
        "fp32": {"fp32": 105},
        "fp16": {"fp16": 105},
        "int8": {"int8": 96, "fp32": 9},  # those that predict
    }


def tensors(network: Any, kind: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    each = [getattr(network, f"get_{kind}")(i) for i in range(getattr(network, f"num_{kind}s"))]
    return {tensor.name: (tensor.dtype.name, tuple(tensor.shape)) for tensor in each}


def test_what_is_built_takes_bytes_and_gives_floats(rtx: Toolkit, tiny_onnx: Path) -> None:
    model = discover.load("passes", "fp16").apply(BACKEND.read_graph(tiny_onnx), [])
    started = gpu_build.Build(rtx, model.SerializeToString(), VARIANTS["fp16"], ("sm86",))
    assert tensors(started._network, "input") == {"images": ("UINT8", (-1, 64, 64, 3))}
    assert tensors(started._network, "output") == {
        "boxes": ("FLOAT", (-1, 16, 4)),
        "scores": ("FLOAT", (-1, 16, 3)),
    }
    assert started.audit().found == {"fp16": 2}


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_full_precision_and_tf32_differ_in_what_they_allow(
    precision: Precision, rtx: Toolkit, tiny_onnx: Path
) -> None:
    model = BACKEND.read_graph(tiny_onnx).SerializeToString()
    started = gpu_build.Build(rtx, model, VARIANTS[precision], ("sm86",))
    assert started.run(None)
    allowed = started._config.get_flag(rtx.module.BuilderFlag.TF32)
    assert allowed == (precision == "tf32")
    assert started.audit().found == {precision: 2}


def test_one_logger_hears_all_that_live_at_once(
    rtx: Toolkit, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = rtx.module.Runtime(rtx.logger())
    builder = rtx.module.Builder(rtx.logger())
    assert builder
    assert "differs from one already registered" not in caplog.text
    heard = rtx.logger()
    assert runtime.deserialize_cuda_engine(b"no engine") is None
    assert "readHeader" in heard.errors[0]
    assert rtx.logger().reason() == "it does not say why"


def test_an_operator_that_is_not_supported_is_named_with_its_node(
    rtx: Toolkit, tiny_onnx: Path, tmp_path: Path
) -> None:
    model = BACKEND.read_graph(tiny_onnx)
    gate = next(node for node in model.graph.node if node.op_type == "Sigmoid")
    gate.op_type, gate.domain, gate.name = "Enchant", "test", "the gate"
    model.opset_import.add(domain="test", version=1)
    engine = tmp_path / "x.engine"
    with pytest.raises(SourceError, match=r"Enchant in node 'the gate'") as caught:
        BACKEND.make(model, engine, VARIANTS["fp32"], ("sm86",))
    assert "\n" not in caught.value.message
    assert not engine.exists()


def test_kinds_of_gpu_that_nobody_knows_are_refused(rtx: Toolkit) -> None:
    assert BACKEND.unable_to_aim(("sm86", "SM89", "sm120")) is None
    reason = BACKEND.unable_to_aim(("sm86", "sm7"))
    assert reason is not None
    assert "sm7 (known: sm75" in reason
    chosen = Plan(BACKEND.name, VARIANTS["fp16"], gpus=("sm7",))
    assert obstacle(chosen, describe(), has_module=True, calibrated=False) == reason


def test_other_formats_have_no_kinds_of_gpu() -> None:
    other = next(b for b in discover.backends() if b.name != BACKEND.name and not b.missing())
    reason = other.unable_to_aim(("sm86",))
    assert reason is not None
    assert "not made for one kind of GPU" in reason


# --- run on a GPU that is not there ---------------------------------------------------------------

LAYERS = [
    {
        "Name": "first",
        "LayerType": "CaskConvolution",
        "Inputs": [{"Name": "a", "Format/Datatype": "Channel major FP16 format"}],
        "TacticName": "sm80_xmma_fprop_f16f16_f16",
    },
    {
        "Name": "second",
        "LayerType": "CaskConvolution",
        "Inputs": [{"Name": "b", "Format/Datatype": "Thirty-two wide vectorized Int8 format"}],
        "TacticName": "sm80_xmma_fprop_i8i8_i8i32",
    },
    {"Name": "shuffle", "LayerType": "Shuffle", "Inputs": [{"Format/Datatype": "FP32"}]},
]
ENGINE: dict[str, Any] = {
    "tensors": {
        "scores": ["FLOAT", [-1, 16, 3]],
        "images": ["UINT8", [-1, 64, 64, 3]],
        "boxes": ["FLOAT", [-1, 16, 4]],
    },
    "profiles": [[1, 1], [2, 32]],
    "layers": LAYERS,
}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> fake_gpu.Cuda:
    """A fake GPU, and a fake TensorRT 8.5 on it."""
    fake = fake_gpu.Cuda()
    monkeypatch.setattr(cuda, "runtime", lambda: fake)
    monkeypatch.setattr(MODULE, "_installed", lambda *flavours: ("tensorrt",))
    toolkit = Toolkit.of(fake_gpu.library(fake), "TensorRT")
    monkeypatch.setattr(MODULE, "_load", lambda *flavours: toolkit)
    return fake


def artifact(folder: Path, spec: Spec, machine: dict[str, str], **changes: Any) -> Artifact:
    path = folder / "tiny.engine"
    path.write_text(json.dumps(ENGINE | changes), encoding="utf-8")
    manifest = Manifest(
        name="tensorrt-fp16",
        backend=BACKEND.name,
        precision="fp16",
        spec=spec,
        source="tiny.onnx",
        source_sha256="",
        files_sha256={},
        machine=machine,
    )
    return Artifact(path, manifest)


def levels(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Images uint8 [count, 64, 64, 3], each of one grey."""
    greys = np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(greys, (count, 64, 64, 3))


@pytest.mark.parametrize("batch", [1, 2, 8, 32])
def test_each_batch_size_gives_what_its_images_hold(
    batch: int, gpu: fake_gpu.Cuda, tiny_spec: Spec, tmp_path: Path
) -> None:
    with BACKEND.open(artifact(tmp_path, tiny_spec, HERE), Resources(batch=batch)) as engine:
        for count in {batch, max(1, batch - 1)}:
            found = engine.run(levels(count))
            assert found.scores[:, 0, 0].tolist() == list(range(1, count + 1))
            assert found.boxes[0, 0].tolist() == [1, 2, 3, 4]
        assert engine.time_network(levels(batch), 3) == (0.0015,) * 3
    assert gpu.taken == 0


def test_threads_do_not_mix_their_images(
    gpu: fake_gpu.Cuda, tiny_spec: Spec, tmp_path: Path
) -> None:
    made = artifact(tmp_path, tiny_spec, HERE)
    with BACKEND.open(made, Resources(streams=8)) as engine, ThreadPoolExecutor(8) as pool:
        images = levels(200)
        found = list(pool.map(lambda i: engine.run(images[i : i + 1]), range(200)))
    assert [float(outputs.scores[0, 0, 0]) for outputs in found] == list(range(1, 201))
    assert gpu.taken == 0


def test_images_are_copied_from_where_they_were_prepared(
    gpu: fake_gpu.Cuda, tiny_spec: Spec, tmp_path: Path
) -> None:
    with BACKEND.open(artifact(tmp_path, tiny_spec, HERE), Resources(batch=3)) as engine:
        for count in (3, 2):
            batch = engine.empty((count, 64, 64, 3))
            batch[:] = levels(count)
            assert engine.run(batch).scores[:, 0, 0].tolist() == list(range(1, count + 1))
            assert gpu.sources.pop() == batch.ctypes.data
            assert engine.run(batch[1:]).scores[:, 0, 0].tolist() == list(range(2, count + 1))
            assert gpu.sources.pop() not in (batch.ctypes.data, batch[1:].ctypes.data)
        del batch
    assert gpu.taken == 0


def test_memory_is_used_again_once_nothing_refers_to_it(
    gpu: fake_gpu.Cuda, tiny_spec: Spec, tmp_path: Path
) -> None:
    with BACKEND.open(artifact(tmp_path, tiny_spec, HERE), Resources()) as engine:
        first, second = (engine.empty((1, 64, 64, 3)) for _ in range(2))
        view, place = first[0, :8], first.ctypes.data
        assert place != second.ctypes.data
        del first
        third = engine.empty((1, 64, 64, 3))
        assert third.ctypes.data not in (place, second.ctypes.data)
        del view
        assert engine.empty((1, 64, 64, 3)).ctypes.data == place
    second[:] = 7  # it outlives the engine
    assert gpu.taken == 2
    del second, third
    assert gpu.taken == 0


def test_an_engine_for_another_size_than_its_manifest_says_is_refused(
    gpu: fake_gpu.Cuda, tiny_spec: Spec, tmp_path: Path
) -> None:
    other = ENGINE["tensors"] | {"images": ["UINT8", [-1, 32, 64, 3]]}
    with pytest.raises(EngineError, match=r"images is UINT8 \[1, 32, 64, 3\], which breaks the"):
        BACKEND.open(artifact(tmp_path, tiny_spec, HERE, tensors=other), Resources())
    assert gpu.taken == 0


def test_more_images_than_it_was_opened_for_are_refused(
    gpu: fake_gpu.Cuda, tiny_spec: Spec, tmp_path: Path
) -> None:
    with BACKEND.open(artifact(tmp_path, tiny_spec, HERE), Resources(batch=2)) as engine:
        for ask in (lambda: engine.run(levels(3)), lambda: engine.empty((3, 64, 64, 3))):
            with pytest.raises(EngineError, match="opened for 2 images at a time, not 3"):
                ask()


@pytest.mark.parametrize("batch", [33, 100])
def test_a_batch_that_it_was_not_built_for_is_refused(
    batch: int, gpu: fake_gpu.Cuda, tiny_spec: Spec, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=f"takes 1 to 32 images at a time, not {batch}"):
        BACKEND.open(artifact(tmp_path, tiny_spec, HERE), Resources(batch=batch))
    assert gpu.taken == 0


def test_the_audit_counts_the_layers_that_compute(
    gpu: fake_gpu.Cuda, tiny_spec: Spec, tmp_path: Path
) -> None:
    with BACKEND.open(artifact(tmp_path, tiny_spec, HERE), Resources()) as engine:
        audit = engine.audit()
        nodes = engine.profile(levels(1))
        assert engine.run(levels(1)).scores[0, 0, 0] == 1  # and goes on as before
    assert audit.found == {"fp16": 1, "int8": 1}
    assert audit.per_node
    assert [(node.name, node.precision, node.milliseconds) for node in nodes] == [
        ("first", "fp16", 0.25),
        ("second", "int8", 0.25),
        ("shuffle", "fp32", 0.25),
    ]
    assert gpu.taken == 0


@pytest.mark.parametrize(
    ("tactic", "format_", "expected"),
    [
        ("sm80_xmma_fprop_tf32f32_tf32f32_f32", "Row major linear FP32", "tf32"),
        ("sm80_xmma_fprop_f32f32_f32", "Row major linear FP32", "fp32"),
        ("ampere_scudnn", "Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("", "Half", "fp16"),
        ("", "BF16", "bf16"),
        ("", "Thirty-two wide channel vectorized row major Int8 format", "int8"),
    ],
)
def test_the_words_of_the_inspector(tactic: str, format_: str, expected: str) -> None:
    layer = {
        "Name": "conv",
        "LayerType": "CaskConvolution",
        "Inputs": [{"Format/Datatype": format_}],
        "TacticName": tactic,
    }
    assert audit_layers([layer]).found == {expected: 1}


@pytest.mark.parametrize(
    "text", ["", "not JSON", "[]", '{"Layers": ["conv1", "conv2"]}', '{"Layers": [{"Name": "x"}]}']
)
def test_an_inspector_that_tells_nothing_is_said_to(text: str) -> None:
    audit = audit_layers(read_layers(text))
    assert not audit.per_node
    assert audit.note


def test_an_inspector_that_separates_names_by_a_control_character_is_read() -> None:
    text = '{"Layers": [{"Name": "conv", "Metadata": "[ONNX Layer: a]\x1e[ONNX Layer: b]"}]}'
    assert [told["Name"] for told in read_layers(text)] == ["conv"]


# --- what can go wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ({"gpu": "Other 4090"}, "gpu Other 4090, here Fake 3000"),
        ({"compute_capability": "8.9, 12.0"}, "compute capability 8.9, 12.0, here 8.6"),
        ({"driver": "CUDA 12.2"}, "driver CUDA 12.2, here CUDA 13.0"),
        ({"runtime": "TensorRT 10.9.0"}, "runtime TensorRT 10.9.0, here TensorRT 8.5.3"),
    ],
)
def test_an_engine_of_another_machine_says_what_differs_and_how_to_rebuild(
    made: dict[str, str], told: str, gpu: fake_gpu.Cuda, tiny_spec: Spec, tmp_path: Path
) -> None:
    engine = artifact(tmp_path, tiny_spec, HERE | made)
    with pytest.raises(EngineError) as caught:
        BACKEND.open(engine, Resources())
    assert caught.value.message == f"{engine.path} was built for another machine: {told}"
    assert caught.value.hint == f"make it again: raudo export {engine.path} --rebuild"
    assert gpu.taken == 0


def test_an_engine_for_several_kinds_of_card_opens_on_each(
    gpu: fake_gpu.Cuda, tiny_spec: Spec, tmp_path: Path
) -> None:
    machine = {"runtime": HERE["runtime"], "compute_capability": "8.6, 8.9, 12.0"}
    for capability in ((8, 6), (8, 9), (12, 0)):
        gpu.capability = capability
        BACKEND.open(artifact(tmp_path, tiny_spec, machine), Resources()).close()
    gpu.capability = (9, 0)
    with pytest.raises(EngineError, match=r"compute capability 8.6, 8.9, 12.0, here 9.0"):
        BACKEND.open(artifact(tmp_path, tiny_spec, machine), Resources())


def test_an_engine_of_a_flavour_that_is_not_installed(
    gpu: fake_gpu.Cuda, tiny_spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        MODULE, "_installed", lambda *flavours: ("tensorrt",) * ("TensorRT" in flavours)
    )
    made = artifact(tmp_path, tiny_spec, HERE | {"runtime": "TensorRT-RTX 1.7.1"})
    with pytest.raises(EngineError, match=r"built with TensorRT-RTX 1.7.1, which is not installed"):
        BACKEND.open(made, Resources())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"no context": True}, "does not run"),
        ({"fails": True}, "does not run"),
        ({"profiles": []}, None),
    ],
)
def test_an_engine_that_does_not_run_leaves_nothing_on_the_gpu(
    changes: dict[str, Any],
    told: str | None,
    gpu: fake_gpu.Cuda,
    tiny_spec: Spec,
    tmp_path: Path,
) -> None:
    if told is None:
        changes["tensors"] = ENGINE["tensors"] | {"boxes": ["FLOAT", [-1, -1, 4]]}
        changes["profiles"], told = ENGINE["profiles"], "breaks the contract"
    with pytest.raises(EngineError, match=told):
        BACKEND.open(artifact(tmp_path, tiny_spec, HERE, **changes), Resources(streams=2))
    assert gpu.taken == 0


def test_out_of_memory_is_said_and_what_was_taken_is_freed(
    gpu: fake_gpu.Cuda, tiny_spec: Spec, tmp_path: Path
) -> None:
    gpu.limit = 64 * 64 * 3 * 4
    made = artifact(tmp_path, tiny_spec, HERE)
    with pytest.raises(EngineError, match="taking memory on the GPU") as caught:
        BACKEND.open(made, Resources(batch=8))
    assert "smaller batch" in caught.value.hint
    assert gpu.taken == 0
    BACKEND.open(made, Resources(batch=1)).close()


def test_a_gpu_too_full_to_be_used_at_all_is_said(
    gpu: fake_gpu.Cuda, tiny_spec: Spec, tmp_path: Path
) -> None:
    gpu.limit = fake_gpu.CONTEXT - 1
    with pytest.raises(EngineError, match="starting on the GPU") as caught:
        BACKEND.open(artifact(tmp_path, tiny_spec, HERE), Resources())
    assert caught.value.hint == cuda.HINTS[cuda.MEMORY_ERROR]
    assert gpu.taken == 0


@pytest.mark.parametrize(
    ("status", "devices", "told"), [(35, 0, "35"), (100, 0, "100"), (0, 0, "shows no GPU")]
)
def test_no_driver_an_old_one_and_no_gpu(
    status: int,
    devices: int,
    told: str,
    gpu: fake_gpu.Cuda,
    tiny_spec: Spec,
    tmp_path: Path,
) -> None:
    gpu.status, gpu.devices = status, devices
    with pytest.raises(EngineError, match=told) as caught:
        BACKEND.open(artifact(tmp_path, tiny_spec, HERE), Resources())
    assert "GPU" in caught.value.hint or "driver" in caught.value.hint


def test_a_library_that_does_not_load_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise ImportError("libnvinfer.so.8: cannot open shared object file\nmore")

    monkeypatch.setattr(MODULE, "_installed", lambda *flavours: ("tensorrt",))
    monkeypatch.setattr(MODULE.importlib, "import_module", fail)
    with pytest.raises(MissingDependencyError) as caught:
        MODULE._load("TensorRT")
    assert caught.value.message == (
        "TensorRT does not load: libnvinfer.so.8: cannot open shared object file"
    )


def test_nothing_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "_installed", lambda *flavours: ())
    assert BACKEND.missing()
    reason = BACKEND.unable_to_aim(("sm86",))
    assert reason is not None
    assert "tensorrt-rtx" in reason
    with pytest.raises(MissingDependencyError):
        MODULE._load("TensorRT")


# --- how a build is asked for, on the API of TensorRT 8 -------------------------------------------


class Cache:
    """Times of kernels, as the fake library keeps them: a set of words."""

    def __init__(self, words: bytes) -> None:
        self.words = set(words.split())

    def serialize(self) -> bytes:
        return b" ".join(sorted(self.words))

    def combine(self, other: Cache, ignore_mismatch: bool) -> bool:
        self.words |= other.words
        return True


class Config:
    """A builder's configuration that notes what it is asked; caches begin with `times`."""

    def __init__(self) -> None:
        self.flags, self.sources, self.cache = {"TF32"}, -1, None

    def create_timing_cache(self, data: bytes) -> Cache | None:
        return Cache(data or b"times") if not data or data.startswith(b"times") else None

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return True

    def set_flag(self, flag: str) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: str) -> None:
        self.flags.discard(flag)

    def set_tactic_sources(self, sources: int) -> None:
        self.sources = sources


def test_times_are_kept_by_gpu_and_version_and_added_to_what_others_wrote(own_cache: Path) -> None:
    first, second = (gpu_build.TimingCache(HERE) for _ in range(2))
    first.attach(config := Config())
    second.attach(other := Config())
    config.cache.words.add(b"times-a")
    other.cache.words.add(b"times-b")
    first.keep(config)
    second.keep(other)
    (file,) = own_cache.iterdir()
    assert file.name == "8.6-Fake-3000-TensorRT-8.5.3.timing"
    third = gpu_build.TimingCache(HERE)
    third.attach(config := Config())
    assert config.cache.words == {b"times", b"times-a", b"times-b"}
    file.write_bytes(b"damaged")
    third.attach(config)
    third.keep(config)
    assert file.read_bytes() == b"times"
    assert gpu_build.TimingCache(HERE | {"gpu": "Other"}).path != file


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (
            ["[virtualMemoryBuffer.cpp] OutOfMemory (no further information)\nmore"],
            "another program",
        ),
        (["Could not find any implementation for node conv1"], "log"),
        ([], "log"),
    ],
)
def test_a_build_that_fails_says_why_and_keeps_no_times(
    said: list[str], hint: str, own_cache: Path
) -> None:
    started = gpu_build.Build.__new__(gpu_build.Build)
    started._toolkit = SimpleNamespace(title="TensorRT 8.5.3", typed=True, branches=False)
    started._trt = SimpleNamespace(
        ProfilingVerbosity=SimpleNamespace(DETAILED=1), BuilderFlag=SimpleNamespace(TF32="TF32")
    )
    started._variant, started._config = VARIANTS["fp16"], Config()
    started._log = Toolkit.of(fake_gpu.library(fake_gpu.Cuda()), "TensorRT").logger()
    for text in said:
        started._log.log(fake_gpu.Severity.ERROR, text)
    started._network = SimpleNamespace(get_input=lambda i: SimpleNamespace(shape=(1, 64, 64, 3)))
    started._builder = SimpleNamespace(build_serialized_network=lambda network, config: None)
    with pytest.raises(EngineError) as caught:
        started.run(gpu_build.TimingCache(HERE))
    assert caught.value.message.startswith("TensorRT 8.5.3 cannot build the engine: ")
    assert "\n" not in caught.value.message
    assert hint in caught.value.hint
    assert not own_cache.exists()


@pytest.mark.parametrize(
    ("settings", "aims", "branches"),
    [((), False, False), (("max_aux_streams",), False, True), (("max_aux_streams",), True, False)],
    ids=["8.5", "8.6", "for RTX"],
)
def test_branches_are_computed_side_by_side_by_what_can(
    settings: tuple[str, ...], aims: bool, branches: bool
) -> None:
    module = fake_gpu.library(fake_gpu.Cuda())
    module.IBuilderConfig = SimpleNamespace(**dict.fromkeys(settings, 0))
    if aims:
        module.ComputeCapability = object
    started = gpu_build.Build.__new__(gpu_build.Build)
    started._toolkit = toolkit = Toolkit.of(module, "TensorRT")
    started._trt = SimpleNamespace(ProfilingVerbosity=SimpleNamespace(DETAILED=1))
    started._network, started._config = None, SimpleNamespace()
    started._builder = SimpleNamespace(build_serialized_network=lambda network, config: b"engine")
    started._allow_precision = started._add_profiles = lambda: None  # type: ignore[method-assign]
    assert started.run(None) == b"engine"
    assert toolkit.branches == branches
    assert hasattr(started._config, "max_aux_streams") == branches


def layer(name: str, kind: str, inputs: str, dtype: str = "HALF") -> Any:
    told = SimpleNamespace(name="FLOAT")  # it tells that of most tensors
    tensors = [SimpleNamespace(name=word, dtype=told) for word in inputs.split()]
    made = SimpleNamespace(name=name, dtype=SimpleNamespace(name=dtype))
    return SimpleNamespace(
        name=name,
        type=SimpleNamespace(name=kind),
        num_inputs=len(tensors),
        num_outputs=1,
        get_input=lambda i: tensors[i],
        get_output=lambda i: made,
        precision=None,
        set_output_type=lambda i, kind: None,
    )


@pytest.mark.parametrize(
    ("precision", "flags"),
    [
        ("fp32", set()),
        ("tf32", {"TF32"}),
        ("fp16", {"FP16", "OBEY_PRECISION_CONSTRAINTS"}),
        ("int8", {"INT8", "FP16", "PREFER_PRECISION_CONSTRAINTS"}),
    ],
)
def test_flags_allow_what_the_graph_says_and_hold_decoding_in_single(
    precision: Precision, flags: set[str]
) -> None:
    layers = [
        layer("pixels", "IDENTITY", "images"),
        layer("features", "CONVOLUTION", "pixels"),
        layer("gate", "ACTIVATION", "features"),
        layer("cells", "CONVOLUTION", "gate"),
        layer("sizes", "SHAPE", "cells", "INT32"),
        layer("twice", "ELEMENTWISE", "sizes", "INT32"),
        layer("rows", "SHUFFLE", "cells twice", "FLOAT"),
        layer("exact", "CAST", "rows", "FLOAT"),
        layer("pairs", "SHUFFLE", "exact", "FLOAT"),
        layer("boxes", "ELEMENTWISE", "pairs", "FLOAT"),
    ]
    constraints = ("OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS")
    words = {name: name for name in ("FP16", "INT8", "TF32", *constraints)}
    started = gpu_build.Build.__new__(gpu_build.Build)
    started._config = config = Config()
    started._variant = VARIANTS[precision]
    started._trt = SimpleNamespace(
        BuilderFlag=SimpleNamespace(**words),
        DataType=SimpleNamespace(FLOAT="FLOAT", HALF="HALF"),
        TacticSource=SimpleNamespace(__members__={"CUDNN": 2, "EDGE_MASK_CONVOLUTIONS": 3}),
    )
    started._toolkit = SimpleNamespace(typed=False)
    started._network = SimpleNamespace(
        num_layers=len(layers),
        num_outputs=1,
        get_layer=lambda i: layers[i],
        get_output=lambda i: SimpleNamespace(name="boxes"),
    )
    started._allow_precision()
    assert config.flags == flags
    assert config.sources == 1 << 3  # no cuBLAS, no cuDNN
    held = {each.name: each.precision for each in layers if each.precision}
    network = dict.fromkeys(["features", "gate", "cells", "rows"], "HALF")
    decoding = {
        "fp16": {"pairs": "FLOAT", "boxes": "FLOAT"},
        "int8": {"boxes": "FLOAT"},
    }
    assert held == {**(network if precision == "fp16" else {}), **decoding.get(precision, {})}
