"""Five cases of the campaign of real runs, one of each sort: what each leaves is what was promised."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtcore.torture.real import plan_case, run_case

pytestmark = [pytest.mark.fault, pytest.mark.slow]


@pytest.mark.parametrize(
    ("seed", "what"),
    [
        (95, "KILL worker run"),
        (436, "disk run run"),
        (477, "TERM parent run"),
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
