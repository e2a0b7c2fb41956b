"""ROMs are found by their hash, in the places that the documentation names, and by nothing else."""

from __future__ import annotations

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from rtcore_envs.errors import RomError
from rtcore_envs.examine import WORLD_IDS
from rtcore_envs.gameboy import GameBoyEnv
from rtcore_envs.library import KNOWN_ROMS, find_rom, rom_folders
from rtcore_envs.pokemon import PokemonBattlesEnv
from rtcore_envs.probe import as_known, probe_rom
from rtcore_envs.rom import HEADER_CHECKSUM, MAX_ROM_BYTES, header_checksum, rom_title
from tests.support.probe_worlds import TITLES, Probe

pytestmark = pytest.mark.unit

BY_KEY = {known.key: known for known in KNOWN_ROMS}
RED = BY_KEY["pokemon-red"]


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RTCORE_ROM_DIR", raising=False)
    monkeypatch.delenv("RTCORE_STATE_DIR", raising=False)


def test_the_known_hashes_are_those_of_the_reference():
    assert {key: known.sha256[:16] for key, known in BY_KEY.items()} == {
        "tetris": "0d6535aef23969c7",
        "pokemon-red": "5ca7ba01642a3b27",
        "pokemon-blue": "2a951313c2640e8c",
        "pokemon-yellow": "8cbaa499397e4f1a",
    }
    assert all(len(known.sha256) == 64 for known in KNOWN_ROMS)


@pytest.mark.parametrize("key", TITLES)
def test_the_probe_carries_the_title_and_is_not_taken_for_the_game(tmp_path, key):
    probe = Probe(tmp_path, key)
    assert rom_title(probe.content) == BY_KEY[key].title == TITLES[key]
    with pytest.raises(RomError, match="another revision, a patched copy or a damaged one") as caught:
        find_rom(probe.path, [BY_KEY[key]])
    assert f"expected {BY_KEY[key].sha256}" in str(caught.value)
    assert probe.known.sha256 in str(caught.value)


@pytest.mark.parametrize(
    ("env_id", "hashes"),
    [
        ("rtcore/Tetris-v0", [BY_KEY["tetris"].sha256]),
        ("rtcore/PokemonBattles-v0", [BY_KEY[key].sha256 for key in list(TITLES)[1:]]),
        ("rtcore/PokemonCatching-v0", [BY_KEY[key].sha256 for key in list(TITLES)[1:]]),
    ],
)
def test_a_world_without_its_rom_says_where_it_looked_and_for_which_hash(env_id, hashes, monkeypatch, tmp_path):
    monkeypatch.setenv("RTCORE_ROM_DIR", str(tmp_path / "roms"))
    with pytest.raises(RomError) as caught:
        gymnasium.make(f"rtcore_envs:{env_id}")
    for words in [*hashes, str(tmp_path / "roms"), ".local/share/rtcore/roms", "rtcore-rom check"]:
        assert words in str(caught.value)


def test_the_rom_of_another_known_game_is_named(tmp_path):
    probe = Probe(tmp_path, "tetris")
    with pytest.raises(RomError, match=r"title 'TETRIS'.*This is another game\."):
        PokemonBattlesEnv(rom=probe.path)


@pytest.mark.parametrize("place", ["RTCORE_ROM_DIR", "home"])
def test_a_rom_is_found_by_its_hash_in_a_subfolder_under_any_name(tmp_path, monkeypatch, place):
    if place == "home":
        folder = tmp_path / "home" / ".local/share/rtcore/roms"
    else:
        folder = tmp_path / "elsewhere"
        monkeypatch.setenv("RTCORE_ROM_DIR", str(folder))
    probe = Probe(folder / "deep" / "er", "pokemon-red")
    (folder / "Pokemon Red.gb").write_bytes(probe_rom("POKEMON RED", "stuck"))  # the name fits, the hash does not
    (folder / "notes.txt").write_text("not a ROM")
    found = find_rom(None, [probe.known])
    assert (found.path, found.content, found.known) == (probe.path, probe.content, probe.known)


def test_the_folder_of_the_variable_comes_before_the_users_own(tmp_path, monkeypatch):
    monkeypatch.setenv("RTCORE_ROM_DIR", str(tmp_path / "first"))
    assert rom_folders() == [tmp_path / "first", tmp_path / "home" / ".local/share/rtcore/roms"]
    first = Probe(tmp_path / "first", "tetris")
    Probe(tmp_path / "home" / ".local/share/rtcore/roms", "tetris")
    assert find_rom(None, [first.known]).path == first.path


def test_of_several_games_the_preferred_one_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("RTCORE_ROM_DIR", str(tmp_path / "roms"))
    blue = Probe(tmp_path / "roms" / "a", "pokemon-blue")
    red = Probe(tmp_path / "roms" / "z", "pokemon-red")
    red.save("one", "battles", {0xD16D: 9, 0xD8A6: 9})
    env = PokemonBattlesEnv(known_roms=[blue.known, red.known], states=red.states)
    assert env.known_rom.key == "pokemon-red"
    env.close()


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("RTCORE_ROM_DIR", str(file))
    with pytest.raises(RomError, match=r"got a file, expected a folder of ROMs\. Check RTCORE_ROM_DIR"):
        find_rom(None, [RED])


def test_a_file_larger_than_any_cartridge_is_not_read(tmp_path):
    path = tmp_path / "huge.gb"
    with path.open("wb") as file:
        file.truncate(MAX_ROM_BYTES + 0x4000)
    with pytest.raises(RomError, match=r"8404992 bytes, expected at most 8388608"):
        find_rom(path, [RED])


def test_a_cartridge_for_the_colour_machine_only_is_refused(tmp_path):
    rom = bytearray(probe_rom("COLOURFUL"))
    rom[0x143] = 0xC0
    rom[HEADER_CHECKSUM] = header_checksum(bytes(rom))
    path = tmp_path / "colour.gb"
    path.write_bytes(rom)
    with pytest.raises(RomError, match="for the Game Boy Color only"):
        GameBoyEnv(rom=path)


def test_known_roms_without_a_game_of_the_world_are_refused(tmp_path):
    probe = Probe(tmp_path, "tetris")
    with pytest.raises(ValueError, match="expected at least one of .*pokemon-red"):
        PokemonBattlesEnv(rom=probe.path, known_roms=[probe.known])


@pytest.mark.parametrize(
    ("key", "world"), [("tetris", "tetris"), ("pokemon-blue", "battles"), ("pokemon-yellow", "catching")]
)
def test_gymnasium_checker_has_no_complaint(tmp_path, key, world):
    probe = Probe(tmp_path, key, "menus" if key == "tetris" else "still")
    states = {} if key == "tetris" else {"states": probe.save("one", world)}
    arguments = {"rom": probe.path, "known_roms": [probe.known], "render_mode": "rgb_array", **states}
    env = gymnasium.make(WORLD_IDS[world], **arguments).unwrapped
    assert (env.action_space.n, env.noop_action, env.observation_space.shape) == (7, 6, (84, 84))
    check_env(env)
    env.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"cartridge"} | ({"states"} if states else set()))


def test_a_saved_game_beside_the_rom_is_neither_read_nor_written(tmp_path):
    probe = Probe(tmp_path, "pokemon-red")
    rom = bytearray(probe.content)
    rom[0x147], rom[0x149] = 0x03, 0x02  # a cartridge with memory and a battery, 8 KiB
    rom[HEADER_CHECKSUM] = header_checksum(bytes(rom))
    probe.content = bytes(rom)
    probe.known = as_known(probe.content, "pokemon-red")
    probe.path.write_bytes(rom)
    saved = tmp_path / "cartridge.ram"
    saved.write_bytes(b"\x55" * 8192)
    env = probe.make("battles", states=probe.save("one", "battles"))
    env.reset(seed=0)
    env.memory[0x0000] = 0x0A  # switches the memory on
    assert env.memory[0xA000] != 0x55
    env.memory[0xA000] = 0x77
    assert env.memory[0xA000] == 0x77
    env.close()
    assert saved.read_bytes() == b"\x55" * 8192
