"""How a recording ended, as the supervisor learns of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from rtcore.cli.play import Played
from rtcore.clock import ManualClock
from rtcore.config.run import make_config
from rtcore.host.watchdog import Watchdog
from rtcore.messages import Ready, Recorded, RecordingCounts
from rtcore.processes.launcher import Child, Launcher, RunParts
from rtcore.processes.recorder import RecorderProcess
from rtcore.recording.reader import Recording
from rtcore.recording.schema import FOLDER, MAIN_FILE, UNFINISHED
from tests.support.recorded_runs import recorded as record_a_run

pytestmark = pytest.mark.unit

SHARED = SimpleNamespace(
    ring=SimpleNamespace(sequence=SimpleNamespace(newest=lambda: 5)),
    log=SimpleNamespace(sequence=SimpleNamespace(newest=lambda: 5)),
    layout=SimpleNamespace(to_json=dict),
)
#: As it is when the fork server has died, and as it is when it has told of events for long enough.
DEAD = cast(Launcher, SimpleNamespace(poll_until=lambda done, limit_ns: False))
OUT_OF_PATIENCE = cast(Launcher, SimpleNamespace(poll_until=lambda done, limit_ns: True))


@pytest.fixture
def recorded(tmp_path, said) -> tuple[RecorderProcess, Child, list[str]]:
    child = Child("recorder", 0, 0)
    config = make_config(record=True, out=tmp_path)
    launch: Any = lambda entry, boot: child  # noqa: E731
    run, world = SimpleNamespace(config=config), SimpleNamespace(observation=None, action=None)
    clock = ManualClock()
    parts = RunParts(cast(Any, run), "", cast(Any, SHARED), cast(Any, world), clock, Watchdog(clock))
    recorder = RecorderProcess(parts, launch)
    recorder.start({})
    child.ready, child.pid = Ready(), 2**22 + 1
    return recorder, child, said


def test_a_recorder_that_dies_with_the_fork_server_is_named_though_nobody_tells_of_its_death(recorded, tmp_path):
    recorder, child, said = recorded
    draft = tmp_path / FOLDER / f"{MAIN_FILE}.part"
    draft.parent.mkdir(parents=True)
    draft.touch()
    recorder.shut_down(DEAD)
    assert list(draft.parent.iterdir()) == [], "what it was at is left to nobody"
    assert any(f"the recorder (pid {child.pid}) was killed with the fork server" in line for line in said)
    assert recorder.summary()["end"].startswith(f"{UNFINISHED}: the recorder")


def test_a_recorder_that_is_never_done_is_named_with_the_time_it_had(recorded):
    recorder, child, said = recorded
    recorder.shut_down(OUT_OF_PATIENCE)
    assert any(f"the recorder (pid {child.pid}) was not done after 3,600 s" in line for line in said)


def test_a_recorder_that_says_nothing_is_killed_once_it_does_no_work_either(recorded, monkeypatch):
    recorder, child, said = recorded
    clock, done = recorder._parts.watchdog._clock, iter(range(1000))
    busy_looks, killed = 200, []

    def work() -> tuple[float, int]:
        clock.advance_ns(400_000_000)
        return float(min(next(done), busy_looks)), 0

    def poll_until(has_ended: Any, limit_ns: int) -> bool:
        while not has_ended():
            pass
        return True

    monkeypatch.setattr(child, "work_done", work)
    monkeypatch.setattr(child, "kill", lambda: killed.append(next(done)))
    recorder.shut_down(cast(Launcher, SimpleNamespace(poll_until=poll_until)))
    assert killed == [pytest.approx(busy_looks + 15_000 // 400, abs=3)]
    assert any("did nothing for 15 s" in line for line in said)


def test_a_recorder_that_had_closed_its_file_before_the_fork_server_died_is_done(recorded):
    recorder, child, said = recorded
    child.messages.append(Recorded(RecordingCounts(), end="complete"))
    recorder.shut_down(DEAD)
    assert recorder.summary()["end"] == "complete"
    assert not any("stopped" in line for line in said)


@pytest.mark.parametrize("reported", [7, 5000])
def test_what_a_recorder_left_that_did_not_come_to_its_end_is_counted_in_its_file(recorded, tmp_path, reported):
    recorder, child, said = recorded
    record_a_run(tmp_path)
    child.messages.append(Recorded(RecordingCounts(frames=reported, jobs=reported)))
    recorder.shut_down(DEAD)
    with Recording(tmp_path) as kept:
        assert kept.num_ticks == 120
        assert recorder.summary().items() >= vars(kept.counts).items()
    assert recorder.summary()["end"].startswith(UNFINISHED)


def test_a_file_that_cannot_be_counted_is_said_and_the_last_report_stays(recorded, tmp_path):
    recorder, child, said = recorded
    child.messages.append(Recorded(RecordingCounts(frames=7)))
    recorder.shut_down(DEAD)
    assert recorder.summary()["frames"] == 7
    assert "what the recorder left cannot be counted" in said[-1]


@pytest.mark.parametrize(
    ("end", "exitcode"), [("complete", 0), ("3 frames lost", 0), ("unfinished: the recorder died", 1)]
)
def test_a_run_whose_recording_broke_off_has_failed_however_well_it_went_on(end, exitcode):
    played = Played(
        config=None, run=None, summary={"recording": {"end": end}, "invariants": {"broken": 0}}, stops=[], error=None
    )
    assert played.exitcode() == exitcode
