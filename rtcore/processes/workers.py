"""The supervisor's part in playing: starts workers, watches and restarts them, and the weights they play from.

Nothing here talks to the env process but through shared memory, and no worker can delay it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from rtcore.channel import Message
from rtcore.clock import NS_PER_S, ns_of
from rtcore.errors import LinkLost, PolicyError, StartupError
from rtcore.memory.counters import Words
from rtcore.memory.shared import Phase
from rtcore.memory.trace import TraceKind
from rtcore.memory.waiting import Waker
from rtcore.memory.weights import ParamStore, attach_store, create_store
from rtcore.messages import (
    KeepsOwnWeights,
    LeavesItsSpace,
    NoLink,
    PayloadMade,
    PolicyNeedsSaid,
    PolicyRaised,
    WeightSizes,
    WeightsMade,
    WeightsWanted,
    WorkerBoot,
)
from rtcore.processes.holders import HolderProcesses
from rtcore.processes.launcher import Child, Launch, RunParts
from rtcore.processes.restarts import Death, Ending, Places
from rtcore.scheduling.planner import Plan
from rtcore.spaces import PolicyNeeds

_log = logging.getLogger(__name__)

WORKER_ENTRY = "rtcore_workers.inference:main"
_CHECK_VERSIONS_NS = 500_000_000
#: A worker is behind if for so long ...
_BEHIND_NS = 5 * NS_PER_S
#: ... it has answered with the same version, and so many newer ones are out.
_BEHIND_VERSIONS = 3

#: What a worker may be doing.
_INFERENCE, _LEARNING, _IDLE = "inference", "update", "wait for a job"
#: Work that takes so many times longer than it ever did counts as hung.
_KNOWN_FACTOR = 10

#: A run that lasts more delays than this has had time enough for an answer.
_DELAYS_FOR_AN_ANSWER = 10

#: Writes into the supervisor's trace: (kind, start_ns, worker, value).
Trace = Callable[[TraceKind, int, int, int], None]


class WorkerVersion(NamedTuple):
    """What a worker says of itself: the version it used last, and how often it has answered."""

    worker: int
    version: int
    inferences: int


class VersionWatch:
    """Notices a worker that answers with old weights although new ones are published. Pure.

    `behind`: workers that were ever found to be so.
    """

    def __init__(self) -> None:
        self.behind: set[int] = set()
        self._since: dict[int, tuple[int, int, int]] = {}

    def find_late(self, now_ns: int, newest: int, workers: Iterable[WorkerVersion]) -> list[WorkerVersion]:
        """Workers that are behind and were not before. `newest`: the version that is published."""
        found = []
        for seen in workers:
            version, since_ns, inferences = self._since.get(seen.worker, (-1, 0, 0))
            if seen.version != version or newest - seen.version < _BEHIND_VERSIONS:
                self._since[seen.worker] = (seen.version, now_ns, seen.inferences)
                continue
            # An idle worker has nothing to use new weights for.
            has_answered = seen.inferences != inferences
            if has_answered and now_ns - since_ns >= _BEHIND_NS and seen.worker not in self.behind:
                self.behind.add(seen.worker)
                found.append(seen)
        return found


class WorkerProcesses:
    """The worker places of a run and who is in them. Used by the supervising thread; counts and pids by any."""

    def __init__(
        self,
        parts: RunParts,
        launch: Launch,
        launch_holder: Launch,
        trace: Trace,
        *,
        restarted: Callable[[], None],
        leaves_space: Callable[[str], None],
        ticks_before: int = 0,
    ) -> None:
        """`restarted`: called when a worker's place has been counted as restarted. `leaves_space`: with what a worker
        found wrong in the world's observations. `ticks_before`: of earlier runs."""
        self.places = Places("worker", parts.run.config.faults.max_restarts, parts.watchdog)
        #: Shutting down: exits are expected.
        self.stopping = False
        #: Where workers in the run begin their counts; -1 before it.
        self.run_phase_seq = -1
        #: The weights of the policy's network; None: not made yet, or it has none, or this is closed.
        self.params: ParamStore | None = None
        #: Building the network computed something: the other workers need what torch imports for its meta device.
        self.network_computes = False
        self.is_closed = False
        #: What the policy takes and gives beside frame and action; None: no worker has said so yet.
        self._needs: PolicyNeeds | None = None
        self._parts = parts
        self._config = parts.run.config
        self._shared = shared = parts.shared
        self._launch = launch
        #: Who holds the weights on GPUs.
        self.holders = HolderProcesses(parts.run_id, shared.layout, launch_holder, self._kill_with_holder)
        self._trace = trace
        self._restarted = restarted
        self._leaves_space = leaves_space
        self._ticks_before = ticks_before
        #: Why a worker elsewhere cannot be reached, as it said last.
        self._no_link: dict[int, str] = {}
        self._version_watch = VersionWatch()
        self._versions_checked_ns = 0
        self._waker = Waker(shared.wake_words())

    # -- start ---------------------------------------------------------------------------------------------

    def start(self, index: int) -> None:
        """Start the process of a place; `waiting` says when it is ready."""
        generation = self._shared.worker_control[index]["generation"] + 1
        self._shared.worker_control[index]["generation"] = generation
        boot = partial(
            WorkerBoot,
            layout=self._shared.layout,
            observation=self._parts.world.observation,
            action=self._parts.world.action,
            index=index,
            generation=generation,
            noop=self._parts.world.noop_value,
            # One that is started again in the run goes on with the counts of its place.
            run_phase_seq=self.run_phase_seq,
            has_weights=self.params is not None,
            ticks_before=self._ticks_before,
        )
        self.places.put(self._launch(index, generation, WORKER_ENTRY, boot))

    def has_weights(self) -> bool:
        """Version 1 is out, or worker 0 has no network."""
        is_out = self.params is not None and self.params.newest_version() > 0
        return is_out or not self.places.waiting([0])

    def info(self, index: int) -> dict[str, Any] | None:
        """What a worker said when it was ready."""
        child = self.places.get(index)
        return dict(vars(child.ready)) if child is not None and child.ready is not None else None

    def devices(self, num_workers: int, policy_info: dict[str, Any]) -> list[str]:
        """Where each worker computes, as it said when it was ready; else as `policy_info` says."""
        return [str((self.info(index) or policy_info).get("device", "cpu")) for index in range(num_workers)]

    def play(self, index: int) -> None:
        """A program answers in this place: there is no process to watch."""
        self._shared.worker_control[index]["generation"] = 1
        self.set_up(index, True)

    def set_up(self, index: int, up: bool) -> None:
        """Take a place into the rotation, or out of it, from the next tick on."""
        control, run = self._shared.worker_control[index], self._shared.run_control
        control["up"] = int(up)
        run["membership_seq"] = run["membership_seq"] + 1

    def retire(self, index: int) -> None:
        """Let a worker that the plan does not need go."""
        self.set_up(index, False)
        self._shared.worker_control[index]["generation"] = -1
        self._waker.everybody()
        self.places.remove(index)

    # -- watch ---------------------------------------------------------------------------------------------

    def check(self, child: Child) -> None:
        """Something happened to a worker or holder, perhaps a replaced one. Raises what it raised; restarts it."""
        if child.role == "holder":
            self._check_holder(child)
            return
        index = child.index
        if child.exitcode is not None:
            # From now on, and not before, its claim on weights is void.
            self._shared.worker_control[index]["gone_generation"] = child.generation
        if not self.places.holds(child):
            return
        while child.messages:
            self._handle(child, child.messages.popleft())
        if (error := child.error) is not None:
            raise error  # no use restarting it: the same policy would raise again
        if child.exitcode is not None:
            self._restart(child)
        elif child.ready is not None and self._in_run and not self.places.is_ending(child):
            self.set_up(index, True)
            if self._no_link.pop(index, None) is not None:
                _log.warning(f"{child.display_name} is linked to {self._address(child)} again")
            self._trace(TraceKind.WORKER_UP, self._parts.clock.now_ns(), index, 0)

    @property
    def _in_run(self) -> bool:
        return self._shared.run_control["phase"] == Phase.RUN

    def _handle(self, child: Child, message: Message) -> None:
        if isinstance(message, WeightSizes):
            # Worker 0 has said how large its network is.
            self.network_computes = message.has_computed
            create_store(self._parts.run_id, self._shared.layout, message.sizes)
            self.params = attach_store(self._parts.run_id)
            child.send(WeightsMade())
        elif isinstance(message, PolicyNeedsSaid):
            self._take_needs(child, message.needs)
        elif isinstance(message, WeightsWanted) and self.params is not None:
            self.holders.request(child, message, self.params)
        elif isinstance(message, LeavesItsSpace):
            self._leaves_space(message.what)
        elif isinstance(message, PolicyRaised):
            _log.warning(
                f"{child.display_name}: an inference gave no action (on-policy-error is miss; more of them are "
                f"counted): {message.what}"
            )
        elif isinstance(message, NoLink):
            self._note_no_link(child, message)
        elif isinstance(message, KeepsOwnWeights):
            self.holders.note_private(child, message.device, message.why)
        else:
            raise StartupError(f"worker {child.index} sent {message!r:.200} before there were weights")

    def _note_no_link(self, child: Child, message: NoLink) -> None:
        """A worker elsewhere cannot be reached: its place is down until it can, and the run goes on."""
        if message.is_over:
            if not self._in_run and not self.stopping:
                raise LinkLost(f"{child.display_name} has lost the link to {self._address(child)}: {message.why}")
            self._link_again(child)
        self.places.note_life(child)
        if self._no_link.get(child.index) != message.why:
            self._no_link[child.index] = message.why
            if self._in_run:
                _log.warning(f"{child.display_name} has no link to {self._address(child)}: {message.why}")

    def _link_again(self, child: Child) -> None:
        """A link is lost: its process goes on as another generation, which makes another. What it was at is void."""
        control = self._shared.worker_control[child.index]
        if control["generation"] != child.generation or self.stopping or self.places.is_ending(child):
            return
        self.set_up(child.index, False)
        reason = f"link to {self._address(child)} lost"
        self.places.count_lost_link(child, self._shared.worker_status[child.index]["inferences"], reason)
        self._note_restart(child)
        control["gone_generation"] = child.generation
        child.ready = None
        child.generation += 1
        control["generation"] = child.generation  # last: it goes on by this

    def _address(self, child: Child) -> str:
        return self._parts.run.address_of(child.index) or self._config.agent.policy

    @property
    def has_head(self) -> bool:
        """Whether the policy has two speeds, as the first worker has said."""
        return self._needs is not None and self._needs.has_head

    def _take_needs(self, child: Child, needs: PolicyNeeds) -> None:
        """A worker has built its policy: the first one says what memory the run needs, all others the same."""
        if self._needs is None:
            self.make_payload(needs)
            self._needs = needs
        if warning := self._needs.compare(needs, child.display_name):
            _log.warning(warning)
        child.send(PayloadMade())

    def make_payload(self, needs: PolicyNeeds) -> None:
        """The memory for what travels beside frames and actions: of the policy, and of the world. Nothing if neither
        has any."""
        world = self._parts.world
        if needs := replace(needs, world=world.keeps):
            self._shared.make_payload(needs, world.action)

    def _check_holder(self, child: Child) -> None:
        if self.params is not None:
            self.holders.ending |= self.stopping
            self.holders.check(child, self.params, in_run=self._in_run)

    def _kill(self, child: Child, death: Death) -> None:
        """Give it no more jobs and kill it; it is restarted once its end is reported."""
        self.set_up(child.index, False)
        self.places.kill(child, death)

    def _kill_with_holder(self, child: Child) -> None:
        if self.places.holds(child):
            self._kill(child, Death(Ending.HOLDER_DIED, "its weight holder died"))

    def _restart(self, child: Child) -> None:
        """Another process in the place of one that has ended. Raises if that is once too often."""
        index = child.index
        if self._shared.worker_control[index]["generation"] != child.generation or self.stopping:
            return
        self.set_up(index, False)
        inferences = self._shared.worker_status[index]["inferences"]
        reason = self.places.count_death(child, inferences, may_restart=self._in_run)
        self._note_restart(child)
        _log.warning(f"{child.display_name} (pid {child.pid}) is down: {reason}; restarting it")
        self.start(index)

    def _note_restart(self, child: Child) -> None:
        """One more has been counted."""
        restarts = self.places.restarts.by_place[child.index]
        self._shared.worker_control[child.index]["restarts"] = restarts
        self._restarted()
        self._trace(TraceKind.WORKER_DOWN, self._parts.clock.now_ns(), child.index, restarts)

    def kill_hung(self, plan: Plan | None) -> None:
        """Now and then: kill workers that hang. StartupError if one does not come back. `plan`: None before it."""
        for child in self.places.watched():
            status = self._shared.worker_status[child.index]
            if child.ready is None or status["ready"] != child.generation:
                self._check_starting(child, plan)
                continue
            kind, sign = _sign_of(status)
            limit_ns = self._limit_ns(child.index, kind, plan)
            if (death := self.places.find_hang(child, sign, kind, limit_ns, f" in one {kind}")) is not None:
                self._kill(child, death)

    def _limit_ns(self, index: int, kind: str, plan: Plan | None) -> int:
        """How long a worker's present work may take: ten times what it is known to take, or a start-up's time [ns]."""
        known_ns = self._parts.watchdog.longest_ns(kind)
        if kind == _INFERENCE:
            warmup_ns = (self.info(index) or {}).get("warmup_ns") or [0]
            known_ns = max(known_ns, *warmup_ns, plan.tau.p99_ns if plan is not None else 0)
        if kind != _IDLE and not known_ns:
            return ns_of(self._config.faults.startup_timeout_s)
        return max(ns_of(self._config.faults.hang_timeout_s), _KNOWN_FACTOR * known_ns if kind != _IDLE else 0)

    def _check_starting(self, child: Child, plan: Plan | None) -> None:
        """One that was restarted in the run: `Supervisor.wait_until` watches those that the start waits for."""
        silent_ns = self.places.silent_ns(child, child.generation, "start-up")
        if plan is not None and silent_ns > ns_of(self._config.faults.startup_timeout_s):
            raise StartupError(
                f"{child.display_name} was not ready {self._config.faults.startup_timeout_s:g} s after its restart; "
                "--startup-timeout-s allows more"
            )

    def check_answered(self, ticks: int, plan: Plan) -> None:
        """At the end of a run: PolicyError if it had time for answers and there was none."""
        status = self._shared.worker_status
        inferences, raised = (sum(each[name] for each in status) for name in ("inferences", "policy_errors"))
        if self.places.all:
            refuse_without_answers(inferences, raised, ticks, plan.delay_ticks)

    def report_late_versions(self) -> None:
        """Warn of a worker that goes on with old weights."""
        now_ns = self._parts.clock.now_ns()
        if self.params is None or now_ns - self._versions_checked_ns < _CHECK_VERSIONS_NS:
            return
        self._versions_checked_ns = now_ns
        status = self._shared.worker_status
        seen = [
            WorkerVersion(child.index, status[child.index]["policy_version"], status[child.index]["inferences"])
            for child in self.places.all
            if self._shared.worker_control[child.index]["up"]
        ]
        newest = self.params.newest_version()
        for late in self._version_watch.find_late(now_ns, newest, seen):
            _log.warning(f"worker {late.worker} stays with version {late.version} of the weights; {newest} is out")

    def weights(self) -> dict[str, Any]:
        """What became of the policy's weights: the content of summary.json's `weights`. {} without a network."""
        params = self.params  # closed by the supervising thread, maybe meanwhile
        if params is None:
            return {}
        newest, counts = params.newest(), params.counts()
        return {
            "version": newest.version,
            "checksum": f"{newest.checksum:08x}",
            "updates": newest.updates,
            "publications": newest.version,
            "waits": counts["waits"],
            "skipped": counts["skipped"],
            "torn": sum(status["torn_weights"] for status in self._shared.worker_status),
            "workers_behind": sorted(self._version_watch.behind),
            "holders": self.holders.stats(),
        }

    # -- end -----------------------------------------------------------------------------------------------

    def wake_all(self) -> None:
        """So that everybody sees the order to stop at once."""
        self._waker.everybody()

    def end_holders(self, wait_until: Callable[[Callable[[], bool]], object]) -> None:
        """Once the workers are gone, and not before: they compute with the memory. `wait_until`: for a moment."""
        if all(child.exitcode is not None for child in self.places.all):
            self.holders.end()
            wait_until(lambda: self.holders.has_ended)

    def close(self) -> None:
        """Let the weights go. More than once does no harm."""
        self.is_closed = True
        self.holders.close()
        if self.params is not None:
            self.params.close()
            self.params = None


def refuse_without_answers(inferences: int, raised: int, ticks: int, delay_ticks: int) -> None:
    """PolicyError for a run that had time enough for answers and got none, or of which most inferences raised.

    Args:
        inferences: Of all workers, those that raised among them.
        raised: How many did, where that gives no action (`on_policy_error`).
        ticks: Of the run.
        delay_ticks: That were planned for an answer.
    """
    if (inferences and 2 * raised <= inferences) or ticks <= _DELAYS_FOR_AN_ANSWER * delay_ticks:
        return
    if inferences:
        raise PolicyError(
            f"{raised} of {inferences} inferences raised, in {ticks} ticks; expected at most half of them, else a run "
            "has failed, whatever on_policy_error is. The first error of each worker was logged as a warning. A policy "
            "that has no action this time returns None"
        )
    raise PolicyError(
        f"no worker answered in {ticks} ticks; {delay_ticks} ticks were planned for an answer. Does the policy ever "
        "return?"
    )


def _sign_of(status: Words) -> tuple[str, int]:
    """What a worker is doing, and its sign of life: a number that changes as long as it makes progress."""
    if learning_since_ns := status["learning_since_ns"]:
        return _LEARNING, learning_since_ns
    if busy_since_ns := status["busy_since_ns"]:
        return _INFERENCE, busy_since_ns
    return _IDLE, status["heartbeat_ns"]
