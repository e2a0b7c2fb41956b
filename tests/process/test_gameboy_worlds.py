"""Tetris and Pokemon through the runtime, and `rtcore-rom` with real processes and a real window; all on the probe."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rtcore
from rtcore.cli.rom import main
from rtcore.memory.segments import files_of
from rtcore_envs.gameboy import start_emulator
from rtcore_envs.library import KnownRom
from rtcore_envs.probe import Probe, as_known
from rtcore_envs.states import read_state

pytestmark = [pytest.mark.process, pytest.mark.slow]

SCORE, GAME_STATE = 0xC0A0, 0xFFE1
MINE, THEIRS, BATTLE, BOX, OWNED = 0xD16C, 0xD8A5, 0xD057, 0xDA80, 0xD2F7


def hang(probe: Probe) -> Path:
    """A start state that is whole, of the right ROM, and hangs: it goes on at an instruction that does not exist."""
    return probe.save("hangs", "battles", {0xC000: 0xD3}, program_counter=0xC000)


# -- through the runtime -----------------------------------------------------------------------------------------


def played(tmp_path: Path, world: str, probe: Probe, script: dict[int, dict[int, int]], **arguments: Any) -> Any:
    """Rewards and end of each whole episode of a run, step by step."""
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "script.json").write_text(json.dumps(script))
    with rtcore.Runtime(
        env_id="tests.support.probe_worlds:scripted",
        env_args={
            "world": world,
            "rom": str(probe.path),
            "game": probe.game,
            "script": str(tmp_path / "script.json"),
            **arguments,
        },
        policy="random",
        workers=1,
        ticks=150,
        overrun="stretch",
        out=tmp_path / "run",
    ) as runtime:
        runtime.wait()
    assert files_of(runtime.run_id) == []
    with (tmp_path / "run" / "actions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["source"] != "held"]
    episodes: dict[str, list[tuple[float, bool]]] = {}
    for row in rows:
        ended = row["terminated"].lower() in ("1", "true")
        episodes.setdefault(row["episode"], []).append((float(row["reward"]), ended))
    whole = [steps for steps in episodes.values() if steps[-1][1]]
    assert len(whole) >= 2
    summary = runtime.summary()
    assert summary["episodes"]["returns"] == [sum(reward for reward, _ in steps) for steps in whole]
    return whole


def course(num_steps: int, payments: dict[int, float]) -> list[tuple[float, bool]]:
    """What a whole episode looks like: step 1 to `num_steps`, the last of which ends it."""
    return [(payments.get(step, 0.0), step == num_steps) for step in range(1, num_steps + 1)]


@pytest.mark.parametrize(("game", "shift"), [("pokemon-red", 0), ("pokemon-yellow", -1)])
def test_a_battle_is_paid_through_the_runtime(tmp_path: Path, game: str, shift: int) -> None:
    probe = Probe(tmp_path / "rom", game)
    low = {address + 44 * place + 1 + shift: 20 for address in (MINE, THEIRS) for place in range(3)}
    probe.save("three against three", "battles", low)
    script = {
        5: {THEIRS + 1 + shift: 3},  # hurt, not beaten
        9: {THEIRS + 1 + shift: 0},  # one of theirs
        12: {MINE + 1 + shift: 0, MINE + 44 + 1 + shift: 0},  # two of ours at once
        20: {THEIRS + 44 + 1 + shift: 0, THEIRS + 88 + 1 + shift: 0},  # the last two of theirs
    }
    states = str(tmp_path / "rom" / "states")
    for steps in played(tmp_path, "battles", probe, script, states=states):
        assert steps == course(20, {9: 1.0, 12: -2.0, 20: 2.0})


def test_a_catch_and_an_escape_are_paid_through_the_runtime(tmp_path: Path) -> None:
    probe = Probe(tmp_path / "rom", "pokemon-red")
    probe.save("a wild one", "catching", {BATTLE: 1, BOX: 3})
    states = str(tmp_path / "rom" / "states")
    caught = {7: {OWNED + 4: 0x10, BOX: 4}, 11: {BATTLE: 0}}
    for steps in played(tmp_path / "a", "catching", probe, caught, states=states):
        assert steps == course(11, {7: 1.0})
    for steps in played(tmp_path / "b", "catching", probe, {13: {BATTLE: 0}}, states=states):
        assert steps == course(13, {13: -1.0})


def test_tetris_from_power_on_is_found_and_paid_through_the_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = Probe(tmp_path / "rom", "tetris", "menus")
    monkeypatch.setenv("RTCORE_ROM_DIR", str(tmp_path / "rom"))
    script = {
        4: {SCORE: 0x40},
        8: {SCORE: 0x90, SCORE + 1: 0x99},  # 9990
        10: {SCORE: 0x10, SCORE + 1: 0x00, SCORE + 2: 0x01},  # 10010
        16: {GAME_STATE: 1},
    }
    for steps in played(tmp_path, "tetris", probe, script, look_up=True):
        assert steps == course(16, {4: 40.0, 8: 9950.0, 10: 20.0})


def test_a_user_without_the_rom_is_told_which_one_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTCORE_ROM_DIR", str(tmp_path))
    with pytest.raises(rtcore.errors.ConfigError, match="0d6535aef23969c7e5af2b077acaddb4a445b3d0df7bf34c8acef"):
        rtcore.Runtime(env_id="rtcore/Tetris-v0", policy="random", workers=1, ticks=10).start()


DIGEST = """
import hashlib, random
from tests.support.probe_worlds import make
env = make("battles", {rom!r}, "pokemon-red", states={states!r}, state_order="sample")
rng, digest = random.Random(5), hashlib.sha256()
for seed in ({seeds}):
    for number in range(6):
        frame, info = env.reset(seed=seed if number == 0 else None)
        digest.update(frame.tobytes() + repr(info).encode())
        for _ in range(40):
            env.memory[0xD8A6] = rng.randrange(2)
            frame, *rest = env.step(rng.randrange(7))
            digest.update(frame.tobytes() + repr(rest).encode() + bytes(env.memory[0xFF80:0xFF84]))
print(digest.hexdigest())
"""


def test_the_same_seed_and_actions_give_the_same_episodes_in_two_processes(tmp_path: Path) -> None:
    probe = Probe(tmp_path, "pokemon-red")
    for number in range(5):
        probe.save(str(number), "battles", {MINE + 1: 9, THEIRS + 1: number + 1, THEIRS + 45: 9})

    def run(seeds: str) -> str:
        rom, states = str(probe.path), str(tmp_path / "states")
        code = DIGEST.format(rom=rom, states=states, seeds=seeds)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("1, 2") == run("1, 2")
    assert run("1, 2") != run("1, 3")


# -- rtcore-rom --------------------------------------------------------------------------------------------------


def call(capsys: pytest.CaptureFixture[str], known_rom: KnownRom, *arguments: object) -> tuple[Any, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in arguments], [known_rom])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_check_runs_a_rom_and_tells_one_that_hangs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    probe = Probe(tmp_path, "pokemon-red")
    code, out, _ = call(capsys, probe.known, "check", "--json", probe.path)
    assert (code, json.loads(out)["roms"][0]["runs"]) == (0, True)
    rom = bytearray(probe.content)
    rom[0x100] = 0xD3  # no such instruction: PyBoy's tick() never returns
    probe.path.write_bytes(rom)
    code, out, _ = call(capsys, as_known(bytes(rom), "pokemon-red"), "check", "--limit-s", "4", probe.path)
    assert code == 1
    assert "hangs: 180 frames were not over after 4 s" in " ".join(out.split())


def test_states_check_runs_each_state_and_tells_one_that_hangs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probe = Probe(tmp_path, "pokemon-red")
    probe.save("good", "battles", {MINE + 1: 9})
    checking = ("states", "check", "--json", tmp_path / "states", "--rom", probe.path)
    code, out, _ = call(capsys, probe.known, *checking)
    assert (code, [state["runs"] for state in json.loads(out)["states"]]) == (0, [True])
    hang(probe)
    code, out, _ = call(capsys, probe.known, *checking, "--limit-s", "4")
    assert code == 1
    assert {Path(state["path"]).stem: state["runs"] for state in json.loads(out)["states"]} == {
        "good": True,
        "hangs": False,
    }


def test_a_state_of_pyboys_own_becomes_a_start_state_if_it_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probe = Probe(tmp_path, "pokemon-red")
    making = ("states", "new", "taken over", "--world", "battles", "--rom", probe.path, "--out", tmp_path)
    raw = tmp_path / "raw.state"
    raw.write_bytes(probe.raw_state({0xC123: 77}))
    code, _, err = call(capsys, probe.known, *making, "--from", raw, "--keys", "a:2")
    assert (code, err) == (0, "")
    assert read_state(tmp_path / "taken over.rtstate").rom_sha256 == probe.known.sha256
    half = tmp_path / "half.state"
    half.write_bytes(raw.read_bytes()[:70_000])
    code, _, err = call(capsys, probe.known, *making, "--from", half)
    assert code == 1
    assert "half.state: got a state that does not run" in err


PLAY = """
import ctypes, sys, threading, time, warnings
warnings.simplefilter("ignore")
import sdl2
from pathlib import Path
from rtcore.cli.rom import main
from rtcore_envs.probe import as_known

def user():
    '''Waits for what the program says, and then presses the next key.'''
    def press(key, *kinds):
        for kind in kinds or (sdl2.SDL_KEYUP,):
            event = sdl2.SDL_Event()
            event.type, event.key.keysym.sym = kind, key
            sdl2.SDL_PushEvent(ctypes.byref(event))
    said.wait_for("ESC ends")
    time.sleep(0.5)
    press(sdl2.SDLK_RIGHT, sdl2.SDL_KEYDOWN)
    time.sleep(0.5)
    press(sdl2.SDLK_z)
    said.wait_for("battles-1.rtstate")
    press(sdl2.SDLK_RIGHT)
    press(sdl2.SDLK_z)
    said.wait_for("battles-2.rtstate")
    press(sdl2.SDLK_x)
    said.wait_for("back to battles-2")
    press(sdl2.SDLK_ESCAPE)

class Said:
    text = ""
    def write(self, words):
        self.text += words
        return sys.__stdout__.write(words)
    def flush(self):
        sys.__stdout__.flush()
    def isatty(self):
        return False
    def wait_for(self, words):
        while words not in self.text:
            time.sleep(0.02)

said = sys.stdout = Said()
threading.Thread(target=user, daemon=True).start()
known = as_known(Path({rom!r}).read_bytes(), "pokemon-red")
main(["play", "--world", "battles", "--rom", {rom!r}, "--out", {out!r}, "--from", {start!r}], [known])
"""


@pytest.mark.parametrize("driver", ["dummy", "offscreen"])
def test_start_states_are_saved_while_playing_in_a_window(tmp_path: Path, driver: str) -> None:
    probe = Probe(tmp_path, "pokemon-red")
    out = tmp_path / "out"
    start = probe.save("past the boot animation", "battles")
    code = PLAY.format(rom=str(probe.path), out=str(out), start=str(start))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"SDL_VIDEODRIVER": driver, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "2 start states saved" in done.stdout
    assert sorted(path.name for path in out.iterdir()) == ["battles-1.rtstate", "battles-2.rtstate"]
    held = {}
    emulator = start_emulator(probe.path, probe.content)
    for path in sorted(out.iterdir()):
        state = read_state(path)
        assert (state.world, state.rom_sha256) == ("battles", probe.known.sha256)
        with (tmp_path / "unpacked").open("wb+") as file:
            file.write(state.unpack())
            file.seek(0)
            emulator.load_state(file)
        held[path.name] = emulator.memory[0xFF81]
    emulator.stop(save=False)
    assert held["battles-1.rtstate"] == 0x10, "RIGHT was down"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cartridge", "out", "states", "unpacked"], (
        "PyBoy wrote nothing"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_game_in_the_window(tmp_path: Path, number: signal.Signals) -> None:
    """PyBoy drops an exception that is raised while it waits for the next frame, which is most of the time."""
    command = [
        sys.executable,
        "-m",
        "rtcore.cli.rom",
        "play",
        str(Probe(tmp_path, "tetris").path),
        "--show",
        "u8[0xFF82]",
    ]
    environment = os.environ | {"SDL_VIDEODRIVER": "dummy", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as game:
        try:
            assert game.stdout is not None
            while "     100" not in game.stdout.readline():
                assert game.poll() is None
            game.send_signal(number)
            _, said = game.communicate(timeout=150)
        finally:
            game.kill()
    assert game.returncode == 128 + number
    assert f"stopped by {number.name}" in said
