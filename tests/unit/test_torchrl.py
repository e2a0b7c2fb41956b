"""A run's decisions under the names that torchrl knows."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rtcore.errors import ConfigError
from rtcore.learn.replay_memory import TransitionReader
from rtcore.learn.transitions import TransitionBuilder
from rtcore.memory.history import History
from rtcore.memory.layout import FrameHeader
from rtcore.memory.ring import FrameRing
from rtcore.scheduling.dispatch import TickKind
from rtcore.spaces import ActionSpec, Block, ObservationSpec
from rtcore_workers.tensors import to_tensors

pytestmark = pytest.mark.unit

ACTION = ActionSpec.from_space(spaces.Box(-1, 1, (2,)))
GIVEN = Block((("extras.logp", (), "float32"),))


@pytest.fixture(scope="module")
def torchrl() -> Any:
    """Imported here alone: tensordict brings as much along as torch, in every row that collects this file."""
    pytest.importorskip("tensordict")
    return importlib.import_module("rtcore.torchrl")


class Run:
    """A run whose decisions see the frame of two ticks ago, and govern two ticks each; its last one terminates."""

    def __init__(self, ticks: int, act_history: int = 0) -> None:
        ring = FrameRing.private(ObservationSpec.from_space(spaces.Box(-1, 1, (3,))), ACTION.nbytes, 64, GIVEN)
        self.reader = TransitionReader(ring, ACTION, 0, TransitionBuilder(1.0), history=History(0, act_history))
        zeros = dict.fromkeys(FrameHeader._fields, 0)
        for tick in range(ticks):
            kind = TickKind.RESET if tick == 0 else TickKind.ACTED if tick >= 3 and tick % 2 else TickKind.MISSED
            now = {"frame_seq": tick, "tick": tick, "kind": kind, "obs_tick": tick - 2, "due_tick": tick, "reward": 1.0}
            header = FrameHeader(**(zeros | now | {"terminated": int(tick == ticks - 1)}))
            frame, given = np.full(3, tick, np.float32), np.array([-float(tick), 0], np.float32)
            ring.publish(frame, header, np.full(2, tick / 100, np.float32).tobytes(), given.tobytes())

    def take(self, count: int, **_: Any) -> Any:
        batch = self.reader.take(count)
        return None if batch is None else to_tensors(batch)

    def wait(self, timeout_s: float) -> bool:
        """Over as soon as it has to be waited for."""
        self.over = getattr(self, "over", False) or timeout_s > 0
        return self.over


def test_decisions_come_in_order_with_torchrls_names_and_say_how_many_steps_each_is(torchrl: Any) -> None:
    first, second = torchrl.collect(Run(20), 4)  # 9 decisions: two batches, and one that is left
    assert first.batch_size == torch.Size([4])
    assert first["observation"].shape == first["next", "observation"].shape == (4, 3)
    assert torch.cat([first["decision"], second["decision"]])[:, 0].tolist() == list(range(8))
    assert first["steps_to_next_obs"].tolist() == [[2]] * 4
    assert first["next", "reward"].tolist() == [[2.0]] * 4
    assert (first["next", "observation"] - first["observation"] == 2).all()
    assert first["logp"].tolist() == (-first["tick"][:, 0]).tolist()
    assert first["action"].shape == (4, 2)
    assert not first["next", "done"].any()


@pytest.mark.parametrize("name", ("action", "tick", "next", "observation"))
def test_what_a_policy_gives_does_not_take_the_place_of_what_happened(torchrl: Any, name: str) -> None:
    batch = Run(20).take(4)
    with pytest.raises(ConfigError, match=f"the policy gives {name}, which a TensorDict has already"):
        torchrl.tensordict_of(batch._replace(extras={name: batch.reward}))


def test_the_end_of_an_episode_is_done_and_past_actions_have_their_own_name(torchrl: Any) -> None:
    data = torchrl.tensordict_of(Run(20, act_history=2).take(9))
    for name in ("done", "terminated"):
        assert data["next", name][:, 0].tolist() == [False] * 8 + [True]
    assert data["past_actions"].shape == data["next", "past_actions"].shape == (9, 2, 2)
    assert data[3:5]["past_actions"].shape == (2, 2, 2)
