"""Sampling from a ring that is overwritten meanwhile, in another process, as fast as it can: no batch is ever torn."""

import multiprocessing
import time

import numpy as np
import pytest

from rtcore.learn.replay_memory import TransitionReader
from rtcore.learn.transitions import TransitionBuilder
from rtcore.memory.history import History
from rtcore.memory.layout import FRAME_HEADER, FrameHeader, Layout
from rtcore.memory.segments import files_of, new_run_id, unlink_all
from rtcore.memory.shared import SharedRun
from rtcore.scheduling.dispatch import TickKind
from rtcore.spaces import ActionSpec, ObservationSpec

pytestmark = [pytest.mark.process, pytest.mark.slow]

SHAPE = (80, 100)
OBSERVATION = ObservationSpec(SHAPE, "int32", (0,), (2**31 - 1,))
ACTION = ActionSpec((1,), "int64", (0,), (2**40,), "box")
LAYOUT = Layout(1, ring_slots=96, log_slots=2, frame_bytes=OBSERVATION.nbytes, action_bytes=8, chunk=1)
HISTORY = History(2, 3)
EPISODE_TICKS = 40
NUM_LAPPED, NUM_BATCHES = 20, 300

_context = multiprocessing.get_context("spawn")


def header_of(tick):
    kind = TickKind.RESET if tick % EPISODE_TICKS == 0 else TickKind.ACTED
    kind = TickKind.LEAD_IN if 0 < tick % EPISODE_TICKS < 3 else kind
    fields = dict.fromkeys(FRAME_HEADER.fields, 0) | {"features_tick": -1, "features_worker": -1, "state_tick": -1}
    fields |= {
        "frame_seq": tick,
        "tick": tick,
        "episode": tick // EPISODE_TICKS,
        "kind": int(kind),
        "reward": 1.0,
        "obs_tick": tick - 2,
        "due_tick": tick,
        "terminated": int(tick % EPISODE_TICKS == EPISODE_TICKS - 1),
    }
    return FrameHeader(**fields)


def publish(run_id, started, over):
    ring = SharedRun.attach(run_id, LAYOUT, OBSERVATION).ring
    frame = np.zeros(SHAPE, np.int32)
    tick = 0
    while not over.is_set():
        frame[...] = tick
        ring.publish(frame, header_of(tick), tick.to_bytes(8, "little"))
        tick += 1
        if tick % 8 == 0:
            time.sleep(0.0005)
        if tick == LAYOUT.ring_slots:
            started.set()


@pytest.fixture
def ring():
    run_id = new_run_id()
    shared = SharedRun.create(run_id, LAYOUT, OBSERVATION)
    started, over = _context.Event(), _context.Event()
    writer = _context.Process(target=publish, args=(run_id, started, over))
    writer.start()
    try:
        assert started.wait(150)
        yield shared.ring
        assert writer.is_alive()
    finally:
        over.set()
        writer.join(150)
        writer.kill()
        shared.close()
        unlink_all(run_id)
    assert files_of(run_id) == []


def stack_seen_at(tick, count):
    """Numbers of the newest `count` frames of the episode up to `tick`, oldest first."""
    first = tick // EPISODE_TICKS * EPISODE_TICKS
    return np.maximum(tick[:, None] - np.arange(count - 1, -1, -1), first[:, None])


def test_no_batch_is_torn_and_what_was_lapped_is_counted(ring):
    reader = TransitionReader(ring, ACTION, 0, TransitionBuilder(1.0), ring.sequence.newest(), HISTORY)
    rng, batch, num_batches = np.random.default_rng(0), None, 0
    while num_batches < NUM_BATCHES or reader.lapped_samples < NUM_LAPPED:
        reader.update()
        try:
            batch = reader.sample(16, rng, n_step=3, reuse=batch)
        except ValueError:
            continue  # everything was overwritten: not a batch
        num_batches += 1
        assert (batch.obs == batch.obs[:, :, :1, :1]).all(), "a frame of two ticks"
        seen = batch.tick - 2
        assert (batch.obs[:, :, 0, 0] == stack_seen_at(seen, 3)).all()
        assert (batch.action[:, 0] == batch.tick).all()
        assert (batch.past_actions[:, :, 0] == stack_seen_at(seen, 3)).all()
        following = np.where(batch.terminated, batch.tick + batch.num_ticks - 1, seen + batch.num_decisions)
        assert (batch.next_obs == batch.next_obs[:, :, :1, :1]).all()
        assert (batch.next_obs[:, :, 0, 0] == stack_seen_at(following, 3)).all()
        assert (batch.reward == batch.num_ticks).all()
    assert reader.lapped_samples >= NUM_LAPPED
