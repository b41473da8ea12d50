"""Input rectangles that fit the user's images better than the model's own.

A square letterbox around 16:9 computes a third of padding. But the rim does something, too: with
none at all, objects at the edge of the image are found less well, so each rectangle is proposed
both tight and with a rim of half a stride on each side, and validation decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raudo.images import fit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from raudo.records import Spec

STRIDE = 32
WORTH_WHILE = 0.95
"""A rectangle with more than this share of the model's own area is not worth a try."""


def propose(sizes: Iterable[tuple[int, int]], spec: Spec) -> tuple[tuple[int, int], ...]:
    """Return rectangles that hold all images at the scale that the model's own size gives them.

    Args:
        sizes: (height, width) of the images.
        spec: The model's spec at its own size.

    Returns:
        (height, width) pairs, smallest area first; empty if none is worth while.
    """
    placed = [fit(height, width, spec) for height, width in set(sizes)]
    if not placed or spec.letterbox.placement == "stretch":
        return ()
    height, width = max(p.height for p in placed), max(p.width for p in placed)
    own = spec.height * spec.width
    found = {
        (min(_whole(height + rim), spec.height), min(_whole(width + rim), spec.width))
        for rim in (0, STRIDE)
    }
    worth = [size for size in found if size[0] * size[1] <= WORTH_WHILE * own]
    return tuple(sorted(worth, key=lambda size: size[0] * size[1]))


def _whole(side: int) -> int:
    """Round up to whole strides of the coarsest feature map."""
    return -(-side // STRIDE) * STRIDE
