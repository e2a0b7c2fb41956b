"""What acts at a tick for which the policy has no action: every mode of `--on-missing` is here, and the safe action.

A new mode is a name in `OnMissing`, what acts in `StandIn.choose`, and what can be said of it beforehand in `foreseen`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from rtcore.scheduling.dispatch import Known, Source

if TYPE_CHECKING:
    import numpy as np

OnMissing = Literal["noop", "repeat", "random"]
#: Keeps these random numbers apart from others that are drawn from the same seed.
_STREAM = 1


class StandIn:
    """Chooses the action of one world's ticks without an action. Used by its process only.

    Args:
        mode: The setting.
        noop: The world's action for doing nothing.
        sample: Draws an action from a generator.
        seed: All that "random" depends on.
    """

    def __init__(self, mode: OnMissing, noop: Any, sample: Callable[[np.random.Generator], Any], seed: int) -> None:
        self._mode = mode
        self._noop = noop
        self._sample = sample
        self.begin(seed)

    def begin(self, seed: int) -> None:
        """From now on random actions depend on `seed` alone."""
        import numpy as np  # noqa: PLC0415 - the name of a mode, which help texts show, needs it not

        self._rng = np.random.default_rng(np.random.SeedSequence([seed, _STREAM]))

    def choose(self, last_action: Any) -> tuple[Any, Source]:
        """The action, and what it is called. `last_action`: of this episode, or the no-op."""
        if self._mode == "repeat":
            return last_action, Source.REPEAT
        if self._mode == "random":
            return self._sample(self._rng), Source.RANDOM
        return self._noop, Source.NOOP


class Starvation:
    """When the safe action acts in place of `on_missing`: no fresh action has come for too long. By the grid's time, so
    that ticks that were skipped count.

    Args:
        limit_ns: For how long nothing fresh may come.
        safe_action: What then acts.
    """

    def __init__(self, limit_ns: int, safe_action: Any) -> None:
        self._limit_ns = limit_ns
        self._fresh_ns = 0
        self.safe_action = safe_action

    def feed(self, deadline_ns: int) -> None:
        """A fresh action acts at the tick that is due then; or the world stands, so that none is needed."""
        self._fresh_ns = deadline_ns

    def acts(self, deadline_ns: int) -> bool:
        """Whether the safe action acts at the tick that is due then, for which there is no other action."""
        return deadline_ns - self._fresh_ns >= self._limit_ns


def foreseen(mode: OnMissing, noop: bytes, last: bytes, last_known: Known) -> tuple[bytes, Known]:
    """What stands in at coming ticks, and how sure that is. `last`: the action before them, known as `last_known`."""
    if mode == "noop":
        return noop, Known.FACT
    if mode == "repeat" and last_known != Known.UNKNOWN:
        return last, last_known
    return b"", Known.UNKNOWN
