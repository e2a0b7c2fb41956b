"""The supervisor's part in learning: makes the master, starts learners, watches and restarts them, reports.

Nothing here talks to the env process, and no learner can delay it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from rtcore.clock import NS_PER_S, ns_of
from rtcore.errors import ConfigError, PolicyConfigError, counted
from rtcore.learn.checkpoint import Arrays, SavedState
from rtcore.learn.learnable import check_learnable
from rtcore.learn.optimizer import flatten_optimizer, unflatten_saved
from rtcore.learn.stats import learner_stats, why_stopped
from rtcore.memory.counters import Words
from rtcore.memory.layout import LEARNER_SIZES, MasterLayout
from rtcore.memory.master import MasterState, attach_master
from rtcore.memory.segments import create_segment
from rtcore.memory.shared import Phase, next_order
from rtcore.memory.tensors import ParamManifest
from rtcore.memory.weights import ParamStore
from rtcore.messages import LearnerBoot
from rtcore.processes.launcher import Child, Launch, Launcher, RunParts
from rtcore.processes.restarts import Places
from rtcore.results.summary import LearnerStats

_log = logging.getLogger(__name__)

LEARNER_ENTRY = "rtcore_workers.learner:main"
_GRACE_NS = 2 * NS_PER_S


class LearnerProcesses:
    """The learners of a run and what they share. Used by the supervising thread; `copy` by any."""

    def __init__(self, parts: RunParts, launch: Launch, saved: SavedState | None) -> None:
        """ConfigError if the world cannot be learned, or is not the one that `saved` is of."""
        config = parts.run.config
        world, ring_slots = parts.world, parts.shared.layout.ring_slots
        check_learnable(config, world.observation, world.action, ring_slots, saved)
        self.places = Places("learner", config.faults.max_restarts, parts.watchdog)
        self.stopped = ""
        self.first_updates = int(saved.state["updates"]) if saved is not None else 0
        self._parts = parts
        self._config = config
        self._shared = parts.shared
        self._saved = saved
        self._launch = launch
        self._master: MasterState | None = None
        self._store: ParamStore | None = None
        self._manifest: ParamManifest | None = None
        self._rest = np.zeros(0, np.uint8)
        self._boot: Callable[..., LearnerBoot] = LearnerBoot
        self._learning_since: tuple[int, int] | None = None
        self._newest_update: tuple[int, int] = (0, 0)
        self._ending = False

    # -- start ---------------------------------------------------------------------------------------------

    @property
    def master(self) -> MasterState:
        if self._master is None:
            raise RuntimeError("the learners' segment has not been made yet")
        return self._master

    def prepare(self, store: ParamStore | None) -> None:
        """Once version 1 is out: make the segment, and the master from that version or from the saved state.

        ConfigError if the policy has nothing to learn with.
        """
        if store is None:
            raise PolicyConfigError(
                f"policy {self._config.agent.policy!r} has no network to learn with; try --policy dqn, nature or mlp"
            )
        manifest = store.manifest()
        if not manifest.trainable_bytes:
            raise ConfigError(
                f"learn={self._config.learning.learn}: policy {self._config.agent.policy} has no trainable float32 "
                "parameter"
            )
        # Every buffer now: no room for one in the middle of the run would end it.
        store.reserve()
        learners = max(1, self._config.learning.learner_processes)
        layout = MasterLayout(learners, manifest.trainable_bytes)

        def write_sizes(memory: memoryview) -> None:
            sizes = Words(LEARNER_SIZES, memory, layout.sizes_at)
            sizes["num_learners"], sizes["trainable_bytes"] = layout.num_learners, layout.trainable_bytes
            sizes["first_updates"] = self.first_updates

        create_segment(
            self._parts.run_id, "learner", self._shared.layout, write_sizes, num_bytes=layout.num_bytes
        ).close()
        self._master, _ = attach_master(self._parts.run_id)
        self._store, self._manifest = store, manifest
        first = store.buffer(store.newest().buffer)
        self._rest = np.array(np.frombuffer(first, np.uint8))
        weights = manifest.trainable_array(first)
        if self._saved is None:
            self._master.begin(weights)
        else:
            saved = unflatten_saved(manifest, self._saved)
            self._master.begin(weights, updates=self.first_updates, **saved)
        self._saved = None
        self._newest_update = (self.first_updates, self._parts.clock.now_ns())

    def start(self) -> None:
        """Start the processes, before tick 0; `is_ready` says when they are."""
        count, run_control = self._config.learning.learner_processes, self._shared.run_control
        _log.info(f"starting {counted(count, 'learner')}")
        self._boot = partial(
            LearnerBoot,
            layout=self._shared.layout,
            observation=self._parts.world.observation,
            action=self._parts.world.action,
            run_phase_seq=next_order(run_control["phase_seq"], Phase.RUN),
            run_first_frame=self._shared.ring.sequence.newest() + 1,
        )
        for index in range(count):
            self._start(index)

    def _start(self, index: int) -> None:
        control = self.master.control[index]
        control["generation"] += 1
        # A heartbeat from now on: the one before was another process's.
        self.master.status[index]["heartbeat_ns"] = 0
        boot = partial(self._boot, index=index, generation=control["generation"])
        self.places.put(self._launch(index, control["generation"], LEARNER_ENTRY, boot))

    def is_ready(self) -> bool:
        return all(child.ready is not None for child in self.places.all)

    # -- watch ---------------------------------------------------------------------------------------------

    def check(self, child: Child) -> None:
        """Something happened to a learner. Raises what it raised; restarts it if it died."""
        if not self.places.holds(child):
            return  # one that was replaced
        if (error := child.error) is not None:
            raise error  # no use restarting it: the same network would raise again
        if child.exitcode is None or self._ending:
            return
        if child.exitcode == 0 and self._shared.env_status["finished"]:
            return  # it has seen the end of the run; before that no learner ends by itself
        reason = self.places.count_death(child, self.master.status[child.index]["updates"])
        self.master.control[child.index]["restarts"] += 1
        _log.warning(f"{child.display_name} (pid {child.pid}) is down: {reason}; restarting it")
        self._start(child.index)

    def kill_hung(self) -> None:
        """Now and then: kill learners that hang, and say once if learning has stopped."""
        if self._master is None:
            return
        now_ns = self._parts.clock.now_ns()
        updates = self._master.commit.updates
        if updates > self._newest_update[0]:
            self._newest_update = (updates, now_ns)
            self._learning_since = self._learning_since or (updates, now_ns)
        for child in self.places.watched():
            heartbeat_ns, limit_ns = self._master.status[child.index]["heartbeat_ns"], self._hang_ns(child)
            death = self.places.find_hang(child, heartbeat_ns, "learner", limit_ns)
            if death is not None:
                self.places.kill(child, death)
        if not self.stopped and (why := why_stopped(self._master)):
            self.stopped = why
            _log.warning(
                f"stopped learning: {why}. The weights before it go on playing; look at the rewards and "
                "observations, or lower --learning-rate"
            )

    def _hang_ns(self, child: Child) -> int:
        """How long a learner may be silent: an update of a large network takes its time."""
        if child.ready is None or not self._update_ns:
            return ns_of(self._config.faults.startup_timeout_s)
        return max(ns_of(self._config.faults.hang_timeout_s), 10 * self._update_ns)

    @property
    def _update_ns(self) -> int:
        """How long an update takes; 0: none was made."""
        return self._master.pace["update_ns"] if self._master is not None else 0

    # -- end -----------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Ask the learners to end, and a worker that learns in turn to begin no other update: after the present one."""
        self._ending = True
        if self._master is not None:
            for control in self._master.control:
                control["generation"] = -1

    def shut_down(self, launcher: Launcher) -> None:
        """`end`, and after a while `kill`: one that hangs with the master locked would keep the last checkpoint from
        being written for ever."""
        for end in (self.end, self.kill):
            end()
            # Events are served once before that: a worker that has just begun an update shows it by then.
            launcher.poll_until(lambda: False, 1_000_000)
            launcher.poll_until(lambda: self.has_ended, max(_GRACE_NS, 2 * self._update_ns))

    def kill(self) -> None:
        """Kill those that have not ended. Their present update is not applied; the kernel frees their locks."""
        for child in self.places.all:
            child.kill()

    @property
    def has_ended(self) -> bool:
        """No update is made any more: neither by learners nor by workers between two inferences."""
        in_turn = any(status["learning_since_ns"] for status in self._shared.worker_status)
        return all(child.exitcode is not None for child in self.places.all) and not in_turn

    def close(self) -> None:
        """Let the lock's file go. The memory goes with its last user."""
        if self._master is not None:
            self._master.close()

    # -- what there is -------------------------------------------------------------------------------------

    def copy(self) -> tuple[int, Arrays, Arrays]:
        """(updates, network, optimizer) of one moment, as arrays by name: for a checkpoint. Any thread.

        Once learning has stopped, the network is the one that plays: the master's may be what diverged.
        """
        manifest, store = self._manifest, self._store
        if manifest is None or store is None:
            raise RuntimeError("there is nothing to save yet")
        copy = self.master.copy()
        if why_stopped(self.master):
            copy = copy._replace(weights=manifest.trainable_array(store.buffer(store.newest().buffer)))
        buffer = self._rest.copy()
        manifest.trainable_array(buffer)[:] = copy.weights
        named = manifest.arrays(buffer)
        network = {name: named[tensor.name] for name, tensor in manifest.by_name.items() if tensor.name in named}
        return copy.updates, network, flatten_optimizer(manifest, copy)

    def stats(self, ticks: int) -> LearnerStats | None:
        """How learning goes, `ticks` after its first run began; None before it is prepared."""
        if self._master is None or self._store is None:
            return None
        stats = learner_stats(self._config, self._master, self._store, ticks)
        return replace(
            stats,
            updates_per_s=self._updates_per_s(),
            restarts=self.places.restarts.total,
            restart_reasons=dict(self.places.restarts.reasons),
        )

    def _updates_per_s(self) -> float:
        if self._learning_since is None:
            return math.nan
        since, since_ns = self._learning_since
        elapsed_ns = self._newest_update[1] - since_ns
        return (self._newest_update[0] - since) * 1e9 / elapsed_ns if elapsed_ns > 0 else math.nan
