"""A weight holder: owns the memory on a device that its workers compute with, and brings new weights there.

Owns: that memory, and a `ParamStore` with its versions, checksums and claims. Reads: the weights of the run, claimed
while they are copied. Announces a version once all of it is on the device. Exits: when the supervisor says so (no
worker is left), or when the supervisor or the fork server ends.
"""

from __future__ import annotations

from rtcore.channel import Channel
from rtcore.clock import NS_PER_MS
from rtcore.errors import ChannelError, PolicyError
from rtcore.memory.weights import ParamStore, Version, attach_store
from rtcore.messages import HolderBoot, HolderReady
from rtcore.realtime import keep_off
from rtcore_workers.weights.device_memory import DeviceMemory, NotShared, allocate

#: How often to check for new weights, or for the order to end [s].
_POLL_S = 0.005
#: How long to wait for a buffer that no worker uses, before checking whether to end.
_WAIT_NS = 100 * NS_PER_MS


def main(boot: HolderBoot, channel: Channel) -> None:
    """Process entry."""
    config = boot.run.config
    if config.host.env_cpu is not None:
        keep_off(config.host.env_cpu)
    try:
        memory = allocate(boot.kind, boot.device, boot.num_buffers, boot.buffer_bytes)
    except NotShared as error:
        raise PolicyError(str(error)) from error
    stores = attach_store(boot.run_id), attach_store(boot.run_id, boot.part)
    holder = Holder(*stores, memory, boot.claim, boot.generation)
    holder.fill()
    channel.send(HolderReady(memory.exported, list(memory.notes)))
    while not _must_end(channel):
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
        """Copy the newest weights into all buffers: a worker may warm up on any of them."""

        def bring(buffer: int) -> Version:
            for other in set(range(self._held.layout.num_buffers)) - {buffer}:
                self._bring(other)
            return self._bring(buffer)

        self._held.take_over(bring)

    def follow(self) -> Version | None:
        """Copy the newest weights, if the device does not have them. None if it has, or if no buffer was free."""
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


def _must_end(channel: Channel) -> bool:
    """Whether to end: by order, or because the supervisor has gone. Waits for a moment."""
    try:
        return channel.receive(_POLL_S) is not None
    except ChannelError:
        return True
