"""Whether a reader ever takes a torn frame for a whole one: writer and reader as fast as they can, in two processes.

    RTCORE_TICK=c python -m benchmarks.torn_reads --operations 1e8

Every word of a frame, of its header and of its action is the frame's number. An operation is a publication or a read.
The ring has two slots, and the reader takes the older frame, whose slot is written next: so a copy often meets
its writer. Ends with 1 if a read was torn.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np

from rtcore import _tick
from rtcore.memory.layout import FrameHeader, Layout
from rtcore.memory.ring import ReadStatus
from rtcore.memory.segments import new_measurement_id, unlink_all
from rtcore.memory.shared import SharedRun
from rtcore.spaces import ObservationSpec

_WORDS = 512
_LAYOUT = Layout(max_workers=1, ring_slots=2, log_slots=2, frame_bytes=8 * _WORDS, action_bytes=8, chunk=1)
_OBSERVATION = ObservationSpec((_WORDS,), "int64", (0,), (2**62,))
_AT_ONCE = 10_000
_HEADER_WORDS = len(FrameHeader._fields)


def header_of(seq: int) -> FrameHeader:
    """Each of its fields is the number of its frame."""
    return FrameHeader._make((seq,) * _HEADER_WORDS)


def action_of(seq: int) -> bytes:
    """The number of its frame."""
    return seq.to_bytes(8, "little")


def write(run_id: str, orders: Connection) -> None:
    """Publishes until it is told to stop; says then how much."""
    ring = SharedRun.attach(run_id, _LAYOUT, _OBSERVATION).ring
    frame = np.zeros(_WORDS, np.int64)
    while not orders.poll():
        for seq in range(ring.next_seq, ring.next_seq + _AT_ONCE):
            frame.fill(seq)
            ring.publish(frame, header_of(seq), action_of(seq))
    orders.send(ring.next_seq)


def read(run_id: str, operations: int, goes_on: Callable[[], bool]) -> tuple[dict[str, int], int]:
    """Reads again and again while the writer goes on; how often each came out, how many were torn."""
    ring = SharedRun.attach(run_id, _LAYOUT, _OBSERVATION).ring
    out, torn = np.zeros(_WORDS, np.int64), 0
    counts = [0] * len(ReadStatus)
    newest = ring.sequence.newest
    while newest() < 1 and goes_on():
        time.sleep(0.01)
    while sum(counts) + newest() < operations and goes_on():
        for _ in range(_AT_ONCE):
            seq = newest() - 1
            status, header = ring.read_with_header(seq, out)
            counts[status] += 1
            if status is ReadStatus.OK:
                torn += header != header_of(seq) or out.tobytes() != action_of(seq) * _WORDS
                torn += ring.read_action(seq) not in (None, action_of(seq))
    return {status.name: counts[status] for status in ReadStatus}, torn


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--operations", type=float, default=1e6)
    parser.add_argument("--minutes", type=float, default=math.inf, help="end earlier, after these")
    arguments = parser.parse_args()
    run_id, begun_s = new_measurement_id(), time.monotonic()
    until_s = begun_s + 60 * arguments.minutes
    shared = SharedRun.create(run_id, _LAYOUT, _OBSERVATION)
    try:
        ours, theirs = multiprocessing.Pipe()
        writer = multiprocessing.get_context("spawn").Process(target=write, args=(run_id, theirs), daemon=True)
        writer.start()

        def goes_on() -> bool:
            return writer.is_alive() and time.monotonic() < until_s

        counts, torn = read(run_id, int(arguments.operations), goes_on)
        if not writer.is_alive():
            sys.exit(f"the writer ended with {writer.exitcode} before it was told to")
        ours.send("stop")
        published = ours.recv()
        writer.join()
    finally:
        shared.close()
        unlink_all(run_id)
    took_s = time.monotonic() - begun_s
    print(f"tick path in {_tick.in_words}: {published:,} published, read {counts}, torn {torn}, {took_s:.0f} s")
    sys.exit(bool(torn))


if __name__ == "__main__":
    main()
