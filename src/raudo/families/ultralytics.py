"""Detection checkpoints of the Ultralytics package: its YOLO models and RT-DETR.

The package restores the network, and decides by itself which head `predict` uses by default; the
decoding of the boxes is restated here: a distribution over distances (arXiv 2006.04388) from the
centre of each cell (FCOS, arXiv 1904.01355), and the choice of the best (arXiv 2405.14458) where
there is no NMS.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raudo.errors import MissingDependencyError, SourceError, UsageError
from raudo.families.base import Evidence, Family, Model, TorchModel, torch_module

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import nn

    from raudo.records import Spec

_TASKS = "ultralytics.nn.tasks."
_DETECTORS = ("Detection", "World", "YOLOE")
_CELL_HEADS = ("Detect", "v10Detect")
"""Heads whose branches are one box map and one class map a level."""


class Ultralytics(Family):
    """Checkpoints of the Ultralytics package, of the task `detect`."""

    name = "ultralytics"
    title = "Ultralytics detection checkpoints (YOLOv5u, v8 to v10, 11, 12, 26, RT-DETR)"
    extra = "ultralytics"
    allowed_imports = (
        "ultralytics.nn.modules",
        "ultralytics.nn.tasks",
        "ultralytics.utils.loss",
        "ultralytics.utils.tal",
        "ultralytics.yolo.utils.loss",
        "ultralytics.yolo.utils.tal",
    )
    allowed_calls = (
        "ultralytics.utils.IterableSimpleNamespace",
        "ultralytics.yolo.utils.IterableSimpleNamespace",
        "pathlib.Path",
        "pathlib.PosixPath",
        "pathlib.WindowsPath",
        "pathlib._local.PosixPath",
        "pathlib._local.WindowsPath",
    )

    def recognizes(self, evidence: Evidence) -> bool:
        """See `Family.recognizes`: the checkpoint holds objects of the package."""
        return any(name.startswith("ultralytics.") for name in evidence.imports)

    def load(self, evidence: Evidence, size: tuple[int, int] | None) -> Model:
        """See `Family.load`."""
        from raudo.records import Letterbox, Spec

        _refuse_other_tasks(evidence)
        with _package():
            predictor = _predictor(evidence, size)
            height, width = (int(side) for side in predictor.imgsz)
            if size is not None and (height, width) != size:
                raise UsageError(
                    f"this model cannot take {size[0]}x{size[1]} pixels",
                    hint=f"{height}x{width} would do",
                )
            network = predictor.model.model.float().eval().requires_grad_(False)
            names = predictor.model.names
            queries = "RTDETR" in type(network.model[-1]).__name__
            nms_free = queries or bool(getattr(network.model[-1], "end2end", False))
            spec = Spec(
                family=self.name,
                height=height,
                width=width,
                classes=tuple(str(names[index]) for index in sorted(names)),
                letterbox=Letterbox(placement="stretch" if queries else "center"),
                output="topk" if nms_free else "dense",
                nms_iou=predictor.args.iou,
            )
            return TorchModel(spec, _module(network, spec, predictor.args.max_det))


def _refuse_other_tasks(evidence: Evidence) -> None:
    models = [name[len(_TASKS) :] for name in evidence.imports if name.startswith(_TASKS)]
    for model in sorted(models):
        task = model.removesuffix("Model")
        if model.endswith("Model") and not any(d in task for d in _DETECTORS):
            raise SourceError(
                f"{evidence.path} is a model for another task ({task}), not for detection",
                hint="raudo takes detectors: models that find boxes of classes",
            )


@contextlib.contextmanager
def _package() -> Iterator[None]:
    """Import the package, and leave no trace of its import and use.

    It writes a settings file, looks for the network, changes the environment, and sets the
    threads and print options of OpenCV, NumPy and PyTorch.
    """
    import cv2
    import numpy as np

    environment, threads, numpy_print = dict(os.environ), cv2.getNumThreads(), np.get_printoptions()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        quiet = {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "YOLO_VERBOSE": "0"}
        os.environ.update(quiet, YOLO_CONFIG_DIR=folder)
        try:
            import torch

            torch_threads = torch.get_num_threads()
            import ultralytics  # noqa: F401

            yield
            torch.set_num_threads(torch_threads)
            torch.set_printoptions(profile="default")
        except ImportError as error:
            raise MissingDependencyError(
                f"this checkpoint needs the package {error.name}, which is not installed",
                hint="pip install 'raudo[ultralytics]'",
            ) from error
        finally:
            os.environ.clear()
            os.environ.update(environment)
            cv2.setNumThreads(threads)
            np.set_printoptions(**numpy_print)


def _predictor(evidence: Evidence, size: tuple[int, int] | None) -> Any:
    """Let the package predict once, and return its predictor: the network as it is run by it."""
    import numpy as np
    import ultralytics

    options = {} if size is None else {"imgsz": list(size)}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # The package reads meaning into names; this one means nothing.
        copy = Path(shutil.copyfile(evidence.path, Path(folder) / "model.pt"))
        try:
            model = ultralytics.YOLO(copy, verbose=False)
        except Exception as error:  # what a damaged file makes the package raise is not defined
            reason = str(error).strip().partition("\n")[0].replace(str(copy), str(evidence.path))
            raise SourceError(
                f"ultralytics {ultralytics.__version__} cannot load {evidence.path}: {reason}",
                hint="the file may be damaged, or need another version of ultralytics",
            ) from error
        if model.task != "detect":
            raise SourceError(
                f"{evidence.path} is a model for another task ({model.task}), not for detection",
                hint="raudo takes detectors: models that find boxes of classes",
            )
        blank = np.zeros((32, 32, 3), np.uint8)
        model.predict(blank, rect=False, verbose=False, save=False, device="cpu", **options)
    return model.predictor


def _module(network: nn.Module, spec: Spec, limit: int) -> nn.Module:
    head = network.model[-1]
    folded = _fold_preparation(network)
    if "RTDETR" in type(head).__name__:
        ranked = hasattr(head, "postprocess")
        return torch_module(
            _detect_queries, network=network, folded=folded, spec=spec, ranked=ranked
        )
    if type(head).__name__ not in _CELL_HEADS:
        head.shape = None  # drops cells that were cached in inference mode
        return torch_module(_detect_ordinary, network=network, folded=folded, spec=spec)
    strides = [int(stride) for stride in head.stride]
    network.model[-1] = _raw_head(head, spec, strides)
    centres, scale = _cells(spec, strides)
    return torch_module(
        _detect_cells,
        network=network,
        folded=folded,
        spec=spec,
        centres=centres,
        strides=scale,
        bins=int(head.reg_max),
        limit=limit,
    )


def _fold_preparation(network: nn.Module) -> bool:
    """Put BGR -> RGB and the division by 255 into the first convolution, if there is a plain one.

    Whole numbers up to 255 are exact in every precision, their 255th parts are not.
    """
    import torch

    first = network.model[0]
    conv = getattr(first, "conv", None)
    if not (type(first).__name__ == "Conv" and isinstance(conv, torch.nn.Conv2d)):
        return False
    if conv.in_channels != 3:
        raise SourceError(
            f"the model takes images of {conv.in_channels} channels",
            hint="raudo runs detectors of colour images",
        )
    with torch.no_grad():
        conv.weight.copy_(conv.weight.flip(1) / 255)
    return True


def _pixels(module: Any, images: torch.Tensor) -> torch.Tensor:
    dtype = next(module.network.parameters()).dtype
    pixels = images.to(dtype).permute(0, 3, 1, 2)  # of bytes, TensorRT takes nothing but a cast
    return pixels if module.folded else pixels.flip(1) / 255


def _raw_head(head: Any, spec: Spec, strides: list[int]) -> nn.Module:
    """Return a head that gives box distances and class logits, neither decoded nor joined."""
    boxes, classes = (
        (head.one2one_cv2, head.one2one_cv3) if spec.output == "topk" else (head.cv2, head.cv3)
    )
    return torch_module(
        _run_raw_head,
        boxes=boxes,
        classes=classes,
        channels=(4 * int(head.reg_max), len(spec.classes)),
        cells=[(spec.height // s) * (spec.width // s) for s in strides],
        f=head.f,  # from which layers, and its own number: what the package's graph needs
        i=head.i,
    )


def _run_raw_head(module: Any, features: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    import torch

    return tuple(
        torch.cat(
            [
                conv(x).permute(0, 2, 3, 1).reshape(-1, cells, channels)
                for conv, x, cells in zip(convs, features, module.cells, strict=True)
            ],
            1,
        )
        for convs, channels in zip((module.boxes, module.classes), module.channels, strict=True)
    )


def _cells(spec: Spec, strides: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cells' centres int64 [cells, 2] as x, y in pixels, and strides [cells, 1].

    Whole numbers keep their precision when the module is halved.
    """
    import torch

    centres, scale = [], []
    for stride in strides:
        y, x = (torch.arange(side // stride) for side in (spec.height, spec.width))
        centres.append(torch.cartesian_prod(y, x).flip(-1) * stride + stride // 2)
        scale.append(torch.full((len(centres[-1]), 1), stride))
    return torch.cat(centres), torch.cat(scale)


def _detect_cells(module: Any, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    import torch

    distances, logits = (y.float() for y in module.network(_pixels(module, images)))
    if module.bins > 1:
        shares = distances.reshape(-1, len(module.centres), 4, module.bins).softmax(-1)
        distances = (shares * torch.arange(module.bins, device=shares.device)).sum(-1)
    distances = distances * module.strides
    boxes = torch.cat(
        (module.centres - distances[..., :2], module.centres + distances[..., 2:]), -1
    )
    scores = logits.sigmoid()
    return (boxes, scores) if module.spec.output == "dense" else best(boxes, scores, module.limit)


def best(
    boxes: torch.Tensor, scores: torch.Tensor, limit: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Choose the best detections, as NMS-free models do.

    Args:
        boxes: [batch, anchors, 4].
        scores: [batch, anchors, classes].
        limit: How many to choose.

    Returns:
        boxes [batch, k, 4], scores [batch, k], labels int64 [batch, k].
    """
    limit = min(limit, int(scores.shape[1]))
    classes = scores.shape[2]
    anchors = scores.amax(-1).topk(limit).indices.unsqueeze(-1)
    boxes = boxes.gather(1, anchors.expand(-1, -1, 4))
    scores, places = scores.gather(1, anchors.expand(-1, -1, classes)).flatten(1).topk(limit)
    rows = (places // classes).unsqueeze(-1).expand(-1, -1, 4)
    return boxes.gather(1, rows), scores, places % classes


def _detect_ordinary(module: Any, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Split what the package itself returns, for heads that are not taken apart here."""
    found = _first(module.network(_pixels(module, images))).float()
    if module.spec.output == "topk":
        return found[..., :4], found[..., 4], found[..., 5].long()
    boxes, scores = found.transpose(1, 2).split((4, len(module.spec.classes)), -1)
    return _corners(boxes), scores


def _detect_queries(module: Any, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    import torch

    found = _first(module.network(_pixels(module, images))).float()
    sides = [module.spec.width, module.spec.height] * 2
    boxes = _corners(found[..., :4]) * torch.tensor(sides, device=found.device)
    if module.ranked:
        return boxes, found[..., 4], found[..., 5].long()
    scores, labels = found[..., 4:].max(-1)
    return boxes, scores, labels


def _first(output: Any) -> torch.Tensor:
    first: torch.Tensor = output[0] if isinstance(output, tuple | list) else output
    return first


def _corners(boxes: torch.Tensor) -> torch.Tensor:
    """Turn centre, width and height into corners."""
    import torch

    centres, halves = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((centres - halves, centres + halves), -1)
