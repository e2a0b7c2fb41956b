"""Decisions of a delayed run as transitions: what a learner, ours or anyone's, trains on.

Under delay the steps of learning are decisions, not ticks (arXiv 2412.14355; the induced delayed semi-MDP): the frame
the decision saw, its action, the rewards of the ticks it governed, the frame the *next* decision saw. A decision
governs the ticks from the one at which it was first applied to the one before the next decision's, ticks without a
policy action included. Of a policy that answers with chunks (`chunks`) each action of a chunk is a decision: what it
saw is the frame that its chunk saw. `TransitionBuilder` is pure: no ring, no process, no clock. `TransitionReader`
(replay_memory.py) reads a run's frame ring with it. docs/transitions.md has the picture.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from rtcore.memory.layout import FrameHeader
from rtcore.scheduling.dispatch import TickKind


class Transition(NamedTuple):
    """One decision. Frames by their number in the ring; everything else by value.

    `reward`: sum over the `num_ticks` ticks it governed, discounted within them if `discount_rewards`.
    `discount`: gamma ** num_ticks, whether the episode goes on or not: bootstrap with `discount * (1 - terminated)`.
    `next_obs_seq`: the frame the next decision saw. At the end of an episode there is none: then the frame that it
    would have seen at the same delay (the last one, where the episode terminated: it is not bootstrapped from).
    `first_seq`: the first frame of the episode, or a newer one that is old enough for every history.
    `seq`: the frame of the tick at which it was first applied, with which what it came with is kept.
    `chunk_index`: which action of its answer it is. Those of one answer have `obs_seq` and `worker` in common.
    `features_seq`, `features_age`: of a head's action the frame that its features came from, and how many ticks older
    that is than `obs_seq`; -1 for any other. `next_features_seq`, `next_features_age`: the same of the next decision.
    `decision`: number of the decision in the run. Within an episode, the one numbered one higher followed directly.
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
    first_seq: int
    seq: int
    chunk_index: int
    decision: int
    features_seq: int = -1
    features_age: int = -1
    next_features_seq: int = -1
    next_features_age: int = -1


@dataclass
class TransitionCounts:
    """What became of the ticks: nothing is dropped without being counted here."""

    transitions: int = 0
    unowned_ticks: int = 0  #: before the first decision of an episode: nobody's reward
    unowned_reward: float = 0.0
    lost_decisions: int = 0  #: a frame it saw, or a tick it governed, was overwritten before it was read
    lost_ticks: int = 0
    untaken_decisions: int = 0  #: complete, but overwritten before `TransitionReader.take` came to them


class _SeenFrame(NamedTuple):
    """What a decision saw: its frame, and of a head's the one that its features came from, with its age [ticks]."""

    obs_seq: int
    features_seq: int = -1
    features_age: int = -1


@dataclass
class _Open:
    """The decision that governs the present tick."""

    header: FrameHeader
    action: bytes
    seen: _SeenFrame
    decision: int
    reward: float = 0.0
    discount: float = 1.0
    num_ticks: int = 0


@dataclass
class TransitionBuilder:
    """Feed it every tick's header in order; it answers with the transitions that are complete now.

    Args:
        gamma: Discount per tick, 0 to 1.
        discount_rewards: Weigh the i-th governed tick's reward with gamma ** i; False: plain sum.
        memory_ticks: Frames older than this are not looked for.
        depth_frames: How far back from the frame it saw a decision needs frames or headers.
        chunks: Each action of a chunk is a decision of its own; False: the first one, which governs the others' ticks.
        counts: What became of the ticks.

    Raises:
        ValueError: `gamma` is not between 0 and 1.
    """

    gamma: float = 0.99
    discount_rewards: bool = True
    memory_ticks: int = 4096  #: frames older than this are not looked for
    depth_frames: int = 0  #: how far back from the frame it saw a decision needs frames or headers (`History`)
    chunks: bool = False
    counts: TransitionCounts = field(default_factory=TransitionCounts)
    _open: _Open | None = None
    _seqs: deque[tuple[int, int]] = field(default_factory=deque)  #: (tick, frame_seq) of this episode, oldest first
    _first_seq: int = -1  #: oldest frame of this episode that was read; -1: none yet
    _saw_reset: bool = False  #: and whether it is the episode's first
    _decisions: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma={self.gamma} must be between 0 and 1")

    def feed(self, header: FrameHeader, action: bytes) -> list[Transition]:
        """Take in the next tick.

        Args:
            header: That of its frame.
            action: What was applied at it (`FrameRing.read_action`).

        Returns:
            The transitions that it completes: 0, 1 or, where an episode ends, 2.
        """
        done: list[Transition] = []
        if header.kind == TickKind.RESET:
            self._drop_open()
            self._forget_episode()
            self._saw_reset = True
            self._remember(header)
            return done
        if header.kind == TickKind.ACTED and not self._goes_on(header):
            seen = self._seen_by(header)
            if self._open is not None:
                if seen is None:
                    self._drop_open()
                else:
                    done.append(self._close(seen, terminated=False, truncated=False))
            if seen is None:
                self.counts.lost_decisions += 1
            else:
                self._open = _Open(header, action, seen, self._decisions)
            self._decisions += 1
        self._add_reward(header)
        self._remember(header)
        if (header.terminated or header.truncated) and self._open is not None:
            terminated = bool(header.terminated)
            seen = _SeenFrame(header.frame_seq) if terminated else self._would_have_seen(header)
            done.append(self._close(seen, terminated=terminated, truncated=not terminated))
        return done

    def skip(self, num_ticks: int) -> None:
        """Ticks that were overwritten before they were read: what governed them is not known any more.

        Args:
            num_ticks: How many.
        """
        self.counts.lost_ticks += num_ticks
        self._drop_open()
        self._forget_episode()

    def _goes_on(self, header: FrameHeader) -> bool:
        """Whether this tick's action is a later one of the open decision's chunk, or the same once more."""
        if self._open is None or (self.chunks and header.chunk_index != self._open.header.chunk_index):
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

    def _close(self, next_seen: _SeenFrame, *, terminated: bool, truncated: bool) -> Transition:
        decision = self._open
        if decision is None:
            raise RuntimeError("no decision is open")
        self._open = None
        self.counts.transitions += 1
        header = decision.header
        return Transition(
            obs_seq=decision.seen.obs_seq,
            action=decision.action,
            reward=decision.reward,
            discount=decision.discount,
            next_obs_seq=next_seen.obs_seq,
            terminated=terminated,
            truncated=truncated,
            tick=header.tick,
            num_ticks=decision.num_ticks,
            delay_ticks=header.tick - header.obs_tick,
            worker=header.worker,
            policy_version=header.policy_version,
            episode=header.episode,
            first_seq=self._first_seq,
            seq=header.frame_seq,
            chunk_index=header.chunk_index,
            decision=decision.decision,
            features_seq=decision.seen.features_seq,
            features_age=decision.seen.features_age,
            next_features_seq=next_seen.features_seq,
            next_features_age=next_seen.features_age,
        )

    def _drop_open(self) -> None:
        if self._open is not None:
            self._open = None
            self.counts.lost_decisions += 1

    # -- which frame is which tick's -----------------------------------------------------------------------

    def _forget_episode(self) -> None:
        self._seqs.clear()
        self._first_seq, self._saw_reset = -1, False

    def _remember(self, header: FrameHeader) -> None:
        if self._first_seq < 0:
            self._first_seq = header.frame_seq
        self._seqs.append((header.tick, header.frame_seq))
        while self._seqs[0][0] < header.tick - self.memory_ticks:
            self._seqs.popleft()

    def _seen_by(self, header: FrameHeader) -> _SeenFrame | None:
        """What the decision saw that is applied at this tick; None if any of it is unknown."""
        obs_seq = self._usable_seq_of(header.obs_tick)
        if obs_seq is None or header.features_tick < 0:
            return None if obs_seq is None else _SeenFrame(obs_seq)
        features_seq = self._usable_seq_of(header.features_tick)
        return (
            None if features_seq is None else _SeenFrame(obs_seq, features_seq, header.obs_tick - header.features_tick)
        )

    def _usable_seq_of(self, tick: int) -> int | None:
        """The frame made at `tick`; None if it, or a frame of its history, is unknown."""
        seq = self._seq_of(tick)
        if seq is None or self._saw_reset or seq - self.depth_frames >= self._first_seq:
            return seq
        return None

    def _seq_of(self, tick: int) -> int | None:
        """The frame made at `tick`; None if it is not of this episode or too old to be known."""
        for known_tick, seq in reversed(self._seqs):
            if known_tick == tick:
                return seq
            if known_tick < tick:
                break
        return None

    def _would_have_seen(self, last: FrameHeader) -> _SeenFrame:
        """What a decision at the tick after `last` would have seen, at the delay of the open one."""
        decision = self._open
        delay_ticks = decision.header.tick - decision.header.obs_tick if decision is not None else 1
        wanted = last.tick + 1 - delay_ticks
        age = decision.seen.features_age if decision is not None else -1
        obs_seq = self._newest_seq_at(wanted)
        return _SeenFrame(obs_seq) if age < 0 else _SeenFrame(obs_seq, self._newest_seq_at(wanted - age), age)

    def _newest_seq_at(self, wanted: int) -> int:
        """Ticks may have been skipped: the newest frame that is not newer than wanted, or the episode's first."""
        return next((seq for tick, seq in reversed(self._seqs) if tick <= wanted), self._seqs[0][1])
