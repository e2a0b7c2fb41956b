"""Histories and n-step returns of sampled transitions, against an oracle that sees all ticks of the run at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from rtcore.config.run import make_config
from rtcore.errors import ConfigError
from rtcore.learn.replay_memory import TransitionReader
from rtcore.learn.transitions import TransitionBuilder
from rtcore.memory.history import History, HistoryReader
from rtcore.memory.ring import FrameRing
from rtcore.scheduling.dispatch import Source, TickKind
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore.torture.decisions import oracle
from rtcore.virtual.simulate import Simulation
from tests.support.decisions import record_of, runs
from tests.support.drawn import examples

pytestmark = pytest.mark.unit

GAMMA = 0.9
FRAME = ObservationSpec.from_space(spaces.Box(-(2**31), 2**31 - 1, (3,), np.int32))
ACTION = ActionSpec.from_space(spaces.Box(-(2**40), 2**40, (2,), np.int64))
NO_OP = np.array([7, -7])


def action_at(header):
    """Which action governed a tick: another one for each, so that a wrong one shows."""
    if header.source == Source.HELD:
        return NO_OP
    return np.array([1000 + header.tick, header.obs_tick if header.kind == TickKind.ACTED else -1])


def ticks_of(run, skips):
    """(header, action) of each tick of a simulated run, some tick numbers skipped as a late env process does."""
    rows = record_of(**{**run, "chunk": 1})
    gaps = sorted(skips)

    def later(tick):
        return tick + sum(gap <= tick for gap in gaps) if tick >= 0 else tick

    moved = [
        header._replace(tick=later(header.tick), obs_tick=later(header.obs_tick), due_tick=later(header.due_tick))
        for header, _ in rows
    ]
    return [(header, action_at(header)) for header in moved]


@dataclass
class Run:
    """A ring being written and read, tick by tick."""

    rows: list
    history: History
    ring_slots: int
    ring: FrameRing = field(init=False)
    reader: TransitionReader = field(init=False)

    def __post_init__(self):
        self.ring = FrameRing.private(FRAME, ACTION.nbytes, self.ring_slots)
        self.reader = TransitionReader(self.ring, ACTION, 0, TransitionBuilder(GAMMA), 0, self.history)

    def publish(self, header, action):
        assert self.ring.publish(frame_of(header.frame_seq), header, action.tobytes()) == header.frame_seq


class Digests:
    """A digest that keeps everything, and tells of which frames it was asked."""

    def __init__(self):
        self.seen = []

    def of(self, frames):
        self.seen += [int(seq) for seq in frames[:, 0] if seq]  # all zero: only asked what a digest looks like
        return frames.copy()


def frame_of(seq):
    return np.array([seq, 3 * seq, -seq], np.int32)


def expected_stack(rows, seq, history):
    """Frames and past actions that go with frame `seq`, from the definition."""
    episode = [row for row in rows if row[0].episode == rows[seq][0].episode]
    place = [header.frame_seq for header, _ in episode].index(seq)
    older = range(history.obs_history * history.obs_every, -1, -history.obs_every)
    frames = [episode[max(0, place - back)][0].frame_seq for back in older]
    actions = []
    for back in range(history.act_history - 1, -1, -1):
        header, action = episode[place - back] if place >= back else (None, NO_OP)
        actions.append(NO_OP if header is None or header.source == Source.HELD else action)
    return np.array([frame_of(each) for each in frames]), np.array(actions)


def chains_of(rows):
    """Of each complete decision, by its tick: itself and all complete ones that followed in its episode."""
    plain = [(header, action.tobytes()) for header, action in rows]
    by_tick = {}
    for _, group in groupby(oracle(plain, GAMMA, True), key=lambda each: each["episode"]):
        episode = list(group)
        for place, each in enumerate(episode):
            by_tick[each["tick"]] = episode[place:]
    return by_tick


def check_batch(batch, rows, history, n_step, *, lossless):
    chains = chains_of(rows)
    for row in range(len(batch.tick)):
        chain = chains[int(batch.tick[row])]
        num = int(batch.num_decisions[row])
        assert num == min(n_step, len(chain)) if lossless else 1 <= num <= min(n_step, len(chain))
        chain = chain[:num]
        reward, discount = 0.0, 1.0
        for each in chain:
            reward += discount * each["reward"]
            discount *= each["discount"]
        assert batch.reward[row] == pytest.approx(reward, rel=1e-5, abs=1e-6)
        assert batch.discount[row] == pytest.approx(discount, rel=1e-5)
        assert batch.num_ticks[row] == sum(each["num_ticks"] for each in chain)
        flags = bool(batch.terminated[row]), bool(batch.truncated[row])
        assert flags == (chain[-1]["terminated"], chain[-1]["truncated"])
        assert (batch.action[row] == np.frombuffer(chain[0]["action"], np.int64)).all()
        assert batch.delay_ticks[row] == chain[0]["delay_ticks"]
        assert batch.worker[row] == chain[0]["worker"]
        seqs = chain[0]["obs_seq"], chain[-1]["next_obs_seq"]
        if not lossless and chain[-1]["truncated"]:
            # What it would have seen is not known for certain after a gap: any later frame of the episode is right.
            seqs = seqs[0], int(batch.next_obs.reshape(len(batch.tick), -1, 3)[row, -1, 0])
            assert rows[seqs[1]][0].episode == rows[seqs[0]][0].episode
        seen = zip(seqs, (batch.obs, batch.next_obs), (batch.past_actions, batch.next_past_actions), strict=True)
        for seq, stack, past in seen:
            frames, actions = expected_stack(rows, seq, history)
            assert (stack[row] == (frames if history.obs_history else frames[0])).all()
            assert (past is None) == (history.act_history == 0)
            assert past is None or (past[row] == actions).all()


histories = st.builds(
    History, obs_history=st.integers(0, 4), act_history=st.integers(0, 5), obs_every=st.integers(1, 2)
)


@examples(60)
@given(runs, st.sets(st.integers(1, 199), max_size=4), histories, st.integers(1, 5), st.integers(1, 7))
def test_batches_hold_what_each_decision_saw_and_n_steps_of_what_followed(run, skips, history, n_step, every):
    rows = ticks_of(run, skips)
    under_way = Run(rows, history, ring_slots=64)
    digests = Digests()
    if every % 2:
        under_way.reader.digest_with(digests.of)
    rng = np.random.default_rng(run["seed"])
    for count, row in enumerate(rows, start=1):
        under_way.publish(*row)
        if count % every == 0 or count == len(rows):
            under_way.reader.update()
            if len(under_way.reader) and (count % 17 == 0 or count == len(rows)):
                batch = under_way.reader.sample(24, rng, n_step=n_step)
                check_batch(batch, rows[:count], history, n_step, lossless=True)
    assert len(digests.seen) == len(set(digests.seen)), "each frame is digested once"
    assert under_way.reader.counts.lost_decisions <= len({header.episode for header, _ in rows})
    assert under_way.reader.counts.lost_ticks == 0


@examples(60)
@given(runs, histories, st.integers(1, 4), st.lists(st.integers(1, 120), min_size=2, max_size=8))
def test_a_reader_that_was_away_never_samples_across_what_it_lost(run, history, n_step, absences):
    rows = ticks_of(run, ())
    under_way = Run(rows, history, ring_slots=24)
    if n_step % 2:
        under_way.reader.digest_with(Digests().of)
    rng, count = np.random.default_rng(1), 0
    for absence in absences:
        for row in rows[count : count + absence]:
            under_way.publish(*row)
        count = min(count + absence, len(rows))
        under_way.reader.update()
        if len(under_way.reader):
            batch = under_way.reader.sample(16, rng, n_step=n_step)
            check_batch(batch, rows[:count], history, n_step, lossless=False)
    if max(absences[1:], default=0) > 24 + 12 and count < len(rows):
        assert under_way.reader.counts.lost_ticks > 0


@examples(60)
@given(runs, histories)
def test_what_a_worker_is_given_is_what_a_learner_samples(run, history):
    rows = ticks_of(run, ())
    under_way = Run(rows, history, ring_slots=256)
    stacked = history.stacked(FRAME)
    observation, past = np.zeros(stacked.shape, stacked.np_dtype), history.empty_past_actions(ACTION)
    worker = HistoryReader(under_way.ring, history, observation, past)
    acted_on = {}
    for header, action in rows:
        under_way.publish(header, action)
        assert worker.read(header.frame_seq).tick == header.tick
        acted_on[header.frame_seq] = observation.copy(), None if past is None else past.copy()
    under_way.reader.update()
    if not len(under_way.reader):
        return
    batch = under_way.reader.sample(40, np.random.default_rng(2))
    newest = batch.obs[:, -1] if history.obs_history else batch.obs
    for row, seq in enumerate(newest[:, 0].tolist()):
        frames, actions = acted_on[seq]
        assert (batch.obs[row] == frames).all()
        assert actions is None or (batch.past_actions[row] == actions).all()


class Lapping(FrameRing):
    """Its writer comes round while a batch is being copied."""

    publish_more = None

    def gather(self, seqs, out=None):
        copies = super().gather(seqs, out)
        if self.publish_more is not None:
            publish_more, self.publish_more = self.publish_more, None
            publish_more()
        return copies


RUN = {
    "seed": 3,
    "mean_length": 10**9,
    "latency": "constant:35",
    "stagger": "max-time",
    "workers": 4,
    "chunk": 1,
    "on_reset": "hold",
    "changes": [],
    "ticks": 200,
}


def test_rows_that_are_overwritten_while_they_are_copied_are_counted_and_drawn_again():
    rows = ticks_of(RUN, ())
    history = History(2, 2)
    under_way = Run(rows, history, ring_slots=32)
    under_way.ring.__class__ = Lapping
    for row in rows[:60]:
        under_way.publish(*row)
        under_way.reader.update()
    under_way.ring.publish_more = lambda: [under_way.publish(*row) for row in rows[60:75]]
    batch = under_way.reader.sample(64, np.random.default_rng(0), n_step=3)
    assert under_way.reader.lapped_samples > 0
    check_batch(batch, rows[:60], history, 3, lossless=True)
    assert batch.obs[:, 0, 0].min() >= 75 - 32


def test_n_steps_stop_before_a_decision_that_was_lost_though_its_episode_goes_on():
    rows = ticks_of(RUN, ())
    under_way = Run(rows, History(), ring_slots=256)
    for row in rows[:40]:
        under_way.publish(*row)
    under_way.reader.update()
    under_way.reader.builder.skip(0)
    for row in rows[40:80]:
        under_way.publish(*row)
    under_way.reader.update()
    assert under_way.reader.counts.lost_decisions > 1
    batch = under_way.reader.sample(300, np.random.default_rng(0), n_step=4)
    check_batch(batch, rows[:80], History(), 4, lossless=False)
    last_before = batch.tick < 40
    assert batch.num_decisions[last_before].min() == batch.num_decisions[~last_before].min() == 1
    assert batch.num_decisions[last_before].max() == batch.num_decisions[~last_before].max() == 4


def test_memory_of_an_old_batch_is_used_again_where_it_fits():
    rows = ticks_of(RUN, ())
    under_way = Run(rows, History(1, 0), ring_slots=64)
    for row in rows[:50]:
        under_way.publish(*row)
    under_way.reader.update()
    rng = np.random.default_rng(0)
    old = under_way.reader.sample(8, rng)
    batch = under_way.reader.sample(8, rng, reuse=old)
    assert batch.obs is old.obs
    assert batch.next_obs is old.next_obs
    check_batch(batch, rows[:50], under_way.history, 1, lossless=True)
    with pytest.raises(ValueError, match=r"out is \(8, 2, 3\) of int32; expected \(9, 2, 3\)"):
        under_way.reader.sample(9, rng, reuse=old)


def test_a_worker_whose_history_was_overwritten_meanwhile_uses_none_of_it():
    rows = ticks_of(RUN, ())
    under_way = Run(rows, History(4, 0), ring_slots=16)
    observation = np.zeros((5, 3), np.int32)
    worker = HistoryReader(under_way.ring, under_way.history, observation)
    for row in rows[:30]:
        under_way.publish(*row)
    assert worker.read(29) is not None
    assert worker.read(17) is None, "frame 17 is still there, but 13 is not"
    assert worker.read(18) is not None
    assert worker.read(30) is None, "not yet made"


def test_a_history_that_the_ring_cannot_keep_is_refused_with_what_to_do():
    ring = FrameRing.private(FRAME, ACTION.nbytes, 16)
    with pytest.raises(ConfigError, match=r"obs_history=7.*ring_slots=16; expected at most 6.*--ring-slots"):
        TransitionReader(ring, ACTION, 0, TransitionBuilder(), 0, History(7, 0))
    TransitionReader(ring, ACTION, 0, TransitionBuilder(), 0, History(6, 7))
    with pytest.raises(ConfigError, match="must be 0 or more"):
        History(-1, 0)
    with pytest.raises(ConfigError, match="obs_every=0 must be at least 1"):
        History(2, 0, 0)


@pytest.mark.parametrize("seed", range(6))
def test_where_chance_stands_in_for_missing_actions_a_held_world_still_has_the_no_op(seed):
    config = make_config(
        env_id="CartPole-v1",
        fps=50,
        clock="virtual",
        policy="random",
        latency="constant:90",
        on_missing="random",
        ticks=60,
        seed=seed,
    )
    simulation = Simulation(config)
    held = []
    add_tick = simulation.record.add_tick

    def note(header, action, *kept):
        held.extend([int.from_bytes(action, "little")] if header.source == Source.HELD else [])
        add_tick(header, action, *kept)

    simulation.record.add_tick = note
    simulation.run()
    simulation.close()
    assert len(held) > 3
    assert set(held) == {simulation.world.noop}


@pytest.mark.parametrize("batch_size, n_step", [(0, 1), (4, 0)])
def test_an_empty_batch_and_no_step_at_all_are_refused(batch_size, n_step):
    reader = Run([], History(), 16).reader
    with pytest.raises(ValueError, match="both must be at least 1"):
        reader.sample(batch_size, np.random.default_rng(0), n_step=n_step)


def test_frames_of_one_number_and_of_many_axes_stack_alike():
    for shape in ((), (2,), (4, 3, 2)):
        spec = ObservationSpec.from_space(spaces.Box(0, 255, shape, np.uint8))
        stacked = History(2, 0).stacked(spec)
        assert stacked.shape == (3, *shape)
        assert stacked.to_space().contains(np.zeros((3, *shape), np.uint8))
    uneven = ObservationSpec.from_space(spaces.Box(np.array([0.0, -1.0]), np.array([1.0, 5.0]), dtype=np.float64))
    assert History(1, 0).stacked(uneven).low_array.tolist() == [[0.0, -1.0], [0.0, -1.0]]
    assert History(0, 3).stacked(uneven) is uneven
