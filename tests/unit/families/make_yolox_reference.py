"""Writes `yolox_reference.npz`: what an independent implementation of YOLOX computes.

Run by hand, with the package pixeltable-yolox (Apache-2.0, descends from Megvii's code) on the
path; that package brings a training stack with it, so the tests use what it computed instead:

    pip install pixeltable-yolox && python tests/unit/families/make_yolox_reference.py
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import torch
from yolox.data.data_augment import preproc
from yolox.models.yolo_head import YoloxHead
from yolox.models.yolo_pafpn import YoloPafpn
from yolox.utils.boxes import postprocess

HERE = Path(__file__).resolve().parent
SAMPLES = HERE.parents[2] / "samples"
CASES = {  # depth, width, depthwise, classes
    "nano": (0.33, 0.25, True, 80),
    "tiny": (0.33, 0.375, False, 3),
    "medium_depth": (0.67, 0.25, False, 1),
    "extra_depth": (1.33, 0.125, False, 5),
}
HEIGHT, WIDTH = 64, 96


class Reference(torch.nn.Module):
    def __init__(self, depth: float, width: float, depthwise: bool, classes: int) -> None:
        super().__init__()
        self.backbone = YoloPafpn(depth, width, depthwise=depthwise)
        self.head = YoloxHead(classes, width, depthwise=depthwise)
        for module in self.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 1e-3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x))


def gain(key: str) -> float:
    """Keep activations near 1, from pixels up to 255 on."""
    return 0.01 if ".stem." in key else 1.5 if "_preds." in key else 1.2


def random_weights(shapes: dict[str, list[int]], seed: int) -> dict[str, np.ndarray]:
    """The same weights for the same shapes, whatever the version of numpy."""
    random = np.random.RandomState(seed)
    weights = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            weights[key] = np.zeros(shape, np.int64)
        elif len(shape) == 4:
            weights[key] = random.normal(0, np.prod(shape[1:]) ** -0.5, shape) * gain(key)
        elif key.endswith(("running_var", "bn.weight")):
            weights[key] = random.uniform(0.5, 1.5, shape)
        else:
            weights[key] = random.normal(0, 0.1, shape)
    return {k: v if v.dtype == np.int64 else v.astype(np.float32) for k, v in weights.items()}


def network(case: tuple[float, float, bool, int], seed: int) -> tuple[Reference, dict]:
    model = Reference(*case).eval()
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    weights = random_weights(shapes, seed)
    model.load_state_dict({key: torch.from_numpy(np.array(v)) for key, v in weights.items()})
    return model, shapes


def main() -> None:
    kept: dict[str, np.ndarray] = {}
    for seed, (name, case) in enumerate(CASES.items()):
        model, shapes = network(case, seed)
        random = np.random.RandomState(seed)
        images = random.randint(0, 256, (2, HEIGHT, WIDTH, 3)).astype(np.uint8)
        with torch.no_grad():
            output = model(torch.from_numpy(images).permute(0, 3, 1, 2).float())
        kept[f"{name}/shapes"] = np.array(json.dumps(shapes))
        kept[f"{name}/output"] = output.numpy()
    model = Reference(*CASES["nano"]).eval()
    model.load_state_dict(torch.load(SAMPLES / "model.pt", weights_only=True)["model"])
    for path in sorted((SAMPLES / "coco-mini/images/val").iterdir())[:8]:
        image, ratio = preproc(cv2.imread(str(path)), (416, 416))
        with torch.no_grad():
            output = model(torch.from_numpy(image)[None])
        found = postprocess(output, 80, 0.25, 0.65)[0]
        rows = np.zeros((0, 7), np.float32) if found is None else found.numpy()
        rows[:, :4] /= ratio
        kept[f"image/{path.name}"] = rows
    np.savez_compressed(HERE / "yolox_reference.npz", **kept)


if __name__ == "__main__":
    main()
