"""The packaged ROMs: what is in the files, and that the sources give them."""

import hashlib
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from rtcore_envs.rom import HEADER_CHECKSUM, header_checksum
from tests.support.probe_worlds import SDCC_VERSION, sdcc_version

pytestmark = pytest.mark.unit

ROMS = Path(str(files("rtcore_envs") / "roms"))
GAMES = {"blocks": "NARROWS", "catch": "CELLAR", "probe": "PROBE"}


def rom(name: str) -> bytes:
    return (ROMS / f"{name}.gb").read_bytes()


@pytest.mark.parametrize("name", GAMES)
def test_checksum_file_matches_the_rom(name):
    digest = hashlib.sha256(rom(name)).hexdigest()
    assert (ROMS / f"{name}.gb.sha256").read_text() == f"{digest}  {name}.gb\n"


@pytest.mark.parametrize("name", GAMES)
def test_rom_carries_no_logo(name):
    assert rom(name)[0x104:0x134] == b"\xff" * 0x30


@pytest.mark.parametrize(("name", "title"), GAMES.items())
def test_rom_has_own_title_and_right_checksums(name, title):
    content = rom(name)
    assert content[0x134:0x143].rstrip(b"\0") == title.encode()
    assert content[HEADER_CHECKSUM] == header_checksum(content)
    assert int.from_bytes(content[0x14E:0x150]) == (sum(content) - content[0x14E] - content[0x14F]) & 0xFFFF


@pytest.mark.skipif(sdcc_version() != SDCC_VERSION, reason=f"needs sdcc {SDCC_VERSION}, found {sdcc_version()}")
def test_sources_build_the_packaged_roms_byte_for_byte(tmp_path):
    build = subprocess.run(
        [ROMS / "build.sh", tmp_path],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "TZ": "Asia/Tokyo", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    for name in GAMES:
        assert (tmp_path / f"{name}.gb").read_bytes() == rom(name)
        assert (tmp_path / f"{name}.gb.sha256").read_text() == (ROMS / f"{name}.gb.sha256").read_text()
