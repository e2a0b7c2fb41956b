"""`python -m rtcore.cli.mend RUN`: what a killed recorder left, as a file like others (`rtcore.recording.mending`)."""

from __future__ import annotations

import argparse
from pathlib import Path

from rtcore.cli.exits import end_program


def main() -> None:
    """Program entry; exits 0, 1 if the disk refuses, 2 if there is nothing to mend."""
    parser = argparse.ArgumentParser(
        prog="python -m rtcore.cli.mend",
        description="Make what a killed recorder left a file like others, and its view for Minari.",
    )
    parser.add_argument("run", type=Path, help="ticks.hdf5, its folder, or that of its run; the run must be over")
    end_program(parser.prog, lambda: _do(parser.parse_args().run))


def _do(path: Path) -> int:
    from rtcore.recording.mending import mend  # noqa: PLC0415 - which its help text needs not

    num_ticks, num_episodes = mend(path)
    print(f"mended: {num_ticks:,} ticks, {num_episodes:,} episodes")
    return 0


if __name__ == "__main__":
    main()
