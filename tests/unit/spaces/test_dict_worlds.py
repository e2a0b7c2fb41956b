"""A Dict world from its env to policies, batches and learners, each without a process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rtcore.config.run import make_config
from rtcore.errors import EnvironmentFailed, PolicyError
from rtcore.learn.replay_memory import TransitionReader
from rtcore.learn.transitions import TransitionBuilder
from rtcore.loop.world import GymnasiumWorld
from rtcore.memory.history import History
from rtcore.memory.layout import FRAME_HEADER, FrameHeader
from rtcore.memory.ring import FrameRing
from rtcore.report.table import header_lines
from rtcore.scheduling.dispatch import TickKind
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore.virtual.simulate import Simulation
from rtcore_workers.policies import build_network, load_policy
from rtcore_workers.policies.executors import make_executor
from rtcore_workers.tensors import to_tensors
from tests.support.dict_worlds import PARTS, SPACE, Panel, differences, parts_at

pytestmark = pytest.mark.unit

DOCS = Path(__file__).parents[3] / "docs"
SPEC = ObservationSpec.from_space(SPACE)
ACTION = ActionSpec.from_space(spaces.Discrete(2))


def frames_of(counts: Any) -> Any:
    """Frames (N, num_bytes) that show these counts."""
    frames = np.zeros((len(counts), *SPEC.shape), np.uint8)
    for name, part in SPEC.unpack(frames).items():
        part[...] = parts_at(counts)[name]
    return frames


# -- the world ---------------------------------------------------------------------------------------------------


def test_each_tick_packs_its_observation_into_the_same_memory() -> None:
    world = GymnasiumWorld(Panel(), seed=0)
    first = world.reset().frame
    assert differences(SPEC.unpack(first), ()) == []
    assert world.hold().frame is first
    for count in range(2, 40):
        frame = world.step(world.noop).frame
        assert frame is first
        assert SPEC.unpack(frame)["inner/count"][0] == count
        assert differences(SPEC.unpack(frame), ()) == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [("wrong key", "lacks 'pose' and has 'posse'"), ("missing key", "'inner'.*lacks 'low'"), ("wrong dtype", "'pose'")],
)
def test_a_part_that_goes_wrong_in_the_middle_of_an_episode_is_named(fault: str, said: str) -> None:
    world = GymnasiumWorld(Panel(fault=fault, after=3), seed=0)
    world.reset()
    for _ in range(3):
        world.step(world.noop)
    with pytest.raises(EnvironmentFailed, match=said):
        world.step(world.noop)


# -- policies ----------------------------------------------------------------------------------------------------


class TakesApart(nn.Module):
    """Notes what it is given, and takes the dict apart. The count is its output."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Tensor]] = []

    def forward(self, parts: dict[str, Tensor], past_actions: Tensor | None = None) -> Tensor:
        self.seen.append(dict(parts))
        counts = parts.pop("inner/count")
        parts.clear()
        return counts.reshape(counts.shape[0], -1)[:, :2].double()


@pytest.mark.parametrize("obs_history", [0, 2])
def test_a_module_gets_the_parts_of_what_is_staged_and_may_do_with_the_dict_what_it_likes(obs_history: int) -> None:
    spec, module = History(obs_history=obs_history).stacked(SPEC), TakesApart()
    executor = make_executor(module, spec, "cpu")
    lead = (obs_history + 1,) if obs_history else ()
    for first in (3, 700):
        counts = range(first, first + obs_history + 1)
        executor.observation[...] = frames_of(counts).reshape(spec.shape)
        executor.run()
        seen = {name: part.numpy() for name, part in module.seen[-1].items()}
        assert differences(seen, (1, *lead)) == []
        assert seen["inner/count"][0, ..., 0].tolist() == (list(counts) if obs_history else first)


def test_mlp_puts_all_parts_side_by_side_in_the_order_of_the_space() -> None:
    network = build_network("mlp", {"hidden": 4, "layers": 1}, SPEC, ACTION, seed=0)
    observations = SPEC.unpack(torch.from_numpy(frames_of([5, 6])))
    features = network[0](observations)
    expected = [np.asarray(part, np.float32).reshape(2, -1) for part in parts_at([5, 6]).values()]
    assert features.dtype == torch.float32
    assert np.array_equal(features.numpy(), np.concatenate(expected, axis=1))
    assert network(observations).shape == (2, 2)


def test_mlp_takes_older_frames_and_past_actions_of_a_dict_world() -> None:
    history = History(obs_history=2, act_history=3)
    policy = load_policy("mlp", {}, SPEC, ACTION, seed=0, worker_index=0, device="cpu", history=history, clock=None)
    assert policy.observation.shape == (3, SPEC.nbytes)
    policy.observation[...] = frames_of([1, 2, 3])
    out = np.zeros((1,), np.int64)
    policy.act(frame_seq=0, out=out)
    assert out[0] in (0, 1)


@pytest.mark.parametrize("name", ["random", "synthetic"])
def test_policies_without_a_network_play_a_dict_world(name: str) -> None:
    args: dict[str, object] = {"latency_ms": 0} if name == "synthetic" else {}
    policy = load_policy(name, args, SPEC, ACTION, seed=0, worker_index=0, device="cpu")
    assert policy.observation.shape == SPEC.shape
    out = np.full((1,), -1, np.int64)
    policy.act(frame_seq=0, out=out)
    assert out[0] in (0, 1)


@pytest.mark.parametrize("name", ["impala", "nature", "dqn", "tiles", "two-speed", "trained"])
def test_a_policy_for_images_refuses_a_dict_and_shows_it(name: str) -> None:
    with pytest.raises(PolicyError, match=r"Dict\('age'.*'image'"):
        build_network(name, {}, SPEC, ACTION, seed=0)


def flat_module(_observation_space: Any, _action_space: Any) -> nn.Module:
    return nn.Flatten()


def test_a_module_that_expects_a_tensor_is_told_the_parts_it_gets() -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy(
            f"{__name__}:flat_module", {}, SPEC, ACTION, seed=0, worker_index=0, device="cpu", history=History(1, 0)
        )
    for words in ("dict of tensors", "'image': uint8 (1, 2, 5, 7)", "'age': float64 (1, 2)"):
        assert words in str(caught.value)


def test_the_policy_in_the_docs_plays_the_space_in_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = {}
    for page, name in (("worlds.md", "observation_space ="), ("policies.md", "class Driver")):
        found = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.S)
        blocks[page] = next(block for block in found if block.startswith(name))
    names: dict[str, Any] = {"np": np, "spaces": spaces}
    exec(blocks["worlds.md"], names)
    imports = "import torch\nfrom gymnasium import spaces\nfrom torch import Tensor, nn\n"
    (tmp_path / "driver_of_the_docs.py").write_text(imports + blocks["policies.md"])
    monkeypatch.syspath_prepend(tmp_path)
    spec = ObservationSpec.from_space(names["observation_space"])
    policy = load_policy("driver_of_the_docs:Driver", {}, spec, ACTION, seed=0, worker_index=0, device="cpu")
    out = np.full((1,), -1, np.int64)
    policy.act(frame_seq=0, out=out)
    assert out[0] in (0, 1)


# -- batches -----------------------------------------------------------------------------------------------------


def run_of(num_ticks: int) -> FrameRing:
    """A ring with a run whose frame of tick k shows the count k; decisions have a delay of 2 ticks."""
    ring = FrameRing.private(SPEC, ACTION.nbytes, 64)
    for tick, frame in enumerate(frames_of(range(num_ticks))):
        kind = TickKind.RESET if tick == 0 else TickKind.LEAD_IN if tick < 3 else TickKind.ACTED
        said = {
            "frame_seq": tick,
            "tick": tick,
            "kind": int(kind),
            "reward": 0.0,
            "obs_tick": tick - 2,
            "due_tick": tick,
            "phase_seq": 3,
        }
        header = FrameHeader(**(dict.fromkeys(FRAME_HEADER.fields, 0) | said))
        ring.publish(frame, header, np.int64(tick % 2).tobytes())
    return ring


@pytest.mark.parametrize("obs_history", [0, 3])
def test_a_batch_of_a_dict_world_is_a_dict_of_the_frames_that_were_seen(obs_history: int) -> None:
    reader = TransitionReader(run_of(40), ACTION, 3, TransitionBuilder(), history=History(obs_history))
    reader.update()
    batch = reader.sample(16, np.random.default_rng(0))
    lead = (16, obs_history + 1) if obs_history else (16,)
    assert differences(batch.obs, lead) == []
    assert differences(batch.next_obs, lead) == []
    seen = batch.tick - 2
    newest = batch.obs["inner/count"][..., 0].reshape(16, -1)[:, -1]
    assert (newest == seen).all()
    assert (batch.next_obs["inner/count"][..., 0].reshape(16, -1)[:, -1] == seen + 1).all()
    tensors = to_tensors(batch)
    for name, part in tensors.obs.items():
        assert part.is_contiguous()
        assert np.array_equal(part.numpy(), batch.obs[name])
    assert tensors.past_actions is None


def test_the_memory_of_a_batch_is_used_again_where_it_is_given_back() -> None:
    reader = TransitionReader(run_of(40), ACTION, 3, TransitionBuilder())
    reader.update()
    rng = np.random.default_rng(0)
    first = reader.sample(16, rng)
    again = reader.sample(16, rng, reuse=first)
    for one, other in ((first.obs, again.obs), (first.next_obs, again.next_obs)):
        assert all(np.shares_memory(one[name], other[name]) for name in PARTS)
    assert not np.shares_memory(again.obs["image"], again.next_obs["image"])
    assert (again.obs["inner/count"][:, 0] == again.tick - 2).all()
    assert differences(again.obs, (16,)) == []


# -- a run without processes -------------------------------------------------------------------------------------


def test_a_dict_world_is_learned_from_on_the_virtual_clock() -> None:
    config = make_config(
        env_id="tests.support.dict_worlds:panel",
        env_args={"discrete": True},
        clock="virtual",
        learn="dqn",
        policy="mlp",
        workers=2,
        latency="constant:15",
        ticks=200,
        learning_starts=20,
        obs_history=1,
        act_history=1,
        updates_per_tick=0.2,
        tensorboard=False,
    )
    simulation = Simulation(config)
    try:
        summary = simulation.run().summary()
    finally:
        simulation.close()
    assert summary["learner"]["updates"] > 10
    assert summary["actions"]["acted_fraction"] > 0.9


def test_the_header_names_the_parts_of_a_dict() -> None:
    config = make_config(env_id="tests.support.dict_worlds:panel", workers=1, policy="random", clock="virtual")
    simulation = Simulation(config)
    lines = header_lines(simulation.header, simulation.resolved, simulation.plan)
    simulation.close()
    assert any("observation Dict(age scalar float64, bits 11 bool, image 5x7 uint8, inner/count" in x for x in lines)
