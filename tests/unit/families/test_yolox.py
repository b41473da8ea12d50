from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raudo import images
from raudo.backends.base import Outputs
from raudo.checkpoints.source import open_model
from raudo.detector import Selection, select
from raudo.errors import SourceError, UsageError

torch = pytest.importorskip("torch")

REFERENCE = np.load(Path(__file__).parent / "yolox_reference.npz")
"""Written by `make_yolox_reference.py` with an independent implementation."""
CASES = sorted({name.split("/")[0] for name in REFERENCE if name.endswith("/output")})
SEEDS = {"nano": 0, "tiny": 1, "medium_depth": 2, "extra_depth": 3}


def gain(key: str) -> float:
    """Keep activations near 1, from pixels up to 255 on."""
    return 0.01 if ".stem." in key else 1.5 if "_preds." in key else 1.2


def random_weights(shapes: dict[str, list[int]], seed: int) -> dict[str, Any]:
    """The weights that the reference was computed with."""
    random = np.random.RandomState(seed)
    weights: dict[str, Any] = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            weights[key] = np.zeros(shape, np.int64)
        elif len(shape) == 4:
            weights[key] = random.normal(0, np.prod(shape[1:]) ** -0.5, shape) * gain(key)
        elif key.endswith(("running_var", "bn.weight")):
            weights[key] = random.uniform(0.5, 1.5, shape)
        else:
            weights[key] = random.normal(0, 0.1, shape)
    return {
        key: torch.from_numpy(np.array(v if v.dtype == np.int64 else v.astype(np.float32)))
        for key, v in weights.items()
    }


def weights_of(case: str) -> dict[str, Any]:
    return random_weights(json.loads(str(REFERENCE[f"{case}/shapes"])), SEEDS[case])


def saved(tmp_path: Path, content: Any) -> Path:
    torch.save(content, tmp_path / "model.pt")
    return tmp_path / "model.pt"


@pytest.mark.parametrize("case", CASES)
def test_equals_an_independent_implementation(tmp_path: Path, case: str) -> None:
    model = open_model(saved(tmp_path, {"model": weights_of(case)}), size=(64, 96))
    random = np.random.RandomState(SEEDS[case])
    batch = random.randint(0, 256, (2, 64, 96, 3)).astype(np.uint8)
    with torch.no_grad():
        boxes, scores = (y.numpy() for y in model.module()(torch.from_numpy(batch)))
    expected = REFERENCE[f"{case}/output"]
    centres, halves = expected[..., :2], expected[..., 2:4] / 2
    corners = np.concatenate((centres - halves, centres + halves), -1)
    sizes = 1 + 2 * halves.max(-1, keepdims=True)
    assert np.abs((boxes - corners) / sizes).max() < 1e-4
    assert np.abs(scores - expected[..., 4:5] * expected[..., 5:]).max() < 1e-5
    assert len(model.spec.classes) == expected.shape[2] - 5


@pytest.mark.slow
def test_same_detections_on_real_images(samples: Path) -> None:
    model = open_model(samples / "model.pt")
    pairs = 0
    for name in (n for n in REFERENCE if n.startswith("image/")):
        frame = images.decode(samples / "coco-mini/images/val" / name.removeprefix("image/"))
        batch, fit = images.letterbox(frame, model.spec)
        with torch.no_grad():
            outputs = Outputs(*(y.numpy() for y in model.module()(torch.from_numpy(batch)[None])))
        found = select(outputs, 0, model.spec, Selection(confidence=0.25))
        boxes = (found.boxes - [fit.left, fit.top] * 2) / fit.scale_x
        expected = REFERENCE[name]
        expected = expected[np.argsort(-expected[:, 4] * expected[:, 5], kind="stable")]
        assert len(found) == len(expected)
        assert np.array_equal(found.labels, expected[:, 6])
        assert np.abs(found.scores - expected[:, 4] * expected[:, 5]).max(initial=0) <= 1e-3
        assert iou(boxes, expected[:, :4]).min(initial=1) >= 0.99
        pairs += len(expected)
    assert pairs > 20


def iou(a: Any, b: Any) -> Any:
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    shared = np.maximum(high - low, 0).prod(1)
    areas = [(x[:, 2:] - x[:, :2]).prod(1) for x in (a, b)]
    return shared / (sum(areas) - shared)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {"model": weights, "epoch": 3, "best_ap": np.float64(0.3)},
        lambda weights: {"state_dict": {f"module.{k}": v for k, v in weights.items()}},
        lambda weights: {"model": {}, "ema": {"model": weights}},
        lambda weights: {"model": {k: v.half() for k, v in weights.items()}},
    ],
    ids=["bare", "trainer", "parallel", "averaged", "half"],
)
def test_finds_the_weights(tmp_path: Path, wrap: Any) -> None:
    weights = weights_of("extra_depth")
    model = open_model(saved(tmp_path, wrap(weights)), size=(32, 64))
    assert model.spec.classes == tuple(f"class_{i}" for i in range(5))
    with torch.no_grad():
        boxes, scores = model.module()(torch.zeros(1, 32, 64, 3, dtype=torch.uint8))
    assert boxes.shape == (1, 42, 4)
    assert scores.shape == (1, 42, 5)
    assert boxes.isfinite().all()


def test_foreign_objects_need_trust(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model": weights_of("extra_depth"), "args": Namespace(lr=0.1)})
    with pytest.raises(SourceError, match=r"argparse\.Namespace"):
        open_model(path, size=(32, 32))
    assert open_model(path, size=(32, 32), trust=True).spec.height == 32


def test_the_averaged_weights_come_first(tmp_path: Path) -> None:
    weights = weights_of("extra_depth")
    blank = {key: torch.zeros_like(value) for key, value in weights.items()}
    model = open_model(saved(tmp_path, {"model": blank, "ema": weights}), size=(32, 32))
    assert any(parameter.abs().max() > 0 for parameter in model.module().parameters())


def test_spec(tmp_path: Path, samples: Path) -> None:
    spec = open_model(samples / "model.pt").spec
    assert (spec.family, spec.height, spec.width, spec.output) == ("yolox", 416, 416, "dense")
    assert (spec.letterbox.placement, spec.letterbox.rounding) == ("top_left", "floor")
    assert (spec.letterbox.fill, spec.nms_iou) == (114, 0.65)
    assert (spec.classes[0], spec.classes[79], len(spec.classes)) == ("person", "toothbrush", 80)
    other = open_model(saved(tmp_path, weights_of("extra_depth"))).spec
    assert (other.height, other.width) == (640, 640)


def test_boxes_stay_precise_when_halved(samples: Path) -> None:
    model = open_model(samples / "model.pt", size=(64, 64))
    batch = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    with torch.no_grad():
        boxes, scores = model.module().bfloat16()(batch)
    assert boxes.dtype == scores.dtype == torch.float32
    module = model.module()
    assert not module.grid.is_floating_point()


@pytest.mark.parametrize("size", [(416, 400), (33, 32)])
def test_sizes_are_multiples_of_32(samples: Path, size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="cannot take"):
        open_model(samples / "model.pt", size=size)


@pytest.mark.parametrize(
    "damage",
    [
        lambda w: w.pop("backbone.lateral_conv0.conv.weight"),
        lambda w: w.update({"head.extra.weight": torch.ones(1)}),
        lambda w: w.update({"head.stems.0.conv.weight": torch.ones(3, 3, 1, 1)}),
    ],
    ids=["missing", "unknown", "misshapen"],
)
def test_refuses_what_is_not_its_architecture(tmp_path: Path, damage: Any) -> None:
    weights = weights_of("extra_depth")
    damage(weights)
    with pytest.raises(SourceError, match="architecture"):
        open_model(saved(tmp_path, {"model": weights}), size=(32, 32))
