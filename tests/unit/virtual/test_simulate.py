"""The simulator's own parts: what policies see on the virtual clock, and workers that come and go."""

from __future__ import annotations

import numpy as np
import pytest

from rtcore.clock import ManualClock
from rtcore.config.run import make_config
from rtcore.memory.counters import Distribution
from rtcore.memory.layout import FrameHeader
from rtcore.report.table import header_lines
from rtcore.results.run_record import RunRecord
from rtcore.scheduling.dispatch import TickKind
from rtcore.scheduling.draft import draft_of
from rtcore.scheduling.jobs import Job
from rtcore.virtual.simulate import Change, Simulation
from rtcore.virtual.workers import Inference, SimulatedWorkers

pytestmark = pytest.mark.unit

MS = 1_000_000


class Watcher:
    """A policy that writes down what it was given, and acts on it in a way that shows."""

    def __init__(self, obs_history, act_history):
        self.observation = np.zeros((obs_history + 1, 2) if obs_history else 2, np.float32)
        self.past_actions = np.zeros(act_history, np.int64) if act_history else None
        self.seen = {}

    def act(self, *, frame_seq, out):
        past = None if self.past_actions is None else self.past_actions.tolist()
        self.seen[frame_seq] = (self.observation.tolist(), past)
        out[...] = frame_seq % 3


def watched(**fields):
    settings = {"clock": "virtual", "latency": "constant:25", "workers": 3, "ticks": 300, "fps": 100}
    config = make_config(
        env_id="tests.support.virtual_worlds:Signs", env_args={"episode_ticks": 40}, **(settings | fields)
    )
    policy = Watcher(config.history.obs_history, config.history.act_history)
    simulation = Simulation(config, policy=policy).run()
    simulation.close()
    return simulation, policy.seen


@pytest.mark.parametrize(("obs_history", "act_history"), [(0, 0), (2, 0), (0, 3), (3, 2)])
def test_a_policy_sees_the_frame_of_its_job_with_the_frames_and_actions_before_it(obs_history, act_history):
    simulation, seen = watched(obs_history=obs_history, act_history=act_history)
    ring = simulation.ring
    headers = list(simulation.record.ticks)
    assert len(seen) > 280
    for seq, (observation, past) in seen.items():
        first = max(header.frame_seq for header in headers[: seq + 1] if header.kind == TickKind.RESET)
        frames = [max(first, seq - back) for back in range(obs_history, -1, -1)]
        expected = ring.gather(np.array(frames)).tolist()
        assert observation == (expected if obs_history else expected[0])
        actions = [max(first, seq - back) for back in range(act_history - 1, -1, -1)]
        read = [int.from_bytes(ring.read_action(at), "little") for at in actions]
        assert past == (read if act_history else None)


def test_frames_are_kept_as_long_as_ring_slots_says():
    simulation, _ = watched(ring_slots=50)
    assert simulation.ring.read_header(250)[1].tick == 250
    assert simulation.ring.read_header(249)[1] is None


def test_the_actions_that_are_applied_are_those_that_were_chosen_a_delay_before():
    simulation, _ = watched()
    acted = [header for header in simulation.record.ticks if header.kind == TickKind.ACTED]
    assert {header.tick - header.obs_tick for header in acted} == {3}
    for header in acted:
        assert int.from_bytes(simulation.ring.read_action(header.frame_seq), "little") == header.obs_tick % 3


def test_a_worker_that_goes_while_it_computes_never_answers_and_comes_back():
    config = make_config(
        clock="virtual", policy="random", latency="constant:25", workers=3, ticks=200, env_id="CartPole-v1", fps=100
    )
    simulation = Simulation(config, changes=[Change(50, 1, False), Change(100, 1, True)]).run()
    simulation.close()
    outcomes = simulation.summary()["actions"]["outcomes"]
    assert outcomes["dropped_dead_worker"] == 1
    assert simulation.workers.inferences[1] < simulation.workers.inferences[0]
    assert simulation.schedule.num_up == 3


# -- a worker that learns in its turn ----------------------------------------------------------------------------


class Lessons:
    """Takes 30 ms after each answer."""

    def before_inference(self, now_ns):
        return 0

    def after_answer(self, now_ns):
        return 30 * MS


def workers_in_turn(clock, changes=()):
    return SimulatedWorkers(
        clock,
        lambda number, frame_seq, job: Inference(bytes([frame_seq]), 5 * MS),
        RunRecord(None, bytes.hex),
        num_workers=1,
        changes=changes,
        cycle=Lessons(),
    )


def header_of(tick):
    """Of a frame that is published at its tick, 10 ms each."""
    header = draft_of(FrameHeader)
    header.frame_seq, header.tick, header.publish_ns = tick, tick, 10 * MS * tick
    return header


def ticks_of(workers, clock, jobs, last):
    """Runs ticks 0 .. last; `jobs`: what is booked, by tick. Answers by the tick they were collected at."""
    found = {}
    for tick in range(last + 1):
        clock.sleep_until_ns(10 * MS * tick)
        entries = workers.collect(tick)
        if entries:
            found[tick] = entries
        list(workers.membership())
        workers.publish(None, header_of(tick), b"")
        if tick in jobs:
            workers.announce([Job(0, tick, tick + 1, False)])
    return found


def test_a_job_booked_while_its_worker_learns_begins_afterwards_with_the_newest_frame():
    clock = ManualClock()
    found = ticks_of(workers_in_turn(clock), clock, jobs=(0, 1), last=6)
    # The answer of 5 ms is followed by learning until 35 ms: the frame of tick 3 is the newest then.
    assert list(found) == [1, 4]
    job, answer = found[4][0]
    assert (job.obs_tick, answer.obs_tick, answer.actions) == (1, 3, b"\x03")
    assert (job.booked_ns, answer.start_ns, answer.write_ns) == (10 * MS, 35 * MS, 40 * MS)


def test_a_job_that_waits_for_a_worker_that_goes_is_never_begun():
    clock = ManualClock()
    workers = workers_in_turn(clock, [Change(2, 0, False)])
    assert list(ticks_of(workers, clock, jobs=(0, 1), last=9)) == [1]
    assert workers.inferences == [1]


def test_what_a_run_says_about_inference_is_the_time_of_inference_alone():
    clock = ManualClock()
    workers = workers_in_turn(clock)
    ticks_of(workers, clock, jobs=(0, 1), last=6)
    shape: Distribution = workers.inference[0].snapshot()
    assert (shape.count, shape.min, shape.max) == (2, 5 * MS, 5 * MS)


def test_a_run_on_the_virtual_clock_has_the_header_of_a_real_one_warnings_included():
    config = make_config(env_id="CartPole-v1", policy="mlp", clock="virtual", latency="constant:5", workers=2, ticks=9)
    simulation = Simulation(config)
    text = "\n".join(header_lines(simulation.header, simulation.resolved, simulation.plan))
    simulation.close()
    for fact in (
        "CartPole-v1 at 50.0000 Hz",
        "4 float32",
        "WARNING: CartPole-v1 has no no-op",
        "4,610 parameters",
        "seed 0",
    ):
        assert fact in text
    assert f"plan      {simulation.plan.sentence(simulation.stats().policy)}" in text


@pytest.mark.slow
def test_ten_thousand_workers_give_an_action_every_tick_and_fewer_are_planned_for_every_second():
    settings = {"env_id": "tests.support.virtual_worlds:Signs", "env_args": {"episode_ticks": 10**6}}
    settings |= {"policy": "random", "clock": "virtual", "latency": f"constant:{10 * 9_999.5}", "ticks": 10_201}
    simulation = Simulation(make_config(workers=10_000, **settings)).run()
    simulation.close()
    assert simulation.stats().counters["acted"] == 201
    fewer = Simulation(make_config(workers=9_000, **settings))
    fewer.close()
    assert (fewer.plan.delay_ticks, fewer.plan.stride_ticks) == (10_000, 2)
