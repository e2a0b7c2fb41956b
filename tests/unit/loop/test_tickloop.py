"""The real loop over a real world, with a manual clock and workers that are a dictionary."""

from copy import copy
from fractions import Fraction
from typing import NamedTuple

import gymnasium
import numpy as np
import pytest

from rtcore.clock import ManualClock, TickGrid
from rtcore.loop.counting import SOURCE_COUNTERS, Books, StatsRecorder
from rtcore.loop.tickloop import TickLoop
from rtcore.loop.world import GymnasiumWorld, HeldWorld
from rtcore.memory.layout import ENV_COUNTERS, FrameHeader
from rtcore.memory.ring import AFTER_STEP
from rtcore.scheduling.dispatch import Dispatcher, Outcome, Source, TickKind
from rtcore.scheduling.jobs import Answer
from rtcore.scheduling.schedule import Schedule, ScheduleParams

pytestmark = pytest.mark.unit

TICK_NS = 10_000_000
RATE_HZ = Fraction(100)
RESET, ACTED, MISSED, IDLE, LEAD_IN = (
    TickKind.RESET,
    TickKind.ACTED,
    TickKind.MISSED,
    TickKind.IDLE,
    TickKind.LEAD_IN,
)


class Published(NamedTuple):
    frame: np.ndarray
    header: FrameHeader
    action: int


class FakeWorkers:
    """Answers each job `delay_ticks` after its frame, always with action 1 (or a chunk of 1, 0, 1, 0 ...)."""

    def __init__(self, clock, *, tau_ticks, chunk=1):
        self.clock, self.tau_ticks, self.chunk = clock, tau_ticks, chunk
        self.published = []
        self.out = []
        self.changes = []
        self.calls = []

    @property
    def next_frame_seq(self):
        return len(self.published)

    def collect(self, tick):
        self.calls.append("collect")
        ready = [pair for pair in self.out if pair[1].write_ns <= self.clock.now_ns()]
        self.out = [pair for pair in self.out if pair not in ready]
        return ready

    def membership(self):
        self.calls.append("membership")
        changes, self.changes = self.changes, []
        self.out = [pair for pair in self.out if (pair[0].worker, False) not in changes]
        return changes

    def post(self, jobs, booked_ns):
        self.calls.append("post")

    def stage(self, header):
        self.calls.append("stage")
        self.staged = header.record()

    def publish(self, frame, header, action, kept=b""):
        self.calls.append("publish")
        assert header.frame_seq == len(self.published)
        changed = {name for name in header.record()._fields if getattr(header, name) != getattr(self.staged, name)}
        assert changed <= set(AFTER_STEP)  # a ring takes nothing else of it any more
        self.published.append(Published(np.array(frame), header.record(), int(np.frombuffer(action, np.int64)[0])))

    def announce(self, jobs):
        self.calls.append("announce")
        frame = self.published[-1].header
        for job in jobs:
            actions = np.array([1 - index % 2 for index in range(self.chunk)], np.int64).tobytes()
            write_ns = frame.deadline_ns + self.tau_ticks * TICK_NS
            answer = Answer(
                obs_tick=frame.tick,
                episode=frame.episode,
                frame_publish_ns=frame.publish_ns,
                write_ns=write_ns,
                actions=actions,
            )
            self.out.append((job, answer))

    def prewake(self, worker):
        self.calls.append(f"prewake {worker}")

    @property
    def kinds(self):
        return [TickKind(row.header.kind) for row in self.published]

    @property
    def sources(self):
        return [Source(row.header.source) for row in self.published]


class Notebook:
    """A recorder that keeps everything."""

    def __init__(self):
        self.began, self.ticks, self.jobs, self.episodes = [], [], [], []

    def begin_tick(self, tick, now_ns):
        self.began.append((tick, now_ns))

    def end_tick(self, tick):
        self.ticks.append(copy(tick))
        self.ticks[-1].header = tick.header.record()

    def answer_taken(self, answer):
        pass

    def job_ended(self, row):
        self.jobs.append(row)

    def episode_ended(self, episode_return, episode_ticks):
        self.episodes.append((episode_return, episode_ticks))

    def invariant_broken(self, invariant, tick):
        raise AssertionError(f"{invariant!r} does not hold at tick {tick}")


class SlowAt(gymnasium.Wrapper):
    """Takes the given times [ns] of the manual clock in the steps, and in the resets, of these numbers."""

    def __init__(self, env, clock, times_ns, reset_times_ns):
        super().__init__(env)
        self._clock, self._times_ns, self._steps = clock, times_ns, 0
        self._reset_times_ns, self._resets = reset_times_ns, 0

    def reset(self, **arguments):
        self._clock.advance_ns(self._reset_times_ns.get(self._resets, 0))
        self._resets += 1
        return self.env.reset(**arguments)

    def step(self, action):
        self._clock.advance_ns(self._times_ns.get(self._steps, 0))
        self._steps += 1
        return self.env.step(action)


class Bench:
    """A loop with everything around it."""

    def __init__(
        self,
        *,
        delay=3,
        workers=3,
        tau_ticks=None,
        chunk=1,
        on_reset="hold",
        slow=None,
        slow_resets=None,
        held=False,
        limit=None,
        overrun="skip",
        recorder=None,
        **world,
    ):
        self.clock = ManualClock()
        env = gymnasium.make("CartPole-v1", max_episode_steps=limit)
        self.env = SlowAt(env, self.clock, slow or {}, slow_resets or {})
        self.world = GymnasiumWorld(self.env, seed=1, **world)
        self.workers = FakeWorkers(self.clock, tau_ticks=delay if tau_ticks is None else tau_ticks, chunk=chunk)
        self.notebook = Notebook()
        self.schedule = Schedule(ScheduleParams("max-time", RATE_HZ, delay, delay * TICK_NS), workers)
        self.loop = TickLoop(
            HeldWorld(self.world) if held else self.world,
            TickGrid(0, RATE_HZ),
            self.clock,
            self.schedule,
            Dispatcher(chunk_ticks=chunk),
            self.workers,
            self.notebook if recorder is None else recorder(self.schedule),
            on_reset=on_reset,
            overrun=overrun,
            phase_seq=7,
        )

    def run(self, ticks, *, prepare_ns=None):
        """`prepare_ns`: how long before each deadline the loop is given time to prepare."""
        for _ in range(ticks):
            if prepare_ns is not None:
                self.clock.sleep_until_ns((self.loop.tick + 1) * TICK_NS - prepare_ns)
                self.loop.prepare_tick()
            self.loop.run_tick()
        return self.workers


# -- before the deadline -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prepare_ns", [1, TICK_NS // 2])
def test_preparing_changes_nothing_of_what_is_applied_when(prepare_ns):
    plain, prepared = Bench(limit=7, workers=2), Bench(limit=7, workers=2)
    plain.run(60)
    prepared.run(60, prepare_ns=prepare_ns)
    assert prepared.workers.kinds == plain.workers.kinds
    assert [row.action for row in prepared.workers.published] == [row.action for row in plain.workers.published]
    jobs = [
        [(row.worker, row.booked_tick, row.outcome, row.tick) for row in bench.notebook.jobs]
        for bench in (plain, prepared)
    ]
    assert jobs[0] == jobs[1]


def test_preparing_takes_in_an_answer_and_wakes_the_worker_that_will_be_booked():
    bench = Bench(delay=1, workers=1, tau_ticks=0.5)
    bench.run(2)
    bench.workers.calls.clear()
    bench.clock.sleep_until_ns(2 * TICK_NS - 1)
    bench.loop.prepare_tick()
    assert bench.workers.calls == ["collect", "membership", "prewake 0"]
    assert bench.workers.out == []


def test_nobody_is_woken_for_a_tick_at_which_nobody_is_idle():
    bench = Bench(delay=3, workers=1)
    bench.run(2, prepare_ns=1)
    bench.workers.calls.clear()
    bench.clock.sleep_until_ns(2 * TICK_NS - 1)
    bench.loop.prepare_tick()
    assert not any(call.startswith("prewake") for call in bench.workers.calls)


# -- reset, hold, lead-in ----------------------------------------------------------------------------------------


def test_the_first_tick_resets_and_the_world_is_held_until_the_first_action_is_due():
    workers = Bench().run(6)
    assert workers.kinds == [RESET, LEAD_IN, LEAD_IN, ACTED, ACTED, ACTED]
    assert workers.sources == [Source.HELD] * 3 + [Source.POLICY] * 3
    first = workers.published[0].frame
    assert all(np.array_equal(row.frame, first) for row in workers.published[:3])
    assert not np.array_equal(workers.published[3].frame, first)
    assert [row.header.episode_ticks for row in workers.published] == [0, 0, 0, 1, 2, 3]
    assert [row.header.reward for row in workers.published[:4]] == [0.0, 0.0, 0.0, 1.0]


def test_on_reset_run_lets_the_world_move_on_without_the_agent():
    workers = Bench(on_reset="run").run(5)
    assert workers.kinds == [RESET, LEAD_IN, LEAD_IN, ACTED, ACTED]
    assert workers.sources == [Source.HELD, Source.NOOP, Source.NOOP, Source.POLICY, Source.POLICY]
    assert workers.published[-1].header.episode_ticks == 4


def test_an_episode_ends_in_a_reset_a_tick_later_and_a_new_lead_in():
    bench = Bench(limit=4)
    workers = bench.run(12)
    episode = [RESET, LEAD_IN, LEAD_IN, ACTED, ACTED, ACTED, ACTED]
    assert workers.kinds == (episode + episode)[:12]
    last = workers.published[6].header
    assert (last.truncated, last.terminated, last.episode_return, last.episode_ticks) == (1, 0, 4.0, 4)
    assert [row.header.episode for row in workers.published] == [0] * 7 + [1] * 5
    assert bench.notebook.episodes == [(4.0, 4)]
    stale = [r for r in bench.notebook.jobs if r.outcome is Outcome.STALE_EPISODE]
    assert [row.booked_tick for row in stale] == [4, 5, 6]


def test_a_held_world_ticks_and_books_without_a_step():
    bench = Bench(held=True)
    workers = bench.run(8)
    assert ACTED in workers.kinds
    assert all(np.array_equal(row.frame, workers.published[0].frame) for row in workers.published)
    assert bench.env._steps == 0


# -- what acts without an action ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on_missing", "source", "actions"),
    [("noop", Source.NOOP, {0}), ("repeat", Source.REPEAT, {1}), ("random", Source.RANDOM, {0, 1})],
)
def test_between_two_actions_on_missing_acts(on_missing, source, actions):
    """One worker, delay 4: an action at ticks 4, 8, 12; it is always 1."""
    workers = Bench(delay=4, workers=1, on_missing=on_missing).run(13)
    idle = [row for row in workers.published if row.header.kind == IDLE]
    assert [row.header.tick for row in idle] == [5, 6, 7, 9, 10, 11]
    assert {Source(row.header.source) for row in idle} == {source}
    assert {row.action for row in idle} <= actions
    assert {row.header.worker for row in idle} == {-1}


def test_a_random_stand_in_depends_on_the_seed_alone():
    runs = [[row.action for row in Bench(delay=4, workers=1, on_missing="random").run(9).published] for _ in range(2)]
    assert runs[0] == runs[1]


def test_an_answer_that_does_not_come_makes_a_missed_tick_and_then_a_late_action():
    bench = Bench(delay=3, workers=1, tau_ticks=5)
    workers = bench.run(6)
    assert workers.kinds == [RESET, LEAD_IN, LEAD_IN, MISSED, IDLE, ACTED]
    late = workers.published[5].header
    assert (late.obs_tick, late.due_tick, late.outcome) == (0, 3, 1)
    assert bench.notebook.jobs[0].outcome is Outcome.LATE


# -- what is published -------------------------------------------------------------------------------------------


def test_the_header_says_where_the_action_came_from():
    row = Bench().run(4).published[3]
    header = row.header
    assert (header.tick, header.frame_seq, header.phase_seq) == (3, 3, 7)
    assert (header.worker, header.obs_tick, header.due_tick, header.chunk_index, header.outcome) == (0, 0, 3, 0, 0)
    assert (header.deadline_ns, header.start_ns, header.write_ns) == (3 * TICK_NS, 3 * TICK_NS, 3 * TICK_NS)
    assert row.action == 1


def test_a_chunk_is_played_action_by_action():
    workers = Bench(delay=4, workers=1, chunk=4).run(12)
    assert workers.kinds == [RESET, LEAD_IN, LEAD_IN, LEAD_IN] + [ACTED] * 8
    assert [row.action for row in workers.published[4:]] == [1, 0, 1, 0] * 2
    assert [row.header.chunk_index for row in workers.published[4:]] == [0, 1, 2, 3] * 2


def test_jobs_are_posted_before_the_frame_exists_and_announced_after():
    bench = Bench()
    bench.run(1)
    assert bench.workers.calls == ["collect", "membership", "post", "stage", "publish", "announce"]


def test_the_recorder_hears_of_every_tick_and_every_job():
    bench = Bench()
    bench.run(10)
    bench.loop.finish()
    assert [tick for tick, _ in bench.notebook.began] == list(range(10))
    intervals = [record.interval_ticks for record in bench.notebook.ticks]
    assert intervals == [-1, -1, -1, -1, 1, 1, 1, 1, 1, 1]
    assert {row.header.tick - row.header.obs_tick for row in bench.workers.published[3:]} == {3}
    outcomes = [resolution.outcome for resolution in bench.notebook.jobs]
    assert outcomes == [Outcome.ON_TIME] * 7 + [Outcome.UNFINISHED] * 3


# -- time --------------------------------------------------------------------------------------------------------


def test_an_overrun_skips_whole_ticks_and_leaves_the_grid_where_it_was():
    bench = Bench(slow={0: 25_000_000})
    workers = bench.run(7)
    # The step of tick 3 ends at 55 ms: tick 4 is gone, tick 5 is late, tick 6 is on the grid again.
    assert [row.header.tick for row in workers.published] == [0, 1, 2, 3, 5, 6, 7]
    assert [row.header.skipped_ticks for row in workers.published] == [0, 0, 0, 0, 1, 0, 0]
    assert [row.header.start_ns // 1_000_000 for row in workers.published] == [0, 10, 20, 30, 55, 60, 70]
    assert all(row.header.deadline_ns == row.header.tick * TICK_NS for row in workers.published)


def test_a_step_that_is_slow_by_less_than_a_tick_skips_nothing():
    workers = Bench(slow={0: 14_000_000}).run(7)
    assert [row.header.tick for row in workers.published] == list(range(7))
    assert workers.published[4].header.start_ns == 44_000_000


def test_stretching_skips_nothing_and_puts_off_every_later_tick():
    workers = Bench(slow={0: 25_000_000}, overrun="stretch").run(7)
    # The step of tick 3 ends at 55 ms: tick 4 is due then, and tick 5 a period later.
    assert [row.header.tick for row in workers.published] == list(range(7))
    assert {row.header.skipped_ticks for row in workers.published} == {0}
    deadlines_ms = [row.header.deadline_ns // 1_000_000 for row in workers.published]
    assert deadlines_ms == [0, 10, 20, 30, 55, 65, 75]
    assert all(row.header.start_ns == row.header.deadline_ns for row in workers.published)


def test_the_schedule_counts_inference_times_in_ticks_that_were_stretched():
    """Workers take 30 ms: three ticks, fewer where one of them was stretched."""
    bench = Bench(slow={2: 25_000_000, 6: 14_000_000}, overrun="stretch")
    taus_ns, complete = {}, bench.schedule.complete
    times = iter(range(100))
    bench.schedule.complete = lambda worker, tau_ns: (taus_ns.update({next(times): tau_ns}), complete(worker, tau_ns))
    bench.run(14)
    # Tick 6 is due at 75 ms, and not at 60: of the jobs of ticks 3 to 5, answered at 60, 70 and 80, the second
    # one saw 10 ms of that pass by, the third one all of it.
    assert [taus_ns[tick] // 1_000_000 for tick in range(9)] == [30, 30, 30, 30, 20, 15, 30, 30, 26]


def test_a_world_that_is_always_slower_than_its_tick_needs_no_longer_delay_when_it_is_stretched():
    """Steps take 50 ms of a tick of 10 ms, inferences 30 ms: each answer is there before the next tick.

    But for the first of an episode: the reset takes no time, so that the answer is there a tick later.
    """
    bench = Bench(slow=dict.fromkeys(range(600), 50_000_000), on_reset="run", overrun="stretch")
    bench.run(500)
    assert bench.schedule.delay_ticks == 2
    assert set(bench.workers.kinds[50:]) == {ACTED, RESET, LEAD_IN}
    assert bench.clock.now_ns() > 450 * 50_000_000


def test_an_answer_that_is_late_for_a_stretched_tick_waited_only_since_it_was_there():
    """Tick 3 is due at 30 ms, its answer there at 31 ms, and the ticks after it are put off by 25 ms."""
    bench = Bench(workers=1, tau_ticks=3.1, on_reset="run", slow={2: 35_000_000}, overrun="stretch")
    bench.run(5)
    record = bench.notebook.ticks[4]
    offer = record.decision.offer
    assert (offer.due_tick, record.decision.first_use) == (3, True)
    assert (record.due_deadline_ns, offer.answer.write_ns) == (30_000_000, 31_000_000)
    assert record.plan.deadline_ns == 65_000_000


def counted(schedule):
    return StatsRecorder(Books.private(lambda fields: None), schedule, TICK_NS)


def test_overruns_of_resets_are_counted_apart_from_those_of_steps():
    bench = Bench(slow={1: 14_000_000, 3: 25_000_000}, slow_resets={1: 31_000_000}, limit=4, recorder=counted)
    bench.run(16)
    counters = bench.loop.recorder._counters
    assert (counters["reset"], counters["reset_overruns"], counters["overruns"]) == (3, 1, 2)
    assert counters["ticks"] + counters["skipped_ticks"] == bench.loop.tick + 1
    assert (counters["stretched_ticks"], counters["stretched_ns"]) == (0, 0)


def test_what_is_stretched_is_counted():
    slow = {"slow": {1: 14_000_000, 3: 25_000_000}, "slow_resets": {1: 31_000_000}}
    bench = Bench(**slow, limit=4, overrun="stretch", recorder=counted)
    bench.run(16)
    counters = bench.loop.recorder._counters
    assert (counters["ticks"], counters["skipped_ticks"], bench.loop.tick) == (16, 0, 15)
    assert (counters["overruns"], counters["reset_overruns"], counters["stretched_ticks"]) == (2, 1, 3)
    assert counters["stretched_ns"] == 4_000_000 + 15_000_000 + 21_000_000


# -- membership --------------------------------------------------------------------------------------------------


def test_the_job_of_a_worker_that_died_is_lost_and_its_tick_missed():
    bench = Bench(delay=3, workers=1)
    bench.run(1)
    bench.workers.changes = [(0, False)]
    workers = bench.run(4)
    assert bench.notebook.jobs[0].outcome is Outcome.DROPPED_DEAD_WORKER
    assert workers.kinds == [RESET, LEAD_IN, LEAD_IN, MISSED, IDLE]
    workers.changes = [(0, True)]
    bench.run(4)
    assert workers.kinds[5:] == [IDLE, IDLE, IDLE, ACTED]


# -- known defects -----------------------------------------------------------------------------------------------


def test_the_header_of_a_late_chunk_agrees_with_its_jobs_outcome():
    bench = Bench(delay=3, workers=1, tau_ticks=4, chunk=4)
    row = bench.run(5).published[4].header
    assert bench.notebook.jobs[0].outcome is Outcome.LATE
    assert (row.kind, row.chunk_index, row.outcome) == (ACTED, 1, int(Outcome.LATE))


def test_the_first_use_of_a_late_chunk_is_a_first_use():
    bench = Bench(delay=3, workers=1, tau_ticks=4, chunk=4)
    bench.run(5)
    assert bench.notebook.ticks[4].decision.first_use


def test_every_source_that_no_kind_of_tick_tells_has_a_counter_of_its_own():
    assert set(SOURCE_COUNTERS) == {source for source in Source if source > Source.HELD}
    assert set(SOURCE_COUNTERS.values()) <= set(ENV_COUNTERS.fields)
