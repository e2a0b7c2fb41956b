"""Bad ROMs and start states, each in a run of its own: a clear error or a kill, and nothing is left behind."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from rtcore.cli.exits import EXIT_BAD_INPUT
from rtcore_envs.library import KNOWN_ROMS, sha256_of
from rtcore_envs.probe import Probe, probe_rom
from rtcore_envs.states import write_state
from tests.support.drills import run_to_end, wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow]

RUN = ("--policy", "random", "--workers", "1", "--ticks", "600", "--no-live")
MARK = "RTCORE_TEST_OF_BAD_ROMS"
TETRIS_SHA256 = KNOWN_ROMS[0].sha256
#: The low bytes of the first own and the first opponent's hit points.
FIGHT = {0xD16D: 9, 0xD8A6: 9}


def with_byte(rom: bytes, address: int, value: int) -> bytes:
    return rom[:address] + bytes([value]) + rom[address + 1 :]


GOOD = probe_rom("TETRIS")
BAD_ROMS: dict[str, tuple[bytes | None, list[str]]] = {
    "missing": (None, ["no such file"]),
    "empty": (b"", ["an empty file"]),
    "truncated": (GOOD[:20_000], ["20000 bytes (cut short, or not a ROM)"]),
    "random": (random.Random(0).randbytes(32768), ["header checksum"]),
    "wrong_header": (with_byte(GOOD, 0x134, 0x55), ["header checksum"]),
    "another_revision": (GOOD, ["another revision", TETRIS_SHA256]),
    "cut_to_one_bank": (GOOD[:16384], ["title 'TETRIS'", TETRIS_SHA256]),
    "another_game": (probe_rom("CHESS"), ["another game", TETRIS_SHA256]),
}


@pytest.fixture(autouse=True)
def mark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every process of the test's run carries this in its environment."""
    monkeypatch.setenv(MARK, str(tmp_path))


def marked_processes() -> list[str]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == os.environ[MARK]:
                found.append(process.name())
    return found


def run_to_failure(*arguments: str, exitcode: int = 1) -> str:
    """What a run says that must fail, and must leave neither shared memory nor a process behind."""
    done = run_to_end(*arguments, *RUN)
    assert done.returncode == exitcode, done.stderr
    if exitcode == EXIT_BAD_INPUT:
        assert "Traceback" not in done.stderr
        assert done.stderr.count("expected") == 1, "it is said once"
    wait_for(lambda: not marked_processes(), "every process of the run to end")
    return " ".join(done.stderr.split())


@pytest.mark.parametrize("name", BAD_ROMS)
def test_a_bad_rom_ends_the_run_with_an_error_that_names_the_file(tmp_path: Path, name: str) -> None:
    content, said = BAD_ROMS[name]
    path = tmp_path / f"{name}.gb"
    if content is not None:
        path.write_bytes(content)
    stderr = run_to_failure("--env-id", "rtcore/Tetris-v0", "--env-args", f"rom={path}", exitcode=EXIT_BAD_INPUT)
    for words in ["ConfigError", "cannot use the ROM", f"{name}.gb", "expected", *said]:
        assert words in stderr


def test_a_folder_in_place_of_a_rom_is_an_error(tmp_path: Path) -> None:
    stderr = run_to_failure(
        "--env-id", "rtcore/PokemonBattles-v0", "--env-args", f"rom={tmp_path}", exitcode=EXIT_BAD_INPUT
    )
    assert "got a folder" in stderr


def test_a_game_that_hangs_ends_rtcore_rom_with_its_name(tmp_path: Path) -> None:
    """In the emulator's C code neither Ctrl-C nor an exception gets through."""
    rom = tmp_path / "hangs.gb"
    rom.write_bytes(with_byte(GOOD, 0x100, 0xD3))
    code = f"""
from rtcore.cli.rom import main
from rtcore_envs import maker
maker.HANG_LIMIT_S = 2
main(["watch", {str(rom)!r}, "--show", "u8[0xC000]", "--keys", "wait 300"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 1
    assert "hangs.gb: got no frame within 2 s" in done.stderr


def test_a_pipe_in_place_of_a_rom_is_an_error_and_no_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gb")
    arguments = ("--env-id", "rtcore/GameBoy-v0", "--rom", str(tmp_path / "pipe.gb"), "--env-args", "reward=0,done=0")
    assert "got a pipe, a socket or a device" in run_to_failure(*arguments, exitcode=EXIT_BAD_INPUT)


# -- hangs, and start states -------------------------------------------------------------------------------------


def run_battles(rom: Path, states: Path, *arguments: str, exitcode: int = 1) -> str:
    """A run that must fail, of a world for which the file `rom` is what it expects."""
    env_args = f"rom={rom},states={states},known={rom}"
    return run_to_failure(
        "--env-id", "tests.support.probe_worlds:battles", "--env-args", env_args, *arguments, exitcode=exitcode
    )


def test_a_rom_that_hangs_at_power_on_is_killed(tmp_path: Path) -> None:
    rom = tmp_path / "hangs.gb"
    rom.write_bytes(with_byte(probe_rom("POKEMON RED"), 0x100, 0xD3))  # no such instruction: tick() never returns
    probe = Probe(tmp_path / "good", "pokemon-red")
    path = tmp_path / "states" / "one.rtstate"
    write_state(
        path,
        probe.raw_state(FIGHT),
        rom_sha256=sha256_of(rom.read_bytes()),
        game="pokemon-red",
        world="battles",
        pyboy="2.8.1",
    )
    stderr = run_battles(rom, path, "--startup-timeout-s", "8")
    assert "(being made) was not ready within 8 s and was killed" in stderr


def test_a_start_state_that_hangs_in_the_run_is_killed(tmp_path: Path) -> None:
    probe = Probe(tmp_path, "pokemon-red")
    probe.save("1 over at once", "battles", {0xD16D: 9})
    probe.save("2 hangs", "battles", {0xC000: 0xD3}, program_counter=0xC000)
    stderr = run_battles(probe.path, probe.states, "--env-timeout-s", "2")
    assert "EnvironmentHung" in stderr


def test_a_start_state_of_another_rom_is_refused(tmp_path: Path) -> None:
    red, blue = Probe(tmp_path / "red", "pokemon-red"), Probe(tmp_path / "blue", "pokemon-blue")
    stderr = run_battles(red.path, blue.save("foreign", "battles", FIGHT), exitcode=EXIT_BAD_INPUT)
    for words in ("foreign.rtstate", "a state of pokemon-blue", red.known.sha256, blue.known.sha256):
        assert words in stderr


@pytest.mark.parametrize("damage", ["half", "flipped", "empty", "missing"])
def test_a_damaged_start_state_is_refused(tmp_path: Path, damage: str) -> None:
    probe = Probe(tmp_path, "pokemon-red")
    path = probe.save(damage, "battles", FIGHT)
    content = bytearray(path.read_bytes())
    if damage == "half":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[-100] ^= 0x10
        path.write_bytes(content)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    stderr = run_battles(probe.path, path, exitcode=EXIT_BAD_INPUT)
    assert "cannot use the start state" in stderr
    assert f"{damage}.rtstate" in stderr
