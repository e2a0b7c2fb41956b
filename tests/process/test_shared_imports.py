"""Runs that share what is imported: each has what the program has when it starts, and nothing of an earlier one."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import rtcore
from rtcore.memory.segments import files_of, new_run_id
from rtcore.processes import servers
from rtcore.processes.launcher import Launcher
from tests.support.drills import started, wait_for
from tests.support.launcher_parts import part_boot

pytestmark = pytest.mark.process

PARTS = "tests.support.launcher_parts"


@pytest.fixture(autouse=True)
def _nothing_is_shared_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even what other tests have imported."""
    monkeypatch.setattr(servers, "_shared", servers._Shared())


def told(own: str = "", *, split: bool = False) -> tuple[int, dict[str, Any]]:
    """The pid of the fork server of a run, and what a process of it has (`launcher_parts.tells`)."""
    launcher = Launcher(new_run_id(), ("json", PARTS))
    try:
        if split:
            launcher.preload("much", ("colorsys",), apart=True)
        child = launcher.start("worker", 0, 1, f"{PARTS}:tells", part_boot(text=own))
        while child.exitcode is None:
            launcher.poll(0.05)
        assert child.failure is None, child.failure
        return launcher._server.process.pid, vars(child.messages.popleft())["value"]
    finally:
        launcher.close()


@pytest.fixture
def waiting() -> Callable[[], set[int]]:
    """Processes that were started since and are there now: between two runs, the servers."""

    def now() -> set[int]:
        return {child.pid for child in psutil.Process().children(recursive=True)}

    before = now()
    return lambda: now() - before


@contextmanager
def a_variable() -> Iterator[None]:
    os.environ["SHARED_WITH"] = "this run"
    try:
        yield
    finally:
        del os.environ["SHARED_WITH"]


@contextmanager
def a_mask() -> Iterator[None]:
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def another_limit() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0 if soft else hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


@contextmanager
def fewer_cpus() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def a_blocked_signal() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def a_longer_path() -> Iterator[None]:
    sys.path.append("/somewhere/else")
    try:
        yield
    finally:
        sys.path.remove("/somewhere/else")


def test_a_run_has_what_the_program_has_then_and_the_next_one_nothing_of_it() -> None:
    changes: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "environment": a_variable,
        "umask": a_mask,
        "limit": another_limit,
        "cpus": fewer_cpus,
        "blocked": a_blocked_signal,
        "path": a_longer_path,
    }
    if len(os.sched_getaffinity(0)) == 1:
        del changes["cpus"]
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        del changes["limit"]
    with rtcore.shared_imports():
        server, before = told()
        for what, change in changes.items():
            with change():
                changed_server, changed = told()
            again_server, again = told()
            assert changed_server != server, what
            assert changed[what] != before[what]
            assert {**changed, what: before[what]} == before
            assert again_server == server, "that of the first run waited for one that is as that run was"
            assert again == before, what


def test_a_run_stands_in_the_programs_folder_and_prints_where_the_program_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of the same server: a program that goes through folders, and a test suite whose every test is another one."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(tmp_path)
    with rtcore.shared_imports():
        first, there = told(split=True)
        assert "printed by" in capfd.readouterr().out
        monkeypatch.chdir(other)
        sys.path.append(sys.path[0])  # as each call of a program's `main` in this process does
        monkeypatch.setenv("PYTEST_CURRENT_TEST", "the next one")
        kept = os.dup(1)
        with Path("printed").open("w") as file:
            os.dup2(file.fileno(), 1)
            try:
                second, here = told(split=True)
            finally:
                os.dup2(kept, 1)
                os.close(kept)
        monkeypatch.delenv("PYTEST_CURRENT_TEST")
        third, without = told(split=True)
    assert first == second == third
    assert Path("printed").read_text() == "printed by \n"
    assert (there["folder"], here["folder"]) == (str(tmp_path), str(other))
    assert here["environment"]["PYTEST_CURRENT_TEST"] == "the next one"
    assert "PYTEST_CURRENT_TEST" not in without["environment"]


def test_a_module_of_the_users_that_changed_between_two_runs_is_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processes of a run import it; also one that came only after the first run."""
    monkeypatch.syspath_prepend(str(tmp_path))
    with rtcore.shared_imports():
        (tmp_path / "worlds_of_mine.py").write_text("VALUE = 1\n")
        first, before = told("worlds_of_mine")
        (tmp_path / "worlds_of_mine.py").write_text("VALUE = 'two'\n")
        (tmp_path / "more_of_mine.py").write_text("VALUE = 3\n")
        tmp_path_changed, after = told("worlds_of_mine")
        _, more = told("more_of_mine")
    assert (before["own"], after["own"], more["own"]) == (1, "two", 3)
    assert first != tmp_path_changed, "a folder of libraries has one more: what was imported might be found there now"


@pytest.mark.slow
def test_a_library_that_changed_between_two_runs_is_imported_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    library = tmp_path / "library_of_mine.py"
    library.write_text("VALUE = 1\n")

    def told_of_library() -> tuple[int, Any]:
        launcher = Launcher(new_run_id(), ("json", PARTS, "library_of_mine"))
        try:
            child = launcher.start("worker", 0, 1, f"{PARTS}:tells", part_boot(text="library_of_mine"))
            while child.exitcode is None:
                launcher.poll(0.05)
            return launcher._server.process.pid, vars(child.messages.popleft())["value"]["own"]
        finally:
            launcher.close()

    with rtcore.shared_imports():
        first, second = told_of_library(), told_of_library()
        library.write_text("VALUE = 'another'\n")
        third = told_of_library()
    assert first == second
    assert first[1] == 1
    assert third[0] != first[0]
    assert third[1] == "another"


@pytest.mark.slow
def test_two_runs_at_once_have_a_server_each_and_what_is_imported_apart_is_not_in_what_is_forked_first(
    waiting: Callable[[], set[int]],
) -> None:
    with rtcore.shared_imports(), rtcore.shared_imports():
        for _ in range(2):
            plain, apart = told(), told(split=True)
            assert (plain[1]["modules"], apart[1]["modules"]) == ([], ["colorsys"])
            assert plain[0] == apart[0]
        one, other = (Launcher(new_run_id(), ("json", PARTS)) for _ in range(2))
        assert one._server.process.pid != other._server.process.pid
        one.close()
        other.close()
        assert len(waiting()) == 3, "two servers, and what one of them has split off"
    assert waiting() == set()


def test_a_server_that_died_while_it_waited_is_replaced_and_outside_of_a_block_none_waits(
    waiting: Callable[[], set[int]],
) -> None:
    with rtcore.shared_imports():
        first, _ = told(split=True)
        for victim in psutil.Process(first).children():
            victim.kill()
        second, _ = told(split=True)
        os.kill(second, signal.SIGKILL)
        third, _ = told(split=True)
        assert len({first, second, third}) == 3
    told()
    assert waiting() == set()


def test_a_killed_program_leaves_no_server_that_waits() -> None:
    program = (
        "import os, psutil, rtcore, sys, time\n"
        "from rtcore.processes.launcher import Launcher\n"
        f"with rtcore.shared_imports():\n    launcher = Launcher({new_run_id()!r}, ('json',))\n"
        "    launcher.preload('much', ('colorsys',), apart=True)\n"
        "    while launcher.importing:\n        launcher.poll(0.05)\n"
        "    launcher.close()\n"
        "    print(*(each.pid for each in psutil.Process().children(recursive=True)), flush=True)\n"
        "    time.sleep(600)\n"
    )
    with started(sys.executable, "-c", program, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        servers_of_it = [int(pid) for pid in process.stdout.readline().split()]
        assert len(servers_of_it) == 2
        process.kill()
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in servers_of_it), "both servers to end")


def test_a_second_run_with_a_network_imports_nothing_and_nothing_is_left_of_the_first(
    tmp_path: Path, waiting: Callable[[], set[int]]
) -> None:
    """Its processes come from the same servers; none of the world's has torch in its memory."""
    fields: dict[str, Any] = {"policy": "tests.support.policy_probes:noise", "workers": 1, "ticks": 30, "seed": 5}
    seen: list[set[int]] = []
    with rtcore.shared_imports():
        for name in ("first", "second"):
            folder = tmp_path / name
            folder.mkdir()
            args = {"env_args": {"folder": str(folder)}, "policy_args": {"folder": str(folder)}}
            with rtcore.Runtime(env_id="tests.support.policy_probes:Fast", **fields, **args) as runtime:
                pids = {runtime.env_pid, *runtime.worker_pids.values()}
                runtime.wait()
            assert json.loads((folder / "env.json").read_text()) == {"torch": False}
            assert not any(psutil.pid_exists(pid) for pid in pids)
            assert files_of(runtime.run_id) == []
            seen.append(waiting())
    assert len(seen[0]) == 2
    assert seen[0] == seen[1]
    assert waiting() == set()
