"""`rtcore-profile ipc --pattern pingpong`: a frame bounced between two processes, as other libraries measure.

Hot: both sides look without a pause, nobody sleeps, nothing happens in between. A side copies the whole frame into
memory of its own and publishes it again from there. Reported is half of a round trip, as by iceoryx2 and Aeron. It says
what the path itself costs; a run, whose frames come once a tick, is measured by the other pattern.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

from rtcore.errors import RtcoreError
from rtcore.memory.layout import FrameHeader, Layout
from rtcore.memory.shared import SharedRun
from rtcore.profile.children import AnsweringProcesses, Placement, put
from rtcore.profile.options import specs_of
from rtcore.profile.transports import PATIENCE_S, Frame, Opener, Ring, Shape, now_ns
from rtcore.scheduling.draft import draft_of

#: Round trips that are not counted: first touches, and the CPUs' clocks. Looks between two of the clock.
_WARM_UP, _LOOKS = 200, 10_000
#: Those that can be asked without a pause, or whose own blocking call is their quickest.
BOUNCED = ("rtcore-spin", "pipe", "zmq", "iceoryx2", "faster-fifo")


class End(Protocol):
    """One side. The other process opens its own from it. `receive` waits for the next frame, and copies it."""

    def other(self) -> Opener: ...
    def send(self, frame: Frame) -> None: ...
    def receive(self, out: Frame) -> None: ...
    def close(self) -> None: ...


def spin_for(look: Callable[[], Any]) -> Any:
    """What `look` gives, once it is not None."""
    give_up_ns = now_ns() + int(PATIENCE_S * 1e9)
    while now_ns() < give_up_ns:
        for _ in range(_LOOKS):
            if (found := look()) is not None:
                return found
    raise RtcoreError(f"the other side of the ping-pong sent nothing for {PATIENCE_S:g} s")


class RingEnd:
    """rtcore's frame ring, one each way. The reader spins, as a hybrid wait does once its worker is awake."""

    def __init__(self, shape: Shape) -> None:
        self._rings, self._shape = [Ring(shape, 1), Ring(shape, 1)], shape
        self._bind(*(ring.shared for ring in self._rings))

    def _bind(self, out: SharedRun, back: SharedRun) -> None:
        self._shared, self._out, self._back = (out, back), out.ring, back.ring
        self._action, self._wanted = bytes(specs_of((1,))[1].nbytes), 0
        self._header = draft_of(FrameHeader)

    @classmethod
    def opened(cls, out: str, back: str, layout: Layout, shape: Shape) -> RingEnd:
        """The side of the process that did not make the rings."""
        end = cls.__new__(cls)
        end._rings = []
        end._bind(*(SharedRun.attach(run_id, layout, specs_of(shape)[0]) for run_id in (out, back)))
        return end

    def other(self) -> Opener:
        out, back = self._rings
        return Opener(RingEnd.opened, (back.run_id, out.run_id, out.layout, self._shape))

    def send(self, frame: Frame) -> None:
        header = self._header
        header.frame_seq, header.publish_ns = self._out.next_seq, now_ns()
        self._out.publish(frame, header, self._action)

    def receive(self, out: Frame) -> None:
        wanted, newest = self._wanted, self._back.sequence.newest
        spin_for(lambda: True if newest() >= wanted else None)
        self._back.read_with_header(wanted, out)
        self._wanted = wanted + 1

    def close(self) -> None:
        for ring in self._rings:
            ring.close()


def bounce(end: End, shape: Shape, rounds: int, placement: Placement, name: str) -> list[int]:
    """Half of each round trip [ns]. Raises what goes wrong on either side. Closes the end."""
    frame, out = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), np.zeros(shape, np.uint8)
    halves: list[int] = []
    other: AnsweringProcesses | None = None
    try:
        other = AnsweringProcesses(
            f"{name}'s other side", _return, [(end.other(), shape, _WARM_UP + rounds, placement.readers)]
        )
        other.hear(60.0)
        for number in range(_WARM_UP + rounds):
            frame.flat[0] = number % 251  # another one each time
            start_ns = now_ns()
            end.send(frame)
            end.receive(out)
            halves.append((now_ns() - start_ns) // 2)
            if out.flat[0] != frame.flat[0] or out.flat[-1] != frame.flat[-1]:
                raise RtcoreError(f"{name}: a frame came back that is not the one that was sent")
        other.hear(PATIENCE_S)
    finally:
        if other is not None:
            other.close(grace_s=1.0)
        end.close()
    if not np.array_equal(out, frame):
        raise RtcoreError(f"{name}: the last frame came back changed")
    return halves[_WARM_UP:]


def _return(owner: Connection, opener: Opener, shape: Shape, count: int, cpus: frozenset[int]) -> None:
    """In the other process: send back what comes, from a copy of one's own."""
    put(0, cpus)
    try:
        end: End = opener.function(*opener.arguments)
        out = np.zeros(shape, np.uint8)
        owner.send((None, "open"))
        for _ in range(count):
            end.receive(out)
            end.send(out)
        owner.send((None, "done"))
        owner.poll(PATIENCE_S)
        end.close()
    except Exception as error:  # whatever another library raises
        owner.send((RtcoreError(f"{type(error).__name__}: {error}"), None))
