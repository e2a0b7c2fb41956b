"""What a container costs a run: the same command outside and inside, with and without realtime rights, in turns.

    python -m benchmarks.container [--image rtcore:cpu] [--engine podman] [--rounds 5] [--duration 20]
                                   [--flags='--ulimit=nofile=4096:4096'] [--rights='--cap-add=SYS_NICE ...']

Needs an image (`make image`) and this environment beside it. Each round runs every setting once; the table has the
medians over the rounds. Said are the run's own start-up, the time of the whole command beyond the run's duration (the
container's start and end included), how late ticks were, and which rights the env process was granted. Outside runs as
whoever starts this program, inside as the image's user.

Where root may not raise limits (a virtual machine without CAP_SYS_RESOURCE) pass lower ones by --flags. Where the
kernel schedules realtime groups (control groups v1), containers need a budget: first write one to cpu.rt_runtime_us of
the engine's own group, such as /sys/fs/cgroup/cpu/libpod_parent, then --rights='... --cpu-rt-runtime=200000'.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from rtcore.clock import MonotonicClock
from rtcore.host.conditions import HostWatch, conditions_text

_RUN = ["--policy", "synthetic", "--policy-args", "latency_ms=30", "--workers", "3"]
_FOLDER = "run"


def main() -> None:
    options = _options()
    inside = [options.engine, "run", "--rm", "--init", "--shm-size=1g", *shlex.split(options.flags)]
    settings = {
        "outside": None,
        "inside": inside,
        "inside, with rights": [*inside, *shlex.split(options.rights)],
    }
    watch = HostWatch()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in settings}
    rounds = [item for _ in range(options.rounds) for item in settings.items()]
    for name, engine in track(rounds, "runs", transient=True):
        found[name].append(_measure(engine, options))
    console = Console()
    console.print(_table(found, options))
    size = subprocess.run(
        [options.engine, "image", "inspect", "--format", "{{.Size}}", options.image],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    console.print(f"{options.image}: {int(size) / 1e9:.2f} GB", highlight=False)
    console.print(conditions_text(watch.conditions()), markup=False, highlight=False)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="rtcore:cpu")
    parser.add_argument("--engine", default="docker", help="docker or podman [%(default)s]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=float, default=20.0, help="of each run [s]")
    parser.add_argument("--flags", default="", help="of every container")
    parser.add_argument(
        "--rights",
        default="--cap-add=SYS_NICE --cap-add=IPC_LOCK --ulimit=rtprio=20 --ulimit=memlock=-1",
        help="of the containers with rights [%(default)s]",
    )
    return parser.parse_args()


def _measure(engine: list[str] | None, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="rtcore-container-") as name:
        folder = Path(name)
        folder.chmod(0o777)  # the image's user writes there
        if engine is None:
            command = [sys.executable, "-m", "rtcore.cli.run", *_RUN, "--out", str(folder / _FOLDER)]
        else:
            command = [*engine, f"--volume={folder}:/work", options.image, *_RUN, "--out", _FOLDER]
        begin_ns = MonotonicClock.now_ns()
        done = subprocess.run(
            [*command, "--duration", str(options.duration)], capture_output=True, text=True, check=False
        )
        whole_s = (MonotonicClock.now_ns() - begin_ns) / 1e9
        if done.returncode != 0:
            sys.exit(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        summary = json.loads((folder / _FOLDER / "summary.json").read_text())
    realtime = summary["environment"]["realtime"]
    return {
        "around_s": whole_s - options.duration,
        "startup_s": summary["startup_s"],
        "missed": summary["ticks"]["kinds"]["missed"],
        "granted": ", ".join(right for right, answer in realtime.items() if answer == "granted"),
    } | {f"late_{key}": summary["ticks"]["lateness_us"][key] for key in ("p50", "p99", "max")}


def _table(found: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> Table:
    table = Table(title=f"Medians of {options.rounds} runs of {options.duration:g} s each")
    columns = ("", "start-up, s", "command less duration, s", "late p50, us", "p99", "max", "missed", "granted")
    for heading in columns:
        table.add_column(heading, justify="left" if heading in {"", "granted"} else "right")
    for name, runs in found.items():
        keys = ("startup_s", "around_s", "late_p50", "late_p99", "late_max", "missed")
        cells = [f"{median(run[key] for run in runs):,.1f}" for key in keys]
        table.add_row(name, *cells, "; ".join(sorted({run["granted"] for run in runs})))
    return table


if __name__ == "__main__":
    main()
