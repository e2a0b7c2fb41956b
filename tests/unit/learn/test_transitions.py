"""Transitions of the delayed semi-MDP, against a slow oracle that sees whole episodes at once."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from rtcore.learn.replay_memory import TransitionReader
from rtcore.learn.ticks import TickReader
from rtcore.learn.transitions import TransitionBuilder
from rtcore.memory.layout import FRAME_HEADER, FrameHeader, Layout
from rtcore.memory.ring import FrameRing, SequenceRing
from rtcore.scheduling.dispatch import TickKind
from rtcore.spaces import ActionSpec, Block, ObservationSpec
from rtcore.torture.decisions import oracle
from tests.support.decisions import record_of, runs
from tests.support.drawn import examples

pytestmark = pytest.mark.unit


@examples(120)
@given(runs, st.sampled_from([0.0, 0.9, 1.0]), st.booleans(), st.booleans())
def test_every_decision_is_the_one_of_the_oracle(run, gamma, discount_rewards, chunks):
    rows = record_of(**run)
    builder = TransitionBuilder(gamma, discount_rewards, chunks=chunks)
    got = [transition for header, action in rows for transition in builder.feed(header, action)]
    expected = oracle(rows, gamma, discount_rewards, chunks=chunks)
    assert [dict(t._asdict(), reward=0, discount=0) for t in got] == [dict(t, reward=0, discount=0) for t in expected]
    assert [t.reward for t in got] == pytest.approx([t["reward"] for t in expected])
    assert [t.discount for t in got] == pytest.approx([t["discount"] for t in expected])


@examples(60)
@given(runs)
def test_every_tick_of_an_ended_episode_has_one_owner_or_is_counted(run):
    rows = record_of(**run)
    builder = TransitionBuilder(1.0)
    got = [transition for header, action in rows for transition in builder.feed(header, action)]
    open_ticks = builder._open.num_ticks if builder._open is not None else 0
    stepped = sum(header.kind != TickKind.RESET for header, _ in rows)
    assert sum(t.num_ticks for t in got) + builder.counts.unowned_ticks + open_ticks == stepped
    owned = sum(t.reward for t in got) + builder.counts.unowned_reward + (builder._open.reward if open_ticks else 0)
    assert owned == pytest.approx(sum(header.reward for header, _ in rows))
    assert builder.counts.transitions == len(got)


@examples(60)
@given(runs, st.data())
def test_after_a_gap_only_whole_transitions_come(run, data):
    """What was lost is counted; whatever comes out is what the oracle says, or does not come out."""
    rows = record_of(**run)
    first = data.draw(st.integers(1, len(rows) - 2))
    length = data.draw(st.integers(1, len(rows) - first - 1))
    builder = TransitionBuilder(0.9)
    got = [transition for header, action in rows[:first] for transition in builder.feed(header, action)]
    builder.skip(length)
    got += [transition for header, action in rows[first + length :] for transition in builder.feed(header, action)]
    by_tick = {t["tick"]: t for t in oracle(rows, 0.9, True)}
    for transition in got:
        expected = by_tick[transition.tick]
        assert transition.num_ticks == expected["num_ticks"]
        assert transition.obs_seq == expected["obs_seq"]
        assert transition.reward == pytest.approx(expected["reward"])
        if not transition.truncated:
            assert transition.next_obs_seq == expected["next_obs_seq"]
    assert builder.counts.lost_ticks == length


def test_a_gamma_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"gamma=1\.5 must be between 0 and 1"):
        TransitionBuilder(1.5)


# -- the ring as the replay memory -------------------------------------------------------------------------------

ACTION = ActionSpec.from_space(spaces.Box(-1, 1, (2,), np.float32))


def new_ring(num_slots):
    layout = Layout(1, num_slots, 2, 16, ACTION.nbytes, 1)
    buffer = memoryview(bytearray(layout.ring_bytes))
    SequenceRing.over(buffer, layout.ring_control_at, num_slots).format()
    return [FrameRing(buffer, layout, (4,), "<i4") for _ in range(2)]


def header_at(tick, *, episode=0, kind=TickKind.ACTED, delay=2, terminated=0, phase_seq=3, features_tick=-1):
    fields = dict.fromkeys(FRAME_HEADER.fields, 0) | {
        "tick": tick,
        "episode": episode,
        "kind": int(kind),
        "reward": float(tick),
        "obs_tick": tick - delay,
        "due_tick": tick,
        "terminated": terminated,
        "phase_seq": phase_seq,
        "features_tick": features_tick,
    }
    return FrameHeader(**fields)


def publish(ring, header):
    action = np.array([header.tick / 1000, -header.tick / 1000], np.float32).tobytes()
    ring.publish(np.full(4, header.tick, np.int32), header._replace(frame_seq=ring.next_seq), action)


def episode_kinds(tick):
    return TickKind.RESET if tick == 0 else TickKind.LEAD_IN if tick < 3 else TickKind.ACTED


@pytest.mark.parametrize("every", [1, 3, 7])
def test_a_batch_holds_the_frames_and_the_actions_of_its_decisions_also_when_the_ring_wraps(every):
    writer, ring = new_ring(16)
    reader = TransitionReader(ring, ACTION, 3, TransitionBuilder(0.5))
    rng = np.random.default_rng(0)
    for tick in range(200):
        publish(writer, header_at(tick, kind=episode_kinds(tick)))
        if tick % every == 0:
            reader.update()
        if len(reader):
            batch = reader.sample(8, rng)
            assert batch.obs.shape == batch.next_obs.shape == (8, 4)
            assert (batch.obs == (batch.tick - 2)[:, None]).all()
            assert (batch.next_obs == (batch.tick - 1)[:, None]).all()
            assert batch.action == pytest.approx(np.stack([batch.tick / 1000, -batch.tick / 1000], axis=1))
            assert (batch.reward == batch.tick).all()
            assert (batch.discount == 0.5).all()
            assert batch.tick.min() >= tick - 16
    assert reader.counts.lost_ticks == 0
    assert len(reader) <= 16


def two_speeds_at(tick):
    """A head's action from features that are 2 or 3 ticks older than its frame; at every 5th tick the trunk's own."""
    kind = TickKind.RESET if tick == 0 else TickKind.LEAD_IN if tick < 6 else TickKind.ACTED
    if tick % 5 == 0:
        return header_at(tick, kind=kind, delay=4)
    return header_at(tick, kind=kind, delay=1, features_tick=tick - 1 - age_at(tick))


def age_at(tick):
    return np.where(tick % 5 == 0, -1, 2 + tick % 2)


def test_a_batch_of_two_speeds_holds_both_frames_and_what_was_applied_between_them():
    writer, ring = new_ring(16)
    reader = TransitionReader(ring, ACTION, 3, TransitionBuilder(0.5), since_ticks=4)
    rng = np.random.default_rng(0)
    for tick in range(100):
        publish(writer, two_speeds_at(tick))
        reader.update()
        if not len(reader):
            continue
        batch = reader.sample(8, rng, n_step=1 + tick % 2)
        for ticks, what in ((batch.tick, ""), (batch.tick + batch.num_ticks, "next_")):
            obs, age = getattr(batch, f"{what}obs"), age_at(ticks)
            assert (obs[:, 0] == ticks - np.where(age < 0, 4, 1)).all()
            assert (getattr(batch, f"{what}features_age") == age).all()
            assert (getattr(batch, f"{what}trunk_obs") == obs - np.maximum(age, 0)[:, None]).all()
            since = obs[:, :1] - np.maximum(age, 0)[:, None] + np.arange(1, 5)
            expected = np.where(since <= obs[:, :1], since, 0) / 1000
            assert getattr(batch, f"{what}actions_since") == pytest.approx(np.stack([expected, -expected], axis=2))
    assert reader.counts.lost_ticks == 0
    assert set(batch.features_age.tolist()) <= {-1, 2, 3}


def test_ticks_that_were_not_run_have_their_place_among_the_actions_since():
    """Features of tick 1, ticks 2 and 3 skipped: a head at the frame of tick 5 is told the actions at [2, 3, 4, 5]."""
    writer, ring = new_ring(16)
    reader = TransitionReader(ring, ACTION, 3, TransitionBuilder(0.5), since_ticks=5)
    for tick in (0, 1, 4, 5):
        publish(writer, header_at(tick, kind=TickKind.RESET if tick == 0 else TickKind.LEAD_IN))
    for tick in (6, 7):
        publish(writer, header_at(tick, kind=TickKind.ACTED, delay=1, features_tick=1))
    batch = reader.take(1)
    assert batch is not None and batch.features_age.tolist() == [4]
    assert batch.actions_since[0, :, 0] == pytest.approx([0, 0, 0.004, 0.005, 0])
    assert batch.next_actions_since[0, :, 0] == pytest.approx([0, 0, 0.004, 0.005, 0.006])


def test_a_policy_of_one_speed_has_none_of_it():
    writer, ring = new_ring(16)
    reader = TransitionReader(ring, ACTION, 3, TransitionBuilder(0.5))
    for tick in range(10):
        publish(writer, header_at(tick, kind=episode_kinds(tick)))
    reader.update()
    batch = reader.sample(2, np.random.default_rng(0))
    assert all(getattr(batch, name) is None for name in batch._fields if "trunk" in name or "since" in name)


def test_a_reader_that_was_away_for_a_whole_ring_counts_what_it_lost_and_goes_on():
    writer, ring = new_ring(16)
    reader = TransitionReader(ring, ACTION, 3, TransitionBuilder())
    for tick in range(10):
        publish(writer, header_at(tick, kind=episode_kinds(tick)))
    assert reader.update() == 6
    for tick in range(10, 60):
        publish(writer, header_at(tick))
    assert reader.update() > 0
    assert reader.counts.lost_ticks > 0
    assert reader.counts.lost_decisions > 0
    batch = reader.sample(32, np.random.default_rng(1))
    assert (batch.obs == (batch.tick - 2)[:, None]).all()


def test_frames_of_another_phase_are_not_taken_for_the_run():
    writer, ring = new_ring(16)
    reader = TransitionReader(ring, ACTION, 3, TransitionBuilder())
    for tick in range(8):
        publish(writer, header_at(tick, kind=episode_kinds(tick), phase_seq=2))
    assert reader.update() == 0
    with pytest.raises(ValueError, match="no transition to sample"):
        reader.sample(1, np.random.default_rng(0))


def test_a_terminated_episode_is_marked_and_the_next_one_begins_with_its_own_frames():
    writer, ring = new_ring(32)
    reader = TransitionReader(ring, ACTION, 3, TransitionBuilder())
    for tick in range(8):
        publish(writer, header_at(tick, kind=episode_kinds(tick), terminated=int(tick == 7)))
    for tick in range(8, 16):
        publish(writer, header_at(tick, episode=1, kind=episode_kinds(tick - 8)))
    reader.update()
    batch = reader.sample(200, np.random.default_rng(2))
    ends = batch.terminated
    assert set(batch.tick[ends].tolist()) == {7}
    assert (batch.next_obs[ends] == 7).all()
    assert not (batch.terminated & batch.truncated).any()
    assert set(batch.tick.tolist()) == {3, 4, 5, 6, 7, 11, 12, 13, 14}


def row_bytes(reader, num_slots):
    """Memory for each transition, beside the ring."""
    return sum(array.nbytes for array in vars(reader).values() if isinstance(array, np.ndarray)) / num_slots


def test_a_stored_transition_takes_at_most_a_tenth_more_than_its_frame():
    _, ring = new_ring(16)
    blocks_action = ActionSpec.from_space(spaces.Discrete(7))
    reader = TransitionReader(ring, blocks_action, 3, TransitionBuilder())
    header_bytes = FRAME_HEADER.num_bytes + blocks_action.nbytes
    assert (84 * 84 + header_bytes + row_bytes(reader, 16)) / (84 * 84) <= 1.1


def test_a_row_has_room_for_what_the_policy_needs_and_no_more():
    observation, builder = ObservationSpec.from_space(spaces.Box(-100, 100, (4,), np.int32)), TransitionBuilder()
    kept = Block((("extras.logp", (), "float32"),))
    rings = [FrameRing.private(observation, ACTION.nbytes, 32, block) for block in (Block(), kept)]
    plain, with_extras = (row_bytes(TransitionReader(ring, ACTION, 3, builder), 32) for ring in rings)
    two_speeds = row_bytes(TransitionReader(rings[0], ACTION, 3, builder, since_ticks=4), 32)
    assert (plain, with_extras, two_speeds) == (83 + ACTION.nbytes, plain + 8, plain + 32 + ACTION.nbytes)


# -- in order, and by priority -------------------------------------------------------------------------------------


def test_decisions_are_taken_in_order_each_once_and_what_is_lost_leaves_a_gap_and_is_counted():
    writer, ring = new_ring(32)
    reader = TransitionReader(ring, ACTION, 3, TransitionBuilder(0.5))
    taken, tick = [], 0

    def go_on(count):
        nonlocal tick
        for _ in range(count):
            publish(writer, header_at(tick, kind=episode_kinds(tick)))
            tick += 1

    assert reader.take(4) is None
    for _ in range(10):
        go_on(5)
        while (batch := reader.take(4)) is not None:
            assert (batch.obs == (batch.tick - 2)[:, None]).all()
            taken += batch.tick.tolist()
    assert taken == list(range(3, 3 + len(taken)))
    assert reader.counts.untaken_decisions == reader.counts.lost_decisions == 0
    # Now it looks, but takes nothing for a whole ring, and then is away for another.
    for _ in range(10):
        go_on(5)
        reader.update()
    after = reader.take(4)
    assert after.tick[0] > taken[-1] + 1
    assert after.decision[0] - (len(taken) - 1) - 1 == reader.counts.untaken_decisions == after.tick[0] - taken[-1] - 1
    go_on(100)
    lost = reader.take(4).decision[0] - after.decision[-1] - 1
    assert lost == -4 or lost >= 0
    assert reader.counts.lost_ticks > 0


@pytest.mark.parametrize("count", [0, 31])
def test_more_than_a_ring_keeps_is_never_waited_for(count):
    reader = TransitionReader(new_ring(32)[1], ACTION, 3, TransitionBuilder())
    with pytest.raises(ValueError, match="expected 1 to 30, as many as the ring keeps"):
        reader.take(count)


def test_rows_are_drawn_in_proportion_to_their_priorities_and_new_ones_as_the_largest():
    writer, ring = new_ring(64)
    reader = TransitionReader(ring, ACTION, 3, TransitionBuilder())
    rng = np.random.default_rng(0)
    for tick in range(24):
        publish(writer, header_at(tick, kind=episode_kinds(tick)))
    reader.update()
    num_rows = len(reader)
    even = reader.sample(64, rng, prioritized=True)
    assert even.probability == pytest.approx(1 / num_rows)
    assert reader.sample(4, rng).probability is None
    rows = np.arange(num_rows)
    reader.set_priorities(rows, np.where(rows == 5, 4.0, 0.5))
    batch = reader.sample(20_000, rng, prioritized=True)
    total = 4 + 0.5 * (num_rows - 1)
    counted = np.bincount(batch.row, minlength=num_rows) / len(batch.row)
    assert counted[5] == pytest.approx(4 / total, abs=0.02)
    assert counted[rows != 5] == pytest.approx(0.5 / total, abs=0.01)
    assert batch.probability[batch.row == 5][0] == pytest.approx(4 / total)
    assert (batch.obs == (batch.tick - 2)[:, None]).all()
    publish(writer, header_at(24))
    publish(writer, header_at(25))
    reader.update()
    newest = reader.sample(2000, rng, prioritized=True)
    assert newest.probability[newest.row == num_rows][0] == pytest.approx(4 / (total + 8))


def test_rows_that_are_overwritten_are_never_drawn_again_and_their_priorities_are_ignored():
    writer, ring = new_ring(16)
    reader = TransitionReader(ring, ACTION, 3, TransitionBuilder())
    rng = np.random.default_rng(0)
    old = np.empty(0, np.int64)
    for tick in range(300):
        publish(writer, header_at(tick, kind=episode_kinds(tick)))
        if rng.random() < 0.3:
            reader.update()
        if len(reader):
            batch = reader.sample(8, rng, prioritized=True)
            assert (batch.obs == (batch.tick - 2)[:, None]).all()
            assert (batch.probability > 0).all()
            reader.set_priorities(np.concatenate([batch.row, old]), rng.random(8 + len(old)) + 0.01)
            old = batch.row
            weighed = reader._weighed()
            leaves = weighed._sums[-weighed._leaves :]
            assert np.count_nonzero(leaves) == len(reader)
            assert weighed.total == pytest.approx(leaves.sum())


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan, np.inf])
def test_a_priority_that_is_no_weight_is_refused(wrong):
    reader = TransitionReader(new_ring(16)[1], ACTION, 3, TransitionBuilder())
    with pytest.raises(ValueError, match="expected a finite number above 0 for each row"):
        reader.set_priorities(np.array([0]), np.array([wrong]))


def test_what_the_policy_gave_with_an_action_is_in_batches_and_ticks():
    kept = Block((("extras.logp", (), "float32"), ("extras.value", (2,), "float64"), ("state.h", (3,), "float32")))
    observation = ObservationSpec.from_space(spaces.Box(-100, 100, (4,), np.int32))
    ring = FrameRing.private(observation, ACTION.nbytes, 32, kept)
    reader, ticks = TransitionReader(ring, ACTION, 3, TransitionBuilder()), TickReader(ring, ACTION)
    block = np.zeros((), kept.dtype)
    for tick in range(20):
        block["extras.logp"], block["extras.value"], block["state.h"] = -tick, tick, tick + 0.5
        header = header_at(tick, kind=episode_kinds(tick))._replace(frame_seq=ring.next_seq)
        ring.publish(np.full(4, tick, np.int32), header, bytes(ACTION.nbytes), block.tobytes())
    batch = reader.take(8)
    assert batch.extras["logp"].tolist() == (-batch.tick).tolist()
    assert (batch.extras["value"] == batch.tick[:, None]).all()
    assert (batch.state["h"] == batch.tick[:, None] + 0.5).all()
    seen = ticks.take()
    assert seen.extras["logp"].tolist() == (-seen.rows["tick"]).tolist()


def test_ticks_are_taken_in_order_each_once_and_the_lost_ones_are_counted():
    writer, ring = new_ring(16)
    reader = TickReader(ring, ACTION)
    assert reader.take() is None
    for tick in range(10):
        publish(writer, header_at(tick, kind=episode_kinds(tick)))
    first = reader.take(4)
    assert first.rows["tick"].tolist() == [0, 1, 2, 3]
    assert (first.frames == first.rows["tick"][:, None]).all()
    assert first.rows["kind"].tolist()[:1] == [TickKind.RESET]
    rest = reader.take()
    assert rest.rows["tick"].tolist() == list(range(4, 10))
    assert rest.rows["action"][:, 0] == pytest.approx(rest.rows["tick"] / 1000)
    assert reader.take() is None
    for tick in range(10, 60):
        publish(writer, header_at(tick))
    late = reader.take()
    assert late.lost > 0
    assert late.rows["tick"].tolist() == list(range(10 + late.lost, 60))


def test_each_action_of_a_chunk_is_a_transition_with_its_position_and_the_frame_of_its_chunk():
    """Chunks of three, decided on the frames of ticks 0, 3 and 6, each applied two ticks later."""
    writer, ring = new_ring(32)
    reader = TransitionReader(ring, ACTION, 3, TransitionBuilder(0.5, chunks=True))
    for tick in range(11):
        kind, position = episode_kinds(tick), (tick - 3) % 3
        due = tick - position
        publish(writer, header_at(tick, kind=kind)._replace(due_tick=due, obs_tick=due - 2, chunk_index=position))
    reader.update()
    assert len(reader) == 7
    batch = reader.take(7)
    assert batch.tick.tolist() == [3, 4, 5, 6, 7, 8, 9]
    assert batch.chunk_index.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert batch.obs[:, 0].tolist() == [1, 1, 1, 4, 4, 4, 7]
    assert batch.next_obs[:, 0].tolist() == [1, 1, 4, 4, 4, 7, 7]
    assert batch.delay_ticks.tolist() == [2, 3, 4, 2, 3, 4, 2]
    assert (batch.num_ticks == 1).all()
    assert batch.action[:, 0] == pytest.approx(batch.tick / 1000)


@pytest.mark.parametrize("chunks", [False, True])
def test_a_slow_heads_action_that_goes_on_for_another_tick_is_one_decision_of_two_ticks(chunks):
    builder = TransitionBuilder(0.5, chunks=chunks)
    got = []
    for tick in range(9):
        header = header_at(tick, kind=episode_kinds(tick))
        if header.kind == TickKind.ACTED:
            seen = tick - 2 - (tick % 2 == 0)  # of ticks 3 and 4, 5 and 6, ...
            header = header._replace(obs_tick=seen, due_tick=seen + 1, chunk_index=0, features_tick=0)
        got += builder.feed(header, bytes(8))
    assert [(each.tick, each.num_ticks, each.reward) for each in got] == [
        (tick, 2, pytest.approx(header_at(tick).reward + 0.5 * header_at(tick + 1).reward)) for tick in (3, 5)
    ]
