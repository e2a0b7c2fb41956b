"""`RealtimeEnv`: a world that goes on by itself, stepped by this very process."""

from __future__ import annotations

import gc
import json
import os
import random
import time
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

import rtcore
from rtcore.errors import (
    ConfigError,
    EnvironmentFailed,
    EnvironmentHung,
    PolicyError,
    RtcoreError,
    RtcoreWarning,
    WorkerDied,
)
from rtcore.memory.segments import files_of
from rtcore.runtime.realtime_env import RealtimeEnv
from tests.support import embed_worlds
from tests.support.drills import let_ticks_run

pytestmark = pytest.mark.process


@pytest.fixture
def make() -> Iterator[Any]:
    """Makes envs, closes them, and sees that nothing of them stays."""
    made: list[RealtimeEnv] = []

    def make(world: Any = embed_worlds.counting, **fields: Any) -> RealtimeEnv:
        made.append(RealtimeEnv(world, **fields))
        return made[-1]

    yield make
    for env in made:
        env.close()
        env.close()
        assert files_of(env.runtime.run_id) == []


def came_into_force_once(action: int, obs: Any, reward: float, about: dict[str, Any]) -> bool:
    """Whatever else went by meanwhile (a busy machine, a slow program), with the no-op acting in it, is said too."""
    stepped = about["acted_ticks"] + about["missed_ticks"]
    in_force = about["action_source"] == "policy"
    assert obs[1] == about["applied_action"] == (action if in_force else 0)
    assert about["delay_ticks"] >= 1 if in_force else about["delay_ticks"] == -1
    assert reward == stepped + action
    return bool(about["acted_ticks"] == 1 and stepped <= about["ticks_since_last_step"])


def play_to_the_end(env: RealtimeEnv) -> tuple[bool, bool, dict[str, Any]]:
    """(terminated, truncated, info) of the last step of the episode."""
    terminated = truncated = False
    while not (terminated or truncated):
        *_, terminated, truncated, info = env.step(1)
    return terminated, truncated, info


def test_an_action_governs_the_next_tick_and_step_returns_with_that_ticks_frame(make: Any) -> None:
    env = make()
    obs, info = env.reset()
    assert obs[0] == 0
    assert info["rtcore"]["action_source"] == "held"
    assert info["rtcore"]["applied_action"] == env.noop_action
    for action in range(1, 20):
        obs, reward, terminated, truncated, info = env.step(action)
        about = info["rtcore"]
        assert came_into_force_once(action, obs, reward, about)
        assert not terminated
        assert not truncated


def test_with_a_longer_delay_actions_come_into_force_so_many_ticks_after_their_frame(make: Any) -> None:
    env = make(delay_ticks=3, env_args={"fps": 30})
    _, info = env.reset()
    sent, applied = {}, {}
    for action in range(1, 30):
        sent[action] = info["rtcore"]["tick"]
        obs, _, _, _, info = env.step(action)
        about = info["rtcore"]
        if about["action_source"] == "policy":
            applied[int(obs[1])] = about["tick"]
            assert about["tick"] - sent[int(obs[1])] == about["delay_ticks"]
        else:
            assert about["action_source"] in (("held", "noop") if action < 4 else ("noop",))
    # Kept waiting for a processor, this program acts later; or sooner: it answers an older job from a newer frame.
    assert 3 in {tick - sent[action] for action, tick in applied.items()}


def test_the_first_frame_of_an_episode_is_held_until_the_first_action_for_it_is_due(make: Any) -> None:
    env = make(delay_ticks=4, env_args={"fps": 5})
    in_time = False
    while not in_time:  # again, where this program was kept waiting for longer than a tick
        env.reset()
        steps = [env.step(action) for action in (1, 2, 3, 4)]
        in_time = all(info["rtcore"]["ticks_since_last_step"] == 1 for *_, info in steps)
    assert [step[0][0] for step in steps[:3]] == [0, 0, 0]
    assert steps[3][0][:2].tolist() == [1, 1]


def test_a_slow_program_finds_that_ticks_went_on_and_gets_all_their_rewards(make: Any) -> None:
    env = make()
    env.reset()
    env.step(5)
    ticks = missed = 0
    for _ in range(5):
        let_ticks_run(env.runtime, 6)
        obs, reward, _, _, info = env.step(5)
        about = info["rtcore"]
        assert about["ticks_since_last_step"] >= 6
        assert about["missed_ticks"] >= 1
        # The no-op pays 1 a tick.
        assert came_into_force_once(5, obs, reward, about)
        ticks += about["ticks_since_last_step"]
        missed += about["missed_ticks"]
    counters = env.runtime.stats().counters
    assert counters["missed"] + counters["idle"] >= missed
    assert missed + 5 + counters["skipped_ticks"] >= ticks
    assert counters["late"] in (5, 6), "the first, right after the reset, is late only on a busy machine"
    assert counters["unknown_entries"] == 0


def test_what_acts_in_the_ticks_that_a_slow_program_misses_is_a_setting(make: Any) -> None:
    env = make(on_missing="repeat")
    env.reset()
    env.step(7)
    let_ticks_run(env.runtime, 4)
    _, reward, _, _, info = env.step(0)
    # 0 came into force in one of the ticks; before it, 7 went on.
    assert reward >= 2 * (1 + 7) + 1
    assert info["rtcore"]["acted_ticks"] == 1


def test_a_program_of_any_speed_sees_each_of_its_actions_come_into_force(make: Any) -> None:
    """Thinking times around the tick: answers that come just before, just after and in the middle of a tick's work."""
    env = make(env_args={"fps": 200, "length": 60})
    rng = random.Random(0)
    env.reset(seed=0)
    for action in range(1, 400):
        time.sleep(rng.uniform(0, 0.012))
        obs, reward, terminated, truncated, info = env.step(action % 1000)
        about = info["rtcore"]
        if terminated or truncated:
            assert obs[0] == 60
            env.reset()
            continue
        assert came_into_force_once(action, obs, reward, about)
    summary = env.runtime.summary()
    actions = summary["actions"]
    assert sum(actions["outcomes"].values()) == actions["jobs"]
    assert actions["unknown_entries"] == 0
    assert summary["episodes"]["count"] > 3


def test_after_an_episode_the_world_waits_until_reset(make: Any) -> None:
    env = make(env_args={"length": 5})
    env.reset(options={"start": 4})
    terminated, truncated, info = play_to_the_end(env)
    assert (terminated, truncated) == (True, False)
    before = info["rtcore"]
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(1)
    time.sleep(0.2)
    obs, info = env.reset(options={"start": 5})
    about = info["rtcore"]
    assert about["frame_seq"] == before["frame_seq"] + 1, "no frame was made meanwhile"
    assert about["tick"] >= before["tick"] + 20, "the grid went on"
    assert about["episode"] == before["episode"] + 1
    assert obs[0] == 0
    assert play_to_the_end(env)[:2] == (False, True), "cut off is not terminated"
    ticks = env.runtime.summary()["ticks"]
    assert ticks["waited"] >= 19
    periods = ticks["count"] - 1
    with_skipped_hz = ticks["hz"] * (periods + ticks["skipped"]) / periods
    assert with_skipped_hz == pytest.approx(100, rel=0.5), "the waiting is not part of it"


def test_a_reset_in_the_middle_of_an_episode_begins_another_at_once(make: Any) -> None:
    env = make()
    env.reset()
    for _ in range(3):
        env.step(1)
    obs, info = env.reset(options={"start": 77})
    assert obs.tolist() == [0, -1, 77]
    assert info["rtcore"]["episode"] == 1
    obs, reward, *_, info = env.step(3)
    assert obs[2] == 77
    assert came_into_force_once(3, obs, reward, info["rtcore"])


def test_seeds_give_the_same_episodes_and_none_gives_others(make: Any) -> None:
    env = make(seed=11)
    first = env.reset()[0][2]
    starts = [env.reset(seed=3)[0][2], env.reset()[0][2], env.reset(seed=3)[0][2], env.reset()[0][2]]
    assert starts[:2] == starts[2:]
    assert starts[0] != starts[1]
    env.close()
    with make(seed=11) as same, make(seed=12) as other:
        assert same.reset()[0][2] == first
        assert other.reset()[0][2] != first


def test_options_must_be_json_and_what_the_world_makes_of_them_is_its_own_affair(make: Any) -> None:
    env = make()
    with pytest.raises(ConfigError, match="cannot be handed to another process"):
        env.reset(options={"start": object()})
    assert env.reset(options={"start": 9})[0][2] == 9
    with pytest.raises(EnvironmentFailed, match="there is no such start"):
        env.reset(options={"start": "nowhere"})


def test_gymnasium_checks_find_nothing(make: Any) -> None:
    env = make("CartPole-v1", fps=50)
    with warnings.catch_warnings():
        # Of CartPole's own spaces, which are unbounded.
        warnings.filterwarnings("ignore", message=".*infinity.*")
        check_env(env, skip_render_check=True)


def test_it_shows_the_image_that_its_world_shows_and_says_where_there_is_none(make: Any) -> None:
    env = make("rtcore/Catch-v0", render_mode="rgb_array")
    assert env.render() is None, "no episode has begun"
    obs, _ = env.reset(seed=0)
    image = env.render()
    assert image.shape == (*obs.shape[:2], 3)
    assert (image == obs.reshape(*obs.shape[:2], -1)).all()
    image[...] = 0
    assert env.render().any(), "each is the caller's own"
    assert env.spec.kwargs["render_mode"] == "rgb_array"
    with pytest.raises(ConfigError, match='no image, and what it draws stays in its own process; expected "human"'):
        make("CartPole-v1", render_mode="rgb_array")
    with pytest.raises(ConfigError, match="render_mode='ansi': expected human, rgb_array"):
        make("CartPole-v1", render_mode="ansi")
    with pytest.raises(RtcoreError, match="render_mode"):
        make(render_mode="human")  # the world itself is told to show itself, and this one has no such argument


def test_an_env_is_made_again_from_its_spec(make: Any) -> None:
    env = make(delay_ticks=2, act_buf_len=1, env_args={"fps": 50})
    again = gymnasium.make(env.spec)
    try:
        assert again.observation_space == env.observation_space
        assert again.metadata["render_fps"] == 50
        assert again.unwrapped.delay_ticks == 2
        assert env.spec.nondeterministic
    finally:
        again.close()


# -- actions in the observation ----------------------------------------------------------------------------------


def test_the_last_actions_are_part_of_the_observation_those_on_their_way_included(make: Any) -> None:
    env = make(act_buf_len=3, delay_ticks=2)
    obs, _ = env.reset()
    assert obs in env.observation_space
    assert obs[1:] == (0, 0, 0)
    for action in range(1, 6):
        obs, *_ = env.step(action)
        assert obs in env.observation_space
    assert obs[1:] == (3, 4, 5)
    assert env.reset()[0][1:] == (0, 0, 0)


def test_the_action_buffer_may_outlive_an_episode_or_stay_out_of_the_observation(make: Any) -> None:
    env = make(embed_worlds.Gliding, act_buf_len=2, act_in_obs=False, reset_act_buf=False, default_action=[0.5, 0.5])
    obs, info = env.reset()
    assert obs.shape == (2,)
    assert np.array_equal(info["rtcore"]["past_actions"], [[0.5, 0.5]] * 2)
    env.step(np.array([1, 0], np.float32))
    env.step(np.array([0, 1], np.float32))
    _, info = env.reset()
    # As rtgym does: the newest makes place for the default action, which acts until the next one does.
    assert np.array_equal(info["rtcore"]["past_actions"], [[1, 0], [0.5, 0.5]])


# -- what goes wrong ---------------------------------------------------------------------------------------------


def test_a_world_that_raises_raises_in_step_with_its_own_traceback(make: Any) -> None:
    env = make(env_args={"break_at": 5})
    env.reset(options={"start": embed_worlds.UNLUCKY})
    with pytest.raises(EnvironmentFailed, match="the counter is full") as caught:
        for _ in range(10):
            env.step(0)
    notes = "\n".join(caught.value.__notes__)
    assert "In the env process" in notes
    assert "in _break" in notes
    with pytest.raises(EnvironmentFailed):
        env.step(0)


def test_an_env_process_that_dies_is_named(make: Any) -> None:
    env = make(env_args={"break_at": 5, "how": "die"})
    env.reset(options={"start": embed_worlds.UNLUCKY})
    with pytest.raises(WorkerDied, match="env 0 .*SIGKILL"):
        for _ in range(10):
            env.step(0)


def test_a_world_that_hangs_is_killed(make: Any) -> None:
    env = make(env_args={"break_at": 5, "how": "hang"}, env_timeout_s=1)
    env.reset(options={"start": embed_worlds.UNLUCKY})
    with pytest.raises(EnvironmentHung, match="was silent"):
        for _ in range(10):
            env.step(0)


def test_a_world_that_waits_for_its_reset_is_not_taken_to_hang(make: Any) -> None:
    env = make(env_args={"length": 2}, env_timeout_s=1.4)
    time.sleep(1.5)
    env.reset()
    play_to_the_end(env)
    time.sleep(1.5)
    assert env.reset()[0][0] == 0


def test_wrong_actions_settings_and_worlds_are_named() -> None:
    with RealtimeEnv(embed_worlds.counting) as env:
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(0)
        env.reset()
        with pytest.raises(PolicyError, match="1000"):
            env.step(1000)
    with pytest.raises(ConfigError, match="policy: has no meaning"):
        RealtimeEnv("CartPole-v1", policy="impala")
    with pytest.raises(ConfigError, match="Did you mean 'env_args'"):
        RealtimeEnv("CartPole-v1", env_arg={})
    with pytest.raises(ConfigError, match="delay_ticks=0"):
        RealtimeEnv("CartPole-v1", delay_ticks=0)
    with pytest.raises(ConfigError, match="delay_ticks=2.5: expected a whole number of ticks"):
        RealtimeEnv("CartPole-v1", delay_ticks=2.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="move it to a module"):
        RealtimeEnv(lambda fps: embed_worlds.counting(fps=fps))
    with pytest.raises(ConfigError, match="CartPole-v1"):
        RealtimeEnv("CartPole-v7")


def test_a_reset_returns_although_its_episode_is_over_before_a_place_is_free_for_it(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Episodes of two ticks, and a program that is taken away between two lines of the reset, as on a busy machine."""
    # Put off where the machine takes the CPU away: a tick that is skipped pays nothing.
    env = make(env_args={"length": 2, "fps": 500}, on_reset="run", overrun="stretch")
    player, pause = env.unwrapped._player, random.Random(0)
    ask = player._request_reset

    def taken_away(*order: Any) -> int:
        time.sleep(pause.random() * 0.008)
        order_seq = ask(*order)
        time.sleep(pause.random() * 0.008)
        return order_seq

    monkeypatch.setattr(player, "_request_reset", taken_away)
    at_once = 0
    for _ in range(150):
        env.reset()
        _, reward, terminated, truncated, info = env.step(0)
        over = terminated or truncated
        at_once += over
        assert reward == info["rtcore"]["ticks_since_last_step"], "nothing that was paid is lost: each tick pays 1"
    assert at_once > 0, "none of the episodes was over before it could be played"


def test_a_world_that_leaves_its_space_is_warned_of_once_and_blamed_for_its_nan() -> None:
    with RealtimeEnv("tests.support.worlds:LeavesItsSpace") as env:
        observation, _ = env.reset()
        with pytest.warns(RtcoreWarning, match=r"leave the space.*3 of 3 elements \(\[0\] = 7 where -1 to 1") as warned:
            while np.isfinite(observation).all():
                observation = env.step(np.zeros(1, np.float32))[0]
        assert len(warned) == 1
        with pytest.raises(EnvironmentFailed, match=r"NaN or infinity at tick \d+: 3 of 3 elements"):
            env.step(observation[:1])
        with pytest.raises(PolicyError, match="out of range"):
            env.step(np.full(1, 9, np.float32))
        seen = env.runtime.summary()["observations"]
    assert 0 < seen["outside"] <= seen["checked"]
    assert "= 7 where" in seen["first"]


# -- in others' hands --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", [SyncVectorEnv, AsyncVectorEnv])
def test_gymnasiums_own_vectors_of_two_step_it(vector: Any) -> None:
    envs = vector([partial(gymnasium.make, "rtcore_envs:rtcore/RealtimeEnv-v0", world="CartPole-v1")] * 2)
    envs.reset(seed=0)
    for _ in range(40):
        _, _, _, _, infos = envs.step(np.array([0, 1]))
        about = infos["rtcore"]
        assert (infos["rtcore/tick"] == about["tick"]).all()
        assert set(infos["rtcore/action_source"]) <= {"policy", "noop", "held"}
        assert about["applied_action"].dtype.kind == "i"
        assert about["applied_action"].shape == about["tick"].shape == (2,)
    envs.close()


def test_stable_baselines3_steps_it_in_its_vector_env(make: Any, tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv

    told = tmp_path / "told"
    vector = DummyVecEnv(
        [lambda: Monitor(make(env_args={"length": 6}), str(told), info_keywords=("rtcore/tick", "rtcore/missed_ticks"))]
    )
    vector.reset()
    dones, episodes = 0, []
    for _ in range(20):
        _, _, done, infos = vector.step(np.array([1]))
        dones += int(done[0])
        episodes += [info["episode"] for info in infos if "episode" in info]
        assert infos[0]["rtcore/tick"] >= 0
    # Its Monitor writes what stands flat in info, each episode's last.
    assert told.with_suffix(".monitor.csv").read_text().splitlines()[1] == "r,l,t,rtcore/tick,rtcore/missed_ticks"
    assert dones == len(episodes) >= 3
    # Whatever was missed is in the return: 6 ticks, each paid at least 1.
    assert all(episode["r"] >= 6 for episode in episodes)
    vector.close()


def test_an_env_that_is_forgotten_ends_its_process() -> None:
    env = RealtimeEnv(embed_worlds.counting)
    env.reset()
    runtime = env.runtime
    del env
    gc.collect()
    assert runtime.wait(150)
    assert files_of(runtime.run_id) == []


def test_closing_it_in_a_forked_child_leaves_the_world_to_the_parent(make: Any, tmp_path: Path) -> None:
    env = make(out=tmp_path / "run", pictures=False)
    env.reset()
    child = os.fork()
    if child == 0:
        try:
            env.close()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert not (tmp_path / "run" / "summary.json").exists()
    assert env.step(1)[4]["rtcore"]["tick"] > 0
    env.close()
    assert (tmp_path / "run" / "summary.json").exists()


def test_a_default_action_of_ones_own_is_in_the_spec_and_is_not_the_worlds_no_op(make: Any) -> None:
    env = make(default_action=1, act_buf_len=1)
    assert (env.default_action, env.noop_action) == (1, 0)
    again = gymnasium.make(env.spec)
    try:
        assert again.reset()[0][1] == 1
    finally:
        again.close()


def test_two_envs_side_by_side_do_not_meet(make: Any) -> None:
    first, second = (
        make(),
        make(rtcore.RuntimeConfig(env_id="tests.support.embed_worlds:counting", env_args={"fps": 40})),
    )
    first.reset(options={"start": 1})
    second.reset(options={"start": 2})
    for action in range(10):
        for env, start in ((first, 1), (second, 2)):
            obs, reward, *_, info = env.step(action)
            assert obs[2] == start
            assert came_into_force_once(action, obs, reward, info["rtcore"])


def test_benchmarks_say_where_a_step_goes(make: Any) -> None:
    env = make()
    assert env.benchmarks() == {}
    env.reset()
    for _ in range(5):
        env.step(0)
    times = env.unwrapped.benchmarks()
    assert times["time_step_duration"][0] == pytest.approx(
        times["inference_duration"][0] + times["step_duration"][0], rel=1e-6
    )
    assert all(mean > 0 for mean, _ in times.values())


def test_a_folder_gets_what_a_run_of_rtcore_run_leaves_in_one(tmp_path: Path) -> None:
    from rtcore.cli.report import main as report

    with RealtimeEnv(embed_worlds.counting, out=tmp_path, env_args={"length": 10}) as env:
        for _ in range(3):
            _, info = env.reset()
            play_to_the_end(env)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["episodes"]["count"] == 3
    assert summary["policy"] == "the program itself"
    assert {"config.json", "actions.csv", "jobs.csv", "timeline.png"} <= {path.name for path in tmp_path.iterdir()}
    with pytest.raises(SystemExit) as end:
        report([str(tmp_path), "--tick", str(info["rtcore"]["tick"])])
    assert end.value.code in (0, None)


def test_what_ended_it_is_in_the_folder_too(tmp_path: Path) -> None:
    env = RealtimeEnv(embed_worlds.counting, out=tmp_path, pictures=False, env_args={"break_at": 5})
    env.reset(options={"start": embed_worlds.UNLUCKY})
    with env, pytest.raises(EnvironmentFailed):
        for _ in range(10):
            env.step(0)
    assert "the counter is full" in json.loads((tmp_path / "summary.json").read_text())["error"]
