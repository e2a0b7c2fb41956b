"""The console of rtcore's programs: what files, worlds and other processes say is shown, never obeyed."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from rtcore.errors import printable

if TYPE_CHECKING:
    from rtcore.report.bars import Busy

_PIPE_WIDTH = 160
_NO_LIMIT = 10_000
#: A fact begins with its label: "plan      7 workers, ...".
LABEL_CELLS = 10


class Terminal(Console):
    """Rich's console, but control characters in texts are escaped, wherever they come from. Its own are kept."""

    def __init__(self, **settings: Any) -> None:
        """`settings` as of Rich's. A pipe has no width: lines for it are wide, unless COLUMNS says otherwise."""
        super().__init__(**settings)
        if not self.is_terminal and "width" not in settings and "COLUMNS" not in os.environ:
            self.width = _PIPE_WIDTH

    def print(self, *objects: Any, **settings: Any) -> None:
        """As Rich's, but nothing is cut off at the edge: the terminal breaks lines that are too long for it.

        With `soft_wrap` a pipe gets a line whole, and so does a terminal, unless it is a fact with its label: that goes
        on below its own text. Files and pipes get no blanks at the end of a line.
        """
        if settings.get("soft_wrap") and self.is_terminal:
            objects = tuple(_below_label(one, self.width) if isinstance(one, str) else one for one in objects)
        settings = {"crop": False} | settings
        if self.is_terminal:
            super().print(*objects, **settings)
            return
        with self.capture() as captured:
            super().print(*objects, **settings)
        self.file.write(re.sub(r" +\n", "\n", captured.get()))
        self.file.flush()

    def status(self, status: RenderableType, **settings: Any) -> Busy:
        """As Rich's, but no reason to fail where no thread can be started that draws it."""
        from rtcore.report.bars import Busy  # noqa: PLC0415 - most programs have none

        return Busy(status, console=self, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """As Rich's, which calls it for lines and for a table's cells: those are measured as they will be shown."""
        return super().render_str(printable(text), **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As Rich's, which calls it for each part of a whole. A table is as wide as its longest words: none is cut."""
        if isinstance(renderable, Table):
            given = options or self.options
            unlimited = given.update(width=_NO_LIMIT)
            # Rich counts the longest word of a column, of one that it may not wrap as well.
            for column in (column for column in renderable.columns if column.no_wrap):
                cells = (column.header, *column.cells, column.footer)
                column.min_width = max(Measurement.get(self, unlimited, cell).maximum for cell in cells)
            needed = Measurement.get(self, unlimited, renderable).minimum
            options = given.update(width=max(given.max_width, needed))
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)


def print_line(console: Console, text: str) -> None:
    """A line of a program, above the live area if there is one. Any thread may call it."""
    # A terminal's lines end between words; what names a file is left whole, to be copied.
    whole = not console.is_terminal
    text = encodable(text, console.encoding)
    console.print(text, markup=False, highlight=False, soft_wrap=whole, overflow="ignore", crop=False)


def encodable(text: str, encoding: str) -> str:
    """The text with "?" for what a terminal of this encoding cannot show."""
    return text if text.isascii() else text.encode(encoding, "replace").decode(encoding)


def _below_label(line: str, width: int) -> str:
    """A line that is broken between words, all after its label."""
    label, text = line[:LABEL_CELLS], line[LABEL_CELLS:]
    if len(line) <= width or not label.endswith("  ") or "\n" in text:
        return line
    room = max(1, width - LABEL_CELLS)
    return label + ("\n" + " " * LABEL_CELLS).join(
        textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
    )
