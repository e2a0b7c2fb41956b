"""Whether a long run is a short one many times: memory, descriptors and files of every process, over its ticks.

    python -m benchmarks.long_run --ticks 1000000 --fps 1000 --record --trace --learn

Starts `rtcore-run` and looks at all of its processes every so many ticks. Prints a line a process and look: its share
of anonymous memory (what it allocated: files it maps and shared memory are left out, as others come to share them or
not), its share of all memory (PSS), resident (RSS), open descriptors, threads. Then for each process the line that fits
its anonymous memory best over the looks of the second half, in MB per million ticks, and the most of it once the ticks
were over and files were made. Valid on any machine, however busy: nothing here is a duration.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from rtcore.errors import RtcoreError
from rtcore.watch.attached import AttachedRun
from rtcore.watch.visible import find_run


class Use(NamedTuple):
    """Of a process, at a tick."""

    tick: int
    allocated_mb: float
    share_mb: float
    resident_mb: float
    descriptors: int
    threads: int


class Looks:
    """What was seen of a run: every process's use, and the most that it had allocated since the last look."""

    def __init__(self, pid: int) -> None:
        self._program = psutil.Process(pid)
        self.uses: dict[str, list[Use]] = {}
        self.highest_mb: dict[str, float] = {}

    def look(self, tick: int) -> None:
        """Every process as it is now."""
        for name, use in self._now(tick):
            self.uses.setdefault(name, []).append(use)
            print(f"{name:12} {tick:8}", *(f"{value:7.1f}" for value in use[1:4]), *use[4:], flush=True)

    def watch_end(self) -> None:
        """The most that each process has allocated until the program is over."""
        while self._program.is_running() and self._program.status() != psutil.STATUS_ZOMBIE:
            for name, use in self._now(0):
                self.highest_mb[name] = max(use.allocated_mb, self.highest_mb.get(name, 0.0))
            time.sleep(0.2)

    def _now(self, tick: int) -> Iterator[tuple[str, Use]]:
        try:
            processes = [self._program, *self._program.children(recursive=True)]
        except psutil.Error:
            return
        for process in processes:
            try:
                sizes, name = memory_mb(process.pid), self._name(process)
                yield name, Use(tick, *sizes, process.num_fds(), process.num_threads())
            except (psutil.Error, OSError):
                continue  # it ended while it was looked at

    def _name(self, process: psutil.Process) -> str:
        """Its role; a process without a name of rtcore's is the program or the fork server."""
        name = process.name()
        if name.startswith("rt-"):
            return name
        if process.pid == self._program.pid:
            return "program"
        return "fork server" if "rtcore.processes.forkserver" in process.cmdline() else f"other {name}"


def memory_mb(pid: int) -> tuple[float, float, float]:
    """Its share of anonymous memory, of all memory, and what is resident. OSError if there is no such process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return kib["Pss_Anon"] * 1024 / 1e6, kib["Pss"] * 1024 / 1e6, kib["Rss"] * 1024 / 1e6


def tick_of(pid: int) -> int:
    """Ticks of the run that this program is doing; -1 while or once there is none."""
    try:
        with AttachedRun.attach(find_run(f"{pid}-")) as run:
            return run.stats().counters["ticks"] if run.has_begun else -1
    except RtcoreError:
        return -1


def measure(command: list[str], ticks: int, every: int) -> Looks:
    """Runs it and looks at it about every `every` ticks."""
    program = subprocess.Popen(command)
    looks, following = Looks(program.pid), every
    while program.poll() is None and following < ticks:
        tick = tick_of(program.pid)
        if tick >= following:
            looks.look(tick)
            following = tick - tick % every + every
        time.sleep(0.2)
    looks.watch_end()
    program.wait()
    print(f"exit code {program.returncode}")
    return looks


def print_growth(looks: Looks) -> None:
    """What each process's memory does over the second half of the run."""
    print("allocated [MB]: begin, end, slope per 1e6 ticks of the second half; descriptors; most after the ticks")
    for name, uses in looks.uses.items():
        late = uses[len(uses) // 2 :]
        if len(late) < 3:
            continue
        slope = np.polyfit([use.tick / 1e6 for use in late], [use.allocated_mb for use in late], 1)[0]
        ends = f"{uses[0].allocated_mb:8.2f} {uses[-1].allocated_mb:8.2f} {slope:8.2f}"
        print(f"{name:12} {ends}  {uses[0].descriptors} {uses[-1].descriptors}  {looks.highest_mb.get(name, 0):8.1f}")


def print_files(folder: Path) -> None:
    """How many files of which kind the run has left, and how large."""
    kinds: dict[str, list[int]] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            kinds.setdefault(path.suffix or path.name, []).append(path.stat().st_size)
    for kind, sizes in sorted(kinds.items()):
        print(f"{kind:20} {len(sizes):3} files {sum(sizes) / 1e6:9.1f} MB")
    print("books", json.loads((folder / "summary.json").read_text())["books"]["reasons"])


def main() -> None:
    """Program entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=1_000_000)
    parser.add_argument("--every", type=int, default=50_000, help="ticks between two looks [50000]")
    parser.add_argument("--fps", type=int, default=1000)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--learn", action="store_true", help="with checkpoints and TensorBoard events")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        run = [sys.executable, "-m", "rtcore.cli.run", "--env-id", "CartPole-v1", "--policy", "mlp", "--workers", "2"]
        run += ["--fps", str(options.fps), "--ticks", str(options.ticks), "--on-missing", "repeat", "--no-live"]
        run += ["--out", str(folder)]
        run += [f"--{name}" for name in ("record", "trace") if getattr(options, name)]
        run += ["--learn", "dqn", "--checkpoint-every-s", "20"] if options.learn else []
        looks = measure(run, options.ticks, options.every)
        print_growth(looks)
        print_files(folder)


if __name__ == "__main__":
    main()
