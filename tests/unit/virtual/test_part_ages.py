"""How old the parts of an observation are: policy, summary, recording and the world itself agree on it."""

import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict
from torch import nn

from rtcore.config.run import make_config
from rtcore.errors import ConfigError, ContractBroken, EnvironmentFailed
from rtcore.recording.reader import Recording
from rtcore.report.numbers import part_rows
from rtcore.scheduling.dispatch import Source, TickKind
from rtcore.virtual.simulate import Simulation
from rtcore_workers.remote.near import SENT_SETTINGS
from rtcore_workers.remote.serving import ServedPolicy
from rtcore_workers.remote.wire import Kind, Packet
from tests.support.recorded_runs import recorded, replayed

pytestmark = pytest.mark.unit
HERE = __name__
NS_PER_MS = 1_000_000


class Arm(gymnasium.Env[Any, Any]):
    """At 100 Hz; its camera gives a picture at every fourth step, 30 ms late, and none from `breaks_at` on."""

    metadata: dict[str, Any] = {"render_modes": [], "render_fps": 100}  # noqa: RUF012
    observation_space = Dict({"camera": Box(0, 255, (2, 2), np.uint8), "arm": Dict({"joints": Box(-1, 1, (2,))})})
    action_space = Box(0, 1e9, (2,))
    noop_action = np.zeros(2, np.float32)
    part_rates_hz = {"camera": 25}  # noqa: RUF012
    rtcore_now_ns = staticmethod(time.monotonic_ns)

    def __init__(self, breaks_at: int = 1 << 30) -> None:
        self._breaks_at, self._steps = breaks_at, 0
        self._camera_ns = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._camera_ns = self.rtcore_now_ns() - 30 * NS_PER_MS
        return self._seen()

    def step(self, action: Any) -> Any:
        self._steps += 1
        if self._steps % 4 == 0 and self._steps < self._breaks_at:
            self._camera_ns = self.rtcore_now_ns() - 30 * NS_PER_MS
        observation, info = self._seen()
        return observation, 0.0, False, self._steps % 50 == 0, info

    def _seen(self) -> Any:
        stamps = {"arm/joints": self.rtcore_now_ns(), "camera": np.int64(self._camera_ns)}
        observation = {"camera": np.zeros((2, 2), np.uint8), "arm": {"joints": np.zeros(2, np.float32)}}
        return observation, {"rtcore": {"stamps_ns": stamps}}


class OnItsOwnTime(Arm):
    def _seen(self) -> Any:
        observation, info = super()._seen()
        info["rtcore"]["stamps_ns"]["camera"] = time.monotonic_ns()
        return observation, info


ADDRESSES: set[int] = set()


def says_ages(observation: Any, context: Any) -> Any:
    ages = context.ages_ms
    assert list(ages) == ["arm/joints", "camera"]
    ADDRESSES.add(ages["camera"].__array_interface__["data"][0])
    return np.stack([ages["camera"], ages["arm/joints"]], axis=1)


class NetOfAges(nn.Module):
    def __init__(self, observation_space: Any, action_space: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, observation: Any, context: Any) -> Any:
        ADDRESSES.add(context.ages_ms["camera"].data_ptr())
        return torch.stack([context.ages_ms["camera"], context.ages_ms["arm/joints"]], dim=1) * self.weight


def settings(policy: str = "says_ages", **more: Any) -> dict[str, Any]:
    return {"env_id": f"{HERE}:Arm", "env_args": {}, "policy": f"{HERE}:{policy}"} | more


def assert_told(batch: Any) -> None:
    """The action of each decision says the ages that its policy was told: those of the batch."""
    assert batch.ages_ms["camera"].tolist() == batch.action[:, 0].tolist()
    assert batch.ages_ms["arm/joints"].tolist() == batch.action[:, 1].tolist()


@pytest.mark.parametrize("policy", ["says_ages", "NetOfAges"])
def test_a_policy_is_told_how_old_each_part_of_its_frame_was_when_that_was_published(tmp_path: Path, policy: str):
    made: dict[str, Any] = {}

    def on_tick(simulation: Simulation, tick: int) -> None:
        if tick == 0:
            ADDRESSES.clear()  # the policy was looked at before, with memory of its own
            made.update(reader=simulation.transitions(), ticks=simulation.ticks())

    simulation = recorded(tmp_path, on_tick=on_tick, **settings(policy))
    with Recording(tmp_path) as recording:
        ticks = list(recording.ticks())
        stamps = {name: recording.column(f"stamp_ns/{name}") for name in ("camera", "arm/joints")}
        published = recording.column("publish_ns")
        assert [part.rate_hz for part in recording.observation.stamped] == [None, 25.0]
    ages_ms = {name: (published - of_part) / NS_PER_MS for name, of_part in stamps.items()}
    row_of = {tick.header.tick: row for row, tick in enumerate(ticks)}
    acted = [tick for tick in ticks if tick.header.kind == TickKind.ACTED]
    assert len(acted) > 80
    for tick in acted:
        seen = row_of[tick.header.obs_tick]
        assert tick.action.tolist() == [np.float32(of_part[seen]) for of_part in ages_ms.values()]
    assert {float(tick.action[0]) for tick in acted} >= {30.0, 40.0, 50.0, 60.0}
    assert len(ADDRESSES) == 1, "a CUDA graph reads the same memory each time"
    held = [row for row, tick in enumerate(ticks) if tick.header.source == Source.HELD]
    assert max(ages_ms["arm/joints"][held]) >= 10, "what is shown again grows older"

    seen_ticks = made["ticks"].take()
    for name, of_part in ages_ms.items():
        of_tick = dict(zip((tick.header.tick for tick in ticks), of_part.astype(np.float32), strict=True))
        assert seen_ticks.ages_ms[name].tolist() == [of_tick[tick] for tick in seen_ticks.rows["tick"].tolist()]
    made["reader"].update()
    batch = made["reader"].sample(64, np.random.default_rng(0))
    assert_told(batch)
    following = made["reader"].take(20)
    assert following.next_ages_ms["camera"].tolist()[:-1] == following.action[1:, 0].tolist()
    assert batch.trunk_ages_ms is None

    found = simulation.summary()["part_ages"]
    assert list(found) == ["arm/joints", "camera"]
    for name, of_part in ages_ms.items():
        assert found[name]["age_ms"]["max"] == pytest.approx(of_part.max())
    assert found["camera"]["hz"] == pytest.approx(25, rel=0.2)
    assert found["camera"]["stale_ticks"] == 0
    assert (found["camera"]["nominal_hz"], found["arm/joints"]["nominal_hz"]) == (25.0, None)
    assert [row.label for row in part_rows(simulation.summary())] == [
        "arm/joints: age, ms", "arm/joints: measured, Hz", "camera: age, ms", "camera: measured, Hz",
    ]  # fmt: skip
    report = replayed(tmp_path)
    assert (report.first, report.ticks) == ([], len(ticks))


class TwoSpeeds(nn.Module):
    """How old its camera's picture is to the head, and how old it was to the trunk."""

    def __init__(self, observation_space: Any, action_space: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def think(self, observation: Any, context: Any) -> Any:
        age_ms = context.ages_ms["camera"][:, None]
        return age_ms, torch.cat([age_ms, age_ms], dim=1) * self.weight

    def act(self, observation: Any, features: Any, age_ticks: Any, context: Any) -> Any:
        return torch.cat([context.ages_ms["camera"][:, None], features], dim=1) * self.weight


def test_head_and_trunk_are_each_told_the_ages_of_their_own_frame(tmp_path: Path):
    made: dict[str, Any] = {}

    def on_tick(simulation: Simulation, tick: int) -> None:
        made.setdefault("reader", simulation.transitions())

    recorded(tmp_path, on_tick=on_tick, **settings("TwoSpeeds"))
    made["reader"].update()
    batch = made["reader"].take(len(made["reader"]))
    of_head = batch.features_age >= 0
    assert of_head.sum() > 40
    assert batch.ages_ms["camera"].tolist() == batch.action[:, 0].tolist()
    assert batch.trunk_ages_ms["camera"].tolist() == batch.action[:, 1].tolist()
    assert (batch.action[of_head, 0] != batch.action[of_head, 1]).any()
    goes_on = ~batch.truncated[:-1]
    assert batch.next_trunk_ages_ms["camera"][:-1][goes_on].tolist() == batch.action[1:, 1][goes_on].tolist()


def test_the_age_of_a_part_may_be_required_by_its_name():
    fields = settings("says_ages", clock="virtual", workers=1, latency="constant:5", ticks=100, on_reset="run")
    required = ["part_ages.camera.age_ms.p99<=90", "part_ages.arm/joints.age_ms.max<=1000", "stale_ticks<=0"]
    with pytest.raises(ConfigError, match="there is no number 'stale_ticks'"):
        make_config(**fields | {"require": required})
    required[-1] = "part_ages.camera.stale_ticks<=20"
    kept = Simulation(make_config(**fields | {"require": required})).run().summary()["contract"]
    assert kept["kept"], kept
    assert [one["key"] for one in kept["conditions"]] == [text.split("<")[0] for text in required]
    with pytest.raises(ContractBroken, match=r"part_ages\.camera\.stale_ticks<=20: \d+"):
        Simulation(make_config(**fields | {"require": required, "env_args": {"breaks_at": 20}})).run()
    with pytest.raises(ConfigError, match="of 'lidar' no age is known; the world gives time stamps of arm/joints, cam"):
        Simulation(make_config(**fields | {"require": ["part_ages.lidar.hz>=3"]}))
    with pytest.raises(ConfigError, match=r"expected part_ages.NAME.KEY.*KEY one of age_ms.p50"):
        make_config(**fields | {"require": ["part_ages.camera.age<=3"]})


def test_a_part_that_is_older_than_three_of_its_periods_is_counted_as_stale():
    fields = settings("says_ages", clock="virtual", workers=1, latency="constant:5", ticks=100)
    simulation = Simulation(make_config(**fields | {"env_args": {"breaks_at": 20}, "on_reset": "run"})).run()
    summary = simulation.summary()
    camera = summary["part_ages"]["camera"]
    assert camera["age_ms"]["max"] > 120
    assert 20 < camera["stale_ticks"] < 80
    assert summary["part_ages"]["arm/joints"]["stale_ticks"] == 0, "nobody says how often it is to come"
    (row,) = [row for row in part_rows(summary) if row.style]
    assert row.label == "camera: stale"


def test_a_world_that_says_nothing_of_it_has_none_and_a_policy_that_asks_is_refused():
    fields = {"clock": "virtual", "workers": 1, "latency": "constant:5", "ticks": 5}
    simulation = Simulation(make_config(env_id="CartPole-v1", policy="random", **fields)).run()
    assert "part_ages" not in simulation.summary()
    with pytest.raises(Exception, match=r"context\.ages_ms, which there is not"):
        Simulation(make_config(env_id="Pendulum-v1", policy=f"{HERE}:says_ages", **fields))


def test_on_the_virtual_clock_a_stamp_of_the_machines_time_is_refused_with_what_to_do():
    fields = settings("says_ages", clock="virtual", workers=1, latency="constant:5", ticks=5)
    with pytest.raises(
        EnvironmentFailed, match=r"part 'camera'.*in the future.*virtual clock; give the world rtcore_now_ns"
    ):
        Simulation(make_config(**fields | {"env_id": f"{HERE}:OnItsOwnTime"}))


def test_a_worker_on_another_host_has_the_ages_with_its_job():
    simulation = Simulation(make_config(**settings("says_ages", clock="virtual", workers=1, latency="constant:5")))
    own = simulation.player._policy
    config = make_config(**settings("says_ages"))
    sent = {name: value for name, value in config.to_jsonable().items() if name in SENT_SETTINGS}
    world = simulation._named_world()
    observation = type(world.observation).from_json(world.observation.to_json())
    assert observation == world.observation
    far = ServedPolicy(type(config).from_jsonable(sent), observation, world.action, "cpu")
    assert type(own.needs).from_json(far.ready()["needs"]) == own.needs
    context = bytearray(own.needs.context(world.action).nbytes)
    own.needs.context(world.action).views(context)["ages_ms"][:] = [0.25, 12.5]
    parts = (bytes(observation.nbytes), b"", bytes(context))
    answer = far.serve(Packet(Kind.JOB, 1, 1, (0, 0, 0), parts))
    assert np.frombuffer(answer.parts[0], np.float32).tolist() == [12.5, 0.25]
