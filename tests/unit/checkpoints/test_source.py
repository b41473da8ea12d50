from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING

import pytest

from raudo.checkpoints.source import inspect, open_model
from raudo.errors import SourceError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

torch = pytest.importorskip("torch")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return os.putenv, ("RAUDO_TEST_CODE_RAN", "1")


def refused(path: Path, **options: bool) -> SourceError:
    with pytest.raises(SourceError) as caught:
        open_model(path, **options)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_missing(tmp_path: Path) -> None:
    assert "no such model" in refused(tmp_path / "none.pt").message


def test_folder(tmp_path: Path) -> None:
    assert "folder" in refused(tmp_path).message


def test_empty(tmp_path: Path) -> None:
    assert "empty" in refused(written(tmp_path / "model.pt", b"")).message


@pytest.mark.parametrize(
    "data",
    [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"\x00\x01\x02", "é".encode(), b"<html>"],
)
def test_other_files(tmp_path: Path, data: bytes) -> None:
    assert "neither" in refused(written(tmp_path / "model.pt", data)).message


def test_pointer_to_a_large_file(tmp_path: Path) -> None:
    assert "neither" in refused(written(tmp_path / "model.pt", b"version https://git-lfs")).message


def test_truncated_at_any_place(tmp_path: Path, samples: Path) -> None:
    whole = (samples / "model.pt").read_bytes()
    for length in (1, 3, 4, 100, 5000, 200_000, len(whole) - 30, len(whole) - 1):
        refused(written(tmp_path / "model.pt", whole[:length]))


def test_truncated_onnx(tmp_path: Path, tiny_onnx: Path) -> None:
    whole = tiny_onnx.read_bytes()
    for length in range(1, len(whole), 97):
        refused(written(tmp_path / "model.pt", whole[:length]))


def test_malicious(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"model": Bomb()}, path)
    error = refused(path)
    assert f"{os.putenv.__module__}.putenv" in error.message
    assert "--trust-checkpoint" in error.hint
    refused(written(path, pickle.dumps(Bomb())))
    assert "RAUDO_TEST_CODE_RAN" not in os.environ


def test_trust_is_for_known_families_only(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"model": Bomb()}, path)
    assert "no model family" in refused(path, trust=True).message


def test_unrecognized_tells_what_was_found_and_what_is_supported(tmp_path: Path) -> None:
    path = tmp_path / "yolox_ultralytics.pt"  # a name means nothing
    torch.save({"layer.weight": torch.ones(3), "layer.bias": torch.ones(3)}, path)
    error = refused(path)
    assert "layer.weight" in error.message
    assert "YOLOX" in error.hint
    assert "Ultralytics" in error.hint


def test_a_name_means_nothing(tmp_path: Path, samples: Path) -> None:
    model = open_model(written(tmp_path / "weights.onnx", (samples / "model.pt").read_bytes()))
    assert model.spec.family == "yolox"


@pytest.mark.parametrize("size", [(0, 64), (64, -1), (64, 100_000)])
def test_absurd_sizes(samples: Path, size: tuple[int, int]) -> None:
    with pytest.raises(UsageError):
        open_model(samples / "model.pt", size=size)


def test_inspect_finds_keys_and_shapes(samples: Path, tiny_onnx: Path) -> None:
    evidence, scan = inspect(samples / "model.pt")
    assert evidence.kind == "checkpoint"
    assert "head.cls_preds.0.weight" in evidence.strings
    assert "torch._utils._rebuild_tensor_v2" in evidence.imports
    assert not scan.oddities
    evidence, _ = inspect(tiny_onnx)
    assert evidence.kind == "onnx"
    assert evidence.shapes == {
        "images": (-1, 64, 64, 3),
        "boxes": (-1, 16, 4),
        "scores": (-1, 16, 3),
    }
