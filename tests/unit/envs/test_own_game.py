"""`rtcore/GameBoy-v0`: a game that is described in words, on the two programs of ours in a real emulator."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rtcore_envs.blocks import BlocksEnv
from rtcore_envs.errors import ExpressionError, RomError, SettingError, StateError
from rtcore_envs.owngame import OwnGameEnv
from rtcore_envs.probe import COUNT, HELD, probe_rom
from rtcore_envs.rom import COLOUR_FLAG, COLOUR_ONLY, HEADER_CHECKSUM, header_checksum
from rtcore_envs.states import write_state
from tests.support.probe_worlds import NOTHING, Probe, poke

pytestmark = pytest.mark.unit

BLOCKS = Path(str(files("rtcore_envs") / "roms" / "blocks.gb"))
#: `rtcore/Blocks-v0` in words.
NARROWS = {
    "rom": BLOCKS,
    "start": "wait 100, randomize, start 1",
    "randomize": "u16[0xC00A]",
    "reward": "delta(u16[0xC006]) & 0xFFFF",
    "done": "u8[0xC002] == 2",
    "info": "score: u16[0xC006], lines: u16[0xC008], level: u8[0xC003], pieces: u16[0xC012]",
}


@pytest.fixture
def make(tmp_path):
    """Makes a world over a probe; closes it afterwards."""
    made = []
    (tmp_path / "probe.gb").write_bytes(probe_rom("SOMETHING"))

    def build(**arguments):
        env = OwnGameEnv(**{"rom": tmp_path / "probe.gb", "reward": 0, "done": False} | arguments)
        made.append(env)
        return env

    yield build
    for env in made:
        env.close()


def rewards(env, values, address=0xC100):
    """What is paid while a byte takes these values, one after the other."""
    paid = []
    for value in values:
        poke(env, {address: value})
        paid.append(env.step(env.noop_action)[1])
    return paid


# -- the proof: a world that is known, described ------------------------------------------------------------------


def test_blocks_in_words_is_blocks_frame_by_frame():
    own, known = OwnGameEnv(**NARROWS), BlocksEnv()
    rng = np.random.default_rng(3)
    num_episodes = num_paid = 0
    for seed in (11, 12):
        ours, theirs = own.reset(seed=seed), known.reset(seed=seed)
        for _ in range(900):
            np.testing.assert_array_equal(ours[0], theirs[0])
            assert {name: ours[-1][name] for name in theirs[-1]} == theirs[-1]
            action = int(rng.choice([1, 2, 4, 5, 6]))
            ours, theirs = own.step(action), known.step(action)
            assert ours[1:4] == theirs[1:4]
            num_paid += theirs[1] > 0
            if theirs[2]:
                num_episodes += 1
                np.testing.assert_array_equal(ours[0], theirs[0])
                ours, theirs = own.reset(), known.reset()
    own.close()
    known.close()
    assert num_episodes >= 2
    assert num_paid >= 1


def test_gymnasium_makes_it_by_id_and_its_checker_has_no_complaint():
    env = gymnasium.make("rtcore/GameBoy-v0", **NARROWS, max_episode_steps=5)
    check_env(env.unwrapped)
    env.reset(seed=0)
    assert [env.step(NOTHING)[3] for _ in range(5)] == [False] * 4 + [True]
    env.close()


def test_the_seed_says_which_number_goes_into_memory_and_it_is_never_0(make):
    env = make(randomize="u16[0xC200]")
    drawn = []
    for seed in (1, 2, 1):
        env.reset(seed=seed)
        drawn.append(env.memory[0xC200] | env.memory[0xC201] << 8)
        env.reset()
        drawn.append(env.memory[0xC200] | env.memory[0xC201] << 8)
    assert drawn[:2] == drawn[4:]
    assert len(set(drawn)) == 4
    assert 0 not in drawn


# -- rewards and ends ---------------------------------------------------------------------------------------------


def test_a_difference_is_paid_in_the_frame_of_the_change_and_never_at_the_reset(make):
    env = make(reward="delta(u8[0xC100])", done="u8[0xC100] > 200")
    poke(env, {0xC100: 99})
    env.reset(seed=0)
    assert rewards(env, [0, 3, 3, 10, 7]) == [0, 3, 0, 7, -3]
    poke(env, {0xC100: 201})
    assert env.step(NOTHING)[1:3] == (194.0, True)
    env.reset()
    assert rewards(env, [0]) == [0]


def test_a_difference_behind_an_and_is_that_of_the_last_frame(make):
    env = make(reward="u8[0xC101] and delta(u8[0xC100])")
    env.reset(seed=0)
    assert rewards(env, [5, 6]) == [0, 0]
    poke(env, {0xC101: 1})
    assert rewards(env, [8]) == [2]


def test_what_was_at_the_reset_is_remembered(make):
    env = make(done="u8[0xC100] < first(u8[0xC100])", reward="prev(u8[0xC100])", start="wait 100")
    env.reset(seed=0)
    assert rewards(env, [3, 4]) == [0, 3]
    assert not env.step(NOTHING)[2]


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        ("1 / (u8[0xC100] - 255)", "divides by zero"),
        ("u8[0xC101] % (u8[0xC100] - 255)", "divides by zero"),
        ("delta(1 / (u8[0xC100] - 255))", "divides by zero"),
        (" * ".join(["(u8[0xC100] + 9e15)"] * 21), "expected a finite number"),
        (" * ".join(["u32[0xC100]"] * 40), "too large"),
    ],
)
def test_a_reward_that_is_no_number_is_an_error_that_names_it(make, reward, said):
    env = make(reward=reward)
    env.reset(seed=0)
    poke(env, dict.fromkeys(range(0xC100, 0xC104), 255))
    with pytest.raises(ArithmeticError, match=said) as raised:
        env.step(NOTHING)
    assert str(raised.value).startswith("reward: ")


def test_info_shows_what_is_asked_for(make):
    env = make(info={"points": "bcd3[0xC100]", "alive": "u8[0xC103] == 0"})
    env.reset(seed=0)
    poke(env, {0xC100: 0x34, 0xC101: 0x12, 0xC102: 0x01})
    assert env.step(NOTHING)[4] == {"state": "power-on", "points": 11234, "alive": True}


# -- actions ------------------------------------------------------------------------------------------------------


def test_actions_are_the_combinations_that_were_named(make):
    env = make(actions="noop, A, start, select, Left+a")
    env.reset(seed=0)
    held = []
    for action in range(5):
        env.step(action)
        held.append(env.memory[HELD])
    assert held == [0, 1, 8, 4, 0x21]
    assert env.get_action_meanings() == ["NOOP", "A", "START", "SELECT", "A+LEFT"]
    assert (env.action_space, env.noop_action) == (gymnasium.spaces.Discrete(5), 0)


def test_an_action_lasts_for_frame_skip_frames_whose_rewards_are_added_up(make):
    env = make(frame_skip=4, reward=f"delta(u16[0x{COUNT:X}])", done="u8[0xC100] == 1")
    assert env.metadata["render_fps"] == pytest.approx(59.7275 / 4, abs=1e-4)
    env.reset(seed=0)
    assert [env.step(NOTHING)[1] for _ in range(3)] == [4, 4, 4]
    poke(env, {0xC100: 1})
    assert env.step(NOTHING)[1:3] == (1, True), "nothing is played after the end"


# -- starts -------------------------------------------------------------------------------------------------------


def test_a_script_is_run_once_up_to_what_is_drawn_and_the_rest_at_each_reset(make):
    env = make(start="wait 200, a 3, wait 1-9, b 2", info=f"count: u16[0x{COUNT:X}]")
    assert env.memory[HELD] == 0
    counts = [env.reset(seed=seed)[1]["count"] for seed in (5, None, 5, None, 6, 7, 8)]
    assert counts[:2] == counts[2:4]
    assert len(set(counts)) > 2
    assert max(counts) - min(counts) <= 8
    assert env.memory[HELD] == 0


@pytest.mark.parametrize("start", ["wait 100, left", "wait 90, left 5, wait 5-8"])
def test_no_key_of_the_script_is_down_in_the_episode(make, start):
    env = make(start=start)
    for _ in range(2):
        env.reset(seed=0)
        assert env.memory[HELD] == 0
        env.step(NOTHING)
        assert env.memory[HELD] == 0


def test_a_key_that_is_down_in_a_start_state_is_released(make, tmp_path):
    probe = Probe(tmp_path, "tetris")
    env = OwnGameEnv(rom=probe.path, reward=0, done=False)
    env.reset(seed=0)
    env.step(0)
    assert env.memory[HELD] == 1
    path = tmp_path / "held.rtstate"
    write_state(path, env._saved_state(), rom_sha256=probe.known.sha256, game="x", world="gameboy", pyboy="2.8.1")
    env.close()
    env = OwnGameEnv(rom=probe.path, reward=0, done=False, start=path)
    assert env.reset(seed=0)[1] == {"state": "held"}
    assert env.memory[HELD] == 0
    env.close()


def test_episodes_begin_with_start_states_and_then_the_script(tmp_path):
    probe = Probe(tmp_path, "pokemon-red")
    probe.save("1", "battles", {0xC100: 1})
    probe.save("2", "gameboy", {0xC100: 2})
    Probe(tmp_path, "pokemon-blue").save("foreign", "gameboy", {0xC100: 3})
    probe = Probe(tmp_path, "pokemon-red")
    env = OwnGameEnv(
        rom=probe.path, reward=0, done=0, states=probe.states, start="a 4", info=f"it: u8[0xC100], n: u8[0x{COUNT:X}]"
    )
    seen = [env.reset(seed=0 if number == 0 else None)[1] for number in range(3)]
    assert [(info["state"], info["it"]) for info in seen] == [("1", 1), ("2", 2), ("1", 1)]
    assert seen[0]["n"] == seen[2]["n"]
    env.close()
    with pytest.raises(StateError, match="foreign"):
        OwnGameEnv(rom=probe.path, reward=0, done=0, start=str(probe.states / "foreign.rtstate"))


# -- the colour machine -------------------------------------------------------------------------------------------


def colour_rom(flag):
    rom = bytearray(probe_rom("COLOURFUL"))
    rom[COLOUR_FLAG] = flag
    rom[HEADER_CHECKSUM] = header_checksum(bytes(rom))
    return bytes(rom)


def test_a_cartridge_for_the_colour_machine_is_run_on_it_with_its_banks(make, tmp_path):
    (tmp_path / "probe.gb").write_bytes(colour_rom(COLOUR_ONLY))
    env = make(info="two: u8[2:0xD000]", observation="rgb")
    first, _ = env.reset(seed=0)
    assert (first.shape, first.dtype) == ((144, 160, 3), np.uint8)
    env.memory[2, 0xD000] = 7
    frame, *_, info = env.step(NOTHING)
    assert info["two"] == 7
    assert not np.shares_memory(first, frame)
    with pytest.raises(ExpressionError, match="expected a bank"):
        make(reward="u8[0xD000]")
    with pytest.raises(RomError, match="for the Game Boy Color only"):
        make(machine="grey")


def test_colours_are_grey_by_their_brightness(make, tmp_path):
    (tmp_path / "probe.gb").write_bytes(colour_rom(COLOUR_ONLY))
    env = make(observation="native", render_mode="rgb_array")
    frame, _ = env.reset(seed=0)
    red, green, blue = (env.render()[..., channel].astype(float) for channel in range(3))
    np.testing.assert_allclose(frame, 0.299 * red + 0.587 * green + 0.114 * blue, atol=1.5)


def test_a_cartridge_for_both_is_run_on_the_grey_machine_unless_told_otherwise(make, tmp_path):
    (tmp_path / "probe.gb").write_bytes(colour_rom(0x80))
    make(reward="u8[0xD000]")
    make(machine="colour", reward="u8[1:0xD000]")


def test_a_title_that_pyboy_knows_changes_nothing(make, tmp_path, capfd):
    """PyBoy watches the game 2048 by itself, and fails at every tick for want of a file beside the ROM."""
    (tmp_path / "probe.gb").write_bytes(probe_rom("2048"))
    env = make()
    env.reset(seed=0)
    env.step(NOTHING)
    assert capfd.readouterr().err == ""


# -- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rom": None}, "rom: not given"),
        ({"reward": None}, "reward: not given"),
        ({"done": None}, "done: not given"),
        ({"reward": "delta(score)"}, "reward: got score at column 7"),
        ({"done": "u8[0x10000]"}, "done: got u8 at 0x10000"),
        ({"info": "score"}, "info: got 'score', expected NAME: EXPRESSION"),
        ({"info": "a: b"}, "info a: got b"),
        ({"info": {"state": "u8[x]"}}, "info state: got x"),
        ({"actions": "A,left"}, "expected noop among them"),
        ({"actions": "noop,jump"}, "got 'jump', expected noop, or keys: a b start"),
        ({"actions": "noop,A,a"}, "got 'a' twice"),
        ({"actions": "noop,left+right"}, "one side of the pad"),
        ({"actions": ""}, "actions: got ''"),
        ({"start": "wait"}, "got 'wait' without a number"),
        ({"start": "press a"}, "got 'press'"),
        ({"start": "a 5, a 5"}, "one long press"),
        ({"start": "wait 5-2"}, "A below B"),
        ({"start": "wait 0"}, "at least 1 frame"),
        ({"start": "wait 999999"}, "an hour of the game"),
        ({"start": "randomize"}, "nothing to write to"),
        ({"start": "x.rtstate", "states": "y"}, "expected one of them"),
        ({"start": "nowhere/x.rtstate"}, "no such file"),
        ({"randomize": "u8[0xC000] + 1"}, "one value in the game's memory"),
        ({"randomize": "u8[0x4000]"}, "one value in the game's memory"),
        ({"randomize": "bcd2[0xC000]"}, "one value in the game's memory"),
        ({"frame_skip": 0}, "frame_skip: got 0"),
        ({"frame_skip": True}, "frame_skip: got True"),
        ({"machine": "color"}, "machine: got 'color'"),
        ({"observation": "cmyk"}, "observation='cmyk'"),
        ({"symbols": "nowhere.sym"}, "symbol file nowhere.sym: got no such file"),
    ],
)
def test_a_mistake_is_named_with_what_was_expected(make, wrong, said):
    with pytest.raises(SettingError) as raised:
        make(**wrong)
    assert said in str(raised.value)


def test_names_of_a_symbol_file_stand_for_addresses(make, tmp_path):
    symbols = tmp_path / "game.sym"
    symbols.write_text("; File generated by rgblink\n00:c100 wScore\n01:d005 wPlayer.lives ; comment\n00:ffb8 hMode\n")
    env = make(
        symbols=symbols,
        info={"score": "u16[wScore]", "second": "u8[wScore + 1]", "lives": "u8[wPlayer.lives]", "mode": "u8[hMode]"},
    )
    env.reset(seed=0)
    poke(env, {0xC100: 1, 0xC101: 2, 0xD005: 3, 0xFFB8: 4})
    info = env.step(NOTHING)[4]
    assert {name: info[name] for name in ("score", "second", "lives", "mode")} == {
        "score": 513,
        "second": 2,
        "lives": 3,
        "mode": 4,
    }
    with pytest.raises(ExpressionError, match="did you mean wScore"):
        make(symbols=symbols, reward="u8[wScor]")
    with pytest.raises(ExpressionError, match=r"names need symbols=FILE\.sym"):
        make(reward="u8[wScore]")
    symbols.write_bytes(bytes(range(256)))
    with pytest.raises(SettingError, match="BANK:ADDRESS NAME"):
        make(symbols=symbols)
