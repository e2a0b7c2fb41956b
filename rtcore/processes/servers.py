"""Fork servers as the program has them: one is started for a run, or taken over from an earlier run of the program.

A run has a fork server of its own, which ends with it. In a block of `shared_imports` it is kept at the end of a run
for the next one, which then imports nothing again. One server never serves two runs at a time.

What a process inherits from the program that starts it must be what the program has at that moment, and never what it
had at an earlier run. So a server is kept only for a run that would start the same one: same environment, module path,
user, limits, CPUs, scheduling, signals, namespaces (`_Surroundings`); and the server refuses where a file that it has
imported, or a folder of libraries, has changed since. The current folder, standard output and error are handed over.
Worlds and policies of the user's own are imported by the run's processes, not by the server: each run imports them
again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from rtcore.channel import Channel, Message
from rtcore.clock import NS_PER_S, MonotonicClock
from rtcore.errors import ChannelError, explain_exit
from rtcore.messages import Forked, Inherit, NextRun, NextRunAccepted, RunCleared, RunOver, Setup, Split

_log = logging.getLogger(__name__)

#: What the fork server takes to end beside the time that the world gets: descendants, shared memory [s].
_END_S = 8.0
#: And to look at the files that it has imported [s].
_ACCEPT_S = 20.0
#: Variables that may differ between two runs of a server: what names the present test of a program's own test suite,
#: and what PySDL2 and torch's compiler set once the program itself imports them.
_OF_NO_IMPORT = ("PYTEST_CURRENT_TEST", "PYSDL2_DLL_PATH", "TORCHINDUCTOR_CACHE_DIR")
#: Servers that wait for a run, at most: those that are taken over least come to their end.
_MOST_WAITING = 2
#: What of /proc/self/status a process inherits.
_INHERITED_STATUS = (
    *("Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"),
    *("NoNewPrivs", "Seccomp", "Seccomp_filters", "Cpus_allowed", "Mems_allowed", "THP_enabled"),
)


@dataclass(frozen=True)
class _Surroundings:
    """All that a fork server would have of this program, and of this thread, if it were started now."""

    #: What it imports before it forks anything.
    preload: tuple[str, ...]
    environment: dict[str, str]
    sys_path: list[str]
    own_folders: list[str]
    #: By the file of /proc or the call that says it.
    kernel: dict[str, object]

    @classmethod
    def now(cls, preload: tuple[str, ...]) -> _Surroundings:
        path, own_folders = _program_path()
        environment = {name: value for name, value in os.environ.items() if name not in _OF_NO_IMPORT}
        return cls(preload, environment, path, own_folders, _kernel_state())


def _kernel_state() -> dict[str, object]:
    here = Path(f"/proc/{threading.get_native_id()}")
    lines = (line.partition(":") for line in (here / "status").read_text().splitlines())
    found: dict[str, object] = {name: value for name, _, value in lines if name in _INHERITED_STATUS}
    for name in ("limits", "cgroup", "oom_score_adj", "personality", "timerslack_ns"):
        with contextlib.suppress(OSError):  # a kernel or a container without it
            found[name] = (here / name).read_text()
    for space in (here / "ns").iterdir():
        with contextlib.suppress(OSError):
            found[space.name] = str(space.readlink())
    root = Path("/").stat()
    found["root"] = (root.st_dev, root.st_ino)
    found["scheduling"] = (
        os.sched_getscheduler(0),
        os.sched_getparam(0).sched_priority,
        os.getpriority(os.PRIO_PROCESS, 0),
        psutil.Process().ionice(),
    )
    # How Python buffers what is printed follows from it, once for all.
    found["terminal"] = (os.isatty(1), os.isatty(2))
    return found


@dataclass(eq=False)
class ForkServer:
    """One fork server, and the one for torch that was split off from it, where it serves several runs.

    Attributes:
        process: The server.
        control: To it.
        split_control: To the one that was split off; None: there is none.
        imported: What they have imported, or have been told to.
        is_shared: It may serve another run after this one.
    """

    process: subprocess.Popen[bytes]
    control: Channel
    is_shared: bool
    split_control: Channel | None = None
    imported: set[str] = field(default_factory=set)
    _surroundings: _Surroundings | None = None

    @classmethod
    def for_run(cls, run_id: str, preload: tuple[str, ...], grace_s: float) -> ForkServer:
        """One that waited for such a run, or a new one. OSError if no process can be started.

        Args:
            run_id: The run.
            preload: What it imports before it forks anything; the launcher tells it to.
            grace_s: What the env process gets to close its world in if this program is killed.
        """
        surroundings = _Surroundings.now(preload) if _shared.is_on else None
        path, own_folders = (surroundings.sys_path, surroundings.own_folders) if surroundings else _program_path()
        setup = Setup(
            path, own_folders, run_id, parent_pid=os.getpid(), grace_s=grace_s, is_shared=surroundings is not None
        )
        while surroundings is not None and (waiting := _shared.take(surroundings)) is not None:
            if waiting._accepts(setup):
                return waiting
            waiting.end(grace_s)
        control, theirs = Channel.pair()
        with theirs:
            server = cls(_start(theirs.fileno()), control, setup.is_shared)
        server._surroundings = surroundings
        control.post(setup)
        return server

    def split(self) -> Channel:
        """To the fork server that was split off from this one; it is now, where it was not before."""
        if self.split_control is None:
            self.split_control, theirs = Channel.pair()
            self.control.post(Split(theirs.detach()))
        return self.split_control

    def leave(self, grace_s: float, close_channels: Callable[[], None]) -> None:
        """The run is over: end its children, and wait until nothing is left of it. The server ends, or waits for the
        next run.

        Args:
            grace_s: What the env process gets to close its world in.
            close_channels: Closes those to the children, which are being ended when it is called.
        """
        if not (self.is_shared and _shared.is_on):
            self.end(grace_s, close_channels)
            return
        try:
            for control in self._controls():
                control.post(RunOver())
            close_channels()
            is_cleared = all(self._is_cleared(control, grace_s) for control in self._controls())
        except BaseException:  # a signal: nobody knows what it would still answer
            self.end(grace_s)
            raise
        if is_cleared:
            for server in _shared.keep(self):
                server.end(grace_s)
        else:
            self.end(grace_s)

    def end(self, grace_s: float, close_channels: Callable[[], None] = lambda: None) -> None:
        """End it, and every child that is left; returns when they are gone."""
        for control in self._controls():
            with contextlib.suppress(OSError):  # the program has closed what is not its own
                control.close()
        close_channels()
        try:
            self._await_end(grace_s + _END_S)
        except BaseException:  # a signal that ends the program: first nothing may be left
            self._await_end(grace_s + _END_S)
            raise

    def _await_end(self, limit_s: float) -> None:
        try:
            self.process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def death_text(self, *, split_off: bool) -> str:
        """About a server that has gone unasked. `split_off`: the one of that kind."""
        if split_off:
            return f"the fork server that has imported torch (started by that of pid {self.process.pid}) died"
        return f"the fork server (pid {self.process.pid}) died: {explain_exit(self._exitcode())}"

    def _exitcode(self) -> int | None:
        """None if another part of the program collected it, where `wait` alone would say 0."""
        if self.process.returncode is None:
            try:
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
            except ChildProcessError:
                return None
        return self.process.wait()

    def _controls(self) -> list[Channel]:
        """The one that was split off first: it has less to end."""
        return [control for control in (self.split_control, self.control) if control is not None]

    @staticmethod
    def _is_cleared(control: Channel, grace_s: float) -> bool:
        cleared = _await(control, RunCleared, grace_s + _END_S)
        return isinstance(cleared, RunCleared) and not cleared.num_left

    def _accepts(self, setup: Setup) -> bool:
        """Whether it serves that run: nothing of what it has imported has changed since."""
        variables = {name: os.environ.get(name) for name in _OF_NO_IMPORT}
        for control in self._controls():
            try:
                here = os.open(".", os.O_PATH | os.O_DIRECTORY)
                for number, descriptor in ((-1, here), (1, os.dup(1)), (2, os.dup(2))):
                    control.post(Inherit(number, descriptor))
            except OSError:  # no descriptor left, or none that could be handed over
                return False
            control.post(NextRun(setup, variables))
        for control in self._controls():
            accepted = _await(control, NextRunAccepted, _ACCEPT_S)
            if not isinstance(accepted, NextRunAccepted):
                return False
            if accepted.changed:
                _log.debug("everything is imported anew: %s has changed", accepted.changed)
                return False
        return True


class _Shared:
    """The program's servers that wait for a run. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._blocks = 0
        self._waiting: list[ForkServer] = []

    @property
    def is_on(self) -> bool:
        """In this process, and not in one that was forked from it."""
        return self._blocks > 0 and self._pid == os.getpid()

    def enter(self) -> None:
        with self._lock:
            if self._pid != os.getpid():
                self._pid, self._blocks, self._waiting = os.getpid(), 0, []
            self._blocks += 1

    def leave(self) -> list[ForkServer]:
        """Those that nobody is to take any more: of the outermost block all."""
        with self._lock:
            if self._pid != os.getpid():
                return []
            self._blocks -= 1
            ended, self._waiting = ([], self._waiting) if self._blocks else (self._waiting, [])
            return ended

    def pids(self) -> list[int]:
        with self._lock:
            return [server.process.pid for server in self._waiting]

    def take(self, surroundings: _Surroundings) -> ForkServer | None:
        with self._lock:
            for server in reversed(self._waiting):
                if server._surroundings == surroundings:
                    self._waiting.remove(server)
                    return server
            return None

    def keep(self, server: ForkServer) -> list[ForkServer]:
        """Those that have to end for it."""
        with self._lock:
            self._waiting.append(server)
            ended = self._waiting if not self._blocks else self._waiting[:-_MOST_WAITING]
            self._waiting = [each for each in self._waiting if each not in ended]
            return ended


_shared = _Shared()


@contextlib.contextmanager
def shared_imports() -> Iterator[None]:
    """Runs of this program that come one after the other in this block import NumPy, torch and rtcore once.

    From the second run on, its start takes less time by those imports. What a run needs of the program (environment,
    module path, current folder, limits, scheduling, ...) is what the program has when the run starts: where something
    of that differs from the earlier run's, or an imported file has changed, the run imports all anew. Modules of worlds
    and policies are imported by each run, as without.

    Between two runs, and until the end of the block, a process that holds what was imported waits. It ends with the
    block, and with the program, however that ends. Blocks may be nested; the outermost one counts. It holds for the
    whole program, all its threads.

    Examples:
        ```python
        with rtcore.shared_imports():
            for policy in policies:
                with rtcore.Runtime(env_id="CartPole-v1", policy=policy, duration=5) as runtime:
                    runtime.wait()
        ```
    """
    _shared.enter()
    try:
        yield
    finally:
        for server in _shared.leave():
            server.end(0)


def waiting_servers() -> list[int]:
    """The pids of fork servers that wait for this program's next run."""
    return _shared.pids()


def _await(control: Channel, kind: type[Message], limit_s: float) -> Message | None:
    """What it answers, once what the last run did not read any more is out of the way; None: it is gone, or says that
    it is."""
    clock = MonotonicClock()
    give_up_ns = clock.now_ns() + int(limit_s * NS_PER_S)
    with contextlib.suppress(ChannelError, OSError):
        while (left_ns := give_up_ns - clock.now_ns()) > 0:
            message = control.receive(left_ns / NS_PER_S)
            if isinstance(message, Forked) and message.descriptor >= 0:
                os.close(message.descriptor)
            if message is None or isinstance(message, kind):
                return message
    return None


def _start(descriptor: int) -> subprocess.Popen[bytes]:
    # Both signals are blocked until it has set its handlers (`Children`): before that they would end it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        return subprocess.Popen(
            # -P: the current folder is the user's, and what is called socket.py there is not Python's.
            [sys.executable, "-P", "-m", "rtcore.processes.forkserver", str(descriptor)],
            pass_fds=[descriptor],
            env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            # A session of its own: a signal to the user's process group must not kill the one that cleans up.
            start_new_session=True,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
    path = [*dict.fromkeys(path)]  # a folder that is there twice is found the first time
    return path, [entry for entry in path if entry in own]
