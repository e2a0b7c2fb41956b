"""A world that stands still for a while: no tick runs, what goes by is counted, and it goes on where it stood."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import rtcore
from rtcore.errors import ConfigError
from tests.support.drills import wait_for

pytestmark = pytest.mark.process


class Counts(gymnasium.Env[Any, Any]):
    """Shows how often it was stepped; writes into `notes` when it is paused and resumed, and after how many steps."""

    metadata = {"render_fps": 50}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(0.0, np.inf, (1,), np.float64)
    action_space = gymnasium.spaces.Discrete(1 << 40)

    def __init__(self, notes: str = "", can_pause: bool = True) -> None:
        self._notes, self.can_pause, self._steps, self._last = Path(notes), can_pause, 0, -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._steps = 0
        return np.zeros(1), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps, self._last = self._steps + 1, action
        return np.array([float(self._steps)]), 1.0, False, False, {}

    def pause(self) -> None:
        self._note("pause")

    def resume(self) -> None:
        self._note("resume")

    def close(self) -> None:
        self._note(f"close after {self._last} at")

    def _note(self, what: str) -> None:
        if self._notes.name:
            with self._notes.open("a") as file:
                file.write(f"{what} {self._steps}\n")


WORLD: dict[str, Any] = {"env_id": "tests.process.test_pause:Counts", "policy": "random", "workers": 2}


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
        with pytest.raises(ConfigError, match="test_pause:Counts says that it cannot be paused"), runtime.paused():
            pass
        with pytest.raises(ConfigError, match="safe_stop: the run has no safe action"):
            runtime.safe_stop()
