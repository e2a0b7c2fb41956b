"""What a world starts ends with it, and its close() is called and heard, however the run ends; the safe action is the
last that it gets before."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

import rtcore
from rtcore.errors import EnvironmentFailed, EnvironmentHung
from rtcore.memory.owners import reap_dead_runs
from tests.support.drills import (
    COMMAND,
    HERE,
    Run,
    rows_in,
    run_to_end,
    running,
    segments,
    started,
    stop,
    wait_for,
    wait_until_ticking,
)

pytestmark = pytest.mark.fault


def run_of(notes: Path, *more: str, **world: object) -> list[str]:
    args = ",".join(f"{name}={value}" for name, value in ({"notes": str(notes)} | world).items())
    return [
        *(
            "--env-id",
            "tests.support.family_world:make",
            "--env-args",
            args,
            "--policy",
            "random",
            "--workers",
            "1",
            "--safe-action",
            "7",
            "--no-live",
            "--no-pictures",
        ),
        *more,
    ]


def assert_made_safe(notes: Path) -> None:
    """The safe action was the last, and close() was called after it."""
    assert (notes / "closed").read_text() == "7"


def family_of(notes: Path) -> list[int]:
    return [int(pid) for pid in (notes / "pids").read_text().split()]


def assert_all_gone(notes: Path) -> None:
    family = family_of(notes)
    assert len(set(family)) == 4
    wait_for(lambda: not any(map(is_running, family)), "the world's processes to be gone")


def env_process_of(program: int) -> Any:
    """Not the process of the world's that was forked from it, which has its name too."""
    servers = psutil.Process(program).children()
    found = [child for server in servers for child in children_of(server) if name_of(child.pid) == "rt-env"]
    return found[0] if found else None


def children_of(process: psutil.Process) -> list[psutil.Process]:
    """Of one that may end meanwhile."""
    with suppress(psutil.NoSuchProcess):
        return process.children()
    return []


def name_of(pid: int) -> str:
    """ "" if there is no such process, be it since a moment ago."""
    with suppress(psutil.NoSuchProcess):
        return str(psutil.Process(pid).name())
    return ""


def is_running(pid: int) -> bool:
    return name_of(pid) in ("sleep", "rt-env")


def test_at_a_normal_end_exit_functions_are_run_and_nothing_of_the_world_stays(tmp_path: Path) -> None:
    done = run_to_end(*run_of(tmp_path, "--ticks", "30"))
    assert done.returncode == 0, done.stderr
    assert_made_safe(tmp_path)
    assert (tmp_path / "atexit").exists()
    ignored = int((tmp_path / "ignored_signals").read_text(), 16)
    assert not any(ignored >> (signum - 1) & 1 for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    assert not any(map(is_running, family_of(tmp_path))), "gone when the program is, as a pipe to another one ends then"


@pytest.mark.parametrize(
    "victims",
    [
        ("rt-env",),
        pytest.param(("fork server",), marks=pytest.mark.slow),
        pytest.param(("program",), marks=pytest.mark.slow),
        ("program", "fork server"),
    ],
)
def test_whoever_is_killed_nothing_of_the_world_stays(victims: tuple[str, ...], tmp_path: Path) -> None:
    with started(*COMMAND, *run_of(tmp_path, "--duration", "600"), cwd=HERE) as run:
        wait_until_ticking(run)
        env = env_process_of(run.pid)
        pids = {"rt-env": env.pid, "fork server": env.ppid(), "program": run.pid}
        for victim in victims:
            stop(pids[victim])  # nobody sees the other one die
        for victim in victims:
            os.kill(pids[victim], signal.SIGKILL)
        run.wait(timeout=150)
        if len(victims) == 2:
            os.kill(family_of(tmp_path)[3], signal.SIGKILL)  # a daemon, which was the fork server's child by then
        assert_all_gone(tmp_path)
        if len(victims) == 2:
            reap_dead_runs()  # nobody is left who would: the next run on this machine does, that of another test too
        wait_for(lambda: not segments(run.pid), "shared memory to be removed")
    if victims != ("rt-env",):
        assert_made_safe(tmp_path)
        assert (tmp_path / "atexit").exists()


@pytest.mark.parametrize(
    "how", ["Ctrl-C", "the world raises", pytest.param("the program stands still at the end", marks=pytest.mark.slow)]
)
def test_the_world_is_made_safe_and_closed_before_anybody_asks_for_it(how: str, tmp_path: Path) -> None:
    length, world = ("--duration", "600"), {"raise_at": 60} if how == "the world raises" else {}
    if how.startswith("the program"):
        length = ("--ticks", "30", "--env-timeout-s", "2")
    with running(*run_of(tmp_path, *length, **world)) as run:
        wait_until_ticking(run)
        if how == "Ctrl-C":
            run.send_signal(signal.SIGINT)
        if how.startswith("the program"):
            run.send_signal(signal.SIGSTOP)
            wait_for((tmp_path / "closed").exists, "the world to be closed")
            run.send_signal(signal.SIGCONT)
        output, _ = run.communicate(timeout=150)
    assert run.returncode == {"Ctrl-C": 130, "the world raises": 1}.get(how, 0), output
    assert ("the arm does not answer" in output) == (how == "the world raises")
    assert_made_safe(tmp_path)
    assert_all_gone(tmp_path)


def test_a_world_that_hangs_in_python_is_closed_all_the_same(run_here: Run, tmp_path: Path) -> None:
    done = run_here(*run_of(tmp_path, "--env-timeout-s", "2", hang_at=60))
    assert done.returncode == 1
    assert "EnvironmentHung" in done.stderr
    assert_made_safe(tmp_path)
    assert_all_gone(tmp_path)


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["before tick 0", "in the run"])
def test_an_env_process_that_dies_by_a_signal_fails_the_run(
    run_here: Run, signum: signal.Signals, moment: str, tmp_path: Path
) -> None:
    rows = tmp_path / "out" / "actions.csv"

    def send() -> None:
        if moment == "in the run":
            wait_for(lambda: rows_in(rows) > 0, "rows")
        wait_for(lambda: env_process_of(os.getpid()) is not None, "the env process")
        env_process_of(os.getpid()).send_signal(signum)

    with ThreadPoolExecutor() as aside:
        sent = aside.submit(send)
        done = run_here(*run_of(tmp_path, "--duration", "600", "--out", str(rows.parent)))
        sent.result()
    assert done.returncode == 1, done.stdout
    assert "env 0" in done.stderr
    assert signum.name in done.stderr
    if moment == "in the run":
        assert_made_safe(tmp_path)


def test_an_order_to_end_while_a_world_starts_a_process_ends_both(run_here: Run, tmp_path: Path) -> None:
    done = run_here(*run_of(tmp_path, "--ticks", "30", "--startup-timeout-s", "60", ended_with_new_daemon=True))
    assert done.returncode == 1, done.stdout
    assert "env 0" in done.stderr
    assert "SIGTERM" in done.stderr


@pytest.mark.parametrize("how", ["ended_at", "failing_at"], ids=["dropped", "made an error of the world's"])
def test_an_order_to_end_that_a_world_loses_ends_it_at_the_next_tick(run_here: Run, how: str, tmp_path: Path) -> None:
    done = run_here(*run_of(tmp_path, "--ticks", "3000", "--out", str(tmp_path / "out"), **{how: 60}))
    assert done.returncode == 1, done.stdout
    assert "SIGTERM" in done.stderr
    assert "TerminationRequested" not in done.stdout + done.stderr
    assert "SystemError" not in done.stderr
    assert_made_safe(tmp_path)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["ticks"]["count"] < 100


def test_closing_may_take_as_long_as_the_world_may_be_silent(run_here: Run, tmp_path: Path) -> None:
    done = run_here(*run_of(tmp_path, "--ticks", "20", how_closing="slow"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "closed").exists()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("raise", "EnvironmentFailed: the world raised in close(): OSError: the video cannot be written"),
        ("hang", "EnvironmentHung: closing tests.support.family_world:make took longer than 1 s"),
        ("die", "SIGHUP"),
    ],
)
def test_a_close_that_goes_wrong_is_reported_and_the_runs_results_are_kept(
    run_here: Run, how: str, said: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    limit = ("--env-timeout-s", "1") if how == "hang" else ()
    done = run_here(*run_of(tmp_path, "--ticks", "20", *limit, "--out", str(out), how_closing=how))
    assert done.returncode == 1
    assert said in done.stderr
    assert ("family_world.py" in done.stderr) == (how != "die"), "where it raised, or where it hangs"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["ticks"]["count"] + summary["ticks"]["skipped"] == 20
    assert summary["error"]
    assert_all_gone(tmp_path)


def test_on_the_virtual_clock_a_close_that_raises_is_the_same_error(tmp_path: Path) -> None:
    virtual = ("--ticks", "20", "--clock", "virtual", "--latency", "constant:5")
    done = run_to_end(*run_of(tmp_path, *virtual, how_closing="raise"))
    assert done.returncode == 1
    assert "EnvironmentFailed: the world raised in close(): OSError: the video cannot be written" in done.stderr
    assert not any(map(is_running, family_of(tmp_path)))


@pytest.mark.parametrize(("how", "limit_s", "error"), [("raise", 60, EnvironmentFailed), ("hang", 1, EnvironmentHung)])
def test_a_program_that_steps_the_world_is_told_once_by_its_own_close(
    how: str, limit_s: int, error: Any, tmp_path: Path
) -> None:
    world = {"notes": str(tmp_path), "how_closing": how}
    env = rtcore.RealtimeEnv("tests.support.family_world:make", env_args=world, env_timeout_s=limit_s)
    env.reset()
    with pytest.raises(error, match="clos"):
        env.close()
    env.close()
    assert_all_gone(tmp_path)
