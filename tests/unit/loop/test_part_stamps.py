"""What a world may say of when the parts of its observation were measured, and what is said where it says another."""

import time
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict

from rtcore.errors import ConfigError, EnvironmentFailed
from rtcore.loop.world import GymnasiumWorld
from rtcore.memory.history import History, HistoryReader
from rtcore.memory.layout import FrameHeader
from rtcore.memory.ring import FrameRing
from rtcore.scheduling.dispatch import Source
from rtcore.spaces import ObservationSpec

pytestmark = pytest.mark.unit
PARTS = Dict({"camera": Box(0, 255, (2,), np.uint8), "joints": Box(-1, 1, (1,)), "bare": Box(-1, 1, (1,))})
SEEN = {"camera": np.zeros(2, np.uint8), "joints": np.zeros(1, np.float32), "bare": np.zeros(1, np.float32)}
HUMAN = {"applied_action": [0.5], "source": "human"}


def now() -> int:
    return time.monotonic_ns()


class Says(gymnasium.Env[Any, Any]):
    """Returns these infos."""

    metadata: dict[str, Any] = {"render_fps": 50}  # noqa: RUF012
    observation_space = PARTS
    action_space = Box(-1, 1, (1,))
    noop_action = np.zeros(1, np.float32)

    def __init__(self, reset: Any, step: Any = None, rates: Any = None) -> None:
        self._reset_info, self._info = reset, step
        if rates is not None:
            self.part_rates_hz = rates

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return SEEN, self._reset_info

    def step(self, action: Any) -> Any:
        return SEEN, 0.0, False, False, self._info


def stamped(**stamps: Any) -> dict[str, Any]:
    return {"rtcore": {"stamps_ns": stamps}}


def world_of(*infos: Any, **how: Any) -> GymnasiumWorld:
    world = GymnasiumWorld(Says(*infos, **how), seed=0)
    world.reset()
    return world


def test_the_parts_that_the_first_reset_names_have_stamps_and_those_of_each_step_are_kept_with_its_tick():
    world = world_of(stamped(joints=5, camera=3), stamped(camera=np.int64(4), joints=7), rates={"camera": 30})
    parts = {part.name: (part.has_stamp, part.rate_hz) for part in world.observation.parts}
    assert parts == {"camera": (True, 30.0), "joints": (True, None), "bare": (False, None)}
    assert ObservationSpec.from_json(world.observation.to_json()) == world.observation
    assert world.keeps.names == ("stamp_ns.camera", "stamp_ns.joints")
    assert np.frombuffer(world.kept_with(b""), np.int64).tolist() == [3, 5]
    result = world.step(world.noop)
    assert (result.applied, result.source) == (None, None)
    assert np.frombuffer(world.kept_with(b""), np.int64).tolist() == [4, 7]


def test_stamps_go_with_what_was_applied():
    info = stamped(camera=4)
    info["rtcore"] |= HUMAN
    world = world_of(stamped(camera=3), info)
    world.reports_applied = True
    assert world.keeps.names == ("requested.action", "stamp_ns.camera")
    assert world.step(world.noop).source is Source.HUMAN
    assert np.frombuffer(world.kept_with(world.encode(world.noop)), np.int64).tolist() == [0, 4]


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({}, r'returned an info without \["rtcore"\]\["stamps_ns"\] from step\(\).*the parts camera, joints'),
        ({"rtcore": HUMAN}, r"returned an info without"),
        ({"rtcore": {"stamps_ns": [1, 2]}}, r"returned an info without"),
        ([], r"returned an info without"),
        (stamped(camera=1), r"gave no stamp of the part 'joints' from step\(\)"),
        (stamped(camera=1, joints=None), r"gave no stamp of the part 'joints'"),
        (stamped(camera=1, joints=1, bare=1), r"gave a stamp of the part 'bare'"),
        (stamped(camera=1, joints=1, hand=1), r"gave a stamp of the part 'hand'"),
        (stamped(camera=1.5, joints=1), r"part 'camera' the stamp 1.5 \(float\).*nanoseconds of CLOCK_MONOTONIC"),
        (stamped(camera=1, joints=True), r"part 'joints' the stamp True \(bool\)"),
        (stamped(camera=1, joints="now"), r"part 'joints' the stamp 'now' \(str\)"),
        (stamped(camera=1, joints=0), r"part 'joints' the stamp 0 from"),
        (stamped(camera=1, joints=-1), r"part 'joints' the stamp -1 from"),
        (stamped(camera=1, joints=1 << 70), r"part 'joints'.*in the future"),
        ({"rtcore": {"stamps_ns": {"camera": 1, "joints": 1}, "sauce": "human"}}, "expected .*applied_action"),
    ],
)
def test_what_is_no_stamp_is_refused_with_the_name_of_the_part(info: Any, said: str):
    world = world_of(stamped(camera=1, joints=1), info)
    with pytest.raises(EnvironmentFailed, match=said):
        world.step(world.noop)


def test_what_a_first_reset_cannot_declare_is_refused():
    for reset, rates, kind, said in (
        (
            stamped(hand=1),
            None,
            EnvironmentFailed,
            "a stamp of the part 'hand' from reset.*names of parts .bare, camera, jo",
        ),
        (stamped(), None, EnvironmentFailed, "no stamps"),
        ({"rtcore": {"stamps_ns": 5}}, None, EnvironmentFailed, "no stamps"),
        (
            stamped(camera=time.time_ns()),
            None,
            EnvironmentFailed,
            "in the future .*looks like CLOCK_REALTIME, the date",
        ),
        (stamped(camera=now() // 1000), None, EnvironmentFailed, "looks like CLOCK_MONOTONIC in microseconds"),
        ({}, {"camera": 30}, EnvironmentFailed, "has part_rates_hz, and its first reset.. no stamps"),
        (stamped(camera=1), {"joints": 30}, ConfigError, "part_rates_hz has 'joints': 30; expected rates above 0"),
        (stamped(camera=1), {"camera": 0}, ConfigError, "part_rates_hz has 'camera': 0"),
        (stamped(camera=1), {"camera": "30"}, ConfigError, "part_rates_hz has 'camera': '30'"),
        (stamped(camera=1), 30, ConfigError, "part_rates_hz is 30"),
    ):
        with pytest.raises(kind, match=said):
            world_of(reset, rates=rates)
    env = Says(stamped(camera=1))
    env.observation_space = PARTS["joints"]
    with pytest.raises(EnvironmentFailed, match="its observation is a Box, which has none; expected a Dict"):
        GymnasiumWorld(env, seed=0).reset()
    for said in ({}, HUMAN):
        late = world_of({}, {"rtcore": {"stamps_ns": {"camera": 1}} | said})
        with pytest.raises(EnvironmentFailed, match="it has 'stamps_ns', which that of its first reset.. did not have"):
            late.step(late.noop)


def test_a_reader_has_the_stamps_of_the_very_frame_that_it_read_or_nothing():
    world = world_of(stamped(camera=1))
    observation, keeps = world.observation, world.keeps
    ring = FrameRing.private(observation, 4, 2, keeps)
    frame = np.zeros(observation.shape, np.uint8)
    reader = HistoryReader(ring, History(), frame.copy(), with_stamps=True)
    for seq in range(3):
        ring.publish(frame, FrameHeader(frame_seq=seq), bytes(4), np.int64(100 + seq).tobytes())
    assert reader.read(2) is not None
    assert np.frombuffer(reader.stamps, np.int64).tolist() == [102]
    assert (reader.read(0), ring.read_stamps(0), ring.read_stamps(3)) == (None, None, None)
