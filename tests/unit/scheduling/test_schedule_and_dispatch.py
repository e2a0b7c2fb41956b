"""Schedule and dispatcher together, against everything that can happen to them, on virtual ticks."""

from collections import Counter, defaultdict
from fractions import Fraction
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.scheduling.dispatch import Dispatcher, Known, Offer, Outcome, TickKind
from rtcore.scheduling.jobs import Answer, Job
from rtcore.scheduling.schedule import STAGGERS, Schedule, ScheduleParams
from tests.support.drawn import examples

pytestmark = pytest.mark.unit

TICK_NS = 1_000_000_000
NUM_WORKERS = 4
NEVER = 10**9


class Applied(NamedTuple):
    tick: int
    offer: Offer
    chunk_index: int
    episode: int


def of_job(row):
    return row.worker, row.booked_tick


class Driver:
    """What the tick loop does, without its world and its clock. Checks at each tick what must always hold."""

    def __init__(
        self,
        stagger,
        delay,
        *,
        workers=NUM_WORKERS,
        on_late="apply",
        chunk=1,
        chunk_from="due",
        tau_estimate="quantile",
        head=False,
    ):
        params = ScheduleParams(
            stagger, Fraction(1), delay, delay * TICK_NS, 0, tau_estimate, chunk=chunk, chunk_from=chunk_from
        )
        self.schedule = Schedule(params, workers)
        self.head = workers if head else -1
        self.dispatcher = Dispatcher(on_late, chunk_ticks=chunk, chunk_from=chunk_from, holds=False, head=self.head)
        self.features_tick = -1
        self.chunk, self.chunk_from = chunk, chunk_from
        self.up = set(range(workers))
        self.out = {}
        self.booked = []
        self.kinds = {}
        self.applied = []
        self.committed = []
        self.used_features = {}

    def run_tick(self, tick, tau, *, lag=0, dies=None, returns=None, resets=False, abstained=0):
        """`tau`: ticks the jobs booked now take (None: for ever); `lag`: how much newer a frame they may use, or how
        long the head takes; `abstained`: the answers found now hold no action."""
        for worker, (ready, job, episode) in sorted(self.out.items(), key=lambda item: item[1][:1]):
            if ready <= tick:
                del self.out[worker]
                if worker != self.head:
                    self.schedule.complete(worker, (ready - job.obs_tick) * TICK_NS)
                used = max(job.obs_tick if job.hold else min(job.obs_tick + lag, tick - 1), job.obs_tick)
                if worker != self.head and not abstained and episode == self.dispatcher.episode:
                    self.features_tick = max(self.features_tick, used)
                answer = Answer(obs_tick=used, episode=episode, abstained=abstained)
                self.dispatcher.offer(job, answer, tick)
        self._change_membership(tick, dies, returns)
        if resets:
            self.dispatcher.new_episode(tick)
            self.features_tick = -1
            self.kinds[tick] = TickKind.RESET
        else:
            self._decide(tick)
        jobs = self.schedule.book(tick)
        for job in jobs:
            assert job.worker in self.up, "a dead worker gets no job"
            assert job.worker not in self.out, "a worker holds one job at most"
            assert job.obs_tick == tick < job.due_tick
            self.dispatcher.expect(job)
            self.out[job.worker] = (NEVER if tau is None else tick + tau, job, self.dispatcher.episode)
            self.booked.append(job)
        if self.head >= 0 and self.features_tick >= 0 and self.head not in self.out:
            job = Job(self.head, tick, tick + 1, True)
            self.dispatcher.expect(job)
            self.used_features[job.obs_tick] = self.features_tick
            self.out[self.head] = (tick + 1 + lag, job, self.dispatcher.episode)
            self.booked.append(job)
        # After all of a tick's bookings, as the loop does: its other jobs are under way as well.
        for job in jobs:
            told = self.dispatcher.committed(job, tick)
            if self.head < 0:
                assert told == self.dispatcher._committed_in_general(job, tick), "the usual case is no other"
            self.committed.append((job, told))
        self.schedule.adapt()

    def _change_membership(self, tick, dies, returns):
        if dies in self.up:
            self.up.discard(dies)
            lost = self.schedule.worker_down(dies)
            held = self.out.pop(dies, None)
            assert lost == (held[1] if held else None)
            if lost is not None:
                self.dispatcher.lose(lost, tick)
        if returns is not None and returns not in self.up:
            self.up.add(returns)
            self.schedule.worker_up(returns)

    def _decide(self, tick):
        decision = self.dispatcher.decide(tick)
        self.kinds[tick] = decision.kind
        assert (decision.kind is TickKind.ACTED) == (decision.offer is not None)
        if decision.offer is not None:
            episode = self.dispatcher.episode
            self.applied.append(Applied(tick, decision.offer, decision.chunk_index, episode))

    def finish(self, tick):
        self.dispatcher.finish(tick)
        return self


# -- anything may happen -----------------------------------------------------------------------------------------

_workers = st.integers(0, NUM_WORKERS - 1)
_usual = st.just({})
_steps = st.tuples(
    st.sampled_from([1, 1, 1, 1, 2, 5]),
    st.one_of(st.integers(1, 12), st.sampled_from([3, 4, 40, None])),
    st.integers(0, 4),
    st.one_of(
        _usual,
        _usual,
        _usual,
        st.fixed_dictionaries({"dies": _workers}),
        st.fixed_dictionaries({"returns": _workers}),
        st.just({"resets": True}),
        st.just({"abstained": 1}),
        st.fixed_dictionaries({"dies": _workers, "returns": _workers, "resets": st.booleans()}),
    ),
)


@st.composite
def histories(draw):
    """A finished driver after up to a few hundred ticks of anything."""
    chunk_from, delay = draw(st.sampled_from(["due", "due", "frame"])), draw(st.integers(1, 8))
    driver = Driver(
        draw(st.sampled_from(STAGGERS)),
        delay,
        on_late=draw(st.sampled_from(["apply", "drop"])),
        chunk=draw(st.integers(1, 5)) + (delay - 1 if chunk_from == "frame" else 0),
        chunk_from=chunk_from,
        tau_estimate=draw(st.sampled_from(["quantile", "ratchet"])),
        head=draw(st.booleans()),
    )
    tick = 0
    for advance, tau, lag, event in draw(st.lists(_steps, min_size=20, max_size=150)):
        driver.run_tick(tick, tau, lag=lag, **event)
        tick += advance
    return driver.finish(tick)


@examples(150)
@given(histories())
def test_whatever_happens_the_books_balance_and_no_action_is_out_of_place(driver):
    dispatcher = driver.dispatcher
    # Every job ends in exactly one outcome.
    assert sum(dispatcher.outcomes) == len(driver.booked)
    assert Counter(map(of_job, dispatcher.ended)) == Counter((job.worker, job.obs_tick) for job in driver.booked)
    assert Counter(row.outcome for row in dispatcher.ended) == {
        outcome: count for outcome, count in zip(Outcome, dispatcher.outcomes, strict=True) if count
    }
    newest = defaultdict(lambda: -1)
    used = set()
    for tick, offer, index, episode in driver.applied:
        answer, due_tick = offer.answer, offer.due_tick
        # An older observation never governs after a newer one, an old episode never a new one. A head stands aside.
        of_head = offer.job.worker == driver.head
        assert answer.obs_tick >= newest[episode, of_head]
        newest[episode, of_head] = answer.obs_tick
        assert answer.episode == episode
        # Held actions wait for their due tick; the index keeps time with it.
        assert answer.obs_tick < tick
        assert due_tick == offer.job.due_tick or not offer.job.hold
        assert due_tick <= tick
        first_tick = answer.obs_tick + 1 if driver.chunk_from == "frame" and not of_head else due_tick
        assert index == (0 if of_head else min(tick - first_tick, driver.chunk - 1))
        used.add((offer.job.worker, offer.job.obs_tick))
    # What was counted as applied was applied, and nothing else was.
    assert used == {of_job(row) for row in dispatcher.ended if row.outcome in (Outcome.ON_TIME, Outcome.LATE)}
    for row in dispatcher.ended:
        if row.outcome is Outcome.ON_TIME and row.hold:
            assert row.tick == row.due_tick
    # Whose features the head used, and whose action did not act, ended as such, and nobody else.
    by_head = {driver.used_features[job] for worker, job in used if worker == driver.head}
    trunk = [row for row in dispatcher.ended if row.worker != driver.head and row.outcome is not Outcome.UNFINISHED]
    unused = {row.obs_tick for row in trunk if row.outcome not in (Outcome.ON_TIME, Outcome.LATE)}
    all_so = [row.obs_tick for row in trunk if row.outcome is Outcome.FEATURES_USED]
    ended_so = set(all_so)
    assert ended_so <= by_head and len(all_so) == len(ended_so)
    if driver.schedule.params.stagger == "max-time":  # there a frame is of one job
        assert ended_so == by_head & unused


@examples(150)
@given(histories())
def test_what_a_job_was_told_of_the_ticks_before_its_own_came_true_unless_a_newer_decision_replaced_it(driver):
    applied_at = {applied.tick: applied for applied in driver.applied}
    for job, pieces in driver.committed:
        of_tick = [
            (tick, piece) for piece in pieces for tick in range(piece.first_tick, piece.first_tick + piece.num_ticks)
        ]
        told = dict(of_tick)
        assert [tick for tick, _ in of_tick] == sorted(told), "in order, each tick once"
        assert all(job.obs_tick < tick < job.due_tick for tick in told)
        for tick in range(job.obs_tick + 1, job.due_tick):
            kind = driver.kinds.get(tick, TickKind.RESET)
            if kind is TickKind.RESET:
                break  # skipped, beyond the end, or another episode: nothing was said of what follows
            offer, piece = applied_at[tick].offer if tick in applied_at else None, told.get(tick)
            if offer is not None and offer.job == job:
                break  # without hold it may come before its due tick
            if piece is None:
                continue
            index = applied_at[tick].chunk_index if tick in applied_at else 0
            came_true = (offer and offer.answer, index) == (
                piece.answer,
                piece.chunk_index + tick - piece.first_tick if piece.answer else 0,
            )
            if piece.known is Known.HELD:
                came_true = came_true and kind is TickKind.LEAD_IN
            # Where actions do not wait for their tick, a job that was booked later may be quicker than this one.
            is_newer = offer is not None and (piece.answer is None or offer.answer.obs_tick >= piece.answer.obs_tick)
            if not came_true and not job.hold and is_newer:
                break
            assert came_true or (piece.known is Known.PLAN and is_newer), (job, piece)


@examples(60)
@given(histories())
def test_drop_never_applies_what_is_past_and_apply_never_drops(driver):
    dropped = driver.dispatcher.outcomes[Outcome.DROPPED_LATE]
    if driver.dispatcher._on_late == "apply":
        assert dropped == 0
    else:
        ticks = {driver.head: 1}
        assert all(
            tick < offer.first_tick + ticks.get(offer.job.worker, driver.chunk) for tick, offer, _, _ in driver.applied
        )


EVENTS = {
    50: {"abstained": 1},
    60: {"dies": 0},
    61: {"dies": 1},
    80: {"returns": 0},
    81: {"returns": 1},
    120: {"resets": True},
}


def test_every_outcome_is_within_reach_of_the_driver():
    """So that the properties above are about something."""
    seen = Counter()
    for on_late, head in (("apply", False), ("drop", False), ("apply", True)):
        # A start every second tick; now and then an answer is late by one (applied) or by three (superseded).
        driver = Driver("max-time", 4, workers=3, on_late=on_late, head=head)
        for tick in range(200):
            event = EVENTS.get(tick, {})
            driver.run_tick(tick, {20: 5, 21: 5, 40: 7, 41: 7}.get(tick, 4), **event)
        driver.finish(200)
        seen += Counter({o: n for o, n in zip(Outcome, driver.dispatcher.outcomes, strict=True) if n})
    # Its policy answers each time, and has no head.
    assert set(seen) == set(Outcome)


def test_with_n_workers_on_time_nothing_is_known_at_booking_but_what_has_come():
    """Staggered single actions: whatever lies between is still being computed. A chunk's plan is there."""
    for chunk, expected in ((1, []), (8, [(Known.PLAN, 3)])):
        driver = Driver("max-time", 4, workers=4, chunk=chunk)
        for tick in range(40):
            driver.run_tick(tick, 4)
        for _, pieces in driver.committed[8:]:
            assert [(piece.known, piece.num_ticks) for piece in pieces] == expected


def test_a_chunk_that_is_replaced_every_delay_knows_all_its_prefix():
    """Real-time chunking: one worker, a start when the last chunk came, a chunk that is longer than the delay."""
    driver = Driver("max-time", 4, workers=1, chunk=8)
    for tick in range(40):
        driver.run_tick(tick, 4)
    told = [[(piece.known, piece.num_ticks, piece.chunk_index) for piece in pieces] for _, pieces in driver.committed]
    assert told == [[(Known.HELD, 3, 0)]] + [[(Known.FACT, 3, 1)]] * 9


# -- constant times: exactly as planned --------------------------------------------------------------------------


@examples(60)
@given(delay=st.integers(1, 10), spare=st.integers(0, 3), early=st.integers(0, 3))
def test_max_time_with_n_at_least_d_acts_at_every_tick_with_the_same_delay(delay, spare, early):
    driver = Driver("max-time", delay, workers=delay + spare)
    for tick in range(60):
        driver.run_tick(tick, max(1, delay - early))
    assert [driver.kinds[tick] for tick in range(60)] == [TickKind.LEAD_IN] * delay + [TickKind.ACTED] * (60 - delay)
    assert {applied.tick - applied.offer.answer.obs_tick for applied in driver.applied} == {delay}
    driver.finish(60)
    assert driver.dispatcher.outcomes[Outcome.ON_TIME] == 60 - delay
    assert driver.dispatcher.outcomes[Outcome.UNFINISHED] == delay


@examples(60)
@given(delay=st.integers(2, 30), data=st.data())
def test_max_time_with_n_below_d_acts_every_ceil_d_by_n_ticks(delay, data):
    workers = data.draw(st.integers(1, delay - 1))
    driver = Driver("max-time", delay, workers=workers)
    for tick in range(8 * delay):
        driver.run_tick(tick, delay)
    acted = [applied.tick for applied in driver.applied]
    assert acted[0] == delay
    assert {b - a for a, b in zip(acted, acted[1:], strict=False)} == {-(-delay // workers)}
    between = [kind for tick, kind in driver.kinds.items() if tick >= delay and tick not in acted]
    assert set(between) <= {TickKind.IDLE}


@examples(60)
@given(tau=st.integers(1, 20), workers=st.integers(1, 8))
def test_expected_time_acts_every_ceil_mean_by_n_ticks(tau, workers):
    driver = Driver("expected-time", tau, workers=workers)
    for tick in range(8 * tau):
        driver.run_tick(tick, tau)
    acted = [applied.tick for applied in driver.applied]
    assert {b - a for a, b in zip(acted, acted[1:], strict=False)} == {-(-tau // workers)}
    assert {applied.tick - applied.offer.answer.obs_tick for applied in driver.applied} == {tau}


@examples(40)
@given(tau=st.integers(1, 20))
def test_sequential_acts_every_tau_and_free_running_no_more_often_than_that(tau):
    for stagger in ("sequential", "free-running"):
        driver = Driver(stagger, tau, workers=3)
        for tick in range(8 * tau):
            driver.run_tick(tick, tau)
        acted = [applied.tick for applied in driver.applied]
        assert {b - a for a, b in zip(acted, acted[1:], strict=False)} == {tau}


def test_a_chunk_as_long_as_the_stride_leaves_no_tick_without_action():
    driver = Driver("max-time", 12, workers=3, chunk=4)
    for tick in range(100):
        driver.run_tick(tick, 12)
    assert {driver.kinds[tick] for tick in range(12, 100)} == {TickKind.ACTED}
    assert [applied.chunk_index for applied in driver.applied[:8]] == [0, 1, 2, 3, 0, 1, 2, 3]


def test_a_death_costs_the_ticks_its_worker_was_booked_for_and_no_others():
    driver = Driver("max-time", 4, workers=6)
    for tick in range(60):
        driver.run_tick(tick, 4, dies=0 if tick == 30 else None)
    lost = [row for row in driver.dispatcher.ended if row.outcome is Outcome.DROPPED_DEAD_WORKER]
    missed = [tick for tick, kind in driver.kinds.items() if kind is TickKind.MISSED]
    assert missed == [job.due_tick for job in lost]
    assert all(driver.kinds[tick] is TickKind.ACTED for tick in range(34, 60))
