"""Engines of PyTorch and ONNX Runtime for GPUs, as far as a machine without one can tell."""

from __future__ import annotations

import importlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from raudo import discover
from raudo.backends.base import Resources
from raudo.errors import EngineError
from raudo.gpu.thread import GpuThread
from raudo.records import Artifact, Manifest

if TYPE_CHECKING:
    from pathlib import Path

    from raudo.records import Spec

onnxruntime = pytest.importorskip("onnxruntime", reason="NO ONNX RUNTIME")
ours = importlib.import_module("raudo.backends.onnxruntime")


def for_gpu(backend: str, path: Path, spec: Spec) -> Artifact:
    fields: dict[str, Any] = {"source": "m", "source_sha256": "", "files_sha256": {}}
    manifest = Manifest(
        name="any", backend=backend, precision="fp32", device="gpu", spec=spec, **fields
    )
    return Artifact(path, manifest)


def node(provider: str, *kinds: str) -> dict[str, Any]:
    shapes = [{kind: [1]} for kind in kinds]
    return {"provider": provider, "op_name": "Resize", "output_type_shape": shapes}


@pytest.mark.parametrize(
    ("details", "fell"),
    [
        (node(ours.CUDA, "float"), False),
        (node(ours.CPU, "float"), True),
        (node(ours.CPU, "float16"), True),
        (node(ours.CPU, "uint8"), True),
        (node(ours.CPU, "int64", "float"), True),
        (node(ours.CPU, "int64"), False),
        (node(ours.CPU, "bool"), False),
    ],
)
def test_a_node_on_the_cpu_may_only_compute_shapes(details: dict[str, Any], fell: bool) -> None:
    assert ours._fell_back(details) == fell


def test_an_engine_whose_nodes_fall_back_is_refused_with_their_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = [{"args": node(provider, "float")} for provider in (ours.CUDA, ours.CPU, ours.CPU)]
    monkeypatch.setattr(ours.CpuEngine, "_trace", lambda *_arguments: events)
    engine = object.__new__(ours.CudaEngine)
    with pytest.raises(EngineError, match="runs 2 nodes on the CPU: 2 Resize"):
        engine._trace(np.zeros((1, 8, 8, 3), np.uint8), 1)


@pytest.mark.skipif(ours._cuda_library() is not None, reason="HERE is the package for GPUs")
def test_the_package_for_cpus_opens_nothing_on_a_gpu(tiny_onnx: Path, tiny_spec: Spec) -> None:
    with pytest.raises(EngineError, match="has no CUDA") as caught:
        ours.OnnxRuntime().open(for_gpu("onnxruntime", tiny_onnx, tiny_spec), Resources())
    assert "raudo[onnx-gpu]" in caught.value.hint


def test_a_cuda_provider_that_does_not_load_is_no_cpu_engine(
    tiny_onnx: Path, tiny_spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime itself goes on with the CPU then, and says so in a log at most."""
    library = tmp_path / "libonnxruntime_providers_cuda.so"
    library.write_bytes(b"no library")
    session = onnxruntime.InferenceSession

    def falls_back(path: str, options: Any, providers: list[Any]) -> Any:
        assert providers[0][0] == ours.CUDA
        return session(path, options, providers=[ours.CPU])

    monkeypatch.setattr(ours, "_cuda_library", lambda: library)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda **_options: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", falls_back)
    with pytest.raises(EngineError, match="cannot use its CUDA provider") as caught:
        ours.OnnxRuntime().open(for_gpu("onnxruntime", tiny_onnx, tiny_spec), Resources())
    assert "raudo doctor" in caught.value.hint


def test_a_lane_gives_what_the_session_gives_also_of_a_short_batch(tiny_onnx: Path) -> None:
    session = onnxruntime.InferenceSession(str(tiny_onnx), providers=[ours.CPU])
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    lane = ours.Lane(session, images.shape, device="cpu")
    for batch in (images, images[:3], images[1:2]):
        expected = session.run(None, {"images": batch})
        found = lane.run(batch)
        assert [f.shape for f in found] == [e.shape for e in expected]
        assert max(np.abs(f - e).max() for f, e in zip(found, expected, strict=True)) < 1e-4
    assert all(seconds > 0 for seconds in lane.time(3))


class Watched:
    """A session that notes the threads that run it."""

    def __init__(self, session: Any) -> None:
        self._session, self.threads = session, set[int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_iobinding(self, binding: Any) -> None:
        self.threads.add(threading.get_ident())
        self._session.run_with_iobinding(binding)


def test_a_lane_runs_in_one_thread_where_a_graph_was_captured(tiny_onnx: Path) -> None:
    """ONNX Runtime captures a graph for each thread, and none may while other sessions work."""
    session = Watched(onnxruntime.InferenceSession(str(tiny_onnx), providers=[ours.CPU]))
    images = np.zeros((1, 64, 64, 3), np.uint8)
    lane = ours.Lane(session, images.shape, device="cpu", streams=2)
    for _ in range(2):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lane.run, images).result()
    assert len(session.threads) == 1
    lane.close()


def test_pytorch_runs_in_one_thread_which_has_the_plans_of_cudnn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without it each chunk of images that is validated builds all plans again, eight times."""
    pytest.importorskip("torch", reason="NO PYTORCH")
    theirs = importlib.import_module("raudo.backends.torch")
    threads = set[int]()
    monkeypatch.setattr(theirs.TorchEngine, "_run", lambda *_: threads.add(threading.get_ident()))
    engine = object.__new__(theirs.CudaEngine)
    engine._thread = GpuThread(8)
    for _ in range(2):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(engine._run, np.zeros((1, 8, 8, 3), np.uint8)).result()
    assert len(threads) == 1
    engine.close()


def test_pytorch_without_a_gpu_is_an_error_that_names_its_cuda(
    tiny_onnx: Path, tiny_spec: Spec
) -> None:
    torch = pytest.importorskip("torch", reason="NO PYTORCH")
    if torch.cuda.is_available():
        pytest.skip("HERE is a GPU")
    backend = discover.backend("torch")
    with pytest.raises(EngineError, match="finds no GPU") as caught:
        backend.open(for_gpu("torch", tiny_onnx, tiny_spec), Resources())
    assert "driver too old" in caught.value.hint
