"""The env process's side of `RealtimeEnv`: episodes that begin when the program that steps the world says so.

The program sends seed and options as a message and then raises `run_control.reset_seq`. The env process reads this one
word at each tick, and the message only once the word has changed. A long message may arrive some ticks later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rtcore.channel import Channel
from rtcore.clock import MonotonicClock
from rtcore.errors import ConfigError
from rtcore.files.values import from_json, plain, to_json
from rtcore.loop.tickloop import TickLoop
from rtcore.memory.shared import SharedRun
from rtcore.messages import ResetOrder

#: How often a waiting env process looks for a reset, if its ticks are longer than that [ns].
_POLL_NS = 2_000_000


def reset_order(reset_seq: int, seed: int | None, options: dict[str, Any] | None) -> ResetOrder:
    """What `ResetOrders` reads. ConfigError if `options` hold what another process cannot get."""
    try:
        return ResetOrder(reset_seq, seed, to_json(plain(options, "reset options")))
    except ValueError as error:
        raise ConfigError(str(error)) from error


class ResetOrders:
    """Owns: `env_status.reset_seen`, `reset_frame_seq`. Reads: `run_control.reset_seq`. Implements `tickloop.Resets`.

    `order_reset(seed, options)`: the world's method. What the world raises in the reset ends the env process.
    """

    def __init__(
        self,
        shared: SharedRun,
        channel: Channel,
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
        self._poll_ns = min(_POLL_NS, period_ns // 4)
        self._waiting = False
        self._order: ResetOrder | None = None

    @property
    def is_requested(self) -> bool:
        """Somebody has asked for an episode that has not begun, and all of what was asked is here."""
        if self._order is None and self._control["reset_seq"] != self._status["reset_seen"]:
            message = self._channel.next()
            self._order = message if isinstance(message, ResetOrder) else None
        return self._order is not None

    def begin_if_requested(self) -> bool:
        """Within the tick that is to begin the episode: its frame is the next one."""
        if not self.is_requested or (order := self._order) is None:
            return False
        self._order = None
        self._order_reset(order.seed, from_json(order.options))
        self._status["reset_frame_seq"] = self._ring.next_seq
        self._status["reset_seen"] = order.reset_seq
        return True

    def hold_back(self, loop: TickLoop) -> bool:
        """Between two ticks: wait a moment if the episode is over and no new one is asked for; True if it waited.

        The ticks that go by meanwhile are counted in `waited_ticks`, not as skipped: nothing was too slow for them.
        """
        if not loop.awaits_reset:
            return False
        now_ns = self._clock.now_ns()
        if self.is_requested:
            if self._waiting:
                self._waiting = False
                passed_ticks = loop.pass_over(now_ns)
                if self._counters["ticks"]:  # before the first episode there is no run that waits
                    self._counters.add("waited_ticks", passed_ticks)
            return False
        self._waiting = True
        self._status["heartbeat_ns"] = now_ns
        self._clock.sleep_until_ns(now_ns + self._poll_ns)
        return True
