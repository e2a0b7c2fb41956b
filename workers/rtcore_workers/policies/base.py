"""What every policy offers the worker loop. Imports no torch: a worker without a network stays light."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import isfinite
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rtcore.clock import NS_PER_MS, Clock, MonotonicClock
from rtcore.errors import PolicyConfigError
from rtcore.scheduling.dispatch import ChunkRest
from rtcore.spaces.payload import PolicyNeeds

Array: TypeAlias = NDArray[Any]


@dataclass(slots=True)
class InferenceTiming:
    """Parts of the last inference [ns], and what had to be done to its output.

    CUDA event times on a GPU; on a CPU the host clock, all of it in `compute_ns`. `clipped`: actions of the last
    chunk that were outside a Box action space and were clipped into it. `explored`: actions of it drawn at random.
    `abstained`: 1 where the policy gave no action.
    `policy_version`, `policy_checksum`: of the weights it used; 0 for a policy that has none in a parameter store.
    """

    h2d_ns: int = 0
    compute_ns: int = 0
    d2h_ns: int = 0
    clipped: int = 0
    explored: int = 0
    abstained: int = 0
    policy_version: int = 0
    policy_checksum: int = 0


@dataclass(frozen=True)
class PolicyInfo:
    """What runs, for the run header and the report."""

    name: str
    num_parameters: int
    synthetic: bool
    pad_ms: float | None
    device: str
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line, such as "impala k=1, 0.90M parameters, cpu, padded to 100 ms".

        A policy that only pretends to compute has the word "synthetic" in it.
        """
        name = self.name
        if self.synthetic and "synthetic" not in name:
            name = f"synthetic {name}"
        size = f"{_count(self.num_parameters)} parameters" if self.num_parameters else "no parameters"
        padded = [] if self.pad_ms is None else [f"padded to {self.pad_ms:g} ms"]
        return ", ".join([name, size, self.device, *padded])


class Policy(Protocol):
    """Maps the frame in `observation` to actions. Used by one worker, one call at a time."""

    @property
    def info(self) -> PolicyInfo: ...

    @property
    def observation(self) -> Array:
        """Staging buffer of the frame's shape and dtype (pinned memory for CUDA); of a Dict world's the packed bytes.

        With older frames (`History`) it is (h+1, *shape), oldest first. Always the same array: the worker copies
        the ring's frames straight into it before `act`.
        """
        ...

    @property
    def past_actions(self) -> Array | None:
        """Staging buffer for the last applied actions, (m, *action_shape) of the action's dtype, oldest first.

        None if the policy is not given any. Always the same array.
        """
        ...

    @property
    def timing(self) -> InferenceTiming:
        """The last `act`, without padding. Always the same object, overwritten by each `act`."""
        ...

    @property
    def needs(self) -> PolicyNeeds:
        """What travels to it and from it beside the frame and the action."""
        ...

    @property
    def context(self) -> memoryview | None:
        """Staging memory of a job's context, `needs.context(action)`; None: it has none. Always the same memory.

        Where its `state_tick` is -1, `act` begins from the policy's initial state.
        """
        ...

    @property
    def payload(self) -> memoryview | None:
        """What the last `act` gave beside the actions, `needs.payload`; None: it gives nothing. Always the same memory.

        A head fills the extras alone.
        """
        ...

    def act(self, *, frame_seq: int, out: Array, tick: int | None = None) -> None:
        """Fill `out`, shape (chunk, *action_shape) and the action's dtype, from the staged observation.

        `frame_seq` (0 or more) is the number of the staged frame, `tick` the tick that made it (None: the same
        number, as on the virtual clock); policies that draw random numbers draw them from the seed and one of
        these alone. With `timing.abstained` there is no action in `out`. PolicyError if the policy's answer is not as
        it declared.
        """
        ...


class FrameOnly:
    """A policy that takes the frame alone, with its history, and gives actions alone."""

    needs = PolicyNeeds()
    context: memoryview | None = None
    payload: memoryview | None = None


class WrappedPolicy:
    """A policy around another one, with the same staging memory."""

    def __init__(self, inner: Policy, info: PolicyInfo) -> None:
        self.info = info
        self.observation = inner.observation
        self.past_actions = inner.past_actions
        self.timing = inner.timing
        self.needs = inner.needs
        self.context = inner.context
        self.payload = inner.payload
        self.inner = inner


class PaddedPolicy(WrappedPolicy):
    """Makes every `act` of another policy take at least `pad_ms`: a small network in place of a large one."""

    def __init__(self, inner: Policy, pad_ms: float, clock: Clock | None = None) -> None:
        super().__init__(inner, replace(inner.info, pad_ms=pad_ms))
        self._pad_ns = round(pad_ms * NS_PER_MS)
        self._clock = clock or MonotonicClock()

    def act(self, *, frame_seq: int, out: Array, tick: int | None = None) -> None:
        """As the inner policy; returns no sooner than `pad_ms` after its start. Sleeps, does not spin."""
        start_ns = self._clock.now_ns()
        self.inner.act(frame_seq=frame_seq, out=out, tick=tick)
        self._clock.sleep_until_ns(start_ns + self._pad_ns)


class ChunkFiller(WrappedPolicy):
    """A policy of one action whose answer is a whole chunk: its action first, then `rest`, or that action again."""

    def __init__(self, inner: Policy, rest: Array | None) -> None:
        """`rest`: an action, (*action_shape); None: the inner policy's."""
        note = "one decision a chunk, which is held" if rest is None else "one decision a chunk, then no-ops"
        super().__init__(inner, replace(inner.info, notes=(*inner.info.notes, note)))
        self._rest = rest

    def act(self, *, frame_seq: int, out: Array, tick: int | None = None) -> None:
        """As the inner policy for the first action of the chunk."""
        self.inner.act(frame_seq=frame_seq, out=out[:1], tick=tick)
        out[1:] = out[0] if self._rest is None else self._rest


def fill_chunks(policy: Policy, chunk_rest: ChunkRest, noop: object) -> Policy:
    """The policy itself, or one that fills a chunk as `chunk_rest` says. `noop`: the world's."""
    if chunk_rest == "own":
        return policy
    return ChunkFiller(policy, np.asarray(noop) if chunk_rest == "noop" else None)


def refuse_unknown(policy: str, args: Mapping[str, object], known: Collection[str]) -> None:
    """PolicyConfigError, with the nearest known name, if `args` has a key outside `known`."""
    for name in args:
        if name not in known:
            raise PolicyConfigError(
                f"policy-args: policy {policy!r} got the argument {name!r}{suggestion(name, known)}; "
                f"expected only {', '.join((*sorted(known), 'pad_ms'))}"
            )


def number(policy: str, args: Mapping[str, object], name: str, default: float = 0.0) -> float:
    """The finite number `args[name]`, not negative; PolicyConfigError for anything else."""
    value = args.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
        raise PolicyConfigError(f"policy {policy!r} got {name}={value!r}; expected a number of 0 or more")
    return float(value)


def positive_int(policy: str, name: str, value: object) -> int:
    """`value` as an int of 1 or more; PolicyConfigError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PolicyConfigError(f"policy {policy!r} got {name}={value!r}; expected an integer of 1 or more")
    return value


def suggestion(got: str, known: Collection[str]) -> str:
    """ ", did you mean ..." for the nearest known name, or nothing."""
    near = get_close_matches(got, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _count(number_of: int) -> str:
    if number_of < 100_000:
        return f"{number_of / 1e3:.3g}k" if number_of >= 1000 else str(number_of)
    if number_of < 999_500_000:
        return f"{number_of / 1e6:.{2 if number_of < 9_950_000 else 1}f}M"
    return f"{number_of / 1e9:.2f}B"
