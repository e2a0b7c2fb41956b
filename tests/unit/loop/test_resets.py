"""Episodes that begin when the program that steps the world says so: the loop's and the world's part of it."""

from __future__ import annotations

import math
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest

from rtcore.channel import Channel
from rtcore.clock import ManualClock, TickGrid
from rtcore.errors import ConfigError
from rtcore.loop.resets import ResetOrders, reset_order
from rtcore.loop.tickloop import TickLoop
from rtcore.loop.world import GymnasiumWorld
from rtcore.scheduling.dispatch import Dispatcher, TickKind
from rtcore.scheduling.schedule import Schedule, ScheduleParams

pytestmark = pytest.mark.unit

TICK_NS = 10_000_000


class Start(gymnasium.Env[Any, Any]):
    """Shows the number its episode began with; ends it after three steps."""

    observation_space = gymnasium.spaces.Box(0, 2**31, (1,), np.int64)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        self.start = (options or {}).get("start", int(self.np_random.integers(1, 2**31)))
        return np.array([self.start]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.array([self.start]), 1.0, self.steps >= 3, False, {}


class Nobody:
    """Workers of which none is up; keeps what is published."""

    def __init__(self) -> None:
        self.kinds: list[TickKind] = []
        self.ticks: list[int] = []

    @property
    def next_frame_seq(self) -> int:
        return len(self.ticks)

    def collect(self, tick: int) -> list[Any]:
        return []

    def membership(self) -> list[Any]:
        return []

    def post(self, jobs: Any, booked_ns: int) -> None: ...

    def stage(self, header: Any) -> None: ...

    def publish(self, frame: Any, header: Any, action: bytes, kept: bytes = b"") -> None:
        self.ticks.append(header.tick)
        self.kinds.append(TickKind(header.kind))

    def announce(self, jobs: Any) -> None: ...

    def prewake(self, worker: int) -> None: ...


class Silent:
    """A recorder that keeps nothing."""

    def begin_tick(self, tick: int, now_ns: int) -> None: ...

    def end_tick(self, tick: Any) -> None: ...

    def answer_taken(self, answer: Any) -> None: ...

    def job_ended(self, row: Any) -> None: ...

    def episode_ended(self, episode_return: float, episode_ticks: int) -> None: ...

    def invariant_broken(self, invariant: Any, tick: int) -> None:
        raise AssertionError(f"{invariant!r} does not hold at tick {tick}")


class Wishes:
    """Resets that a test asks for."""

    def __init__(self) -> None:
        self.open = 0

    def begin_if_requested(self) -> bool:
        taken, self.open = self.open > 0, 0
        return taken


def make_loop(wishes: Wishes, clock: ManualClock) -> tuple[TickLoop, Nobody]:
    nobody = Nobody()
    schedule = Schedule(ScheduleParams("max-time", Fraction(100), 1, TICK_NS, adapt=False), 1)
    loop = TickLoop(
        GymnasiumWorld(Start(), seed=1),
        TickGrid(0, Fraction(100)),
        clock,
        schedule,
        Dispatcher(),
        nobody,
        Silent(),
        resets=wishes,
    )
    return loop, nobody


def test_an_episode_begins_when_it_is_asked_for_and_after_its_end_the_loop_waits() -> None:
    wishes = Wishes()
    loop, nobody = make_loop(wishes, ManualClock())
    assert loop.awaits_reset
    wishes.open = 1
    for _ in range(4):
        assert not nobody.kinds or not loop.awaits_reset
        loop.run_tick()
    assert nobody.kinds == [TickKind.RESET, TickKind.MISSED, TickKind.IDLE, TickKind.IDLE]
    assert loop.awaits_reset


def test_an_episode_can_be_cut_short_by_asking_for_another() -> None:
    wishes = Wishes()
    loop, nobody = make_loop(wishes, ManualClock())
    wishes.open = 1
    loop.run_tick()
    loop.run_tick()
    wishes.open = 1
    loop.run_tick()
    loop.run_tick()
    assert nobody.kinds == [TickKind.RESET, TickKind.MISSED, TickKind.RESET, TickKind.LEAD_IN]


def test_ticks_that_went_by_while_the_world_waited_are_not_skipped_ones_and_the_grid_stays() -> None:
    wishes, clock = Wishes(), ManualClock()
    loop, nobody = make_loop(wishes, clock)
    clock.advance_ns(7 * TICK_NS + 1)
    assert loop.pass_over(clock.now_ns()) == 8, "ticks 0 to 7"
    assert loop.pass_over(clock.now_ns()) == 0
    wishes.open = 1
    loop.run_tick()
    assert nobody.ticks == [8]
    assert clock.now_ns() == 8 * TICK_NS


def test_waiting_that_was_shorter_than_a_tick_passes_nothing_over() -> None:
    loop, nobody = make_loop(wishes := Wishes(), clock := ManualClock())
    wishes.open = 1
    loop.run_tick()
    clock.advance_ns(TICK_NS - 1)
    assert loop.pass_over(clock.now_ns()) == 0
    loop.run_tick()
    assert nobody.ticks == [0, 1]


# -- the world ---------------------------------------------------------------------------------------------------


def starts(world: GymnasiumWorld, *orders: tuple[int | None, dict[str, Any] | None]) -> list[int]:
    found = []
    for seed, options in orders:
        world.order_reset(seed, options)
        found.append(int(world.reset().frame[0]))
    return found


def test_the_first_episode_that_is_asked_for_is_that_of_the_runs_seed_and_the_next_is_another() -> None:
    world = GymnasiumWorld(Start(), seed=5)
    first = int(world.reset().frame[0])
    found = starts(world, (None, None), (None, None))
    assert found[0] == first
    assert found[1] != first


def test_a_seed_and_options_count_for_the_one_reset_they_come_with() -> None:
    world = GymnasiumWorld(Start(), seed=5)
    found = starts(world, (3, None), (None, None), (None, {"start": 9}), (None, None), (3, None), (None, None))
    assert found[2] == 9
    assert found[:2] == found[4:]
    assert len(set(found)) == 4


def test_a_seed_makes_random_stand_ins_the_same_again() -> None:
    world = GymnasiumWorld(Start(), seed=5, on_missing="random")
    runs = []
    for _ in range(2):
        world.order_reset(3, None)
        world.reset()
        runs.append([world.stand_in()[0] for _ in range(20)])
    assert runs[0] == runs[1]


def test_options_of_any_length_are_carried_and_those_that_no_process_can_get_are_refused() -> None:
    assert reset_order(4, None, {"level": [1, "a"], "text": "x" * 200_000}).reset_seq == 4
    with pytest.raises(ConfigError, match="cannot be handed to another process"):
        reset_order(1, None, {"at": np.zeros(3)})


class Words(dict[str, int]):
    def __missing__(self, name: str) -> int:
        return 0


def test_a_long_wish_for_a_reset_counts_once_all_of_it_is_there_and_delays_no_tick() -> None:
    far, end = Channel.pair()
    channel, taken, words = Channel(end), [], Words()
    shared: Any = SimpleNamespace(
        run_control=words, env_status=words, env_counters=words, ring=SimpleNamespace(next_seq=5)
    )
    resets = ResetOrders(shared, channel, lambda seed, options: taken.append((seed, options)), TICK_NS)
    options = {"text": "x" * 2_000_000, 3: (math.inf, None)}
    assert not far.post(reset_order(1, 7, options)), "the kernel does not take all of it at once"
    words["reset_seq"] = 1
    ticks = 1
    while not resets.begin_if_requested():
        assert words["reset_seen"] == 0
        far.flush()
        ticks += 1
    assert ticks > 1
    assert (taken, words["reset_seen"], words["reset_frame_seq"]) == ([(7, options)], 1, 5)
    assert not resets.begin_if_requested()
    far.close()
    channel.close()
