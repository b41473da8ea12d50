"""Arithmetic on boxes, float [n, 4], xyxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def paired_iou(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    crowd: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Return the intersection over union of boxes, row by row.

    Args:
        first: float [n, 4], xyxy.
        second: float [n, 4], xyxy.
        crowd: bool [n]; where it is set the union is the first box alone, as COCO has it.

    Returns:
        float64 [n], 0 to 1.
    """
    left, top, right, bottom = first.astype(np.float64, copy=False).T
    left2, top2, right2, bottom2 = second.astype(np.float64, copy=False).T
    width = np.minimum(right, right2) - np.maximum(left, left2)
    height = np.minimum(bottom, bottom2) - np.maximum(top, top2)
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    union = (right - left) * (bottom - top)
    rest = (right2 - left2) * (bottom2 - top2) - shared
    union += rest if crowd is None else np.where(crowd, 0, rest)
    iou: NDArray[np.float64] = np.zeros_like(shared)
    np.divide(shared, union, out=iou, where=shared > 0)
    return iou
