"""ONNX detectors that someone else exported, brought to the engine contract by graph surgery.

Recognized are, by the shapes of the output and the metadata (A is the number of cells of strides
8, 16 and 32, or of those with 4 or 64; C of classes; k of detections):

- [batch, 4 + C, A]: centre, width, height in pixels, then class scores; input RGB / 255;
- [batch, k, 6]: corners in pixels, score, label; input RGB / 255, classes in the metadata `names`;
- [batch, A, 5 + C]: box, objectness, class scores, with or without the decoding of arXiv
  2107.08430; input BGR, 0 to 255;
- files that raudo wrote.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from raudo.checkpoints.classes import default_names
from raudo.errors import SourceError, UsageError
from raudo.families.base import SPEC_KEY, Evidence, Family, Model
from raudo.graphs.surgery import FLOAT, FLOAT16, INT64, Graph, cells, fix_shapes, inputs_of

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from raudo.records import Letterbox, Spec

STRIDES = ((8, 16, 32), (4, 8, 16, 32), (8, 16, 32, 64))
OBJECTNESS_NMS_IOU = 0.65
_LAYOUTS = (
    "[b, 4+C, A], [b, k, 6] with names in the metadata, [b, A, 5+C]; input float [b, 3, h, w]"
)
_MOVES = (
    "Transpose Reshape Flatten Concat Slice Split Gather Squeeze Unsqueeze Cast Identity Add Sub "
    "Mul Div Exp"
)
"""Operators that only move, scale or decode numbers on their way from the network to the output."""

Kind = Literal["channels_first", "chosen", "queries", "objectness"]


@dataclass(frozen=True)
class Layout:
    """What the single output of a detector means."""

    kind: Kind
    classes: int
    cells: int
    strides: tuple[int, ...] = ()


class OnnxModel(Model):
    """A model that is an ONNX graph which obeys the contract."""

    def __init__(self, spec: Spec, graph: onnx.ModelProto) -> None:
        self.spec = spec
        self._graph = graph

    def write_onnx(self, path: Path) -> None:
        """Write the graph; see `Model.write_onnx`."""
        import onnx

        onnx.save(self._graph, path)


class Onnx(Family):
    """Detectors in ONNX files."""

    name = "onnx"
    title = "ONNX detectors of the layouts [b, 4+C, A], [b, k, 6] and [b, A, 5+C]"
    extra = "onnx"

    def recognizes(self, evidence: Evidence) -> bool:
        """See `Family.recognizes`; which layout it is, `load` finds out."""
        return evidence.kind == "onnx"

    def load(self, evidence: Evidence, size: tuple[int, int] | None) -> Model:
        """See `Family.load`."""
        from raudo.records import Spec

        model = _read(evidence)
        metadata = {prop.key: prop.value for prop in model.metadata_props}
        if SPEC_KEY in metadata:
            return _own(evidence, model, metadata[SPEC_KEY], size)
        _check_input(evidence, model)
        height, width = _input_size(evidence, model, metadata, size)
        names = _names(evidence, metadata)
        shape = fix_shapes(model, height, width)
        layout = find_layout(shape, (height, width), len(names), metadata)
        if layout is None:
            raise _unknown(evidence, f"its output is {list(shape)} at {height}x{width} pixels")
        spec = Spec(
            family=self.name,
            height=height,
            width=width,
            classes=names or default_names(layout.classes),
            letterbox=_letterbox(layout),
            output="topk" if layout.kind in ("chosen", "queries") else "dense",
            **({"nms_iou": OBJECTNESS_NMS_IOU} if layout.kind == "objectness" else {}),
        )
        return OnnxModel(spec, _obey(evidence, model, spec, layout))


def _read(evidence: Evidence) -> onnx.ModelProto:
    import onnx

    try:
        model = onnx.load(str(evidence.path))
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise SourceError(
            f"{evidence.path} is damaged, or a file of its weights is missing: {reason}",
            hint="get it again with the files beside it, or export it again",
        ) from error
    return model


def _own(
    evidence: Evidence, model: onnx.ModelProto, text: str, size: tuple[int, int] | None
) -> Model:
    from pydantic import ValidationError

    from raudo.records import Spec

    try:
        spec = Spec.model_validate_json(text)
    except ValidationError as error:
        raise SourceError(
            f"{evidence.path} carries a spec that this raudo does not read",
            hint="export the model again",
        ) from error
    if size not in (None, (spec.height, spec.width)):
        raise _fixed_size(evidence, spec.height, spec.width)
    return OnnxModel(spec, model)


def _unknown(evidence: Evidence, reason: str) -> SourceError:
    shapes = ", ".join(f"{name} {list(shape)}" for name, shape in evidence.shapes.items())
    return SourceError(
        f"{evidence.path} has no detector layout that raudo knows: {reason} (tensors: {shapes})",
        hint=f"supported outputs: {_LAYOUTS}",
    )


def _fixed_size(evidence: Evidence, height: int, width: int) -> UsageError:
    return UsageError(
        f"{evidence.path} takes only {height}x{width} pixels",
        hint="export it again at the size that you need, or with dynamic sides",
    )


def _check_input(evidence: Evidence, model: onnx.ModelProto) -> None:
    inputs = inputs_of(model)
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise _unknown(evidence, "it should have one input and one output")
    shape = evidence.shapes[inputs[0].name]
    if (
        inputs[0].type.tensor_type.elem_type not in (FLOAT, FLOAT16)
        or len(shape) != 4
        or shape[1] != 3
    ):
        raise _unknown(evidence, "its input is not float [batch, 3, height, width]")


def _input_size(
    evidence: Evidence,
    model: onnx.ModelProto,
    metadata: dict[str, str],
    size: tuple[int, int] | None,
) -> tuple[int, int]:
    _, _, height, width = evidence.shapes[inputs_of(model)[0].name]
    if height > 0 and width > 0:
        if size not in (None, (height, width)):
            raise _fixed_size(evidence, height, width)
        return height, width
    own = _literal(metadata.get("imgsz", ""))
    if size is None and isinstance(own, list | tuple) and len(own) == 2:
        size = int(own[0]), int(own[1])
    if size is None:
        raise SourceError(
            f"{evidence.path} takes images of any size, and does not say which it was trained on",
            hint="give the input's height and width",
        )
    return size


def _names(evidence: Evidence, metadata: dict[str, str]) -> tuple[str, ...]:
    task = metadata.get("task", "detect")
    if task != "detect":
        raise SourceError(
            f"{evidence.path} is a model for another task ({task}), not for detection",
            hint="raudo takes detectors: models that find boxes of classes",
        )
    names = _literal(metadata.get("names", ""))
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[index] for index in range(len(names))]
    return tuple(str(name) for name in names) if isinstance(names, list | tuple) else ()


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def find_layout(
    shape: tuple[int, ...], size: tuple[int, int], named: int, metadata: dict[str, str]
) -> Layout | None:
    """Tell what an output means, or None.

    Args:
        shape: Shape of the output; -1 where it is not known.
        size: Input (height, width) in pixels.
        named: Number of classes that the metadata names; 0 without.
        metadata: The file's metadata.
    """
    if len(shape) != 3:
        return None
    _, rows, columns = shape
    if named and columns == 6 and rows != 4 + named:
        head = metadata.get("head", "")
        return Layout("queries" if "RTDETR" in head else "chosen", named, rows)
    grids = {sum((size[0] // s) * (size[1] // s) for s in many): many for many in STRIDES}
    if columns in grids and rows > 4 and named in (0, rows - 4):
        return Layout("channels_first", rows - 4, columns)
    if named and (rows in (-1, 4 + named)) and columns == -1:
        return Layout("channels_first", named, columns)
    if rows in grids and columns > 5 and named in (0, columns - 5):
        return Layout("objectness", columns - 5, rows, grids[rows])
    return None


def _letterbox(layout: Layout) -> Letterbox:
    from raudo.records import Letterbox

    if layout.kind == "objectness":
        return Letterbox(placement="top_left", rounding="floor")
    return Letterbox(placement="stretch" if layout.kind == "queries" else "center")


def _obey(
    evidence: Evidence, model: onnx.ModelProto, spec: Spec, layout: Layout
) -> onnx.ModelProto:
    """Return the graph with what it lacks to obey the contract."""
    graph = Graph(model)
    _prepare(graph, layout)
    graph.append()
    if layout.kind == "channels_first":
        _channels_first(graph, layout)
    elif layout.kind == "objectness":
        _objectness(evidence, graph, spec, layout)
    else:
        _chosen(graph, spec, layout)
    tail = [] if spec.output == "topk" else [layout.classes]
    outputs = {"boxes": [layout.cells, 4], "scores": [layout.cells, *tail]}
    finished = graph.finish(
        spec.height, spec.width, outputs if tail else outputs | {"labels": [layout.cells]}
    )
    finished.metadata_props.add(key=SPEC_KEY, value=spec.model_dump_json())
    return finished


def _prepare(graph: Graph, layout: Layout) -> None:
    """uint8 [batch, height, width, 3], BGR, becomes what the graph takes."""
    name = graph.source.name
    folded = layout.kind == "objectness" or graph.fold_pixels()
    # Of bytes, TensorRT takes nothing but a cast.
    pixels = graph.node("Cast", ["images"], to=graph.element if folded else FLOAT)
    if folded:
        graph.node("Transpose", [pixels], name, perm=[0, 3, 1, 2])
        return
    planes = graph.node("Transpose", [pixels], perm=[0, 3, 1, 2])
    rgb = graph.node("Gather", [planes, graph.constant([2, 1, 0], "int64")], axis=1)
    scaled = graph.node("Div", [rgb, graph.constant(255)])
    graph.node("Cast", [scaled], name, to=graph.element)


def _channels_first(graph: Graph, layout: Layout) -> None:
    if parts := graph.undo_concat():
        boxes, scores = (graph.node("Transpose", [part], perm=[0, 2, 1]) for part in parts)
        graph.node("Cast", [scores], "scores", to=FLOAT)
        boxes = graph.floats(boxes)
    else:
        boxes = graph.floats(graph.node("Transpose", [graph.result], perm=[0, 2, 1]))
        graph.cut(boxes, 4, 4 + layout.classes, "scores")
    graph.corners(graph.cut(boxes, 0, 2), graph.cut(boxes, 2, 4), "boxes")


def _chosen(graph: Graph, spec: Spec, layout: Layout) -> None:
    found = graph.floats(graph.result)
    if layout.kind == "chosen":
        graph.cut(found, 0, 4, "boxes")
    else:
        unit = graph.corners(graph.cut(found, 0, 2), graph.cut(found, 2, 4), "")
        sides = graph.constant([spec.width, spec.height, spec.width, spec.height])
        graph.node("Mul", [unit, sides], "boxes")
    graph.pick(found, 4, "scores")
    graph.node("Cast", [graph.pick(found, 5)], "labels", to=INT64)


def _objectness(evidence: Evidence, graph: Graph, spec: Spec, layout: Layout) -> None:
    found = graph.floats(graph.result)
    centres, sizes = graph.cut(found, 0, 2), graph.cut(found, 2, 4)
    passed, stopped = graph.makers_behind(frozenset(_MOVES.split()))
    if stopped != {"Conv", "Sigmoid"}:
        raise _unknown(
            evidence,
            "objectness and class scores should be sigmoids, and boxes come from convolutions, "
            f"but the output is made by {', '.join(sorted(stopped))}",
        )
    if "Exp" not in passed:
        places, strides = map(graph.constant, cells(spec.height, spec.width, layout.strides))
        centres = graph.node("Mul", [graph.node("Add", [centres, places]), strides])
        sizes = graph.node("Mul", [graph.node("Exp", [sizes]), strides])
    graph.corners(centres, sizes, "boxes")
    graph.node("Mul", [graph.cut(found, 4, 5), graph.cut(found, 5, 5 + layout.classes)], "scores")
