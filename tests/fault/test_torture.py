"""Five cases of the campaign of real runs, one of each sort; and campaigns whose own processes die."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rtcore.errors import RtcoreError
from rtcore.torture.campaign import spread
from rtcore.torture.real import plan_case, run_case

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
