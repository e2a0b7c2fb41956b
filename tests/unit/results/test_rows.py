"""Rows of actions.csv and jobs.csv: what is written is read back."""

import pytest

from rtcore.memory.layout import FrameHeader
from rtcore.results.rows import INFERENCES, TICKS, InferenceRow, TickRow
from rtcore.scheduling.dispatch import Outcome, Source, TickKind
from rtcore.scheduling.jobs import JobRow

pytestmark = pytest.mark.unit

ACTED = FrameHeader(
    frame_seq=9,
    tick=9,
    kind=TickKind.ACTED,
    source=Source.POLICY,
    reward=0.1,
    worker=2,
    obs_tick=6,
    due_tick=8,
    chunk_index=1,
    outcome=Outcome.LATE,
    policy_version=3,
    policy_checksum=0xABC,
)
IDLE = FrameHeader(frame_seq=9, tick=9, kind=TickKind.IDLE, source=Source.NOOP)
ANSWERED = JobRow(worker=1, obs_tick=4, booked_tick=3, due_tick=6, hold=1, outcome=Outcome.ON_TIME, tick=6, read_ns=5)


def texts(rows, row):
    return dict(zip(rows.columns, map(str, rows.written(row)), strict=True))


@pytest.mark.parametrize("header", [ACTED, IDLE], ids=["acted", "idle"])
def test_a_tick_that_was_written_is_read_back(header):
    row = TickRow.of(header, "1 0.5")
    assert TICKS.read(texts(TICKS, row)) == row


@pytest.mark.parametrize("job", [ANSWERED, JobRow(worker=1, booked_tick=3, outcome=Outcome.UNFINISHED, tick=9)])
def test_a_job_that_was_written_is_read_back(job):
    row = InferenceRow.of(job)
    assert INFERENCES.read(texts(INFERENCES, row)) == row


def test_what_is_about_an_action_is_empty_where_none_of_a_policy_was_applied():
    empty = {name for name, text in texts(TICKS, TickRow.of(IDLE, "1")).items() if not text}
    assert empty == {
        "requested_action",
        "obs_tick",
        "due_tick",
        "delay_ticks",
        "worker",
        "outcome",
        "policy_version",
        "policy_checksum",
        "chunk_index",
        "state_tick",
        "features_tick",
        "features_worker",
    }
    assert texts(TICKS, TickRow.of(ACTED, "1"))["chunk_index"] == "1"


def test_a_row_of_an_earlier_version_is_read_without_the_column_that_it_lacks():
    written = texts(TICKS, TickRow.of(ACTED, "1"))
    del written["chunk_index"]
    assert TICKS.read(written) == TickRow.of(ACTED, "1")._replace(chunk_index=-1)
    assert "chunk_index" not in TICKS.required


@pytest.mark.parametrize("damage", [{"tick": "9.5"}, {"worker": "999999"}, {"kind": "dozing"}, {"reward": "nan"}])
def test_a_damaged_value_is_refused(damage):
    with pytest.raises((ValueError, KeyError)):
        TICKS.read(texts(TICKS, TickRow.of(ACTED, "1")) | damage)
