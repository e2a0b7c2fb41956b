"""Whether observations are as their space declares, and who is to blame where a policy could make nothing of one."""

from __future__ import annotations

from collections import Counter

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from rtcore.clock import ManualClock
from rtcore.config.run import make_config
from rtcore.errors import EnvironmentFailed, PolicyError
from rtcore.spaces import DeclaredBounds, FramePacker, ObservationCheck, ObservationSpec
from rtcore.virtual.simulate import Simulation

pytestmark = pytest.mark.unit
BOX = spaces.Box(-1, 1, (3,), np.float32)
NAN, INF = np.nan, np.inf


def bounds_of(space: spaces.Space) -> DeclaredBounds:
    return DeclaredBounds(ObservationSpec.from_space(space))


@pytest.mark.parametrize(
    ("values", "says"),
    (
        ([0, 7, 0], "1 of 3 elements ([1] = 7 where -1 to 1 is declared)"),
        ([-2, 7, 0], "2 of 3 elements ([0] = -2 where -1 to 1 is declared)"),
        ([0, 0, NAN], "1 of 3 elements ([2] = nan where -1 to 1 is declared)"),
        ([1, 1.0000001, -1.0000001], None),
        ([0, 1.001, 0], "1 of 3 elements ([1] = 1.001 where -1 to 1 is declared)"),
    ),
)
def test_what_leaves_a_box_is_named_with_its_element_and_bounds_and_rounding_is_not(values, says) -> None:
    breach = bounds_of(BOX).breach(np.array(values, np.float32))
    assert (str(breach) if breach else None) == says


def test_each_element_has_bounds_of_its_own_and_an_infinite_one_holds_all_but_nan() -> None:
    low, high = np.array([-1, -INF, 0], np.float32), np.array([1, INF, 5], np.float32)
    check = bounds_of(spaces.Box(low, high)).breach
    assert check(np.array([1, INF, 5], np.float32)) is None
    assert str(check(np.array([1, 9, 6], np.float32))) == "1 of 3 elements ([2] = 6 where 0 to 5 is declared)"
    assert str(check(np.array([1, NAN, 5], np.float32))) == "1 of 3 elements ([1] = nan where -inf to inf is declared)"


def test_a_dict_s_part_is_named_and_pixels_are_not_read() -> None:
    parts = {"camera": spaces.Box(0, 255, (4, 4), np.uint8), "joints": spaces.Box(-3, 3, (2,), np.float64)}
    space = spaces.Dict(parts)
    spec = ObservationSpec.from_space(space)
    frame = FramePacker(spec, space).pack({"camera": np.zeros((4, 4), np.uint8), "joints": np.array([0.0, 4.0])})
    breach = DeclaredBounds(spec).breach(frame)
    assert str(breach) == "1 of 2 elements of part 'joints' ([1] = 4 where -3 to 3 is declared)"
    stacked = np.stack([frame, frame])
    assert str(DeclaredBounds(spec).not_finite(stacked)) == "None"
    spec.unpack(stacked)["joints"][1, 0] = INF
    assert "1 of 4 elements of part 'joints' ([1, 0] = inf" in str(DeclaredBounds(spec).not_finite(stacked))
    assert bounds_of(parts["camera"]).breach(None) is None  # type: ignore[arg-type]


@given(st.sampled_from(["u1", "i2", "i8", "f2", "f4", "f8"]), st.data())
def test_it_agrees_with_gymnasium_on_every_dtype(dtype: str, data: st.DataObject) -> None:
    low, high = sorted(data.draw(st.tuples(st.integers(0, 50), st.integers(0, 50))))
    box = spaces.Box(low, high, (3,), np.dtype(dtype))
    values = np.array(data.draw(st.lists(st.integers(0, 60), min_size=3, max_size=3)), dtype)
    assert (bounds_of(box).breach(values) is None) == box.contains(values)


def test_looking_takes_a_hundredth_of_the_time_at_most_and_tells_once() -> None:
    clock, counts, told = ManualClock(), Counter[str](), []

    def count(name: str) -> None:
        counts[name] += 1
        clock.advance_ns(10 * (name == "checked_frames"))  # what a look takes

    watch = ObservationCheck(ObservationSpec.from_space(BOX), clock, count, told.append)
    for tick in range(200):
        watch.check(np.full(3, 7 if tick >= 100 else 0, np.float32), tick)
        clock.advance_ns(100)
    # Each look costs 10 ns and is followed by 1000 ns without one.
    assert counts == {"checked_frames": 20, "frames_outside": 10}
    assert told == ["3 of 3 elements ([0] = 7 where -1 to 1 is declared) at tick 100"]


class Turns(gymnasium.Env):
    """Returns `value` from tick `late` on."""

    metadata = {"render_fps": 50}  # noqa: RUF012 - Gymnasium's own convention
    observation_space, action_space = BOX, spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, value: float = NAN, late: int = 30) -> None:
        self.value, self.late, self.num_made = value, late, 0

    def make(self) -> np.ndarray:
        self.num_made += 1
        return np.full(3, self.value if self.num_made > self.late else 0.5, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.make(), {}

    def step(self, action):
        return self.make(), 0.0, False, False, {}


def virtual(monkeypatch: pytest.MonkeyPatch, **env_args) -> Simulation:
    policy = env_args.pop("policy", "mlp")
    config = make_config(
        env_id="tests.unit.spaces.test_bounds:Turns",
        env_args=env_args,
        policy=policy,
        workers=1,
        ticks=60,
        clock="virtual",
        live=False,
    )
    return Simulation(config, latency=lambda job: 5_000_000)


def test_on_the_virtual_clock_the_world_is_blamed_for_its_nan_with_the_tick(monkeypatch) -> None:
    with pytest.raises(EnvironmentFailed, match=r"NaN or infinity at tick 30: 3 of 3 elements \(\[0\] = nan where -1"):
        virtual(monkeypatch).run()


def test_on_the_virtual_clock_what_leaves_its_space_is_said_once_and_counted(monkeypatch, said) -> None:
    observations = virtual(monkeypatch, value=7.0).run().summary()["observations"]
    assert observations["outside"] == observations["checked"] - 30 > 20
    (line,) = [line for line in said if "leave the space" in line]
    assert "3 of 3 elements ([0] = 7 where -1 to 1 is declared) at tick 30" in line
    assert observations["first"] in line


def test_an_observation_before_the_start_is_warned_of_in_the_header(monkeypatch, said) -> None:
    simulation = virtual(monkeypatch, value=7.0, late=0)
    (note,) = [note for note in simulation.header["world"]["notes"] if "leave the space" in note]
    assert note.startswith("WARNING: ")
    assert "in 1 of 1 observations before tick 0" in note
    simulation.run()
    assert not any("leave the space" in line for line in said)


def gives_up(observation_space, action_space):
    from torch import nn

    class GivesUp(nn.Module):
        def forward(self, x):
            if (x == 0.5).all():
                raise TimeoutError("no answer")
            return x[:, :1]

    return GivesUp()


def test_a_policy_that_raises_for_a_good_observation_is_told_how_not_to(monkeypatch) -> None:
    with pytest.raises(
        PolicyError, match=r"raised TimeoutError: no answer for the observation at tick 0.*--on-policy-error miss"
    ):
        virtual(monkeypatch, policy="tests.unit.spaces.test_bounds:gives_up").run()
