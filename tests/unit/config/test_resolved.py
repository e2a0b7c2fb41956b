"""How much shared memory a run takes by default."""

from fractions import Fraction

import pytest

from rtcore.config.resolved import ResolvedRun, resolve
from rtcore.config.run import make_config

MIB = 1 << 20


def resolved(frame_bytes: int, **settings: object) -> ResolvedRun:
    return resolve(make_config(**settings), Fraction(60), frame_bytes)


@pytest.mark.parametrize("workers", ["auto", 1, 7, 15])
@pytest.mark.parametrize("frame_bytes", [16, 23_040, 921_600, 10 * MIB])
def test_by_default_the_ring_takes_no_more_than_is_documented(workers, frame_bytes):
    run = resolved(frame_bytes, workers=workers)
    assert run.ring_slots * frame_bytes <= 256 * MIB
    assert run.ring_slots > run.worker_places
    assert run.ring_slots <= 4096
    assert not any("WARNING" in note for note in run.notes)


def test_auto_starts_no_more_workers_than_the_ring_is_long_enough_for_and_says_so():
    run = resolved(10 * MIB, workers="auto")
    assert (run.ring_slots, run.worker_places, run.config.schedule.max_workers) == (25, 17, 17)
    (note,) = run.notes
    assert "enough for 17 workers" in note
    assert "--ring-slots" in note


def test_on_the_virtual_clock_workers_hold_no_frames_and_auto_is_left_as_it_is():
    run = resolved(10 * MIB, workers="auto", clock="virtual")
    assert (run.worker_places, run.notes) == (128, ())


def test_small_frames_leave_auto_as_it_is():
    run = resolved(23_040, workers="auto")
    assert (run.worker_places, run.notes) == (128, ())


def test_where_the_fewest_frames_alone_take_more_the_header_warns():
    run = resolved(25_000_000, workers=40)
    assert run.ring_slots == 48
    assert any("WARNING: the frame ring takes 1200 MB" in note for note in run.notes)


def test_a_recorded_run_gets_more_as_its_recorder_may_fall_behind():
    slots = {record: resolved(25_000_000, workers=4, record=record).ring_slots for record in (False, True)}
    assert slots == {False: 16, True: 42}


def test_what_was_asked_for_is_kept():
    run = resolved(25_000_000, workers=4, ring_slots=200)
    assert (run.ring_slots, run.notes) == (200, ())


# -- what else is decided ------------------------------------------------------------------------------------------


def test_nothing_is_open_in_a_resolved_run():
    run = resolved(16, wait="auto")
    assert run.wait in ("hybrid", "block")
    assert run.config.memory.wait == run.wait
    assert resolved(16, wait="auto", clock="virtual").config.memory.wait == "auto", "the same on every machine"
    assert run.num_ticks == 30 * 60, "nobody said how long: 30 s"
    assert (run.period_ns, run.guard_ns) == (16_666_666, 2_083_333)


def test_the_virtual_clock_needs_no_slack_unless_it_is_asked_for():
    assert resolved(16, clock="virtual").guard_ns == 0
    assert resolved(16, clock="virtual", guard_ms=1.5).guard_ns == 1_500_000


def test_devices_are_dealt_out_in_turn():
    run = resolved(16, device="cuda:0,cuda:2")
    assert [run.device_of(index) for index in range(3)] == ["cuda:0", "cuda:2", "cuda:0"]


def test_another_process_gets_the_run_as_it_was_resolved():
    run = resolved(10 * MIB, fps="4194304/70224", env_args={"level": 9, "own": (1, 2)}, duration=float("inf"))
    assert ResolvedRun.from_jsonable(run.to_jsonable()) == run
