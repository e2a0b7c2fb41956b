"""How much shared memory a run takes by default."""

import pytest

from rtcore.config.run import make_config
from rtcore.memory.sizing import fitted

MIB = 1 << 20


@pytest.mark.parametrize("workers", ["auto", 1, 7, 15])
@pytest.mark.parametrize("frame_bytes", [16, 23_040, 921_600, 10 * MIB])
def test_by_default_the_ring_takes_no_more_than_is_documented(workers, frame_bytes):
    config, notes = fitted(make_config(workers=workers), frame_bytes)
    slots = config.resolved_ring_slots(frame_bytes)
    assert slots * frame_bytes <= 256 * MIB
    assert slots > config.worker_places
    assert slots <= 4096
    assert not any("WARNING" in note for note in notes)


def test_auto_starts_no_more_workers_than_the_ring_is_long_enough_for_and_says_so():
    config, notes = fitted(make_config(workers="auto"), 10 * MIB)
    assert (config.resolved_ring_slots(10 * MIB), config.worker_places) == (25, 17)
    (note,) = notes
    assert "enough for 17 workers" in note
    assert "--ring-slots" in note


def test_small_frames_leave_auto_as_it_is():
    config = make_config(workers="auto")
    assert fitted(config, 23_040) == (config, [])


def test_where_the_fewest_frames_alone_take_more_the_header_warns():
    config, notes = fitted(make_config(workers=40), 25_000_000)
    assert config.resolved_ring_slots(25_000_000) == 48
    assert any("WARNING: the frame ring takes 1200 MB" in note for note in notes)


def test_a_recorded_run_gets_more_as_its_recorder_may_fall_behind():
    slots = {record: make_config(workers=4, record=record).resolved_ring_slots(25_000_000) for record in (False, True)}
    assert slots == {False: 16, True: 42}


def test_what_was_asked_for_is_kept():
    config, notes = fitted(make_config(workers=4, ring_slots=200), 25_000_000)
    assert config.resolved_ring_slots(25_000_000) == 200
    assert notes == []
