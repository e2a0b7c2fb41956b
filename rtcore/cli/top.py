"""`rtcore-top`: look at a live run of this machine from another terminal, without touching it."""

from __future__ import annotations

import os
import sys

#: After the run's processes, but not after everybody for ever: with 19, `--list` took 100 s on 2 CPUs at load 9.
_NICENESS = 5


def main(arguments: list[str] | None = None) -> None:
    """Program entry; see the help text for exit codes."""
    # From its first import on, which is most of what it costs.
    os.nice(_NICENESS)
    from rtcore.cli.exits import end_program  # noqa: PLC0415 - NumPy and Rich are most of the CPU time that this takes
    from rtcore.cli.topview import run  # noqa: PLC0415

    end_program("rtcore-top", lambda: run(sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    main()
