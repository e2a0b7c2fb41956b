"""The packaged ROM: what is in the file, and that the sources give it."""

import hashlib
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from rtcore_envs.rom import HEADER_CHECKSUM, header_checksum

pytestmark = pytest.mark.unit

ROMS = Path(str(files("rtcore_envs") / "roms"))
ROM = (ROMS / "blocks.gb").read_bytes()
SDCC_VERSION = "4.2.0"


def sdcc_version() -> str | None:
    if shutil.which("sdcc") is None:
        return None
    text = subprocess.run(["sdcc", "--version"], capture_output=True, text=True, check=True).stdout
    return SDCC_VERSION if f" {SDCC_VERSION} " in text else text.splitlines()[0]


def test_checksum_file_matches_the_rom():
    assert (ROMS / "blocks.gb.sha256").read_text() == f"{hashlib.sha256(ROM).hexdigest()}  blocks.gb\n"


def test_rom_carries_no_logo():
    assert ROM[0x104:0x134] == b"\xff" * 0x30


def test_rom_has_own_title_and_right_checksums():
    assert ROM[0x134:0x143].rstrip(b"\0") == b"NARROWS"
    assert ROM[HEADER_CHECKSUM] == header_checksum(ROM)
    assert int.from_bytes(ROM[0x14E:0x150]) == (sum(ROM) - ROM[0x14E] - ROM[0x14F]) & 0xFFFF


@pytest.mark.skipif(sdcc_version() != SDCC_VERSION, reason=f"needs sdcc {SDCC_VERSION}, found {sdcc_version()}")
def test_sources_build_the_packaged_rom_byte_for_byte(tmp_path):
    build = subprocess.run(
        [ROMS / "build.sh", tmp_path],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "TZ": "Asia/Tokyo", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    assert (tmp_path / "blocks.gb").read_bytes() == ROM
    assert (tmp_path / "blocks.gb.sha256").read_text() == (ROMS / "blocks.gb.sha256").read_text()
