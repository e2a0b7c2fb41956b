"""What all parts of a video are drawn with: fonts and colours."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from PIL import ImageFont

GROUND = "#16181D"
TEXT = "#E8EAED"
DIM = "#8A9099"
#: Buttons, cells and bars that nothing lights.
UNLIT = "#333842"


@cache
def font(size: int, *, bold: bool = False) -> Any:
    """A font in which all characters are equally wide, `size` pixels high."""
    import matplotlib  # noqa: PLC0415 - takes a while to import; it brings the font

    name = f"DejaVuSansMono{'-Bold' if bold else ''}.ttf"
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def cut(text: str, num_characters: int) -> str:
    """`text`, or its beginning and an ellipsis."""
    return text if len(text) <= num_characters else text[: num_characters - 1] + "…"


def quantity(value: float) -> str:
    """A number in few characters."""
    return f"{value:.5g}"
