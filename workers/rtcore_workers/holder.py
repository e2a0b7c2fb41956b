"""A weight holder: owns the memory on a device that its workers compute with, and brings new weights there.

Owns: that memory, and the store of its heads (`params.ParamStore`: versions, checksums, claims). Reads: the run's
weights, claimed while they are copied. Announces a version once the device has all of it. Exits: when it is told to,
which is once no worker is left, or with the supervisor or the fork server.
"""

from __future__ import annotations

from typing import Any

from rtcore.channel import Channel, Ready
from rtcore.clock import NS_PER_MS
from rtcore.config.resolved import ResolvedRun
from rtcore.errors import ChannelError, PolicyError
from rtcore.memory.weights import ParamStore, Version, attach_store
from rtcore.realtime import keep_off
from rtcore_workers.weights.device_memory import DeviceMemory, NotShared, allocate

#: How often to look for new weights, or for the word to end [s].
_LOOK_S = 0.005
#: How long to wait for a buffer that no worker computes with, before looking whether to end.
_WAIT_NS = 100 * NS_PER_MS


def main(boot: dict[str, Any], channel: Channel) -> None:
    """Process entry."""
    config = ResolvedRun.from_jsonable(boot["run"]).config
    if config.host.env_cpu is not None:
        keep_off(config.host.env_cpu)
    try:
        memory = allocate(boot["kind"], boot["device"], boot["num_buffers"], boot["buffer_bytes"])
    except NotShared as error:
        raise PolicyError(str(error)) from error
    stores = attach_store(boot["run_id"]), attach_store(boot["run_id"], boot["part"])
    holder = Holder(*stores, memory, boot["claim"], boot["generation"])
    holder.fill()
    channel.send(Ready({"memory": memory.exported, "notes": memory.notes}))
    while not _is_told_to_end(channel):
        holder.follow()
    memory.close()


class Holder:
    """Copies from one store into the memory behind another. `place`, `generation`: its claim in the first."""

    def __init__(self, host: ParamStore, held: ParamStore, memory: DeviceMemory, place: int, generation: int) -> None:
        self._host = host
        self._held = held
        self._memory = memory
        self._place = place
        self._generation = generation

    def fill(self) -> None:
        """The newest weights, in all buffers: whoever warms up on one that is not the newest finds numbers in it."""

        def bring(buffer: int) -> Version:
            for other in set(range(self._held.layout.num_buffers)) - {buffer}:
                self._bring(other)
            return self._bring(buffer)

        self._held.take_over(bring)

    def follow(self) -> Version | None:
        """Bring the newest weights, if they are not there yet. None if they are, or if no buffer was free for them."""
        if self._host.newest_version() == self._held.newest_version():
            return None
        return self._held.take_over(self._bring, wait_ns=_WAIT_NS)

    def _bring(self, buffer: int) -> Version:
        claimed = self._host.claim(self._place, self._generation)
        try:
            self._memory.write(buffer, self._host.buffer(claimed.buffer))
            if not self._host.is_intact(claimed):
                raise PolicyError(f"weights were written while they were copied (version {claimed.version})")
        finally:
            self._host.release(self._place)
        return claimed


def _is_told_to_end(channel: Channel) -> bool:
    """Or the supervisor has gone. Waits for a moment."""
    try:
        return channel.receive(_LOOK_S) is not None
    except ChannelError:
        return True
