"""Input rectangles that fit the user's images better than the model's own.

A square letterbox around 16:9 computes a third of padding. But the rim does something, too: with
none at all, objects at the edge of the image are found less well, so each rectangle is proposed
both tight and with a rim of half a stride on each side, and validation decides.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from raudo.images import fit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from raudo.records import Spec

Size = tuple[int, int]
"""Height and width in pixels."""

STRIDE = 32
MOST_RECTANGLES = 3
WORTH_WHILE = 0.95
"""A rectangle with more than this share of the model's own area is not worth a try."""


def propose(sizes: Iterable[Size], spec: Spec) -> tuple[Size, ...]:
    """Return rectangles that hold all images at the scale that the model's own size gives them.

    Args:
        sizes: (height, width) of the images.
        spec: The model's spec at its own size.

    Returns:
        (height, width) pairs, smallest area first; empty if none is worth while.
    """
    shapes = set(sizes)
    if not shapes or spec.letterbox.placement == "stretch":
        return ()
    own = spec.height * spec.width
    found = set()
    for rim in (0, STRIDE):
        holding = [_holding(height, width, rim, spec) for height, width in shapes]
        found.add((max(h for h, _ in holding), max(w for _, w in holding)))
    worth = [size for size in found if size[0] * size[1] <= WORTH_WHILE * own]
    return tuple(sorted(worth, key=lambda size: size[0] * size[1]))


def propose_mixed(sizes: Iterable[Size], spec: Spec) -> tuple[tuple[Size, ...], ...]:
    """Return sets of rectangles for images of several shapes, of which each takes the smallest.

    Args:
        sizes: (height, width) of each image, so that what is frequent counts more.
        spec: The model's spec at its own size, which stays for what no rectangle holds.

    Returns:
        The set without a rim and the set with one, the fewest (height, width) that pay; none
        where no set is worth while beside the smallest single rectangle.
    """
    images = list(sizes)
    if not images or spec.letterbox.placement == "stretch":
        return ()
    singles = propose(images, spec)
    single = singles[0][0] * singles[0][1] if singles else spec.height * spec.width
    found = []
    for rim in (0, STRIDE):
        holding = Counter(_holding(height, width, rim, spec) for height, width in images)
        chosen = _few(holding, spec)
        if _mean_area(chosen, holding, spec) <= WORTH_WHILE * single:
            found.append(chosen)
    return tuple(dict.fromkeys(found))


def _holding(height: int, width: int, rim: int, spec: Spec) -> Size:
    """Return the smallest rectangle that holds an image at its scale, with a rim."""
    placed = fit(height, width, spec)
    return (
        min(_side(height, placed.height + rim, placed.scale_y), spec.height),
        min(_side(width, placed.width + rim, placed.scale_x), spec.width),
    )


def _few(holding: Counter[Size], spec: Spec) -> tuple[Size, ...]:
    """Add the rectangle that saves most, as long as one more pays."""
    few: tuple[Size, ...] = ()
    while len(few) < MOST_RECTANGLES:
        more = [(*few, size) for size in sorted(holding)]
        best = min(more, key=lambda some: _mean_area(some, holding, spec))
        area = _mean_area(best, holding, spec)
        if area > WORTH_WHILE * _mean_area(few, holding, spec):
            break
        few = best
    return few


def _mean_area(rectangles: Sequence[Size], holding: Counter[Size], spec: Spec) -> float:
    """Return the mean area of the rectangles that images take: the smallest that holds each."""
    total = 0
    for (height, width), images in holding.items():
        areas = [h * w for h, w in rectangles if h >= height and w >= width]
        total += images * min(areas, default=spec.height * spec.width)
    return total / max(1, holding.total())


def _side(length: int, wanted: int, scale: float) -> int:
    """Round up to whole strides of the coarsest feature map, and so far that the scale stays.

    Args:
        length: The image's side.
        wanted: The side that it should have room on; scaled sides were rounded, maybe down.
        scale: The scale that it should keep.
    """
    side = -(-wanted // STRIDE) * STRIDE
    return side if side / length >= scale else side + STRIDE
