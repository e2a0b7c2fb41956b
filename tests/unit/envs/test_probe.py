"""The probe ROM: ours, rebuilt byte for byte, and it leaves memory alone."""

from __future__ import annotations

import hashlib
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from rtcore_envs.probe import MODES, probe_rom
from rtcore_envs.rom import HEADER_CHECKSUM, header_checksum
from tests.support.probe_worlds import NOTHING, SDCC_VERSION, TITLES, Probe, sdcc_version

pytestmark = pytest.mark.unit

ROMS = Path(str(files("rtcore_envs") / "roms"))
A, B, LEFT, UP, RIGHT, DOWN = range(6)
PAD_BIT = {A: 0x01, B: 0x02, LEFT: 0x20, UP: 0x40, RIGHT: 0x10, DOWN: 0x80}


def test_checksum_file_matches_the_probe():
    digest = hashlib.sha256((ROMS / "probe.gb").read_bytes()).hexdigest()
    assert (ROMS / "probe.gb.sha256").read_text() == f"{digest}  probe.gb\n"


@pytest.mark.skipif(sdcc_version() != SDCC_VERSION, reason=f"needs sdcc {SDCC_VERSION}, found {sdcc_version()}")
def test_the_source_builds_the_packaged_probe_byte_for_byte(tmp_path):
    subprocess.run([ROMS / "build.sh", tmp_path], capture_output=True, check=True)
    assert (tmp_path / "probe.gb").read_bytes() == (ROMS / "probe.gb").read_bytes()
    assert (tmp_path / "probe.gb.sha256").read_text() == (ROMS / "probe.gb.sha256").read_text()


@pytest.mark.parametrize("behaviour", MODES)
@pytest.mark.parametrize("title", [*TITLES.values(), "X"])
def test_a_stamped_probe_is_a_valid_cartridge_without_the_logo(title, behaviour):
    rom = probe_rom(title, behaviour)
    assert len(rom) == 32768
    assert rom[0x134:0x143].rstrip(b"\0") == title.encode()
    assert rom[0x104:0x134] == b"\xff" * 0x30
    assert rom[HEADER_CHECKSUM] == header_checksum(rom)
    assert int.from_bytes(rom[0x14E:0x150]) == (sum(rom) - rom[0x14E] - rom[0x14F]) & 0xFFFF


@pytest.mark.parametrize("title", ["", "SIXTEEN LETTERS."])
def test_a_title_that_does_not_fit_is_refused(title):
    with pytest.raises(ValueError, match="1 to 15"):
        probe_rom(title)


@pytest.fixture
def env(tmp_path):
    probe = Probe(tmp_path, "pokemon-red")
    env = probe.make("battles", states=probe.save("one", "battles"))
    env.reset(seed=0)
    yield env
    env.close()


def test_the_probe_keeps_what_is_written_into_memory(env):
    places = [*range(0xC000, 0xE000), *range(0xFF84, 0xFFF0)]
    for place in places:
        env.memory[place] = place * 7 & 0xFF
    for _ in range(300):
        env.step(NOTHING)
    assert [env.memory[place] for place in places] == [place * 7 & 0xFF for place in places]


@pytest.mark.parametrize("action", PAD_BIT)
def test_the_probe_shows_the_keys_in_the_same_frame(env, action):
    env.step(action)
    assert env.memory[0xFF81] == PAD_BIT[action]
    env.step(NOTHING)
    assert env.memory[0xFF81] == 0


def test_one_step_is_one_frame(env):
    for _ in range(300):
        before = env.memory[0xFF82]
        env.step(NOTHING)
        assert env.memory[0xFF82] == (before + 1) & 0xFF
