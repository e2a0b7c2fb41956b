"""`Runtime` in a trainer's program: started in the background, sampled from, told of episodes, given factories."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import rtcore
from rtcore.config.factories import import_path
from rtcore.errors import ConfigError, ContractBroken, EnvironmentFailed, PolicyError, StartupError
from rtcore.memory.segments import files_of
from rtcore.scheduling.dispatch import TickKind
from tests.support import embed_mains, embed_worlds
from tests.support.drills import wait_for

pytestmark = [pytest.mark.process, pytest.mark.slow]


SYNTHETIC: dict[str, Any] = {"policy": "synthetic", "policy_args": {"latency_ms": 10}, "workers": 2}


def make_bad_policy(observation_space: Any, action_space: Any) -> torch.nn.Module:
    raise LookupError("no such weights")


def started_once(runtime: rtcore.Runtime) -> threading.Event:
    """Its start does not get further until this is set: else it may be over before this program gets a CPU."""
    may, start = threading.Event(), runtime._supervisor.start

    def start_when_it_may() -> None:
        assert may.wait(150)
        start()

    runtime._supervisor.start = start_when_it_may  # type: ignore[method-assign]
    return may


# -- starting ----------------------------------------------------------------------------------------------------


def test_a_run_starts_in_the_background_and_says_when_it_is_ready() -> None:
    runtime = rtcore.Runtime(env_id=embed_worlds.counting, ticks=60, **SYNTHETIC)
    with pytest.raises(StartupError, match="start"):
        runtime.wait_ready()
    may_start = started_once(runtime)
    assert runtime.start(wait=False) is runtime
    assert not runtime.wait_ready(0)
    may_start.set()
    assert runtime.wait_ready()
    assert runtime.env_pid > 0
    assert runtime.wait()
    runtime.close()
    assert runtime.summary()["leftover_shared_memory"] == []


def test_what_goes_wrong_in_the_background_is_raised_where_the_program_waits() -> None:
    runtime = rtcore.Runtime(env_id="tests.support.embed_worlds:nothing_of_the_kind", ticks=60, **SYNTHETIC).start(
        wait=False
    )
    for wait in (runtime.wait_ready, runtime.wait):
        with pytest.raises(ConfigError, match="nothing_of_the_kind"):
            wait()
    runtime.close()
    assert files_of(runtime.run_id) == []


def test_before_tick_0_a_run_says_that_it_has_not_started_and_nothing_asked_for_too_soon_spoils_it() -> None:
    runtime = rtcore.Runtime(env_id=embed_worlds.counting, ticks=100, workers=1, policy="mlp")
    asked = [lambda: runtime.sample(1), runtime.transitions, lambda: runtime.observation_space, lambda: runtime.rate_hz]
    asked.append(lambda: runtime.publish({}))
    for ask in asked:
        with pytest.raises(StartupError, match="not started"):
            ask()
    may_start = started_once(runtime)
    runtime.start(wait=False)
    with pytest.raises(StartupError, match="not started"):
        runtime.sample(1)
    may_start.set()
    while not runtime.wait_ready(0.01):  # what is asked for while it starts
        with suppress(StartupError):
            runtime.sample(1)
    with runtime, pytest.raises(StartupError, match="started before"):
        runtime.start()
    assert runtime.wait()
    assert runtime.sample(1) is not None


def test_a_run_in_the_background_is_entered_once_it_is_ready() -> None:
    with rtcore.Runtime(env_id=embed_worlds.counting, ticks=20, **SYNTHETIC).start(wait=False) as runtime:
        assert runtime.wait_ready(0)
        assert runtime.wait()


def test_an_error_of_the_start_is_there_as_soon_as_the_run_is_over() -> None:
    runtime = rtcore.Runtime(env_id="tests.support.embed_worlds:nothing_of_the_kind", **SYNTHETIC)
    seen: list[Any] = []

    class Over(threading.Event):
        def set(self) -> None:
            seen.append(runtime._error)
            super().set()

    runtime._over = Over()
    with pytest.raises(ConfigError):
        runtime.start()
    assert isinstance(seen[0], ConfigError)


def test_a_callback_that_would_wait_for_itself_is_told_so() -> None:
    args = {"length": 10, "fps": 100}
    runtime = rtcore.Runtime(
        env_id=embed_worlds.counting, env_args=args, duration=600, on_episode=lambda _: runtime.wait(), **SYNTHETIC
    )
    with runtime, pytest.raises(StartupError, match="wait here for itself"):
        runtime.wait(150)


def test_a_forked_child_that_closes_a_run_leaves_it_alone() -> None:
    with rtcore.Runtime(env_id=embed_worlds.counting, ticks=50, overrun="stretch", **SYNTHETIC) as runtime:
        child = os.fork()
        if child == 0:
            try:
                runtime.close()
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert runtime.wait()
    assert runtime.summary()["ticks"]["count"] == 50


def test_a_run_that_is_closed_while_it_starts_ends_soon_and_says_so() -> None:
    runtime = rtcore.Runtime(env_id=embed_worlds.counting, ticks=60, **SYNTHETIC)
    may_start = started_once(runtime)
    runtime.start(wait=False)
    closing = threading.Thread(target=runtime.close)
    closing.start()
    wait_for(lambda: runtime._supervisor._abandoned, "the order to end")
    may_start.set()
    closing.join()
    with pytest.raises(StartupError, match="closed while it was starting"):
        runtime.wait_ready()
    assert files_of(runtime.run_id) == []


# -- errors of the processes -------------------------------------------------------------------------------------


def test_an_exception_in_a_worker_is_raised_here_with_the_workers_traceback() -> None:
    with (
        pytest.raises(PolicyError, match="no such weights") as caught,
        rtcore.Runtime(env_id=embed_worlds.counting, policy=make_bad_policy, workers=1, ticks=50),
    ):
        pass
    notes = "\n".join(caught.value.__notes__)
    assert "In worker 0" in notes
    assert "in make_bad_policy" in notes


def test_an_exception_in_the_world_ends_wait_with_the_worlds_traceback() -> None:
    args = {"break_at": 5, "fps": 50}
    runtime = rtcore.Runtime(env_id=embed_worlds.unlucky, env_args=args, ticks=500, **SYNTHETIC)
    with runtime, pytest.raises(EnvironmentFailed, match="the counter is full") as caught:
        runtime.wait()
    assert "in _break" in "\n".join(caught.value.__notes__)


# -- learning from it --------------------------------------------------------------------------------------------


def test_samples_are_tensors_of_the_frames_own_dtype_and_none_while_there_are_too_few() -> None:
    # Ticks are put off and not skipped where the machine is busy: each is there, and in order.
    world = {"env_id": "tests.support.worlds:checking", "env_args": {"space": "box"}, "overrun": "stretch"}
    with rtcore.Runtime(**world, duration=600, **SYNTHETIC) as runtime:
        assert runtime.sample(4000) is None
        with pytest.raises(ConfigError, match="ring_slots=4096 never holds as many"):
            runtime.sample(5000)
        batch = None
        while batch is None:
            assert not runtime.wait(0.05)
            batch = runtime.sample(16, gamma=0.9)
        assert batch.obs.shape == batch.next_obs.shape == (16, 12, 10)
        assert batch.obs.dtype == torch.uint8
        assert batch.action.shape == (16, 3)
        assert torch.allclose(batch.discount, 0.9 ** batch.num_ticks.float(), rtol=1e-5)
        assert batch.terminated.dtype == torch.bool
        again = runtime.sample(16, gamma=0.9, n_step=3, reuse=batch, prioritized=True)
        assert again.obs.data_ptr() == batch.obs.data_ptr(), "the memory of a batch that is not needed any more"
        assert set(again.num_decisions.tolist()) <= {1, 2, 3}
        runtime.prioritize(again.row, again.reward.abs() + 1, gamma=0.9)
        assert (runtime.sample(16, gamma=0.9, prioritized=True).probability > 0).all()
        with pytest.raises(ConfigError, match="finite number above 0"):
            runtime.prioritize(again.row, again.reward * 0, gamma=0.9)
        # In order, each once; and every tick, also those of no decision.
        first, second = runtime.take(5, gamma=0.9), runtime.take(3, gamma=0.9)
        assert torch.cat([first.decision, second.decision]).tolist() == list(range(8))
        seen = runtime.ticks().take()
        assert seen.rows["tick"].tolist() == list(range(len(seen.rows)))
        assert seen.frames.shape == (len(seen.rows), 12, 10)
        assert seen.lost == 0
        assert runtime.observation_space == gymnasium.spaces.Box(0, 255, (12, 10), np.uint8)
        assert runtime.action_space == gymnasium.spaces.Box(-2.0, 2.0, (3,), np.float32)


def test_every_episode_is_told_once_in_order_as_it_ends() -> None:
    told: list[Any] = []
    threads = set()

    def note(episode: Any) -> None:
        told.append(episode)
        threads.add(threading.current_thread())

    args = {"length": 10, "fps": 100}
    # What no machine can break, and what every run breaks: by its rows, and by a number that is looked at.
    require = ["acted>=0", "lateness_max_us<=1e12", "inference_p99_ms>=0", "reset<=2", "episodes<=2"]
    with (
        rtcore.Runtime(
            **{"env_id": embed_worlds.counting, "env_args": args, "ticks": 200, "overrun": "stretch"},
            **{"on_episode": note, "require": require, **SYNTHETIC},
        ) as runtime,
        pytest.raises(ContractBroken) as broken,
    ):
        runtime.wait()
    contract = runtime.summary()["contract"]
    assert [one["kept"] for one in contract["conditions"]] == [True, True, True, False, False]
    assert broken.value.conditions == [one["broken"] for one in contract["conditions"][3:]]
    third_reset = [header.tick for header in runtime.record.ticks if header.kind == TickKind.RESET][2]
    assert (contract["conditions"][3]["since_tick"], contract["conditions"][3]["since_is_exact"]) == (third_reset, True)
    assert [episode.total_reward for episode in told] == runtime.summary()["episodes"]["returns"]
    assert len(told) >= 5
    assert {episode.num_ticks for episode in told} == {10}
    assert threading.main_thread() not in threads


def test_a_callback_may_close_the_run_and_what_it_raises_is_raised_by_wait() -> None:
    args = {"length": 10, "fps": 100}
    closing = rtcore.Runtime(
        env_id=embed_worlds.counting, env_args=args, on_episode=lambda _: closing.close(), **SYNTHETIC
    )
    with closing:
        assert closing.wait(150)

    def fail(_: Any) -> None:
        raise KeyError("my own mistake")

    failing = rtcore.Runtime(env_id=embed_worlds.counting, env_args=args, on_episode=fail, **SYNTHETIC)
    with failing, pytest.raises(KeyError, match="my own mistake"):
        failing.wait(150)
    assert files_of(closing.run_id) == files_of(failing.run_id) == []


# -- factories ---------------------------------------------------------------------------------------------------


def test_factories_are_named_so_that_other_processes_find_them() -> None:
    assert import_path(embed_worlds.counting) == "tests.support.embed_worlds:counting"
    assert import_path(embed_worlds.Gliding) == "tests.support.embed_worlds:Gliding"
    assert import_path("CartPole-v1") == "CartPole-v1"

    def local() -> None: ...

    for wrong in (lambda: None, local, embed_worlds.Counting.step):
        with pytest.raises(ValueError, match=r"move it to a module of its own"):
            import_path(wrong)
    with pytest.raises(ValueError, match="a Linear has no name of its own; give the function or class that makes it"):
        import_path(torch.nn.Linear(1, 1))
    with pytest.raises(ConfigError, match="env-id: a Counting is made already"):
        rtcore.Runtime(env_id=embed_worlds.counting())
    with pytest.raises(ConfigError, match="policy: .*move it to a module"):
        rtcore.Runtime(env_id="CartPole-v1", policy=lambda *_: None)


def program(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "trainer.py").write_text(text)
    return subprocess.run(
        [sys.executable, str(folder / "trainer.py")], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_program_with_a_main_guard_may_hold_its_own_factories(tmp_path: Path) -> None:
    ran = program(embed_mains.GUARDED, tmp_path)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines.count("main runs as __main__") == 1
    assert "played trainer:make_net 20" in lines


def test_a_program_without_one_is_told_what_to_do_and_never_runs_twice(tmp_path: Path) -> None:
    ran = program(embed_mains.UNGUARDED, tmp_path)
    assert ran.returncode != 0
    assert ran.stdout.splitlines() == ["main runs as __main__"]
    assert "ConfigError: policy: make_net is part of the program that runs" in ran.stderr
    assert 'if __name__ == "__main__":' in ran.stderr
