"""How `rtcore-profile path` splits an action's way: hand-written events with known stages."""

from argparse import Namespace

import numpy as np
import pytest
from rich.console import Console

from rtcore.errors import ConfigError
from rtcore.memory.layout import TRACE_EVENT
from rtcore.memory.trace import TraceKind
from rtcore.profile import path
from rtcore.profile.path import STAGES, inference_notes, split
from rtcore.scheduling.dispatch import TickKind
from tests.support.made_up_trace import events, job, tick

pytestmark = pytest.mark.unit
K = TraceKind


def stages(found, row=0):
    return dict(zip(STAGES, found.stages_ns[row].tolist(), strict=True))


def test_every_stage_is_where_the_events_say_and_they_add_up_to_the_whole():
    about = (0, 3, 0, 7)
    worker = events(
        (K.WAIT_FRAME, 1040, 1058, *about),
        (K.READ, 1058, 1061, *about),
        (K.INFER, 1061, 1161, *about),
        (K.HOST_TO_DEVICE, 1061, 1066, *about),
        (K.COMPUTE, 1066, 1150, *about),
        (K.DEVICE_TO_HOST, 1150, 1157, *about),
        (K.WRITE, 1161, 1170, *about),
    )
    env = events(*tick(0, 1000, frame=7), *tick(1, 2000, worker=3, booked=0, first_use=1, frame=8))
    found = split({"env": env, "worker3": worker})
    assert stages(found) == {
        "publish": 10,
        "wake": 8,
        "read": 3,
        "host-to-device": 5,
        "inference": 88,  # what is left of 100: waiting for the device belongs to it
        "device-to-host": 7,
        "write": 9,
        "wait-for-due": 830,
        "dispatch": 20,
    }
    assert found.stages_ns.sum() == 2020 - 1040
    assert (found.ticks.tolist(), found.first_use.tolist(), found.incomplete) == ([1], [True], 0)


def test_a_reader_that_saw_the_frame_before_its_writer_looked_at_the_clock_waited_for_nothing():
    env = events(*tick(0, 1000, frame=7), *tick(1, 2000, worker=0, booked=0, first_use=1))
    found = split({"env": env, "worker0": events(*job(0, 0, 7, 1041))})  # reads from 1046, published until 1050
    assert stages(found)["publish"] == 6
    assert stages(found)["wake"] == 0


def test_an_answer_that_comes_in_the_middle_of_a_tick_waits_for_nothing():
    env = events(*tick(0, 1000, frame=7), *tick(1, 2000, worker=0, booked=0, first_use=1))
    found = split({"env": env, "worker0": events(*job(0, 0, 7, 1965))})  # written at 2005
    assert (stages(found)["wait-for-due"], stages(found)["dispatch"]) == (0, 15)


def test_no_stage_is_negative_when_the_writer_was_held_up_before_its_last_stamp():
    env = events(*tick(0, 1000, frame=7), *tick(1, 2000, worker=0, booked=0, first_use=1))
    found = split({"env": env, "worker0": events(*job(0, 0, 7, 1985))})  # written "at 2025", decided at 2020
    assert (found.stages_ns >= 0).all()
    assert found.stages_ns.sum() == 2020 - 1040


def test_the_frame_is_the_one_that_was_read_not_the_one_that_was_booked():
    env = events(
        *tick(0, 1000, frame=7),
        *tick(1, 2000, frame=8),
        *tick(2, 3000, worker=0, booked=0, first_use=1),
    )
    found = split({"env": env, "worker0": events(*job(0, 0, 8, 2060))})
    assert found.stages_ns.sum() == 3020 - 2040


def test_an_action_that_is_applied_again_is_counted_apart():
    env = events(
        *tick(0, 1000, frame=7),
        *tick(1, 2000, worker=0, booked=0, first_use=1),
        *tick(2, 3000, worker=0, booked=0, first_use=0),
    )
    found = split({"env": env, "worker0": events(*job(0, 0, 7, 1060))})
    assert found.first_use.tolist() == [True, False]
    assert len(found.applied_ns) == 1
    assert found.stages_ns.sum(axis=1).tolist() == [980, 1980]


def test_an_action_whose_events_were_overwritten_is_left_out_and_counted():
    env = events(*tick(0, 1000, frame=7), *tick(1, 2000, worker=0, booked=0, first_use=1))
    for lost in (K.READ, K.INFER, K.WRITE):
        worker = events(*(row for row in job(0, 0, 7, 1060) if row[0] != lost))
        found = split({"env": env, "worker0": worker})
        assert (len(found.ticks), found.incomplete) == (0, 1)


def test_ticks_without_an_action_have_no_path():
    env = events(*tick(0, 1000, kind=TickKind.RESET), *tick(1, 2000, kind=TickKind.IDLE))
    found = split({"env": env})
    assert (len(found.ticks), found.incomplete) == (0, 0)
    assert split({}).incomplete == 0
    assert split({"env": np.empty(0, TRACE_EVENT.dtype)}).incomplete == 0


def test_waiting_that_passes_for_inference_is_named():
    assert inference_notes({"synthetic": False, "pad_ms": 0.0}) == []
    assert "synthetic" in inference_notes({"synthetic": True, "pad_ms": 0.0})[0]
    assert "padded to at least 40 ms" in inference_notes({"synthetic": False, "pad_ms": 40.0})[0]


def options(*flags):
    return Namespace(run_flags=list(flags))


def test_a_virtual_clock_is_refused():
    with pytest.raises(ConfigError, match="no processes"):
        path.run(options("--clock", "virtual", "--policy", "synthetic"), Console(quiet=True))


def test_it_lasts_ten_seconds_unless_told_otherwise(capsys):
    with pytest.raises(SystemExit):
        path.run(options("--print-config"), Console(quiet=True))
    assert "duration = 10.0" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        path.run(options("--print-config", "--ticks", "50"), Console(quiet=True))
    assert "# duration =" in capsys.readouterr().out
