"""Which layers quantization harms: on a backend whose engines are made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from raudo.backends.base import Outputs, Variant
from raudo.measuring.sensitivity import Block, Laboratory, Remedy, find_remedy, keep_lists
from raudo.records import NodeProfile

if TYPE_CHECKING:
    from pathlib import Path

    from raudo.passes.base import QuantizationSettings
    from raudo.records import Spec

LAYERS = tuple("abcdefgh")
HARM = {"c": 0.2, "f": 0.1}
"""What the score loses when a layer is quantized; no other layer matters."""


class Trial:
    """An engine whose only score suffers from the layers that were quantized."""

    def __init__(self, quantized: tuple[str, ...]) -> None:
        self._quantized = quantized

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def run(self, images: Any) -> Outputs:
        score = 0.9 - sum(HARM.get(layer, 0.0) for layer in self._quantized)
        boxes = np.array([[[0, 0, 10, 10]]], np.float32)
        return Outputs(boxes, np.array([[[score]]], np.float32))

    def profile(self, images: Any) -> tuple[NodeProfile, ...]:
        return tuple(
            NodeProfile(
                name=layer,
                type="Convolution",
                precision="any",
                milliseconds=1.0 if layer in self._quantized else 2.0,
            )
            for layer in LAYERS
        )


class Quantizer:
    def methods(self, graph: Any) -> tuple[str, ...]:
        return ("mean", "quantile")

    def layers(self, graph: Any) -> tuple[str, ...]:
        return LAYERS

    def apply(self, graph: Any, images: Any, settings: QuantizationSettings) -> tuple[str, ...]:
        return LAYERS

    def restore(self, graph: tuple[str, ...], exact: Any, layers: Any) -> tuple[str, ...]:
        return tuple(layer for layer in graph if layer not in layers)


class BetterByQuantiles(Quantizer):
    """The extremes of the images also harm a layer that no quantile does."""

    def apply(self, graph: Any, images: Any, settings: QuantizationSettings) -> tuple[str, ...]:
        return LAYERS if settings.ranges == "mean" else LAYERS[:5]  # without f


class BetterOnMore(Quantizer):
    """From so many images on three layers do no harm, until there are too many of them."""

    def __init__(self, enough: int, most: int = 1000) -> None:
        self._right = range(enough, most)

    def apply(self, graph: Any, images: Any, settings: QuantizationSettings) -> tuple[str, ...]:
        return LAYERS[:5] if len(images) in self._right else LAYERS


def laboratory(spec: Spec, folder: Path, quantizer: Any) -> Laboratory:
    made: list[tuple[str, ...]] = []
    backend: Any = SimpleNamespace(
        name="any",
        suffix=".any",
        read_graph=lambda path: (),
        grid="offset",
        make=lambda graph, path, variant: made.append(graph),
        open=lambda artifact, resources: Trial(made[-1]),
    )
    return Laboratory(backend, Variant("int8", "int8"), quantizer, folder / "m.onnx", spec)


IMAGES = [np.zeros((1, 64, 64, 3), np.uint8)] * 2


def test_the_most_harmful_layer_comes_first_at_its_price(tiny_spec: Spec, tmp_path: Path) -> None:
    remedy = find_remedy(laboratory(tiny_spec, tmp_path, Quantizer()), IMAGES, 60)
    ranked = remedy.blocks
    assert remedy.ranges == "mean"
    assert [block.layers for block in ranked[:2]] == [("c",), ("f",)]
    assert [round(block.harm, 4) for block in ranked[:3]] == [0.2, 0.1, 0.0]
    assert all(block.milliseconds == 1.0 for block in ranked)
    assert sorted(layer for block in ranked for layer in block.layers) == sorted(LAYERS)
    assert remedy.layers == ()


def test_of_larger_blocks_the_layer_that_harms_is_kept_first(
    tiny_spec: Spec, tmp_path: Path
) -> None:
    remedy = find_remedy(laboratory(tiny_spec, tmp_path, Quantizer()), IMAGES, 60, blocks=4)
    assert [block.layers for block in remedy.blocks[:2]] == [("c", "d"), ("e", "f")]
    assert [block.layers for block in remedy.layers] == [("c",), ("d",)]
    assert [round(block.harm, 4) for block in remedy.layers] == [0.2, 0.0]
    assert remedy.keep_lists == (("c",), ("c", "d"), ("c", "d", "e", "f"))


def test_the_calibration_that_harms_less_is_taken(tiny_spec: Spec, tmp_path: Path) -> None:
    remedy = find_remedy(laboratory(tiny_spec, tmp_path, BetterByQuantiles()), IMAGES, 60)
    assert remedy.ranges == "quantile"
    assert "by quantile of" in remedy.title
    assert [round(block.harm, 4) for block in remedy.blocks[:2]] == [0.2, 0.0]


@pytest.mark.parametrize(
    ("quantizer", "tried", "images"),
    [
        (Quantizer(), [6, 6, 24], 6),
        (BetterOnMore(24), [6, 6, 24, 96], 24),
        (BetterOnMore(24, 30), [6, 6, 24, 96], 24),
        (BetterOnMore(96), [6, 6, 24], 6),
    ],
    ids=["equal", "better, then equal", "better, then worse", "too late"],
)
def test_more_images_are_calibrated_on_as_long_as_it_helps(
    tiny_spec: Spec, tmp_path: Path, quantizer: Quantizer, tried: list[int], images: int
) -> None:
    remedy = find_remedy(laboratory(tiny_spec, tmp_path, quantizer), IMAGES * 51, 60)
    assert [trial.images for trial in remedy.trials] == tried
    assert remedy.images == images


def test_all_images_are_taken_where_the_most_harm_least(tiny_spec: Spec, tmp_path: Path) -> None:
    better = laboratory(tiny_spec, tmp_path, BetterOnMore(20))
    remedy = find_remedy(better, IMAGES * 15, 60)
    assert [trial.images for trial in remedy.trials] == [6, 6, 24]
    assert remedy.images is None


def test_without_time_only_the_methods_are_tried(tiny_spec: Spec, tmp_path: Path) -> None:
    remedy = find_remedy(laboratory(tiny_spec, tmp_path, BetterOnMore(24)), IMAGES * 51, 0)
    assert [trial.images for trial in remedy.trials] == [6, 6]
    assert remedy.images is None


def test_without_time_nothing_is_ranked(tiny_spec: Spec, tmp_path: Path) -> None:
    remedy = find_remedy(laboratory(tiny_spec, tmp_path, Quantizer()), IMAGES, 0)
    assert remedy.blocks == ()


def test_a_graph_whose_layers_cannot_be_kept_has_no_ranking(
    tiny_spec: Spec, tmp_path: Path
) -> None:
    unnamed = SimpleNamespace(layers=lambda graph: ())
    assert find_remedy(laboratory(tiny_spec, tmp_path, unnamed), IMAGES, 60) == Remedy()


def test_lists_to_keep_grow_and_the_harmless_are_in_none() -> None:
    blocks = [
        Block(layers=("c",), harm=0.6, milliseconds=1),
        Block(layers=("f",), harm=0.4, milliseconds=1),
        Block(layers=("a",), harm=0.0, milliseconds=1),
    ]
    assert keep_lists(blocks) == (("c",), ("c", "f"))
    assert keep_lists(blocks[2:]) == ()
    assert keep_lists(()) == ()


def test_layers_before_an_objectness_are_quantized_too(tmp_path: Path) -> None:
    """Its convolution has one channel out, like the weighted sum of a distribution's softmax."""
    pytest.importorskip("nncf")
    helper = pytest.importorskip("onnx.helper")
    from raudo import discover

    (quantizer,) = (p for p in discover.passes() if p.precision == "int8")
    model = head_with_objectness(helper)
    assert set(quantizer.layers(model)) == {"stem", "tower"}


def head_with_objectness(helper: Any) -> Any:
    """Boxes as the mean of a distribution (DFL), and objectness, of one tower."""
    from onnx import TensorProto, numpy_helper

    random = np.random.default_rng(0)
    sides = {"stem": (8, 3), "tower": (8, 8), "predict": (16, 8), "mean": (1, 16), "object": (1, 8)}
    weights = [
        numpy_helper.from_array(random.normal(size=(*side, 1, 1)).astype(np.float32), f"{name}_w")
        for name, side in sides.items()
    ]

    def convolution(name: str, source: str) -> Any:
        return helper.make_node("Conv", [source, f"{name}_w"], [f"{name}_o"], name=name)

    nodes = [
        convolution("stem", "images"),
        helper.make_node("Relu", ["stem_o"], ["a"], name="a"),
        convolution("tower", "a"),
        helper.make_node("Relu", ["tower_o"], ["b"], name="b"),
        convolution("predict", "b"),
        helper.make_node("Softmax", ["predict_o"], ["shares"], axis=1, name="shares"),
        convolution("mean", "shares"),
        convolution("object", "b"),
        helper.make_node("Sigmoid", ["object_o"], ["scores"], name="scores"),
        helper.make_node("Identity", ["mean_o"], ["boxes"], name="boxes"),
    ]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 8, 8])
        for name in ("boxes", "scores")
    ]
    graph = helper.make_graph(nodes, "head", [image], outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
