"""What `rtcore-profile ipc` measures for which options, and what it makes of the times."""

import argparse
import os

import pytest
from rich.console import Console

from rtcore.errors import ConfigError
from rtcore.profile import ipc
from rtcore.profile.commands import add_options
from rtcore.profile.results import Result
from rtcore.profile.session import MeasuredTimes
from rtcore.profile.transports import ring_layout

pytestmark = pytest.mark.unit


def cells_of(*words, num_cpus=2):
    parser = argparse.ArgumentParser()
    add_options(parser, "ipc")
    return ipc.plan_cells(parser.parse_args(words), num_cpus)


def test_by_default_every_size_is_measured_with_one_reader_and_one_size_with_many():
    cells = [(cell.frame, cell.readers) for cell in cells_of()]
    assert cells == [
        ("84x84", 1),
        ("144x160", 1),
        ("210x160x3", 1),
        ("1080x1920x3", 1),
        ("144x160", 2),
        ("144x160", 8),
        ("144x160", 32),
    ]


def test_all_is_every_size_with_every_number_of_readers():
    cells = cells_of("--full")
    assert len(cells) == 16
    assert {cell.rounds for cell in cells} == {1000}


def test_with_one_reader_and_two_cpus_every_transport_takes_part():
    assert cells_of("--readers", "1")[0].transports == ipc.TRANSPORTS


def test_a_reader_that_spins_needs_a_cpu_of_its_own():
    for cell in (*cells_of("--readers", "2"), *cells_of("--readers", "1", num_cpus=1)):
        assert not {"rtcore-spin", "c-spin", "manager"} & set(cell.transports)
    assert {"rtcore-spin", "c-spin"} <= set(cells_of("--readers", "8", num_cpus=16)[0].transports)


def spinning_left_out(*words, num_cpus=2):
    parser = argparse.ArgumentParser()
    add_options(parser, "ipc")
    options = parser.parse_args(words)
    return ipc.spinning_left_out(options, ipc.plan_cells(options, num_cpus), num_cpus)


def test_what_is_left_out_for_lack_of_cpus_is_named_with_the_numbers_of_readers():
    (why,) = spinning_left_out()
    assert why.startswith("rtcore-spin, manager, c-spin with 2, 8, 32 readers: ")
    assert "there are 2 CPUs" in why
    assert spinning_left_out(num_cpus=33) == []
    assert spinning_left_out("--readers", "8", "--transports", "pipe") == [], "nothing was left out: pipe was chosen"


def test_who_is_named_takes_part_whatever_the_cpus():
    cells = cells_of("--readers", "8", "--transports", "c-spin,pipe,pipe")
    assert cells[0].transports == ("c-spin", "pipe")


def test_large_frames_come_at_the_pace_of_a_world_and_not_of_a_test():
    large, small = cells_of("--frames", "1080x1920x3,84x84")
    assert large.rhythm(None, 300).gap_ns == 16_000_000
    assert small.rhythm(None, 300).gap_ns == 4_000_000
    assert large.rhythm(10, 0) == small.rhythm(10, 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--frames", "144"), None),
        (("--frames", "144x"), "expected height x width"),
        (("--frames", "0x3"), "expected height x width"),
        (("--readers", "0"), "from 1 to 256"),
        (("--readers", "two"), "from 1 to 256"),
        (("--transports", "pipe,carrier-pigeon"), "carrier-pigeon: not known; there are rtcore-hybrid"),
        (("--rounds", "3"), "at least 25"),
        (("--gap-us", "-1"), "0 or more"),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_expected(words, said):
    if said is None:
        assert cells_of(*words)[0].shape == (144,)
        return
    with pytest.raises(ConfigError) as caught:
        cells_of(*words)
    assert said in str(caught.value)


def samples(p50_us, **more):
    return MeasuredTimes(latencies=[int(p50_us * 1000)] * 10, costs=[1000] * 10, **more)


def rows_of(**found):
    cell = ipc.Combination("144x160", 1, tuple(found), 25)
    named = {name.replace("_", "-"): times for name, times in found.items()}
    return {row["transport"]: row for row in ipc.rows_of(cell, 23040, named)}


def test_ratios_are_to_the_c_spin_limit_and_to_the_fastest_of_the_others():
    rows = rows_of(rtcore_hybrid=samples(20), pipe=samples(80), zmq=samples(60), c_spin=samples(5), c_futex=samples(9))
    hybrid = rows["rtcore-hybrid"]
    assert (hybrid["ratio_to_limit"], hybrid["limit"]) == (4.0, "c-spin")
    assert hybrid["ratio_to_best_peer"] == pytest.approx(1 / 3, abs=0.001)
    assert rows["zmq"]["ratio_to_best_peer"] == 1.0


def test_without_a_spinning_limit_the_sleeping_one_is_the_measure():
    rows = rows_of(rtcore_block=samples(18), c_futex=samples(9))
    assert (rows["rtcore-block"]["ratio_to_limit"], rows["rtcore-block"]["limit"]) == (2.0, "c-futex")


def test_what_was_not_measured_is_none_and_never_zero():
    rows = rows_of(rtcore_hybrid=samples(20), pipe=MeasuredTimes(missed=25))
    assert rows["pipe"]["p50_us"] is None
    assert rows["rtcore-hybrid"]["ratio_to_limit"] is None
    assert rows["rtcore-hybrid"]["ratio_to_best_peer"] is None
    assert rows["rtcore-hybrid"]["slot_p50_us"] is None
    assert rows["pipe"]["missed"] == 25


def test_booking_is_a_cost_of_its_own_beside_publishing():
    found = {readers: samples(20, booked=[1500 * readers] * 10, visible=[500] * 10) for readers in (1, 8)}
    rows = [
        ipc.rows_of(ipc.Combination("144x160", readers, (), 25), 23040, {"rtcore-hybrid": times})[0]
        for readers, times in found.items()
    ]
    assert [row["book_p50_us"] for row in rows] == [1.5, 12.0]
    assert rows_of(pipe=samples(20))["pipe"]["book_p50_us"] is None
    table = ipc.cell_table(rows)
    assert list(next(column for column in table.columns if column.header == "book\np50").cells) == ["1.5", "12.0"]


def test_preemptions_are_counted_for_every_frame():
    rows = rows_of(rtcore_hybrid=samples(20, preempted=5), c_spin=samples(5))
    assert rows["rtcore-hybrid"]["preempted_per_frame"] == 0.5
    assert rows["c-spin"]["preempted_per_frame"] is None


def test_readers_that_lost_their_cpu_make_the_numbers_the_schedulers_and_that_is_said():
    quiet, disturbed = (list(rows_of(rtcore_hybrid=samples(20, preempted=count)).values()) for count in (1, 5))
    assert ipc.disturbances(quiet) == []
    if len(os.sched_getaffinity(0)) > 1:
        (words,) = ipc.disturbances(disturbed)
        assert "NOT A QUIET MACHINE: in 1 of 1 rows" in words


def test_a_ring_of_large_frames_has_fewer_slots_and_never_less_than_four():
    assert ring_layout((84, 84), 1).ring_slots == 64
    assert ring_layout((1080, 1920, 3), 1).ring_slots == 5
    assert ring_layout((2160, 3840, 3), 1).ring_slots == 4


def test_pictures_are_drawn_without_a_display(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    rows = []
    for readers in (1, 8):
        cell = ipc.Combination("144x160", readers, (), 25)
        rows += ipc.rows_of(cell, 23040, {"rtcore-hybrid": samples(20 * readers), "pipe": MeasuredTimes(missed=25)})
    paths = ipc.plot(Result("ipc", rows, ("frame_bytes", "readers", "transport")), tmp_path)
    assert [path.name for path in paths] == ["ipc-frames.png", "ipc-readers.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_outside_a_clone_the_transports_of_others_are_left_out_and_it_is_said_where_they_are(monkeypatch, tmp_path):
    assert ipc.find_others() is not None, "the tests run in a clone"
    installed = tmp_path / "site-packages" / "rtcore"
    installed.mkdir(parents=True)
    monkeypatch.setattr("rtcore.__file__", str(installed / "__init__.py"))
    monkeypatch.chdir(tmp_path)
    assert ipc.find_others() is None
    options = argparse.Namespace(
        pattern="ticks", frames="8x8", readers="1", transports="pipe,c-spin", rounds=25, full=False
    )
    options.gap_us = options.no_pin = None
    options.step_us = 0
    with pytest.raises(ConfigError, match=r"none of the chosen .*benchmarks/ipc.*run it in a clone"):
        ipc.run(options, Console(quiet=True))
