"""A person in the middle of a real run: takes the controls, gives them back, falls silent, and is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rtcore
from rtcore.errors import ConfigError, OperatorError, PolicyError, StartupError
from rtcore.memory.layout import FrameHeader
from rtcore.recording.reader import Recording
from rtcore.scheduling.dispatch import Source
from tests.support.drills import wait_for
from tests.support.hands import TOLD, Hand, tell
from tests.support.recorded_runs import played_again

pytestmark = pytest.mark.process

WORLD: dict[str, Any] = {"env_id": "tests.support.worlds:Counts", "policy": "random", "workers": 2, "duration": 600}


def newest(runtime: rtcore.Runtime) -> FrameHeader:
    assert runtime.record is not None
    return runtime.record.ticks[-1]


def is_in_hand(runtime: rtcore.Runtime) -> bool:
    return bool(runtime.record and runtime.record.ticks and newest(runtime).intervention)


def test_an_operator_who_dies_raises_or_hangs_gives_the_controls_back_and_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, out = tmp_path / "told", tmp_path / "out"
    tell(told, "nothing")
    monkeypatch.setenv(TOLD, str(told))
    how = {"operator": Hand, "record": True, "out": out, "max_restarts": 2, "hang_timeout_s": 1.0}
    with rtcore.Runtime(**WORLD, **how) as runtime:
        with pytest.raises(ConfigError, match="take_over: the run has an operator"):
            runtime.take_over()
        for number, fault in enumerate(("die", "hang", "raise", "break"), 1):
            before = runtime.stats().counters["human_ticks"]
            tell(told, str(1000 + number))
            # Enough work, too, for the next death to be another matter.
            wait_for(lambda before=before: runtime.stats().counters["human_ticks"] > before + 15, "a person's ticks")
            tell(told, fault)
            wait_for(
                lambda number=number: runtime.stats().operator["lost_take_overs"] >= number, f"{fault} to be found"
            )
            wait_for(lambda: not is_in_hand(runtime), "the policy to have the controls again")
        wait_for(lambda: runtime.stats().operator["end"], "nobody to be started any more")
        acted = runtime.stats().counters["acted"]
        wait_for(lambda: runtime.stats().counters["acted"] > acted + 10, "the run to go on")
    operator, actions = runtime.summary()["operator"], runtime.summary()["actions"]
    assert operator["name"] == "tests.support.hands:Hand"
    assert operator["end"].startswith("gave up after")
    reasons = " ".join(operator["reasons"])
    for reason in ("exit code 3", "hung: silent for", "RuntimeError: dropped it", "RuntimeError: no such hand"):
        assert reason in reasons
    assert actions["take_overs"] >= operator["lost_take_overs"] >= 4
    assert runtime.summary()["invariants"]["broken"] == 0
    with Recording(out) as recording:
        source, action = recording.column("source"), recording.column("action")
        intervention = recording.column("intervention")
    assert {1001, 1002, 1003, 1004} <= set(action[source == Source.HUMAN].tolist())
    # Also at tick 0, a reset, if the person was there before it.
    assert ((source == Source.HUMAN) == ((intervention > 0) & (source != Source.HELD))).all()
    report = played_again(out)
    assert report.first == []


def test_a_program_takes_over_and_gives_back(tmp_path: Path) -> None:
    with rtcore.Runtime(**WORLD, operator="program") as runtime:
        assert runtime.record is not None
        wait_for(lambda: runtime.stats().counters["acted"] > 10, "actions")
        for first in (7, 8):
            with runtime.take_over(first) as controls:
                wait_for(lambda: is_in_hand(runtime), "the controls")
                controls.act(9)
                with pytest.raises(StartupError, match="somebody has the controls"):
                    runtime.take_over()
                with pytest.raises(PolicyError, match="expected an element"):
                    controls.act(-1)
            wait_for(lambda: not is_in_hand(runtime), "the policy")
        reader = runtime.ticks()
        seen = list(runtime.record.ticks)
    held = [header for header in seen if header.intervention]
    assert {header.source for header in held} == {Source.HUMAN}
    # No tick without a source, and the policy's action at the first tick after it, if it was there in time.
    after = [
        tick for before, tick in zip(seen, seen[1:], strict=False) if before.intervention and not tick.intervention
    ]
    assert len(after) == 2
    assert {header.source for header in after} <= {Source.POLICY, Source.NOOP}
    assert runtime.summary()["actions"]["take_overs"] == 2
    assert runtime.summary()["actions"]["lost_requests"] == 0
    assert reader is not None


def test_who_cannot_be_there_is_an_error_before_tick_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OperatorError, match="operator=keyboard: window: .* Without a display use --operator module"):
        rtcore.Runtime(**WORLD | {"env_id": "rtcore/Catch-v0"}, operator="keyboard").start()
