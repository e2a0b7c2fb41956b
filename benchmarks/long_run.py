"""Whether a long run is a short one many times: memory, descriptors and files of every process, over its ticks.

    python -m benchmarks.long_run --ticks 1000000 --fps 1000 --record --trace --learn

Starts `rtcore-run` and looks at all of its processes every so many ticks. Prints a line a process and look: memory of
its own (USS), its share of all memory (PSS), resident (RSS), open descriptors, threads; and for each process the line
that fits its own memory best over the looks of the second half, in MB per million ticks. After the run: how much the
largest of them needed while the files were made. Valid on any machine, however busy: nothing here is a duration.
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
from rtcore.watch.onlooker import Onlooker
from rtcore.watch.visible import find_run


class Use(NamedTuple):
    """Of a process, at a tick."""

    tick: int
    own_mb: float
    share_mb: float
    resident_mb: float
    descriptors: int
    threads: int


class Looks:
    """What was seen of a run: every process's use, and the highest own memory since its last tick."""

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
        """The highest own memory of each process until the program is over."""
        while self._program.is_running() and self._program.status() != psutil.STATUS_ZOMBIE:
            for name, use in self._now(0):
                self.highest_mb[name] = max(use.own_mb, self.highest_mb.get(name, 0.0))
            time.sleep(0.2)

    def _now(self, tick: int) -> Iterator[tuple[str, Use]]:
        try:
            processes = [self._program, *self._program.children(recursive=True)]
        except psutil.Error:
            return
        for process in processes:
            try:
                memory, name = process.memory_full_info(), self._name(process)
                sizes = (memory.uss / 1e6, memory.pss / 1e6, memory.rss / 1e6)
                yield name, Use(tick, *sizes, process.num_fds(), process.num_threads())
            except psutil.Error:
                continue  # it ended while it was looked at

    def _name(self, process: psutil.Process) -> str:
        """Its role; a process without a name of rtcore's is the program or the fork server."""
        name = process.name()
        if name.startswith("rt-"):
            return name
        return "program" if process.pid == self._program.pid else "fork server"


def tick_of(pid: int) -> int:
    """Ticks of the run that this program is doing; -1 while or once there is none."""
    try:
        with Onlooker.attach(find_run(f"{pid}-")) as run:
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
    print("own memory [MB]: begin, end, slope per 1e6 ticks of the second half; descriptors; highest after the ticks")
    for name, uses in looks.uses.items():
        late = uses[len(uses) // 2 :]
        if len(late) < 3:
            continue
        slope = np.polyfit([use.tick / 1e6 for use in late], [use.own_mb for use in late], 1)[0]
        ends = f"{uses[0].own_mb:8.2f} {uses[-1].own_mb:8.2f} {slope:8.2f}"
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
