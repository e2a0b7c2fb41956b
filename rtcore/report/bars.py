"""What a program shows while it works. It is never a reason for the work to fail."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress, ProgressColumn  # noqa: TID251
from rich.status import Status  # noqa: TID251


class Bar(Progress):
    """Rich's, drawn by a thread, on a terminal only.

    Where that thread cannot be started, as the limit of processes counts threads, too, there is no bar, and the work
    goes on.
    """

    def __init__(self, *columns: ProgressColumn, console: Console, transient: bool = True) -> None:
        """`transient`: it is gone when it is over."""
        super().__init__(*columns, console=console, transient=transient, disable=not console.is_terminal)

    def start(self) -> None:
        try:
            super().start()
        except RuntimeError:
            self.live.stop()
            self.disable = True


class Busy(Status):
    """Rich's: what is done now, while nobody knows for how long. As `Bar` where no thread can be started."""

    def start(self) -> None:
        try:
            super().start()
        except RuntimeError:
            self.stop()
