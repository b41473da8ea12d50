"""What every discovered backend must keep to: its static data, and the engine contract."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from raudo import discover
from raudo.backends.base import Backend, Engine, Outputs, Resources, Variant
from raudo.errors import EngineError, RaudoError
from raudo.machine import describe
from raudo.passes.base import QuantizationSettings
from raudo.plan import Plan, obstacle
from raudo.records import TARGETS, Artifact, Manifest
from raudo.workspace import engine_files, sha256

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from raudo.records import Spec

if sys.version_info >= (3, 11):
    import tomllib

BACKENDS = discover.backends()
VARIANTS = [
    pytest.param(
        backend,
        variant,
        id=f"{backend.name}-{variant.name}",
        marks=[pytest.mark.slow] if variant.options.get("compile") else [],
    )
    for backend in BACKENDS
    for variant in backend.variants
]
SCORE_TOLERANCE = {"fp32": 1e-3, "tf32": 5e-3, "fp16": 5e-3, "bf16": 2e-2, "int8": 5e-2}
PIXELS_A_SCORE = 16
"""How much further a box may be off than a score: `tiny_onnx` is 64 pixels wide."""


def all_backends(function: Any) -> Any:
    return pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: b.name)(function)


@all_backends
def test_the_name_is_the_name_of_the_file(backend: Backend) -> None:
    assert type(backend).__module__ == f"raudo.backends.{backend.name}"


def test_formats_are_unique() -> None:
    formats = [backend.format for backend in BACKENDS]
    assert len(set(formats)) == len(formats) >= 2


@all_backends
def test_its_data_makes_sense(backend: Backend) -> None:
    assert backend.title
    assert all(s.startswith(".") and len(s) > 1 for s in (backend.suffix, *backend.companions))
    assert ".json" not in (backend.suffix, *backend.companions)  # that is the manifest's
    names = [variant.name for variant in backend.variants]
    assert len(set(names)) == len(names)
    assert all(name and not set(name) & set(" /\\") for name in names)
    assert set(backend.targets) <= set(TARGETS)
    assert backend.making_factor >= 1
    for variant in backend.variants:
        on_gpu = variant.device == "gpu"
        assert on_gpu or "production_gpu" not in backend.targets_of(variant)
        assert not on_gpu or set(backend.targets_of(variant)) <= {"production_gpu", "development"}
        assert all(isinstance(v, bool | int | float | str) for v in variant.options.values())


def test_one_backend_is_the_first_baseline() -> None:
    ranks = [b.baseline_rank for b in BACKENDS if b.baseline_rank is not None]
    assert ranks
    assert len(set(ranks)) == len(ranks)


@all_backends
@pytest.mark.skipif(sys.version_info < (3, 11), reason="NO tomllib before Python 3.11")
def test_its_extra_exists(backend: Backend, request: pytest.FixtureRequest) -> None:
    project = tomllib.loads((request.config.rootpath / "pyproject.toml").read_text("utf-8"))
    if backend.extra is None:
        assert backend.modules == ()
    else:
        assert backend.extra in project["project"]["optional-dependencies"]


WITHOUT_RUNTIMES = """
import importlib, sys
for name in sys.argv[2:]:
    sys.modules[name] = None
importlib.import_module(sys.argv[1])
"""


@all_backends
def test_it_imports_without_any_runtime(backend: Backend) -> None:
    runtimes = {module for b in BACKENDS for module in b.modules}
    module = type(backend).__module__
    subprocess.run([sys.executable, "-c", WITHOUT_RUNTIMES, module, *runtimes], check=True)


# Engines


def torch_twin(constants: dict[str, NDArray[Any]]) -> Any:
    """Make the module that computes what `tiny_onnx` does, from its constants."""
    import torch

    tensors = {name: torch.tensor(value) for name, value in constants.items()}

    class Twin(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 3, 3, padding=1, bias=False)
            self.head = torch.nn.Conv2d(3, 3, 16, stride=16, bias=False)
            self.stem.weight.data, self.head.weight.data = tensors["stem"], tensors["head"]

        def forward(self, images: Any) -> Any:
            features = self.stem(images.permute(0, 3, 1, 2) * tensors["unit"])
            cells = self.head(torch.nn.functional.silu(features))
            scores = cells.flatten(2).transpose(1, 2).float()
            best = scores.max(dim=2, keepdim=True).values
            return best * tensors["growth"] + tensors["grid"], scores

    return Twin().eval()


class TinyModel:
    """What a family's loaded model is to a backend that is made from it."""

    def __init__(self, onnx_file: Path) -> None:
        import onnx
        from onnx import numpy_helper

        weights = onnx.load(onnx_file).graph.initializer
        self._module = torch_twin({w.name: numpy_helper.to_array(w).copy() for w in weights})

    def module(self) -> Any:
        return self._module


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    """Blocks of colour, uint8 [4, 64, 64, 3]: within the cells of `tiny_onnx` they vary."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (4, 8, 8, 3), np.uint8)
    return blocks.repeat(8, axis=1).repeat(8, axis=2)


@pytest.fixture(scope="module")
def expected(tiny_onnx: Path, images: NDArray[np.uint8]) -> Outputs:
    """What ONNX Runtime itself makes of them."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(tiny_onnx), providers=["CPUExecutionProvider"])
    return Outputs(*session.run(["boxes", "scores"], {"images": images}))


def make(backend: Backend, variant: Variant, tiny_onnx: Path, spec: Spec, folder: Path) -> Artifact:
    """Make an engine file of `tiny_onnx`, as the pipeline does."""
    engine = folder / f"tiny{backend.suffix}"
    if backend.made_from == "model":
        shutil.copyfile(tiny_onnx, engine)
    else:
        graph = backend.read_graph(tiny_onnx)
        for step in (p for p in discover.passes() if p.makes(variant)):
            if step.missing():
                pytest.skip(f"NO {', '.join(step.missing())}")
            random = np.random.default_rng(1)
            calibration = [random.integers(0, 256, (1, 64, 64, 3), np.uint8) for _ in range(8)]
            graph = step.apply(graph, calibration, QuantizationSettings(grid=backend.grid))
        backend.make(graph, engine, variant)
    manifest = Manifest(
        name=f"{backend.name}-{variant.name}",
        backend=backend.name,
        precision=variant.precision,
        device=variant.device,
        options=dict(variant.options),
        spec=spec,
        source="tiny.onnx",
        source_sha256=sha256(tiny_onnx),
        files_sha256={f.name: sha256(f) for f in engine_files(engine, backend.companions)},
    )
    return Artifact(engine, manifest)


def load(backend: Backend, artifact: Artifact, tiny_onnx: Path, **resources: Any) -> Engine:
    if backend.made_from == "model":
        resources["model"] = TinyModel(tiny_onnx)
    return backend.open(artifact, Resources(**resources))


def skip_if_impossible(backend: Backend, variant: Variant) -> None:
    chosen = Plan(backend.name, variant)
    if reason := obstacle(chosen, describe(), has_module=True, calibrated=True):
        pytest.skip(f"NOT HERE: {reason}")
    if variant.options.get("compile") and not any(map(shutil.which, ("c++", "g++", "cl"))):
        pytest.skip("NO C++ COMPILER")


@pytest.mark.parametrize(("backend", "variant"), VARIANTS)
def test_an_engine_gives_what_onnx_runtime_gives(
    backend: Backend,
    variant: Variant,
    tiny_onnx: Path,
    tiny_spec: Spec,
    images: NDArray[np.uint8],
    expected: Outputs,
    tmp_path: Path,
) -> None:
    skip_if_impossible(backend, variant)
    artifact = make(backend, variant, tiny_onnx, tiny_spec, tmp_path)
    tolerance = SCORE_TOLERANCE[variant.precision if variant.silu == "exact" else "int8"]
    batches = [b for b in (1, 4) if b in getattr(variant, "batches", (1, 4))]
    for batch in batches or [1]:
        with load(backend, artifact, tiny_onnx, batch=batch) as engine:
            for start in range(0, len(images), batch):
                found = engine.run(images[start : start + batch])
                rows = slice(start, start + batch)
                assert np.abs(found.scores - expected.scores[rows]).max() <= tolerance
                off = np.abs(found.boxes - expected.boxes[rows]).max()
                assert off <= tolerance * PIXELS_A_SCORE


@pytest.mark.parametrize(
    ("backend", "variant"), [p for p in VARIANTS if not p.marks and p.values[1].precision == "fp32"]
)
class TestFullPrecision:
    """What holds for an engine of any precision, shown on the exact ones."""

    def test_the_last_batch_may_be_short(
        self,
        backend: Backend,
        variant: Variant,
        tiny_onnx: Path,
        tiny_spec: Spec,
        images: NDArray[np.uint8],
        expected: Outputs,
        tmp_path: Path,
    ) -> None:
        skip_if_impossible(backend, variant)
        artifact = make(backend, variant, tiny_onnx, tiny_spec, tmp_path)
        with load(backend, artifact, tiny_onnx, batch=4) as engine:
            found = engine.run(images[:3])
            assert found.scores.shape == (3, 16, 3)
            assert np.abs(found.scores - expected.scores[:3]).max() <= 1e-3

    def test_its_own_memory_is_read_like_any_other(
        self,
        backend: Backend,
        variant: Variant,
        tiny_onnx: Path,
        tiny_spec: Spec,
        images: NDArray[np.uint8],
        tmp_path: Path,
    ) -> None:
        skip_if_impossible(backend, variant)
        artifact = make(backend, variant, tiny_onnx, tiny_spec, tmp_path)
        with load(backend, artifact, tiny_onnx, batch=4) as engine:
            for count in (4, 3):
                other = engine.run(images[:count]).scores.copy()
                batch, second = (engine.empty(images[:count].shape) for _ in range(2))
                assert (batch.dtype, batch.shape) == (np.uint8, images[:count].shape)
                assert batch.flags.c_contiguous
                batch[:], second[:] = images[:count], 0
                assert np.array_equal(engine.run(batch).scores, other)

    def test_two_streams_do_not_mix_their_images(
        self,
        backend: Backend,
        variant: Variant,
        tiny_onnx: Path,
        tiny_spec: Spec,
        images: NDArray[np.uint8],
        expected: Outputs,
        tmp_path: Path,
    ) -> None:
        from concurrent.futures import ThreadPoolExecutor

        skip_if_impossible(backend, variant)
        artifact = make(backend, variant, tiny_onnx, tiny_spec, tmp_path)
        with (
            load(backend, artifact, tiny_onnx, threads=2, streams=2) as engine,
            ThreadPoolExecutor(2) as pool,
        ):

            def worst(index: int) -> float:
                scores = engine.run(images[index : index + 1]).scores.copy()
                return float(np.abs(scores - expected.scores[index : index + 1]).max())

            assert max(pool.map(worst, [n % len(images) for n in range(40)])) <= 1e-3

    def test_it_audits_what_it_runs(
        self,
        backend: Backend,
        variant: Variant,
        tiny_onnx: Path,
        tiny_spec: Spec,
        tmp_path: Path,
    ) -> None:
        skip_if_impossible(backend, variant)
        artifact = make(backend, variant, tiny_onnx, tiny_spec, tmp_path)
        with load(backend, artifact, tiny_onnx) as engine:
            audit = engine.audit()
        assert set(audit.found) == {"fp32"}
        assert sum(audit.found.values()) == 2  # the two convolutions
        assert audit.providers

    def test_it_times_its_nodes_or_says_nothing(
        self,
        backend: Backend,
        variant: Variant,
        tiny_onnx: Path,
        tiny_spec: Spec,
        images: NDArray[np.uint8],
        expected: Outputs,
        tmp_path: Path,
    ) -> None:
        skip_if_impossible(backend, variant)
        artifact = make(backend, variant, tiny_onnx, tiny_spec, tmp_path)
        with load(backend, artifact, tiny_onnx, batch=2) as engine:
            nodes = engine.profile(images[:2])
            found = engine.run(images[:2])  # and goes on as before
        assert np.abs(found.scores - expected.scores[:2]).max() <= 1e-3
        assert len({node.name for node in nodes}) == len(nodes)
        assert all(node.milliseconds >= 0 and node.nodes == 1 for node in nodes)
        if nodes:
            convolutions = [node for node in nodes if "conv" in node.type.lower()]
            assert [node.precision for node in convolutions] == ["fp32", "fp32"]
            assert all(node.milliseconds > 0 for node in convolutions)

    def test_wrong_images_are_refused(
        self,
        backend: Backend,
        variant: Variant,
        tiny_onnx: Path,
        tiny_spec: Spec,
        tmp_path: Path,
    ) -> None:
        skip_if_impossible(backend, variant)
        artifact = make(backend, variant, tiny_onnx, tiny_spec, tmp_path)
        wrong: list[Any] = [
            np.zeros((1, 64, 32, 3), np.uint8),
            np.zeros((64, 64, 3), np.uint8),
            np.zeros((1, 64, 64, 3), np.float32),
        ]
        with load(backend, artifact, tiny_onnx) as engine:
            for images in wrong:
                with pytest.raises(EngineError, match="the engine takes uint8"):
                    engine.run(images)


@pytest.mark.parametrize("content", [b"", b"damaged", b"\0" * 1000])
@pytest.mark.parametrize(
    "backend",
    [b for b in BACKENDS if b.made_from == "onnx"],
    ids=lambda b: getattr(b, "name", None),
)
def test_a_damaged_engine_file_is_an_error_of_ours(
    backend: Backend, content: bytes, tiny_onnx: Path, tiny_spec: Spec, tmp_path: Path
) -> None:
    if backend.missing():
        pytest.skip(f"NO {', '.join(backend.missing())}")
    variant = next(iter(backend.variants), Variant("any", "fp32"))
    artifact = Artifact(
        tmp_path / f"tiny{backend.suffix}",
        Manifest(
            name="any",
            backend=backend.name,
            precision=variant.precision,
            device=variant.device,
            options=dict(variant.options),
            spec=tiny_spec,
            source="tiny.onnx",
            source_sha256="",
            files_sha256={},
        ),
    )
    for file in engine_files(artifact.path, backend.companions):
        file.write_bytes(content)
    with pytest.raises(RaudoError) as caught:
        backend.open(artifact, Resources())
    assert "\n" not in caught.value.message
