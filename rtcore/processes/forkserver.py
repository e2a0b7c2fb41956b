"""The fork server of a run: starts children in milliseconds, reports their death, cleans up after everybody.

Run as `python -P -m rtcore.processes.forkserver FD`, by `launcher.Launcher` only. It imports torch once (never touching
CUDA) and forks each worker from that, so that a further one costs its private memory only. What is forked before
(the env process) has no torch in its memory. Why not `multiprocessing`'s: see docs/adr/0003-own-fork-server.md.

Whoever dies, nothing stays: children die with this process (PR_SET_PDEATHSIG); when its parent dies, by EOF on
the socket or a changed parent pid, it ends the children, and all that they have started (`descendants.py`), and removes
the run's shared memory.

Protocol: `Setup` first; then `Fork`, answered by `Forked` or `ForkFailed`, and `Preload`, answered by `Preloaded` once
that is done, one after the other; and `Exited` whenever a child ends. It never waits in sending, and takes no further
order while many of its answers are unread.
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
from typing import NoReturn

from rtcore.channel import Channel, Message, from_plain
from rtcore.host.descendants import Children, TerminationRequested, begin_child, end_child
from rtcore.messages import Boot, Exited, Failed, Fork, Forked, ForkFailed, Preload, Preloaded, Setup

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
#: How often to look whether the parent lives [ms].
_POLL_MS = 500
_SETUP_TIMEOUT_S = 60.0
#: Parts of answers that may lie unsent before further orders have to wait: each has a file descriptor with it.
_MOST_UNSENT = 64


def main(fd: int) -> None:
    """Serve until the parent goes away."""
    control = Channel(socket.socket(fileno=fd))
    children = Children()
    setup = control.expect(Setup, _SETUP_TIMEOUT_S)
    # In the program's own folders, which may be first on its path, a file may be called as a module of the standard
    # library is. Worlds and policies are looked for there first, by the children; nothing of what they are made of.
    sys.path[:] = sorted(setup.sys_path, key=setup.own_folders.__contains__)
    try:
        _serve(control, setup, children)
    finally:
        children.end(setup.grace_s)
        from rtcore.memory.segments import unlink_all  # noqa: PLC0415 - after the preload, which may bring it

        unlink_all(setup.run_id)


def _preload(modules: list[str]) -> None:
    """Import them for all children that are forked from now on."""
    gc.disable()  # what an import makes stays: looking through all of it over and over takes a tenth of its time
    for module in modules:
        importlib.import_module(module)
    gc.enable()
    # What is frozen is not walked in a child's collections, so that its pages stay shared.
    gc.collect()
    gc.freeze()


def _serve(control: Channel, setup: Setup, children: Children) -> None:
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poller = select.poll()
    poller.register(wake_read, select.POLLIN)
    while os.getppid() == setup.parent_pid and not control.is_closed:
        control.flush()
        takes_orders = control.num_unsent <= _MOST_UNSENT
        poller.register(control, (select.POLLIN if takes_orders else 0) | (select.POLLOUT if control.num_unsent else 0))
        poller.poll(_POLL_MS)
        with contextlib.suppress(BlockingIOError):
            os.read(wake_read, 4096)
        for pid, exitcode in children.reap():
            control.post(Exited(pid, exitcode))
        while control.num_unsent <= _MOST_UNSENT and (request := control.next()) is not None:
            if isinstance(request, Preload):
                try:
                    _preload(request.modules)
                except BaseException as error:  # of any library that is imported: the supervisor reports it
                    control.send(Failed.of(error))
                    return
                control.post(Preloaded())
            elif isinstance(request, Fork):
                control.post(_fork(request, setup.sys_path, control, (wake_read, wake_write), children))


def _fork(request: Fork, sys_path: list[str], control: Channel, wake: tuple[int, int], children: Children) -> Message:
    server_pid = os.getpid()
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        return ForkFailed(request.token, error.errno or 0, str(error))
    with theirs:
        try:
            pid = os.fork()
        except OSError as error:
            ours.close()
            return ForkFailed(request.token, error.errno or 0, str(error))
        if not pid:
            ours.close()
            sys.path[:] = sys_path
            _run_child(request, theirs, control, wake, server_pid)
    children.add(pid, request.name)
    return Forked(request.token, pid, ours.detach())


def _run_child(request: Fork, end: socket.socket, control: Channel, wake: tuple[int, int], server_pid: int) -> NoReturn:
    """In the child: never returns into the server's code, whatever the entry does."""
    exitcode = 1
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.prctl(_PR_SET_NAME, f"rt-{request.name}".encode()[:15])
        if os.getppid() != server_pid:
            os._exit(1)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        begin_child(request.name)
        control.close()
        for descriptor in wake:
            os.close(descriptor)
        exitcode = _call_entry(request, Channel(end))
    finally:
        try:
            end_child(exitcode)
        except TerminationRequested:  # SIGTERM came on the way into it, which raises once
            end_child(exitcode)


def _call_entry(request: Fork, channel: Channel) -> int:
    module_name, _, function = request.entry.partition(":")
    try:
        from rtcore.host.seeding import seed_generators  # noqa: PLC0415 - after the preload, which brings numpy

        entry = getattr(importlib.import_module(module_name), function)
        boot = from_plain(request.boot)
        if not isinstance(boot, Boot):
            raise TypeError(f"got a {type(boot).__name__}; expected what {request.entry} is started with")
        seed_generators(boot.entropy)
        entry(boot, channel)
    except TerminationRequested:
        return 1
    except BaseException as error:
        failed = Failed.of(error)
        channel.send(failed)
        if channel.is_closed:  # the supervisor cannot be reached
            print(f"rt-{request.name}: {failed.kind}: {failed.text}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    main(int(sys.argv[1]))
