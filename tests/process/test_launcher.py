"""The launcher and its fork server: any number of children, messages of any length, forks that fail."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rtcore import Runtime, shared_imports
from rtcore.clock import NS_PER_MS
from rtcore.errors import LauncherDied, SharedMemoryError, StartupError
from rtcore.memory import shared
from rtcore.memory.segments import Segment, create_segment, files_of, new_run_id
from rtcore.messages import End
from rtcore.processes import launcher as launcher_module
from rtcore.processes import servers
from rtcore.processes.launcher import Child, Launcher
from rtcore.processes.servers import ForkServer
from tests.support.drills import wait_for
from tests.support.launcher_parts import Ask, Say, part_boot

pytestmark = [pytest.mark.process, pytest.mark.timeout(400)]


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Launcher]:
    """With a fork server of its own: some of the tests break it."""
    monkeypatch.setattr(servers, "_shared", servers._Shared())
    made = Launcher(new_run_id(), ("json", "tests.support.launcher_parts"))
    yield made
    made.close()


def poll_until(launcher: Launcher, done: Callable[[], bool]) -> list[Child]:
    touched: list[Child] = []
    for _ in range(3000):
        if done():
            return touched
        touched += launcher.poll(0.05)
    raise AssertionError("it took too long")


def descriptors(launcher: Launcher) -> tuple[int, int]:
    """Of this program, less those that other tests have left to the collector, and of the fork server."""
    gc.collect()
    ours, theirs = (len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in ("self", launcher._server.process.pid))
    return ours, theirs


def are_as_before(launcher: Launcher, before: tuple[int, int]) -> None:
    assert descriptors(launcher)[0] <= before[0], "fewer where the collector came by what other tests had left"
    wait_for(lambda: descriptors(launcher)[1] == before[1], "the fork server to close what it has read")


def test_a_hundred_children_are_asked_for_before_any_answer_is_read(launcher: Launcher) -> None:
    """Many more answers, and many more bytes, than a socket keeps: nobody waits for the other for ever."""
    first = launcher.start("worker", 0, 0, "tests.support.launcher_parts:ends", part_boot())
    poll_until(launcher, lambda: first.exitcode is not None)
    before = descriptors(launcher)
    children = [
        launcher.start("worker", index, 1, "tests.support.launcher_parts:waits", part_boot(pad="x" * 30_000))
        for index in range(100)
    ]
    poll_until(launcher, lambda: all(child.ready for child in children))
    assert {getattr(child.ready, "bytes", 0) for child in children} == {30_000}
    for child in children:
        child.send(End())
    poll_until(launcher, lambda: all(child.exitcode is not None for child in children))
    assert {child.exitcode for child in children} == {0}
    are_as_before(launcher, before)


def test_a_long_run_of_restarts_leaves_no_descriptor_and_no_child_behind(launcher: Launcher) -> None:
    first = launcher.start("worker", 0, 0, "tests.support.launcher_parts:ends", part_boot())
    poll_until(launcher, lambda: first.exitcode is not None)
    before = descriptors(launcher)
    for generation in range(60):
        child = launcher.start("worker", 0, generation, "tests.support.launcher_parts:ends", part_boot())
        poll_until(launcher, lambda child=child: child.exitcode is not None)
    are_as_before(launcher, before)
    assert not launcher._children
    assert not launcher._orders


def test_the_checks_of_all_settings_are_built_once_and_not_by_each_child(launcher: Launcher) -> None:
    """They take 20 ms and 7 MB, which all workers of a run then share."""
    child = launcher.start(
        "worker", 0, 1, "tests.support.launcher_parts:says_whether_settings_can_be_checked", part_boot()
    )
    poll_until(launcher, lambda: bool(child.messages))
    said = child.messages.popleft()
    assert isinstance(said, Say)
    assert set(said.value) == {True}


def test_a_boot_and_an_answer_of_megabytes_arrive_whole(launcher: Launcher) -> None:
    child = launcher.start(
        "worker", 0, 1, "tests.support.launcher_parts:echoes", part_boot(chars=3_000_000, pad="y" * 3_000_000)
    )
    poll_until(launcher, lambda: child.pid > 0)
    child.send(Ask(7))
    poll_until(launcher, lambda: bool(child.messages))
    assert child.messages.popleft() == Say([7, "x" * 3_000_000])


def test_a_long_error_arrives_as_what_it_is(launcher: Launcher) -> None:
    child = launcher.start(
        "worker", 0, 1, "tests.support.launcher_parts:raises", part_boot(text="\u4e16", times=400_000)
    )
    poll_until(launcher, lambda: child.exitcode is not None)
    assert child.failure is not None
    error = child.error
    assert str(error).startswith("worker 0 raised RuntimeError: \u4e16\u4e16")
    assert "characters left out" in str(error)


def test_a_child_that_sends_what_is_no_message_has_failed_by_name(launcher: Launcher) -> None:
    child = launcher.start("worker", 3, 1, "tests.support.launcher_parts:talks_nonsense", part_boot())
    poll_until(launcher, lambda: child.failure is not None)
    assert child.failure is not None
    assert child.failure.kind == "ChannelError"
    assert "worker3" in child.failure.text
    assert "hello, world" in child.failure.text


def test_a_fork_that_fails_is_tried_again_and_counted(launcher: Launcher, said: list[str]) -> None:
    launcher.preload("trouble", ("tests.support.preloads.two_forks_fail",))
    child = launcher.start("worker", 0, 1, "tests.support.launcher_parts:waits", part_boot())
    poll_until(launcher, lambda: child.ready is not None)
    why = f"[Errno 11] {os.strerror(11)}"
    assert launcher.failed_forks == {why: 2}
    assert said == [f"no process can be started for worker0: {why}; trying again for 10 s"]


def test_a_fork_that_goes_on_failing_is_the_childs_failure(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher_module, "_FORK_PATIENCE_NS", 300 * NS_PER_MS)
    launcher.preload("trouble", ("tests.support.preloads.all_forks_fail",))
    child = launcher.start("worker", 5, 1, "tests.support.launcher_parts:waits", part_boot())
    assert child in poll_until(launcher, lambda: child.exitcode is not None)
    assert child.failure is not None
    error = child.error
    assert isinstance(error, StartupError)
    assert "no process could be started for worker5" in str(error)
    assert "ulimit -u; pids.max" in str(error)


def test_a_library_that_cannot_be_imported_is_named(launcher: Launcher) -> None:
    launcher.preload("trouble", ("tests.support.preloads.cannot_be_imported",))
    with pytest.raises(LauncherDied, match=r"the fork server raised ImportError: libgl.so.1"):
        poll_until(launcher, lambda: False)


def test_more_children_than_there_may_be_descriptors_are_refused_before_any_is_started(launcher: Launcher) -> None:
    with pytest.raises(StartupError, match=r"100000000 more processes need .* file descriptors.*ulimit -Hn"):
        launcher.make_room(100_000_000)


@pytest.mark.parametrize(("reaped", "how"), [(False, "killed by SIGKILL"), (True, "exit code unknown")])
def test_how_the_fork_server_died_is_said_as_far_as_it_is_known(launcher: Launcher, reaped: bool, how: str) -> None:
    """A program may reap every child, ours too; then nobody knows."""
    pid = launcher._server.process.pid
    os.kill(pid, signal.SIGKILL)
    if reaped:
        os.waitpid(pid, 0)
    with pytest.raises(LauncherDied, match=how):
        poll_until(launcher, lambda: False)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_fork_server_that_is_asked_to_end_while_it_starts_goes_on(launcher: Launcher, signum: int) -> None:
    """It is the program that ends it: children have a world to close."""
    os.kill(launcher._server.process.pid, signum)
    child = launcher.start("worker", 0, 1, "tests.support.launcher_parts:ends", part_boot())
    poll_until(launcher, lambda: child.exitcode is not None)
    assert child.exitcode == 0


def test_a_program_that_closes_every_descriptor_is_told_so_and_can_still_close_the_run() -> None:
    """`os.closerange` of a library that makes itself a daemon. In a program of its own: it would close pytest's."""
    program = (
        "import os\n"
        "from rtcore.errors import LauncherDied\n"
        "from rtcore.processes.launcher import Launcher\n"
        f"launcher = Launcher({new_run_id()!r}, preload=())\n"
        "os.closerange(3, 4096)\n"
        "try:\n"
        "    launcher.poll(1.0)\n"
        "except LauncherDied as error:\n"
        "    print(error)\n"
        "launcher.close()\n"
        "print('closed', launcher._server.process.returncode)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert "This program has closed file descriptors that it did not open" in done.stdout, done.stderr
    assert "closed 0" in done.stdout, done.stderr


WITHOUT_DESCRIPTORS = """
import os, resource, signal, time
from rtcore.host.descendants import Children
children = Children()
if not (pid := os.fork()):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(60)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
print(children.end(0))
os.kill(pid, 0)
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(children.end(0))
try:
    os.kill(pid, 0)
except ProcessLookupError:
    print("gone")
"""


def test_who_has_no_file_descriptor_left_to_look_for_orphans_ends_them_once_there_is_one() -> None:
    """Campaign, seed 838."""
    command = [sys.executable, "-c", WITHOUT_DESCRIPTORS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout.split(), done.stderr) == (["0", "0", "gone"], "")


@pytest.mark.parametrize("role", ["env", "worker"])
def test_an_order_to_end_that_comes_before_a_child_has_handlers_of_its_own_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """It went to the handlers of the fork server, which ends by none of them (campaign, seed 14072)."""
    monkeypatch.setattr(servers, "_shared", servers._Shared())
    launcher = Launcher(new_run_id(), ("tests.support.launcher_parts", "tests.support.early_orders"))
    try:
        child = launcher.start(role, 0, 0, "tests.support.launcher_parts:waits", part_boot())
        poll_until(launcher, lambda: child.exitcode is not None or child.ready is not None)
        assert child.exitcode == -signal.SIGTERM
    finally:
        launcher.close()


@pytest.mark.parametrize("shares_imports", [False, True])
def test_a_signal_while_a_failed_start_is_cleaned_up_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, shares_imports: bool
) -> None:
    """The fork server had not removed the segments yet, and the program's end killed it (campaign, seed 17040)."""
    monkeypatch.setattr(servers, "_shared", servers._Shared())
    made: list[str] = []

    def create(run_id: str, part: str, *rest: Any) -> Segment:
        if len(made) == 3:
            waits = (servers, "_await") if shares_imports else (ForkServer, "_await_end")
            monkeypatch.setattr(*waits, interrupted_once(getattr(*waits)))
            raise SharedMemoryError("no room")
        made.append(part)
        return create_segment(run_id, part, *rest)

    monkeypatch.setattr(shared, "create_segment", create)
    others = set(psutil.Process().children())
    runtime = Runtime(env_id="CartPole-v1", policy="random", duration=1)
    with shared_imports() if shares_imports else contextlib.nullcontext():
        with pytest.raises(KeyboardInterrupt):
            runtime.start()
        assert len(made) == 3 and not files_of(runtime.run_id)
        assert set(psutil.Process().children()) <= others, "its fork server has ended, and so has what that had forked"


def interrupted_once(function: Callable[..., Any]) -> Callable[..., Any]:
    calls: list[None] = []

    def call(*arguments: Any) -> Any:
        calls.append(None)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return function(*arguments)

    return call
