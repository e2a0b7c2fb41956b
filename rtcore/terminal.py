"""The console of rtcore's programs: what files, worlds and other processes say is shown, never obeyed."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from rtcore.errors import printable


class Terminal(Console):
    """Rich's console, but control characters in texts are escaped, wherever they come from. Its own are kept."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As Rich's, which calls it for each part of a whole."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)
