"""The supervisor's end of the fork server: start children, talk to them, learn of their death.

Touches nothing of the embedding program: no signal handler, no start method, no `__main__` import, no global.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import selectors
import signal
import socket
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import psutil

from rtcore import errors
from rtcore.channel import Channel, Message, to_plain
from rtcore.clock import NS_PER_MS, NS_PER_S, Clock, MonotonicClock, cpu_time_of_ns
from rtcore.config.resolved import ResolvedRun
from rtcore.errors import (
    NO_DESCRIPTOR,
    ChannelError,
    EnvironmentFailed,
    LauncherDied,
    OperatorError,
    PolicyError,
    RecordError,
    RtcoreError,
    SharedMemoryError,
    StartupError,
    WorkerDied,
)
from rtcore.host.watchdog import CpuUse, Watchdog
from rtcore.memory.shared import SharedRun
from rtcore.messages import (
    Boot,
    Exited,
    Failed,
    Fork,
    Forked,
    ForkFailed,
    Preload,
    Preloaded,
    Ready,
    RunBoot,
    WorldSpec,
)
from rtcore.processes.servers import ForkServer

_log = logging.getLogger(__name__)

#: Makes what a process is started with; called with what every process of a run gets: run_id, entropy, run.
MakeBoot = Callable[..., RunBoot]
#: Starts a process of one role: (index, generation, entry, boot).
Launch = Callable[[int, int, str, MakeBoot], "Child"]
Role = Literal["env", "worker", "learner", "holder", "recorder", "operator", "cell"]
#: Roles with one process, as people call it.
_DISPLAY_NAMES: dict[Role, str] = {
    "env": "the env process",
    "recorder": "the recorder",
    "operator": "the operator",
}
#: What an error is that a process of this role raised and that is none of rtcore's: by whose code runs there.
_ERRORS: dict[Role, type[RtcoreError]] = {
    "env": EnvironmentFailed,
    "worker": PolicyError,
    "learner": PolicyError,
    "holder": SharedMemoryError,
    "recorder": RecordError,
    "operator": OperatorError,
    "cell": RtcoreError,
}

#: What the fork server imports before it forks anything: what every process of a run needs. No torch: a world that does
#: not use it is up the sooner, and does not have it in its memory.
PRELOAD = ("numpy", "posix_ipc", "gymnasium", "rtcore.loop.process")
#: Before it forks workers.
PRELOAD_WORKERS = ("rtcore_workers.inference",)
#: And where these have theirs computed on other hosts.
PRELOAD_LINKS = ("rtcore_workers.remote.near", "zmq.utils.monitor")
#: Before it forks who computes with a network: importing torch takes seconds, forking none.
PRELOAD_NETWORK = (
    "torch",
    "rtcore_workers.policies.network",
    "rtcore_workers.learner",
    "rtcore_workers.holder",
)
#: Before it forks workers, of which each but the first builds the network without memory, if that computes something.
PRELOAD_META = ("rtcore_workers.weights.meta_device",)
#: States of a child that has ended, whether that has been told or not.
ENDED = ("gone", psutil.STATUS_ZOMBIE)
#: A fork that fails (no process, no memory, no descriptor left for the moment) is tried again after this long ...
_FORK_AGAIN_NS = 250 * NS_PER_MS
#: ... for this long: then the child has failed.
_FORK_PATIENCE_NS = 10 * NS_PER_S
#: File descriptors that a run needs beside one for each child, and what the program may open meanwhile.
_SPARE_DESCRIPTORS = 16


@dataclass(frozen=True)
class RunParts:
    """What those who start the processes of a role need of the run. `shared`: its shared memory."""

    run: ResolvedRun
    run_id: str
    shared: SharedRun
    world: WorldSpec
    clock: Clock
    watchdog: Watchdog


@dataclass(eq=False)
class Child:
    """A process of the run. `pid` is 0 and there is no `channel` until it is forked; `exitcode` None while it lives.

    One that could not be started has a `failure` and an `exitcode` and never had a pid.
    """

    role: Role
    index: int
    generation: int
    channel: Channel | None = None
    pid: int = 0
    exitcode: int | None = None
    ready: Ready | None = None
    failure: Failed | None = None
    #: What else it has said and nobody has taken yet, oldest first.
    messages: deque[Message] = field(default_factory=deque)

    @property
    def name(self) -> str:
        return self.role if self.role in _DISPLAY_NAMES else f"{self.role}{self.index}"

    @property
    def display_name(self) -> str:
        """For people: "worker 3"."""
        return _DISPLAY_NAMES.get(self.role, f"{self.role} {self.index}")

    @property
    def error(self) -> RtcoreError | None:
        """What it raised, as an error of ours with its traceback attached; None: it has raised nothing."""
        return _error_of(self.failure, self.display_name, _ERRORS[self.role]) if self.failure is not None else None

    @property
    def death(self) -> WorkerDied:
        """That it has ended unasked, as an error."""
        return WorkerDied(self.role, self.index, self.pid, self.exitcode)

    def send(self, message: Message) -> None:
        """Never waits. A child that is gone is not an error here (its death is reported apart)."""
        if self.channel is not None:
            self.channel.post(message)

    @property
    def is_alive(self) -> bool:
        """Asked of the kernel, for when there may be no fork server to tell of deaths."""
        if not self.pid or self.exitcode is not None:
            return False
        return self.state not in ENDED

    @property
    def state(self) -> str:
        """In the kernel's words: "running" (or waiting for a CPU), "sleeping", "disk-sleep", "stopped", ..., "gone"."""
        with contextlib.suppress(psutil.Error):
            return psutil.Process(self.pid).status()
        return "gone"

    def work_done(self) -> tuple[float, int]:
        """CPU time [s] and bytes written so far: a process in which these grow is working, even if it is silent."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.pid)
            times = process.cpu_times()
            return times.user + times.system, process.io_counters().write_bytes
        return 0.0, 0

    def cpu_use(self) -> CpuUse | None:
        """Whether its main thread wants a CPU at the moment, and the CPU time that the process got; None: not known."""
        with contextlib.suppress(psutil.Error):
            return CpuUse(psutil.Process(self.pid).status() == psutil.STATUS_RUNNING, cpu_time_of_ns(self.pid))
        return None

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Signal the child if it is alive."""
        if self.pid and self.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)


@dataclass(eq=False)
class _Order:
    """A child that has been asked for: the request, of whom, and since when it has been refused [ns]; 0: it has not."""

    child: Child
    fork: Fork
    control: Channel
    refused_ns: int = 0


class Launcher:
    """Owns the fork server. Not thread-safe: one thread (the supervisor's) uses it.

    `failed_forks` counts, by reason, how often a child could not be forked and was asked for again.
    """

    def __init__(
        self,
        run_id: str,
        preload: tuple[str, ...] = PRELOAD,
        grace_s: float = 2.0,
    ) -> None:
        """Returns at once. StartupError if no process can be started.

        `grace_s`: what the env process gets to close its world in if this process is killed.
        """
        self._grace_s = grace_s
        self.failed_forks: Counter[str] = Counter()
        #: The fork server is gone; the kernel has told the env process to end.
        self.is_lost = False
        self._clock = MonotonicClock()
        self._children: dict[int, Child] = {}
        self._orders: dict[int, _Order] = {}
        self._again: deque[tuple[int, _Order]] = deque()
        #: Forked, but without a channel to this program: their deaths are ignored.
        self._strays: set[int] = set()
        self._token = 0
        self._importing: deque[str] = deque()
        try:
            self._selector = selectors.DefaultSelector()
            self._server = ForkServer.for_run(run_id, preload, grace_s)
        except OSError as error:
            raise StartupError(f"the fork server could not be started: {error}. {_what_to_do(error.errno)}") from error
        #: Who forks what is asked for from now on.
        self._forking = self._server.control
        self._selector.register(self._forking, selectors.EVENT_READ, None)
        self.preload("", preload)

    def make_room(self, num_children: int) -> None:
        """So many children more are to come: raise the soft limit of file descriptors if they need it.

        Raises:
            StartupError: the hard limit is too low.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - their number is all that is wanted
        needed = used + len(self._orders) + num_children + _SPARE_DESCRIPTORS
        if needed <= soft or soft == resource.RLIM_INFINITY:
            return
        if hard != resource.RLIM_INFINITY and needed > hard:
            raise StartupError(
                f"{num_children} more processes need {needed} file descriptors in this program, a few for its own; its "
                f"limit is {hard}. Raise it (ulimit -Hn, docker run --ulimit nofile={needed}), or ask for fewer workers"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))

    def start(self, role: Role, index: int, generation: int, entry: str, boot: Boot) -> Child:
        """Ask for a child that calls `entry` ("module:function") with (boot, channel). Returns at once."""
        child = Child(role, index, generation)
        self._token += 1
        self._send_order(_Order(child, Fork(self._token, child.name, entry, to_plain(boot)), self._forking))
        return child

    def _send_order(self, order: _Order) -> None:
        self._orders[order.fork.token] = order
        order.control.post(order.fork)

    def preload(self, what: str, modules: tuple[str, ...], *, apart: bool = False) -> None:
        """Have modules imported before any process is forked that is asked for later.

        Returns at once; what was asked for before costs nothing. `what`: for `importing`. `apart`: what is forked first
        in a later run of this program is to have none of it.
        """
        if apart and self._server.is_shared:
            try:
                self._forking = self._server.split()
            except OSError as error:
                raise StartupError(
                    f"the fork server could not be split: {error}. {_what_to_do(error.errno)}"
                ) from error
            with contextlib.suppress(KeyError):  # as before
                self._selector.register(self._forking, selectors.EVENT_READ, None)
        wanted = [module for module in modules if module not in self._server.imported]
        if wanted:
            self._server.imported.update(wanted)
            self._importing.append(what)
            self._forking.post(Preload(wanted))
            _log.debug("the fork server imports %s", ", ".join(wanted))

    @property
    def importing(self) -> str:
        """What the fork server is importing at the moment; "": nothing."""
        return self._importing[0] if self._importing else ""

    def poll(self, timeout_s: float) -> list[Child]:
        """Wait for messages and deaths; returns the children that something happened to.

        Raises:
            LauncherDied: the fork server is gone, and every child with it; or cannot be reached any more.
        """
        try:
            return self._poll(timeout_s)
        except LauncherDied:
            self.is_lost = True
            raise
        except OSError as error:
            raise LauncherDied(
                f"the run's processes cannot be reached any more: {error}. This program has closed file descriptors "
                "that it did not open, those of the run among them (os.closerange, a library that daemonizes?). "
                "Leave them open until the run is closed"
            ) from error

    def _poll(self, timeout_s: float) -> list[Child]:
        self._send_orders_again()
        touched: list[Child] = []
        for control in self._controls:
            self._watch(control, None)
        for child in self._children.values():
            if child.channel is not None and child.channel.num_unsent:
                self._watch(child.channel, child)
        for key, _ in self._selector.select(timeout_s):
            child = key.data
            if child is None:
                for control in self._controls:
                    control.flush()
                    touched += self._read_control(control)
            elif child.channel is not None:
                child.channel.flush()
                self._watch(child.channel, child)
                if self._read_child(child):
                    touched.append(child)
        return list(dict.fromkeys(touched))

    def _watch(self, channel: Channel, child: Child | None) -> None:
        """Wait for incoming data and, while something is unsent, for room to send."""
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if channel.num_unsent else 0)
        with contextlib.suppress(KeyError, ValueError):  # one whose other end is gone is watched no more
            if self._selector.get_key(channel).events != wanted:
                self._selector.modify(channel, wanted, child)

    def poll_until(self, done: Callable[[], bool], limit_ns: int) -> bool:
        """Serve events until `done`, for `limit_ns` at most, in which this process did not stand still. False: the fork
        server has died, and all with it."""
        awake = Watchdog(self._clock)
        while not done() and awake.now_ns() < limit_ns:
            try:
                self.poll(0.02)
            except RtcoreError:
                return False
        return True

    def close(self) -> None:
        """End every child that is left, and the fork server unless it waits for the program's next run; returns when
        they are gone."""
        self._server.leave(self._grace_s, self._close_channels)

    def _close_channels(self) -> None:
        channels = [child.channel for child in self._children.values() if child.channel is not None]
        for close in (*(channel.close for channel in channels), self._selector.close):
            with contextlib.suppress(OSError):  # the program has closed what is not its own
                close()

    @property
    def _controls(self) -> list[Channel]:
        """To the fork server, and to the one that was split off for this run."""
        first = self._server.control
        return [first] if self._forking is first else [first, self._forking]

    # -- what the fork server says ---------------------------------------------------------------------------

    def _read_control(self, control: Channel) -> list[Child]:
        touched: list[Child] = []
        while True:
            message = control.next()
            if isinstance(message, Forked):
                touched += self._forked(message)
            elif isinstance(message, ForkFailed):
                touched += self._refused(self._orders.pop(message.token), message.errno, message.why)
            elif isinstance(message, Exited):
                touched += self._exited(message)
            elif isinstance(message, Preloaded):
                self._importing.popleft()
            elif isinstance(message, Failed):
                raise _error_of(message, "the fork server", LauncherDied)
            elif control.is_closed:
                raise LauncherDied(self._server.death_text(split_off=control is self._server.split_control))
            else:
                return touched

    def _forked(self, message: Forked) -> list[Child]:
        order = self._orders.pop(message.token)
        child = order.child
        if message.descriptor < 0:
            # It cannot be talked to. Its death is not that of the child that was asked for.
            self._strays.add(message.pid)
            os.kill(message.pid, signal.SIGKILL)
            return self._refused(order, errno.EMFILE, "this program has no file descriptor left")
        self._children[message.pid] = child
        child.pid = message.pid
        child.channel = Channel(socket.socket(fileno=message.descriptor))
        self._selector.register(child.channel, selectors.EVENT_READ, child)
        _log.debug("%s is process %d", child.name, child.pid)
        return []

    def _refused(self, order: _Order, code: int, why: str) -> list[Child]:
        """Ask again after a moment, or give up."""
        now_ns = self._clock.now_ns()
        self.failed_forks[why] += 1
        if not order.refused_ns:
            order.refused_ns = now_ns
            patience = f"trying again for {_FORK_PATIENCE_NS // NS_PER_S} s"
            _log.warning(f"no process can be started for {order.child.name}: {why}; {patience}")
        if now_ns - order.refused_ns < _FORK_PATIENCE_NS:
            self._again.append((now_ns + _FORK_AGAIN_NS, order))
            return []
        child = order.child
        text = f"no process could be started for {child.name} within {_FORK_PATIENCE_NS // NS_PER_S} s: {why}. "
        child.failure, child.exitcode = Failed("StartupError", text + _what_to_do(code)), 1
        return [child]

    def _send_orders_again(self) -> None:
        while self._again and self._again[0][0] <= self._clock.now_ns():
            _, order = self._again.popleft()
            self._send_order(order)

    def _exited(self, message: Exited) -> list[Child]:
        if message.pid in self._strays:
            self._strays.remove(message.pid)
            return []
        child = self._children.pop(message.pid)
        child.exitcode = message.exitcode
        _log.debug("%s (pid %d) has ended with exit code %d", child.name, child.pid, child.exitcode)
        if child.channel is not None:
            self._read_child(child)
            self._forget(child.channel)
            child.channel.close()
        return [child]

    def _read_child(self, child: Child) -> bool:
        """Take in what a child has said, up to now; whether that was anything."""
        channel, found = child.channel, False
        if channel is None:
            return False
        try:
            while (message := channel.next()) is not None:
                found = True
                if isinstance(message, Failed):
                    child.failure = message
                elif isinstance(message, Ready):
                    child.ready = message
                else:
                    child.messages.append(message)
        except ChannelError as error:
            found, child.failure = True, Failed("ChannelError", f"{child.name} (pid {child.pid}): {error}")
        if channel.is_closed:
            self._forget(channel)
        return found

    def _forget(self, channel: Channel) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(channel)


def _what_to_do(code: int | None) -> str:
    """About a process that could not be started. `code`: the kernel's error number."""
    if code in NO_DESCRIPTOR:
        return "Raise the limit of open files (ulimit -n), or ask for fewer workers"
    if code == errno.ENOMEM:
        return "Free memory, or ask for fewer workers"
    return "Raise the limit of processes (ulimit -u; pids.max of the container or service), or ask for fewer workers"


def _error_of(failure: Failed, display_name: str, otherwise: type[RtcoreError]) -> RtcoreError:
    """A process's exception as ours, with its traceback attached. `otherwise`: the class of one that is not ours."""
    kind = getattr(errors, failure.kind, None)
    if isinstance(kind, type) and issubclass(kind, RtcoreError) and kind is not WorkerDied:
        error: RtcoreError = kind(failure.text)
    else:
        error = otherwise(f"{display_name} raised {failure.kind}: {failure.text}")
    if failure.traceback:
        error.add_note(f"In {display_name}:\n{failure.traceback}")
    return error
