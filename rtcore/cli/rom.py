"""`rtcore-rom`: what a ROM file is, and start states of the user's own games."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from rtcore.cli.endings import EXIT_BAD_INPUT, EXIT_FAILED, end_program
from rtcore_envs.errors import RomError, SettingError, StateError
from rtcore_envs.examine import WORLD_GAMES, RomReport, StateReport, examine_rom, examine_state, rom_candidates
from rtcore_envs.keys import Step, parse_script
from rtcore_envs.library import KNOWN_ROMS, FoundRom, KnownRom, find_rom, sha256_of
from rtcore_envs.maker import StateMaker, require_display
from rtcore_envs.states import SUFFIX, is_start_state, read_state, require_rom, state_files, state_folder
from rtcore_envs.trial import try_rom

_DESCRIPTION = """\
Say what ROM files are, and make start states for the worlds of games that you own.

No commercial ROM comes with rtcore. A world finds your copy by its SHA-256, never by its name, in RTCORE_ROM_DIR and
in ~/.local/share/rtcore/roms, or where rtcore-run --rom FILE says. Start states are kept in RTCORE_STATE_DIR or
~/.local/share/rtcore/states, each with the hash of its ROM.
"""
_EPILOG = """\
from a ROM to a running world:
  rtcore-rom check ~/roms                                     which of my files can be used, and for what
  rtcore-rom play --world battles --rom ~/roms/red.gb         play up to a battle; press Z there; ESC
  rtcore-rom states check                                     every start state: does it load and run?
  rtcore-run --env-id rtcore/PokemonBattles-v0 --rom ~/roms/red.gb

`rtcore-rom COMMAND --help` says more about each. docs/worlds.md describes the worlds.
"""
_CHECK = """\
Say of each file whether it is a ROM that a world can use. A folder is searched with its subfolders.

A file is recognised by its SHA-256. Each is also run for three seconds of the game in a process of its own, since a
damaged one may hang for ever; --no-run leaves that out.

exit codes: 0 each FILE, and at least one file of each DIR, can be used; 1 not so; 2 wrong arguments
"""
_NEW = """\
Make a start state by script: run the game from power-on (or --from a state), press keys, save.

--keys takes words KEY:FRAMES: `wait:200 start:2 wait:60 left+a:5`. Keys are a b start select left right up down;
`wait` presses none. A second holds about 60 frames. The same key in two words on end is one long press.

--from takes a start state, or a state as PyBoy itself saves it. The latter does not say of which ROM it is: it is run
for three seconds first, and refused if it hangs, but that it is of this ROM is for you to know.

exit codes: 0 saved; 1 not saved, with the reason; 2 wrong arguments
"""
_PLAY = """\
Play in a window, and save start states.

keys: arrows; A and S are the buttons A and B; RETURN is START, BACKSPACE is SELECT; SPACE as fast as it goes; P pause
      Z   save a start state (NAME-1, NAME-2, ...)
      X   back to the last one saved
      ESC end

exit codes: 0 played; 1 no ROM, or no window; 2 wrong arguments
"""


class _Parser(argparse.ArgumentParser):
    """Errors in one line, as the other programs of rtcore have them."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(EXIT_BAD_INPUT)


def main(arguments: list[str] | None = None, known_roms: Sequence[KnownRom] = KNOWN_ROMS) -> None:
    """Program entry; exits 0, 1 if a file cannot be used or something failed, 2 for wrong arguments.

    `known_roms` is for tests, which have no commercial ROM.
    """
    end_program("rtcore-rom", lambda: _do(_parser().parse_args(arguments), known_roms))


def _do(options: argparse.Namespace, known_roms: Sequence[KnownRom]) -> int:
    try:
        exitcode: int = options.command(options, known_roms)
    except (RomError, StateError, OSError) as error:
        errors = Console(stderr=True, highlight=False)
        errors.print(f"[bold red]rtcore-rom: {type(error).__name__}:[/] ", end="")
        errors.print(str(error), markup=False, soft_wrap=True)
        return EXIT_FAILED
    except SettingError as error:
        return _wrong(str(error))
    return exitcode


def _parser() -> argparse.ArgumentParser:
    form: Any = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = _Parser(prog="rtcore-rom", description=_DESCRIPTION, epilog=_EPILOG, **form)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    check = commands.add_parser("check", help="what each file is, and whether it will run", description=_CHECK, **form)
    check.add_argument("paths", nargs="+", type=Path, metavar="FILE|DIR")
    _add_run_options(check)
    check.set_defaults(command=_check)

    states = commands.add_parser("states", help="list, check and make start states", allow_abbrev=False)
    of_states = states.add_subparsers(title="commands", required=True, metavar="COMMAND")
    listing = of_states.add_parser("list", help="the start states there are", **form)
    listing.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="[RTCORE_STATE_DIR or the user's own]")
    listing.add_argument("--json", action="store_true", help="print everything as JSON")
    listing.set_defaults(command=_list_states)
    checking = of_states.add_parser("check", help="whether each can be read, has its ROM here, and runs", **form)
    checking.add_argument("paths", nargs="*", type=Path, metavar="FILE|DIR", help="[as for list]")
    checking.add_argument("--rom", type=Path, metavar="FILE", help="a ROM beside those in the usual folders")
    _add_run_options(checking)
    checking.set_defaults(command=_check_states)
    new = of_states.add_parser("new", help="make one by a script of keys", description=_NEW, **form)
    new.add_argument("name", help="name of the state, without folder and ending")
    _add_making_options(new)
    keys = new.add_mutually_exclusive_group()
    keys.add_argument("--keys", metavar="SCRIPT", help="words KEY:FRAMES")
    keys.add_argument("--script", type=Path, metavar="FILE", help="the same from a file; # begins a comment")
    new.set_defaults(command=_new_state)

    play = commands.add_parser("play", help="play in a window, and save start states", description=_PLAY, **form)
    _add_making_options(play)
    play.add_argument("--name", help="what the saved states are called [the world]")
    play.add_argument("--scale", type=int, default=4, metavar="N", help="pixels of the window per pixel [4]")
    play.set_defaults(command=_play)
    return parser


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-run", action="store_true", help="do not run anything, only read")
    parser.add_argument("--limit-s", type=float, default=20.0, metavar="S", help="one that runs longer hangs [20]")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def _add_making_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--world", required=True, choices=list(WORLD_GAMES), help="what the start states are for")
    parser.add_argument("--rom", type=Path, metavar="FILE", help="[looked for by its hash]")
    parser.add_argument("--from", dest="source", type=Path, metavar="STATE", help="go on from here [from power-on]")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to save [where the world looks]")


# -- ROMs --------------------------------------------------------------------------------------------------------


def _check(options: argparse.Namespace, known_roms: Sequence[KnownRom]) -> int:
    errors = Console(stderr=True, highlight=False)
    reports: list[RomReport] = []
    all_good, others = True, 0
    with errors.status("reading") as status:
        for path in options.paths:
            files, skipped = rom_candidates(path) if path.is_dir() else ([path], 0)
            others += skipped
            found = []
            for file in files:
                status.update(f"examining {file}")
                found.append(examine_rom(file, known_roms, trial=not options.no_run, limit_s=options.limit_s))
            reports += found
            all_good = all_good and any(report.problem is None for report in found)
    if options.json:
        roms = [report._asdict() | {"path": str(report.path)} for report in reports]
        known = [rom._asdict() for rom in known_roms]
        text = json.dumps({"ok": all_good, "roms": roms, "other_files": others, "known_roms": known}, indent=2)
        print(text, flush=True)
    else:
        console = Console(highlight=False)
        _show_roms(console, reports, others)
        if not all_good:
            _show_known(console, known_roms)
    return 0 if all_good else EXIT_FAILED


def _show_roms(console: Console, reports: list[RomReport], others: int) -> None:
    table = _table("file", "title", "game", "worlds", "runs")
    for report in reports:
        game = report.game or "[red]no[/]"
        table.add_row(
            _plain(report.path.name), _plain(report.title), game, "\n".join(report.worlds), _word(report.runs)
        )
    console.print(table)
    for report in reports:
        if report.problem is not None:
            console.print(f"{report.path}: {report.problem}", markup=False, soft_wrap=True)
    if others:
        console.print(f"{others} other files are no cartridges by size or header")
    if not reports:
        console.print("no ROM found")


def _show_known(console: Console, known_roms: Sequence[KnownRom]) -> None:
    table = _table("known ROM", "sha256")
    for known in known_roms:
        table.add_row(known.name, known.sha256)
    console.print("\nWhat the worlds are for, exactly:")
    console.print(table)


# -- start states ------------------------------------------------------------------------------------------------


def _list_states(options: argparse.Namespace, known_roms: Sequence[KnownRom]) -> int:
    folder = options.folder or state_folder()
    reports = []
    for path in state_files(folder):
        try:
            reports.append(StateReport(path, read_state(path), None, None))
        except StateError as error:
            reports.append(StateReport(path, None, None, str(error)))
    return _show_states(reports, folder, as_json=options.json)


def _check_states(options: argparse.Namespace, known_roms: Sequence[KnownRom]) -> int:
    errors = Console(stderr=True, highlight=False)
    reports = []
    with errors.status("looking for ROMs") as status:
        roms = _roms_by_hash(options.rom, known_roms)
        for given in options.paths or [state_folder()]:
            for path in state_files(given) if given.is_dir() or not options.paths else [given]:
                status.update(f"examining {path}")
                reports.append(examine_state(path, roms, trial=not options.no_run, limit_s=options.limit_s))
    return _show_states(reports, options.paths or state_folder(), as_json=options.json)


def _roms_by_hash(rom: Path | None, known_roms: Sequence[KnownRom]) -> dict[str, Path]:
    """Path by SHA-256 of the known ROMs that are in the usual folders, and of `rom`."""
    found = {} if rom is None else {sha256_of(rom.read_bytes()): rom}
    for known in known_roms:
        with suppress(RomError):
            found.setdefault(known.sha256, find_rom(None, [known]).path)
    return found


def _show_states(reports: list[StateReport], where: object, *, as_json: bool) -> int:
    all_good = all(report.problem is None for report in reports)
    if as_json:
        rows = [_state_json(report) for report in reports]
        print(json.dumps({"ok": all_good, "states": rows}, indent=2), flush=True)
        return 0 if all_good else EXIT_FAILED
    console = Console(highlight=False)
    if not reports:
        console.print(f"no start state in {where}", markup=False, soft_wrap=True)
        return 0
    table = _table("name", "world", "game", "runs")
    for report in reports:
        name = report.path.name.removesuffix(SUFFIX)
        state = report.state
        world, game = (state.world, state.game) if state is not None else ("[red]damaged[/]", "")
        table.add_row(_plain(name), world, game, _word(report.runs))
    console.print(table)
    for report in reports:
        if report.problem is not None:
            console.print(f"{report.path}: {report.problem}", markup=False, soft_wrap=True)
    return 0 if all_good else EXIT_FAILED


def _state_json(report: StateReport) -> dict[str, Any]:
    state = report.state
    header = {} if state is None else {key: getattr(state, key) for key in ("world", "game", "rom_sha256", "pyboy")}
    return {"path": str(report.path), "runs": report.runs, "problem": report.problem} | header


def _new_state(options: argparse.Namespace, known_roms: Sequence[KnownRom]) -> int:
    if Path(options.name).name != options.name or options.name.endswith(SUFFIX):
        return _wrong(f"name: got {options.name!r}, expected one without folder and ending; --out names the folder")
    setting = "--keys" if options.script is None else "--script"
    try:
        text = options.keys or "" if options.script is None else options.script.read_text()
    except (ValueError, OSError) as error:
        return _wrong(f"{setting}: {error}")
    steps = _fixed(parse_script(text, setting), setting)
    rom = _find(options, known_roms)
    _require_source(options, rom)
    maker = StateMaker(rom, options.world)
    try:
        if options.source is not None:
            maker.load(options.source)
        maker.press(steps)
        path = (options.out or maker.default_folder()) / f"{options.name}{SUFFIX}"
        maker.save(path)
    finally:
        maker.close()
    Console(highlight=False).print(f"saved {path}", markup=False, soft_wrap=True)
    return 0


def _play(options: argparse.Namespace, known_roms: Sequence[KnownRom]) -> int:
    if options.scale < 1:
        return _wrong(f"--scale: got {options.scale}, expected at least 1")
    rom = _find(options, known_roms)
    require_display(rom.path)
    _require_source(options, rom)
    console = Console(highlight=False)
    maker = StateMaker(rom, options.world, window="SDL2", scale=options.scale)
    try:
        if options.source is not None:
            maker.load(options.source)
        console.print(f"{rom.known.name}: Z saves a start state, X goes back to the last, ESC ends", markup=False)
        saved = maker.play(
            options.name or options.world,
            options.out,
            lambda text: console.print(text, markup=False, soft_wrap=True),
        )
    finally:
        maker.close()
    console.print(f"{saved} start states saved")
    return 0


def _fixed(steps: list[Step], setting: str) -> list[Step]:
    """A script that runs once cannot draw. Raises `SettingError`."""
    if any(step.drawn for step in steps):
        raise SettingError(
            f"{setting}: got a range of frames, or randomize; expected neither: a world draws, at a reset"
        )
    return steps


def _find(options: argparse.Namespace, known_roms: Sequence[KnownRom]) -> FoundRom:
    return find_rom(options.rom, [known for known in known_roms if known.key in WORLD_GAMES[options.world]])


def _require_source(options: argparse.Namespace, rom: FoundRom) -> None:
    """Refuse a state to go on from that is not of this ROM, or hangs."""
    source = options.source
    if source is None:
        return
    try:
        ours = is_start_state(source)
    except OSError as error:
        raise StateError(source, str(error), "a start state or a state of PyBoy", "Check the path.") from error
    if ours:
        require_rom(read_state(source), rom.known.sha256, rom.path)
    failure = try_rom(rom.path, state=source)
    if failure is not None:
        advice = "It is damaged, or of another ROM."
        raise StateError(source, f"a state that does not run ({failure})", f"one of {rom.path}", advice)


# -- output ------------------------------------------------------------------------------------------------------


def _wrong(message: str) -> int:
    print(f"rtcore-rom: error: {message}", file=sys.stderr)
    return EXIT_BAD_INPUT


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", header_style="bold")
    return table


def _word(runs: bool | None) -> str:
    return {True: "[green]yes[/]", False: "[red]NO[/]", None: "[dim]-[/]"}[runs]


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


if __name__ == "__main__":
    main()
