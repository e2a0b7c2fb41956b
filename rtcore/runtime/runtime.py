"""`Runtime`: a realtime run inside any program.

Takes nothing of the program that embeds it: no signal handler, no start method, no global state. Several may
run in one process at once. A thread of its own supervises; the caller's thread stays free.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Space

from rtcore.clock import MonotonicClock, ns_of
from rtcore.config.resolved import ResolvedRun
from rtcore.config.run import RuntimeConfig
from rtcore.errors import WARNING_NOTE, ConfigError, ContractBroken, RtcoreError, RtcoreWarning, StartupError
from rtcore.files.strict_json import write_json
from rtcore.learn.resuming import settings_of
from rtcore.memory.operator import OperatorWriter
from rtcore.memory.segments import left_of
from rtcore.memory.trace import TraceKind, TraceSpool
from rtcore.processes.supervisor import Supervisor
from rtcore.recording.schema import require_h5py
from rtcore.report.log import LineHandler
from rtcore.results.agreement import check_books
from rtcore.results.contract import Contract, contract_of
from rtcore.results.explain import find_culprits
from rtcore.results.folder import SUMMARY
from rtcore.results.out_folder import OutFolder, begin_folder
from rtcore.results.run_record import Episode, RunRecord, writing_to
from rtcore.results.snapshot import booked_ticks, snapshot
from rtcore.results.startup import start_thread
from rtcore.results.summary import RunStats, build_summary, number_of
from rtcore.runtime.controls import Controls
from rtcore.runtime.learning import LearningRun
from rtcore.runtime.player import Player
from rtcore.runtime.trained import RunFrames, TrainedRun
from rtcore.spaces import ActionSpec, PolicyNeeds
from rtcore.spaces.task import as_json
from rtcore_workers.policies.choice import check_policy, resolve_policy

_log = logging.getLogger(__name__)

#: How long the supervising thread sleeps unless something happens: deaths and messages wake it at once. Each waking
#: is an interrupt on a machine that has ticks to keep.
_WATCH_S = 0.05
_DRAIN_EVERY_NS = 150_000_000
_FLUSH_EVERY_NS = 1_000_000_000
#: Between two looks at what a contract requires and no row tells: each is a snapshot of every counter.
_LOOK_EVERY_NS = 1_000_000_000
#: How often `safe_stop` looks whether the world is safe.
_SAFE_POLL_NS = 2_000_000


class Runtime(TrainedRun):
    """One run: env process, workers, and what they did.

    Use it as a context manager: entering starts everything and returns when tick 0 is about to begin, leaving
    ends every process and removes every segment, whatever happened. The constructor does nothing that could block.
    What the run does is logged under "rtcore": start-up at INFO, restarts and what else goes wrong at WARNING.

    Args:
        config: The settings; None: those of `fields`.
        progress: Deprecated: gets the lines that are logged at INFO and above.
        on_contract_broken: Gets the `ContractBroken` once, in the supervising thread, as soon as what `require` asks
            for cannot be kept any more, or at the end of the run. What it raises ends the run and is raised by `wait`.
            None: `wait` raises the `ContractBroken` itself, once the run is over.
        on_episode: Gets each episode that has ended, within a fifth of a second, in the supervising thread. What it
            raises ends the run and is raised by `wait`.
        played_delay_ticks: This program answers in the workers' place, so many ticks after a frame: see `player`.
        folder: The output folder, where the program has taken it already, because it writes there after the run's end.
        fields: Settings by name, as of `RuntimeConfig`, in place of `config`. `env_id` and `policy` may be given as the
            factory itself, if the processes of the run can import it.

    Raises:
        ConfigError: A setting is wrong. Whatever goes wrong later is raised by `start`, `wait_ready` and `wait`.

    Examples:
        ```python
        with rtcore.Runtime(env_id="CartPole-v1", policy="mlp", duration=5) as runtime:
            runtime.wait()
        print(runtime.summary()["actions"]["acted_fraction"])
        ```
    """

    def __init__(
        self,
        config: RuntimeConfig | None = None,
        *,
        progress: Callable[[str], None] | None = None,
        on_episode: Callable[[Episode], None] | None = None,
        on_contract_broken: Callable[[ContractBroken], None] | None = None,
        played_delay_ticks: int | None = None,
        folder: OutFolder | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(resolve_policy(config if config is not None else settings_of(fields)))
        self._supervisor = Supervisor(self.config, played_delay_ticks=played_delay_ticks)
        self._is_played = played_delay_ticks is not None
        self._on_episode = on_episode
        self._on_contract_broken = on_contract_broken
        self._contract: Contract | None = None
        self._looked_ns = 0
        self._line_handler = _handler_of(progress)
        self._folder = folder
        self._owns_folder = folder is None
        self._episodes_reported = 0
        self._ready = threading.Event()
        self._learning: LearningRun | None = None
        self._clock = MonotonicClock()
        self._over = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._owner_pid = os.getpid()
        self._error: BaseException | None = None
        self._error_raised = False
        self._closing = threading.Lock()
        self._final: RunStats | None = None
        self.record: RunRecord | None = None
        self._spool: TraceSpool | None = None

    # -- life ----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._thread is None:
            return self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if kind is None and self.close_failure is not None and not self._error_raised:
            raise self.close_failure

    def start(self, *, wait: bool = True) -> Self:
        """Start everything.

        Args:
            wait: Return at tick 0; False: at once, the start goes on in the supervising thread, and `wait_ready` says
                when it is done.

        Returns:
            This object.

        Raises:
            RtcoreError: What went wrong, after cleaning up; StartupError if it has been started before.
        """
        if self._thread is not None or self._over.is_set():
            raise StartupError("this run has been started before: make a new one")
        if wait:
            self._begin()
        target = self._supervise if wait else self._begin_and_supervise
        self._thread = threading.Thread(target=target, name=f"rtcore-{self.run_id}", daemon=True)
        try:
            start_thread(self._thread)
        except StartupError as error:
            self._thread = None
            self._fail(error)
            raise
        return self

    def wait_ready(self, timeout_s: float | None = None) -> bool:
        """Block until tick 0.

        Args:
            timeout_s: For how long at most [s]; None: as long as it takes.

        Returns:
            Whether tick 0 is there; False if the time passed first.

        Raises:
            RtcoreError: What went wrong on the way there.
        """
        return self._await(self._ready, timeout_s)

    def _await(self, event: threading.Event, timeout_s: float | None) -> bool:
        if self._thread is None:
            raise StartupError("the run has not started: call start() or use it as a context manager")
        if timeout_s is None and self._thread is threading.current_thread():
            raise StartupError("a callback of the run would wait here for itself: call stop(), and wait outside of it")
        happened = event.wait(None if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX))
        if self._over.is_set() and self._error is not None:
            self._error_raised = True
            raise self._error
        return happened

    def _begin_and_supervise(self) -> None:
        try:
            self._begin()
        except BaseException as error:
            self._error = error
            self._ready.set()
        else:
            self._supervise()

    def _begin(self) -> None:
        if self._line_handler is not None:
            self._line_handler.attach()
        try:
            self._make_folder()
            self._learning = LearningRun(self.config)
            self._supervisor.saved = self._learning.saved
            self._supervisor.about_to_run = self._begin_folder
            if not self._is_played:
                check_policy(self.config.agent)
            self._supervisor.start()
            self.config = self.config.replace(policy=self._supervisor.config.agent.policy)
            self._open_files()
            self._warn()
            self._ready.set()
        except BaseException as error:
            self._fail(error)
            raise

    def _fail(self, error: BaseException) -> None:
        """Clean up after a start that has failed."""
        self._error = error  # before `_over`: a thread that waits for it reads the error next
        with contextlib.ExitStack() as last_first:  # each of them, also if a signal interrupts one
            last_first.callback(self._set_over)
            last_first.callback(self._check_closing)
            last_first.callback(self._release_folder)
            last_first.callback(self._supervisor.close)
            self._close_files()

    def _warn(self) -> None:
        """A program that embeds rtcore prints no header: warn. rtcore's own programs print it, and switch this off."""
        for about in (self.header["world"], self.header["policy"] or {}):
            for note in about.get("notes") or ():
                if note.startswith(WARNING_NOTE):
                    warnings.warn(note.removeprefix(WARNING_NOTE), RtcoreWarning, stacklevel=2)

    def _make_folder(self) -> None:
        """Before anything is started: a folder that cannot be made, or a missing package, is a wrong setting."""
        if self.config.output.record:
            require_h5py()
        if self.config.output.out is not None and self._folder is None:
            self._folder = OutFolder(self.config.output.out)
            self._folder.acquire()

    def _begin_folder(self) -> None:
        """Not before the run is sure to begin: a start that fails costs no earlier run's files."""
        saved = self._learning.saved if self._learning is not None else None
        if self._folder is not None:
            origin, goes_on = (saved.origin, saved.is_of(self._folder.path)) if saved is not None else (None, False)
            with writing_to(self.config.output.out):
                if note := begin_folder(self._folder, self.config, origin, goes_on=goes_on):
                    _log.info(note)

    def _release_folder(self) -> None:
        if self._owns_folder and self._folder is not None:
            self._folder.release()

    def _open_files(self) -> None:
        action, stamped = self._supervisor.world.action, self._supervisor.world.observation.stamped
        with writing_to(self.config.output.out):
            self._contract = contract_of(self._supervisor.resolved, self._on_contract_broken, stamped)
            self.record = RunRecord(self.config.output.out, lambda raw: _decode(action, raw), self._contract, stamped)
            if self.config.output.trace and self.config.output.out is not None:
                self._spool = TraceSpool(self.config.output.out, self._supervisor.shared.trace_rings())
            if self._learning is not None:
                self._learning.begin(self._supervisor, self.record)

    def _end_learning(self) -> None:
        if self._learning is not None:
            self._learning.end(self._supervisor)

    def _close_files(self) -> None:
        with writing_to(self.config.output.out):
            for file in (self.record, self._spool):
                if file is not None:
                    file.close()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until the run is over.

        Args:
            timeout_s: For how long at most [s]; None: as long as it takes, 0: just ask.

        Returns:
            Whether it is over; False if the time passed first.

        Raises:
            RtcoreError: What ended the run, if it failed, with the other process's traceback as a note.
        """
        return self._await(self._over, timeout_s)

    def stop(self) -> None:
        """End the run at its next tick; `wait` returns soon after."""
        self._stop.set()

    def pause(self) -> None:
        """Let the world stand still from its next tick on. Returns when it does, or when the run is over.

        It is not stepped, its `pause()` is called if it has one, and the ticks that go by count as `waited`. Workers
        end what they are at; learners go on. Two who pause it have to resume it both. A run does not end by its time
        meanwhile; one that is ended, or fails, ends. Any thread may.

        Raises:
            ConfigError: The world says that it cannot be paused.
            StartupError: Tick 0 is not there yet.
        """
        supervisor = self._started
        supervisor.request_pause(True)
        status = supervisor.shared.env_status
        while not (self.is_over or status["is_paused"] or supervisor.ticks_are_over):
            self._clock.sleep_until_ns(self._clock.now_ns() + _SAFE_POLL_NS)

    def resume(self) -> None:
        """The end of a `pause`; nothing without one. Returns at once: the world goes on at its next tick."""
        self._started.request_pause(False)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """`pause` for a block: for an evaluation, or a checkpoint.

        Example:
            ::

                with runtime.paused():
                    save(network)
        """
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def set_task(self, task: Mapping[str, Any]) -> int:
        """Give world and policy another task. Returns at once; any thread may.

        From one of the next ticks on, the same for all: the world has it (`rtcore_task` of the unwrapped env), the jobs
        that are booked carry it (`context.task`), and frame headers have its version.

        Args:
            task: A value for each name of the task that the run began with (the setting `task`), of the same kind.

        Returns:
            Its version: 2 for the first that is set. One that a newer one follows within a tick is never seen.

        Raises:
            ConfigError: A name or a kind is another one, or the run began without a task.
            StartupError: Tick 0 is not there yet, or the run is over.
        """
        supervisor = self._started
        self._check_is_running()
        version = supervisor.set_task(task)
        _log.info("task %d: %s", version, json.dumps(as_json(task)))
        return version

    def _make_controls(self, first: Any) -> Controls:
        supervisor = self._started
        self._check_is_running()
        if self.config.has_operator_process:
            raise ConfigError(
                f"take_over: the run has an operator ({self.config.take_over.operator}), who takes the controls; "
                "expected none, or operator='program'"
            )
        world = supervisor.world
        first = world.action.from_numbers(world.noop_value) if first is None else first
        return Controls(world.action, OperatorWriter(supervisor.shared, supervisor.next_operator()).write, first)

    def safe_stop(self, timeout_s: float | None = None) -> bool:
        """End the run at its next tick, with the safe action as the last one that the world gets. Any thread may.

        At once: it waits for no callback of the run. What `stop` ends, or time, or an error, is made safe as well.

        Args:
            timeout_s: How long to wait for it at most [s]; None: as long as it takes.

        Returns:
            Whether the world has got the safe action; False if the time passed first.

        Raises:
            ConfigError: The run has no `safe_action`.
            RtcoreError: The run had failed, or the world raised; it was made safe if that is promised
                (docs/robots.md).
            StartupError: Tick 0 is not there yet: `close` then ends the start.
        """
        if self.config.world.safe_action is None:
            raise ConfigError("safe_stop: the run has no safe action; expected one, as in safe_action='noop'")
        supervisor = self._started
        if not self.is_over:
            supervisor.request_stop()
        self.stop()
        clock = self._clock
        give_up_ns = clock.now_ns() + ns_of(math.inf if timeout_s is None else timeout_s)
        while not (self.is_over or supervisor.ticks_are_over):
            if clock.now_ns() > give_up_ns:
                return False
            clock.sleep_until_ns(clock.now_ns() + _SAFE_POLL_NS)
        if self.is_over and self._error is not None:
            self._error_raised = True
            raise self._error
        return True

    def close(self) -> None:
        """End everything now and clean up. Safe to call at any time, more than once. Nothing in a forked child."""
        if os.getpid() != self._owner_pid:
            return
        self.stop()
        self._supervisor.abandon_start()
        if self._thread is threading.current_thread():
            return  # a callback's: the thread does the rest when the callback has returned
        if self._thread is not None:
            self._thread.join()
        with self._closing:
            self._supervisor.close()

    # -- what is going on ----------------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        """Part of the name of every segment in /dev/shm."""
        return self._supervisor.run_id

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    @property
    def close_failure(self) -> RtcoreError | None:
        """What went wrong while the world was closed, after the run: it is the run's error then, if it has no other."""
        return self._supervisor.close_failure

    @property
    def header(self) -> dict[str, Any]:
        """What the run consists of: world, policy, devices, what the kernel granted."""
        return self._supervisor.description.header

    @property
    def worker_pids(self) -> dict[int, int]:
        """pid by worker index."""
        return self._supervisor.worker_pids

    @property
    def learner_pids(self) -> dict[int, int]:
        """pid by learner index."""
        return self._supervisor.learner_pids

    @property
    def observation_space(self) -> Box | Dict:
        """The world's, once the run has started. A Dict within a Dict is one Dict, with keys "outer/inner"."""
        return self._started.world.observation.to_space()

    @property
    def action_space(self) -> Space[Any]:
        """The world's, once the run has started."""
        return self._started.world.action.to_space()

    @property
    def rate_hz(self) -> Fraction:
        """The exact tick rate."""
        return self._started.resolved.rate_hz

    @property
    def resolved(self) -> ResolvedRun:
        """What the settings come to in this world, once the run has started: tick rate, number of ticks, sizes."""
        return self._started.resolved

    @property
    def _started(self) -> Supervisor:
        """The supervisor, once tick 0 is there: before it the frames are not those of the run. Raises what failed."""
        if not self._ready.is_set() or self._supervisor.run_phase_seq < 0:
            raise self._error or StartupError(
                "the run has not started: call start(), or wait_ready() after start(wait=False)"
            )
        return self._supervisor

    @property
    def env_pid(self) -> int:
        return self._supervisor.env_pid

    def booked_ticks(self) -> dict[int, int]:
        """Tick of each worker's newest booking, for showing what is under way. Empty once the run is over."""
        supervisor = self._supervisor
        if self.is_over or supervisor.plan is None:
            return {}
        return booked_ticks(supervisor.shared, supervisor.description)

    def _frames(self) -> RunFrames:
        supervisor = self._started
        return RunFrames(
            supervisor.shared.ring,
            supervisor.world.action,
            supervisor.run_phase_seq,
            supervisor.run_first_frame,
            supervisor.shared.payload.needs if supervisor.shared.payload is not None else PolicyNeeds(),
        )

    def publish(self, weights: Mapping[str, Any], *, updates: int = 0, wait_s: float = 2.0) -> int | None:
        """As `TrainedRun.publish`; None also once the run is over: `wait` tells a trainer, in no round's middle."""
        if self._over.is_set():
            if self._error is None:
                return None
            raise self._error
        workers = self._started.workers
        return None if workers.is_closed else self._publish(workers.params, weights, updates, ns_of(wait_s))

    def player(self) -> Player:
        """For the thread that answers in the workers' place (`played_delay_ticks`), once the run has started."""
        supervisor = self._supervisor
        return Player(
            supervisor.shared, supervisor.resolved.period_ns, supervisor.request_reset, self._check_is_running
        )

    def note_leaves_space(self, what: str) -> bool:
        """A program that plays has found an observation outside the declared space: keep that for the summary.

        Args:
            what: What is wrong.

        Returns:
            False if something was known to be wrong already.
        """
        return self._started.note_leaves_space(what)

    def _check_is_running(self) -> None:
        if self._over.is_set():
            raise self._error or StartupError("the run is over: make a new one")

    def newest_frame(self) -> npt.NDArray[Any] | None:
        """A copy of what the world showed last. Costs the env process nothing. Also once the run is over.

        Returns:
            The observation as it is in the ring, (*frame_shape,) of its dtype; None before the first frame.
        """
        return self._started.shared.ring.newest_frame()

    def pause_learning(self, paused: bool = True) -> None:
        """Let learners go on collecting, but make no update. Nothing if nobody learns.

        Args:
            paused: False: go on.

        Raises:
            StartupError: Tick 0 is not there yet, and nobody to pause.
        """
        learners = self._started.learners
        if learners is not None:
            for control in learners.master.control:
                control["paused"] = int(paused)

    def stats(self) -> RunStats:
        """A snapshot of every counter and histogram, at any time after the start."""
        return self._final if self._final is not None else self._snapshot(with_memory=False)

    def summary(self) -> dict[str, Any]:
        """What happened so far, or in all once the run is over (the content of summary.json)."""
        summary = build_summary(self.stats())
        summary["leftover_shared_memory"] = left_of(self.run_id) if self.is_over else None
        return summary

    # -- the supervising thread ----------------------------------------------------------------------------

    def _supervise(self) -> None:
        """To the end of the run, and then to the end of everything, whatever goes wrong on the way."""
        supervisor = self._supervisor
        # What ends a run may leave the world ticking: halt it before anything is counted for the last time.
        for step in (
            self._watch_until_over,
            supervisor.halt,
            self._end_publishing,
            self._drain,
            self._end_learning,
            supervisor.end_recording,
            self._take_final_snapshot,
            self._close_files,
            self._check_books,
            supervisor.close,
            self._check_closing,
            self._keep_summary,
            self._judge_contract,
            self._release_folder,
        ):
            try:
                step()
            except BaseException as error:
                # The caller gets the first error; the others mostly follow from it.
                self._error = self._error or error
        self._set_over()

    def _set_over(self) -> None:
        if self._line_handler is not None:
            self._line_handler.detach()
        self._over.set()

    def _check_closing(self) -> None:
        if self.close_failure is None:
            return
        if self._error is None:
            raise self.close_failure
        self._error.add_note(str(self.close_failure))

    def _keep_summary(self) -> None:
        """summary.json, beside the rows. Where a program has taken the folder, it writes that itself, and more."""
        if self._folder is None or not self._owns_folder or self._final is None:
            return
        summary = build_summary(self._final)
        summary["leftover_shared_memory"] = left_of(self.run_id)
        if self._error is not None:
            summary["error"] = f"{type(self._error).__name__}: {self._error}"
        with writing_to(self.config.output.out):
            write_json(self._folder.path / SUMMARY, summary)

    def _end_publishing(self) -> None:
        """What `publish` returns from here on is None: each version it gave out is in the summary."""
        if (store := self._supervisor.params) is not None:
            store.close()

    def _take_final_snapshot(self) -> None:
        if self._contract is not None:
            self._look(self._contract)
            self._contract.end()
        self._final = self._snapshot(with_memory=self._error is None)

    def _check_books(self) -> None:
        record, supervisor = self.record, self._supervisor
        if record is not None and self._final is not None:
            stats = self._final
            parts = (stats.counters, record.rows, stats.lost_record_rows, stats.recording)
            books = check_books(*parts, broke_off=not supervisor.ticks_are_over)
            self._final = replace(stats, books=books, culprits=find_culprits(stats, record.worst.found()))
            if broken := stats.counters["broken_invariants"]:
                _log.warning("broken invariants: %d, a fault of rtcore; the summary's invariants name them", broken)

    def _follow_contract(self) -> None:
        """After new rows."""
        if (contract := self._contract) is None:
            return
        if contract.needs_looks and self._clock.now_ns() - self._looked_ns >= _LOOK_EVERY_NS:
            self._look(contract)
        contract.follow()

    def _look(self, contract: Contract) -> None:
        self._looked_ns = self._clock.now_ns()
        contract.look(partial(number_of, self._snapshot(with_memory=False)))

    def _judge_contract(self) -> None:
        """Of a run that failed its error says more."""
        if self._contract is not None and self._final is not None and self._error is None:
            self._contract.finish(build_summary(self._final))

    def _watch_until_over(self) -> None:
        supervisor, clock = self._supervisor, self._clock
        drain_ns = flush_ns = clock.now_ns()
        while not supervisor.watch(_WATCH_S):
            if self._stop.is_set() and not supervisor.stopping:
                supervisor.request_stop()
            now_ns = clock.now_ns()
            if now_ns - drain_ns >= _DRAIN_EVERY_NS:
                drain_ns = now_ns
                self._drain()
            if self.record is not None and now_ns - flush_ns >= _FLUSH_EVERY_NS:
                flush_ns = now_ns
                with writing_to(self.config.output.out):
                    self.record.flush()

    def _drain(self) -> None:
        start_ns = self._clock.now_ns()
        with writing_to(self.config.output.out):
            if self.record is not None:
                self._supervisor.run_drain.into(self.record)
            if self._spool is not None:
                self._supervisor.trace(TraceKind.DRAIN, start_ns)
                self._spool.collect()
        self._report_episodes()
        self._follow_contract()

    def _report_episodes(self) -> None:
        if self._on_episode is None or self.record is None:
            return
        for episode in self.record.episodes.since(self._episodes_reported):
            self._episodes_reported += 1
            self._on_episode(episode)

    def _snapshot(self, *, with_memory: bool) -> RunStats:
        supervisor, spool = self._supervisor, self._spool
        stats = snapshot(supervisor.shared, supervisor.description, self.record, with_memory=with_memory)
        if self._contract is not None:
            stats = replace(stats, contract=self._contract.states())
        if self._learning is not None:
            stats = replace(stats, learner=self._learning.stats(supervisor))
        recording = supervisor.recording.summary() if supervisor.recording is not None else {}
        operator = supervisor.operator.summary() if supervisor.operator is not None else {}
        stats = replace(stats, weights=supervisor.workers.weights(), recording=recording, operator=operator)
        trace = {} if spool is None else {"events": spool.num_events, "lost_events": spool.lost_events}
        return replace(stats, trace=trace)


def _handler_of(progress: Callable[[str], None] | None) -> LineHandler | None:
    """For one version: `progress` gets the lines of every run of this program, at INFO and above."""
    if progress is None:
        return None
    text = "progress= is deprecated: its lines are logged, see logging.getLogger('rtcore')"
    warnings.warn(text, DeprecationWarning, stacklevel=3)
    return LineHandler(progress)


def _decode(action: ActionSpec, raw: bytes) -> Any:
    return action.decode(np.frombuffer(raw, action.np_dtype).reshape(action.shape))
