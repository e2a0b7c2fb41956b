"""`rtcore-top`: look at a live run of this machine from another terminal, without touching it."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

_NICENESS = 19


def main(arguments: list[str] | None = None) -> None:
    """Program entry; see the help text for exit codes."""
    # Whoever looks on takes the CPU last, from its first import on: the run's processes must not wait for it.
    os.nice(_NICENESS)
    signal.signal(signal.SIGTERM, _terminate)
    # What reads us has seen enough (`| head`): end as other programs do. There is nothing to clean up.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        from rtcore.cli.topview import run  # noqa: PLC0415 - NumPy and Rich are most of the CPU time that this takes

        exitcode = run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        exitcode = 0
    raise SystemExit(exitcode)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    main()
