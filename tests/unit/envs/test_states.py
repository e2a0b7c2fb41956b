"""Start states: what is in the file, which are used, which are refused."""

from __future__ import annotations

import hashlib
import json
import os
import random
import zlib

import pytest

from rtcore_envs.errors import RomError, StateError, SymbolFileError
from rtcore_envs.memorymap import read_symbols
from rtcore_envs.rom import read_rom
from rtcore_envs.states import read_state, state_files, state_folder
from tests.support.probe_worlds import NOTHING, Probe

pytestmark = pytest.mark.unit

MY_HP, THEIR_HP = 0xD16D, 0xD8A6  # the low bytes of the first of each side
MARK = 0xC100


@pytest.fixture(scope="module")
def red(tmp_path_factory):
    probe = Probe(tmp_path_factory.mktemp("red"), "pokemon-red")
    for number in range(4):
        probe.save(f"route {number}", "battles", {MY_HP: 9, THEIR_HP: 9, MARK: number})
    probe.save("safari", "catching")
    return probe


def starts(env, num_episodes, **first):
    """Names of the start states of some episodes; each is checked against memory."""
    names = []
    for number in range(num_episodes):
        _, info = env.reset(**first) if number == 0 else env.reset()
        assert info["state"] == f"route {env.memory[MARK]}"
        names.append(env.memory[MARK])
    return names


def test_states_are_cycled_by_name_and_a_seed_says_where_it_begins(red):
    env = red.make("battles", states=red.states)
    assert starts(env, 7) == [0, 1, 2, 3, 0, 1, 2]
    assert starts(env, 5, seed=6) == [2, 3, 0, 1, 2]
    env.close()


def test_states_are_sampled_by_the_seed(red):
    env = red.make("battles", states=red.states, state_order="sample")
    first = starts(env, 30, seed=3)
    assert starts(env, 30, seed=3) == first
    assert starts(env, 30, seed=4) != first
    assert set(first) == {0, 1, 2, 3}
    env.close()


def test_an_episode_can_be_given_its_state_by_name_or_path(red):
    env = red.make("battles", states=red.states)
    _, info = env.reset(seed=0, options={"state": "route 2"})
    assert (info["state"], env.memory[MARK]) == ("route 2", 2)
    _, info = env.reset(options={"state": str(red.states / "safari.rtstate")})
    assert info["state"] == "safari"
    _, info = env.reset()
    assert info["state"] == "route 0", "the cycle goes on where it was"
    env.close()


def test_an_unknown_name_is_refused_with_the_near_ones_and_the_world_goes_on(red):
    env = red.make("battles", states=red.states)
    with pytest.raises(StateError, match=r"one of the 4 .*Did you mean .*route 3"):
        env.reset(seed=0, options={"state": "rout 3"})
    with pytest.raises(ValueError, match="expected None or {'state': NAME}"):
        env.reset(options={"status": "route 3"})
    assert starts(env, 2) == [0, 1]
    env.close()


def test_without_a_folder_the_users_own_is_used(red, monkeypatch, tmp_path):
    monkeypatch.setenv("RTCORE_STATE_DIR", str(red.states))
    env = red.make("battles")
    assert starts(env, 2) == [0, 1]
    env.close()
    monkeypatch.delenv("RTCORE_STATE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_folder() == tmp_path / ".local/share/rtcore/states"
    with pytest.raises(StateError, match=r"got no start state, expected at least one for battles .*rtcore-rom play"):
        red.make("battles")


def test_states_of_another_rom_or_world_in_the_folder_are_not_used_and_said_if_none_is_left(red, tmp_path):
    blue = Probe(tmp_path, "pokemon-blue")
    with pytest.raises(StateError, match=r"5 for battles of pokemon-red, catching of pokemon-red") as caught:
        blue.make("battles", states=red.states)
    assert blue.known.sha256 in str(caught.value)


def test_a_state_of_another_rom_is_refused_and_both_hashes_are_named(red, tmp_path):
    blue = Probe(tmp_path, "pokemon-blue")
    env = blue.make("battles", states=blue.save("own", "battles"))
    foreign = red.states / "route 1.rtstate"
    for refused in (lambda: env.reset(options={"state": str(foreign)}), lambda: blue.make("battles", states=foreign)):
        with pytest.raises(StateError, match="a state of pokemon-red") as caught:
            refused()
        assert red.known.sha256 in str(caught.value)
        assert blue.known.sha256 in str(caught.value)
    env.close()


def test_a_damaged_state_in_the_folder_is_refused_at_once(red, tmp_path):
    good = (red.states / "route 1.rtstate").read_bytes()
    (tmp_path / "a.rtstate").write_bytes(good)
    (tmp_path / "b.rtstate").write_bytes(good[: len(good) // 2])
    with pytest.raises(StateError, match=r"b\.rtstate: .*wrong checksum"):
        red.make("battles", states=tmp_path)


@pytest.mark.parametrize("where", ["magic", "checksum", "header", "state"])
def test_any_flipped_bit_is_noticed(red, tmp_path, where):
    content = (red.states / "route 1.rtstate").read_bytes()
    lines = content.split(b"\n", 2)
    spans = {"magic": (0, 15), "checksum": (15, len(lines[0])), "header": (80, 80 + len(lines[1]))}
    first, last = spans.get(where, (81 + len(lines[1]), len(content)))
    rng, path = random.Random(7), tmp_path / "flipped.rtstate"
    for _ in range(40):
        flipped = bytearray(content)
        flipped[rng.randrange(first, last)] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(StateError, match=r"flipped\.rtstate"):
            read_state(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"", "an empty file"),
        (b"\x0f" * 153_524, "--from"),
        (random.Random(0).randbytes(5000), "another kind of file"),
    ],
)
def test_a_file_that_is_no_start_state_is_refused_with_what_to_do(tmp_path, content, said):
    path = tmp_path / "x.rtstate"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StateError, match=r"x\.rtstate") as caught:
        read_state(path)
    assert said in str(caught.value)


def test_a_folder_is_no_start_state(tmp_path):
    with pytest.raises(StateError, match="got a folder"):
        read_state(tmp_path)


def test_a_state_that_the_emulator_refuses_names_the_file_and_the_next_episode_is_whole(red, tmp_path):
    probe = Probe(tmp_path, "pokemon-red")
    env = probe.make("battles", states=probe.save("good", "battles", {MARK: 5}))
    broken = probe.save("newer", "battles", raw=bytes([200]) + bytes(1000))  # of a PyBoy that is to come
    with pytest.raises(StateError, match=r"newer\.rtstate: .*newer version.*rtcore-rom states check"):
        env.reset(options={"state": str(broken)})
    with pytest.raises(Exception, match="reset"):
        env.step(NOTHING)
    _, info = env.reset()
    assert (info["state"], env.memory[MARK]) == ("good", 5)
    env.step(NOTHING)
    env.close()


def test_a_state_is_never_written_over(red):
    before = (red.states / "route 1.rtstate").read_bytes()
    with pytest.raises(FileExistsError):
        red.save("route 1", "battles", {MARK: 99})
    assert (red.states / "route 1.rtstate").read_bytes() == before
    assert all(path.suffix == ".rtstate" for path in red.states.iterdir()), "and no draft is left"


def test_states_are_found_in_subfolders_in_the_order_of_their_names(tmp_path):
    for name in ("b/2", "b/1", "a/3", "0"):
        path = tmp_path / f"{name}.rtstate"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert [str(path.relative_to(tmp_path)) for path in state_files(tmp_path)] == [
        f"{name}.rtstate" for name in ("0", "a/3", "b/1", "b/2")
    ]
    assert list(state_files(tmp_path / "nowhere")) == []


@pytest.mark.parametrize("bad", [{"state_order": "shuffle"}, {"observation": "cmyk"}])
def test_unknown_settings_are_refused_with_the_choices(red, bad):
    with pytest.raises(ValueError, match=r"expected one of"):
        red.make("battles", states=red.states, **bad)


def test_a_rom_that_changed_since_it_was_found_is_refused(tmp_path):
    probe = Probe(tmp_path, "pokemon-red")
    path = probe.save("one", "battles")
    os.truncate(probe.path, 16384)
    with pytest.raises(RomError):
        probe.make("battles", states=path)


# -- files from outside ------------------------------------------------------------------------------------------


def test_two_hundred_damaged_states_are_all_refused_before_an_emulator_sees_them(tmp_path):
    path = Probe(tmp_path, "pokemon-red").save("one", "battles")
    whole, rng = path.read_bytes(), random.Random(2)
    for number in range(200):
        content = bytearray(whole)
        if number % 2:
            del content[rng.randrange(len(content)) :]
        else:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        with pytest.raises(StateError, match=r"one\.rtstate: got "):
            read_state(path)


HEADER = {"rom_sha256": "0" * 64, "game": "x", "world": "y", "pyboy": "2.8.1"}


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (b"[" * 200_000, b""),
        (b"3", b""),
        (json.dumps(HEADER | {"game": 3}).encode(), zlib.compress(b"x")),
        (json.dumps(HEADER | {"game": "\x1b[2J"}).encode(), zlib.compress(b"x")),
        (json.dumps(HEADER | {"game": "x" * 10_000}).encode(), zlib.compress(b"x")),
        (json.dumps(HEADER).encode(), zlib.compress(bytes(100_000_000), 9)),
        (json.dumps(HEADER).encode(), zlib.compress(b"x" * 1000)[:-3]),
        (json.dumps(HEADER).encode(), b"junk"),
    ],
)
def test_a_state_that_was_made_to_harm_is_refused_by_name(tmp_path, header, body):
    path = tmp_path / "made.rtstate"
    rest = header + b"\n" + body
    path.write_bytes(b"rtcore-state-1 " + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)
    with pytest.raises(StateError, match=r"made\.rtstate"):
        read_state(path)


@pytest.mark.parametrize("kind", ["pipe", "device", "huge", "folder"])
def test_only_a_plain_file_of_a_possible_size_is_read(tmp_path, kind):
    path = tmp_path / "one.rtstate"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(1 << 40)
    for read, error in ((read_state, StateError), (read_rom, RomError), (read_symbols, SymbolFileError)):
        with pytest.raises(error, match=r"one\.rtstate: got "):
            read(path)
