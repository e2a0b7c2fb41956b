"""The env process's side of `RealtimeEnv`: episodes that begin when the program that steps the world says so.

The program sends seed and options as a JSON message and then raises `run_control.reset_seq`: the env process looks at
one word a tick, and finds the message there when the word has changed.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

from rtcore.clock import MonotonicClock
from rtcore.errors import ConfigError
from rtcore.forkserver import MAX_MESSAGE_BYTES
from rtcore.shared import SharedRun
from rtcore.tickloop import TickLoop

#: How often a waiting env process looks for a reset, if its ticks are longer than that [ns].
_LOOK_NS = 2_000_000


def reset_message(reset_seq: int, seed: int | None, options: dict[str, Any] | None) -> bytes:
    """What `ResetOrders` reads. ConfigError if `options` are not JSON, or too large."""
    try:
        message = json.dumps({"reset": {"reset_seq": reset_seq, "seed": seed, "options": options}}).encode()
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"reset options {options!r:.200}: {error}; they go to another process as JSON: give numbers, strings, "
            "lists and dicts of them"
        ) from error
    if len(message) > MAX_MESSAGE_BYTES:
        raise ConfigError(f"reset options take {len(message)} bytes as JSON; at most {MAX_MESSAGE_BYTES} can be sent")
    return message


class ResetOrders:
    """Owns: `env_status.reset_seen`, `reset_frame_seq`. Reads: `run_control.reset_seq`. Implements `tickloop.Resets`.

    `order_reset(seed, options)` is the world's; a reset that it raises in ends the env process as any other would.
    """

    def __init__(
        self,
        shared: SharedRun,
        channel: socket.socket,
        order_reset: Callable[[int | None, dict[str, Any] | None], None],
        period_ns: int,
    ) -> None:
        self._control = shared.run_control
        self._status = shared.env_status
        self._counters = shared.env_counters
        self._ring = shared.ring
        self._channel = channel
        self._order_reset = order_reset
        self._clock = MonotonicClock()
        self._look_ns = min(_LOOK_NS, period_ns // 4)
        self._waiting = False

    @property
    def asked(self) -> bool:
        """Somebody has asked for an episode that has not begun."""
        return self._control["reset_seq"] != self._status["reset_seen"]

    def take(self) -> bool:
        """Within the tick that is to begin the episode: its frame is the next one."""
        if not self.asked:
            return False
        order = json.loads(self._channel.recv(MAX_MESSAGE_BYTES))["reset"]
        self._order_reset(order["seed"], order["options"])
        self._status["reset_frame_seq"] = self._ring.next_seq
        self._status["reset_seen"] = order["reset_seq"]
        return True

    def hold_back(self, loop: TickLoop) -> bool:
        """Between two ticks: wait a moment if the episode is over and no new one is asked for; True if it waited.

        The ticks that go by meanwhile are counted in `waited_ticks`, not as skipped: nothing was too slow for them.
        """
        if not loop.awaits_reset:
            return False
        now_ns = self._clock.now_ns()
        if self.asked:
            if self._waiting:
                self._waiting = False
                passed_ticks = loop.pass_over(now_ns)
                if self._counters["ticks"]:  # before the first episode there is no run that waits
                    self._counters.add("waited_ticks", passed_ticks)
            return False
        self._waiting = True
        self._status["heartbeat_ns"] = now_ns
        self._clock.sleep_until_ns(now_ns + self._look_ns)
        return True
