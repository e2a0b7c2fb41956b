"""Random actions now and then, the same in every worker without anything shared: a function of seed and tick."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rtcore.errors import PolicyConfigError
from rtcore.learn.exploration import EpsilonSchedule
from rtcore.spaces import ActionSpec
from rtcore_workers.policies.base import Array, Policy, WrappedPolicy

_MASK = (1 << 64) - 1
#: Keeps the numbers of this module apart from others drawn from the same seed.
_COIN_STREAM, _ACTION_STREAM = 0x5EED_C019, 0x5EED_AC71
_EXTRAS_NOTE = "extras are those of the policy's own action, where a random one acts as well"


def mix(*words: int) -> int:
    """64 bits that look random and depend on the arguments alone (the finalizer of SplitMix64, chained)."""
    value = 0
    for word in words:
        value = (value + word + 0x9E3779B97F4A7C15) & _MASK
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
        value ^= value >> 31
    return value


class ExploringPolicy(WrappedPolicy):
    """Another policy, with a random action instead of its own at a share of the ticks.

    The ticks fall into blocks of `explore_ticks`. In a block one coin and one action hold, drawn from (seed, block)
    alone; the coin is compared with the epsilon of each tick. So every worker, and a simulation, draws the same. The
    inner policy is run all the same: an action takes as long as any other, and the plan of the delay stays true. With
    `always_infer=False` it is not, where no time is measured and none is to be lost (the virtual clock with a given
    latency). `timing.explored` says how many actions of the last `act` were random.
    """

    def __init__(
        self,
        inner: Policy,
        action: ActionSpec,
        seed: int,
        schedule: EpsilonSchedule,
        explore_ticks: int = 1,
        *,
        always_infer: bool = True,
    ) -> None:
        if explore_ticks < 1:
            raise PolicyConfigError(f"explore_ticks={explore_ticks} must be at least 1")
        notes = [_note(schedule, explore_ticks), *([_EXTRAS_NOTE] if inner.needs.extras else [])]
        super().__init__(inner, replace(inner.info, notes=(*inner.info.notes, *notes)))
        self._action = action
        self._seed = seed
        self._schedule = schedule
        self._explore_ticks = explore_ticks
        # What travels with the answer comes from the policy, whichever action acts.
        self._always_infer = always_infer or bool(inner.needs.payload)

    def explores_at(self, tick: int) -> bool:
        """Whether an action chosen from the frame of `tick` is a random one."""
        return mix(self._seed, _COIN_STREAM, self._block_of(tick)) < self._schedule.epsilon(tick) * 2.0**64

    def act(self, *, frame_seq: int, out: Array, tick: int | None = None) -> None:
        """As the inner policy, or at random. Allocates a generator and an action where it explores."""
        seen_tick = frame_seq if tick is None else tick
        explores = self.explores_at(seen_tick)
        if self._always_infer or not explores:
            self.inner.act(frame_seq=frame_seq, out=out, tick=tick)
        self.timing.explored = 0
        if self.timing.abstained and self.needs.state:
            return  # a random action would hand the state on, as one that has seen this frame
        if explores:
            self._draw(self._block_of(seen_tick), out)
            self.timing.explored = len(out)
            self.timing.abstained = 0
            self.timing.clipped = 0

    def _draw(self, block: int, out: Array) -> None:
        """The block's actions, a chunk of them: the same for each of its ticks. Uniform over the space."""
        action = self._action
        choices = action.num_choices or ((2,) * action.num_elements if action.kind == "multi_binary" else ())
        if choices:
            # A tenth of what a generator costs. The remainder of 64 bits favours no choice by more than 2**-56.
            numbers = range(len(out) * len(choices))
            drawn = [mix(self._seed, _ACTION_STREAM, block, each) % choices[each % len(choices)] for each in numbers]
            out[...] = np.array(drawn, out.dtype).reshape(out.shape) + action.low_array
            return
        rng = np.random.Generator(np.random.Philox(key=mix(self._seed, _ACTION_STREAM, block)))
        for step in range(len(out)):
            action.encode(action.sample(rng), out[step, ...])

    def _block_of(self, tick: int) -> int:
        return (self._schedule.ticks_before + tick) // self._explore_ticks


def _note(schedule: EpsilonSchedule, explore_ticks: int) -> str:
    kept = f", each kept for {explore_ticks} ticks" if explore_ticks > 1 else ""
    return f"explores: epsilon {schedule.start:g} to {schedule.end:g} over {schedule.ticks} ticks{kept}"
