"""The fork server of a run: starts children in milliseconds, reports their death, cleans up after everybody.

Run as `python -P -m rtcore.processes.forkserver FD`, by `servers.ForkServer` only. It imports torch once (never
touching CUDA) and forks each worker from that, so that a further one costs its private memory only. What is forked
before (the env process) has no torch in its memory. Why not `multiprocessing`'s: see docs/adr/0003-own-fork-server.md.

Whoever dies, nothing stays: children die with this process (PR_SET_PDEATHSIG), of which the env process gets SIGTERM,
so that it closes its world; when its parent dies, by EOF on the socket or a changed parent pid, it ends the children,
and all that they have started (`descendants.py`), and removes the run's shared memory.

Protocol: `Setup` first; then `Fork`, answered by `Forked` or `ForkFailed`, and `Preload`, answered by `Preloaded` once
that is done, one after the other; and `Exited` whenever a child ends. It never waits in sending, and takes no further
order while many of its answers are unread.

Where several runs of a program share what is imported (`servers.shared_imports`), it serves one run after another, each
alone: `RunOver` ends a run's children and removes its memory, `NextRun` begins another. Torch is then imported by a
second fork server, split off from this one (`Split`), so that the world of the next run has none in its memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from typing import NoReturn

from rtcore.channel import Channel, Message, from_plain
from rtcore.config.run import RuntimeConfig
from rtcore.host.descendants import ENV, Children, TerminationRequested, begin_child, end_child, raise_lost_order
from rtcore.messages import (
    Boot,
    Exited,
    Failed,
    Fork,
    Forked,
    ForkFailed,
    Inherit,
    NextRun,
    NextRunAccepted,
    Preload,
    Preloaded,
    RunCleared,
    RunOver,
    Setup,
    Split,
)

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
#: How often to look whether the parent lives [ms].
_POLL_MS = 500
_SETUP_TIMEOUT_S = 60.0
_ORDERS_TO_END = (signal.SIGTERM, signal.SIGHUP)
#: Parts of answers that may lie unsent before further orders have to wait: each has a file descriptor with it.
_MOST_UNSENT = 64


def main(fd: int) -> None:
    """Serve until the parent goes away."""
    control = Channel(socket.socket(fileno=fd))
    setup = control.expect(Setup, _SETUP_TIMEOUT_S)
    _Server(control, setup, setup.parent_pid).serve()


class _Server:
    """Serves one run after another. `parent_pid`: whose end is also its own."""

    def __init__(self, control: Channel, setup: Setup, parent_pid: int, *, was_split_off: bool = False) -> None:
        self._control = control
        self._setup = setup
        self._parent_pid = parent_pid
        self._was_split_off = was_split_off
        self._children = Children()
        #: Fork servers that were split off from this one: they serve the runs that it serves.
        self._split_off: set[int] = set()
        #: What was imported, and the folders where that was looked for, as they were then.
        self._found: dict[str, _Mark] = {}
        self._inherited: list[Inherit] = []
        # In the program's own folders, which may be first on its path, a file may be called as a module of the standard
        # library is. Worlds and policies are looked for there first, by the children; nothing of what they are made of.
        sys.path[:] = sorted(setup.sys_path, key=setup.own_folders.__contains__)

    def serve(self) -> None:
        """Until the parent goes away."""
        try:
            self._serve()
        finally:
            self._children.end(self._setup.grace_s)
            self._unlink()

    def _serve(self) -> None:
        control = self._control
        self._wake = wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake_read, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poller = select.poll()
        poller.register(wake_read, select.POLLIN)
        while os.getppid() == self._parent_pid and not control.is_closed:
            control.flush()
            takes_orders = control.num_unsent <= _MOST_UNSENT
            events = (select.POLLIN if takes_orders else 0) | (select.POLLOUT if control.num_unsent else 0)
            poller.register(control, events)
            poller.poll(_POLL_MS)
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
            for pid, exitcode in self._children.reap():
                if pid not in self._split_off:  # the program finds that one's channel closed
                    control.post(Exited(pid, exitcode))
            while control.num_unsent <= _MOST_UNSENT and (request := control.next()) is not None:
                if isinstance(request, Preload):
                    try:
                        self._preload(request.modules)
                    except BaseException as error:  # of any library that is imported: the supervisor reports it
                        control.send(Failed.of(error))
                        return
                    control.post(Preloaded())
                elif isinstance(request, Fork):
                    control.post(self._fork(request))
                elif isinstance(request, Split):
                    self._split(request)
                elif isinstance(request, RunOver):
                    num_left = self._children.end(self._setup.grace_s, spared=self._split_off)
                    self._unlink()
                    control.post(RunCleared(num_left))
                elif isinstance(request, Inherit):
                    self._inherited.append(request)
                elif isinstance(request, NextRun):
                    control.post(self._begin(request))

    def _preload(self, modules: list[str]) -> None:
        """Import them for all children that are forked from now on."""
        gc.disable()  # what an import makes stays: looking through all of it over and over takes a tenth of its time
        for module in modules:
            importlib.import_module(module)
        # The first config builds the checks of all settings: 20 ms and 7 MB that each child would need for itself.
        RuntimeConfig.from_jsonable({})
        gc.enable()
        # What is frozen is not walked in a child's collections, so that its pages stay shared.
        gc.collect()
        gc.freeze()
        if self._setup.is_shared:
            for path in {*_files_of_modules(), *sys.path} - {*self._setup.own_folders} - self._found.keys():
                self._found[path] = _mark_of(path)

    def _begin(self, request: NextRun) -> NextRunAccepted:
        """Be as a fork server would be that the program had started now, but for what is imported."""
        inherited, self._inherited = self._inherited, []
        changed = next((path for path, mark in self._found.items() if _mark_of(path) != mark), "")
        for each in inherited:
            if each.number >= 0:
                os.dup2(each.descriptor, each.number)
            else:
                os.fchdir(each.descriptor)
            os.close(each.descriptor)
        for name, value in request.variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        importlib.invalidate_caches()  # modules of the user's may have come since
        self._setup = request.setup
        return NextRunAccepted(changed)

    def _unlink(self) -> None:
        """Remove the run's shared memory; the one that was started first does that, after all others."""
        from rtcore.memory.segments import unlink_all  # noqa: PLC0415 - after the preload, which may bring it

        if not self._was_split_off:
            unlink_all(self._setup.run_id)

    def _split(self, request: Split) -> None:
        server_pid = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(request.descriptor)
            self._control.post(Failed.of(error))
            return
        if pid:
            os.close(request.descriptor)
            self._split_off.add(pid)
            self._children.add(pid, "forkserver")
            return
        exitcode = 1
        try:
            _die_with(server_pid)
            self._leave()
            server = _Server(
                Channel(socket.socket(fileno=request.descriptor)), self._setup, server_pid, was_split_off=True
            )
            server._found = self._found
            server.serve()
            exitcode = 0
        except BaseException:
            traceback.print_exc()  # nobody else hears of it
        finally:
            os._exit(exitcode)

    def _leave(self) -> None:
        """In a child: what the server serves with."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._control.close()
        for descriptor in self._wake:
            os.close(descriptor)

    def _fork(self, request: Fork) -> Message:
        server_pid = os.getpid()
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            return ForkFailed(request.token, error.errno or 0, str(error))
        # What comes before the child has handlers of its own would be for the server's, and be lost.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ORDERS_TO_END)
        with theirs:
            try:
                pid = os.fork()
            except OSError as error:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                ours.close()
                return ForkFailed(request.token, error.errno or 0, str(error))
            if not pid:
                ours.close()
                sys.path[:] = self._setup.sys_path
                self._run_child(request, theirs, server_pid, before)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._children.add(pid, request.name)
        return Forked(request.token, pid, ours.detach())

    def _run_child(self, request: Fork, end: socket.socket, server_pid: int, blocked: set[int]) -> NoReturn:
        """In the child: never returns into the server's code, whatever the entry does.

        `blocked`: the signals that are blocked once it has handlers of its own; until then those that would end it are.
        """
        exitcode = 1
        try:
            ctypes.CDLL(None).prctl(_PR_SET_NAME, f"rt-{request.name}".encode()[:15])
            self._leave()
            begin_child(request.name)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            _die_with(server_pid, signal.SIGTERM if request.name == ENV else signal.SIGKILL)
            exitcode = _call_entry(request, Channel(end))
        finally:
            try:
                end_child(exitcode, was_orphaned=os.getppid() != server_pid)
            except TerminationRequested:  # SIGTERM came on the way into it, which raises once
                end_child(exitcode, was_orphaned=os.getppid() != server_pid)


#: By which a file or folder is known to be the same: time of its last change [ns], size, inode; None: there is none.
_Mark = tuple[int, int, int] | None


def _mark_of(path: str) -> _Mark:
    try:
        found = os.stat(path)  # noqa: PTH116 - of thousands of files, while a run starts
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _files_of_modules() -> Iterator[str]:
    for module in [*sys.modules.values()]:
        path = getattr(module, "__dict__", {}).get("__file__")  # some have a `__getattr__` that makes things up
        if isinstance(path, str) and path.startswith("/"):
            yield path


def _die_with(server_pid: int, signum: int = signal.SIGKILL) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != server_pid:
        os._exit(1)


def _call_entry(request: Fork, channel: Channel) -> int:
    try:
        try:
            _run_entry(request, channel)
        except Exception:
            raise_lost_order()  # compiled code, such as pydantic's, makes an error of its own of the exception
            raise
    except TerminationRequested:
        return 1
    except BaseException as error:
        failed = Failed.of(error)
        channel.send(failed)
        if channel.is_closed:  # the supervisor cannot be reached
            print(f"rt-{request.name}: {failed.kind}: {failed.text}", file=sys.stderr)
        return 1
    return 0


def _run_entry(request: Fork, channel: Channel) -> None:
    module_name, _, function = request.entry.partition(":")
    from rtcore.host.seeding import seed_generators  # noqa: PLC0415 - after the preload, which brings numpy

    entry = getattr(importlib.import_module(module_name), function)
    boot = from_plain(request.boot)
    if not isinstance(boot, Boot):
        raise TypeError(f"got a {type(boot).__name__}; expected what {request.entry} is started with")
    seed_generators(boot.entropy)
    entry(boot, channel)


if __name__ == "__main__":
    main(int(sys.argv[1]))
