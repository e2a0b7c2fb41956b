"""Whether a reader ever takes a torn frame for a whole one: writer and reader as fast as they can, in two processes.

    RTCORE_TICK=c python -m benchmarks.torn_reads --operations 1e8

Every byte of a frame, of its header and of its action is a function of its number. An operation is a publication or a
read. The ring has two slots, so that nearly every read is overtaken. Ends with 1 if a read was torn.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np

from rtcore import _tick
from rtcore.memory.layout import FRAME_HEADER, FrameHeader, Layout
from rtcore.memory.ring import ReadStatus
from rtcore.memory.segments import new_measurement_id, unlink_all
from rtcore.memory.shared import SharedRun
from rtcore.spaces import ObservationSpec

_WORDS = 16
_LAYOUT = Layout(max_workers=1, ring_slots=2, log_slots=2, frame_bytes=8 * _WORDS, action_bytes=8, chunk=1)
_OBSERVATION = ObservationSpec((_WORDS,), "int64", (0,), (2**62,))
_AT_ONCE = 10_000
_ZEROS = FRAME_HEADER.new(frame_seq=0)[1:]


def write(run_id: str, orders: Connection) -> None:
    """Publishes until it is told to stop; says then how much."""
    ring = SharedRun.attach(run_id, _LAYOUT, _OBSERVATION).ring
    frame = np.zeros(_WORDS, np.int64)
    while not orders.poll():
        for seq in range(ring.next_seq, ring.next_seq + _AT_ONCE):
            frame.fill(seq)
            ring.publish(frame, FrameHeader._make((seq, *_ZEROS)), seq.to_bytes(8, "little"))
    orders.send(ring.next_seq)


def read(run_id: str, operations: int, goes_on: Callable[[], bool]) -> tuple[dict[str, int], int]:
    """Reads the newest frame again and again while the writer goes on; how often each came out, how many were torn."""
    ring = SharedRun.attach(run_id, _LAYOUT, _OBSERVATION).ring
    out, torn = np.zeros(_WORDS, np.int64), 0
    counts = dict.fromkeys(ReadStatus, 0)
    newest = ring.sequence.newest
    while newest() < 0 and goes_on():
        time.sleep(0.01)
    while sum(counts.values()) + newest() < operations and goes_on():
        for _ in range(_AT_ONCE):
            seq = newest()
            status, header = ring.read_with_header(seq, out)
            counts[status] += 1
            if status is ReadStatus.OK:
                torn += header is None or header.frame_seq != seq or bool((out != seq).any())
    return {status.name: count for status, count in counts.items()}, torn


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--operations", type=float, default=1e6)
    operations = int(parser.parse_args().operations)
    run_id, begun_s = new_measurement_id(), time.monotonic()
    shared = SharedRun.create(run_id, _LAYOUT, _OBSERVATION)
    try:
        ours, theirs = multiprocessing.Pipe()
        writer = multiprocessing.get_context("spawn").Process(target=write, args=(run_id, theirs), daemon=True)
        writer.start()
        counts, torn = read(run_id, operations, writer.is_alive)
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
