"""Finds the layers whose quantization does most harm for the time that it saves, by measuring.

Each block of neighbouring layers is quantized alone, and what that does to the detections in a few
calibration images is its harm ("Quantizing deep convolutional networks for efficient inference",
arXiv 1806.08342, and "HAWQ", arXiv 1905.03696, rank layers to mix precisions, too). Its price is
the time that the runtime's own profile shows it to take longer when it is kept.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raudo.backends.base import Outputs, Resources
from raudo.boxes import paired_iou
from raudo.machine import available_threads
from raudo.passes.base import QuantizationSettings
from raudo.records import RANGES, Artifact, Manifest, Ranges, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from raudo.backends.base import Backend, Engine, Variant
    from raudo.passes.base import Pass
    from raudo.records import Spec

BLOCKS = 16
FEWEST_BLOCKS = 4
RANKING_IMAGES = 6
SEEN = 0.05
"""Lowest score of what counts as a detection here."""
SHARES = (0.5, 0.7, 0.85, 0.95)
LEAST_MS = 0.01


class Block(Record):
    """Neighbouring layers, and what quantizing them alone does.

    Attributes:
        layers: Names, as `QuantizationSettings.keep` takes them.
        harm: Mean change of score and loss of overlap of a detection; 0 is no change.
        milliseconds: What keeping the layers from quantization costs, as far as it is known.
    """

    layers: tuple[str, ...]
    harm: float
    milliseconds: float


class Remedy(Record):
    """What may make a quantized engine lose less.

    Attributes:
        ranges: The better method of calibration; see `QuantizationSettings`.
        blocks: The most harm for its milliseconds first; () where no layer can be kept.
    """

    ranges: Ranges = "mean"
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Laboratory:
    """What is quantized, and how it is run.

    Attributes:
        backend: Makes and runs the engines.
        variant: The backend's variant that is to be quantized.
        quantizer: The pass.
        onnx: The model's contract ONNX file.
        spec: Of the model.
    """

    backend: Backend
    variant: Variant
    quantizer: Pass
    onnx: Path
    spec: Spec

    def layers(self) -> tuple[str, ...]:
        """Return the layers that can be kept; see `Pass.layers`."""
        return self.quantizer.layers(self.backend.read_graph(self.onnx))

    def exact(self) -> Any:
        """Return the graph as it is without quantization."""
        return self.backend.read_graph(self.onnx)

    def quantized(self, images: Sequence[NDArray[np.uint8]], ranges: Ranges = "mean") -> Any:
        """Return the graph quantized, calibrated on a few images."""
        settings = QuantizationSettings(ranges=ranges, correct_bias=False, grid=self.backend.grid)
        return self.quantizer.apply(self.exact(), images, settings)

    def run(self, graph: Any, images: Sequence[NDArray[np.uint8]]) -> list[Outputs]:
        """Return the outputs of each image."""
        with self._engine(graph) as engine:
            return [_copied(engine.run(image)) for image in images]

    def times(self, graph: Any, image: NDArray[np.uint8]) -> dict[str, float]:
        """Return milliseconds by node."""
        with self._engine(graph) as engine:
            return {node.name: node.milliseconds for node in engine.profile(image)}

    @contextlib.contextmanager
    def _engine(self, graph: Any) -> Iterator[Engine]:
        with tempfile.TemporaryDirectory(prefix="raudo-") as folder:
            path = Path(folder) / f"trial{self.backend.suffix}"
            self.backend.make(graph, path, self.variant)
            manifest = Manifest(
                name="trial",
                backend=self.backend.name,
                precision=self.variant.precision,
                device=self.variant.device,
                options=dict(self.variant.options),
                spec=self.spec,
                source=self.onnx.name,
                source_sha256="",
                files_sha256={},
            )
            resources = Resources(threads=available_threads())
            with self.backend.open(Artifact(path, manifest), resources) as engine:
                yield engine


def _copied(outputs: Outputs) -> Outputs:
    labels = None if outputs.labels is None else outputs.labels.copy()
    return Outputs(outputs.boxes.copy(), outputs.scores.copy(), labels)


def find_remedy(
    laboratory: Laboratory,
    images: Sequence[NDArray[np.uint8]],
    seconds: float,
    blocks: int = BLOCKS,
) -> Remedy:
    """Find what makes a quantized engine lose less: the method of calibration, layers to keep.

    Each method is calibrated on some images and judged on others. With the better one, each block
    is quantized alone, by taking the quantizers of all other layers out of the same graph again.

    Args:
        laboratory: What is quantized.
        images: Calibration images, each uint8 [1, height, width, 3]; the first few are used.
        seconds: Most time to take: the less, the larger the blocks; what is not reached by then
            is left out.
        blocks: Most blocks to divide the layers into.
    """
    deadline = time.monotonic() + seconds
    layers = laboratory.layers()
    if not layers:
        return Remedy()
    judged = images[:RANKING_IMAGES]
    fitted = images[RANKING_IMAGES : 2 * RANKING_IMAGES] or judged
    exact = laboratory.exact()
    wanted = laboratory.run(exact, judged)

    def harm_of(graph: Any) -> float:
        found = laboratory.run(graph, judged)
        return float(np.mean([_harm(*pair) for pair in zip(wanted, found, strict=True)]))

    graphs = {ranges: laboratory.quantized(fitted, ranges) for ranges in RANGES}
    harms = {ranges: harm_of(graph) for ranges, graph in graphs.items()}
    ranges = min(RANGES, key=harms.__getitem__)
    quantized = graphs[ranges]
    slow, fast = (laboratory.times(graph, judged[0]) for graph in (exact, quantized))

    def harm_of_block(block: Sequence[str]) -> float:
        others = [layer for layer in layers if layer not in block]
        return harm_of(laboratory.quantizer.restore(quantized, exact, others))

    start = time.monotonic()
    floor = harm_of_block(())  # of the additions and activations between the layers
    affordable = int((deadline - time.monotonic()) / (time.monotonic() - start))
    measured = []
    for block in _divide(layers, min(blocks, max(FEWEST_BLOCKS, affordable))):
        if time.monotonic() > deadline:
            break
        harm = max(0.0, harm_of_block(block) - floor)
        price = _price(block, slow, fast)
        measured.append(Block(layers=block, harm=harm, milliseconds=price))
    return Remedy(ranges=ranges, blocks=tuple(sorted(measured, key=_worth, reverse=True)))


def _worth(block: Block) -> float:
    return block.harm / max(block.milliseconds, LEAST_MS)


def _divide(layers: tuple[str, ...], blocks: int) -> list[tuple[str, ...]]:
    parts = np.array_split(np.array(layers, dtype=object), min(blocks, len(layers)))
    return [tuple(str(layer) for layer in part) for part in parts]


def _price(block: Sequence[str], slow: Mapping[str, float], fast: Mapping[str, float]) -> float:
    return sum(max(0.0, slow[n] - fast[n]) for n in block if n in slow and n in fast)


def _harm(exact: Outputs, found: Outputs) -> float:
    """Return the mean change of what is a detection in either, for one image."""
    if exact.labels is not None and found.labels is not None:
        return _unordered_harm(exact, found)
    best = np.maximum(exact.scores[0].max(axis=1), found.scores[0].max(axis=1))
    seen = best > SEEN
    if not seen.any():
        return 0.0
    shift = np.abs(exact.scores[0][seen] - found.scores[0][seen]).max(axis=1)
    apart = 1 - paired_iou(exact.boxes[0][seen], found.boxes[0][seen])
    return float((shift + best[seen] * apart).mean())


def _unordered_harm(exact: Outputs, found: Outputs) -> float:
    """The same for top-k outputs, whose rows change places: each is held against the nearest."""
    assert exact.labels is not None  # noqa: S101 (the caller looked)
    assert found.labels is not None  # noqa: S101
    changes = []
    for row in np.flatnonzero(exact.scores[0] > SEEN):
        score = float(exact.scores[0][row])
        rows = np.flatnonzero(found.labels[0] == exact.labels[0][row])
        overlaps = paired_iou(
            np.repeat(exact.boxes[0][row][None], len(rows), axis=0), found.boxes[0][rows]
        )
        if not len(rows) or overlaps.max() == 0:
            changes.append(2 * score)
            continue
        nearest = int(overlaps.argmax())
        shift = abs(score - float(found.scores[0][rows[nearest]]))
        changes.append(shift + score * (1 - float(overlaps[nearest])))
    return float(np.mean(changes)) if changes else 0.0


def keep_lists(blocks: Sequence[Block]) -> tuple[tuple[str, ...], ...]:
    """Return growing lists of layers to keep, the cheapest first.

    Args:
        blocks: The most worth keeping first, as in a `Remedy`.
    """
    total = sum(block.harm for block in blocks)
    found: list[tuple[str, ...]] = []
    for share in SHARES if total else ():
        kept: list[str] = []
        harm = 0.0
        for block in blocks:
            if harm >= share * total:
                break
            kept.extend(block.layers)
            harm += block.harm
        if tuple(kept) not in found:
            found.append(tuple(kept))
    return tuple(found)
