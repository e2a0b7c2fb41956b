"""`rtcore-rom`: tables, JSON, exit codes and errors. What it runs in other processes is tested with real ones."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from unittest.mock import Mock

import pytest

from rtcore.cli.rom import main
from rtcore_envs.errors import SettingError
from rtcore_envs.finder import ALL_TYPES, Clue, MemorySnapshot, find
from rtcore_envs.keys import PRESS_FRAMES, Step, parse_script
from rtcore_envs.library import KNOWN_ROMS
from rtcore_envs.memorymap import MemoryMap
from rtcore_envs.owngame import OwnGameEnv
from rtcore_envs.probe import probe_rom
from tests.support.probe_worlds import Probe

pytestmark = pytest.mark.unit

BLOCKS = Path(str(files("rtcore_envs") / "roms" / "blocks.gb"))


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("RTCORE_ROM_DIR", "RTCORE_STATE_DIR", "DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def red(tmp_path):
    return Probe(tmp_path / "red", "pokemon-red")


def call(capsys, *arguments, known=()):
    """Exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in arguments], list(known) or KNOWN_ROMS)
    out, err = capsys.readouterr()
    return ended.value.code, out, err


# -- check -------------------------------------------------------------------------------------------------------


def test_a_known_rom_is_named_with_the_worlds_that_it_is_for(capsys, red):
    code, out, _ = call(capsys, "check", "--no-run", red.path, known=[red.known])
    assert code == 0
    for words in ("POKEMON RED", "pokemon-red", "rtcore/PokemonBattles-v0", "rtcore/PokemonCatching-v0"):
        assert words in out
    assert "Tetris-v0" not in out


def test_another_revision_is_told_apart_and_the_expected_hash_is_named(capsys, red):
    code, out, _ = call(capsys, "check", "--no-run", red.path)
    assert code == 1
    assert "another revision of Pokemon Red" in out
    assert f"got sha256 {red.known.sha256}" in out
    assert "expected 5ca7ba01642a3b27b0cc0b5349b52792795b62d3ed977e98a09390659af96b7b" in out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (probe_rom("TETRIS")[:20_000], "20000 bytes (cut short, or not a ROM)"),
        (bytes(range(256)) * 128, "header checksum"),
    ],
)
def test_what_is_no_known_rom_is_said_and_all_expected_hashes_are_listed(capsys, tmp_path, content, said):
    path = tmp_path / "Tetris.gb"
    path.write_bytes(content)
    code, out, _ = call(capsys, "check", "--no-run", path)
    assert code == 1
    assert said in out
    for known in KNOWN_ROMS:
        assert known.sha256 in out


def test_any_other_game_can_be_used_and_it_is_said_how(capsys, tmp_path):
    path = tmp_path / "my game.gb"
    path.write_bytes(probe_rom("SOMETHING ELSE"))
    code, out, _ = call(capsys, "check", "--no-run", path)
    assert code == 0
    for words in (
        "another",
        "rtcore/GameBoy-v0",
        f"--rom '{path}'",
        "reward=0,done=false",
        "subclass",
        "rtcore-rom find",
    ):
        assert words in out


@pytest.mark.parametrize(("name", "world"), [("blocks", "rtcore/Blocks-v0"), ("catch", "rtcore/Catch-v0")])
def test_our_own_games_have_worlds_of_their_own(capsys, name, world):
    code, out, _ = call(capsys, "check", "--no-run", BLOCKS.with_name(f"{name}.gb"))
    assert code == 0
    assert world in out
    assert "without a world" not in out


@pytest.mark.parametrize("name", ["missing.gb", "."])
def test_a_missing_file_or_a_folder_without_roms_is_a_failure(capsys, tmp_path, name):
    code, out, _ = call(capsys, "check", "--no-run", tmp_path / name)
    assert code == 1
    assert ("no such file" if name == "missing.gb" else "no ROM found") in out


def test_a_folder_is_fine_if_one_rom_in_it_is_and_other_files_are_counted(capsys, red):
    (red.path.parent / "other.gb").write_bytes(probe_rom("TETRIS"))
    (red.path.parent / "broken.GB").write_bytes(b"x")
    (red.path.parent / "notes.txt").write_text("x")
    (red.path.parent / "a picture.bin").write_bytes(bytes(32768))
    code, out, _ = call(capsys, "check", "--no-run", red.path.parent, known=[red.known])
    assert code == 0
    assert "2 other files" in out
    assert "broken.GB" in out
    code, *_ = call(capsys, "check", "--no-run", red.path.parent, red.path.parent / "broken.GB", known=[red.known])
    assert code == 1, "a file that is named must be usable itself"


def test_check_prints_json_that_says_the_same(capsys, red):
    code, out, _ = call(capsys, "check", "--no-run", "--json", red.path, known=[red.known])
    shown = json.loads(out)
    assert (code, shown["ok"], shown["other_files"]) == (0, True, 0)
    assert shown["roms"] == [
        {
            "path": str(red.path),
            "num_bytes": 32768,
            "title": "POKEMON RED",
            "sha256": red.known.sha256,
            "game": "pokemon-red",
            "worlds": ["rtcore/PokemonBattles-v0", "rtcore/PokemonCatching-v0", "rtcore/GameBoy-v0"],
            "runs": None,
            "problem": None,
        }
    ]
    assert shown["known_roms"][0]["sha256"] == red.known.sha256


# -- start states ------------------------------------------------------------------------------------------------


def test_states_made_by_script_are_listed_and_used_by_the_world(capsys, red, tmp_path):
    making = ("states", "new", "by hand", "--world", "battles", "--rom", red.path)
    code, out, err = call(capsys, *making, "--keys", "wait:100 a:3 wait:2", known=[red.known])
    path = tmp_path / "home/.local/share/rtcore/states/pokemon-red/battles/by hand.rtstate"
    assert (code, err) == (0, "")
    assert str(path) in out
    env = red.make("battles")
    _, info = env.reset(seed=0)
    env.close()
    assert info["state"] == "by hand"
    code, out, _ = call(capsys, "states", "list", known=[red.known])
    assert code == 0
    assert "by hand" in out
    assert "battles" in out
    code, out, _ = call(capsys, "states", "list", "--json", known=[red.known])
    (state,) = json.loads(out)["states"]
    assert (state["path"], state["rom_sha256"], state["world"]) == (str(path), red.known.sha256, "battles")


def test_the_script_presses_the_keys_for_as_many_frames_as_it_says(capsys, red, tmp_path):
    script = tmp_path / "keys.txt"
    script.write_text("wait:100  # the boot animation\nstart+left:5\n")
    making = ("--world", "battles", "--rom", red.path, "--out", red.states)
    assert call(capsys, "states", "new", "one", *making, "--script", script, known=[red.known])[0] == 0
    assert call(capsys, "states", "new", "two", *making, "--keys", "wait:100", known=[red.known])[0] == 0
    env = red.make("battles", states=red.states)
    frames = {}
    for name in ("one", "two"):
        env.reset(options={"state": name})
        frames[name] = env.memory[0xFF82]
        assert env.memory[0xFF81] == 0, "keys are up"
    env.close()
    assert frames["one"] - frames["two"] == 5


def test_a_name_that_is_taken_is_refused(capsys, red):
    making = ("states", "new", "x", "--world", "battles", "--rom", red.path, "--out", red.states)
    assert call(capsys, *making, known=[red.known])[0] == 0
    code, _, err = call(capsys, *making, known=[red.known])
    assert code == 1
    assert "FileExistsError" in err
    assert "x.rtstate" in err


def test_damaged_states_in_the_folder_are_listed_as_such(capsys, red):
    path = red.save("half", "battles")
    path.write_bytes(path.read_bytes()[:700])
    red.save("whole", "battles")
    code, out, _ = call(capsys, "states", "list", red.states)
    assert code == 1
    assert "damaged" in out
    assert "whole" in out
    assert "half.rtstate" in out


def test_a_state_whose_rom_is_not_here_does_not_pass_the_check(capsys, red):
    red.save("one", "battles")
    code, out, _ = call(capsys, "states", "check", "--no-run", red.states)
    assert code == 1
    assert f"no ROM here has the sha256 {red.known.sha256}" in out and "Give it with --rom FILE" in out
    code, *_ = call(capsys, "states", "check", "--no-run", red.states, "--rom", red.path, known=[red.known])
    assert code == 0


def test_no_states_at_all_is_said(capsys):
    code, out, _ = call(capsys, "states", "list")
    assert code == 0
    assert "no start state in" in out


def test_a_state_of_any_game_is_made_listed_and_used_by_its_world(capsys, tmp_path):
    making = ("states", "new", "later", "--rom", BLOCKS, "--keys", "wait 100, start 1, wait 20")
    assert call(capsys, *making)[0] == 0
    (path,) = (tmp_path / "home/.local/share/rtcore/states").rglob("*.rtstate")
    assert path.parent.name == "gameboy"
    assert path.parent.parent.name.startswith(f"narrows-{hashlib.sha256(Path(BLOCKS).read_bytes()).hexdigest()[:8]}")
    code, out, _ = call(capsys, "states", "list")
    assert code == 0
    assert "gameboy" in out
    env = OwnGameEnv(rom=BLOCKS, reward=0, done=False, start=path, info="playing: u8[0xC002] == 1")
    assert env.reset(seed=0)[1] == {"state": "later", "playing": True}
    env.close()
    code, *_ = call(capsys, "states", "check", "--no-run", "--rom", BLOCKS)
    assert code == 0


def test_states_of_any_rom_in_the_usual_folder_pass_the_check(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("RTCORE_ROM_DIR", str(BLOCKS.parent))
    assert call(capsys, "states", "new", "x", "--rom", BLOCKS)[0] == 0
    assert call(capsys, "states", "check", "--no-run")[0] == 0


def test_without_a_home_folder_it_is_said_what_to_set(capsys, monkeypatch):
    monkeypatch.setattr(Path, "home", Mock(side_effect=RuntimeError("Could not determine home directory.")))
    code, _, err = call(capsys, "states", "list")
    assert code == 1
    assert "RTCORE_STATE_DIR: got neither that variable nor a home folder" in err
    code, _, err = call(capsys, "play", "--world", "tetris")
    assert code == 1
    assert "RTCORE_ROM_DIR" in err
    monkeypatch.setenv("RTCORE_ROM_DIR", str(BLOCKS.parent))
    code, _, err = call(capsys, "play", "--world", "tetris")
    assert f"no such ROM in {BLOCKS.parent}" in err


# -- memory ------------------------------------------------------------------------------------------------------


def test_watch_prints_the_values_whenever_one_changes(capsys, tmp_path):
    picture = tmp_path / "now.png"
    watching = ("watch", BLOCKS, "--keys", "wait 100, start 1, wait 20, b 1, wait 30", "--picture", picture)
    code, out, _ = call(capsys, *watching, "--show", "u8[0xC002]", "--show", "delta(u16[0xC012])")
    rows = [line.split() for line in out.splitlines()]
    assert code == 0
    assert rows[0] == ["frame", "keys", "u8[0xC002]", "delta(u16[0xC012])"]
    assert [row[2:] for row in rows[1:-1]] == [["0", "0"], ["1", "0"], ["1", "1"], ["1", "0"]]
    assert rows[2][:2] == ["101", "start"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_find_tells_where_a_number_is_kept(capsys):
    playing = ("find", BLOCKS, "--json", "--keys", "wait 100, start 1, wait 20")
    story = (
        "--equals",
        "0",
        "--keys",
        "b 1, wait 30",
        "--equals",
        "1",
        "--keys",
        "wait 12, b 1, wait 10",
        "--equals",
        "2",
    )
    code, out, _ = call(capsys, *playing, *story)
    assert code == 0
    assert json.loads(out)["found"] == [{"expression": "u8[0xC012]", "values": [0, 1, 2]}], "pieces that have landed"
    over = ("--keys", "down 1600", "--increased", "--keys", "wait 60", "--same")
    code, out, _ = call(capsys, *playing, *over)
    assert {"expression": "u8[0xC002]", "values": [1, 2, 2]} in json.loads(out)["found"]
    code, out, _ = call(capsys, "find", BLOCKS, "--keys", "wait 100", "--equals", "7654321")
    assert code == 1
    assert "nothing fits" in out


def test_find_goes_from_state_to_state(capsys, tmp_path):
    for number, keys in enumerate(("wait 100, start 1", "wait 100, start 1, wait 20, b 1, wait 30")):
        call(capsys, "states", "new", f"at-{number}", "--rom", BLOCKS, "--out", tmp_path, "--keys", keys)
    states = (
        "--from",
        tmp_path / "at-0.rtstate",
        "--equals",
        "0",
        "--from",
        tmp_path / "at-1.rtstate",
        "--equals",
        "1",
    )
    code, out, _ = call(capsys, "find", BLOCKS, *states, "--pictures", tmp_path / "pictures")
    assert code == 0
    assert "u8[0xC012]" in out
    assert "as a reward: delta(" in out
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["moment-1.png", "moment-2.png"]


def test_a_score_is_found_however_it_is_kept():
    memory = dict.fromkeys(range(0x10000), 0)
    memory |= {0xC100: 0x34, 0xC101: 0x12, 0xC201: 0x12, 0xC202: 0x34, 0xFF90: 1, 0xFF91: 2, 0xFF92: 3, 0xFF93: 4}
    memory |= {0xC300: 0xD2, 0xC301: 0x04, 0xC401: 0x04, 0xC402: 0xD2}

    class Memory:
        def __getitem__(self, places):
            return [memory[place] for place in range(places.start, places.stop)]

    snapshot = MemorySnapshot(Memory(), MemoryMap(bytes(32768)))
    found = [each.expression for each in find([(snapshot, [Clue("equals", 1234)])], ALL_TYPES)]
    assert found == ["bcd2[0xC100]", "bcd2be[0xC201]", "u16[0xC300]", "u16be[0xC401]", "digits4be[0xFF90]"]


def test_a_state_of_another_rom_is_no_beginning(capsys, red, tmp_path):
    blue = Probe(tmp_path / "blue", "pokemon-blue")
    path = blue.save("blue", "battles")
    making = ("states", "new", "x", "--world", "battles", "--rom", red.path, "--from", path)
    code, _, err = call(capsys, *making, known=[red.known])
    assert code == 1
    for words in ("StateError", "a state of pokemon-blue", red.known.sha256, blue.known.sha256):
        assert words in err


# -- wrong arguments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chek", "."], ["invalid choice", "check"]),
        (["states", "new", "x", "--world", "tetris", "--keys", "q:3"], ["--keys", "'q'", "a b start"]),
        (["states", "new", "x", "--world", "tetris", "--script", "/nowhere"], ["--script", "/nowhere"]),
        (["states", "new", "a/b", "--world", "tetris"], ["'a/b'", "without folder"]),
        (["states", "new", "x", "--world", "chess"], ["chess", "battles"]),
        (["play"], ["ROM: not given", "--world tetris"]),
        (["states", "new", "x"], ["ROM: not given"]),
        (["watch", BLOCKS], ["--show: not given"]),
        (["watch", BLOCKS, "--show", "score"], ["--show: got score at column 1"]),
        (["watch", BLOCKS, "--show", "1", "--keys", "wait 1-9"], ["--keys: got a range of frames"]),
        (["find", BLOCKS], ["nothing to go by"]),
        (["find", BLOCKS, "--same"], ["--same: got it first"]),
        (["find", BLOCKS, "--keys", "wait 100", "--same"], ["--same: got it for the first moment"]),
        (["find", BLOCKS, "--keys", "wait 100", "--equals", "1", "--type", "u9"], ["--type: got 'u9'"]),
        (["check", ".", "--limit-s", "nan"], ["--limit-s", "above 0"]),
        (["play", "--world", "battles", "--scale", "0"], ["--scale", "at least 1"]),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_expected(capsys, arguments, said):
    code, _, err = call(capsys, *arguments)
    assert code == 2
    for words in said:
        assert words in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["watch", "/nowhere.gb", "--show", "1"], "got no such file"),
        (["watch", BLOCKS, "--show", "1 / u8[0xC000]"], "divides by zero"),
        (["watch", BLOCKS, "--show", "1", "--symbols", "/nowhere.sym"], "symbol file /nowhere.sym"),
        (["find", BLOCKS, "--from", "/nowhere.rtstate", "--equals", "1"], "got no such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_failure(capsys, arguments, said):
    code, _, err = call(capsys, *arguments)
    assert code == 1
    assert said in err


def test_playing_without_a_rom_or_a_display_is_an_error_with_a_way_out(capsys, red):
    code, _, err = call(capsys, "play", "--world", "tetris")
    assert code == 1
    assert "0d6535aef23969c7" in err
    code, _, err = call(capsys, "play", "--world", "battles", "--rom", red.path, known=[red.known])
    assert code == 1
    assert "no display" in err
    assert "states new" in err


@pytest.mark.parametrize("words", ["", "check", "states new", "play", "watch", "find"])
def test_help_teaches_and_names_the_exit_codes(capsys, words):
    code, out, _ = call(capsys, *words.split(), "--help")
    assert code == 0
    assert ("rtcore-rom check" in out) if not words else ("exit codes:" in out)


@pytest.mark.parametrize("text", ["a:0", "a:-1", "a:x", "a+q:1", "a:1:1", "wait", "wait:999999", "a 5 a 5", "wait 9-3"])
def test_a_script_of_keys_that_means_nothing_is_refused(text):
    with pytest.raises(SettingError, match="^start: got .* expected"):
        parse_script(text, "start")


def test_a_script_of_keys_is_read_in_order_whatever_stands_between_its_words():
    script = [
        Step(frozenset(), 2, 2),
        Step(frozenset({"start"}), 1, 1),
        Step(frozenset({"left", "a"}), PRESS_FRAMES, PRESS_FRAMES),
        Step(frozenset(), 0, 0, randomize=True),
        Step(frozenset(), 3, 40),
        Step(frozenset({"a"}), 60, 60),
    ]
    for text in (
        "wait 2, start 1, left+A, randomize, wait 3-40, a 60",
        "wait:2 # nothing\n\nstart:1 a+left randomize wait:3-40 a:60 # done",
    ):
        assert parse_script(text, "start") == script
