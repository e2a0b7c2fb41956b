"""A Game Boy program of ours without a game, for testing worlds without a commercial ROM.

It keeps what the host writes into memory, so a test drives every rule of a world by writing addresses, in a real
emulator. Stamped with a title it is what PyBoy and `rom_title` take for that game, and nothing else: its hash is
not that of a known ROM, and a world refuses it unless a test hands it over as ``known_roms=[probe.known]``.
"""

import io
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Literal

from rtcore_envs.gameboy import start_emulator
from rtcore_envs.library import KNOWN_ROMS, KnownRom, sha256_of
from rtcore_envs.rom import HEADER_CHECKSUM, TITLE, header_checksum
from rtcore_envs.states import SUFFIX, write_state

Behaviour = Literal["still", "menus", "stuck"]

#: The byte of the file that says which behaviour (roms/probe.s).
MODE = 0x160
MODES: dict[Behaviour, int] = {"still": 0, "menus": 1, "stuck": 2}

#: High RAM that the program writes in every frame: keys held (bit 0 A, 1 B, 2 SELECT, 3 START, 4 RIGHT, 5 LEFT,
#: 6 UP, 7 DOWN) and the frame counter, 2 bytes little endian.
HELD = 0xFF81
COUNT = 0xFF82

_TITLES = {known.key: known.title for known in KNOWN_ROMS}


def probe_rom(title: str, behaviour: Behaviour = "still") -> bytes:
    """The program, 32768 bytes, with ``title`` (at most 15 ASCII letters) in its header and checksums that fit."""
    letters = title.encode("ascii")
    if not 0 < len(letters) <= 15:
        raise ValueError(f"got title {title!r}, expected 1 to 15 ASCII letters")
    rom = bytearray((files("rtcore_envs") / "roms" / "probe.gb").read_bytes())
    rom[TITLE] = letters.ljust(15, b"\0")
    rom[MODE] = MODES[behaviour]
    rom[HEADER_CHECKSUM] = header_checksum(bytes(rom))
    rom[0x14E:0x150] = ((sum(rom) - rom[0x14E] - rom[0x14F]) & 0xFFFF).to_bytes(2, "big")
    return bytes(rom)


def as_known(rom: bytes, game: str) -> KnownRom:
    """``rom`` as if it were the known game ``game`` (a key such as ``pokemon-red``)."""
    return KnownRom(game, f"probe of {game}", rom[TITLE].rstrip(b"\0").decode(), sha256_of(rom))


class Probe:
    """A probe in the file ``folder / "cartridge"``, stamped as a known game, and start states of it."""

    def __init__(self, folder: Path, game: str, behaviour: Behaviour = "still") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.game = game
        self.content = probe_rom(_TITLES[game], behaviour)
        self.path = folder / "cartridge"
        self.path.write_bytes(self.content)
        self.known = as_known(self.content, game)
        self.states = folder / "states"

    def raw_state(self, pokes: Mapping[int, int], program_counter: int | None = None) -> bytes:
        """A state as PyBoy itself saves it: 100 frames from power-on, some bytes of memory written.

        ``program_counter`` lets the machine go on elsewhere: at an instruction that does not exist it hangs.
        """
        emulator = start_emulator(self.path, self.content)
        emulator.tick(100, False, False)
        for address, value in pokes.items():
            emulator.memory[address] = value
        if program_counter is not None:
            emulator.register_file.PC = program_counter
        state = io.BytesIO()
        emulator.save_state(state)
        emulator.stop(save=False)
        return state.getvalue()

    def save(
        self,
        name: str,
        world: str,
        pokes: Mapping[int, int] | None = None,
        *,
        program_counter: int | None = None,
        raw: bytes | None = None,
    ) -> Path:
        """Write the start state ``name`` for ``world`` into `states`; from ``raw``, or as `raw_state` makes it."""
        path = self.states / f"{name}{SUFFIX}"
        write_state(
            path,
            self.raw_state(pokes or {}, program_counter) if raw is None else raw,
            rom_sha256=self.known.sha256,
            game=self.game,
            world=world,
            pyboy=version("pyboy"),
        )
        return path
