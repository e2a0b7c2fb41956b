"""Five cases of the campaign of real runs, one of each sort; and campaigns whose own processes die."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from rtcore.errors import RtcoreError
from rtcore.torture.campaign import spread
from rtcore.torture.real import plan_case, run_case
from tests.support.drills import started, wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow]


# Of the seeds that do so those that are patient with who is kept from a CPU, and hit the run long before its end.
@pytest.mark.parametrize(
    ("seed", "what"),
    [
        (7244, "KILL worker run"),
        (436, "disk run run"),
        (1084, "TERM parent run"),
        (500, "freeze run run"),
        (1919, "KILL parent run"),
    ],
)
def test_a_run_with_a_fault_keeps_its_promises(seed: int, what: str, tmp_path: Path) -> None:
    case = plan_case(seed)
    assert [fault.name for fault in case.faults] == [what]
    result = run_case(case, tmp_path / "case")
    assert result.violations == [], (tmp_path / "case" / "said.txt").read_text()
    assert result.began
    assert len(result.applied) == 1


def test_a_campaign_whose_own_process_dies_says_so_and_does_not_wait_for_it() -> None:
    with pytest.raises(RtcoreError, match="a process of the campaign died"):
        list(spread(os._exit, [9, 9], 1))


def test_a_campaign_that_is_told_to_end_does_not_wait_for_the_runs_under_way() -> None:
    endless = ("sim", "--seeds", "1..2", "--ticks", "100000000", "--jobs", "1")
    with started(sys.executable, "-m", "rtcore.cli.torture", *endless) as program:

        def plays() -> bool:
            """The server of its processes has started one."""
            servers = psutil.Process(program.pid).children()
            return any(server.children() for server in servers)

        wait_for(plays, "a run to be played")
        players = psutil.Process(program.pid).children(recursive=True)
        program.send_signal(signal.SIGTERM)
        output, _ = program.communicate(timeout=150)
    assert program.returncode == 128 + signal.SIGTERM, output
    wait_for(lambda: not any(player.is_running() for player in players), "its processes to be gone")
