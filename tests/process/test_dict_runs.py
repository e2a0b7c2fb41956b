"""Dict worlds in real runs: what workers, trainers, learners and `RealtimeEnv` get is what the world made."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

import rtcore
from rtcore.errors import ConfigError, EnvironmentFailed, PolicyError
from rtcore.memory.segments import files_of
from tests.support import dict_parts, dict_worlds
from tests.support.dict_worlds import PARTS, differences
from tests.support.drills import wait_for

pytestmark = pytest.mark.process


PANEL: dict[str, Any] = {"env_id": dict_worlds.panel, "live": False}
QUICK: dict[str, Any] = {"policy": "synthetic", "policy_args": {"latency_ms": 10}, "workers": 1}


def arrays_of(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: part.numpy() for name, part in tensors.items()}


@pytest.mark.parametrize(("obs_history", "act_history"), [(0, 0), pytest.param(2, 3, marks=pytest.mark.slow)])
def test_workers_and_trainers_get_every_part_of_the_frame_that_was_seen(obs_history: int, act_history: int) -> None:
    with rtcore.Runtime(
        policy=dict_parts.checking,
        policy_args={"obs_history": obs_history, "pad_ms": 25},
        workers=3,
        ticks=10**6,
        obs_history=obs_history,
        act_history=act_history,
        **PANEL,
    ) as runtime:
        space = runtime.observation_space
        wait_for(lambda: runtime.stats().counters["acted"] > 150, "actions")
        tensors = runtime.sample(64)
        batch = runtime.transitions()
        batch.update()
        rows = batch.sample(64, np.random.default_rng(0))
    assert {name: (box.shape, box.dtype.name) for name, box in space.spaces.items()} == PARTS
    assert batch.counts.lost_ticks == 0
    lead = (64, obs_history + 1) if obs_history else (64,)
    for obs, next_obs, action in (
        (rows.obs, rows.next_obs, rows.action),
        (arrays_of(tensors.obs), arrays_of(tensors.next_obs), tensors.action.numpy()),
    ):
        assert differences(obs, lead) == []
        assert differences(next_obs, lead) == []
        seen, seen_next = (each["inner/count"][..., 0].reshape(64, -1)[:, -1] for each in (obs, next_obs))
        assert (action[:, 0] == seen).all(), "the action is the count that its worker saw"
        assert (seen_next >= seen).all()  # a held frame is seen by more than one decision
        assert (seen_next > seen).any()
        assert len(set(seen.tolist())) > 10


@pytest.mark.slow
def test_a_dict_world_is_learned_from() -> None:
    with rtcore.Runtime(
        env_args={"discrete": True},
        policy="mlp",
        learn="dqn",
        workers=2,
        ticks=400,
        learning_starts=50,
        tensorboard=False,
        **PANEL,
    ) as runtime:
        runtime.wait()
        summary = runtime.summary()
    assert summary["learner"]["updates"] > 0
    assert summary["learner"]["stopped"] == ""
    assert runtime.summary()["leftover_shared_memory"] == []


def test_a_realtime_env_gives_dicts_of_the_callers_own() -> None:
    with rtcore.RealtimeEnv(dict_worlds.panel) as env:
        assert isinstance(env.observation_space, spaces.Dict)
        first, _ = env.reset(seed=1)
        kept, copies = [first], [{name: part.copy() for name, part in first.items()}]
        for _ in range(20):
            obs, _, _, truncated, _ = env.step(np.zeros(2, np.float32))
            if truncated:  # it was over before this program got a CPU
                obs, _ = env.reset()
            kept.append(obs)
            copies.append({name: part.copy() for name, part in obs.items()})
        for obs, copy in zip(kept, copies, strict=True):
            assert env.observation_space.contains(obs)
            assert differences(obs, ()) == []
            assert all(np.array_equal(obs[name], copy[name]) for name in PARTS), "a later step changed it"
        counts = [int(obs["inner/count"][0]) for obs in kept]
        assert counts == sorted(set(counts))
        kept[-1]["image"][...] = 0  # it is the caller's
        assert differences(kept[-2], ()) == []


def test_past_actions_stand_beside_the_dict_and_the_ages_of_its_parts_in_the_info() -> None:
    with rtcore.RealtimeEnv(dict_worlds.panel, env_args={"image_ms_ago": 40}, act_buf_len=2) as env:
        obs, info = env.reset(seed=1)
        assert info["rtcore"]["ages_ms"]["image"] >= 40
        assert env.observation_space.contains(obs)
        (parts, *_, last), *_, info = env.step(np.array([3, 4], np.float32))
        assert list(info["rtcore"]["ages_ms"]) == ["image"]
        assert differences(parts, ()) == []
        assert last.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        pytest.param("wrong key", ["lacks 'pose' and has 'posse'", "a dict of"], marks=pytest.mark.slow),
        pytest.param("missing key", ["part 'inner'", "lacks 'low'"], marks=pytest.mark.slow),
        ("wrong dtype", ["part 'pose'", "float64", "float32"]),
    ],
)
def test_a_world_that_breaks_one_part_ends_the_run_with_the_parts_name(fault: str, said: list[str]) -> None:
    runtime = rtcore.Runtime(env_args={"fault": fault, "after": 25}, ticks=300, **PANEL, **QUICK)
    with pytest.raises(EnvironmentFailed) as caught, runtime:
        runtime.wait()
    for words in said:
        assert words in str(caught.value)
    assert files_of(runtime.run_id) == []


@pytest.mark.slow
def test_an_image_policy_is_refused_before_tick_0() -> None:
    runtime = rtcore.Runtime(policy="impala", workers=1, ticks=50, **PANEL)
    with pytest.raises(PolicyError, match=r"'impala' got observations Dict\(.*Use 'mlp'"):
        runtime.start()
    assert files_of(runtime.run_id) == []


def test_a_discrete_part_is_refused_when_the_world_is_made() -> None:
    runtime = rtcore.Runtime(env_id="tests.support.dict_worlds:with_discrete", ticks=50, live=False, **QUICK)
    with pytest.raises(ConfigError, match=r"observation part 'mode' is Discrete\(4\).*FlattenObservation"):
        runtime.start()
    assert files_of(runtime.run_id) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "env_id", "keys"),
    [
        ("gymnasium_robotics", "gymnasium_robotics:PointMaze_UMaze-v3", {"observation": 4, "achieved_goal": 2}),
        ("highway_env", "highway_env:parking-v0", {"observation": 6, "desired_goal": 6}),
    ],
)
def test_worlds_of_others_run_as_they_are(package: str, env_id: str, keys: dict[str, int]) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    with rtcore.Runtime(
        env_id=env_id, policy="mlp", policy_args={"pad_ms": 30}, fps=20, workers=2, ticks=60
    ) as runtime:
        runtime.wait()
        batch = runtime.sample(16)
    assert runtime.stats().acted_fraction > 0.5
    for key, length in keys.items():
        assert tuple(batch.obs[key].shape) == (16, length)
        assert np.isfinite(batch.obs[key].numpy()).all()
