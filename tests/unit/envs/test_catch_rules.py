"""The rules in the ROM against a model written from roms/README.md, and each rule on memory poked for it."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from rtcore_envs.catch import FRAMES_PER_DROP, RAT_SPEED, CatchEnv
from rtcore_envs.catch_bot import LEFT, NOTHING, RAM_START, RAM_STOP, RIGHT, CatchBot, drops_of

pytestmark = pytest.mark.unit

STATE, LEVEL, FRAME, SCORE, CAUGHT, SEED = 0xC002, 0xC003, 0xC004, 0xC006, 0xC008, 0xC00A
PAY, WATER, BUCKET, RAT, DROP_TIMER, LOGIC_LINE_MAX = 0xC00E, 0xC00F, 0xC010, 0xC011, 0xC014, 0xC016
LANDED, DROPS, TOP_LINE = 0xC01F, 0xC020, 0xC080
OVER = 2
LANDS_NEXT = 88  # a drop that has fallen so far is down in the next frame


@pytest.fixture(scope="module")
def world():
    env = CatchEnv()
    yield env
    env.close()


@pytest.fixture
def env(world):
    world.reset(seed=11)
    return world


def word(env, address):
    return env.memory[address] | env.memory[address + 1] << 8


def poke_drop(env, x, fallen=LANDS_NEXT):
    """One drop and no other, now or soon."""
    for slot in range(8):
        env.memory[DROPS + 2 * slot + 1] = 0
    env.memory[DROPS], env.memory[DROPS + 1] = x, fallen
    env.memory[DROP_TIMER] = 200


def land(env, *, caught):
    """Reward and end of the frame in which a drop comes down in the bucket, or far from it."""
    poke_drop(env, env.memory[BUCKET] if caught else (140 if env.memory[BUCKET] < 80 else 20))
    _, reward, terminated, _, _ = env.step(NOTHING)
    return reward, terminated


@dataclass
class Cellar:
    """One game, from the frame after START on."""

    number: int
    level: int = 0
    score: int = 0
    caught: int = 0
    missed: int = 0
    pay: int = 0
    water: int = 0
    bucket: int = 80
    rat: float = 80.0
    timer: int = 12
    over: bool = False
    drops: list[list[int]] = field(default_factory=list)  # x, fallen; the oldest first

    def __post_init__(self):
        for _ in range(3):
            self.draw()
        self.choose_goal()

    def draw(self):
        self.number ^= (self.number << 7) & 0xFFFF
        self.number ^= self.number >> 9
        self.number ^= (self.number << 8) & 0xFFFF
        return self.number

    def choose_goal(self):
        drawn = self.draw() >> 3
        run = 48 + drawn % 64
        if drawn & 64:
            run = -run
        here = int(self.rat)
        goal = here + run if 12 <= here + run <= 148 else here - run
        self.goal = min(max(goal, 12), 148)

    def step(self, action):
        if self.over:
            return
        if action != NOTHING:
            self.bucket = min(max(self.bucket + (2 if action == RIGHT else -2), 12), 148)
        self.rat += min(RAT_SPEED[self.level] / 4, abs(self.goal - self.rat)) * (1 if self.goal > self.rat else -1)
        if self.rat == self.goal:
            self.choose_goal()
        for drop in self.drops:
            drop[1] += 2
        if self.drops and self.drops[0][1] == 90:
            self.land(self.drops.pop(0)[0])
        self.timer -= 1
        if self.timer == 0:
            self.drops.append([int(self.rat), 2])
            self.timer = FRAMES_PER_DROP[self.level]

    def land(self, x):
        self.over = self.caught + self.missed == 255
        if abs(x - self.bucket) > 12:
            self.missed += 1
            self.pay = max(self.pay - 2, 0)
            self.water += 1
            self.over = self.over or self.water == 32
            return
        if self.pay == 5:
            self.water = max(self.water - 1, 0)
        self.pay = min(self.pay + 1, 5)
        self.score += self.pay
        self.caught += 1
        if self.caught % 32 == 0 and self.level < 9:
            self.level += 1


def careless(bot, rng):
    """A player that does something else for a while now and then, so that it catches, misses and drowns."""
    state = {"ticks": 0, "action": NOTHING}

    def act(ram):
        if state["ticks"] == 0 and rng.random() < 0.01:
            state.update(ticks=int(rng.integers(10, 80)), action=int(rng.integers(3)))
        if state["ticks"]:
            state["ticks"] -= 1
            return state["action"]
        return bot.act(ram)

    return act


@pytest.mark.parametrize(("level", "ticks"), [(0, 1500), (9, 2600)])
def test_every_frame_agrees_with_the_model(level, ticks):
    env = CatchEnv(level=level)
    seen = set()
    for seed in (1, 2024):
        number = int(np.random.default_rng(seed).integers(1, 0x10000))
        env.reset(seed=seed)
        model = Cellar(number, level)
        model.step(NOTHING)  # the frame that reset runs
        act = careless(CatchBot(1), np.random.default_rng(seed))
        for tick in range(ticks):
            ram = env.memory[RAM_START:RAM_STOP]
            falling = [(45 - fallen // 2, x) for x, fallen in model.drops]
            assert drops_of(ram) == falling, tick
            got = (ram[0x10], ram[0x11], ram[0x0E], ram[0x0F], ram[0x03], word(env, SEED))
            expected = (model.bucket, int(model.rat), model.pay, model.water, model.level, model.number)
            assert got == expected, tick
            action, before = act(ram), model.score
            model.step(action)
            _, reward, terminated, truncated, info = env.step(action)
            assert (reward, terminated, truncated) == (model.score - before, model.over, False), tick
            assert (info["score"], info["caught"], info["missed"]) == (model.score, model.caught, model.missed), tick
            seen.add((model.pay, reward > 0))
            if model.over:
                break
    assert {pay for pay, _ in seen} == set(range(6))
    assert env.memory[LOGIC_LINE_MAX] < 144
    env.close()


@pytest.mark.parametrize(("away", "caught"), [(0, True), (12, True), (-12, True), (13, False), (-13, False)])
def test_the_bucket_reaches_twelve_pixels_to_either_side(env, away, caught):
    poke_drop(env, 80 + away)
    _, reward, *_, info = env.step(NOTHING)
    assert (reward, info["caught"], info["missed"]) == (float(caught), int(caught), int(not caught))


def test_the_bucket_moves_first_and_the_drop_lands_then(env):
    poke_drop(env, 80 + 14)
    assert env.step(RIGHT)[1] == 1.0


def test_a_drop_pays_one_more_than_the_one_before_up_to_five(env):
    assert [land(env, caught=True)[0] for _ in range(7)] == [1, 2, 3, 4, 5, 5, 5]
    assert word(env, SCORE) == 25


def test_a_miss_pays_nothing_and_lowers_the_next_pay_by_two(env):
    rewards = [
        land(env, caught=caught)[0] for caught in (True, True, True, True, True, False, True, False, False, True)
    ]
    assert rewards == [1, 2, 3, 4, 5, 0, 4, 0, 0, 1]
    assert land(env, caught=False)[0] == 0
    assert env.memory[PAY] == 0
    assert land(env, caught=False)[0] == 0
    assert env.memory[PAY] == 0


def test_the_water_rises_with_a_miss_and_falls_with_a_catch_at_five(env):
    for _ in range(4):
        land(env, caught=False)
    waters = []
    for _ in range(11):
        land(env, caught=True)
        waters.append(env.memory[WATER])
    assert waters == [4, 4, 4, 4, 4, 3, 2, 1, 0, 0, 0]


def test_the_game_is_over_when_the_water_reaches_the_floor(env):
    ends = [land(env, caught=False)[1] for _ in range(32)]
    assert ends == [False] * 31 + [True]
    assert env.memory[STATE] == OVER
    assert bytes(env.memory[TOP_LINE + 14 : TOP_LINE + 19]) == b"OVER "


@pytest.mark.parametrize("last", [True, False])
def test_the_game_is_done_when_256_drops_have_come_down(env, last):
    assert not any(land(env, caught=bool(drop % 4))[1] for drop in range(255))
    assert land(env, caught=last)[1]
    assert env.memory[STATE] == OVER
    assert bytes(env.memory[TOP_LINE + 14 : TOP_LINE + 19]) == b"DONE "
    env.reset()
    assert not land(env, caught=True)[1]


def test_game_over_stays_over_until_the_next_reset(env):
    env.memory[WATER] = 31
    assert land(env, caught=False)[1]
    for _ in range(3):
        assert land(env, caught=True) == (0.0, True)
        assert env.step(LEFT)[1:4] == (0.0, True, False)
    _, info = env.reset()
    assert info == {"score": 0, "caught": 0, "missed": 0, "pay": 0, "water": 0, "level": 0}
    assert env.step(NOTHING)[2] is False


@pytest.mark.parametrize(("action", "step", "end"), [(LEFT, -2, 12), (RIGHT, 2, 148)])
def test_the_bucket_moves_while_a_key_is_down_and_stops_at_the_wall(env, action, step, end):
    for frame in range(1, 50):
        env.step(action)
        assert env.memory[BUCKET] == (80 + step * frame if frame <= 34 else end)
    env.step(NOTHING)
    assert env.memory[BUCKET] == end


def test_the_level_rises_with_every_32_drops_caught_up_to_nine(env):
    levels = []
    for caught in range(1, 11 * 32 + 1):
        env.memory[LANDED] = 0
        land(env, caught=True)
        levels.append(env.memory[LEVEL])
        assert levels[-1] == min(caught // 32, 9)
        assert env.memory[TOP_LINE + 19] == ord(f"{levels[-1]}")
    assert max(levels) == 9


def test_score_figures_carry_and_wrap_and_the_reward_survives_it(env):
    for place, digit in enumerate("99998"):
        env.memory[TOP_LINE + place] = ord(digit)
    env.memory[SCORE], env.memory[SCORE + 1] = 0xFE, 0xFF
    env._score = 0xFFFE
    env.memory[PAY] = 4
    assert land(env, caught=True)[0] == 5.0
    assert bytes(env.memory[TOP_LINE : TOP_LINE + 5]) == b"00003"
    assert word(env, SCORE) == 3


@pytest.mark.parametrize("level", range(10))
def test_the_level_says_how_often_a_drop_falls_and_how_fast_the_rat_runs(level):
    env = CatchEnv(level=level)
    _, info = env.reset(seed=3)
    assert info["level"] == level
    assert env.memory[TOP_LINE + 19] == ord(f"{level}")
    born, way = [], []
    for tick in range(60):
        env.step(NOTHING)
        born += [tick] * env.memory[DROPS : DROPS + 16][1::2].count(2)
        way.append(word(env, 0xC012))
    assert set(np.diff(born)) == {FRAMES_PER_DROP[level]}
    assert max(abs(np.diff(way))) == RAT_SPEED[level]
    env.close()


@pytest.mark.parametrize("level", [-1, 10, 0.5, True, "3", None])
def test_a_level_that_the_game_does_not_have_is_refused(level):
    with pytest.raises(ValueError, match="from 0 to 9"):
        CatchEnv(level=level)


def test_the_seed_decides_the_way_of_the_rat(env):
    def way(seed):
        env.reset(seed=seed)
        found = []
        for _ in range(200):
            env.step(NOTHING)
            found.append(env.memory[RAT])
        return tuple(found)

    ways = {seed: way(seed) for seed in range(15)}
    assert len(set(ways.values())) == 15
    assert ways[4] == way(4)
    assert all(12 <= x <= 148 for found in ways.values() for x in found)


def test_all_that_falls_is_on_the_screen_where_the_memory_says(env):
    for _ in range(40):
        env.step(NOTHING)
    env.step(RIGHT)
    ram = env.memory[RAM_START:RAM_STOP]
    screen = env.step(NOTHING)[0]  # the picture is one frame behind
    small = 84 / 160, 84 / 144
    for frames, x in drops_of(ram):
        top = 14 + (90 - 2 * frames)
        if top > 24:
            assert screen[round((top + 8) * small[1]), round(x * small[0])] < 64
    bucket_row = screen[round(126.5 * small[1])]
    dark = np.flatnonzero(bucket_row < 64)
    assert abs(dark.mean() / small[0] - ram[0x10]) < 2
    assert 10 <= len(dark) <= 14
