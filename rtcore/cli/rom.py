"""`rtcore-rom`: what a ROM file is, and start states of the user's own games. Its commands are the worlds' own."""

from __future__ import annotations

from collections.abc import Sequence

from rtcore.cli.exits import end_program, say_error
from rtcore.config.help_text import Parser, add_program_options
from rtcore.report.terminal import Terminal
from rtcore_envs.errors import RewardError, RomError, SettingError, StateError, SymbolFileError
from rtcore_envs.library import KNOWN_ROMS, KnownRom
from rtcore_envs.rom_commands import DESCRIPTION, EPILOG, add_commands
from rtcore_envs.rom_play import Terminals


def main(arguments: list[str] | None = None, known_roms: Sequence[KnownRom] = KNOWN_ROMS) -> None:
    """Program entry; exits 0, 1 if a file cannot be used or something failed, 2 for wrong arguments.

    `known_roms` is for tests, which have no commercial ROM.
    """
    end_program("rtcore-rom", lambda: _do(arguments, known_roms))


def _do(arguments: list[str] | None, known_roms: Sequence[KnownRom]) -> int:
    parser = Parser(prog="rtcore-rom", description=DESCRIPTION, epilog=EPILOG)
    add_program_options(parser)
    add_commands(parser)
    options = parser.parse_args(arguments)
    terminals = Terminals(Terminal(highlight=False), Terminal(stderr=True, highlight=False), known_roms)
    try:
        exitcode: int = options.command(options, terminals)
    except (RomError, StateError, SymbolFileError, RewardError, OSError) as error:
        return say_error("rtcore-rom", error)
    except SettingError as error:
        parser.error(str(error))
    return exitcode


if __name__ == "__main__":
    main()
