"""Every ROM file that cannot be used gives one error type that names the file and says what to do."""

import pickle
import random
from importlib.resources import files
from pathlib import Path

import pytest

from rtcore_envs.blocks import BlocksEnv
from rtcore_envs.catch import CatchEnv
from rtcore_envs.errors import RomError
from rtcore_envs.rom import HEADER_CHECKSUM, emulator_errors, header_checksum

pytestmark = pytest.mark.unit

GOOD = Path(str(files("rtcore_envs") / "roms" / "blocks.gb")).read_bytes()


def with_header_byte(address: int, value: int) -> bytes:
    """The packaged ROM with one header byte changed and a checksum that fits."""
    rom = bytearray(GOOD)
    rom[address] = value
    rom[HEADER_CHECKSUM] = header_checksum(bytes(rom))
    return bytes(rom)


BAD_ROMS = {
    "empty": (b"", "empty file"),
    "cut_short": (GOOD[:20_000], "20000 bytes"),
    "one_byte": (b"\0", "1 bytes"),
    "text": (b"this is not a ROM\n" * 50, "900 bytes"),
    "random_bytes": (random.Random(0).randbytes(32768), "header checksum"),
    "zeros": (bytes(32768), "header checksum"),
    "all_ff": (b"\xff" * 32768, "header checksum"),
    "unknown_cartridge_type": (with_header_byte(0x147, 0x77), "PyBoy"),
    "bad_ram_size": (with_header_byte(0x149, 0x77), "KeyError"),
}


@pytest.mark.parametrize("name", BAD_ROMS)
def test_bad_rom_names_the_file_and_the_finding(tmp_path, name):
    content, finding = BAD_ROMS[name]
    rom = tmp_path / f"{name}.gb"
    rom.write_bytes(content)
    with pytest.raises(RomError, match=finding) as caught:
        BlocksEnv(rom=rom)
    assert str(rom) in str(caught.value)
    assert "expected" in str(caught.value)
    assert caught.value.path == rom


def test_missing_rom_is_a_rom_error(tmp_path):
    with pytest.raises(RomError, match=r"nowhere\.gb: got no such file"):
        BlocksEnv(rom=tmp_path / "nowhere.gb")


def test_folder_is_a_rom_error(tmp_path):
    with pytest.raises(RomError, match="got a folder"):
        BlocksEnv(rom=tmp_path)


def test_another_game_is_refused_by_the_blocks_world(tmp_path):
    rom = tmp_path / "other.gb"
    # A jump to itself at the entry point: a valid cartridge that never becomes NARROWS.
    rom.write_bytes(GOOD[:0x100] + b"\x18\xfe" + GOOD[0x102:])
    with pytest.raises(RomError, match="NW"):
        BlocksEnv(rom=rom)


@pytest.mark.parametrize(
    ("world", "rom", "title"), [(BlocksEnv, "catch.gb", "NARROWS"), (CatchEnv, "blocks.gb", "CELLAR")]
)
def test_each_of_our_games_refuses_the_other(world, rom, title):
    with pytest.raises(RomError, match=title):
        world(rom=files("rtcore_envs") / "roms" / rom)


def test_rom_given_as_text_is_accepted(tmp_path):
    rom = tmp_path / "copy.gb"
    rom.write_bytes(GOOD)
    env = BlocksEnv(rom=str(rom))
    env.reset(seed=0)
    env.close()
    assert [path.name for path in tmp_path.iterdir()] == ["copy.gb"], "the emulator must write nothing"


def test_rom_error_survives_the_way_between_processes():
    error = RomError(Path("a.gb"), "x", "y", "Do z.")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.path) == (str(error), error.path)


@pytest.mark.parametrize("lack", [BlockingIOError(11, "no process"), OSError(24, "no descriptor"), MemoryError()])
def test_a_machine_that_lacks_something_is_no_fault_of_the_rom(lack):
    """Of the campaign, seeds 28011 and 30815."""
    with pytest.raises(type(lack)), emulator_errors(Path("a.gb")):
        raise lack


def test_rom_error_is_a_value_error():
    with pytest.raises(ValueError, match="cannot use the ROM"):
        BlocksEnv(rom="/nonexistent/x.gb")
