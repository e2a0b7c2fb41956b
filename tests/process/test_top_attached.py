"""rtcore-top beside real runs: shows what they do, may not write, and is not noticed."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import pty
import re
import signal
import stat
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import rtcore
from rtcore.memory.segments import SHM_DIR, files_of
from rtcore.memory.shared import Phase
from rtcore.watch.attached import LIVE_STATES, SUMMARY_KEYS, AttachedRun, RunState
from rtcore.watch.visible import visible_run_ids
from tests.support.drills import let_ticks_run, started, stop, wait_for

pytestmark = pytest.mark.process

TOP = [sys.executable, "-m", "rtcore.cli.top"]
SMALL: dict[str, Any] = {
    **{"env_id": "CartPole-v1", "fps": "60", "policy": "synthetic", "policy_args": {"latency_ms": 50}},
    **{"workers": 4, "duration": 900},
}


@pytest.fixture
def runtime() -> Iterator[rtcore.Runtime]:
    """A run inside this program, as in any program that embeds one."""
    with rtcore.Runtime(**SMALL) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def lasting() -> Iterator[rtcore.Runtime]:
    """One for all that only look at it."""
    with rtcore.Runtime(**SMALL) as runtime:
        yield runtime


def end(runtime: rtcore.Runtime) -> dict[str, Any]:
    runtime.stop()
    assert runtime.wait(150)
    return runtime.summary()


@contextmanager
def watching(runtime: rtcore.Runtime, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """rtcore-top on a run, without a terminal."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with started(*TOP, runtime.run_id, *arguments, env=environment) as process:
        yield process


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Its output up to the first line that contains `text`."""
    seen = ""
    for line in process.stdout or ():
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"no {text!r} in what it said:\n{seen}")


def rest_of(process: subprocess.Popen[str]) -> tuple[str, int]:
    output, _ = process.communicate(timeout=150)
    return output, process.returncode


# -- what it shows -----------------------------------------------------------------------------------------


def test_how_learning_goes_is_shown_and_what_only_the_run_knows_is_null() -> None:
    fields = SMALL | {
        "policy": "mlp",
        "policy_args": {"pad_ms": 10},
        "learn": "dqn",
        "learning_starts": 30,
        "publish_every": 1,
        "workers": 2,
    }
    with rtcore.Runtime(**fields) as runtime, AttachedRun.attach(runtime.run_id) as onlooker:

        def updates() -> int:
            onlooker.refresh()
            return onlooker.stats().learner.updates if onlooker.has_begun else 0

        # Few: a learner pauses, for up to a second, where ticks are late.
        wait_for(
            lambda: updates() > 2 and onlooker.stats().learner.version > 1, "updates, and weights that were learned"
        )
        first = onlooker.to_json()["learner"]
        wait_for(lambda: updates() > first["updates"] + 2, "more updates")
        seen = onlooker.stats().learner
        assert seen.updates_per_s > 0
        with watching(runtime, "--once") as process:
            shown, _ = rest_of(process)
        runtime.stop()
        assert runtime.wait(150)
        learner = runtime.summary()["learner"]
    assert 2 < first["updates"] < seen.updates <= learner["updates"]
    assert first["version"] > 1
    assert first["places"][0]["pid"] == learner["places"][0]["pid"]
    assert [first[name] for name in ("checkpoints", "best_return", "restart_reasons")] == [None] * 3
    assert set(first) == set(learner)
    assert "update " in shown
    assert "epsilon 0." in shown or "epsilon 1" in shown


def test_a_run_of_any_program_is_shown_until_it_is_over_and_in_a_terminal_its_lanes_are_drawn(runtime):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 110, 0, 0))
    terminal = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    with (
        started(*TOP, runtime.run_id, env=os.environ | {"TERM": "xterm-256color"}, **terminal) as top,
        watching(runtime, "--interval", "0.2") as plain,
    ):
        os.close(theirs)
        seen = read_until(plain, "acted")
        assert f"run       {runtime.run_id}" in seen
        assert "max-time: an action every tick" in seen
        shown = b""
        try:
            while shown.count(b"w03") < 3:
                shown += os.read(ours, 65536)
            summary = end(runtime)
            while True:
                shown += os.read(ours, 65536)
        except OSError:  # it closed its end
            pass
        finally:
            os.close(ours)
        assert top.wait(150) == 0
        rest, exitcode = rest_of(plain)
    assert exitcode == 0
    assert rest.splitlines()[-1] == "run over: it went to its end or was stopped"
    assert summary["leftover_shared_memory"] == []
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    for label in ("world     CartPole-v1", "w00", "w03", "tick", "●", "run over"):
        assert label in text
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l"), "the cursor is still hidden"


def test_the_json_of_a_live_run_lies_between_two_summaries_of_its_own_and_who_holds_on_keeps_nothing(runtime):
    let_ticks_run(runtime, 1)
    before = runtime.summary()
    let_ticks_run(runtime, 2)
    answer = subprocess.run([*TOP, runtime.run_id, "--once", "--json"], capture_output=True, text=True, check=True)
    let_ticks_run(runtime, 2)
    with AttachedRun.attach(runtime.run_id) as onlooker:
        after = end(runtime)
        assert after["leftover_shared_memory"] == []
        assert not [path for path in SHM_DIR.iterdir() if runtime.run_id in path.name]
        onlooker.refresh()
        assert onlooker.state() is RunState.FINISHED
        assert onlooker.stats().counters["ticks"] == after["ticks"]["count"]
        assert onlooker.to_json()["ticks"] == after["ticks"]
        assert onlooker.to_json()["actions"] == after["actions"]
    shown = json.loads(answer.stdout)
    assert set(shown) == {*SUMMARY_KEYS, "run_id", "pid", "program", "state", "phase", "config"}
    assert set(shown) >= set(after)
    assert (shown["run_id"], shown["pid"], shown["state"]) == (runtime.run_id, os.getpid(), "running")
    assert shown["config"] == runtime.config.to_jsonable() | {"wait": runtime.resolved.wait}
    assert shown["plan"] == after["plan"]
    assert before["ticks"]["count"] < shown["ticks"]["count"] < after["ticks"]["count"]
    for outcome, count in shown["actions"]["outcomes"].items():
        assert before["actions"]["outcomes"][outcome] <= count <= after["actions"]["outcomes"][outcome]
    assert [worker["pid"] for worker in shown["workers"]] == [worker["pid"] for worker in before["workers"]]


def test_a_run_can_be_looked_at_at_every_moment_of_its_start():
    before = set(visible_run_ids())
    runtime = rtcore.Runtime(**SMALL)
    supervisor, looks = runtime._supervisor, 0
    start_env, set_phase = supervisor._start_env, supervisor.set_phase

    def wait_for_looks():
        """The start stands still until the onlooker, who may be kept from a CPU, has seen how far it is."""
        before = looks
        wait_for(lambda: looks > before + 1, "the onlooker")

    def start_env_and_wait():
        start_env()
        wait_for_looks()

    def set_phase_and_wait(phase, *args):
        number = set_phase(phase, *args)
        if phase is Phase.REHEARSE:
            wait_for_looks()
        return number

    supervisor._start_env, supervisor.set_phase = start_env_and_wait, set_phase_and_wait
    starting = threading.Thread(target=runtime.start)
    starting.start()
    try:
        wait_for(lambda: runtime.run_id in visible_run_ids() or not starting.is_alive(), "the run to be visible")
        states: list[RunState] = []
        with AttachedRun.attach(runtime.run_id) as onlooker:
            while not onlooker.has_begun:
                if (state := onlooker.state()) not in states:
                    states.append(state)
                assert onlooker.ending() is None
                assert onlooker.to_json()["state"] in LIVE_STATES
                onlooker.refresh()
                looks += 1
            states.append(onlooker.state())
    finally:
        starting.join()
        runtime.close()
    assert states[:2] == [RunState.STARTING, RunState.REHEARSING]
    assert states[-1] is RunState.RUNNING
    assert runtime.run_id not in before


def test_a_run_that_fails_before_its_first_tick_ends_the_view():
    runtime = rtcore.Runtime(**SMALL | {"policy": "nonesuch:factory"})
    errors: list[BaseException] = []
    attached, start_workers = threading.Event(), runtime._supervisor.start_workers

    def start_workers_once_attached(indices: range) -> None:
        assert attached.wait(150)
        start_workers(indices)

    runtime._supervisor.start_workers = start_workers_once_attached

    def fail() -> None:
        try:
            runtime.start()
        except rtcore.errors.PolicyError as error:
            errors.append(error)

    failing = threading.Thread(target=fail)
    failing.start()
    wait_for(lambda: runtime.run_id in visible_run_ids(), "the run to be visible")
    with AttachedRun.attach(runtime.run_id) as onlooker:
        attached.set()
        wait_for(lambda: onlooker.refresh() or onlooker.ending(), "the end")
        assert not onlooker.has_begun
    failing.join()
    assert len(errors) == 1
    assert files_of(runtime.run_id) == []


def test_ctrl_c_ends_the_view_and_not_the_run(lasting):
    with watching(lasting, "--interval", "0.2") as process:
        read_until(process, "acted")
        process.send_signal(signal.SIGINT)
        rest, exitcode = rest_of(process)
    assert exitcode == 0
    assert "Traceback" not in rest
    assert not lasting.is_over


def test_a_reader_that_has_seen_enough_ends_it_as_it_ends_other_programs(lasting):
    with watching(lasting, "--interval", "0.2") as process:
        read_until(process, "acted")
        process.stdout.close()
        assert process.wait(150) == 128 + signal.SIGPIPE
    assert not lasting.is_over


# -- what it may not do ------------------------------------------------------------------------------------


def test_the_attached_program_has_no_way_to_write_(lasting):
    with watching(lasting, "--interval", "0.2") as process:
        read_until(process, "acted")
        stop(process.pid)  # it opens files now and then, and closes them
        proc = Path(f"/proc/{process.pid}")
        ours = [line for line in (proc / "maps").read_text().splitlines() if "rtcore-" in line and "/dev/shm" in line]
        opened = {path: path.readlink() for path in (proc / "fd").iterdir() if path.is_symlink()}
        flags = {
            str(target): int(re.search(r"flags:\s*(\d+)", (proc / "fdinfo" / path.name).read_text())[1], 8)
            for path, target in opened.items()
            if "rtcore-" in str(target) and str(target).startswith("/dev/shm")
        }
    assert {line.split()[1] for line in ours} == {"r--s"}
    assert len(ours) == 5
    assert len(flags) == 5
    assert all(value & os.O_ACCMODE == os.O_RDONLY for value in flags.values())
    assert {stat.S_IMODE(path.stat().st_mode) for path in files_of(lasting.run_id)} == {0o600}


def test_the_kernel_refuses_to_make_the_mapping_writable(lasting):
    libc = ctypes.CDLL(None, use_errno=True)
    with AttachedRun.attach(lasting.run_id):
        lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if lasting.run_id in line]
        read_only = [(parts[0], parts[-1]) for parts in lines if parts[1] == "r--s"]
        assert len(read_only) == 5
        for span, name in read_only:
            start, stop = (int(address, 16) for address in span.split("-"))
            both = 1 | 2  # PROT_READ | PROT_WRITE
            assert libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), both) == -1, name
            assert ctypes.get_errno() == errno.EACCES


def test_another_users_run_is_listed_and_refused_without_a_look_inside(lasting):
    paths = files_of(lasting.run_id)
    if os.getuid() != 0:
        for path in paths:
            path.chmod(0)  # what another user's 0600 amounts to
    program = (
        # while they can be read
        "import locale, os, sys, rich._emoji_codes, rtcore.cli.top as top, rtcore.cli.do_top\n"
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"listed = top.run(['--list'])\n"
        f"sys.exit(10 * listed + top.run([{lasting.run_id!r}]))\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=150)
    assert answer.returncode == 1, answer.stderr
    (row,) = [line for line in answer.stdout.splitlines() if line.startswith(lasting.run_id)]
    assert "no permission" in row
    assert f"no permission to look at run {lasting.run_id}: it belongs to user {paths[0].owner()}" in answer.stderr
