"""`rtcore-top`: look at a live run of this machine from another terminal, without touching it."""

from __future__ import annotations

import os
import sys

_NICENESS = 19


def main(arguments: list[str] | None = None) -> None:
    """Program entry; see the help text for exit codes."""
    # Whoever looks on takes the CPU last, from its first import on: the run's processes must not wait for it.
    os.nice(_NICENESS)
    from rtcore.cli.endings import end_program  # noqa: PLC0415 - NumPy and Rich are most of the CPU time that this takes
    from rtcore.cli.topview import run  # noqa: PLC0415

    end_program("rtcore-top", lambda: run(sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    main()
