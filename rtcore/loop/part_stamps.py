"""When the parts of a Dict observation were measured: a camera's picture is older than the joints' angles beside it.

A world says so in its `info`, at each reset and step, in nanoseconds of CLOCK_MONOTONIC (`time.monotonic_ns()`):

    info["rtcore"] = {"stamps_ns": {"camera": t1, "joints": t2}}

The first reset says which parts have stamps; each later `info` has those of the same parts. A part that was not
measured anew has its old stamp again. `part_rates_hz`, an attribute that may be missing, says by name how often each is
measured.

On the virtual clock nobody knows the time but the run: a world with an attribute `rtcore_now_ns` finds there the
function that tells it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from operator import index
from typing import Any

from rtcore.clock import FUTURE_NS, NS_PER_MS, MonotonicClock, clock_like
from rtcore.errors import ConfigError, EnvironmentFailed
from rtcore.spaces import Block, ObservationSpec
from rtcore.spaces.action import attribute_of
from rtcore.spaces.payload import stamps_block

#: Their key in `info["rtcore"]`.
STAMPS = "stamps_ns"
_RATES = "part_rates_hz"
_NOW = "rtcore_now_ns"
_NO_STAMPS = memoryview(b"").cast("q")
#: Lowest stamp of the virtual clock, which begins at 0: what was measured before that has a negative one.
_LOWEST_NS = -(1 << 62)


class PartStamps:
    """The stamps of a world's newest observation. Its `raw` stays the same memory; `take` allocates nothing.

    Args:
        env: The world, not reset yet.
        virtual_now_ns: The time, where it is that of the virtual clock; None: it is CLOCK_MONOTONIC.
    """

    def __init__(self, env: Any, virtual_now_ns: Callable[[], int] | None) -> None:
        self._rates_hz = attribute_of(env, _RATES)
        self._is_virtual = virtual_now_ns is not None
        self._now_ns = virtual_now_ns or MonotonicClock.now_ns
        self._lowest_ns = _LOWEST_NS if self._is_virtual else 1
        if self._is_virtual and attribute_of(env, _NOW) is not None:
            env.unwrapped.rtcore_now_ns = virtual_now_ns
        #: The parts that have stamps, in the order of the observation; none: the world says none.
        self.names: tuple[str, ...] = ()
        #: One int64 for each.
        self.raw = bytearray()
        self._words = _NO_STAMPS

    @property
    def block(self) -> Block:
        """What `raw` is."""
        return stamps_block(self.names)

    def begin(self, info: Mapping[str, Any], observation: ObservationSpec) -> ObservationSpec:
        """The world was reset for the first time.

        Args:
            info: That came with it.
            observation: The world's.

        Returns:
            The observation, which says now of which parts there are stamps.

        Raises:
            EnvironmentFailed: The stamps are of no parts, or are no times.
            ConfigError: `part_rates_hz` is of other parts, or has what is no rate.
        """
        stamps = _stamps_of(info)
        if stamps is None and self._rates_hz is None:
            return observation
        names = [part.name for part in observation.parts]
        if not names:
            raise EnvironmentFailed(
                f'the world says when parts of its observation were measured (info["rtcore"]["{STAMPS}"] or {_RATES}), '
                "and its observation is a Box, which has none; expected a Dict"
            )
        if not isinstance(stamps, Mapping) or not stamps:
            raise EnvironmentFailed(self._expected(f"has {_RATES}, and its first reset() no stamps", names))
        self._refuse_unknown(stamps, names, "reset()")
        self.names = tuple(name for name in names if name in stamps)
        self.raw = bytearray(8 * len(self.names))
        self._words = memoryview(self.raw).cast("q")
        self.take(info, "reset()")
        for name, stamp in zip(self.names, self._words.tolist(), strict=True):
            # An old one is the age of a part that is measured seldom; or a time of another clock.
            if not self._is_virtual and clock_like(stamp):
                raise self._no_time(name, stamp, "reset()")
        return observation.with_stamps(self._rates())

    def take(self, info: Any, call: str) -> None:
        """Keep the stamps of a later `info`.

        Args:
            info: The world's.
            call: What returned it.

        Raises:
            EnvironmentFailed: A stamp is missing, unknown, or no time.
        """
        stamps = _stamps_of(info)
        if not isinstance(stamps, Mapping):
            raise EnvironmentFailed(self._expected(f'returned an info without ["rtcore"]["{STAMPS}"] from {call}'))
        latest_ns = self._now_ns() + FUTURE_NS
        at = 0
        for name in self.names:
            stamp = stamps.get(name)
            if type(stamp) is not int:
                stamp = self._whole(name, stamp, call)
            if not self._lowest_ns <= stamp <= latest_ns:
                raise self._no_time(name, stamp, call)
            self._words[at] = stamp
            at += 1
        if len(stamps) != at:
            self._refuse_unknown(stamps, self.names, call)

    def _rates(self) -> dict[str, float | None]:
        """Of each part that has a stamp, as declared."""
        rates: dict[str, float | None] = dict.fromkeys(self.names)
        if self._rates_hz is None:
            return rates
        wanted = f"expected rates above 0 by the names of parts that have stamps ({', '.join(self.names)})"
        if not isinstance(self._rates_hz, Mapping):
            raise ConfigError(f"the world's {_RATES} is {self._rates_hz!r:.80}; {wanted}")
        for name, rate_hz in self._rates_hz.items():
            is_rate = isinstance(rate_hz, (int, float)) and not isinstance(rate_hz, bool) and 0 < rate_hz < math.inf
            if name not in rates or not is_rate:
                raise ConfigError(f"the world's {_RATES} has {name!r}: {rate_hz!r:.40}; {wanted}")
            rates[name] = float(rate_hz)
        return rates

    def _expected(self, what: str, names: Any = ()) -> str:
        of = f"the parts {', '.join(self.names)}, which its first reset() had" if self.names else ", ".join(names)
        return (
            f'the world {what}; expected info["rtcore"] = {{"{STAMPS}": {{name: time}}}} at each reset and step, with '
            f"{of if self.names else f'names of parts ({of})'}; a part that was not measured anew has its old stamp"
        )

    def _refuse_unknown(self, stamps: Mapping[str, Any], names: Any, call: str) -> None:
        unknown = [name for name in stamps if name not in names]
        if unknown:
            raise EnvironmentFailed(self._expected(f"gave a stamp of the part {unknown[0]!r} from {call}", names))

    def _whole(self, name: str, stamp: object, call: str) -> int:
        """A stamp that is no plain int, such as one of NumPy's."""
        if stamp is None:
            raise EnvironmentFailed(self._expected(f"gave no stamp of the part {name!r} from {call}"))
        try:
            if not isinstance(stamp, bool):
                return index(stamp)  # type: ignore[arg-type]
        except TypeError:
            pass
        raise self._no_time(name, stamp, call)

    def _no_time(self, name: str, stamp: object, call: str) -> EnvironmentFailed:
        now_ns, got, hint = self._now_ns(), f"{stamp!r:.40} ({type(stamp).__name__})", ""
        if isinstance(stamp, int) and not isinstance(stamp, bool):
            ahead = f", which is {(stamp - now_ns) / NS_PER_MS:.3f} ms in the future" if stamp > now_ns else ""
            got = f"{stamp}{ahead}"
            looks_like = "" if self._is_virtual else clock_like(stamp)
            hint = f" That looks like {looks_like}." if looks_like else ""
        clock = "CLOCK_MONOTONIC, as time.monotonic_ns() gives"
        if self._is_virtual:
            clock = (
                f"the virtual clock; give the world {_NOW} = staticmethod(time.monotonic_ns), and take the time of that"
            )
        return EnvironmentFailed(
            f"the world gave the part {name!r} the stamp {got} from {call}.{hint} Expected when it was measured, in "
            f"whole nanoseconds of {clock}"
        )


def _stamps_of(info: Any) -> Any:
    """None where an `info` has none."""
    said = info.get("rtcore") if isinstance(info, Mapping) else None
    return said.get(STAMPS) if isinstance(said, Mapping) else None
