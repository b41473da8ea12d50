"""Finds the layers whose quantization does most harm for the time that it saves, by measuring.

First it looks for the calibration that harms least: by which method, and on how many images.
Then each block of neighbouring layers is quantized alone, and what that does to the detections in
a few calibration images is its harm ("Quantizing deep convolutional networks for efficient
inference", arXiv 1806.08342, and "HAWQ", arXiv 1905.03696, rank layers to mix precisions, too). Its
price is the time that the runtime's own profile shows it to take longer when it is kept. The blocks
that would be kept first are then divided into single layers, of which one often does most harm.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raudo import discover, plan
from raudo.accuracy.boxes import paired_iou
from raudo.backends.base import Outputs, Resources
from raudo.machine import available_threads
from raudo.passes.base import QuantizationSettings
from raudo.records import Artifact, Manifest, Ranges, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from raudo.backends.base import Backend, Engine, Variant
    from raudo.passes.base import Pass
    from raudo.plan import Plan
    from raudo.records import Spec

BLOCKS = 16
FEWEST_BLOCKS = 4
RANKING_IMAGES = 6
"""Images that harm is measured on, and the fewest that are calibrated on."""
MORE_IMAGES = 4
"""How many times as many images the next larger set has."""
MOST_IMAGES = RANKING_IMAGES * (1 + MORE_IMAGES**2)
"""Images that are looked at in all: those judged, and the largest set."""
SEEN = 0.05
"""Lowest score of what counts as a detection here."""
SHARES = (0.5, 0.7, 0.85, 0.95)
LEAST_MS = 0.01


class Block(Record):
    """Neighbouring layers, and what quantizing them alone does.

    Attributes:
        layers: Names, as `Pass.restore` takes them.
        harm: Mean change of score and loss of overlap of a detection; 0 is no change.
        milliseconds: What keeping the layers from quantization costs, as far as it is known.
    """

    layers: tuple[str, ...]
    harm: float
    milliseconds: float


class Trial(Record):
    """One way to calibrate, and what it does to the detections.

    Attributes:
        ranges: The method; see `QuantizationSettings`.
        images: How many images it was calibrated on.
        harm: As in a `Block`, of all layers together.
    """

    ranges: Ranges
    images: int
    harm: float


class Remedy(Record):
    """What may make a quantized engine lose less.

    Attributes:
        trials: Ways to calibrate, as they were tried.
        blocks: The most harm for its milliseconds first; () where no layer can be kept.
        layers: Those of the blocks that would be kept first, each on its own, in the same order;
            without those for which there was no time.
    """

    trials: tuple[Trial, ...] = ()
    blocks: tuple[Block, ...] = ()
    layers: tuple[Block, ...] = ()

    @property
    def best(self) -> Trial | None:
        """The way to calibrate that harms least, of equal ones the first."""
        return min(self.trials, key=lambda trial: trial.harm, default=None)

    @property
    def ranges(self) -> Ranges:
        """The method of the best way to calibrate."""
        return self.best.ranges if self.best else "mean"

    @property
    def images(self) -> int | None:
        """How many images to calibrate on: all, which is None, unless more of them harmed more."""
        best = self.best
        more = best is not None and any(trial.images > best.images for trial in self.trials)
        return best.images if best is not None and more else None

    @property
    def title(self) -> str:
        """What was tried, in words."""
        told = ", ".join(f"{t.harm:.3f} by {t.ranges} of {t.images} images" for t in self.trials)
        ranked = f"{len(self.blocks)} blocks of layers ranked, and {len(self.layers)} layers"
        return f"calibrated: harm {told}; {ranked}"

    @property
    def keep_lists(self) -> tuple[tuple[str, ...], ...]:
        """Lists of layers to keep, the cheapest first: a few single ones, then whole blocks."""
        return (*keep_lists(self.layers)[:1], *keep_lists(self.blocks))


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

    @classmethod
    def of(cls, chosen: Plan, spec: Spec, onnx: Path) -> Laboratory:
        """Return that of a plan of a precision that a pass makes."""
        quantizer = plan.pass_for(chosen.variant)
        if quantizer is None:
            raise ValueError(f"no pass makes {chosen.name}")
        return cls(discover.backend(chosen.backend), chosen.variant, quantizer, onnx, spec)

    def layers(self) -> tuple[str, ...]:
        """Return the layers that can be kept; see `Pass.layers`."""
        return self.quantizer.layers(self.backend.read_graph(self.onnx))

    def exact(self) -> Any:
        """Return the graph as it is without quantization."""
        return self.backend.read_graph(self.onnx)

    def methods(self) -> tuple[Ranges, ...]:
        """Return the methods of calibration that there are; see `Pass.methods`."""
        return self.quantizer.methods(self.exact())

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
    """Find what makes a quantized engine lose less: how to calibrate it, layers to keep.

    Each way is calibrated on some images and judged on others. With the best, each block is
    quantized alone, by taking the quantizers of all other layers out of the same graph again.

    Args:
        laboratory: What is quantized.
        images: Calibration images, each uint8 [1, height, width, 3].
        seconds: Most time to take: the less, the larger the blocks; what would not be reached by
            then is left out, but for one calibration by each method.
        blocks: Most blocks to divide the layers into.
    """
    deadline = time.monotonic() + seconds
    layers = laboratory.layers()
    if not layers:
        return Remedy()
    judged = images[:RANKING_IMAGES]
    exact = laboratory.exact()
    wanted = laboratory.run(exact, judged)

    def harm_of(graph: Any) -> float:
        found = laboratory.run(graph, judged)
        return float(np.mean([_harm(*pair) for pair in zip(wanted, found, strict=True)]))

    fitted = images[RANKING_IMAGES:] or judged
    trials, quantized = _calibrate(laboratory, fitted, harm_of, time.monotonic() + seconds / 2)
    slow, fast = (laboratory.times(graph, judged[0]) for graph in (exact, quantized))

    def harm_of_block(block: Sequence[str]) -> float:
        others = [layer for layer in layers if layer not in block]
        return harm_of(laboratory.quantizer.restore(quantized, exact, others))

    start = time.monotonic()
    floor = harm_of_block(())  # of the additions and activations between the layers
    each = time.monotonic() - start
    affordable = int((deadline - time.monotonic()) / each)

    def measured(parts: Iterable[tuple[str, ...]]) -> list[Block]:
        found = []
        for layers in itertools.takewhile(lambda _: time.monotonic() + each <= deadline, parts):
            harm = max(0.0, harm_of_block(layers) - floor)
            found.append(Block(layers=layers, harm=harm, milliseconds=_price(layers, slow, fast)))
        return found

    coarse = _ranked(measured(_divide(layers, min(blocks, max(FEWEST_BLOCKS, affordable)))))
    single = measured((layer,) for layer in _kept_first(coarse))
    return Remedy(trials=trials, blocks=coarse, layers=_ranked(single))


def _calibrate(
    laboratory: Laboratory,
    images: Sequence[NDArray[np.uint8]],
    harm_of: Callable[[Any], float],
    deadline: float,
) -> tuple[tuple[Trial, ...], Any]:
    """Try ways to calibrate, the cheapest first; return them, and the graph of the best.

    Each method on a few images; then the better one on more, as long as that harms less and there
    is time for it: so many times as many images take about so many times as long.
    """
    trials: list[Trial] = []
    graphs: list[Any] = []
    took = 0.0

    def attempt(ranges: Ranges, count: int) -> None:
        nonlocal took
        start = time.monotonic()
        few = [images[number * len(images) // count] for number in range(count)]
        graphs.append(laboratory.quantized(few, ranges))
        trials.append(Trial(ranges=ranges, images=count, harm=harm_of(graphs[-1])))
        took = time.monotonic() - start

    for ranges in laboratory.methods():
        attempt(ranges, min(RANKING_IMAGES, len(images)))
    best = min(range(len(trials)), key=lambda number: trials[number].harm)
    while time.monotonic() + MORE_IMAGES * took < deadline:
        count = min(MORE_IMAGES * trials[best].images, len(images))
        if count == trials[best].images:
            break
        attempt(trials[best].ranges, count)
        if trials[-1].harm >= trials[best].harm:
            break
        best = len(trials) - 1
    return tuple(trials), graphs[best]


def _ranked(blocks: Iterable[Block]) -> tuple[Block, ...]:
    def worth(block: Block) -> float:
        return block.harm / max(block.milliseconds, LEAST_MS)

    return tuple(sorted(blocks, key=worth, reverse=True))


def _kept_first(blocks: Sequence[Block]) -> tuple[str, ...]:
    """Return the layers of the blocks that would be kept first, unless they are single already."""
    first = next(iter(keep_lists(blocks)), ())
    return first if any(len(block.layers) > 1 for block in blocks) else ()


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
