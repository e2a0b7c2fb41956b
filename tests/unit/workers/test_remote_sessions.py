"""Who says what when over a link, without one: packets are handed from one side to the other, the clock is turned."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest

from rtcore.config.run import make_config
from rtcore.errors import LinkError, LinkLost
from rtcore_workers.policies import policy_of
from rtcore_workers.remote.serving import Builder
from rtcore_workers.remote.session import GREETING_NS, Far, Near, State
from rtcore_workers.remote.wire import Kind, Packet, in_words, parse
from tests.support.links import ACTION, OBSERVATION, VERSION, hello_of, setup_of

pytestmark = pytest.mark.unit

ABOUT = {"rtcore": VERSION, "host": "gpu1", "pid": 1}


def far_with(allowed: frozenset[str] = frozenset(), is_there: Callable[..., bool] = lambda *_: True) -> Far:
    numbers = count(100)
    return Far(ABOUT, Builder("cpu", allowed), lambda: next(numbers), is_there)


def talk(near: Near, far: Far, peer: bytes = b"a", now_ns: int = 0) -> None:
    """Everything that both say until nobody has anything to say."""
    waiting = near.connected(now_ns)
    while waiting:
        answers = [answer for packet in waiting for answer in far.take(peer, parse(packet.message()))]
        waiting = [packet for answer in answers for packet in near.take(parse(answer.message()), now_ns)]


def job(near: Near, number: int, frame_seq: int, nbytes: int = 6) -> Packet:
    return Packet(Kind.JOB, near.session, number, (frame_seq, frame_seq, 0), (b"\1" * nbytes, b"", b""))


def test_from_a_connection_to_the_same_action_as_here() -> None:
    near, far = Near(hello_of(), setup_of(), 7), far_with()
    talk(near, far)
    assert near.state is State.READY
    assert near.far["host"] == "gpu1"
    assert near.ready["info"]["name"] == "random"
    assert (near.ready["manifest"], near.ready["weights"]) == (None, None)
    here = policy_of(make_config(policy="random", seed=5), OBSERVATION, ACTION, worker_index=0, device="cpu")
    out = np.zeros(1, np.int64)
    for frame_seq in range(5):
        (answer,) = far.take(b"a", job(near, frame_seq + 1, frame_seq))
        here.act(frame_seq=frame_seq, out=out)
        assert (answer.kind, answer.number) == (Kind.ANSWER, frame_seq + 1)
        assert bytes(answer.parts[0]) == out.tobytes()
        assert answer["held_ns"] > 0


def test_silence_after_the_connection_is_a_lost_link() -> None:
    near = Near(hello_of(), setup_of(), 7)
    near.connected(now_ns=1000)
    near.check(now_ns=1000 + GREETING_NS)
    with pytest.raises(LinkLost, match="no answer for 5 s"):
        near.check(now_ns=1001 + GREETING_NS)


def test_a_policy_may_take_long_to_be_built() -> None:
    near = Near(hello_of(), setup_of(), 7)
    near.connected(0)
    near.take(in_words(Kind.WELCOME, ABOUT, session=9, number=7), 0)
    near.check(now_ns=100 * GREETING_NS)
    assert near.state is State.BUILDING


@pytest.mark.parametrize("version", ["0.0.9", "", None])
def test_another_version_is_refused_by_name(version: Any) -> None:
    with pytest.raises(
        LinkError, match=rf"the worker is rtcore {VERSION}.*the run is rtcore {version}.*expected the same"
    ):
        talk(Near(hello_of(version=version), setup_of(), 7), far_with())


@pytest.mark.parametrize(
    "policy",
    ["os:system", "/etc/passwd.py:main", "sb3:model.zip", "tests.support.bad_policies:raises_at_import"],
)
def test_a_run_does_not_choose_what_code_runs_here(policy: str) -> None:
    setup = setup_of()
    setup["settings"]["policy"] = policy
    with pytest.raises(LinkError, match=f"--allow {policy}"):
        talk(Near(hello_of(), setup, 7), far_with(frozenset({"another:policy"})))


def test_a_policy_that_was_allowed_by_its_name_is_built() -> None:
    name = "tests.support.policy_probes:sees_nothing_and_gives_one"
    near = Near(hello_of(), setup_of(policy=name), 7)
    with pytest.raises(LinkError, match="the policy cannot be built|has no 'sees_nothing_and_gives_one'"):
        talk(near, far_with(frozenset({name})))


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"settings": {}}, "not what rtcore sends"),
        ({"more": 1}, "not what rtcore sends"),
        ({"observation": {"shape": [-1], "dtype": "uint8", "low": [0], "high": [1]}}, "."),
        ({"observation": {"shape": [2], "dtype": "object", "low": [0], "high": [1]}}, "."),
        ({"action": 3}, "."),
        ({"observation": OBSERVATION.to_json() | {"shape": [1 << 27], "low": [0], "high": [255]}}, "64 MiB"),
    ],
)
def test_a_setup_that_is_none_is_refused(changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(LinkError, match=problem):
        talk(Near(hello_of(), setup_of() | changed, 7), far_with())


def test_a_job_of_another_shape_is_refused_and_the_next_one_answered() -> None:
    near, far = Near(hello_of(), setup_of(), 7), far_with()
    talk(near, far)
    (refused,) = far.take(b"a", job(near, 1, 0, nbytes=5))
    assert refused.kind is Kind.REFUSED
    assert "a job of [5, 0, 0] bytes; expected [6, 0, 0]" in refused.said()["text"]
    (answer,) = far.take(b"a", job(near, 2, 0))
    assert answer.kind is Kind.ANSWER


def test_what_the_policy_raises_is_said_with_the_jobs_number() -> None:
    near, far = Near(hello_of(), setup_of(), 7), far_with()
    talk(near, far)
    (answer,) = far.take(b"a", job(near, 3, frame_seq=-1))  # a seed of below 0
    assert (answer.kind, answer.number) == (Kind.FAILED, 3)
    assert "ValueError" in answer.said()["text"]


def test_a_session_that_was_recorded_does_nothing_when_it_is_sent_again() -> None:
    recorded: list[Packet] = []
    near, far = Near(hello_of(), setup_of(), 7), far_with()
    waiting = near.connected(0)
    while waiting:
        recorded += waiting
        waiting = [more for packet in waiting for answer in far.take(b"a", packet) for more in near.take(answer, 0)]
    recorded.append(job(near, 1, 0))
    far.take(b"a", recorded[-1])
    # The run goes on in a new session, as after a link that was cut.
    again = Near(hello_of(), setup_of(), 8)
    talk(again, far, peer=b"b")
    answers = [answer for packet in recorded for answer in far.take(b"c", packet)]
    assert [answer.kind for answer in answers] == [Kind.WELCOME, Kind.REFUSED, Kind.REFUSED]
    assert "another session" in answers[1].said()["text"]
    assert far.stale == 2
    (answer,) = far.take(b"b", job(again, 1, 0))
    assert answer.kind is Kind.ANSWER
    # And what far had said in the old session does nothing on this side.
    assert again.take(in_words(Kind.READY, {}, session=near.session), 0) == []
    assert again.ready["info"]["name"] == "random"


def test_one_run_at_a_time_and_the_next_one_when_it_has_gone() -> None:
    there = True
    far = far_with(is_there=lambda peer, packet: there)
    first, second = Near(hello_of("run-a"), setup_of(), 1), Near(hello_of("run-b"), setup_of(), 2)
    talk(first, far, b"a")
    with pytest.raises(LinkLost, match=r"serves another run \(run-a, worker 0\)"):
        talk(second, far, b"b")
    there = False
    second = Near(hello_of("run-b"), setup_of(), 2)
    talk(second, far, b"b")
    assert second.state is State.READY
    (answer,) = far.take(b"a", job(first, 1, 0))
    assert "this session is over" in answer.said()["text"]


def test_of_two_that_were_welcomed_at_once_the_first_to_say_more_is_served() -> None:
    far = far_with()
    nears = [Near(hello_of(run), setup_of(), number) for number, run in enumerate("ab")]
    setups = [
        near.take(far.take(run, near.connected(0)[0])[0], 0)[0] for near, run in zip(nears, (b"a", b"b"), strict=True)
    ]
    (ready,), (busy,) = far.take(b"a", setups[0]), far.take(b"b", setups[1])
    assert (ready.kind, busy.kind) == (Kind.READY, Kind.REFUSED)
    assert busy.said()["why"] == "busy"


def test_the_same_place_of_the_same_run_takes_over_at_once_and_finds_its_policy_built() -> None:
    built = []
    builder = Builder("cpu", frozenset())

    def build(run_id: str, setup: Any) -> Any:
        built.append(builder(run_id, setup))
        return built[-1]

    numbers = count(100)
    far = Far(ABOUT, build, lambda: next(numbers), lambda *_: True)
    for peer in (b"a", b"b"):
        talk(Near(hello_of(), setup_of(), 7), far, peer)
    assert built[0] is built[1]
    talk(Near(hello_of("run-b"), setup_of(), 7), Far(ABOUT, build, lambda: next(numbers), lambda *_: True), b"c")
    assert built[2] is not built[0], "another run begins with its own"


def test_a_welcome_for_somebody_else_is_none() -> None:
    near = Near(hello_of(), setup_of(), 7)
    near.connected(0)
    for stray in (in_words(Kind.WELCOME, ABOUT, session=5, number=8), in_words(Kind.WELCOME, ABOUT, number=7)):
        assert near.take(stray, 0) == []
        assert near.state is State.GREETING


@pytest.mark.parametrize("kind", [Kind.READY, Kind.WELCOME, Kind.FAILED, Kind.ANSWER, Kind.PROBE, Kind.REFUSED])
def test_what_only_a_worker_says_is_refused_by_one(kind: Kind) -> None:
    near, far = Near(hello_of(), setup_of(), 7), far_with()
    talk(near, far)
    (answer,) = far.take(b"a", Packet(kind, near.session, parts=(b"{}",)))
    assert "which only a worker says" in answer.said()["text"]


def test_a_hello_of_nobody_is_refused() -> None:
    for said in ({"rtcore": VERSION}, {"rtcore": VERSION, "run_id": 3, "worker": 0}):
        with pytest.raises(LinkError, match="does not say whose it is"):
            talk(Near(said, setup_of(), 7), far_with())
