"""Frame latency: publish start -> private copy in the reader, rtcore beside other transports, in one run.

    python -m benchmarks.ipc [--rounds 2000] [--frame 144x160] [--json FILE]

The transports take turns, 25 frames each, so that a bad moment of the machine hits all alike. Between two frames
nothing happens for a few milliseconds, as between ticks: readers are asleep when the next frame
comes. The rtcore reader is the worker's own code and is booked as in the runtime, one world step before its frame
exists; the world step is a busy wait of `--step-us`. The others block in their receive call, as they would.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing as mp
import os
import platform
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from rtcore.clock import MonotonicClock
from rtcore.config import RuntimeConfig
from rtcore.layout import Layout
from rtcore.shared import Phase, SharedRun
from rtcore.shm import attach_semaphore, create_semaphore, new_run_id, unlink_all
from rtcore.spaces import ActionSpec, ObservationSpec

now_ns = MonotonicClock.now_ns
#: How long before the deadline the env process is awake.
_PREPARE_NS = 200_000
#: Frames in a row through one transport, before it is the next one's turn.
_BLOCK = 25


def _specs(shape: tuple[int, ...]) -> tuple[ObservationSpec, ActionSpec]:
    observation = ObservationSpec.from_space(gymnasium.spaces.Box(0, 255, shape, np.uint8))
    return observation, ActionSpec.from_space(gymnasium.spaces.Discrete(7))


class RtcoreTransport:
    """The runtime's own ring, job board and semaphores; the reader is `rtcore_workers.inference.Worker`."""

    def __init__(self, wait: str, shape: tuple[int, ...], rounds: int) -> None:
        self.name = f"rtcore-{wait}"
        observation, action = _specs(shape)
        self.run_id = new_run_id()
        self.layout = Layout(1, 64, 64, observation.nbytes, action.nbytes, 1)
        self.shared = SharedRun.create(self.run_id, self.layout, observation)
        self.semaphore = create_semaphore(self.run_id, 0)
        self.shared.worker_control[0]["generation"] = 1
        self.shared.run_control["phase"] = Phase.RUN
        self._spinning = wait == "spin"
        self.reader = (_rtcore_reader, (wait, self.run_id, self.layout, shape, rounds))

    def book(self) -> None:
        self.shared.jobs.post(0, (0, 1, self.shared.ring.next_seq, 1, now_ns(), 1, 1))
        self._wake()

    def prepare(self) -> None:
        """What the env process does in the last moment before a deadline: wake the next worker, warm its caches."""
        self._wake()
        self.shared.ring.warm()

    def send(self, frame: np.ndarray) -> None:
        publish_ns = now_ns()
        header = (0, 0, 0, 0, publish_ns, 0, 0, 0, 0.0, 0, 0, 0.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)
        self.shared.ring.publish(frame, header, bytes(self.layout.action_bytes))
        self._wake()

    def close(self) -> None:
        unlink_all(self.run_id)

    def _wake(self) -> None:
        if not self._spinning:
            self.semaphore.release()


def _rtcore_reader(
    results: Connection, wait: str, run_id: str, layout: Layout, shape: tuple[int, ...], rounds: int
) -> None:
    from rtcore_workers.inference import Worker
    from rtcore_workers.policies import RandomPolicy

    observation, action = _specs(shape)
    shared = SharedRun.attach(run_id, layout, observation)
    config = RuntimeConfig(wait=wait, workers=1)
    policy = RandomPolicy(observation, action, seed=0)
    worker = Worker(config, 0, 1, shared, attach_semaphore(run_id, 0), policy, action)
    results.send("ready")
    times: list[int] = []
    seen = 0
    while seen < rounds:
        if shared.jobs.newest(0) == seen:
            worker.wait_for_job()
            continue
        job = shared.jobs.read(0)
        seen = job.job_seq
        worker.note_job(seen)
        header = worker.read_frame(job)
        if header is not None:
            times.append(now_ns() - header.publish_ns)
    results.send(times)


class PipeTransport:
    """multiprocessing.Pipe with bytes, received into a private buffer: its fastest use."""

    name = "pipe"

    def __init__(self, shape: tuple[int, ...], rounds: int) -> None:
        receiver, self._sender = mp.Pipe(duplex=False)
        self._message = bytearray(8 + int(np.prod(shape)))
        self.reader = (_pipe_reader, (receiver, len(self._message), rounds))

    def prepare(self) -> None:
        """Nothing to prepare."""

    def book(self) -> None:
        """Nothing to book."""

    def send(self, frame: np.ndarray) -> None:
        self._message[:8] = now_ns().to_bytes(8, "little")
        self._message[8:] = memoryview(frame).cast("B")
        self._sender.send_bytes(self._message)

    def close(self) -> None:
        self._sender.close()


def _pipe_reader(results: Connection, receiver: Connection, size: int, rounds: int) -> None:
    buffer = bytearray(size)
    results.send("ready")
    times = []
    for _ in range(rounds):
        receiver.recv_bytes_into(buffer)
        times.append(now_ns() - int.from_bytes(buffer[:8], "little"))
    results.send(times)


class QueueTransport:
    """multiprocessing.Queue with an array, as most trainers use it (pickled by a feeder thread)."""

    name = "queue"

    def __init__(self, shape: tuple[int, ...], rounds: int) -> None:
        self._queue = mp.get_context("spawn").Queue()
        self.reader = (_queue_reader, (self._queue, rounds))

    def prepare(self) -> None:
        """Nothing to prepare."""

    def book(self) -> None:
        """Nothing to book."""

    def send(self, frame: np.ndarray) -> None:
        self._queue.put((now_ns(), frame.copy()))

    def close(self) -> None:
        self._queue.close()


def _queue_reader(results: Connection, queue: Any, rounds: int) -> None:
    results.send("ready")
    times = []
    for _ in range(rounds):
        sent_ns, _ = queue.get()
        times.append(now_ns() - sent_ns)
    results.send(times)


class ZmqTransport:
    """pyzmq PUSH/PULL over ipc://, copied into a private array."""

    name = "zmq"

    def __init__(self, shape: tuple[int, ...], rounds: int) -> None:
        import zmq

        self._path = f"/tmp/rtcore-bench-{os.getpid()}"
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.bind(f"ipc://{self._path}")
        self.reader = (_zmq_reader, (self._path, shape, rounds))

    def prepare(self) -> None:
        """Nothing to prepare."""

    def book(self) -> None:
        """Nothing to book."""

    def send(self, frame: np.ndarray) -> None:
        self._socket.send_multipart([now_ns().to_bytes(8, "little"), memoryview(frame)])

    def close(self) -> None:
        self._socket.close(0)
        self._context.term()
        Path(self._path).unlink(missing_ok=True)


def _zmq_reader(results: Connection, path: str, shape: tuple[int, ...], rounds: int) -> None:
    import zmq

    socket = zmq.Context().socket(zmq.PULL)
    socket.connect(f"ipc://{path}")
    out = np.empty(shape, np.uint8)
    results.send("ready")
    times = []
    for _ in range(rounds):
        stamp, payload = socket.recv_multipart(copy=False)
        np.copyto(out, np.frombuffer(payload.buffer, np.uint8).reshape(shape))
        times.append(now_ns() - int.from_bytes(bytes(stamp.buffer), "little"))
    results.send(times)


def _transports(shape: tuple[int, ...], rounds: int, wanted: set[str]) -> list[Any]:
    makers: dict[str, Callable[[], Any]] = {
        f"rtcore-{wait}": partial(RtcoreTransport, wait, shape, rounds) for wait in ("hybrid", "block", "spin")
    }
    makers |= {
        "pipe": partial(PipeTransport, shape, rounds),
        "queue": partial(QueueTransport, shape, rounds),
        "zmq": partial(ZmqTransport, shape, rounds),
    }
    if importlib.util.find_spec("zmq") is None and "zmq" in wanted:
        print("pyzmq is not installed (pip install 'rtcore[bench]'): left out")
        wanted = wanted - {"zmq"}
    return [make() for name, make in makers.items() if name in wanted]


def _one_frame(transport: Any, frame: np.ndarray, step_us: int) -> int:
    """One tick's worth: prepare, book, the world's step, send. Returns the publisher's cost [ns]."""
    deadline_ns = now_ns() + _PREPARE_NS
    transport.prepare()
    while now_ns() < deadline_ns:
        pass
    transport.book()
    stepped_ns = now_ns() + step_us * 1000
    while now_ns() < stepped_ns:
        pass
    start_ns = now_ns()
    transport.send(frame)
    return now_ns() - start_ns


def measure(shape: tuple[int, ...], rounds: int, step_us: int, gap_us: int, wanted: set[str]) -> list[dict[str, Any]]:
    """Rows {transport, frame_bytes, p50_us, p99_us, publish_p50_us}."""
    context = mp.get_context("spawn")
    transports = _transports(shape, rounds, wanted)
    frame = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    readers, costs = [], {transport.name: [] for transport in transports}
    clock = MonotonicClock()
    try:
        for transport in transports:
            target, arguments = transport.reader
            ours, theirs = context.Pipe()
            process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
            process.start()
            readers.append((process, ours))
        for _, ours in readers:
            ours.recv()
        for _ in track(range(rounds // _BLOCK), "frames", disable=not Console().is_terminal):
            for transport in transports:
                for _ in range(_BLOCK):
                    clock.sleep_until_ns(now_ns() + gap_us * 1000)
                    costs[transport.name].append(_one_frame(transport, frame, step_us))
        times = {t.name: ours.recv() for t, (_, ours) in zip(transports, readers, strict=True)}
    finally:
        for process, _ in readers:
            process.terminate()
        for transport in transports:
            transport.close()
    rows = []
    for name, samples in times.items():
        kept = np.array(samples[len(samples) // 20 :]) / 1e3
        p50, p99 = np.percentile(kept, [50, 99])
        cost = float(np.median(costs[name])) / 1e3
        rows.append(
            {
                "transport": name,
                "frame_bytes": frame.nbytes,
                "p50_us": float(p50),
                "p99_us": float(p99),
                "publish_p50_us": cost,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1500, help="frames per transport, a multiple of 25")
    parser.add_argument("--frame", default="144x160", help="frame shape, uint8")
    parser.add_argument("--step-us", type=int, default=300, help="the world's step between booking and publishing")
    parser.add_argument("--gap-us", type=int, default=4000, help="sleep between two frames")
    parser.add_argument("--only", default="", help="comma-separated transports")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    shape = tuple(int(side) for side in options.frame.split("x"))
    # A spinning reader takes a CPU for itself: with two, it would be measured against everybody else's loss.
    default = "rtcore-hybrid,rtcore-block,pipe,queue,zmq" + (",rtcore-spin" if len(os.sched_getaffinity(0)) > 2 else "")
    wanted = set((options.only or default).split(","))
    rows = measure(shape, options.rounds // _BLOCK * _BLOCK, options.step_us, options.gap_us, wanted)
    base = next((row["p50_us"] for row in rows if row["transport"] == "rtcore-hybrid"), rows[0]["p50_us"])
    title = (
        f"{shape} uint8, {options.rounds} frames, {len(os.sched_getaffinity(0))} CPUs, load {os.getloadavg()[0]:.1f}"
    )
    table = Table("transport", "p50 us", "p99 us", "cost to publisher, p50 us", "p50 / rtcore-hybrid", title=title)
    for row in rows:
        numbers = (row["p50_us"], row["p99_us"], row["publish_p50_us"], row["p50_us"] / base)
        table.add_row(row["transport"], *(f"{number:.1f}" for number in numbers))
    Console().print(table)
    if options.json:
        result = {"host": platform.node(), "kernel": platform.release(), "rows": rows}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
