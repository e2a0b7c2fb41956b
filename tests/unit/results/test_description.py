"""What a run says of itself: read back whole by whoever attaches, whenever it is replaced."""

import random
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction

import pytest

from rtcore.config.resolved import resolve
from rtcore.config.run import make_config
from rtcore.errors import LayoutMismatchError
from rtcore.memory.description import DescriptionBuffer
from rtcore.memory.layout import Layout
from rtcore.memory.ring import SequenceRing
from rtcore.results.description import RunDescription
from rtcore.scheduling.planner import Tau, make_plan
from rtcore.watch.attached import understood

pytestmark = pytest.mark.unit

LAYOUT = Layout(
    max_workers=1, ring_slots=2, log_slots=2, frame_bytes=8, action_bytes=8, chunk=1, description_bytes=16384
)


@pytest.fixture
def board():
    buffer = memoryview(bytearray(LAYOUT.description_segment_bytes))
    SequenceRing.over(buffer, LAYOUT.ring_control_at, 2).format()
    return DescriptionBuffer(buffer, LAYOUT)


def about(program="train.py", mps=""):
    tau = Tau.of([100_000_000, 101_000_000], [1_000_000])
    plan = make_plan(
        "max-time", tau, Fraction(262144, 4389), workers=7, max_workers=8, guard_ns=0, device_parallelism=2.0
    )
    return RunDescription(
        run_id="1-a",
        program=program,
        run=resolve(make_config(), Fraction(262144, 4389), 7056),
        world={"observation": {"shape": [84, 84]}},
        policy={"policy": "impala", "mps": mps},
        plan=plan,
        startup={"world": 4.5},
        started_unix_s=1.7e9,
        devices=["cpu"] * 7,
        restart_reasons={"killed by SIGKILL": 2},
    )


def write(board, description):
    return board.write(description.to_text(board.num_bytes))


def read(board):
    return RunDescription.from_text(board.read())


def test_before_the_first_text_there_is_none(board):
    assert board.read() is None


def test_the_newest_text_comes_back_as_it_was_written_plan_included(board):
    for program in ("one.py", "two.py", "three.py"):
        assert write(board, about(program))
        assert read(board) == about(program)


def test_a_text_that_does_not_fit_leaves_the_one_before(board):
    assert write(board, about())
    assert not write(board, about("x" * LAYOUT.description_bytes))
    assert read(board) == about()


def test_reasons_of_restarts_that_do_not_fit_are_summed_up(board):
    many = replace(about(), restart_reasons={f"hung: silent for {number} s": 2 for number in range(500)})
    assert write(board, many)
    assert read(board).restart_reasons == {"500 different reasons, too long for onlookers": 1000}


def test_the_header_names_mps_only_where_there_is_some():
    assert "mps" not in about().header
    assert about(mps="MPS daemon running").header["mps"] == "MPS daemon running"


def test_a_text_of_another_mind_is_a_named_error_and_names_no_code():
    rng, good = random.Random(4), about().to_text()
    texts = [b"[" * 3000, b"3", b"{}", b'{"plan": 1}', good.replace(b"rtcore/Blocks-v0", b"os:system")]
    for number in range(200):
        data = bytearray(good)
        if number % 4 == 3:
            del data[rng.randrange(len(data)) :]
        else:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        texts.append(bytes(data))
    for text in texts:
        with suppress(LayoutMismatchError), understood("1-a"):
            RunDescription.from_text(text)
