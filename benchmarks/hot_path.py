"""What the hot path costs: publishing a frame, reading it, and a tick's own bookkeeping; of this checkout and another.

    python -m benchmarks.hot_path --against PATH    PATH: a checkout of an earlier commit

One process for each checkout; they take turns, round by round, so that both meet the same machine. Nothing sleeps: the
loop runs on a clock that is set, over the shared memory of a run, and its worker answers between two timed ticks. A
world's step takes no time in it. Shown are medians of a round: of those the median and the least.

"publish, cold" is timed in the rhythm of a run: the process sleeps, others use the caches, `FrameRing.warm` is called
shortly before the deadline, the header is staged, and the world's step takes half a millisecond.

A tick in which a job carries a context, an answer extras or 4 KB of features, is timed in turns with a tick without,
from which it is subtracted; jobs and answers at the worker are left out. Of a context with a delay of 7 ticks and 7
workers, too, whose answers are there a tick before they are due: then six actions lie between a frame and its own.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

_CHECKOUT = Path(__file__).parents[1]
_TICKS = 2000
_PERIOD_NS = 10_000_000
_ACTION = bytes(8)
_FRAME_BYTES = 84 * 84
#: Publications of a round in the rhythm of a run, and what is touched before each: more than a core's own caches.
_COLD_FRAMES, _TOUCHED_BYTES = 60, 6 << 20
_STEP_NS = 500_000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--against", type=Path, help="another checkout to take turns with")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return
    checkouts = {"this": _CHECKOUT} | ({"against": arguments.against.resolve()} if arguments.against else {})
    show(take_turns(checkouts, arguments.rounds))


def take_turns(checkouts: dict[str, Path], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Medians of each round [ns], by checkout and by what was timed."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in checkouts}
    children = {name: _start(path) for name, path in checkouts.items()}
    try:
        for number in range(rounds):
            for name in sorted(children, reverse=bool(number % 2)):
                for what, took_ns in _ask(children[name]).items():
                    found[name].setdefault(what, []).append(took_ns)
    finally:
        for child in children.values():
            child.stdin.close()  # type: ignore[union-attr]
            child.wait()
    return found


def _start(checkout: Path) -> subprocess.Popen[str]:
    path = os.pathsep.join(str(checkout / folder) for folder in (".", "workers", "envs"))
    # -P: not the folder of this file, which belongs to one of the two checkouts.
    command = [sys.executable, "-P", __file__, "--serve"]
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ask(child: subprocess.Popen[str]) -> dict[str, float]:
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write("round\n")
    child.stdin.flush()
    answer: dict[str, float] = json.loads(child.stdout.readline())
    return answer


def show(found: dict[str, dict[str, list[float]]]) -> None:
    table = Table(
        title=f"CPU time in us, median and least of {len(next(iter(found['this'].values())))} rounds in turns"
    )
    table.add_column("what")
    for name in found:
        table.add_column(name, justify="right")
    if "against" in found:
        table.add_column("this / against", justify="right")
    for what, ours in found["this"].items():
        cells = [
            f"{statistics.median(rounds[what]) / 1e3:.2f}, {min(rounds[what]) / 1e3:.2f}"
            for rounds in found.values()
            if what in rounds
        ]
        if "against" in found and (theirs := found["against"].get(what)) is not None:
            pairs = [one / other for one, other in zip(ours, theirs, strict=True)]
            cells.append(f"{statistics.median(pairs):.3f}, {min(ours) / min(theirs):.3f}")
        table.add_row(what, *cells)
    Console().print(table)


# -- one checkout ------------------------------------------------------------------------------------------------


def serve() -> None:
    """A round for each line that comes in."""
    bench = Bench()
    try:
        for _ in sys.stdin:
            print(json.dumps(bench.round()), flush=True)
    finally:
        bench.close()


def _module(*names: str) -> Any:
    """The first that there is: an earlier commit has its modules elsewhere."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise ModuleNotFoundError(names[0])


class Bench:
    """A run's shared memory with its loop; workers that answer between two ticks."""

    def __init__(self, needs: Any = None, *, workers: int = 1) -> None:
        """`needs`: what the policy takes and gives beside frame and action. `workers`: as many as ticks of delay."""
        layout = _module("rtcore.memory.layout", "rtcore.layout")
        shared_module, shm = (
            _module("rtcore.memory.shared", "rtcore.shared"),
            _module("rtcore.memory.segments", "rtcore.shm"),
        )
        spaces = importlib.import_module("rtcore.spaces")
        self.run_id, self._unlink = shm.new_run_id(), shm.unlink_all
        observation = spaces.ObservationSpec((84, 84), "uint8", (0,), (255,))
        sizes = layout.Layout(
            max_workers=workers,
            ring_slots=64,
            log_slots=256,
            frame_bytes=_FRAME_BYTES,
            action_bytes=len(_ACTION),
            chunk=1,
        )
        self.shared = shared_module.SharedRun.create(self.run_id, sizes, observation)
        for control in self.shared.worker_control:
            control["generation"] = control["up"] = 1
        self.header = getattr(layout, "FRAME_HEADER", None)
        self.is_by_keyword = hasattr(self.header, "new")
        self.entry = layout.SLOT_ENTRY
        self.frame = np.zeros((84, 84), np.uint8)
        self.out = np.zeros((84, 84), np.uint8)
        self._touched = np.zeros(_TOUCHED_BYTES, np.uint8)
        self._carried: dict[str, Any] = {}
        self._payload = b""
        self._workers, self._answered = workers, [0] * workers
        self._carrying: dict[str, tuple[Bench, Bench]] = {}
        if needs is not None:
            action = spaces.ActionSpec((1,), "float64", (-1.0,), (1.0,), "box")
            self.shared.make_payload(needs, action)
            self._carried = {"needs": needs, "action": action}
            self._payload = bytes(needs.payload.nbytes)
        elif workers == 1 and hasattr(spaces, "PolicyNeeds") and hasattr(self.shared, "make_payload"):
            block, needs_of = spaces.Block.of, spaces.PolicyNeeds
            context = needs_of(committed_ticks=32)
            self._carrying = {
                "+ context of 32 ticks": (Bench(context), self),
                "+ the same, delay of 7": (Bench(context, workers=7), Bench(workers=7)),
                "+ extras of 3 numbers": (Bench(needs_of(extras=block("extras", {"logp": (3, "float32")}))), self),
                "+ features of 4 KB": (Bench(needs_of(features=block("features", {"z": (1024, "float32")}))), self),
            }
        self._loop = self._make_loop()

    def extra_ns(self, plain: Bench) -> float:
        """What a tick takes more than in `plain`, which has a turn beside each of this one's."""
        return statistics.median(self.tick() - plain.tick() for _ in range(_TICKS))

    def close(self) -> None:
        for bench in {bench for pair in self._carrying.values() for bench in pair} - {self}:
            bench.close()
        self.shared.close()
        self._unlink(self.run_id)

    def round(self) -> dict[str, float]:
        ring = self.shared.ring
        publish = _timed(lambda header: ring.publish(self.frame, header, _ACTION), self._headers())
        first = ring.sequence.newest() - 40
        seqs = [first + number % 40 for number in range(_TICKS)]
        both = _timed(lambda seq: ring.read_with_header(seq, self.out), seqs)
        frame = _timed(lambda seq: ring.read(seq, self.out), seqs)
        found = {"publish": publish, "publish, cold": self._cold_publish(), "read": frame, "read with header": both}
        found["tick"] = self._ticks()
        return found | {what: bench.extra_ns(plain) for what, (bench, plain) in self._carrying.items()}

    def _cold_publish(self) -> float:
        ring, took = self.shared.ring, []
        for header in self._headers()[:_COLD_FRAMES]:
            time.sleep(0.001)
            self._touched.sum()
            ring.warm()
            if hasattr(ring, "stage"):  # an earlier commit has none
                ring.stage(header)
            step_ends_ns = time.monotonic_ns() + _STEP_NS
            while time.monotonic_ns() < step_ends_ns:
                pass
            # Not CPU time: reading that clock is a system call, which takes longer than this with cold caches.
            start_ns = time.monotonic_ns()
            ring.publish(self.frame, header, _ACTION)
            took.append(time.monotonic_ns() - start_ns)
        return statistics.median(took)

    def _headers(self) -> list[Any]:
        first = self.shared.ring.next_seq
        if self.is_by_keyword:
            return [self.header.new(frame_seq=first + number, tick=number) for number in range(_TICKS)]
        rest = (0,) * (len(self.header.fields) - 2)
        return [(number, *rest) for number in range(_TICKS)]

    def _ticks(self) -> float:
        return statistics.median(self.tick() for _ in range(_TICKS))

    def tick(self) -> int:
        """CPU time of one tick [ns]; workers answer after it."""
        start_ns = time.thread_time_ns()
        self._loop.run_tick()
        took_ns = time.thread_time_ns() - start_ns
        for worker in range(self._workers):
            self._answer(worker)
        return took_ns

    def _answer(self, worker: int) -> None:
        """Its newest job, if that is due at one of the next two ticks."""
        slots, jobs = self.shared.slots, self.shared.jobs
        job_seq = jobs.newest(worker)
        if job_seq == self._answered[worker]:
            return
        job, now_ns = jobs.read(worker), self._clock.now_ns()
        if job.due_tick > self._loop.tick + 2:
            return
        self._answered[worker] = job_seq
        fields = {"job_seq": job_seq, "obs_tick": job.obs_tick, "due_tick": job.due_tick, "episode": 0}
        fields |= {"frame_publish_ns": now_ns, "write_ns": now_ns}
        if self._payload:
            fields |= {"payload": self._payload}
        if self.is_by_keyword:
            slots.write(worker, self.entry.new(entry_seq=slots.newest(worker) + 1, actions=_ACTION, **fields))
        else:
            slots.write(worker, tuple(fields.get(name, 0) for name in self.entry.fields[1:]), _ACTION)

    def _wake(self) -> Any:
        """What looks whom to wake, as in a run: all are awake."""
        if hasattr(self.shared, "wake_words"):
            return _module("rtcore.memory.waiting").Waker(self.shared.wake_words())
        shm = _module("rtcore.memory.segments", "rtcore.shm")
        return [shm.create_semaphore(self.run_id, worker).release for worker in range(self._workers)]

    def _make_loop(self) -> Any:
        clock, tickloop = importlib.import_module("rtcore.clock"), _module("rtcore.loop.tickloop", "rtcore.tickloop")
        counting = _module("rtcore.loop.counting", "rtcore.recorder")
        workers_module = _module("rtcore.loop.workers", "rtcore.envport")
        schedules = _module("rtcore.scheduling.schedule", "rtcore.schedule")
        dispatch = _module("rtcore.scheduling.dispatch", "rtcore.dispatch")
        shared, rate_hz = self.shared, Fraction(100)
        self._clock, count = clock.ManualClock(), self._workers
        params = schedules.ScheduleParams("max-time", rate_hz, count, count * _PERIOD_NS, adapt=False)
        schedule = schedules.Schedule(params, count)
        named = {"phase_seq": 1, "chunk": 1, "spinning": True}
        workers = _called(workers_module.SharedWorkers, shared, count, named, wake=self._wake())
        books = counting.Books(shared.env_counters, shared.env_status, shared.env_histograms, shared.log.append)
        recorder = _called(counting.StatsRecorder, books, schedule, {"period_ns": _PERIOD_NS, "phase_seq": 1})
        return tickloop.TickLoop(
            World(),
            clock.TickGrid(0, rate_hz),
            self._clock,
            schedule,
            dispatch.Dispatcher(),
            workers,
            recorder,
            phase_seq=1,
            **self._carried,
        )


def _called(kind: Callable[..., Any], first: Any, second: Any, named: dict[str, Any], wake: Any = None) -> Any:
    """`kind` with what it takes of `named`: an earlier commit takes more."""
    parameters = inspect.signature(kind).parameters
    taken = {name: value for name, value in named.items() if name in parameters}
    between = (wake,) if wake is not None else ()
    return kind(first, *between, second, **taken)


class World:
    """One that takes no time: the cost of the loop is what is left."""

    noop = 0

    def __init__(self) -> None:
        self._result = _module("rtcore.loop.world", "rtcore.world").StepResult(
            np.zeros((84, 84), np.uint8), 1.0, False, False
        )

    def reset(self) -> Any:
        return self._result

    def hold(self) -> Any:
        return self._result

    def step(self, action: Any) -> Any:
        return self._result

    def stand_in(self) -> tuple[Any, Any]:
        return 0, 0

    def encode(self, action: Any) -> bytes:
        return _ACTION

    def decode(self, payload: bytes, index: int) -> Any:
        return 0


def _timed(call: Callable[[Any], Any], arguments: list[Any]) -> float:
    """ns a call: the median of hundreds of calls at a time."""
    took = []
    for first in range(0, len(arguments), 200):
        part = arguments[first : first + 200]
        start_ns = time.thread_time_ns()
        for argument in part:
            call(argument)
        took.append((time.thread_time_ns() - start_ns) / len(part))
    return statistics.median(took)


if __name__ == "__main__":
    main()
