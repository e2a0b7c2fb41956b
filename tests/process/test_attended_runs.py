"""A person steps in: keys of a terminal, and tasks a line on stdin, of a run of real processes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest

from rtcore.recording.reader import Recording
from rtcore.scheduling.dispatch import Source, TickKind
from rtcore.spaces.task import TaskSpec
from tests.support.drills import Run, started
from tests.support.recorded_runs import played_again
from tests.support.tasked import TASK

pytestmark = pytest.mark.process

RUN = [sys.executable, "-m", "rtcore.cli.run", "--workers", "2", "--duration", "600"]
WORLD = "tests.support.tasked:Tasked"


def test_keys_pause_resume_and_stop_a_run_and_the_terminal_is_as_it_was() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 110, 0, 0))
    before = termios.tcgetattr(ours)
    words = [*RUN, "--env-id", "CartPole-v1", "--policy", "random", "--safe-action", "0"]
    process = subprocess.Popen(
        words,
        env=os.environ | {"TERM": "xterm-256color"},
        pass_fds=[theirs],
        preexec_fn=lambda: os.login_tty(theirs),  # noqa: PLW1509 - the only way to a terminal of its own
    )
    os.close(theirs)
    shown = ""

    def await_text(text: str) -> None:
        nonlocal shown
        while text not in shown:
            shown += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", os.read(ours, 65536).decode(errors="replace"))
        shown = shown.partition(text)[2]

    await_text("keys      p pauses, and goes on, s stops safely, q ends the run, ? says this")
    for key, answer in ((b"p", "paused; p goes on"), (b"P", "resumed"), (b"x?", "keys      p pauses"), (b"s", "What")):
        os.write(ours, key)
        await_text(answer)
    with suppress(OSError):  # it has closed its end
        while os.read(ours, 65536):
            pass
    assert process.wait(150) == 0
    assert termios.tcgetattr(ours) == before
    os.close(ours)


def test_tasks_a_line_govern_world_policy_and_recording_of_a_real_run_bit_for_bit(tmp_path: Path) -> None:
    out = tmp_path / "out"
    policy = "tests.support.tasked:says_its_task"
    words = [*RUN, "--env-id", WORLD, "--policy", policy, "--task", json.dumps(TASK), "--task-stdin", "--record"]
    with started(
        *words, "--out", str(out), "--no-live", "--no-pictures", "--on-missing", "noop", stdin=subprocess.PIPE
    ) as process:
        shown = ""

        def say(line: str, answer: str) -> None:
            nonlocal shown
            process.stdin.write(line + "\n")
            process.stdin.flush()
            while answer not in shown:
                shown += (read := process.stdout.readline())
                assert read, shown
            shown = ""

        say("go", "is no JSON")
        say('{"gaol": [1, 2]}', "did you mean 'goal'?")
        for number, goal in enumerate(([1.5, 2.0], [-3.0, 0.5])):
            say(json.dumps(TASK | {"goal": goal, "say": "go ü", "fast": True}), f"task {number + 2}: ")
            for _ in range(2):
                say("", "acted")  # the line of every two seconds
        process.send_signal(2)
        rest, _ = process.communicate(timeout=300)
        assert process.returncode == 130, rest
    with Recording(out) as recording:
        ticks, goals = list(recording.ticks()), recording.column("task/goal").tolist()
        assert TaskSpec(TASK).unpack(recording.task_at(0)) == TASK
    by_version = {1: [0.5, -0.25], 2: [1.5, 2.0], 3: [-3.0, 0.5]}
    versions = {tick.header.tick: tick.header.task_version for tick in ticks}
    assert set(versions.values()) == set(by_version)
    for tick, goal in zip(ticks, goals, strict=True):
        header = tick.header
        assert goal == by_version[header.task_version]
        assert header.source == Source.HELD or header.reward == header.task_version
        if header.kind == TickKind.ACTED:
            booked_with = versions[header.obs_tick]
            assert tick.action.item() == 10 * booked_with + by_version[booked_with][0]
    report = played_again(out)
    assert (report.first, report.ticks) == ([], len(ticks))


def test_tasks_on_stdin_need_one_that_is_a_file(run_here: Run, tmp_path: Path) -> None:
    done = run_here(
        *RUN[3:],
        "--env-id",
        WORLD,
        "--policy",
        "random",
        "--task",
        json.dumps(TASK),
        "--task-stdin",
        "--no-live",
        "--no-pictures",
        "--out",
        str(tmp_path / "run"),
    )
    assert (done.returncode, done.stderr.count("--task-stdin: stdin is closed, or no file; expected")) == (2, 1)
