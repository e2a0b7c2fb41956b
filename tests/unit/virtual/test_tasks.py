"""A task that changes while the run goes on: world, policy, header, recording and batches agree on it at every tick."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rtcore.config.flags import parse_config
from rtcore.config.run import make_config
from rtcore.errors import ConfigError, EnvironmentFailed
from rtcore.recording.reader import Recording
from rtcore.scheduling.dispatch import Source, TickKind
from rtcore.spaces.task import MOST_NUMBERS, TEXT_BYTES, TaskSpec, task_from_line
from rtcore.virtual.simulate import Simulation
from tests.support.recorded_runs import recorded, replayed
from tests.support.tasked import TASK

pytestmark = pytest.mark.unit
SAYS, NET = "tests.support.tasked:says_its_task", f"{__name__}:NetOfItsTask"


class NetOfItsTask(nn.Module):
    """As a module that could be compiled: tensors alone."""

    def __init__(self, observation_space: Any, action_space: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, observation: Any, context: Any) -> Any:
        task = context.task
        assert task["say"].shape == (1, TEXT_BYTES)
        assert task["say"].dtype == torch.uint8
        return (10 * context.task_version + task["goal"][:, 0]).float()[:, None] * self.weight


def settings(policy: str, **more: Any) -> dict[str, Any]:
    return {"env_id": "tests.support.tasked:Tasked", "env_args": {}, "policy": policy, "task": TASK} | more


@pytest.mark.parametrize("policy", [SAYS, NET], ids=["says_its_task", "NetOfItsTask"])
def test_a_task_governs_world_policy_header_recording_and_batches_from_one_tick_on(tmp_path: Path, policy: str):
    made: dict[str, Any] = {}
    changes = {21: [0.75, 1.0], 60: [-2.0, 3.0], 61: [0.0, 0.0]}

    def on_tick(simulation: Any, tick: int) -> None:
        made.setdefault("reader", simulation.transitions())
        made.setdefault("ticks", simulation.ticks())
        if tick in changes:
            version = simulation.set_task(TASK | {"goal": changes[tick], "say": "go ü", "fast": True})
            assert version == 2 + list(changes).index(tick)

    summary = recorded(tmp_path, on_tick=on_tick, **settings(policy)).summary()
    assert summary["task"] == {"version": 4, "values": TASK | {"goal": [0.0, 0.0], "say": "go ü", "fast": True}}

    def governing(tick: int) -> tuple[int, list[float]]:
        past = [number for number, at in enumerate(changes) if at < tick]
        return (past[-1] + 2, list(changes.values())[past[-1]]) if past else (1, TASK["goal"])

    with Recording(tmp_path) as recording:
        ticks, goals = list(recording.ticks()), recording.column("task/goal").tolist()
        spec = TaskSpec(TASK)
        assert spec.unpack(recording.task_at(0)) == TASK
        assert spec.unpack(recording.task_at(100))["say"] == "go ü"
    acted = 0
    for tick, goal in zip(ticks, goals, strict=True):
        header = tick.header
        assert (header.task_version, goal) == governing(header.tick)
        if header.source != Source.HELD:
            assert header.reward == header.task_version, "the world had it at its step"
        if header.source != Source.HELD or header.kind == TickKind.RESET:
            assert tick.frame.tolist() == goal
        if header.kind == TickKind.ACTED:
            acted += 1
            version, (first, _) = governing(header.obs_tick)
            assert float(tick.action[0]) == 10 * version + first, "the policy had that of the tick it was booked at"
    assert acted > 80
    report = replayed(tmp_path)
    assert (report.first, report.ticks) == ([], len(ticks))

    seen = made["ticks"].take()
    assert seen.task["goal"].tolist() == goals
    assert seen.rows["task_version"].tolist() == [tick.header.task_version for tick in ticks]
    made["reader"].update()
    batch = made["reader"].take(len(made["reader"]))
    assert batch.task["goal"][:, 0].tolist() == [
        governing(tick - delay)[1][0] for tick, delay in zip(batch.tick, batch.delay_ticks, strict=True)
    ]
    assert {float(goal) for goal in batch.next_task["goal"][:, 0]} == {0.5, 0.75, -2.0, 0.0}


def test_what_is_no_such_task_is_refused_by_name_and_changes_nothing():
    spec = TaskSpec(TASK)
    for wrong, said in (
        ({"goal": [1.0]}, "goal is [1.0]; expected a list of 2 numbers"),
        ({"goal": [1.0, float("nan")]}, "expected a list of 2 numbers"),
        ({"say": "x" * (TEXT_BYTES + 1)}, "expected a text of up to"),
        ({"say": "a\0b"}, "without 0"),
        ({"say": "\ud800"}, "expected a text"),
        ({"fast": 1}, "fast is 1; expected true or false"),
        ({"count": 1.5}, "expected a whole number"),
        ({"count": 1 << 63}, "expected a whole number"),
        ({"speed": 1e39}, "expected a number"),
        ({"speed": True}, "expected a number"),
        ({"gaol": [1.0, 1.0]}, "has no 'gaol' (did you mean 'goal'?)"),
    ):
        with pytest.raises(ConfigError) as refused:
            spec.pack(TASK | wrong)
        assert said in str(refused.value)
    with pytest.raises(ConfigError, match="say, fast, count, speed missing"):
        spec.pack({"goal": [1, 2]})
    with pytest.raises(ConfigError, match="expected an object"):
        spec.pack(task_from_line("[1]"))
    for line in ("{", "go", '{"goal": NaN}', "[" * 100_000):
        with pytest.raises(ConfigError, match="is no JSON"):
            task_from_line(line)
    for first in ({"goal": []}, {"goal": {"x": 1}}, {"goal": None}, {"goal": [0.0] * (MOST_NUMBERS + 1)}):
        with pytest.raises(ConfigError, match="task: goal is"):
            make_config(task=first)
    with pytest.raises(ConfigError, match="32 at most"):
        make_config(task={f"v{number}": number for number in range(33)})
    with pytest.raises(ConfigError, match="the run has none"):
        Simulation(make_config(policy="random", clock="virtual", ticks=1, workers=1)).set_task(TASK)


def test_a_task_may_be_said_in_words_and_with_numpys_numbers():
    config, _ = parse_config(["--task", "goal=[0.5,-0.25],say=wait, then go,fast=false,count=3,speed=0.125"])
    assert config.world.task == TASK | {"say": "wait, then go"}
    spec = TaskSpec({"goal": np.zeros(2), "count": np.int64(0)})
    assert spec.unpack(spec.pack({"goal": np.array([1, 2]), "count": np.int64(7)})) == {"goal": [1.0, 2.0], "count": 7}


def test_a_world_that_refuses_a_task_ends_the_run_with_its_words():
    fields = settings(SAYS, clock="virtual", workers=1, latency="constant:5", ticks=30)
    simulation = Simulation(make_config(**fields | {"env_id": "tests.support.tasked:RefusesHaste"}))
    with pytest.raises(EnvironmentFailed, match=r"rtcore_task.*too fast for me"):
        simulation.run(lambda tick: simulation.set_task(TASK | {"fast": True, "say": "go ü"}) if tick == 9 else None)
