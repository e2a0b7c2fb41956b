"""What `rtcore-rom` can do: say what a ROM file is, and make start states of the user's own games.

The program itself (`rtcore.cli.rom`) gives it a parser to fill and terminals to write on.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rtcore_envs import rom_play
from rtcore_envs.errors import StateError
from rtcore_envs.examine import (
    ANY_WORLD,
    ANY_WORLD_ID,
    WORLD_GAMES,
    RomReport,
    StateReport,
    examine_rom,
    examine_state,
    rom_candidates,
)
from rtcore_envs.library import KnownRom, roms_by_hash, sha256_of
from rtcore_envs.rom import read_rom
from rtcore_envs.rom_play import EXIT_DONE, EXIT_FAILED, Terminals, print_json
from rtcore_envs.states import SUFFIX, read_state, state_files, state_folder

DESCRIPTION = """\
Say what ROM files are, find out what their memory means, and make start states
for the worlds of your own games.

Any game is a world: rtcore/GameBoy-v0, with rewards that you say as expressions
over its memory. Tetris and Pokemon have worlds of their own. No commercial ROM
comes with rtcore. Those worlds find your copy by its SHA-256, never by its
name, in RTCORE_ROM_DIR and in ~/.local/share/rtcore/roms, or where rtcore-run
--rom FILE says. Start states are kept in RTCORE_STATE_DIR or
~/.local/share/rtcore/states, each with the hash of its ROM.
"""
EPILOG = """\
from any ROM to a running world, in ten minutes:
  rtcore-rom check game.gb             does it run? which worlds can use it?
  rtcore-rom play game.gb --name at --out .
                                       play; press Z where you know your points:
                                       at-1, at-2, ...; ESC
  rtcore-rom find game.gb --from at-1.rtstate --equals 0 \\
                          --from at-2.rtstate --equals 40
                                       where are they? say, u16[0xC0A0]
  rtcore-rom watch game.gb --from at-1.rtstate --keys "left 9, wait 60" \\
                          --show "u16[0xC0A0]"
                                       is it so?
  rtcore-run --env-id rtcore/GameBoy-v0 --rom game.gb --env-args \\
    'start=wait 200, start, wait 60,actions=noop,A,left,right,
     reward=delta(u16[0xC0A0]),done=u8[0xC0B0]==1'

Tetris and Pokemon:
  rtcore-rom check ~/roms              which files can be used, and for what
  rtcore-rom play --world battles --rom ~/roms/red.gb
                                       play up to a battle; press Z there; ESC
  rtcore-rom states check              every start state: does it load and run?
  rtcore-run --env-id rtcore/PokemonBattles-v0 --rom ~/roms/red.gb

`rtcore-rom COMMAND --help` says more about each; docs/worlds.md describes the
worlds.
"""
_CHECK = """\
Say of each file whether it is a ROM, and which worlds can use it. A folder is
searched with its subfolders.

A file is recognised by its SHA-256. Each is also run for three seconds of the
game in a process of its own, since a damaged one may hang for ever; --no-run
leaves that out. A game that no world is made for can be used with
rtcore/GameBoy-v0, or with a subclass of your own (docs/worlds.md).

exit codes: 0 each FILE, and at least one file of each DIR, can be used; 1 not
so, or another revision of a game that has a world of its own; 2 wrong arguments
"""
_NEW = """\
Make a start state by script: run the game from power-on (or --from a state),
press keys, save.

--keys takes keys and frames in turn: "wait 200, start 2, wait 60, left+a" (or
wait:200 start:2 ...). Keys are a b start select left right up down; `wait`
presses none; a key without a number is pressed for 5 frames. A second has about
60 frames; the boot animation takes the first 80.

--from takes a start state, or a state as PyBoy itself saves it. The latter does
not say of which ROM it is: it is run for three seconds first, and refused if it
hangs, but that it is of this ROM is for you to know.

exit codes: 0 saved; 1 not saved, with the reason; 2 wrong arguments
"""
_PLAY = """\
Play any game in a window, and save start states. --show prints values in memory
as they change.

keys: arrows; A and S are the buttons A and B; RETURN is START, BACKSPACE is
      SELECT; SPACE as fast as it goes; P pause
      Z   save a start state (NAME-1, NAME-2, ...)
      X   back to the last one saved
      ESC end

exit codes: 0 played; 1 no ROM, or no window; 2 wrong arguments
"""
_WATCH = """\
Run a game by a script of keys, without a window, and print what expressions
over its memory are whenever one changes.

examples:
  rtcore-rom watch game.gb --keys "wait 200, start, right 30" \\
                           --show "u8[0xC0A0]" --show "delta(bcd3[0xC0A2])"
  rtcore-rom watch game.gb --from at-1.rtstate --keys "down 300" \\
                           --show "u8[0xC0B0] == 1"
  rtcore-rom watch game.gb --keys "wait 200, start, wait 60" \\
                           --picture now.png     what is on the screen then?

The expressions are those of reward= and done= of rtcore/GameBoy-v0:
docs/worlds.md describes them.

exit codes: 0 done; 1 no ROM, or it does not run; 2 wrong arguments
"""
_FIND = """\
Find where a game keeps a number: its points, its lives, whether it is over.

Tell what you know, from left to right. --keys plays on, and --from goes to a
state that you saved (Z in `play`); each is a moment. What follows says how the
number was then: --equals N, --above N, --below N, or how it compares to the
moment before: --increased, --decreased, --changed, --same.

examples:
  rtcore-rom find game.gb --from at-1.rtstate --equals 0 \\
                          --from at-2.rtstate --equals 40
                                       points, as they were seen while playing
  rtcore-rom find game.gb --keys "wait 200, start, wait 60" --equals 3 \\
                          --keys "right 90" --same --keys "down 400" --decreased
                                       lives, by script
  rtcore-rom find game.gb --from playing.rtstate --from over.rtstate --changed
                                       what says that it is over

With a number, every kind of value is looked for; with rise and fall alone,
single bytes (--type u16, given again for more, asks for others). Too many? Add
a moment: one in which it did not change (--keys "wait 60" --same) drops all
that counts frames.

exit codes: 0 found; 1 nothing fits, or no ROM; 2 wrong arguments
"""


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Fill the program's parser; `command` of the parsed options is then called with them and with `Terminals`.

    It returns the exit code, or raises an error of `rtcore_envs.errors`.
    """
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    check = commands.add_parser("check", help="what each file is, and whether it will run", description=_CHECK)
    check.add_argument("paths", nargs="+", type=Path, metavar="FILE|DIR")
    _add_run_options(check)
    check.set_defaults(command=_check)

    states = commands.add_parser("states", help="list, check and make start states")
    of_states = states.add_subparsers(title="commands", required=True, metavar="COMMAND")
    listing = of_states.add_parser("list", help="the start states there are")
    listing.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="[RTCORE_STATE_DIR or the user's own]")
    listing.add_argument("--json", action="store_true", help="print everything as JSON")
    listing.set_defaults(command=_list_states)
    checking = of_states.add_parser("check", help="whether each can be read, has its ROM here, and runs")
    checking.add_argument("paths", nargs="*", type=Path, metavar="FILE|DIR", help="[as for list]")
    checking.add_argument("--rom", type=Path, metavar="FILE", help="a ROM beside those in the usual folders")
    _add_run_options(checking)
    checking.set_defaults(command=_check_states)
    new = of_states.add_parser("new", help="make one by a script of keys", description=_NEW)
    new.add_argument("name", help="name of the state, without folder and ending")
    new.add_argument("--rom", type=Path, metavar="FILE", help="the ROM [of a --world: looked for by its hash]")
    _add_making_options(new)
    _add_keys(new)
    new.set_defaults(command=rom_play.new_state)

    play = commands.add_parser("play", help="play in a window, and save start states", description=_PLAY)
    _add_rom(play, optional=True)
    _add_making_options(play)
    play.add_argument("--name", help="what the saved states are called [the world]")
    play.add_argument("--scale", type=int, default=4, metavar="N", help="pixels of the window per pixel [4]")
    _add_show(play)
    play.set_defaults(command=rom_play.play)

    watch = commands.add_parser("watch", help="values in memory while a script is played", description=_WATCH)
    _add_rom(watch)
    watch.add_argument("--from", dest="source", type=Path, metavar="STATE", help="go on from here [from power-on]")
    _add_keys(watch)
    _add_show(watch)
    watch.add_argument("--picture", type=Path, metavar="FILE.png", help="save the screen at the end")
    watch.set_defaults(command=rom_play.watch)

    find = commands.add_parser("find", help="where a game keeps a number", description=_FIND)
    _add_rom(find)
    rom_play.add_story(find)
    find.add_argument("--type", action="append", metavar="TYPE", help="u8, u16, bcd3, ...: look for this only")
    find.add_argument("--rows", type=int, default=30, metavar="N", help="print so many [30]")
    find.add_argument("--pictures", type=Path, metavar="DIR", help="save the screen of each moment as PNG")
    find.add_argument("--json", action="store_true", help="print everything as JSON")
    find.set_defaults(command=rom_play.find)


def _add_rom(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    parser.add_argument(
        "rom",
        nargs="?" if optional else None,
        type=Path,
        metavar="ROM",
        help="the file, of any game"
        if not optional
        else "the file, of any game [of a --world: looked for by its hash]",
    )
    if optional:
        parser.add_argument("--rom", dest="rom_option", type=Path, metavar="FILE", help="the same")


def _add_show(parser: argparse.ArgumentParser) -> None:
    form = "print it whenever it changes, such as u16[0xC0A0]; may be given again"
    parser.add_argument("--show", action="append", default=[], metavar="EXPRESSION", help=form)
    parser.add_argument("--symbols", type=Path, metavar="FILE.sym", help="names for addresses")


def _add_keys(parser: argparse.ArgumentParser) -> None:
    keys = parser.add_mutually_exclusive_group()
    keys.add_argument("--keys", metavar="SCRIPT", help='keys and frames: "wait 200, start, wait 60, left+a 5"')
    keys.add_argument("--script", type=Path, metavar="FILE", help="the same from a file; # begins a comment")


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-run", action="store_true", help="do not run anything, only read")
    parser.add_argument("--limit-s", type=_seconds, default=20.0, metavar="S", help="one that runs longer hangs [20]")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"got {text}, expected seconds above 0")
    return seconds


def _add_making_options(parser: argparse.ArgumentParser) -> None:
    worlds = [ANY_WORLD, *WORLD_GAMES]
    parser.add_argument("--world", default=ANY_WORLD, choices=worlds, help=f"what the states are for [{ANY_WORLD}]")
    parser.add_argument("--from", dest="source", type=Path, metavar="STATE", help="go on from here [from power-on]")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to save [where the world looks]")


# -- ROMs --------------------------------------------------------------------------------------------------------


def _check(options: argparse.Namespace, terminals: Terminals) -> int:
    reports: list[RomReport] = []
    all_good, others = True, 0
    with terminals.stderr.status("reading") as status:
        for path in options.paths:
            files, skipped = rom_candidates(path) if path.is_dir() else ([path], 0)
            others += skipped
            found = []
            for file in files:
                status.update(f"examining {file}")
                found.append(examine_rom(file, terminals.known_roms, trial=not options.no_run, limit_s=options.limit_s))
            reports += found
            all_good = all_good and any(report.problem is None for report in found)
    if options.json:
        roms = [report._asdict() | {"path": str(report.path)} for report in reports]
        known = [rom._asdict() for rom in terminals.known_roms]
        print_json({"ok": all_good, "roms": roms, "other_files": others, "known_roms": known})
    else:
        _show_roms(terminals.stdout, reports, others)
        if not all_good:
            _show_known(terminals.stdout, terminals.known_roms)
    return EXIT_DONE if all_good else EXIT_FAILED


def _show_roms(console: Console, reports: list[RomReport], others: int) -> None:
    table = _table("file", "title", "game", "worlds", "runs")
    for report in reports:
        game = report.game or ("another" if report.worlds else "[red]no ROM[/]")
        table.add_row(
            escape(report.path.name), escape(report.title), game, "\n".join(report.worlds), _word(report.runs)
        )
    console.print(table)
    _show_problems(console, reports)
    if others:
        console.print(f"{others} other files are no cartridges by size or header")
    if not reports:
        console.print("no ROM found")
    others_that_run = [
        report for report in reports if report.worlds and report.game is None and report.runs is not False
    ]
    if others_that_run:
        _say_how_to_use(console, others_that_run[0].path)


def _say_how_to_use(console: Console, path: Path) -> None:
    """What can be done with a game that no world is made for."""
    file = shlex.quote(str(path))
    console.print(
        f"\nA game without a world of its own, such as {path.name}: say what it pays and when it is over, "
        "by addresses in its memory (docs/worlds.md), or in a subclass of rtcore_envs.gameboy.GameBoyEnv. "
        "`rtcore-rom find --help` says how to find the addresses. To look at it first:",
        markup=False,
    )
    for line in (
        f"  rtcore-rom play {file}",
        f"  rtcore-run --env-id {ANY_WORLD_ID} --rom {file} --policy random --env-args 'reward=0,done=false'",
    ):
        console.print(line, markup=False, soft_wrap=True)


def _show_known(console: Console, known_roms: Sequence[KnownRom]) -> None:
    table = _table("known ROM", "sha256")
    for known in known_roms:
        table.add_row(known.name, known.sha256)
    console.print("\nWhat the worlds are for, exactly:")
    console.print(table)


# -- start states ------------------------------------------------------------------------------------------------


def _list_states(options: argparse.Namespace, terminals: Terminals) -> int:
    folder = options.folder or state_folder()
    reports = []
    for path in state_files(folder):
        try:
            reports.append(StateReport(path, read_state(path), None, None))
        except StateError as error:
            reports.append(StateReport(path, None, None, str(error)))
    return _show_states(terminals.stdout, reports, folder, as_json=options.json)


def _check_states(options: argparse.Namespace, terminals: Terminals) -> int:
    reports = []
    with terminals.stderr.status("looking for ROMs") as status:
        given_rom = {} if options.rom is None else {sha256_of(read_rom(options.rom)): options.rom}
        roms = roms_by_hash() | given_rom
        for given in options.paths or [state_folder()]:
            for path in state_files(given) if given.is_dir() or not options.paths else [given]:
                status.update(f"examining {path}")
                reports.append(examine_state(path, roms, trial=not options.no_run, limit_s=options.limit_s))
    return _show_states(terminals.stdout, reports, options.paths or state_folder(), as_json=options.json)


def _show_states(console: Console, reports: list[StateReport], where: object, *, as_json: bool) -> int:
    exitcode = EXIT_DONE if all(report.problem is None for report in reports) else EXIT_FAILED
    if as_json:
        print_json({"ok": exitcode == EXIT_DONE, "states": [_state_json(report) for report in reports]})
        return exitcode
    if not reports:
        console.print(f"no start state in {where}", markup=False, soft_wrap=True)
        return exitcode
    table = _table("name", "world", "game", "runs")
    for report in reports:
        name = report.path.name.removesuffix(SUFFIX)
        state = report.state
        world, game = (state.world, state.game) if state is not None else ("damaged", "")
        table.add_row(escape(name), escape(world), escape(game), _word(report.runs))
    console.print(table)
    _show_problems(console, reports)
    return exitcode


def _state_json(report: StateReport) -> dict[str, Any]:
    state = report.state
    header = {} if state is None else {key: getattr(state, key) for key in ("world", "game", "rom_sha256", "pyboy")}
    return {"path": str(report.path), "runs": report.runs, "problem": report.problem} | header


# -- output ------------------------------------------------------------------------------------------------------


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", header_style="bold")
    return table


def _show_problems(console: Console, reports: Sequence[RomReport | StateReport]) -> None:
    for report in reports:
        if report.problem is not None:
            console.print(f"{report.path}: {report.problem}", markup=False, soft_wrap=True)


def _word(runs: bool | None) -> str:
    return {True: "[green]yes[/]", False: "[red]NO[/]", None: "[dim]-[/]"}[runs]
