"""The supervisor's end of the fork server: start children, talk to them, learn of their death.

Touches nothing of the embedding program: no signal handler, no start method, no `__main__` import, no global.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import psutil

from rtcore import errors
from rtcore.clock import MonotonicClock
from rtcore.errors import LauncherDied, RtcoreError
from rtcore.forkserver import MAX_MESSAGE_BYTES

Role = Literal["env", "worker", "learner", "holder", "recorder"]

#: What the fork server imports before it forks anything: what every process of a run needs. No torch: a world that does
#: not use it is up the sooner, and does not have it in its memory.
PRELOAD = ("numpy", "posix_ipc", "gymnasium", "rtcore_workers.environment")
#: Before it forks who computes with a network: importing torch takes seconds, forking none.
PRELOAD_NETWORK = (
    "torch",
    "rtcore_workers.inference",
    "rtcore_workers.policies.network",
    "rtcore_workers.learner",
    "rtcore_workers.holder",
)
#: Before it forks workers of a policy of the user's own. Each but the first builds its network without memory.
PRELOAD_META = ("rtcore_workers.weights:use_meta_device",)


@dataclass
class Child:
    """A process of the run. `pid` is 0 until the fork server has answered; `exitcode` None while it lives."""

    role: Role
    index: int
    generation: int
    channel: socket.socket
    pid: int = 0
    exitcode: int | None = None
    ready: dict[str, Any] | None = None
    failure: dict[str, Any] | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)

    def send(self, message: dict[str, Any]) -> None:
        """Send to the child; a child that is gone is not an error here (its death is reported apart)."""
        with contextlib.suppress(OSError):
            self.channel.send(json.dumps(message).encode())

    @property
    def is_alive(self) -> bool:
        """Asked of the kernel, for when there may be no fork server to tell of deaths."""
        if not self.pid or self.exitcode is not None:
            return False
        with contextlib.suppress(psutil.Error):
            return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        return False

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Signal the child if it is alive."""
        if self.pid and self.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)


class Launcher:
    """Owns the fork server. Not thread-safe: one thread (the supervisor's) uses it."""

    def __init__(self, run_id: str, preload: tuple[str, ...] = PRELOAD) -> None:
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, Child] = {}
        self._starting: dict[int, Child] = {}
        self._token = 0
        self._asked: set[str] = set()
        self._importing: deque[str] = deque()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rtcore.forkserver", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                # A session of its own: a signal to the user's process group must not kill the one that cleans up.
                start_new_session=True,
            )
        self._control = ours
        self._selector.register(ours, selectors.EVENT_READ, None)
        path = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109 - a string for sys.path
        setup = {"sys_path": path, "preload": preload, "run_id": run_id, "parent_pid": os.getpid()}
        self._control.send(json.dumps(setup).encode())

    def start(self, role: Role, index: int, generation: int, entry: str, boot: dict[str, Any]) -> Child:
        """Ask for a child that calls `entry` ("module:function") with (boot, channel). Returns at once."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        child = Child(role, index, generation, ours)
        self._token += 1
        name = role if role in ("env", "recorder") else f"{role}{index}"
        request = {"fork": {"name": name, "entry": entry, "boot": boot}, "token": self._token}
        with theirs:
            try:
                socket.send_fds(self._control, [json.dumps(request).encode()], [theirs.fileno()])
            except OSError as error:
                raise LauncherDied(f"the fork server is gone ({error}); see its output above") from error
        self._starting[self._token] = child
        self._selector.register(ours, selectors.EVENT_READ, child)
        return child

    def preload(self, what: str, entries: tuple[str, ...]) -> None:
        """Have modules imported ("module:function": called) before any process is forked that is asked for later.

        Returns at once; what was asked for before costs nothing. `what`: for `importing`.
        """
        wanted = tuple(entry for entry in entries if entry not in self._asked)
        if wanted:
            self._asked.update(wanted)
            self._importing.append(what)
            with contextlib.suppress(OSError):  # a fork server that is gone is reported as such
                self._control.send(json.dumps({"preload": wanted}).encode())

    @property
    def importing(self) -> str:
        """What the fork server is importing at the moment; "": nothing."""
        return self._importing[0] if self._importing else ""

    def poll(self, timeout_s: float) -> list[Child]:
        """Wait for messages and deaths; returns the children that something happened to."""
        touched: list[Child] = []
        for key, _ in self._selector.select(timeout_s):
            child = key.data
            if child is None:
                touched += self._read_control()
            elif self._read_child(child):
                touched.append(child)
        return touched

    def poll_until(self, done: Callable[[], bool], limit_ns: int) -> None:
        """Serve events until `done`, for `limit_ns` at most, and no longer than there is a fork server."""
        clock = MonotonicClock()
        give_up_ns = clock.now_ns() + limit_ns
        while not done() and clock.now_ns() < give_up_ns:
            try:
                self.poll(0.02)
            except RtcoreError:
                return

    def close(self) -> None:
        """End the fork server, and with it every child that is left; returns when they are gone."""
        self._control.close()
        for child in (*self._children.values(), *self._starting.values()):
            child.channel.close()
        self._selector.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read_control(self) -> list[Child]:
        try:
            message = self._control.recv(MAX_MESSAGE_BYTES)
        except OSError:
            message = b""
        if not message:
            exitcode = self._process.wait()
            raise LauncherDied(f"the fork server (pid {self._process.pid}) died with exit code {exitcode}")
        event = json.loads(message)
        if "preloaded" in event:
            self._importing.popleft()
        elif "forked" in event:
            child = self._starting.pop(event["token"])
            child.pid = event["forked"]
            self._children[child.pid] = child
        elif "exited" in event:
            child = self._children.pop(event["exited"])
            while self._read_child(child):
                pass
            child.exitcode = event["status"]
            with contextlib.suppress(KeyError):
                self._selector.unregister(child.channel)
            child.channel.close()
            return [child]
        return []

    def _read_child(self, child: Child) -> bool:
        try:
            message = child.channel.recv(MAX_MESSAGE_BYTES)
        except (BlockingIOError, OSError):
            return False
        if not message:
            with contextlib.suppress(KeyError):
                self._selector.unregister(child.channel)
            return False
        event = json.loads(message)
        if "failed" in event:
            child.failure = event
        elif "ready" in event:
            child.ready = event["ready"]
        else:
            child.messages.append(event)
        return True


def child_error(failure: dict[str, Any], who: str) -> RtcoreError:
    """A child's exception as ours, with its traceback attached."""
    kind = getattr(errors, failure["failed"], None)
    if isinstance(kind, type) and issubclass(kind, RtcoreError) and kind is not errors.WorkerDied:
        error: RtcoreError = kind(failure["message"])
    else:
        where = errors.EnvironmentFailed if "env" in who else errors.PolicyError
        error = where(f"{who} raised {failure['failed']}: {failure['message']}")
    if failure["traceback"]:
        error.add_note(f"In {who}:\n{failure['traceback']}")
    return error
