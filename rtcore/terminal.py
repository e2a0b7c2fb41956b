"""The console of rtcore's programs: what files, worlds and other processes say is shown, never obeyed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table

from rtcore.errors import printable

_PIPE_WIDTH = 160
_NO_LIMIT = 10_000


class Terminal(Console):
    """Rich's console, but control characters in texts are escaped, wherever they come from. Its own are kept."""

    def __init__(self, **settings: Any) -> None:
        """`settings` as of Rich's. A pipe has no width: lines for it are wide, unless COLUMNS says otherwise."""
        super().__init__(**settings)
        if not self.is_terminal and "width" not in settings and "COLUMNS" not in os.environ:
            self.width = _PIPE_WIDTH

    def print(self, *objects: Any, **settings: Any) -> None:
        """As Rich's, but nothing is cut off at the edge: the terminal breaks lines that are too long for it."""
        super().print(*objects, **({"crop": False} | settings))

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As Rich's, which calls it for each part of a whole. A table is as wide as its longest words: none is cut."""
        if isinstance(renderable, Table):
            given = options or self.options
            needed = Measurement.get(self, given.update(width=_NO_LIMIT), renderable).minimum
            options = given.update(width=max(given.max_width, needed))
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)
