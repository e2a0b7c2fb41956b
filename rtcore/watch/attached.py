"""One run, seen from outside and read-only: for `rtcore-top` and for programs that watch runs.

An onlooker maps a run's segments without the right to write (O_RDONLY, PROT_READ) and needs nothing but to be the run's
own user (or root): the segments stay 0600. It cannot delay the run's clean-up either, since names are unlinked whoever
has them mapped; only the memory itself stays until the onlooker lets go.
"""

from __future__ import annotations

import json
import math
import pwd
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import posix_ipc
import psutil

from rtcore.clock import NS_PER_S, MonotonicClock
from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError, LayoutMismatchError, SharedMemoryError, key_of
from rtcore.learn.stats import learner_stats
from rtcore.memory.layout import LAYOUT_VERSION
from rtcore.memory.master import attach_master
from rtcore.memory.owners import Standing, judge_run, read_head
from rtcore.memory.segments import removal_command, segment_path
from rtcore.memory.shared import Phase, SharedRun
from rtcore.memory.weights import attach_store
from rtcore.results.description import RunDescription
from rtcore.results.run_record import Drain, RunRecord
from rtcore.results.snapshot import booked_ticks, head_of, snapshot
from rtcore.results.summary import LearnerStats, RunHeader, RunStats, build_summary
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore.spaces.image import WorldImage

if TYPE_CHECKING:
    from rtcore.report.rerun import LiveRerun

# -- its learners -----------------------------------------------------------------------------------------


class LearnersView:
    """Maps the learners' segment and the parameter store's; used by one thread.

    LayoutMismatchError if the run has none, or not yet.
    """

    def __init__(self, run_id: str, config: RuntimeConfig, ticks_before: int) -> None:
        """`ticks_before`: of the runs that this one goes on from, for the share of random actions."""
        self._config = config
        self._ticks_before = ticks_before
        self._clock = MonotonicClock()
        self._master, _ = attach_master(run_id, readonly=True)
        self._store = attach_store(run_id, readonly=True)
        self._first = self._newest = (self._master.commit.updates, self._clock.now_ns())

    def stats(self, tick: int) -> LearnerStats:
        """At `tick`. Updates per second are those since the first look. What only the run's own program knows
        (checkpoints, the best return, why learners were restarted) is left as if there were none.
        """
        updates, now_ns = self._master.commit.updates, self._clock.now_ns()
        if updates > self._newest[0]:
            self._newest = (updates, now_ns)
        made, elapsed_ns = (newest - first for newest, first in zip(self._newest, self._first, strict=True))
        rate = made * 1e9 / elapsed_ns if elapsed_ns else math.nan
        return replace(
            learner_stats(self._config, self._master, self._store, self._ticks_before + tick + 1), updates_per_s=rate
        )

    def close(self) -> None:
        """Let go of the memory."""
        self._store.close()
        self._master.close()


# -- whose a run is ---------------------------------------------------------------------------------------

_PARTS = ("slots", "ring", "log", "description")

#: The keys of summary.json and of `Runtime.summary()`, for a run that has none of it yet.
_KEYS = """clock world_clock policy plan ticks actions ipc_us inference_ms restarts workers restart_reasons episodes
observations record books invariants culprits environment wait startup_s startup startup_inferences
leftover_shared_memory"""
SUMMARY_KEYS = tuple(_KEYS.split())

#: Of a summary's `learner`: what the run's own program alone knows.
_OF_THE_RUN_ALONE = ("checkpoints", "failed_checkpoints", "lost_checkpoint", "best_return", "restart_reasons")


class RunState(StrEnum):
    """How far a run is, as far as somebody else can tell."""

    STARTING = "starting"  #: making its world and its workers
    REHEARSING = "rehearsing"  #: measuring its workers
    RUNNING = "running"
    FINISHED = "finished"  #: the last tick is done; its memory is about to be removed
    DEAD_OWNER = "dead owner"  #: killed together with its fork server; only its memory is left
    NO_PERMISSION = "no permission"  #: another user's
    OTHER_LAYOUT = "other layout"  #: of another version of rtcore
    BROKEN = "broken"  #: its memory was half made, or overwritten; whose it was cannot be told


#: Those that `AttachedRun.attach` can show.
LIVE_STATES = frozenset({RunState.STARTING, RunState.REHEARSING, RunState.RUNNING, RunState.FINISHED})


class Owner(NamedTuple):
    """Whose a run is, as far as its control segment tells."""

    pid: int  #: -1 if not known; of its own pid namespace
    user: str
    layout_version: int  #: 0 if not known
    made_unix_s: float  #: when the segment was made
    standing: Standing

    @property
    def is_elsewhere(self) -> bool:
        """In another pid namespace (a container that shares /dev/shm): the pid means nothing here."""
        return self.standing is Standing.OTHER_NAMESPACE

    @property
    def state(self) -> RunState | None:
        """What shows without mapping the run; None: it can be looked into."""
        return _STATES.get(self.standing)

    @property
    def command(self) -> str | None:
        """Its command line, where it can be seen."""
        if self.pid < 0 or self.is_elsewhere:
            return None
        try:
            return " ".join(psutil.Process(self.pid).cmdline()) or None
        except psutil.Error:
            return None


def owner_of(run_id: str) -> Owner:
    """Who made a run, from its control segment alone. `SharedMemoryError` if there is no such run."""
    standing, pid, version = judge_run(run_id)
    try:
        status = segment_path(run_id, "control").lstat()
    except FileNotFoundError:
        standing = Standing.GONE
    if standing is Standing.GONE:
        raise SharedMemoryError(f"run {run_id} is over: its shared memory is gone")
    return Owner(pid, _user_name(status.st_uid), version, status.st_mtime, standing)


_STATES = {
    Standing.UNREADABLE: RunState.NO_PERMISSION,
    Standing.OTHER_LAYOUT: RunState.OTHER_LAYOUT,
    Standing.DEAD: RunState.DEAD_OWNER,
    Standing.BROKEN: RunState.BROKEN,
}


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


# -- one run -----------------------------------------------------------------------------------------------


class AttachedRun:
    """One run, seen from outside. A context manager: leaving it lets go of the run's memory.

    Call `refresh` for news; everything else answers for the last one. A run that is still starting has no `about`
    and no `record`; it has begun (`has_begun`) once its first tick is done. Not thread-safe.
    """

    def __init__(self, run_id: str, owner: Owner) -> None:
        self.run_id = run_id
        self.owner = owner
        self.about: RunDescription | None = None
        self.record: RunRecord | None = None
        self._shared: SharedRun | None = None
        self._drain: Drain | None = None
        self._learners: LearnersView | None = None
        self.refresh()

    @classmethod
    def attach(cls, run_id: str) -> AttachedRun:
        """Attach read-only to a run that is starting or going on.

        Args:
            run_id: As `rtcore-top` lists it.

        Returns:
            What it shows; close it.

        Raises:
            SharedMemoryError: It cannot be shown; the text says why.
        """
        owner = owner_of(run_id)
        if owner.state is RunState.NO_PERMISSION:
            raise _forbidden(run_id, owner)
        if owner.state is RunState.BROKEN:
            raise _broken(run_id)
        if owner.state is RunState.DEAD_OWNER:
            raise SharedMemoryError(
                f"run {run_id} is dead: its program (pid {owner.pid}) was killed and could not clean up. "
                "The next run to start removes what it left in /dev/shm, or rtcore-doctor --clean does"
            )
        return cls(run_id, owner)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the run's memory. What was read stays."""
        if self._learners is not None:
            self._learners.close()
        shared, self._shared, self._drain, self._learners = self._shared, None, None, None
        if shared is not None:
            shared.close()

    # -- news ----------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Read what is new. A run that has gone keeps the state it had: `ending` tells.

        `SharedMemoryError` if it cannot be shown, or will never be more than the beginning of one.
        """
        if self._shared is None:
            try:
                self._shared = _map_or_none(self.run_id)
            except (posix_ipc.PermissionsError, PermissionError) as error:
                raise _forbidden(self.run_id, self.owner) from error
        if self.owner.standing is Standing.BEING_MADE:
            with suppress(SharedMemoryError):
                self.owner = owner_of(self.run_id)
            if self.owner.standing is Standing.BROKEN:
                raise _broken(self.run_id)
        if self._shared is not None:
            self._read(self._shared)

    def _read(self, shared: SharedRun) -> None:
        if self.about is None:
            self._read_about(shared)
        if self.about is None:
            return
        if self._drain is None and (phase_seq := _phase_of_run(shared)) is not None:
            stamped = ObservationSpec.from_json(self.about.world["observation"]).stamped
            self.record = RunRecord(None, lambda raw: raw, stamped=stamped)
            self._drain = _late_drain(shared, phase_seq)
        if self._drain is not None and self.record is not None:
            self._drain.into(self.record)

    def _read_about(self, shared: SharedRun) -> None:
        with understood(self.run_id):
            text = shared.description.read()
            self.about = None if text is None else RunDescription.from_text(text)

    @property
    def has_begun(self) -> bool:
        """Tick 0 is done: there are numbers."""
        return self._drain is not None

    @property
    def phase(self) -> Phase:
        """What the run's supervisor wants at this moment."""
        return Phase(self._shared.run_control["phase"]) if self._shared is not None else Phase.IDLE

    def state(self) -> RunState:
        """One of `LIVE_STATES`."""
        shared, phase = self._shared, self.phase
        if shared is None or (self.about is None and phase is not Phase.RUN):
            return RunState.REHEARSING if phase is Phase.REHEARSE else RunState.STARTING
        return RunState.FINISHED if shared.env_status["finished"] or phase is Phase.STOP else RunState.RUNNING

    def ending(self) -> str | None:
        """Why nothing more will come; None while the run goes on. What is read after this is the last of it."""
        shared = self._shared
        if shared is not None and shared.env_status["finished"]:
            return "it went to its end or was stopped"
        if self.phase is Phase.STOP:
            return "it was ended before its time; its own program says why"
        standing, pid, _ = judge_run(self.run_id)
        if standing is Standing.DEAD:
            return f"its program (pid {pid}) was killed"
        return "its shared memory was removed" if standing is Standing.GONE else None

    # -- what is going on ----------------------------------------------------------------------------------

    @property
    def header(self) -> RunHeader:
        """For the views. Only once there is an `about`."""
        about, _ = self._known()
        return RunHeader.of(about.header, about.run, about.plan)

    def stats(self) -> RunStats:
        """A snapshot. Without the workers' memory: reading that takes a lock of theirs in the kernel."""
        _, shared = self._known()
        self._read_about(shared)  # a restart is told there
        about, _ = self._known()
        config = about.run.config
        stats = snapshot(shared, about, self.record, with_memory=False)
        if config.learning.learn is not None and self._learners is None:
            with suppress(LayoutMismatchError):  # its memory has just been removed
                self._learners = LearnersView(self.run_id, config, about.ticks_before)
        if self._learners is None:
            return stats
        return replace(stats, learner=self._learners.stats(shared.env_status["tick"]))

    @property
    def sight(self) -> WorldImage:
        """What the world looks like. Only once there is an `about`."""
        about, shared = self._known()
        return WorldImage(ObservationSpec.from_json(about.world["observation"]), shared.ring.newest_frame)

    def tell_rerun(self, where: str) -> LiveRerun:
        """For Rerun: every tick from the oldest on that is still to be had. Only once it has begun.

        Args:
            where: "spawn" (a viewer on this machine), the address of one, or a file (.rrd).

        Returns:
            What is to be updated with each `refresh`, and closed.

        Raises:
            ConfigError: rerun is not installed.
        """
        from rtcore.learn.ticks import TickReader  # noqa: PLC0415 - a view without it begins sooner
        from rtcore.report.rerun import LiveRerun  # noqa: PLC0415

        about, shared = self._known()
        action = ActionSpec.from_json(about.world["action"])
        first_frame = max(shared.env_status["first_frame_seq"], shared.ring.sequence.resume_at())
        return LiveRerun(
            self.run_id,
            where,
            reader=TickReader(shared.ring, action, first_frame),
            action=action,
            observation=ObservationSpec.from_json(about.world["observation"]),
            period_ns=NS_PER_S / float(about.run.rate_hz),
            head=head_of(about),
        )

    def booked_ticks(self) -> Mapping[int, int]:
        """Tick of each worker's newest booking. Empty once the run is over."""
        about, shared = self._known()
        return booked_ticks(shared, about) if self.state() is RunState.RUNNING else {}

    @property
    def longest_pause_s(self) -> float:
        """How long one may wait between two refreshes without missing rows: a quarter of what the ring keeps."""
        about, shared = self._known()
        return shared.layout.ring_slots / 4 / float(about.run.rate_hz)

    def _known(self) -> tuple[RunDescription, SharedRun]:
        if self.about is None or self._shared is None:
            raise SharedMemoryError(f"run {self.run_id} has not said yet what it consists of: it is still starting")
        return self.about, self._shared

    def to_json(self) -> dict[str, Any]:
        """The keys of summary.json, and run_id, pid, program, state, phase and config.

        What only the run itself counts is null: the rows its own record lost, its trace, the workers' memory.
        `episodes.return_mean` is the mean of the `episodes.returns_seen` returns that were still to be read.
        """
        about, owner = self.about, self.owner
        run = {
            "run_id": self.run_id,
            "pid": owner.pid if owner.pid >= 0 else None,
            "program": about.program if about is not None else owner.command,
            "state": str(self.state()),
            "phase": key_of(self.phase),
            "config": about.run.config.to_jsonable() if about is not None else None,
        }
        if not self.has_begun:
            return run | dict.fromkeys(SUMMARY_KEYS)
        stats = self.stats()
        summary = build_summary(stats) | {"leftover_shared_memory": None}
        summary["episodes"]["returns_seen"] = stats.dropped_episodes + len(stats.episodes)
        summary["record"] = dict.fromkeys(summary["record"])
        if stats.learner is not None:
            summary["learner"] |= dict.fromkeys(_OF_THE_RUN_ALONE)
        if self._shared is not None and self._shared.layout.trace_slots:
            summary["trace"] = {"events": None, "lost_events": None}
        if about is not None and about.run.config.output.record:
            summary["recording"] = None
        return run | summary


def _late_drain(shared: SharedRun, phase_seq: int) -> Drain:
    """A drain that begins with the oldest rows of the run that are still to be had, not with the next ones."""
    status = shared.env_status
    first_frame = max(status["first_frame_seq"], shared.ring.sequence.resume_at())
    first_job = max(status["first_log_seq"], shared.log.sequence.resume_at())
    return Drain(shared, phase_seq, first_frame, first_job)


def _phase_of_run(shared: SharedRun) -> int | None:
    """The `phase_seq` of the run itself; None before its first tick is done (what is counted then is rehearsal)."""
    sequence, control = shared.ring.sequence, shared.run_control
    _, newest = shared.ring.read_header(sequence.newest())
    if newest is None:
        return None
    # After a stop the phase has moved on, the newest row has not: it is the run's, and so is everything counted.
    is_of_run = shared.env_status["finished"] or newest.phase_seq == control["phase_seq"]
    return newest.phase_seq if is_of_run else None


# -- mapping -----------------------------------------------------------------------------------------------


def _map_or_none(run_id: str) -> SharedRun | None:
    """The run's memory; None while it is still being made, or if it has just gone."""
    if _is_being_made(run_id):
        return None
    with understood(run_id):
        try:
            return SharedRun.watch(run_id)
        except json.JSONDecodeError:  # the rings of a new run are not emptied yet: its text reads as nothing
            return None
        except LayoutMismatchError:
            if _is_being_made(run_id):
                return None
            raise


def _is_being_made(run_id: str) -> bool:
    """Some segment has no head yet or is missing: not there yet, or not any more (`ending` tells)."""
    try:
        head = read_head(segment_path(run_id, "control"))
        if head is None:
            return True
        if head["layout_version"] != LAYOUT_VERSION:
            return False
        parts = (*_PARTS, "trace") if head["trace_slots"] else _PARTS
        return any(read_head(segment_path(run_id, part)) is None for part in parts)
    except FileNotFoundError:
        return True


@contextmanager
def understood(run_id: str) -> Iterator[None]:
    """A run of another version with the same layout may still describe itself in words that this one does not know."""
    try:
        yield
    except (TypeError, LookupError, ValueError, AttributeError, ArithmeticError, RecursionError, ConfigError) as error:
        raise LayoutMismatchError(
            f"run {run_id} describes itself in a way this rtcore does not know ({type(error).__name__}: {error}). "
            "Use the rtcore that started it"
        ) from error


def _broken(run_id: str) -> SharedMemoryError:
    return SharedMemoryError(
        f"run {run_id} is broken: its shared memory has no readable head, as if its program was killed while making "
        f"it. Nothing removes that by itself; if no such run is on: {removal_command(run_id)}"
    )


def _forbidden(run_id: str, owner: Owner) -> SharedMemoryError:
    return SharedMemoryError(
        f"no permission to look at run {run_id}: it belongs to user {owner.user}, and shared memory is private to its "
        f"user. Run this as that user (sudo -u {owner.user} rtcore-top {run_id})"
    )
