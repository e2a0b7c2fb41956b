"""A world that stands still for a while: no tick runs, what goes by is counted, and it goes on where it stood."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import rtcore
from rtcore.errors import ConfigError
from tests.support.drills import wait_for

pytestmark = pytest.mark.process


WORLD: dict[str, Any] = {"env_id": "tests.support.worlds:Counts", "policy": "random", "workers": 2}


def test_a_paused_world_makes_no_tick_and_goes_on_where_it_stood(tmp_path: Path) -> None:
    notes, out = tmp_path / "notes", tmp_path / "out"
    with rtcore.Runtime(**WORLD, env_args={"notes": str(notes)}, duration=600, out=out, safe_action=7) as runtime:
        wait_for(lambda: runtime.stats().counters["acted"] > 10, "actions")
        with runtime.paused(), runtime.paused():
            stood = runtime.stats().counters["ticks"], runtime.newest_frame().item()
            time.sleep(0.3)  # ticks would have run
            assert (runtime.stats().counters["ticks"], runtime.newest_frame().item()) == stood
            assert not runtime.is_over
        wait_for(lambda: runtime.stats().counters["acted"] > stood[0] + 10, "it to go on")
        runtime.pause()
        assert runtime.safe_stop(), "a paused run can be ended"
        assert runtime.wait(150)
    summary = runtime.summary()
    assert summary["ticks"]["waited"] >= 10
    assert summary["invariants"]["broken"] == 0
    assert summary["books"]["agree"]
    paused, resumed, *_, closed = notes.read_text().splitlines()
    assert closed.startswith("close after 7 at")
    assert paused == f"pause {stood[1]:.0f}"
    assert resumed == f"resume {stood[1]:.0f}"


def test_a_world_that_says_that_it_cannot_be_paused_refuses_by_name() -> None:
    with rtcore.Runtime(**WORLD, env_args={"can_pause": False}, duration=600) as runtime:
        with pytest.raises(ConfigError, match="worlds:Counts says that it cannot be paused"), runtime.paused():
            pass
        with pytest.raises(ConfigError, match="safe_stop: the run has no safe action"):
            runtime.safe_stop()
