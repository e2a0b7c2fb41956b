"""A transport of others that gives up in the middle of `rtcore-profile ipc`: the others' numbers are kept."""

import multiprocessing
import os
from pathlib import Path

import pytest

from benchmarks.ipc.standard import PipeTransport
from rtcore.profile import ipc
from rtcore.profile.children import choose, start_fork_server
from rtcore.profile.session import BLOCK, PRELOAD
from rtcore.profile.transports import Rhythm, RtcoreTransport

pytestmark = [pytest.mark.process, pytest.mark.slow]

QUICK = Rhythm(gap_ns=500_000, prepare_ns=50_000, step_ns=50_000)


class GivesUp(PipeTransport):
    """Carries a block and a half, then fails as another library would: with an error of its own."""

    sent = 0

    def send(self, frame):
        self.sent += 1
        if self.sent > BLOCK + 10:
            raise ValueError("the pigeon is tired")
        super().send(frame)


class LosesItsReader(PipeTransport):
    """Its reader dies in its turn, at the end of it: a pipe that nobody reads would fill up and block before."""

    sent = 0

    def send(self, frame):
        self.sent += 1
        if self.sent == BLOCK - 1:
            for child in multiprocessing.active_children():
                child.kill()
                child.join()
        super().send(frame)


def measure(monkeypatch, kind, transports):
    make = ipc.make_transport
    monkeypatch.setattr(
        ipc,
        "make_transport",
        lambda name, shape, readers: kind(shape, readers) if name == "pipe" else make(name, shape, readers),
    )
    missing, turns = {}, []
    start_fork_server(*PRELOAD)
    cell = ipc.Combination("84x84", 1, transports, 2 * BLOCK)
    rows = ipc.measure(cell, QUICK, turns.append, missing, choose(pin=False))
    # Run ids hold the pid of the program, so that other runs on this machine are not mistaken for this one.
    assert [path.name for path in Path("/dev/shm").glob(f"*rtcore-*{os.getpid()}-*")] == []
    return rows, missing


@pytest.mark.parametrize(("kind", "said"), [(GivesUp, "ValueError: the pigeon is tired"), (LosesItsReader, "")])
def test_it_is_left_out_with_the_reason_and_the_others_are_measured_in_full(monkeypatch, kind, said):
    rows, missing = measure(monkeypatch, kind, ("rtcore-block", "pipe"))
    assert [row["transport"] for row in rows] == ["rtcore-block"]
    assert rows[0]["samples"] + rows[0]["missed"] == 2 * (BLOCK - 1)
    assert missing["pipe"].startswith("pipe failed with 84x84, 1 reader: ")
    assert said in missing["pipe"]


def test_alone_it_leaves_no_rows_and_no_error(monkeypatch):
    rows, missing = measure(monkeypatch, GivesUp, ("pipe",))
    assert rows == []
    assert "pigeon" in missing["pipe"]


def test_a_failure_of_rtcores_own_is_never_left_out(monkeypatch):
    def fail(self, frame):
        raise ValueError("our own mistake")

    monkeypatch.setattr(RtcoreTransport, "send", fail)
    with pytest.raises(ValueError, match="our own mistake"):
        measure(monkeypatch, PipeTransport, ("rtcore-block", "pipe"))
