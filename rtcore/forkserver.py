"""The fork server of a run: starts children in milliseconds, reports their death, cleans up after everybody.

Run as `python -m rtcore.forkserver FD`, by `launcher.Launcher` only. It imports torch once (never touching
CUDA) and forks each worker from that, so that a further one costs its private memory only. What is forked before
(the env process) has no torch in its memory. Why not `multiprocessing`'s: see docs/adr/0003-own-fork-server.md.

Whoever dies, nothing stays: children die with this process (PR_SET_PDEATHSIG); when its parent dies, by EOF on
the socket or a changed parent pid, it kills the children and removes the run's shared memory.

Protocol, JSON over a SOCK_SEQPACKET socket: {"fork": {...}} with the child's channel as a file descriptor ->
{"forked": pid, "token": n}; {"preload": [modules]} -> {"preloaded": n}, once that is done; {"exited": pid,
"status": waitstatus} whenever a child ends. Requests are done one after the other.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from typing import Any, NoReturn

MAX_MESSAGE_BYTES = 1 << 17
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


def main(fd: int) -> None:
    """Serve until the parent goes away."""
    control = socket.socket(fileno=fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    setup = json.loads(control.recv(MAX_MESSAGE_BYTES))
    sys.path[:] = setup["sys_path"]
    _preload(setup["preload"])
    children: set[int] = set()
    try:
        _serve(control, setup["parent_pid"], children)
    finally:
        _kill(children)
        from rtcore.shm import unlink_all  # noqa: PLC0415 - after the preload, which may bring it

        unlink_all(setup["run_id"])


def _preload(entries: list[str]) -> None:
    """Import "module"s, and call "module:function"s, for all children that are forked from now on."""
    for entry in entries:
        name, _, function = entry.partition(":")
        module = importlib.import_module(name)
        if function:
            getattr(module, function)()
    # What is frozen is not walked in a child's collections, so that its pages stay shared.
    gc.collect()
    gc.freeze()


def _serve(control: socket.socket, parent_pid: int, children: set[int]) -> None:
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _send(control, {"ready": os.getpid()})
    while os.getppid() == parent_pid:
        readable, _, _ = select.select([control.fileno(), wake_read], [], [], 0.5)
        if wake_read in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
            for pid, status in _reap(children):
                _send(control, {"exited": pid, "status": status})
        if control.fileno() in readable:
            message, fds, _, _ = socket.recv_fds(control, MAX_MESSAGE_BYTES, 1)
            if not message:
                return
            request = json.loads(message)
            if "preload" in request:
                _preload(request["preload"])
                _send(control, {"preloaded": len(request["preload"])})
                continue
            pid = _fork(request["fork"], fds[0], control, (wake_read, wake_write))
            os.close(fds[0])
            children.add(pid)
            _send(control, {"forked": pid, "token": request["token"]})


def _send(control: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        control.send(json.dumps(message).encode())


def _reap(children: set[int]) -> list[tuple[int, int]]:
    ended = []
    while children:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            break
        children.discard(pid)
        ended.append((pid, os.waitstatus_to_exitcode(status)))
    return ended


def _kill(children: set[int]) -> None:
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while children:
        try:
            pid, _ = os.waitpid(-1, 0)
        except ChildProcessError:
            return
        children.discard(pid)


def _fork(request: dict[str, Any], fd: int, control: socket.socket, wake: tuple[int, int]) -> int:
    server_pid = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    _run_child(request, fd, control, wake, server_pid)


def _run_child(
    request: dict[str, Any], fd: int, control: socket.socket, wake: tuple[int, int], server_pid: int
) -> NoReturn:
    """In the child: never returns into the server's code, whatever the entry does."""
    exitcode = 1
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.prctl(_PR_SET_NAME, f"rt-{request['name']}".encode()[:15])
        if os.getppid() != server_pid:
            os._exit(1)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        control.close()
        for end in wake:
            os.close(end)
        exitcode = _call_entry(request, socket.socket(fileno=fd))
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(exitcode)


def _call_entry(request: dict[str, Any], channel: socket.socket) -> int:
    module_name, _, function = request["entry"].partition(":")
    try:
        if "entropy" in request["boot"]:
            from rtcore.randomness import seed_generators  # noqa: PLC0415 - after the preload, which brings numpy

            seed_generators(request["boot"]["entropy"])
        getattr(importlib.import_module(module_name), function)(request["boot"], channel)
    except BaseException as error:
        # A user's world or policy that raised is shown with its traceback; our own errors say everything themselves.
        ours = type(error).__module__ == "rtcore.errors"
        cause = error.__cause__
        plain = (
            cause is None or isinstance(cause, ModuleNotFoundError) or type(cause).__module__ == "rtcore_envs.errors"
        )
        user_code = not ours or not (plain or type(error).__name__ == "ConfigError")
        text = "".join(traceback.format_exception(error))[-60_000:] if user_code else ""
        failure = {"failed": type(error).__name__, "message": str(error), "traceback": text}
        _send(channel, failure)
        return 1
    return 0


if __name__ == "__main__":
    main(int(sys.argv[1]))
