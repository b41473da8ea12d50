"""Draws detections on images."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from raudo.records import Detections

Colour = tuple[int, int, int]

_FONT = cv2.FONT_HERSHEY_DUPLEX
_GOLDEN_ANGLE = 137.50776405
_NAME_LENGTH = 48
_PANEL_SIDE = 720
_GAP = 12
_BACKGROUND: Colour = (38, 28, 22)
_INK: Colour = (245, 240, 236)


def draw(
    image: NDArray[np.uint8], detections: Detections, classes: Sequence[str]
) -> NDArray[np.uint8]:
    """Return a copy of an image with boxes and labels on it, the best score on top.

    Args:
        image: uint8 [height, width, 3], BGR.
        detections: What was found, in pixels of this image.
        classes: Names by label.

    Returns:
        uint8 [height, width, 3], BGR.
    """
    canvas = np.ascontiguousarray(image).copy()
    height, width = canvas.shape[:2]
    unit = max(height, width) / 640
    limits = np.array([width, height, width, height], np.float32)
    corners = np.clip(np.nan_to_num(detections.boxes), 0, limits - 1).round().astype(int)
    worst_first = range(len(detections) - 1, -1, -1)
    for index in worst_first:
        tint = colour(int(detections.labels[index]))
        left, top, right, bottom = corners[index].tolist()
        cv2.rectangle(canvas, (left, top), (right, bottom), tint, max(1, round(1.8 * unit)))
    for index in worst_first:  # labels last: no box crosses one out
        label = int(detections.labels[index])
        name = plain_text(classes[label]) if label < len(classes) else f"class {label}"
        corner = corners[index, :2].tolist()
        _label(canvas, corner, f"{name} {detections.scores[index]:.2f}", colour(label), unit)
    return canvas


def _label(
    canvas: NDArray[np.uint8], corner: Sequence[int], text: str, tint: Colour, unit: float
) -> None:
    left, top = corner
    scale = max(0.35, 0.42 * unit)
    stroke = max(1, round(0.7 * unit))
    (width, height), descent = cv2.getTextSize(text, _FONT, scale, stroke)
    pad = max(2, round(3 * unit))
    tall = height + descent + pad
    # Above the box where there is room, else inside it; and never past the image's right edge.
    low = top if top >= tall else min(top + tall, canvas.shape[0])
    start = max(0, min(left, canvas.shape[1] - width - 2 * pad))
    cv2.rectangle(canvas, (start, low - tall), (start + width + 2 * pad, low), tint, cv2.FILLED)
    at = (start + pad, low - descent - pad // 2)
    cv2.putText(canvas, text, at, _FONT, scale, ink_on(tint), stroke, cv2.LINE_AA)


@cache
def colour(label: int) -> Colour:
    """Return the BGR colour of a class: always the same, and far from its neighbours' hues."""
    hue = (200 + label * _GOLDEN_ANGLE) % 360
    saturation, value = ((200, 255), (255, 225), (150, 255))[label // 8 % 3]
    pixel = np.array([[[round(hue / 2) % 180, saturation, value]]], np.uint8)
    blue, green, red = cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return blue, green, red


def ink_on(background: Colour) -> Colour:
    """Return black or white, whichever contrasts more (WCAG 2.1 relative luminance)."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (channel / 255 for channel in background)
    ]
    luminance = 0.0722 * linear[0] + 0.7152 * linear[1] + 0.2126 * linear[2]
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


@cache
def plain_text(name: str) -> str:
    """Return a name in printable ASCII, all that OpenCV's fonts have; accents are dropped."""
    folded = unicodedata.normalize("NFKD", name)
    bare = "".join(c for c in folded if not unicodedata.combining(c))
    safe = "".join(c if " " <= c <= "~" else "?" for c in bare)
    return safe if len(safe) <= _NAME_LENGTH else safe[: _NAME_LENGTH - 3] + "..."


def side_by_side(
    image: NDArray[np.uint8],
    left: Detections,
    right: Detections,
    titles: tuple[str, str],
    classes: Sequence[str],
) -> NDArray[np.uint8]:
    """Return one picture of the same image as two engines see it.

    Args:
        image: uint8 [height, width, 3], BGR.
        left: What the first engine found, in pixels of the image.
        right: What the second engine found.
        titles: What to write above each half.
        classes: Names by label.

    Returns:
        uint8 [h, w, 3], BGR; each half is scaled so that its longer side is 720 pixels.
    """
    height, width = image.shape[:2]
    scale = _PANEL_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)
    panels = [
        _titled(draw(scaled, _scaled(found, scale), classes), f"{title}: {len(found)} found")
        for found, title in zip((left, right), titles, strict=True)
    ]
    gap = np.full((panels[0].shape[0], _GAP, 3), _BACKGROUND, np.uint8)
    return np.hstack([panels[0], gap, panels[1]])


def _scaled(detections: Detections, scale: float) -> Detections:
    return replace(detections, boxes=(detections.boxes * scale).astype(np.float32))


def _titled(panel: NDArray[np.uint8], title: str) -> NDArray[np.uint8]:
    bar = np.full((40, panel.shape[1], 3), _BACKGROUND, np.uint8)
    cv2.putText(bar, plain_text(title), (8, 26), _FONT, 0.6, _INK, 1, cv2.LINE_AA)
    return np.vstack([bar, panel])
