"""An image in a terminal: two pixels a cell, one above the other. Pure.

Without colours a cell is one of five shades, for a dark ground.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TypeAlias

import numpy as np

from rtcore.spaces.image import Image

Line: TypeAlias = list[tuple[str, str]]  #: (text, style) from left to right

_UPPER_HALF = "▀"
_SHADES = " ░▒▓█"
#: Of a pixel's 8 bits: fewer colours make longer pieces of one style, and so fewer bytes for a slow connection.
_LEVEL_BITS = 4
_LEVELS = [f"{level * 0x11:02x}" for level in range(1 << _LEVEL_BITS)]


def half_blocks(image: Image, columns: int, rows: int, *, colours: bool) -> list[Line]:
    """At most `rows` lines, all of the same number of cells, at most `columns`; the image keeps its proportions.

    The image is scaled up by whole numbers only.
    """
    small = _scaled(image, columns, 2 * rows)
    pairs = small.reshape(small.shape[0] // 2, 2, *small.shape[1:])
    if not colours:
        lightness = pairs.mean(axis=(1, 3)) / 256
        return [[("".join(_SHADES[int(value * len(_SHADES))] for value in line), "")] for line in lightness]
    levels = pairs >> (8 - _LEVEL_BITS)
    return [_coloured(upper, lower) for upper, lower in levels]


def _scaled(image: Image, width: int, height: int) -> Image:
    """(even height, width, 3), as large as fits."""
    from PIL.Image import Resampling, fromarray  # noqa: PLC0415 - for runs that show their world

    scale = min(width / image.shape[1], height / image.shape[0])
    scale = scale if scale < 1 else int(scale)
    size = (max(1, int(image.shape[1] * scale)), max(2, (int(image.shape[0] * scale) + 1) // 2 * 2))
    rgb = np.broadcast_to(image, (*image.shape[:2], 3))
    return np.asarray(fromarray(np.ascontiguousarray(rgb)).resize(size, Resampling.BOX))


def _coloured(upper: Image, lower: Image) -> Line:
    """One line of cells; neighbours that look alike are one piece. `upper`, `lower`: (width, 3) levels."""
    both = np.concatenate([upper, lower], axis=1)
    begins = [0, *(np.flatnonzero((both[1:] != both[:-1]).any(axis=1)) + 1).tolist(), len(both)]
    line: Line = []
    for begin, end in pairwise(begins):
        over, under = _colour(upper[begin]), _colour(lower[begin])
        glyph, style = (" ", f"on {under}") if over == under else (_UPPER_HALF, f"{over} on {under}")
        line.append((glyph * (end - begin), style))
    return line


def _colour(levels: Image) -> str:
    return f"#{''.join(_LEVELS[level] for level in levels.tolist())}"
