"""A worker's way to the weights that its device's holder keeps: it asks the supervisor, and opens what it is told."""

from __future__ import annotations

import json
import socket

from rtcore.errors import RtcoreError
from rtcore.forkserver import MAX_MESSAGE_BYTES
from rtcore.paramsegment import attach_store
from rtcore_workers.device_memory import NotShared, memory_kind, open_memory
from rtcore_workers.weights import Held


class RunHolding:
    """In a run. `sharing`: the setting weights_sharing. `channel`: to the supervisor, which answers in turn."""

    def __init__(self, run_id: str, channel: socket.socket, sharing: str) -> None:
        self._run_id = run_id
        self._channel = channel
        self._sharing = sharing

    def ask(self, device: str) -> Held | None:
        """See `weights.Holding`. Waits until the device's holder has the newest weights there."""
        kind = memory_kind(device, self._sharing)
        if kind is None:
            return None
        self._channel.send(json.dumps({"hold": {"device": device, "kind": kind}}).encode())
        answer = json.loads(self._channel.recv(MAX_MESSAGE_BYTES))["holder"]
        if "refused" in answer:
            raise NotShared(answer["refused"])
        try:
            store = attach_store(self._run_id, answer["part"])
        except RtcoreError as error:
            raise NotShared(f"its holder has gone: {error}") from error
        return Held(store, open_memory(answer["memory"], device), kind)

    def refuse(self, device: str, why: str) -> None:
        """To the supervisor."""
        self._channel.send(json.dumps({"private": {"device": device, "why": why}}).encode())
