"""Decisions of a delayed run as transitions: what a learner, ours or anyone's, trains on.

Under delay the steps of learning are decisions, not ticks (arXiv 2412.14355; the induced delayed semi-MDP): the frame
the decision saw, its action, the rewards of the ticks it governed, the frame the *next* decision saw. A decision
governs the ticks from the one at which it was first applied to the one before the next decision's, ticks without a
policy action included. `TransitionBuilder` is pure; `TransitionReader` reads a run's frame ring, which is the replay
memory: frames stay where the env process put them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rtcore.dispatch import TickKind
from rtcore.ring import FrameHeader, FrameRing, ReadStatus
from rtcore.spaces import ActionSpec


class Transition(NamedTuple):
    """One decision. Frames by their number in the ring; everything else by value.

    `reward`: sum over the `num_ticks` ticks it governed, discounted within them if the builder was told so.
    `discount`: gamma ** num_ticks, whether the episode goes on or not: bootstrap with `discount * (1 - terminated)`.
    `next_obs_seq`: the frame the next decision saw. At the end of an episode there is none: then the frame that it
    would have seen at the same delay (the last one, where the episode terminated: it is not bootstrapped from).
    """

    obs_seq: int
    action: bytes
    reward: float
    discount: float
    next_obs_seq: int
    terminated: bool
    truncated: bool
    tick: int
    num_ticks: int
    delay_ticks: int
    worker: int
    policy_version: int
    episode: int


@dataclass
class TransitionCounts:
    """What became of the ticks: nothing is dropped without being counted here."""

    transitions: int = 0
    unowned_ticks: int = 0  #: before the first decision of an episode: nobody's reward
    unowned_reward: float = 0.0
    lost_decisions: int = 0  #: a frame it saw, or a tick it governed, was overwritten before it was read
    lost_ticks: int = 0


@dataclass
class _Open:
    """The decision that governs the present tick."""

    header: FrameHeader
    action: bytes
    obs_seq: int
    reward: float = 0.0
    discount: float = 1.0
    num_ticks: int = 0


@dataclass
class TransitionBuilder:
    """Feed it every tick's header in order; it answers with the transitions that are complete now.

    `gamma` is per tick. `discount_rewards`: weigh the i-th governed tick's reward with gamma ** i (else: plain sum).
    """

    gamma: float = 0.99
    discount_rewards: bool = True
    memory_ticks: int = 4096  #: frames older than this are not looked for
    counts: TransitionCounts = field(default_factory=TransitionCounts)
    _open: _Open | None = None
    _seqs: deque[tuple[int, int]] = field(default_factory=deque)  #: (tick, frame_seq) of this episode, oldest first

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma={self.gamma} must be between 0 and 1")

    def feed(self, header: FrameHeader, action: bytes) -> list[Transition]:
        """The next tick. `action` is what was applied at it (`FrameRing.read_action`)."""
        done: list[Transition] = []
        if header.kind == TickKind.RESET:
            self._drop_open()
            self._seqs.clear()
            self._remember(header)
            return done
        if header.kind == TickKind.ACTED and not self._goes_on(header):
            obs_seq = self._seq_of(header.obs_tick)
            if self._open is not None:
                if obs_seq is None:
                    self._drop_open()
                else:
                    done.append(self._close(obs_seq, terminated=False, truncated=False))
            if obs_seq is None:
                self.counts.lost_decisions += 1
            else:
                self._open = _Open(header, action, obs_seq)
        self._add_reward(header)
        self._remember(header)
        if (header.terminated or header.truncated) and self._open is not None:
            terminated = bool(header.terminated)
            next_seq = header.frame_seq if terminated else self._would_have_seen(header)
            done.append(self._close(next_seq, terminated=terminated, truncated=not terminated))
        return done

    def skip(self, num_ticks: int) -> None:
        """Ticks that were overwritten before they were read: what governed them is not known any more."""
        self.counts.lost_ticks += num_ticks
        self._drop_open()
        self._seqs.clear()

    def _goes_on(self, header: FrameHeader) -> bool:
        """Whether this tick's action is a later one of the open decision's chunk."""
        if self._open is None:
            return False
        first = self._open.header
        return (header.worker, header.obs_tick, header.due_tick) == (first.worker, first.obs_tick, first.due_tick)

    def _add_reward(self, header: FrameHeader) -> None:
        decision = self._open
        if decision is None:
            self.counts.unowned_ticks += 1
            self.counts.unowned_reward += header.reward
            return
        decision.reward += header.reward * (decision.discount if self.discount_rewards else 1.0)
        decision.discount *= self.gamma
        decision.num_ticks += 1

    def _close(self, next_obs_seq: int, *, terminated: bool, truncated: bool) -> Transition:
        decision = self._open
        if decision is None:
            raise RuntimeError("no decision is open")
        self._open = None
        self.counts.transitions += 1
        header = decision.header
        return Transition(
            decision.obs_seq,
            decision.action,
            decision.reward,
            decision.discount,
            next_obs_seq,
            terminated,
            truncated,
            header.tick,
            decision.num_ticks,
            header.tick - header.obs_tick,
            header.worker,
            header.policy_version,
            header.episode,
        )

    def _drop_open(self) -> None:
        if self._open is not None:
            self._open = None
            self.counts.lost_decisions += 1

    # -- which frame is which tick's -----------------------------------------------------------------------

    def _remember(self, header: FrameHeader) -> None:
        self._seqs.append((header.tick, header.frame_seq))
        while self._seqs[0][0] < header.tick - self.memory_ticks:
            self._seqs.popleft()

    def _seq_of(self, tick: int) -> int | None:
        """The frame made at `tick`; None if it is not of this episode or too old to be known."""
        for known_tick, seq in reversed(self._seqs):
            if known_tick == tick:
                return seq
            if known_tick < tick:
                break
        return None

    def _would_have_seen(self, last: FrameHeader) -> int:
        """The frame that a decision at the tick after `last` would have seen, at the delay of the open one."""
        decision = self._open
        delay_ticks = decision.header.tick - decision.header.obs_tick if decision is not None else 1
        wanted = last.tick + 1 - delay_ticks
        # Ticks may have been skipped: the newest frame that is not newer than wanted, or the episode's first.
        return next((seq for tick, seq in reversed(self._seqs) if tick <= wanted), self._seqs[0][1])


class Batch(NamedTuple):
    """Transitions as arrays, one row each. Copies: they stay valid whatever becomes of the ring.

    obs, next_obs (N, *frame_shape) of the frame's dtype; action (N, *action_shape) of the action's dtype; reward and
    discount (N,) float32; terminated and truncated (N,) bool; tick, num_ticks, delay_ticks, policy_version (N,) int64.
    """

    obs: npt.NDArray[Any]
    action: npt.NDArray[Any]
    reward: npt.NDArray[np.float32]
    discount: npt.NDArray[np.float32]
    next_obs: npt.NDArray[Any]
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    tick: npt.NDArray[np.int64]
    num_ticks: npt.NDArray[np.int64]
    delay_ticks: npt.NDArray[np.int64]
    policy_version: npt.NDArray[np.int64]


#: What is kept of a transition beside its frames, which stay in the ring.
_ROW = np.dtype(
    [
        ("obs_seq", np.int64),
        ("next_obs_seq", np.int64),
        ("tick", np.int64),
        ("policy_version", np.int64),
        ("reward", np.float32),
        ("discount", np.float32),
        ("num_ticks", np.int32),
        ("delay_ticks", np.int32),
        ("terminated", np.bool_),
        ("truncated", np.bool_),
    ]
)


class TransitionReader:
    """The transitions of a run as they come, and a replay memory over those whose frames are still in the ring.

    Used by one thread. Reads only: it can delay nothing, and what is overwritten before it is read is counted
    (`counts`, `lapped_samples`), never returned. A row beside the frames takes `row_bytes`.
    """

    def __init__(
        self, ring: FrameRing, action: ActionSpec, phase_seq: int, builder: TransitionBuilder, first_frame: int = 0
    ) -> None:
        """`phase_seq` and `first_frame`: which frames of the ring are the run's."""
        self.builder = builder
        self.lapped_samples = 0
        self._ring = ring
        self._action = action
        self._phase_seq = phase_seq
        self._next_frame = first_frame
        self._capacity = ring.sequence.num_slots
        self._rows = np.zeros(self._capacity, _ROW)
        self._actions = np.zeros((self._capacity, action.nbytes), np.uint8)
        self._first = 0
        self._end = 0

    @property
    def counts(self) -> TransitionCounts:
        return self.builder.counts

    @property
    def row_bytes(self) -> int:
        """Memory per transition beside the frame it shares with its neighbours."""
        return _ROW.itemsize + self._action.nbytes

    def __len__(self) -> int:
        """Transitions to sample from."""
        return self._end - self._first

    def update(self) -> int:
        """Take in every tick since the last call; returns how many transitions that completed."""
        sequence, before = self._ring.sequence, self._end
        newest = sequence.newest()
        while self._next_frame <= newest:
            seq = self._next_frame
            status, header = self._ring.read_header(seq)
            action = self._ring.read_action(seq)
            if header is None or action is None:
                if status is ReadStatus.NOT_YET:
                    break
                # Overtaken: go on well ahead of the writer, not right in front of it.
                self._next_frame = max(seq + 1, newest - sequence.num_slots // 2)
                self.builder.skip(self._next_frame - seq)
                continue
            self._next_frame = seq + 1
            if header.phase_seq == self._phase_seq:
                for transition in self.builder.feed(header, action):
                    self._append(transition)
        self._forget_overwritten()
        return self._end - before

    def sample(self, batch_size: int, rng: np.random.Generator) -> Batch:
        """`batch_size` transitions, uniformly, with repetition. ValueError while there is none."""
        self._forget_overwritten()
        frames = self._ring.empty_frames(2 * batch_size)
        obs, next_obs = frames[:batch_size], frames[batch_size:]
        chosen = np.empty(batch_size, np.int64)
        for row in range(batch_size):
            chosen[row] = self._read_one(rng, obs[row, ...], next_obs[row, ...])
        return self._batch(chosen, obs, next_obs)

    def _read_one(self, rng: np.random.Generator, obs: npt.NDArray[Any], next_obs: npt.NDArray[Any]) -> int:
        while len(self):
            place = int(rng.integers(self._first, self._end)) % self._capacity
            row = self._rows[place]
            reads = (self._ring.read(int(row["obs_seq"]), obs), self._ring.read(int(row["next_obs_seq"]), next_obs))
            if reads == (ReadStatus.OK, ReadStatus.OK):
                return place
            self.lapped_samples += 1
            self._forget_overwritten()
        raise ValueError("there is no transition to sample from yet: call update() until len() is above 0")

    def _append(self, transition: Transition) -> None:
        place = self._end % self._capacity
        self._rows[place] = tuple(getattr(transition, name) for name in _ROW.names or ())
        self._actions[place] = np.frombuffer(transition.action, np.uint8)
        self._end += 1
        self._first = max(self._first, self._end - self._capacity)

    def _forget_overwritten(self) -> None:
        """A transition goes with the older of its frames; half a tick's margin is what a copy needs."""
        oldest = self._ring.sequence.newest() - self._ring.sequence.num_slots + 2
        while self._first < self._end and self._rows[self._first % self._capacity]["obs_seq"] < oldest:
            self._first += 1

    def _batch(self, places: npt.NDArray[np.int64], obs: npt.NDArray[Any], next_obs: npt.NDArray[Any]) -> Batch:
        rows, spec = self._rows[places], self._action
        raw = np.ascontiguousarray(self._actions[places]).view(spec.np_dtype)
        return Batch(
            obs,
            raw.reshape(len(places), *spec.shape),
            rows["reward"].copy(),
            rows["discount"].copy(),
            next_obs,
            rows["terminated"].copy(),
            rows["truncated"].copy(),
            rows["tick"].copy(),
            rows["num_ticks"].astype(np.int64),
            rows["delay_ticks"].astype(np.int64),
            rows["policy_version"].copy(),
        )
