"""A run's frame ring as the replay memory: frames stay where the env process put them, sampled in place."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from rtcore.clock import NS_PER_MS
from rtcore.learn.priorities import Places, Priorities
from rtcore.learn.transitions import Transition, TransitionBuilder, TransitionCounts
from rtcore.memory.history import History
from rtcore.memory.ring import FrameRing, ReadStatus
from rtcore.spaces import ActionSpec
from rtcore.spaces.payload import STAMP

#: Frames of a batch: one array, or of a Dict world one for each part by name.
Observations: TypeAlias = npt.NDArray[Any] | dict[str, npt.NDArray[Any]]
#: How old the parts of frames were when these were published, (N,) [ms] by a part's name.
Ages: TypeAlias = dict[str, npt.NDArray[np.float32]]


class NothingToSample(ValueError):
    """There is no transition yet, or all have been overwritten."""


class Batch(NamedTuple):
    """Transitions as arrays, one row each. Copies: they stay valid when the ring is overwritten.

    obs, next_obs (N, *frame_shape) of the frame's dtype, or (N, h+1, *frame_shape) oldest first with an `obs_history`
    of h; of a Dict world each is a dict of such arrays, the parts by name, which share one memory. action (N,
    *action_shape) of the action's dtype; reward and discount (N,) float32; terminated and truncated (N,) bool; tick,
    num_ticks, delay_ticks, policy_version, worker, num_decisions, episode, chunk_index (N,) int64. past_actions and
    next_past_actions (N, m, *action_shape) oldest first, or None without an `act_history`.

    row (N,) int64: numbers of the rows, for `TransitionReader.set_priorities`; decision (N,) int64: numbers of the
    decisions in the run, in which a gap is what was lost. probability (N,) float64: with which each row was drawn, or
    None where all are equally likely. extras and state: what the policy gave with each action and what it carried into
    the decision, arrays (N, ...) by name; None for a policy that has none. task and next_task: the run's task when obs
    and next_obs were seen, arrays (N, ...) by name (`TaskSpec`); None of a run without one. ages_ms, next_ages_ms: how
    old the parts of obs and next_obs were when these were published, as a policy is told, (N,) float32 [ms] by name;
    None where the world does not say when they were measured.

    Of a policy with two speeds (else None): trunk_obs (N, *frame_shape), the frames that the features came from;
    features_age (N,) int64, how many ticks older than obs they were, -1 where the trunk's base action was applied
    (then both are the frame that it saw); actions_since (N, C, *action_shape), what was applied in these ticks, 0
    behind; trunk_ages_ms, the ages of trunk_obs's parts. next_trunk_obs, next_features_age, next_actions_since,
    next_trunk_ages_ms: the same of the next decision.

    With n-step returns a row is up to n decisions: `reward`, `discount`, `num_ticks` of them all, `next_obs` and the
    two flags of the last, the rest of the first.
    """

    obs: Observations
    action: npt.NDArray[Any]
    reward: npt.NDArray[np.float32]
    discount: npt.NDArray[np.float32]
    next_obs: Observations
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    tick: npt.NDArray[np.int64]
    num_ticks: npt.NDArray[np.int64]
    delay_ticks: npt.NDArray[np.int64]
    policy_version: npt.NDArray[np.int64]
    worker: npt.NDArray[np.int64]
    num_decisions: npt.NDArray[np.int64]
    episode: npt.NDArray[np.int64]
    chunk_index: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    decision: npt.NDArray[np.int64]
    past_actions: npt.NDArray[Any] | None = None
    next_past_actions: npt.NDArray[Any] | None = None
    probability: npt.NDArray[np.float64] | None = None
    extras: dict[str, npt.NDArray[Any]] | None = None
    state: dict[str, npt.NDArray[Any]] | None = None
    info: dict[str, npt.NDArray[Any]] | None = None
    trunk_obs: Observations | None = None
    features_age: npt.NDArray[np.int64] | None = None
    actions_since: npt.NDArray[Any] | None = None
    next_trunk_obs: Observations | None = None
    next_features_age: npt.NDArray[np.int64] | None = None
    next_actions_since: npt.NDArray[Any] | None = None
    task: dict[str, npt.NDArray[Any]] | None = None
    next_task: dict[str, npt.NDArray[Any]] | None = None
    ages_ms: Ages | None = None
    next_ages_ms: Ages | None = None
    trunk_ages_ms: Ages | None = None
    next_trunk_ages_ms: Ages | None = None


#: What is kept of each transition beside its frames, which stay in the ring: these of its fields, and `_MORE`.
_FIELDS = {
    "obs_seq": "i8",
    "next_obs_seq": "i8",
    "first_seq": "i8",
    "tick": "i8",
    "policy_version": "i8",
    "reward": "f8",
    "discount": "f8",
    "episode": "i4",
    "num_ticks": "i4",
    "delay_ticks": "i4",
    "worker": "i4",
    "chunk_index": "i4",
    "terminated": "?",
    "truncated": "?",
}
#: And these, where something is kept with a tick, and of a policy with two speeds.
_KEPT_FIELDS = {"seq": "i8"}
_TWO_SPEED_FIELDS = {
    "features_seq": "i8",
    "next_features_seq": "i8",
    "features_age": "i4",
    "next_features_age": "i4",
}
#: `lost`: decisions that have no row, of those before it. `follows`: it is the decision right after the one in the row
#: before, in the same episode.
_MORE = {"lost": "u4", "follows": "?"}


class _Chain(NamedTuple):
    """Up to n decisions as one, for each row of a batch: sums, products, and where the last of them is."""

    reward: npt.NDArray[np.float64]
    discount: npt.NDArray[np.float64]
    num_ticks: npt.NDArray[np.int64]
    num_decisions: npt.NDArray[np.int64]
    last: Places


class _Copied(NamedTuple):
    """Rows of a batch as they were copied: frames, and what was kept with the ticks (None: nothing is)."""

    chain: _Chain
    obs: npt.NDArray[Any]
    next_obs: npt.NDArray[Any]
    kept: npt.NDArray[Any] | None
    trunk_obs: npt.NDArray[Any] | None
    next_trunk_obs: npt.NDArray[Any] | None
    seen_with: npt.NDArray[Any] | None  #: what was kept with the frames that were seen, where that has a task or stamps
    next_seen_with: npt.NDArray[Any] | None
    trunk_seen_with: npt.NDArray[Any] | None
    next_trunk_seen_with: npt.NDArray[Any] | None


class TransitionReader:
    """Reads the transitions of a run as they come, and samples from those whose frames are still in the ring.

    Used by one thread. It only reads, so it delays nobody. What is overwritten before it is read is counted
    (`counts`, `lapped_samples`), never returned.
    """

    def __init__(
        self,
        ring: FrameRing,
        action: ActionSpec,
        phase_seq: int,
        builder: TransitionBuilder,
        first_frame: int = 0,
        history: History | None = None,
        since_ticks: int = 0,
    ) -> None:
        """Of a run's ring; `Runtime.transitions` makes one.

        Args:
            ring: The run's frames.
            action: The world's action space as bytes.
            phase_seq: Frames of other phases are no decisions of the run.
            builder: Makes transitions of ticks; its gamma is that of the samples.
            first_frame: Number of the first frame to read.
            history: How many older frames and actions a sample holds; None: none.
            since_ticks: Of a policy with two speeds: how many actions `actions_since` has. 0: it has one speed.

        Raises:
            ConfigError: The ring is too small for that history.
        """
        self.builder = builder
        self.history = history or History()
        if self.history.depth_frames:
            self.history.require_room(ring.sequence.num_slots)
        builder.depth_frames = max(builder.depth_frames, self.history.depth_frames)
        self.lapped_samples = 0
        self._ring = ring
        self._action = action
        self._phase_seq = phase_seq
        self._next_frame = first_frame
        self._capacity = ring.sequence.num_slots
        has_stamps = any(name.startswith(STAMP) for name in ring.kept.names)
        self._has_seen_with = has_stamps or any(name.startswith("task.") for name in ring.kept.names)
        fields = _FIELDS | (_KEPT_FIELDS if ring.kept else {}) | (_TWO_SPEED_FIELDS if since_ticks else {})
        self._fields_of = attrgetter(*fields)
        self._rows = np.zeros(self._capacity, [*fields.items(), *_MORE.items()])
        self._actions = np.zeros((self._capacity, action.nbytes), np.uint8)
        # The action of each frame's tick, from which past actions are sampled. None without an `act_history`.
        self._since_ticks = since_ticks
        self._applied = np.zeros_like(self._actions) if self.history.act_history or since_ticks else None
        self._frame_ticks = np.zeros(self._capacity if since_ticks else 0, np.int64)
        # When each frame was published: what the ages of its parts are reckoned from. None: nobody says those.
        self._published_ns = np.zeros(self._capacity, np.int64) if has_stamps else None
        # For `digest_with`: the digest of each frame in the ring, and the number of the frame it belongs to.
        self._digest: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] | None = None
        self._digests: npt.NDArray[Any] = np.empty(0)
        self._digested = np.empty(0, np.int64)
        self._first = 0
        self._end = 0
        self._taken = 0  #: row that `take` comes to next
        self._priorities: Priorities | None = None
        self._weighed_from = self._weighed_to = 0  #: rows that have a priority
        self._last_decision = -2  #: number of the newest row; -2: no row that another could follow

    def digest_with(self, digest: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> None:
        """From now on samples hold the digest of each frame in its place.

        Args:
            digest: Raw frames (n, *frame_shape) to (n, ...). Called once for each sampled frame; the result is kept as
                long as the frame is in the ring: later samples of it copy only that.
        """
        self._digest = digest
        one = digest(np.zeros_like(self._ring.empty_frames(1)))
        self._digests = np.zeros((self._capacity, *one.shape[1:]), one.dtype)
        self._digested = np.full(self._capacity, -1, np.int64)

    @property
    def counts(self) -> TransitionCounts:
        return self.builder.counts

    def __len__(self) -> int:
        """Transitions to sample from."""
        return self._end - self._first

    # -- taking in ticks -----------------------------------------------------------------------------------

    def update(self) -> int:
        """Take in every tick since the last call.

        Returns:
            How many transitions that completed.
        """
        sequence, before = self._ring.sequence, self._end
        newest = sequence.newest()
        while self._next_frame <= newest:
            seq = self._next_frame
            status, header = self._ring.read_header(seq)
            action = self._ring.read_action(seq)
            if header is None or action is None:
                if status is ReadStatus.NOT_YET:
                    break
                newest = sequence.newest()
                self._next_frame = max(seq + 1, sequence.resume_at())
                self.builder.skip(self._next_frame - seq)
                continue
            self._next_frame = seq + 1
            if header.phase_seq == self._phase_seq:
                if self._applied is not None:
                    self._applied[seq % self._capacity] = np.frombuffer(action, np.uint8)
                if self._since_ticks:
                    self._frame_ticks[seq % self._capacity] = header.tick
                if self._published_ns is not None:
                    self._published_ns[seq % self._capacity] = header.publish_ns
                for transition in self.builder.feed(header, action):
                    self._append(transition)
        self._forget_overwritten()
        return self._end - before

    def _append(self, transition: Transition) -> None:
        place = self._end % self._capacity
        follows = transition.decision == self._last_decision + 1
        ended = transition.terminated or transition.truncated
        self._last_decision = -2 if ended else transition.decision
        self._rows[place] = (*self._fields_of(transition), transition.decision - self._end, follows)
        self._actions[place] = np.frombuffer(transition.action, np.uint8)
        self._end += 1
        self._first = max(self._first, self._end - self._capacity)

    def _forget_overwritten(self) -> None:
        """Drop transitions whose oldest frame is overwritten, or will be next: it would be gone before it is copied."""
        oldest = self._ring.sequence.newest() - self._ring.sequence.num_slots + 2
        depth, rows, capacity = self.history.depth_frames, self._rows, self._capacity
        while self._first < self._end:
            row = rows[self._first % capacity]
            if max(self._oldest_seqs(row) - depth, row["first_seq"]) >= oldest:
                break
            self._first += 1

    # -- sampling ------------------------------------------------------------------------------------------

    def sample(
        self,
        batch_size: int,
        rng: np.random.Generator,
        *,
        n_step: int = 1,
        reuse: Batch | None = None,
        prioritized: bool = False,
    ) -> Batch:
        """Transitions, drawn with repetition.

        Args:
            batch_size: How many.
            rng: What they are drawn by.
            n_step: Chain up to so many consecutive decisions: fewer where the episode ends, where one was lost, and
                where the next one is not complete yet. Never across any of these.
            reuse: A batch of the same size that is not needed any more: its `obs` and `next_obs` are overwritten and
                returned, because allocating memory for a batch of images takes several times as long as copying it.
            prioritized: Draw rows in proportion to their priorities (`set_priorities`); False: uniformly.

        Returns:
            The batch: copies, that stay valid when the ring is overwritten.

        Raises:
            NothingToSample: There is no transition yet, or all have been overwritten (a ValueError).
            ValueError: `batch_size` or `n_step` is below 1.
        """
        if batch_size < 1 or n_step < 1:
            raise ValueError(f"batch_size={batch_size}, n_step={n_step}: both must be at least 1")
        self._forget_overwritten()
        positions = self._draw(batch_size, rng, prioritized)
        batch = self._copied(positions, n_step, reuse)
        while (lapped := self._lapped(positions)).any():
            # These rows were overwritten while they were copied: draw them again from the rest.
            again = np.flatnonzero(lapped)
            self.lapped_samples += len(again)
            self._forget_overwritten()
            positions[again] = self._draw(len(again), rng, prioritized)
            _put(self._copied(positions[again], n_step), again, batch)
        return self._finished(batch, positions, prioritized)

    def set_priorities(self, rows: Places, priorities: npt.NDArray[Any]) -> None:
        """Say how likely rows are to be drawn by a prioritized `sample`. Rows that are no longer there are left out.

        Args:
            rows: (n,) `Batch.row`.
            priorities: (n,) above 0, to any power already. A new row gets the largest that was ever given.

        Raises:
            ValueError: A priority is no finite number above 0.
        """
        values = np.asarray(priorities, np.float64)
        if values.shape != rows.shape or not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(f"priorities {values.ravel()[:8].tolist()}: expected a finite number above 0 for each row")
        tree = self._weighed()
        there = (rows >= self._first) & (rows < self._end)
        tree.set(rows[there] % self._capacity, values[there])

    def take(self, count: int) -> Batch | None:
        """The next decisions, in the order in which they were applied, each once.

        Args:
            count: How many. What is overwritten before it is taken is left out and counted (`counts`): the numbers in
                `Batch.decision` have a gap there.

        Returns:
            (count, ...) each; None while there are fewer.

        Raises:
            ValueError: `count` is below 1, or the ring never keeps as many.
        """
        if not 1 <= count <= self._capacity - 2:
            raise ValueError(f"take({count}): expected 1 to {self._capacity - 2}, as many as the ring keeps")
        self.update()
        while True:
            self._forget_overwritten()
            if self._taken < self._first:
                self.counts.untaken_decisions += self._first - self._taken
                self._taken = self._first
            positions = np.arange(self._taken, self._taken + count)
            if self._taken + count > self._end:
                return None
            batch = self._copied(positions, 1)
            if not self._lapped(positions).any():
                self._taken += count
                return self._finished(batch, positions, False)

    def _draw(self, count: int, rng: np.random.Generator, prioritized: bool) -> Places:
        if not len(self):
            raise NothingToSample("there is no transition to sample from yet: call update() until len() is above 0")
        if not prioritized:
            return rng.integers(self._first, self._end, count)
        return self._first + (self._weighed().draw(count, rng) - self._first) % self._capacity

    def _weighed(self) -> Priorities:
        """The priorities, of exactly the rows that there are."""
        if self._priorities is None:
            self._priorities = Priorities(self._capacity)
        tree, first, end = self._priorities, self._first, self._end
        gone = np.arange(max(self._weighed_from, self._weighed_to - self._capacity), min(first, self._weighed_to))
        tree.set(gone % self._capacity, 0.0)
        tree.set(np.arange(max(self._weighed_to, first), end) % self._capacity, tree.newest)
        self._weighed_from, self._weighed_to = first, end
        return tree

    def _copied(self, positions: Places, n_step: int, reuse: Batch | None = None) -> _Copied:
        """Copies from the ring for these rows. They may be overwritten meanwhile: ask `_lapped` afterwards."""
        chain = self._chain(positions, n_step)
        rows, last_rows = self._rows[positions % self._capacity], self._rows[chain.last % self._capacity]
        first_seqs = rows["first_seq"]
        obs, next_obs = (None, None) if reuse is None else (_memory_of(reuse.obs), _memory_of(reuse.next_obs))
        obs = self._frames_of(rows["obs_seq"], first_seqs, obs)
        next_obs = self._frames_of(last_rows["next_obs_seq"], first_seqs, next_obs)
        kept = self._ring.gather_kept(rows["seq"]) if "seq" in (rows.dtype.names or ()) else None
        trunk_obs = next_trunk_obs = None
        if self._since_ticks:
            trunk_obs = self._frames_of(_trunk_seqs(rows, ""), first_seqs)
            next_trunk_obs = self._frames_of(_trunk_seqs(last_rows, "next_"), first_seqs)
        seen_with = next_seen_with = trunk_seen_with = next_trunk_seen_with = None
        if self._has_seen_with:
            seen_with = self._ring.gather_kept(rows["obs_seq"])
            next_seen_with = self._ring.gather_kept(last_rows["next_obs_seq"])
            if self._since_ticks and self._published_ns is not None:
                trunk_seen_with = self._ring.gather_kept(_trunk_seqs(rows, ""))
                next_trunk_seen_with = self._ring.gather_kept(_trunk_seqs(last_rows, "next_"))
        return _Copied(
            chain,
            obs,
            next_obs,
            kept,
            trunk_obs=trunk_obs,
            next_trunk_obs=next_trunk_obs,
            seen_with=seen_with,
            next_seen_with=next_seen_with,
            trunk_seen_with=trunk_seen_with,
            next_trunk_seen_with=next_trunk_seen_with,
        )

    def _chain(self, positions: Places, n_step: int) -> _Chain:
        # All steps of all chains at once, (n, B): step by step it took a sixth of the time of a small network's update.
        steps = positions + np.arange(n_step)[:, None]
        places = steps % self._capacity
        goes_on = self._rows["follows"][places] & (steps < self._end)
        goes_on[0] = True
        goes_on = np.logical_and.accumulate(goes_on)
        discount = np.multiply.accumulate(np.where(goes_on, self._rows["discount"][places], 1.0))
        reward = np.where(goes_on, self._rows["reward"][places], 0.0)
        reward[1:] *= discount[:-1]
        num_ticks, num_decisions = np.where(goes_on, self._rows["num_ticks"][places], 0), goes_on.sum(axis=0)
        # One after the other, whatever the shape: the same bits in a batch of one.
        reward = np.add.accumulate(reward)[-1]
        return _Chain(
            reward, discount[-1], num_ticks.sum(axis=0, dtype=np.int64), num_decisions, positions + num_decisions - 1
        )

    def _frames_of(self, seqs: Places, first_seqs: Places, memory: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Frames with the older ones that belong to them, or their digests; in `memory` if there is some."""
        if self.history.obs_history:
            seqs = self.history.frame_seqs(seqs, first_seqs)
        return self._digests_of(seqs) if self._digest is not None else self._ring.gather(seqs, memory)

    def _digests_of(self, seqs: Places) -> npt.NDArray[Any]:
        """As `FrameRing.gather`, of the digests; missing ones are computed."""
        places = seqs % self._capacity
        missing = np.unique(seqs[self._digested[places] != seqs])
        if self._digest is not None and len(missing):
            digests = self._digest(self._ring.gather(missing))
            # Check after the copies: digests of overwritten frames are not kept, and their rows are drawn again.
            whole = ~self._ring.lapped(missing)
            self._digests[missing[whole] % self._capacity] = digests[whole]
            self._digested[missing[whole] % self._capacity] = missing[whole]
        return self._digests[places]

    def _lapped(self, positions: Places) -> npt.NDArray[np.bool_]:
        """The rows whose oldest frame the writer has begun to overwrite. To be called after the copies."""
        rows = self._rows[positions % self._capacity]
        depth = self.history.obs_depth_frames
        return self._ring.lapped(np.maximum(self._oldest_seqs(rows) - depth, rows["first_seq"]))

    def _oldest_seqs(self, rows: Any) -> Any:
        """The older of the frame that a decision saw and the one that its features came from."""
        return np.minimum(rows["obs_seq"], _trunk_seqs(rows, "")) if self._since_ticks else rows["obs_seq"]

    def _finished(self, copied: _Copied, positions: Places, prioritized: bool) -> Batch:
        chain, obs, next_obs, kept, trunk_obs, next_trunk_obs = copied[:6]
        places, last_places = positions % self._capacity, chain.last % self._capacity
        rows, last_rows = self._rows[places], self._rows[last_places]
        trunk_seqs, next_trunk_seqs = rows["obs_seq"], last_rows["next_obs_seq"]
        if self._since_ticks:
            trunk_seqs, next_trunk_seqs = _trunk_seqs(rows, ""), _trunk_seqs(last_rows, "next_")
        past = next_past = None
        if self.history.act_history:
            past = self._past_actions(rows["obs_seq"], rows["first_seq"])
            next_past = self._past_actions(last_rows["next_obs_seq"], rows["first_seq"])
        return Batch(
            obs=self._ring.unpack(obs),
            action=self._as_actions(self._actions[places]),
            reward=chain.reward.astype(np.float32),
            discount=chain.discount.astype(np.float32),
            next_obs=self._ring.unpack(next_obs),
            terminated=last_rows["terminated"].copy(),
            truncated=last_rows["truncated"].copy(),
            tick=rows["tick"].copy(),
            num_ticks=chain.num_ticks,
            delay_ticks=rows["delay_ticks"].astype(np.int64),
            policy_version=rows["policy_version"].copy(),
            worker=rows["worker"].astype(np.int64),
            num_decisions=chain.num_decisions,
            episode=rows["episode"].astype(np.int64),
            chunk_index=rows["chunk_index"].astype(np.int64),
            row=positions,
            decision=positions + rows["lost"],
            past_actions=past,
            next_past_actions=next_past,
            probability=self._priorities.probability(places) if prioritized and self._priorities else None,
            extras=kept_arrays(kept, "extras"),
            state=kept_arrays(kept, "state"),
            info=kept_arrays(kept, "info"),
            trunk_obs=None if trunk_obs is None else self._ring.unpack(trunk_obs),
            features_age=rows["features_age"].astype(np.int64) if self._since_ticks else None,
            actions_since=self._actions_since(rows, "") if self._since_ticks else None,
            next_trunk_obs=None if next_trunk_obs is None else self._ring.unpack(next_trunk_obs),
            next_features_age=last_rows["next_features_age"].astype(np.int64) if self._since_ticks else None,
            next_actions_since=self._actions_since(last_rows, "next_") if self._since_ticks else None,
            task=kept_arrays(copied.seen_with, "task"),
            next_task=kept_arrays(copied.next_seen_with, "task"),
            ages_ms=self._ages_ms(copied.seen_with, rows["obs_seq"]),
            next_ages_ms=self._ages_ms(copied.next_seen_with, last_rows["next_obs_seq"]),
            trunk_ages_ms=self._ages_ms(copied.trunk_seen_with, trunk_seqs),
            next_trunk_ages_ms=self._ages_ms(copied.next_trunk_seen_with, next_trunk_seqs),
        )

    def _ages_ms(self, kept: npt.NDArray[Any] | None, seqs: Places) -> Ages | None:
        """Of the frames of these numbers."""
        if self._published_ns is None or kept is None:
            return None
        return ages_ms_of(kept, self._published_ns[seqs % self._capacity])

    def _actions_since(self, rows: npt.NDArray[Any], which: str) -> npt.NDArray[Any]:
        """(N, C, *action_shape): what was applied at each tick after that of the features' frame, as the head gets it;
        0 for a tick that was not run."""
        if self._applied is None:
            raise RuntimeError("no past actions are kept: since_ticks is 0")
        begin, end = _trunk_seqs(rows, which), rows[f"{which}obs_seq"]
        seqs = begin[:, None] + np.arange(1, self._since_ticks + 1)
        at = self._frame_ticks[seqs % self._capacity] - self._frame_ticks[begin % self._capacity][:, None] - 1
        row, which_seq = np.nonzero((seqs <= end[:, None]) & (at >= 0) & (at < self._since_ticks))
        raw = np.zeros((*seqs.shape, self._action.nbytes), np.uint8)
        raw[row, at[row, which_seq]] = self._applied[seqs[row, which_seq] % self._capacity]
        return self._as_actions(raw)

    def _past_actions(self, seqs: Places, first_seqs: Places) -> npt.NDArray[Any]:
        applied = self._applied
        if applied is None:
            raise RuntimeError("no past actions are kept: act_history is 0")
        return self._as_actions(applied[self.history.action_seqs(seqs, first_seqs) % self._capacity])

    def _as_actions(self, raw: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """(..., action_bytes) to (..., *action_shape)."""
        return raw.view(self._action.np_dtype).reshape(*raw.shape[:-1], *self._action.shape)


def _trunk_seqs(rows: npt.NDArray[Any], which: str) -> Places:
    """The frames that features came from: where there are none the frame that was seen. `which`: "" or "next_"."""
    return np.where(rows[f"{which}features_seq"] >= 0, rows[f"{which}features_seq"], rows[f"{which}obs_seq"])


def _put(part: _Copied, at: Places, whole: _Copied) -> None:
    """Rows of one in place of those of another."""
    arrays: list[tuple[Any, Any]] = [*zip(whole.chain, part.chain, strict=True), *zip(whole[1:], part[1:], strict=True)]
    for target, source in arrays:
        if target is not None:
            target[at] = source


def kept_arrays(kept: npt.NDArray[Any] | None, what: str) -> dict[str, npt.NDArray[Any]] | None:
    """The arrays `what.NAME` of kept blocks.

    Args:
        kept: (N,) of the ring's `kept.dtype`; None: nothing is kept.
        what: "extras", "state", "requested", "info", "stamp_ns" or "task".

    Returns:
        Copies (N, ...) by name; None if there are none.
    """
    if kept is None:
        return None
    names = [name for name in kept.dtype.names or () if name.startswith(f"{what}.")]
    return {name.partition(".")[2]: np.ascontiguousarray(kept[name]) for name in names} or None


def ages_ms_of(kept: npt.NDArray[Any] | None, published_ns: npt.NDArray[np.int64]) -> Ages | None:
    """How old the parts of frames were when these were published, as their policy was told.

    Args:
        kept: (N,) what is kept with them, as of `kept_arrays`.
        published_ns: (N,) of their headers.

    Returns:
        (N,) each; None if no stamps are kept.
    """
    stamps_ns = kept_arrays(kept, STAMP.removesuffix("."))
    if stamps_ns is None:
        return None
    return {name: (np.maximum(0, published_ns - of) / NS_PER_MS).astype(np.float32) for name, of in stamps_ns.items()}


def _memory_of(frames: Observations) -> npt.NDArray[Any] | None:
    """The array that `gather` filled. A Dict's parts are views of it."""
    return next(iter(frames.values())).base if isinstance(frames, dict) else frames
