"""A person takes the controls and gives them back: who acts at a tick then, and how one hand passes to the other. Pure.

While a person has the controls, workers, schedule and dispatcher go on as ever: what they would do is asked for and
kept, so that the policy's newest action acts as soon as the person lets go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

#: Makes an action's bytes of those of two, and of the share of the second one (0 to 1).
Mix = Callable[[bytes, bytes, float], bytes]


class Said(NamedTuple):
    """What whoever may step in has said last: another object for each. `seq`: its number. `action`: None, hands off."""

    seq: int = 0
    action: bytes | None = None


class Operator(Protocol):
    """Who may step in, as the tick loop sees it. Asked once a tick; never waits."""

    def poll(self) -> Said: ...


class TakeOver:
    """Of one run. Order within a tick: `begin_tick`, then, where the world is stepped, `action`, then `note_applied`.

    Args:
        operator: Who may step in.
        blend_ticks: Over so many ticks actions pass from those of one hand to those of the other, linearly.
        mix: Makes one action of two; None: there is nothing between two actions, and hands switch at once.
    """

    def __init__(self, operator: Operator, blend_ticks: int = 0, mix: Mix | None = None) -> None:
        self._poll = operator.poll
        self._blend_ticks = blend_ticks if mix is not None else 0
        self._mix = mix
        self._said = Said()
        self._action = b""
        self._number = 0
        #: Of the blend: ticks that are done, and what was applied before it.
        self._blended = self._blend_ticks
        self._from = self._applied = b""
        #: A person has the controls at this tick.
        self.holds = False
        #: And has said something since the tick before.
        self.is_fresh = False
        #: Number of the take-over that this tick belongs to, from 1: the person has the controls, or what acts is still
        #: blended with what that one did last. 0: none.
        self.intervention = 0

    def begin_tick(self) -> None:
        """Ask who has the controls now."""
        said = self._poll()
        self.is_fresh = said is not self._said
        if not (self.is_fresh or self.intervention):
            return  # nobody has stepped in, and nothing is left of it
        self._said, action = said, said.action
        if (action is not None) is not self.holds:
            self.holds = not self.holds
            self._number += self.holds
            self._from, self._blended = self._applied, 0 if self._applied else self._blend_ticks
        if action is not None:
            self._action = action
        is_blended = self._blended < self._blend_ticks
        self.intervention = self._number if self.holds or is_blended else 0

    @property
    def foreseen(self) -> bytes | None:
        """What is known of this tick's action before the world is stepped: b"" nothing, None that nobody steps in."""
        if not self.intervention:
            return None
        return self._action if self._blended >= self._blend_ticks else b""

    def action(self, requested: bytes) -> bytes:
        """What acts at a tick of an intervention.

        Args:
            requested: What would act otherwise.
        """
        target = self._action if self.holds else requested
        if self._blended >= self._blend_ticks or self._mix is None:
            return target
        self._blended += 1
        return self._mix(self._from, target, self._blended / (self._blend_ticks + 1))

    def end_blend(self) -> None:
        """At once: the safe action acts, or an episode begins."""
        self._blended = self._blend_ticks

    def note_applied(self, action: bytes) -> None:
        """What was applied: the next blend begins there. b"": nothing of this episode."""
        self._applied = action
