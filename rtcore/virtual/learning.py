"""Learning on the virtual clock: learners are times at which updates end. No process, no sleeping; deterministic.

The algorithm, the master weights, the parameter store and the replay memory are those of a real run; here they live
in private memory. An update that begins at virtual time t is computed from what is there at t, and is applied and
published at t + `learn_latency_ms`: until then workers play with older weights, as in a real run.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from rtcore.clock import NS_PER_MS, NS_PER_S, ns_of
from rtcore.config.groups import VIRTUAL_UPDATES_PER_TICK, LearningSettings
from rtcore.config.resolved import ResolvedRun
from rtcore.errors import ConfigError
from rtcore.learn.checkpoint import SavedState
from rtcore.learn.checkpointer import Checkpointer, Snapshot
from rtcore.learn.optimizer import flatten_optimizer, unflatten_saved
from rtcore.learn.replay_memory import TransitionReader
from rtcore.learn.state import checkpoint_folder, judged_return, state_of
from rtcore.learn.transitions import TransitionBuilder
from rtcore.loop.teacher import TeacherAnswers
from rtcore.memory.history import History
from rtcore.memory.master import MasterState
from rtcore.memory.ring import FrameRing
from rtcore.memory.weights import ParamStore
from rtcore.results.run_record import RunRecord
from rtcore.results.summary import LearnerStats
from rtcore.spaces import ActionSpec, ObservationSpec, PolicyNeeds

_log = logging.getLogger(__name__)

#: Updates that the shown loss, TD error, value and gradient norm are means of.
_SHOWN_UPDATES = 100


class SimLearner(Protocol):
    """One learner: `rtcore_workers.dqn.DqnLearner` is one."""

    def compute(self) -> Any:
        """A gradient from the present weights: `loss`, `td_error`, `q_mean`, `grad_norm`, `flaw`."""
        ...

    def apply(self, gradient: Any) -> Any:
        """Make it an update: `commit.updates`, `version_diff`, `version`, `publish_skipped`."""
        ...


class SimAgent(Protocol):
    """A policy with its weights and learners: `rtcore_workers.virtual.Agent`."""

    @property
    def name(self) -> str: ...
    @property
    def store(self) -> ParamStore | None: ...
    @property
    def needs(self) -> PolicyNeeds: ...
    @property
    def observation(self) -> ObservationSpec: ...
    @property
    def action(self) -> ActionSpec: ...
    @property
    def epsilon(self) -> Callable[[int], float]: ...
    def learners(
        self, master: MasterState, replay: TransitionReader, teacher: TeacherAnswers | None
    ) -> Sequence[SimLearner]: ...


class VirtualLearners:
    """When a simulated run's learners learn. Implements `workers.Cycle` for the sequential modes.

    `learners`: N of them. mode async: they share the updates that `updates_per_tick` allows, each one at a time.
    The other modes: the one learner is part of the worker's turn, one update a turn.
    """

    def __init__(
        self,
        settings: LearningSettings,
        learners: Sequence[SimLearner],
        replay: TransitionReader,
        *,
        updates_before: int = 0,
    ) -> None:
        self.settings = settings
        self.updates = updates_before
        self.stopped = ""
        self.skipped_publications = 0
        self._updates_before = updates_before
        self._learners = learners
        self._replay = replay
        self._latency_ns = round(settings.learn_latency_ms * NS_PER_MS)
        self._rate = settings.updates_per_tick or VIRTUAL_UPDATES_PER_TICK
        self._tokens = 0.0
        self._idle = deque(range(len(learners)))
        #: Updates under way: (when it ends, its number, learner, its gradient).
        self._under_way: list[tuple[int, int, int, Any]] = []
        self._begun = 0
        self._newest: deque[Any] = deque(maxlen=_SHOWN_UPDATES)
        self._diffs = [math.inf, 0, -math.inf, 0]  # least, sum, most, count

    @property
    def has_begun(self) -> bool:
        """Whether there are transitions enough to learn from. A run that goes on needs a batch."""
        count, starts = len(self._replay), self.settings.learning_starts
        if self.updates == 0:
            return count > 0 and self._replay.counts.transitions >= starts
        return count >= min(starts, self.settings.batch_size)

    # -- learners of their own -----------------------------------------------------------------------------

    def after_tick(self, now_ns: int, next_ns: int) -> None:
        """The frame of the tick at `now_ns` is published: do what learners do until the next tick, due at `next_ns`."""
        self._replay.update()
        if self.settings.mode != "async":
            return
        if self.has_begun and not self.stopped:
            # Updates that were allowed while all learners were busy are not made later.
            self._tokens = min(self._tokens + self._rate, max(1.0, self._rate))
        while True:
            first_ns = self._under_way[0][0] if self._under_way else math.inf
            if first_ns <= now_ns:
                self._end_first()
            elif self._tokens >= 1 and self._idle and now_ns < next_ns and not self.stopped:
                self._begin(now_ns)
            elif first_ns <= next_ns:
                now_ns = self._end_first()
            else:
                return

    def _begin(self, now_ns: int) -> None:
        self._tokens -= 1
        learner = self._idle.popleft()
        gradient = self._learners[learner].compute()
        heapq.heappush(self._under_way, (now_ns + self._latency_ns, self._begun, learner, gradient))
        self._begun += 1

    def _end_first(self) -> int:
        end_ns, _, learner, gradient = heapq.heappop(self._under_way)
        self._idle.append(learner)
        if not self.stopped:
            self._apply(learner, gradient)
        return end_ns

    def _apply(self, learner: int, gradient: Any) -> None:
        if gradient.flaw:
            self.stopped = f"{gradient.flaw} was not finite at update {self.updates + 1}"
            _log.warning(f"learning has stopped: {self.stopped}; the last good weights keep playing")
            return
        update = self._learners[learner].apply(gradient)
        self.updates = update.commit.updates
        self.skipped_publications += update.publish_skipped
        self._newest.append(gradient)
        diff = update.version_diff
        least, total, most, count = self._diffs
        self._diffs = [min(least, diff), total + diff, max(most, diff), count + 1]

    # -- learning as part of a turn ------------------------------------------------------------------------

    def before_inference(self, now_ns: int) -> int:
        """How long the worker learns between reading its frame and inferring [ns]."""
        return self._learn_in_turn() if self.settings.mode == "learn-then-infer" else 0

    def after_answer(self, now_ns: int) -> int:
        """How long the worker learns after its answer, before it reads a frame again [ns]."""
        return self._learn_in_turn() if self.settings.mode == "infer-then-learn" else 0

    def _learn_in_turn(self) -> int:
        self._replay.update()
        if self.stopped or not self.has_begun:
            return 0
        self._apply(0, self._learners[0].compute())
        return self._latency_ns

    # -- what happened -------------------------------------------------------------------------------------

    def stats(self, *, version: int, epsilon: float, elapsed_s: float) -> LearnerStats:
        """Everything that is counted; rates are per virtual second."""
        settings = self.settings
        least, total, most, count = self._diffs
        made = self.updates - self._updates_before
        return LearnerStats(
            algorithm=settings.learn or "",
            mode=settings.mode,
            learners=len(self._learners),
            updates=self.updates,
            updates_per_s=made / elapsed_s if elapsed_s > 0 else math.nan,
            version=version,
            epsilon=epsilon,
            version_diff=(least, total / count, most) if count else (math.nan, math.nan, math.nan),
            transitions=len(self._replay),
            learning_starts=settings.learning_starts,
            lapped_samples=self._replay.lapped_samples,
            skipped_publications=self.skipped_publications,
            stopped=self.stopped,
            loss=self._mean("loss"),
            td_error=self._mean("td_error"),
            q_mean=self._mean("q_mean"),
            grad_norm=self._mean("grad_norm"),
        )

    def _mean(self, name: str) -> float:
        """Of the newest updates; NaN of none."""
        values = [getattr(gradient, name) for gradient in self._newest]
        return sum(values) / len(values) if values else math.nan


class VirtualLearning:
    """Everything that a simulated run has because it learns: master, replay memory, learners, checkpoints.

    `saved`: the checkpoint that learning goes on from. Checkpoints are by virtual time, every `checkpoint_every_s`, of
    the same format as a real run's. ConfigError if this world cannot be learned with these settings.
    """

    def __init__(
        self,
        run: ResolvedRun,
        agent: SimAgent,
        ring: FrameRing,
        saved: SavedState | None,
        teacher: TeacherAnswers | None = None,
    ) -> None:
        """`teacher`: for learn=imitate."""
        config = run.config
        self._env_info = {"observation": agent.observation.to_json(), "action": agent.action.to_json()}
        store = agent.store
        if store is None or not store.manifest().trainable_bytes:
            raise ConfigError(
                f"learn={config.learning.learn}: policy {config.agent.policy} has no trainable float32 parameter"
            )
        self.config = config
        self._run = run
        self.store = store
        self._agent = agent
        self._saved = saved
        self._manifest = manifest = store.manifest()
        self._before: Mapping[str, Any] = saved.state if saved is not None else {}
        self.master = MasterState.private(manifest.trainable_bytes, config.learning.learners)
        weights = manifest.trainable_array(store.buffer(store.newest().buffer))
        updates = int(self._before.get("updates", 0))
        self.master.begin(weights, updates=updates, **(unflatten_saved(manifest, saved) if saved is not None else {}))
        history = History.of(config.history)
        self.replay = TransitionReader(
            ring=ring,
            action=agent.action,
            phase_seq=0,
            builder=TransitionBuilder(config.learning.gamma),
            first_frame=0,
            history=history,
            since_ticks=agent.needs.since_ticks,
        )
        self.learners = VirtualLearners(
            config.learning, agent.learners(self.master, self.replay, teacher), self.replay, updates_before=updates
        )
        self.checkpoints: Checkpointer | None = None
        self._checkpoint_ticks = max(1, int(ns_of(config.weights.checkpoint_every_s) * run.rate_hz / NS_PER_S))
        self._num_ticks = 0

    @property
    def ticks_before(self) -> int:
        """Of the runs that this one goes on from."""
        return int(self._before.get("ticks", 0))

    def begin(self, record: RunRecord) -> None:
        """Before the first tick. Nothing is kept without an output folder."""
        config = self.config
        if config.output.out is None:
            return
        self.checkpoints = Checkpointer(
            checkpoint_folder(config.weights.keep_checkpoints, config.output.out, self._saved),
            config.weights.checkpoint_every_s,
            lambda: self._take(record),
            self._before.get("best_mean_return"),
        )

    def after_tick(self, tick: int, now_ns: int, next_ns: int) -> None:
        """Tick `tick`, which was due at `now_ns`, is done; the next one is due at `next_ns`."""
        self._num_ticks = tick + 1
        self.learners.after_tick(now_ns, next_ns)
        if self.checkpoints is not None and self._num_ticks % self._checkpoint_ticks == 0:
            self.checkpoints.write()

    def finish(self) -> None:
        """The last checkpoint, however the run ended."""
        if self.checkpoints is not None and self._num_ticks:
            self.checkpoints.write(last=True)

    def _take(self, record: RunRecord) -> Snapshot:
        copy, manifest = self.master.copy(), self._manifest
        buffer = np.array(np.frombuffer(self.store.buffer(self.store.newest().buffer), np.uint8))
        if not self.learners.stopped:  # else what plays is kept: the master's may be what diverged
            manifest.trainable_array(buffer)[:] = copy.weights
        named = manifest.arrays(buffer)
        network = {name: named[tensor.name] for name, tensor in manifest.by_name.items() if tensor.name in named}
        state = state_of(
            self.config,
            self._env_info,
            self._agent.name,
            updates=copy.updates,
            ticks=self.ticks_before + self._num_ticks,
            episodes=int(self._before.get("episodes", 0)) + record.episodes.count,
        )
        return Snapshot(network, flatten_optimizer(manifest, copy), state, judged_return(record))

    def stats(self) -> LearnerStats:
        """As of now."""
        checkpoints = self.checkpoints
        stats = self.learners.stats(
            version=self.store.newest_version(),
            epsilon=self._agent.epsilon(self._num_ticks),
            elapsed_s=float(self._num_ticks / self._run.rate_hz),
        )
        return stats if checkpoints is None else checkpoints.counted_in(stats)
