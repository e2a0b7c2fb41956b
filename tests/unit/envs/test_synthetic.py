"""The world for measuring: frames of any size, nothing to play."""

import numpy as np
import pytest

from rtcore.errors import ConfigError
from rtcore.loop.world import make_environment
from rtcore_envs.errors import SettingError

pytestmark = pytest.mark.unit

WORLD = "rtcore_envs.synthetic:SyntheticWorld"


def test_the_synthetic_world_is_found_by_its_import_string_and_every_byte_is_new_at_each_step():
    world = make_environment(WORLD, {"frame": "6x5x3"})
    first, _ = world.reset(seed=1)
    seen = [first.copy()]
    for _ in range(3):
        frame, reward, terminated, truncated, _ = world.step(world.action_space.sample())
        assert world.observation_space.contains(frame)
        assert np.all(frame != seen[-1])
        assert (reward, terminated, truncated) == (0.0, False, False)
        seen.append(frame.copy())
    assert seen[0].shape == (6, 5, 3)


@pytest.mark.parametrize("frame", ["144x", "0x5", "large", "-1x2"])
def test_a_frame_that_is_none_is_refused_with_an_example(frame):
    with pytest.raises((ConfigError, SettingError), match="210x160x3"):
        make_environment(WORLD, {"frame": frame})
