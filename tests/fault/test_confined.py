"""In containers: a user that no passwd file knows, and too few processes allowed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.drills import COMMAND, HERE, segments, started, wait_for

pytestmark = pytest.mark.fault

CARTPOLE = ("--env-id", "CartPole-v1", "--no-live")
SYNTHETIC = ("--policy", "synthetic", "--policy-args", "latency_ms=20")
#: As `docker run --user 54321`: a name for nobody, and no home.
UNKNOWN_USER = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
NOBODY_S = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME")


@pytest.mark.slow
def test_a_user_without_a_passwd_entry_and_without_a_home_runs_and_reports(tmp_path: Path) -> None:
    """A policy with torch, which asks for the user's name where it keeps a cache."""
    asked = [*UNKNOWN_USER, "id", "-u"]
    try:
        can = subprocess.run(asked, capture_output=True, text=True, check=False).stdout == "54321\n"
    except FileNotFoundError:
        can = False
    if not can:
        pytest.skip("no user namespaces here")
    environment = {name: value for name, value in os.environ.items() if name not in NOBODY_S}
    arguments = (*CARTPOLE, "--policy", "mlp", "--workers", "2", "--ticks", "100", "--out", str(tmp_path / "run"))
    done = subprocess.run(
        [*UNKNOWN_USER, *COMMAND, *arguments],
        cwd=HERE,
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["ticks"]["kinds"]["acted"] > 0
    assert summary["leftover_shared_memory"] == []


@pytest.fixture
def few_processes() -> Iterator[Path]:
    """A control group that a process puts itself in by writing 0 to its `cgroup.procs`."""
    versions = (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))
    for root in versions:
        group = root / f"rtcore-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / "pids.max").exists():
                yield group
                return
        finally:
            wait_for(lambda group=group: not (group / "cgroup.procs").read_text(), "what was in it to end")  # type: ignore[misc]
            group.rmdir()
    pytest.skip("no control group for pids can be made here (needs root)")


@pytest.mark.slow
def test_a_limit_of_processes_that_is_too_low_is_named_with_what_to_raise(few_processes: Path) -> None:
    """The program, the fork server, the world and a thread or two have room, the workers have not."""
    (few_processes / "pids.max").write_text("6")
    enter = ["sh", "-c", 'echo 0 > "$0" && exec "$@"', str(few_processes / "cgroup.procs")]
    arguments = (*CARTPOLE, *SYNTHETIC, "--workers", "9", "--duration", "1")
    with started(*enter, *COMMAND, *arguments, cwd=HERE, stderr=subprocess.PIPE) as process:
        _, said = process.communicate(timeout=150)
    assert process.returncode == 1
    assert "no process could be started for" in said
    assert "Raise the limit of processes (ulimit -u; pids.max of the container or service)" in said.replace("\n", " ")
    assert "Traceback" not in said
    assert segments(process.pid) == []
