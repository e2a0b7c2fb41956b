"""The operator as the supervisor sees it: the process that says what a person does, whether it lives, and what follows.

Without it the run goes on: the controls are the policy's again at the next tick, and another one is started, as often
as a worker would be.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from rtcore.clock import ns_of
from rtcore.errors import RtcoreError, describe_exit
from rtcore.memory.operator import said_in
from rtcore.messages import OperatorBoot
from rtcore.processes.launcher import Child, Launch, RunParts
from rtcore.processes.restarts import Death, Ending, Places

_log = logging.getLogger(__name__)

OPERATOR_ENTRY = "rtcore_workers.operator:main"


class OperatorProcess:
    """Used by the supervising thread. `next_operator`: makes void what was said; returns the next one's number."""

    def __init__(self, parts: RunParts, launch: Launch, next_operator: Callable[[], int]) -> None:
        self.places = Places("operator", parts.run.config.faults.max_restarts, parts.watchdog)
        self._parts = parts
        self._launch = launch
        self._next_operator = next_operator
        self._lost_take_overs = 0
        #: Why there is none any more; "" while there is.
        self._end = ""

    # -- start ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it; `is_ready` says when it is there."""
        world = self._parts.world
        boot = partial(
            OperatorBoot,
            layout=self._parts.shared.layout,
            observation=world.observation,
            action=world.action,
            noop=world.noop_value,
            action_meanings=world.action_meanings or [],
            number=self._next_operator(),
        )
        self.places.put(self._launch(0, self.places.restarts.total + 1, OPERATOR_ENTRY, boot))

    def is_ready(self) -> bool:
        return not self.places.waiting((0,))

    # -- watch ---------------------------------------------------------------------------------------------

    def check(self, child: Child) -> None:
        """Something happened to it. Raises only what kept the first one from starting."""
        if not self.places.holds(child) or child.exitcode is None:
            return
        if child.ready is None and not self.places.restarts.total:
            raise child.error or child.death
        error = child.error
        if not self.places.is_ending(child):  # else it was killed, and that is why
            self._take_back()
            why = describe_exit(child.exitcode) if error is None else str(error)
            self.places.note_end(child, Death(Ending.DIED, why))
        if error is not None:
            _log.warning("\n".join((str(error), *getattr(error, "__notes__", ()))))
        what = f"{child.display_name} (pid {child.pid}) is down"
        try:
            reason = self.places.count_death(child, said_in(self._parts.shared)[0])
        except RtcoreError as given_up:
            self._end = f"gave up after {self.places.restarts.total} restarts: {given_up}"
            self.places.remove(child.index)
            _log.warning(f"{what}, once too often ({given_up}): nobody can step in any more; the run goes on")
            return
        _log.warning(f"{what}: {reason}; restarting it")
        self.start()

    def kill_hung(self) -> None:
        """Now and then: kill it if it says nothing any more."""
        faults = self._parts.run.config.faults
        for child in self.places.watched():
            limit_s = faults.hang_timeout_s if child.ready is not None else faults.startup_timeout_s
            sign = said_in(self._parts.shared)[0]
            death = self.places.find_hang(child, sign, "operator", ns_of(limit_s))
            if death is not None:
                self._take_back()
                self.places.kill(child, death)

    def _take_back(self) -> None:
        """The controls are the policy's, from the next tick on."""
        if said_in(self._parts.shared)[1]:
            self._lost_take_overs += 1
            _log.warning("the operator was lost while in control: the controls are the policy's again")
        self._next_operator()

    # -- end -----------------------------------------------------------------------------------------------

    def summary(self) -> dict[str, Any]:
        """The content of summary.json's `operator`."""
        restarts = self.places.restarts
        return {
            "name": self._parts.run.config.take_over.operator,
            "restarts": restarts.total,
            "reasons": dict(restarts.reasons),
            "lost_take_overs": self._lost_take_overs,
            "end": self._end,
        }
