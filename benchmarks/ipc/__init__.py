"""What `rtcore-profile ipc` compares rtcore with: transports of others, and two C programs as the limit.

Not in the package that is installed: `rtcore.profile.ipc` finds this folder beside rtcore in a clone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.ipc import libraries, limit, standard
from benchmarks.ipc.pingpong import ENDS as ENDS
from rtcore.profile.transports import Shape, Transport

#: Name of a transport -> what makes the publisher's end of it.
MAKERS: dict[str, Callable[[Shape, int], Transport]] = {
    "pipe": standard.PipeTransport,
    "queue": standard.QueueTransport,
    "manager": standard.ManagerTransport,
    "zmq": libraries.ZmqTransport,
    "iceoryx2": libraries.IceoryxTransport,
    "faster-fifo": libraries.FasterFifoTransport,
    "c-spin": partial(limit.LimitTransport, "spin"),
    "c-futex": partial(limit.LimitTransport, "futex"),
}


def why_missing(name: str) -> str | None:
    """Why a transport of `MAKERS` cannot be measured here; None if it can."""
    if name in libraries.MODULES:
        return libraries.why_missing(name)
    return limit.why_missing() if name.startswith("c-") else None
