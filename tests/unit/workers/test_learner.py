"""One learner over a private ring: what it does when the world is faster than it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from rtcore.config.run import make_config
from rtcore.learn.replay_memory import TransitionReader
from rtcore.learn.transitions import TransitionBuilder
from rtcore.memory.layout import FrameHeader
from rtcore.memory.master import MasterState
from rtcore.memory.ring import FrameRing
from rtcore.memory.weights import ParamStore
from rtcore.scheduling.dispatch import TickKind
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.learner import Learner
from rtcore_workers.weights.shared import manifest_of, write_weights

pytestmark = pytest.mark.unit

ACTION = ActionSpec.from_space(spaces.Discrete(3))
OBSERVATION = ObservationSpec.from_space(spaces.Box(0, 1, (4,), np.float32))
RING_SLOTS = 16


class World:
    """Writes ticks of one episode into a ring."""

    def __init__(self) -> None:
        self.ring = FrameRing.private(OBSERVATION, ACTION.nbytes, RING_SLOTS)
        self._tick = 0

    def go_on(self, ticks: int, kind: TickKind = TickKind.ACTED) -> None:
        for _ in range(ticks):
            header = FrameHeader(
                frame_seq=self.ring.next_seq,
                tick=self._tick,
                kind=kind if self._tick else TickKind.RESET,
                reward=1.0,
                worker=0,
                obs_tick=self._tick - 1,
                due_tick=self._tick,
                chunk_index=0,
                outcome=0,
                policy_version=0,
            )
            self.ring.publish(np.full(4, 0.5, np.float32), header, bytes(ACTION.nbytes))
            self._tick += 1


def learner_of(world: World, master: MasterState | None = None) -> Learner:
    torch.manual_seed(0)
    nets: list[nn.Module] = [nn.Linear(4, 3) for _ in range(2)]
    manifest = manifest_of(nets[0])
    store = ParamStore.private(manifest)
    store.publish(lambda buffer: write_weights(nets[0], manifest, buffer))
    if master is None:
        master = MasterState.private(manifest.trainable_bytes)
        master.begin(manifest.trainable_array(store.buffer(store.newest().buffer)))
    config: Any = make_config(learn="dqn", policy="mlp", learning_starts=3, batch_size=4, publish_every=1)
    replay = TransitionReader(world.ring, ACTION, 0, TransitionBuilder(config.learning.gamma))
    return Learner(config, master, store, replay, nets[0], nets[1], ACTION, 0, "cpu")


def test_one_that_was_away_for_a_whole_ring_makes_no_update_and_goes_on_with_what_there_is() -> None:
    world = World()
    world.go_on(10)
    learner = learner_of(world)
    assert learner.collect()
    world.go_on(3 * RING_SLOTS)
    assert learner.update(), "nothing is wrong with it"
    assert learner.master.commit.updates == 0
    world.go_on(1)
    assert learner.collect()
    world.go_on(1)
    assert learner.collect()
    assert learner.update()
    assert learner.master.commit.updates == 1
    assert np.isfinite(learner.master.slots[learner.master.commit.slot].weights).all()


def test_one_that_is_started_again_goes_on_counting_the_samples_that_were_overwritten() -> None:
    world = World()
    world.go_on(10)
    first = learner_of(world)
    assert first.collect()
    first.replay.lapped_samples = 7
    assert first.update()
    second = learner_of(world, first.master)
    assert second.collect()
    second.replay.lapped_samples = 2
    assert second.update()
    assert second.status["lapped_samples"] == 9
