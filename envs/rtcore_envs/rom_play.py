"""The commands of `rtcore-rom` that run a game: play, watch, find, and start states by script."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from rtcore_envs.errors import SettingError
from rtcore_envs.examine import ANY_WORLD, WORLD_GAMES
from rtcore_envs.expressions import Expression, Number
from rtcore_envs.finder import ALL_TYPES, BYTES, Clue, FittingValue, MemorySnapshot
from rtcore_envs.finder import find as find_values
from rtcore_envs.keys import NO_KEYS, Keys, Step, meaning, parse_script
from rtcore_envs.library import FoundRom, KnownRom, find_rom
from rtcore_envs.maker import StateMaker, require_display
from rtcore_envs.memorymap import read_symbols
from rtcore_envs.owngame import as_own_game
from rtcore_envs.rom import read_rom
from rtcore_envs.states import SUFFIX

EXIT_DONE, EXIT_FAILED = 0, 1


class Terminals(NamedTuple):
    """Where a command writes, and the commercial ROMs that it knows."""

    stdout: Console
    stderr: Console
    known_roms: Sequence[KnownRom]

    def say(self, text: str) -> None:
        """One line, whole."""
        self.stdout.print(text, markup=False, soft_wrap=True)


def print_json(content: dict[str, Any]) -> None:
    """On stdout, for scripts."""
    print(json.dumps(content, indent=2, allow_nan=False), flush=True)


def new_state(options: argparse.Namespace, terminals: Terminals) -> int:
    if Path(options.name).name != options.name or options.name.endswith(SUFFIX):
        raise SettingError(
            f"name: got {options.name!r}, expected one without folder and ending; --out names the folder"
        )
    steps = _script(options)
    rom = _find_rom(options.rom, options.world, terminals.known_roms)
    with StateMaker(rom, options.world, options.source) as maker:
        maker.press(steps)
        path = (options.out or maker.default_folder()) / f"{options.name}{SUFFIX}"
        maker.save(path)
    terminals.say(f"saved {path}")
    return EXIT_DONE


def play(options: argparse.Namespace, terminals: Terminals) -> int:
    if options.scale < 1:
        raise SettingError(f"--scale: got {options.scale}, expected at least 1")
    rom = _find_rom(options.rom or options.rom_option, options.world, terminals.known_roms)
    require_display(rom.path)
    with StateMaker(rom, options.world, options.source) as maker:
        rows = _ValuePrinter(terminals, maker, options.show, options.symbols)
        terminals.say(f"{rom.known.name}: Z saves a start state, X goes back to the last, ESC ends")
        saved = maker.play(
            options.name or options.world, options.out, terminals.say, rows.after_frame, scale=options.scale
        )
    terminals.say(f"{saved} start states saved")
    return EXIT_DONE


def watch(options: argparse.Namespace, terminals: Terminals) -> int:
    steps = _script(options)
    if not options.show and options.picture is None:
        raise SettingError(
            "--show: not given, expected it at least once, such as --show 'u8[0xC0A0]', or --picture FILE"
        )
    rom = _find_rom(options.rom, ANY_WORLD, terminals.known_roms)
    with StateMaker(rom, ANY_WORLD, options.source) as maker:
        rows = _ValuePrinter(terminals, maker, options.show, options.symbols)
        maker.press(steps, rows.after_frame if options.show else None)
        if options.picture is not None:
            maker.save_picture(options.picture)
            terminals.say(f"saved {options.picture}")
    return EXIT_DONE


class _ValuePrinter:
    """Prints the values of expressions, each time one of them is another than in the frame before."""

    def __init__(self, terminals: Terminals, maker: StateMaker, texts: Sequence[str], symbols: Path | None) -> None:
        if symbols is not None:
            maker.memory_map.symbols = read_symbols(symbols)
        self._shown = [Expression("--show", text, maker.memory, maker.memory_map) for text in texts]
        self._widths = [max(len(text), 8) for text in texts]
        self._say = terminals.say
        self._frame = 0
        self._last: list[Number] | None = None
        self._header = self._row("frame", "keys", texts)

    def after_frame(self, keys: Keys = NO_KEYS) -> None:
        """Look at the frame that has just run."""
        if not self._shown:
            return
        self._frame += 1
        for expression in self._shown:
            if self._last is None:
                expression.begin()
            else:
                expression.sample()
        values = [expression.value() for expression in self._shown]
        if values == self._last:
            return
        if self._last is None:
            self._say(self._header)
        self._last = values
        down = meaning(keys).lower() if keys else "-"
        self._say(
            self._row(
                self._frame, down, [f"{value:.6g}" if isinstance(value, float) else str(int(value)) for value in values]
            )
        )

    def _row(self, frame: object, keys: str, cells: Sequence[str]) -> str:
        columns = [f"{cell:>{width}}" for cell, width in zip(cells, self._widths, strict=True)]
        return "  ".join([f"{frame:>8}", f"{keys:12}", *columns])


# -- find --------------------------------------------------------------------------------------------------------


class _Told(argparse.Action):
    """Keeps options in the order in which they were given: what they say depends on it."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        namespace.story = [*(getattr(namespace, "story", None) or []), (str(option).lstrip("-"), values)]


def add_story(parser: argparse.ArgumentParser) -> None:
    """The options of which moments and comparisons are made."""
    moments = parser.add_argument_group("moments, in order")
    moments.add_argument("--keys", action=_Told, metavar="SCRIPT", help='play on: "wait 200, start, wait 60, left 5"')
    moments.add_argument("--from", action=_Told, type=Path, metavar="STATE", help="go to this start state")
    clues = parser.add_argument_group("the number in that moment")
    for name, text in (("equals", "is N"), ("above", "is more than N"), ("below", "is less than N")):
        clues.add_argument(f"--{name}", action=_Told, type=int, metavar="N", help=text)
    for name in ("increased", "decreased", "changed", "same"):
        clues.add_argument(f"--{name}", action=_Told, nargs=0, help="compared to the moment before")
    parser.set_defaults(story=[])


class _KeptMoment(NamedTuple):
    """What leads to a moment, and what is known of it."""

    keys: list[Step]
    source: Path | None
    clues: list[Clue]


def find(options: argparse.Namespace, terminals: Terminals) -> int:
    moments = _moments(options.story)
    numbers = any(clue.number is not None for moment in moments for clue in moment.clues)
    types = options.type or (ALL_TYPES if numbers else BYTES)
    rom = _find_rom(options.rom, ANY_WORLD, terminals.known_roms)
    seen: list[tuple[MemorySnapshot, list[Clue]]] = []
    with StateMaker(rom, ANY_WORLD, moments[0].source) as maker:
        for number, moment in enumerate(moments, 1):
            if moment.source is not None and number > 1:
                maker.go_to(moment.source)
            maker.press(moment.keys)
            seen.append((MemorySnapshot(maker.memory, maker.memory_map), moment.clues))
            if options.pictures is not None:
                maker.save_picture(options.pictures / f"moment-{number}.png")
    found = find_values(seen, types)
    if options.json:
        print_json({"found": [each._asdict() for each in found]})
    else:
        _show_found(terminals, found, options.rows, len(moments), rom.path)
    return EXIT_DONE if found else EXIT_FAILED


def _moments(story: list[tuple[str, Any]]) -> list[_KeptMoment]:
    """The story as it was told. Raises `SettingError` for one that begins with its end, or says nothing."""
    moments: list[_KeptMoment] = []
    for option, value in story:
        if option == "keys":
            moments.append(_KeptMoment(_fixed(parse_script(value, "--keys"), "--keys"), None, []))
        elif option == "from":
            moments.append(_KeptMoment([], value, []))
        elif not moments:
            raise SettingError(f"--{option}: got it first, expected a moment before it: --keys SCRIPT or --from STATE")
        else:
            how: Any = option
            moments[-1].clues.append(Clue(how, value if isinstance(value, int) else None))
    if not any(moment.clues for moment in moments):
        raise SettingError(
            "got nothing to go by, expected moments and what is known of them; see rtcore-rom find --help"
        )
    return moments


def _show_found(terminals: Terminals, found: list[FittingValue], rows: int, num_moments: int, path: Path) -> None:
    if not found:
        terminals.say("nothing fits: is each moment what you think? --pictures DIR shows them")
        return
    shown = found[: max(rows, 1)]
    width = max(len(each.expression) for each in shown)
    terminals.say(
        "  ".join([f"{'value':{width}}", *(f"{f'moment {number + 1}':>10}" for number in range(num_moments))])
    )
    for each in shown:
        terminals.say("  ".join([f"{each.expression:{width}}", *(f"{value:10}" for value in each.values)]))
    if len(found) > len(shown):
        terminals.say(
            f"and {len(found) - len(shown)} more: add a moment, such as one in which it did not change (--same)"
        )
    terminals.say(f'look closer: rtcore-rom watch {path.name} --keys "..." --show "{shown[0].expression}"')
    terminals.say(f"as a reward: delta({shown[0].expression})")


# -- parts -------------------------------------------------------------------------------------------------------


def _find_rom(file: Path | None, world: str, known_roms: Sequence[KnownRom]) -> FoundRom:
    """The ROM that was given, or the one of a world."""
    if world != ANY_WORLD:
        return find_rom(file, [known for known in known_roms if known.key in WORLD_GAMES[world]])
    if file is None:
        raise SettingError(
            f"ROM: not given, expected a file, or --world {' or '.join(WORLD_GAMES)} to look for its game"
        )
    return as_own_game(file, read_rom(file))


def _script(options: argparse.Namespace) -> list[Step]:
    setting = "--keys" if options.script is None else "--script"
    try:
        text = (options.keys or "") if options.script is None else options.script.read_text()
    except (ValueError, OSError) as error:
        raise SettingError(f"{setting}: {error}") from error
    return _fixed(parse_script(text, setting), setting)


def _fixed(steps: list[Step], setting: str) -> list[Step]:
    """A script that runs once cannot draw."""
    if any(step.drawn for step in steps):
        raise SettingError(
            f"{setting}: got a range of frames, or randomize; expected neither: a world draws, at a reset"
        )
    return steps
