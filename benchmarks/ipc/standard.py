"""The standard library's ways between processes: pipe, queue and manager."""

from __future__ import annotations

import multiprocessing as mp
from multiprocessing.connection import Connection
from multiprocessing.managers import SyncManager
from typing import Any

import numpy as np

from rtcore.clock import MonotonicClock
from rtcore.profile.children import uninterrupted
from rtcore.profile.transports import (
    PATIENCE_S,
    Frame,
    Opener,
    Receive,
    Shape,
    Transport,
    spin_until_ns,
)

now_ns = MonotonicClock.now_ns
STAMP_BYTES = 8


def stamp() -> bytes:
    """Now, as the first bytes of a message."""
    return now_ns().to_bytes(STAMP_BYTES, "little")


def stamp_of(message: bytes | bytearray) -> int:
    """When a message was sent [ns]."""
    return int.from_bytes(message[:STAMP_BYTES], "little")


class PipeTransport(Transport):
    """multiprocessing.Pipe with bytes, one a reader, received into a private buffer: its fastest use."""

    name = "pipe"

    def __init__(self, shape: Shape, readers: int) -> None:
        super().__init__()
        self._frames = [mp.Pipe(duplex=False) for _ in range(readers)]
        self._answers = [mp.Pipe(duplex=True) for _ in range(readers)]
        self._message = bytearray(STAMP_BYTES + int(np.prod(shape)))

    def opener(self, reader: int) -> Opener:
        return Opener(_open_pipe, (self._frames[reader][0], len(self._message)))

    def answerer(self, reader: int) -> Opener:
        return Opener(_open_pipe_answerer, (self._answers[reader][1],))

    def send(self, frame: Frame) -> None:
        self._message[:STAMP_BYTES] = stamp()
        self._message[STAMP_BYTES:] = frame.data.cast("B")
        for _, sender in self._frames:
            sender.send_bytes(self._message)

    def ask(self) -> list[int]:
        found = []
        for ours, _ in self._answers:
            ours.send_bytes(b"?")
        for ours, _ in self._answers:
            answer = ours.recv_bytes()
            found.append(now_ns() - stamp_of(answer))
        return found

    def close(self) -> None:
        for pair in self._frames + self._answers:
            for end in pair:
                end.close()


def _open_pipe(receiver: Connection, size: int) -> Receive:
    buffer = bytearray(size)

    def receive(count: int) -> list[int]:
        times = []
        for _ in range(count):
            receiver.recv_bytes_into(buffer)
            times.append(now_ns() - stamp_of(buffer))
        return times

    return receive


def _open_pipe_answerer(theirs: Connection) -> Receive:
    action = bytes(STAMP_BYTES)

    def answer(count: int) -> list[int]:
        for _ in range(count):
            theirs.recv_bytes()
            spin_until_ns(now_ns() + 100_000)
            theirs.send_bytes(stamp() + action)
        return []

    return answer


class QueueTransport(Transport):
    """multiprocessing.Queue with an array, one a reader, as most trainers use it (pickled by a feeder thread)."""

    name = "queue"

    def __init__(self, shape: Shape, readers: int) -> None:
        super().__init__()
        self._queues = [mp.get_context("forkserver").Queue() for _ in range(readers)]

    def opener(self, reader: int) -> Opener:
        return Opener(_open_queue, (self._queues[reader],))

    def send(self, frame: Frame) -> None:
        stamp_ns = now_ns()
        for queue in self._queues:
            # A copy: the feeder thread pickles later, and the world would have moved on.
            queue.put((stamp_ns, frame.copy()))

    def close(self) -> None:
        for queue in self._queues:
            queue.cancel_join_thread()
            queue.close()


def _open_queue(queue: Any) -> Receive:
    def receive(count: int) -> list[int]:
        times = []
        for _ in range(count):
            sent_ns, _ = queue.get()
            times.append(now_ns() - sent_ns)
        return times

    return receive


class ManagerTransport(Transport):
    """Values of a multiprocessing manager, which is a process of its own: readers ask it for the newest number.

    A reader that waits asks without a pause, which keeps the manager and itself busy: a manager cannot wake anybody.
    """

    name = "manager"

    def __init__(self, shape: Shape, readers: int) -> None:
        super().__init__()
        with uninterrupted():
            self._manager: SyncManager = mp.get_context("forkserver").Manager()
        self._seq = self._manager.Value("q", 0)
        self._frame: Any = self._manager.Value("O", None)
        self._sent = 0

    def opener(self, reader: int) -> Opener:
        return Opener(_open_manager, (self._seq, self._frame))

    def send(self, frame: Frame) -> None:
        self._frame.set((now_ns(), frame))
        self._sent += 1
        self._seq.set(self._sent)

    def close(self) -> None:
        self._manager.shutdown()


def _open_manager(seq: Any, frame: Any) -> Receive:
    def receive(count: int) -> list[int]:
        times = []
        seen: int = seq.get()
        last = seen + count
        give_up_ns = now_ns() + count * int(PATIENCE_S * 1e9)
        while seen < last and now_ns() < give_up_ns:
            newest = seq.get()
            if newest == seen:
                continue
            seen = newest
            sent_ns, _ = frame.get()
            times.append(now_ns() - sent_ns)
        return times

    return receive
