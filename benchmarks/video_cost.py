"""What drawing a video costs: frames per second of CPU, and bytes per minute of video.

    python -m benchmarks.video_cost [--seconds 60] [RUN ...]

Of recorded runs (their folders); without any, of runs on the virtual clock of the built-in game (grey, 84x84), of
HalfCheetah (17 numbers as bars) and, where ale-py is installed, of Boxing (RGB, 210x160).
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rtcore.config.run import make_config
from rtcore.host.conditions import HostWatch, conditions_text
from rtcore.recording.reader import Recording
from rtcore.report.video.film import write_video
from rtcore.virtual.simulate import Simulation

CASES: dict[str, dict[str, Any]] = {
    "Blocks, 60 Hz": {"policy": "trained", "latency": "constant:100", "workers": 7},
    "HalfCheetah, 20 Hz": {"env_id": "HalfCheetah-v5", "policy": "random", "latency": "constant:100", "workers": 2},
    "Boxing, 60 Hz": {"env_id": "ALE/Boxing-v5", "fps": 60, "policy": "random", "latency": "constant:100"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    watch = HostWatch()
    table = Table("recording", "size", "frames", "frames per CPU s", "per s", "MB per minute", "of the recording")
    for run in options.runs:
        table.add_row(str(run), *measure(run))
    for name, fields in CASES.items() if not options.runs else ():
        if fields.get("env_id", "").startswith("ALE/") and importlib.util.find_spec("ale_py") is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            config = make_config(**fields, clock="virtual", duration=options.seconds, record=True, out=Path(folder))
            simulation = Simulation(config)
            try:
                simulation.run()
            finally:
                simulation.close()
            table.add_row(name, *measure(Path(folder)))
    Console(width=140).print(table)
    Console(width=140).print(conditions_text(watch.conditions()))


def measure(run: Path) -> list[str]:
    """One video, as a row of the table."""
    with tempfile.TemporaryDirectory() as folder, Recording(run) as recording:
        start_s, cpu_s = time.perf_counter(), time.process_time()
        film = write_video(recording, Path(folder) / "video.mp4")
        wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
        minutes = film.frames / float(recording.rate_hz) / 60
        return [
            f"{film.width}x{film.height}",
            f"{film.frames:,}",
            f"{film.frames / cpu_s:.0f}",
            f"{film.frames / wall_s:.0f}",
            f"{film.bytes / minutes / 1e6:.1f}",
            f"{recording.path.stat().st_size / minutes / 1e6:.1f}",
        ]


if __name__ == "__main__":
    main()
