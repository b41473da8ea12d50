"""YOLOX (arXiv 2107.08430), every size: its depth and width are read off the weights.

The network is CSPDarknet (CSPNet, arXiv 1911.11929), a path aggregation neck (PANet, arXiv
1803.01534) and an anchor-free decoupled head. Three things are restated, with the same results:
BatchNorm is folded into the convolutions; the space-to-depth stem and its 3x3 convolution are one
6x6 convolution of stride 2; the pyramid of 5, 9 and 13 pixel pools is three 5 pixel pools in a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raudo.checkpoints.classes import default_names
from raudo.checkpoints.scan import import_torch, load_checkpoint
from raudo.errors import SourceError, UsageError
from raudo.families.base import Evidence, Family, Model, TorchModel, torch_module

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch
    from torch import nn

STRIDES = (8, 16, 32)
BATCHNORM_EPS = 1e-3
NMS_IOU = 0.65
SMALL_STEMS = (16, 24)
"""Stem channels of the sizes nano and tiny, which are trained at 416x416 instead of 640x640."""

_STEM = "backbone.backbone.stem.conv.conv.weight"
_HEAD = tuple(f"head.{part}_preds.0.weight" for part in ("cls", "obj", "reg"))
_PREFIXES = ("", "module.", "model.")
_CONTAINERS = ("ema", "model", "state_dict", "model_state_dict")


class Yolox(Family):
    """Megvii-style YOLOX checkpoints."""

    name = "yolox"
    title = "YOLOX checkpoints of every width and depth (CSPDarknet, SiLU)"

    def recognizes(self, evidence: Evidence) -> bool:
        """See `Family.recognizes`: the keys of the state dict tell."""
        if evidence.kind != "checkpoint":
            return False
        return any(
            all(prefix + key in evidence.strings for key in (_STEM, *_HEAD)) for prefix in _PREFIXES
        )

    def load(self, evidence: Evidence, size: tuple[int, int] | None) -> Model:
        """See `Family.load`."""
        import_torch()
        weights = find_weights(load_checkpoint(evidence.path, trusted=evidence.trusted))
        if weights is None:
            raise SourceError(
                f"{evidence.path} names YOLOX's weights but does not hold them as a state dict",
                hint="save the model's state_dict() and give that file",
            )
        try:
            return _build(weights, size)
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise SourceError(
                f"{evidence.path} has YOLOX's keys, but does not fit its architecture: {reason}",
                hint="export this variant to ONNX, and give that file",
            ) from error


class Weights:
    """A state dict seen from one of its prefixes; remembers what was read."""

    def __init__(
        self, tensors: Mapping[str, torch.Tensor], prefix: str = "", read: set[str] | None = None
    ) -> None:
        self._tensors = tensors
        self._prefix = prefix
        self._read = set() if read is None else read

    def at(self, path: str) -> Weights:
        """Return the weights below a path."""
        return Weights(self._tensors, f"{self._prefix}{path}.", self._read)

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor as float32; KeyError without it."""
        key = self._prefix + name
        tensor = self._tensors[key]
        self._read.add(key)
        return tensor.detach().float()

    def has(self, path: str) -> bool:
        """Tell whether anything lies below a path."""
        return any(key.startswith(f"{self._prefix}{path}.") for key in self._tensors)

    def each(self, path: str) -> Iterator[Weights]:
        """Yield the weights below `path.0`, `path.1`, ... as far as they go."""
        index = 0
        while self.has(f"{path}.{index}"):
            yield self.at(f"{path}.{index}")
            index += 1

    def unread(self) -> list[str]:
        """Return the keys that were not read, except BatchNorm's counters."""
        counters = ".num_batches_tracked"
        return sorted(k for k in self._tensors if k not in self._read and not k.endswith(counters))


def find_weights(content: Any) -> Weights | None:
    """Find YOLOX's state dict in what a checkpoint holds; averaged (EMA) weights come first."""
    if not isinstance(content, dict):
        return None
    for prefix in _PREFIXES:
        if prefix + _STEM in content:
            return Weights(content, prefix)
    found = (find_weights(content.get(key)) for key in _CONTAINERS)
    return next((weights for weights in found if weights is not None), None)


def _build(weights: Weights, size: tuple[int, int] | None) -> TorchModel:
    from raudo.records import Letterbox, Spec

    classes = weights.tensor("head.cls_preds.0.weight").shape[0]
    if size is None:
        small = weights.tensor(_STEM).shape[0] in SMALL_STEMS
        size = (416, 416) if small else (640, 640)
    height, width = size
    if height % STRIDES[-1] or width % STRIDES[-1]:
        raise UsageError(
            f"this model cannot take {height}x{width} pixels",
            hint=f"height and width must be multiples of {STRIDES[-1]}",
        )
    module = _network(weights, height, width)
    if unread := weights.unread():
        raise ValueError(f"it holds more than that, {unread[0]} for instance")
    spec = Spec(
        family=Yolox.name,
        height=height,
        width=width,
        classes=default_names(classes),
        letterbox=Letterbox(placement="top_left", rounding="floor"),
        nms_iou=NMS_IOU,
    )
    return TorchModel(spec, module)


def _network(weights: Weights, height: int, width: int) -> nn.Module:
    import torch

    cells = [(height // stride, width // stride) for stride in STRIDES]
    grid = [torch.cartesian_prod(torch.arange(h), torch.arange(w)).flip(-1) for h, w in cells]
    strides = [torch.full((h * w, 1), s) for (h, w), s in zip(cells, STRIDES, strict=True)]
    return torch_module(
        _detect,
        backbone=_backbone(weights.at("backbone.backbone")),
        neck=_neck(weights.at("backbone")),
        head=_head(weights.at("head"), [h * w for h, w in cells]),
        # Whole numbers, because those keep their precision when the module is halved.
        grid=torch.cat(grid),
        strides=torch.cat(strides),
    )


def _detect(module: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Map uint8 [batch, height, width, 3] to boxes and scores, as the engine contract has it."""
    import torch

    dtype = module.backbone.stem[0].weight.dtype
    pixels = images.to(dtype).permute(0, 3, 1, 2)  # of bytes, TensorRT takes nothing but a cast
    features = module.neck(module.backbone(pixels))
    distances, objectness, classes = module.head(features)
    distances = distances.float()
    centres = (distances[..., :2] + module.grid) * module.strides
    halves = distances[..., 2:].exp() * (module.strides * 0.5)
    boxes = torch.cat((centres - halves, centres + halves), -1)
    return boxes, objectness.float().sigmoid() * classes.float().sigmoid()


def _backbone(weights: Weights) -> nn.Module:
    from torch import nn

    dark5 = weights.at("dark5")
    return torch_module(
        _run_backbone,
        stem=_stem(weights.at("stem.conv")),
        dark2=nn.Sequential(_conv(weights.at("dark2.0"), 2), _csp(weights.at("dark2.1"), True)),
        dark3=nn.Sequential(_conv(weights.at("dark3.0"), 2), _csp(weights.at("dark3.1"), True)),
        dark4=nn.Sequential(_conv(weights.at("dark4.0"), 2), _csp(weights.at("dark4.1"), True)),
        dark5=nn.Sequential(
            _conv(dark5.at("0"), 2), _pyramid(dark5.at("1")), _csp(dark5.at("2"), False)
        ),
    )


def _run_backbone(module: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    fine = module.dark3(module.dark2(module.stem(x)))
    middle = module.dark4(fine)
    return fine, middle, module.dark5(middle)


def _neck(weights: Weights) -> nn.Module:
    from torch import nn

    return torch_module(
        _run_neck,
        up=nn.Upsample(scale_factor=2, mode="nearest"),
        lateral=_conv(weights.at("lateral_conv0")),
        down_middle=_csp(weights.at("C3_p4"), False),
        reduce=_conv(weights.at("reduce_conv1")),
        down_fine=_csp(weights.at("C3_p3"), False),
        shrink_fine=_conv(weights.at("bu_conv2"), 2),
        up_middle=_csp(weights.at("C3_n3"), False),
        shrink_middle=_conv(weights.at("bu_conv1"), 2),
        up_coarse=_csp(weights.at("C3_n4"), False),
    )


def _run_neck(module: Any, features: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    import torch

    fine, middle, coarse = features
    coarse = module.lateral(coarse)
    middle = module.reduce(module.down_middle(torch.cat((module.up(coarse), middle), 1)))
    fine = module.down_fine(torch.cat((module.up(middle), fine), 1))
    middle = module.up_middle(torch.cat((module.shrink_fine(fine), middle), 1))
    coarse = module.up_coarse(torch.cat((module.shrink_middle(middle), coarse), 1))
    return fine, middle, coarse


def _head(weights: Weights, cells: list[int]) -> nn.Module:
    from torch import nn

    classes = weights.tensor("cls_preds.0.weight").shape[0]
    levels = []
    for index in range(len(STRIDES)):
        cls, reg = (list(weights.each(f"{part}_convs.{index}")) for part in ("cls", "reg"))
        levels.append(
            torch_module(
                _run_level,
                stem=_conv(weights.at(f"stems.{index}")),
                cls=nn.Sequential(*map(_conv, cls), _prediction(weights.at(f"cls_preds.{index}"))),
                reg=nn.Sequential(*map(_conv, reg)),
                box=_prediction(weights.at(f"reg_preds.{index}")),
                obj=_prediction(weights.at(f"obj_preds.{index}")),
                channels=(4, 1, classes),
                cells=cells[index],
            )
        )
    return torch_module(_run_head, levels=nn.ModuleList(levels))


def _run_head(module: Any, features: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    import torch

    rows = [level(x) for level, x in zip(module.levels, features, strict=True)]
    return tuple(torch.cat(parts, 1) for parts in zip(*rows, strict=True))


def _run_level(module: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    x = module.stem(x)
    regression = module.reg(x)
    maps = module.box(regression), module.obj(regression), module.cls(x)
    return tuple(
        y.permute(0, 2, 3, 1).reshape(-1, module.cells, channels)
        for y, channels in zip(maps, module.channels, strict=True)
    )


def _csp(weights: Weights, shortcut: bool) -> nn.Module:
    from torch import nn

    return torch_module(
        _run_csp,
        deep=nn.Sequential(
            _conv(weights.at("conv1")), *(_bottleneck(w, shortcut) for w in weights.each("m"))
        ),
        skip=_conv(weights.at("conv2")),
        merge=_conv(weights.at("conv3")),
    )


def _run_csp(module: Any, x: torch.Tensor) -> torch.Tensor:
    import torch

    return module.merge(torch.cat((module.deep(x), module.skip(x)), 1))


def _bottleneck(weights: Weights, shortcut: bool) -> nn.Module:
    from torch import nn

    body = nn.Sequential(_conv(weights.at("conv1")), _conv(weights.at("conv2")))
    return torch_module(lambda module, x: x + module.body(x), body=body) if shortcut else body


def _pyramid(weights: Weights) -> nn.Module:
    from torch import nn

    return torch_module(
        _run_pyramid,
        reduce=_conv(weights.at("conv1")),
        pool=nn.MaxPool2d(5, stride=1, padding=2),
        merge=_conv(weights.at("conv2")),
    )


def _run_pyramid(module: Any, x: torch.Tensor) -> torch.Tensor:
    import torch

    pyramid = [module.reduce(x)]
    for _ in range(3):
        pyramid.append(module.pool(pyramid[-1]))
    return module.merge(torch.cat(pyramid, 1))


def _conv(weights: Weights, stride: int = 1) -> nn.Module:
    from torch import nn

    if weights.has("dconv"):
        depthwise = _fold(weights.at("dconv"))
        groups = depthwise[0].shape[0]
        return nn.Sequential(
            _filled(*depthwise, stride, groups), nn.SiLU(), _conv(weights.at("pconv"))
        )
    return nn.Sequential(_filled(*_fold(weights), stride), nn.SiLU())


def _stem(weights: Weights) -> nn.Module:
    from torch import nn

    weight, bias = _fold(weights)
    out, channels, side, _ = weight.shape
    # Space to depth orders its four pixels by column, then by row.
    split = weight.reshape(out, 2, 2, channels // 4, side, side)
    whole = split.permute(0, 3, 4, 2, 5, 1).reshape(out, channels // 4, 2 * side, 2 * side)
    return nn.Sequential(_filled(whole, bias, 2), nn.SiLU())


def _prediction(weights: Weights) -> nn.Module:
    return _filled(weights.tensor("weight"), weights.tensor("bias"), 1)


def _fold(weights: Weights) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weight and bias of a convolution that has its BatchNorm in it."""
    norm = weights.at("bn")
    scale = norm.tensor("weight") / (norm.tensor("running_var") + BATCHNORM_EPS).sqrt()
    bias = norm.tensor("bias") - norm.tensor("running_mean") * scale
    return weights.tensor("conv.weight") * scale[:, None, None, None], bias


def _filled(weight: torch.Tensor, bias: torch.Tensor, stride: int, groups: int = 1) -> nn.Module:
    import torch
    from torch import nn

    out, channels, side, _ = weight.shape
    padding = (side - 1) // 2
    conv = nn.Conv2d(channels * groups, out, side, stride, padding, groups=groups)
    with torch.no_grad():
        conv.weight.copy_(weight)
        conv.bias.copy_(bias)
    return conv.requires_grad_(False)
