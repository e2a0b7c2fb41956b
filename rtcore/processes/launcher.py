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
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil

from rtcore import errors
from rtcore.channel import Channel, Message, to_plain
from rtcore.clock import NS_PER_MS, NS_PER_S, Clock, MonotonicClock
from rtcore.config.resolved import ResolvedRun
from rtcore.errors import (
    ChannelError,
    EnvironmentFailed,
    LauncherDied,
    PolicyError,
    RecordError,
    RtcoreError,
    SharedMemoryError,
    StartupError,
    WorkerDied,
)
from rtcore.host.watchdog import Watchdog
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
    Setup,
    WorldSpec,
)

_log = logging.getLogger(__name__)

#: Makes what a process is started with; called with what every process of a run gets: run_id, entropy, run.
MakeBoot = Callable[..., RunBoot]
#: Starts a process of one role: (index, generation, entry, boot).
Launch = Callable[[int, int, str, MakeBoot], "Child"]
Role = Literal["env", "worker", "learner", "holder", "recorder", "cell"]
#: Roles with one process, as people call it.
_DISPLAY_NAMES: dict[Role, str] = {"env": "the env process", "recorder": "the recorder"}
#: What an error is that a process of this role raised and that is none of rtcore's: by whose code runs there.
_ERRORS: dict[Role, type[RtcoreError]] = {
    "env": EnvironmentFailed,
    "worker": PolicyError,
    "learner": PolicyError,
    "holder": SharedMemoryError,
    "recorder": RecordError,
    "cell": RtcoreError,
}

#: What the fork server imports before it forks anything: what every process of a run needs. No torch: a world that does
#: not use it is up the sooner, and does not have it in its memory.
PRELOAD = ("numpy", "posix_ipc", "gymnasium", "rtcore.loop.process")
#: Before it forks workers.
PRELOAD_WORKERS = ("rtcore_workers.inference",)
#: Before it forks who computes with a network: importing torch takes seconds, forking none.
PRELOAD_NETWORK = (
    "torch",
    "rtcore_workers.policies.network",
    "rtcore_workers.learner",
    "rtcore_workers.holder",
)
#: Before it forks workers of a policy of the user's own. Each but the first builds its network without memory.
PRELOAD_META = ("rtcore_workers.weights.meta_device",)
#: A fork that fails (no process, no memory, no descriptor left for the moment) is tried again after this long ...
_FORK_AGAIN_NS = 250 * NS_PER_MS
#: ... for this long: then the child has failed.
_FORK_PATIENCE_NS = 10 * NS_PER_S
#: File descriptors that a run needs beside one for each child, and what the program may open meanwhile.
_SPARE_DESCRIPTORS = 16
#: What the fork server takes to end beside the time that the world gets: descendants, shared memory [s].
_END_S = 8.0


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
        return self.role if self.role in ("env", "recorder") else f"{self.role}{self.index}"

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
        with contextlib.suppress(psutil.Error):
            return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        return False

    def work_done(self) -> tuple[float, int]:
        """CPU time [s] and bytes written so far: a process in which these grow is working, even if it is silent."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.pid)
            times = process.cpu_times()
            return times.user + times.system, process.io_counters().write_bytes
        return 0.0, 0

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Signal the child if it is alive."""
        if self.pid and self.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)


@dataclass(eq=False)
class _Order:
    """A child that has been asked for: the request, and since when it has been refused [ns]; 0: it has not."""

    child: Child
    fork: Fork
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
        self._clock = MonotonicClock()
        self._children: dict[int, Child] = {}
        self._orders: dict[int, _Order] = {}
        self._again: deque[tuple[int, _Order]] = deque()
        #: Forked, but without a channel to this program: their deaths are ignored.
        self._strays: set[int] = set()
        self._token = 0
        self._preloaded: set[str] = set()
        self._importing: deque[str] = deque()
        try:
            self._selector = selectors.DefaultSelector()
            self._control, theirs = Channel.pair()
            with theirs:
                self._process = self._start_fork_server(theirs)
        except OSError as error:
            raise StartupError(f"the fork server could not be started: {error}. {_what_to_do(error.errno)}") from error
        self._selector.register(self._control, selectors.EVENT_READ, None)
        path, own_folders = _program_path()
        self._control.post(Setup(path, own_folders, run_id, os.getpid(), grace_s))
        self.preload("", preload)

    @staticmethod
    def _start_fork_server(control: socket.socket) -> subprocess.Popen[bytes]:
        # Both signals are blocked until it has set its handlers (`Children`): before that they would end it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            return subprocess.Popen(
                # -P: the current folder is the user's, and what is called socket.py there is not Python's.
                [sys.executable, "-P", "-m", "rtcore.processes.forkserver", str(control.fileno())],
                pass_fds=[control.fileno()],
                env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                # A session of its own: a signal to the user's process group must not kill the one that cleans up.
                start_new_session=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

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
        self._send_order(_Order(child, Fork(self._token, child.name, entry, to_plain(boot))))
        return child

    def _send_order(self, order: _Order) -> None:
        self._orders[order.fork.token] = order
        self._control.post(order.fork)

    def preload(self, what: str, modules: tuple[str, ...]) -> None:
        """Have modules imported before any process is forked that is asked for later.

        Returns at once; what was asked for before costs nothing. `what`: for `importing`.
        """
        wanted = [module for module in modules if module not in self._preloaded]
        if wanted:
            self._preloaded.update(wanted)
            self._importing.append(what)
            self._control.post(Preload(wanted))
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
        except OSError as error:
            raise LauncherDied(
                f"the run's processes cannot be reached any more: {error}. This program has closed file descriptors "
                "that it did not open, those of the run among them (os.closerange, a library that daemonizes?). "
                "Leave them open until the run is closed"
            ) from error

    def _poll(self, timeout_s: float) -> list[Child]:
        self._send_orders_again()
        touched: list[Child] = []
        self._watch(self._control, None)
        for child in self._children.values():
            if child.channel is not None and child.channel.num_unsent:
                self._watch(child.channel, child)
        for key, _ in self._selector.select(timeout_s):
            child = key.data
            if child is None:
                self._control.flush()
                touched += self._read_control()
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
        """Serve events until `done`, for `limit_ns` at most. False: the fork server has died, and all with it."""
        give_up_ns = self._clock.now_ns() + limit_ns
        while not done() and self._clock.now_ns() < give_up_ns:
            try:
                self.poll(0.02)
            except RtcoreError:
                return False
        return True

    def close(self) -> None:
        """End the fork server, and with it every child that is left; returns when they are gone."""
        channels = [self._control, *(child.channel for child in self._children.values() if child.channel is not None)]
        for close in (*(channel.close for channel in channels), self._selector.close):
            with contextlib.suppress(OSError):  # the program has closed what is not its own
                close()
        try:
            self._process.wait(timeout=self._grace_s + _END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    # -- what the fork server says ---------------------------------------------------------------------------

    def _read_control(self) -> list[Child]:
        touched: list[Child] = []
        while True:
            message = self._control.next()
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
            elif self._control.is_closed:
                raise LauncherDied(
                    f"the fork server (pid {self._process.pid}) died: {errors.explain_exit(_end_of(self._process))}"
                )
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


def _program_path() -> tuple[list[str], list[str]]:
    """Where this program looks for modules, in full, as the fork server may stand in another folder; and which of it is
    the program's own: its current folder and its script's."""
    own = (
        {str(Path(script).resolve().parent)}
        if (script := getattr(sys.modules["__main__"], "__file__", None))
        else set()
    )
    path = [entry for entry in sys.path if entry]
    with contextlib.suppress(FileNotFoundError):  # the current folder may have been deleted
        here = os.getcwd()  # noqa: PTH109 - a string for sys.path
        own.add(here)
        path = [entry or here for entry in sys.path]
    return path, [entry for entry in path if entry in own]


def _what_to_do(code: int | None) -> str:
    """About a process that could not be started. `code`: the kernel's error number."""
    if code in (errno.EMFILE, errno.ENFILE):
        return "Raise the limit of open files (ulimit -n), or ask for fewer workers"
    if code == errno.ENOMEM:
        return "Free memory, or ask for fewer workers"
    return "Raise the limit of processes (ulimit -u; pids.max of the container or service), or ask for fewer workers"


def _end_of(process: subprocess.Popen[bytes]) -> int | None:
    """Its exit code; None if another part of the program collected it, where `wait` alone would say 0."""
    if process.returncode is None:
        try:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            return None
    return process.wait()


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
