"""How a worker gets the weights that its device's holder keeps: it asks the supervisor, and opens the memory named."""

from __future__ import annotations

from rtcore.channel import Channel
from rtcore.errors import RtcoreError
from rtcore.memory.weights import attach_store
from rtcore.messages import KeepsOwnWeights, WeightsHeld, WeightsWanted
from rtcore_workers.weights.device_memory import NotShared, memory_kind, open_memory
from rtcore_workers.weights.shared import Held


class RunHolding:
    """In a run. `sharing`: the setting weights_sharing. `channel`: to the supervisor, which answers in `timeout_s`."""

    def __init__(self, run_id: str, channel: Channel, sharing: str, timeout_s: float) -> None:
        self._run_id = run_id
        self._channel = channel
        self._sharing = sharing
        self._timeout_s = timeout_s

    def ask(self, device: str) -> Held | None:
        """See `shared.Holding`. Waits until the device's holder has the newest weights there."""
        kind = memory_kind(device, self._sharing)
        if kind is None:
            return None
        self._channel.send(WeightsWanted(device, kind))
        held = self._channel.expect(WeightsHeld, self._timeout_s)
        if held.memory is None:
            raise NotShared(held.refused)
        try:
            store = attach_store(self._run_id, held.part)
        except RtcoreError as error:
            raise NotShared(f"its holder has gone: {error}") from error
        return Held(store, open_memory(held.memory, device), kind)

    def refuse(self, device: str, why: str) -> None:
        """To the supervisor."""
        self._channel.send(KeepsOwnWeights(device, why))
