"""What a file on a user's disk is: a ROM that a world can use, another one, or none."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rtcore_envs.errors import RomError, StateError
from rtcore_envs.library import KNOWN_ROMS, KnownRom, files_below, may_be_rom, sha256_of
from rtcore_envs.rom import read_rom, rom_title
from rtcore_envs.states import StartState, read_state
from rtcore_envs.trial import try_rom

ROM_SUFFIXES = {".gb", ".gbc", ".sgb"}

#: World, the games that it is for, and its Gymnasium id.
WORLD_GAMES: dict[str, tuple[str, ...]] = {
    "tetris": ("tetris",),
    "battles": ("pokemon-red", "pokemon-blue", "pokemon-yellow"),
    "catching": ("pokemon-red", "pokemon-blue", "pokemon-yellow"),
}
#: The world of any game, which is described in its arguments.
ANY_WORLD = "gameboy"
ANY_WORLD_ID = "rtcore/GameBoy-v0"
WORLD_IDS = {
    "tetris": "rtcore/Tetris-v0",
    "battles": "rtcore/PokemonBattles-v0",
    "catching": "rtcore/PokemonCatching-v0",
}


#: The games that come with the package, by title: any build of them is one for its world.
OWN_WORLD_IDS = {"NARROWS": "rtcore/Blocks-v0", "CELLAR": "rtcore/Catch-v0"}


class RomReport(NamedTuple):
    """``problem`` says why the world that is meant, or any, cannot use the file, and what to do; None if it can.

    ``game`` is None for one that none of the worlds is made for: `ANY_WORLD_ID` takes it.
    """

    path: Path
    num_bytes: int
    title: str
    sha256: str
    game: str | None
    worlds: tuple[str, ...]
    runs: bool | None
    problem: str | None


class StateReport(NamedTuple):
    """``state`` is None for a file that cannot be read; ``problem`` is None for a state that can be used."""

    path: Path
    state: StartState | None
    runs: bool | None
    problem: str | None


def rom_candidates(folder: Path) -> tuple[list[Path], int]:
    """Files of a folder and its subfolders that are, or are named like, cartridges; and how many others there are.

    Raises `RomError` if the folder cannot be read.
    """
    found, others = [], 0
    try:
        for path in files_below(folder):
            if path.suffix.lower() in ROM_SUFFIXES or (may_be_rom(path) and _has_header(path)):
                found.append(path)
            else:
                others += 1
    except OSError as error:
        raise RomError(folder, str(error), "a readable folder of ROMs", "Check its permissions.") from error
    return found, others


def _has_header(path: Path) -> bool:
    try:
        read_rom(path)
    except RomError:
        return False
    return True


def examine_rom(
    path: Path, known_roms: Sequence[KnownRom] = KNOWN_ROMS, *, trial: bool = True, limit_s: float = 20.0
) -> RomReport:
    """Reads the file, looks up its hash, and runs it for `TRIAL_FRAMES` in a process of its own unless told not to."""
    try:
        content = read_rom(path)
    except RomError as error:
        num_bytes = path.stat().st_size if path.is_file() else 0
        reason = f"no cartridge: got {error.got}, expected {error.expected}"
        return RomReport(
            path=path, num_bytes=num_bytes, title="", sha256="", game=None, worlds=(), runs=None, problem=reason
        )
    digest, title = sha256_of(content), rom_title(content)
    own_world = OWN_WORLD_IDS.get(title)
    game = title.lower() if own_world else next((known.key for known in known_roms if known.sha256 == digest), None)
    problem = None if game is not None else _other_revision(digest, title, known_roms)
    runs = None
    if trial:
        failure = try_rom(path, limit_s=limit_s)
        runs = failure is None
        problem = problem if failure is None else f"does not run here: {failure}"
    made_for = [WORLD_IDS[world] for world, games in WORLD_GAMES.items() if game in games]
    worlds = (*([own_world] if own_world else made_for), ANY_WORLD_ID)
    return RomReport(
        path=path,
        num_bytes=len(content),
        title=title,
        sha256=digest,
        game=game,
        worlds=worlds,
        runs=runs,
        problem=problem,
    )


def _other_revision(digest: str, title: str, known_roms: Sequence[KnownRom]) -> str | None:
    """What is wrong with a file that has the title of a known game, and another hash."""
    same = [known for known in known_roms if known.title == title]
    if not same:
        return None
    return (
        f"another revision of {same[0].name}, a patched copy or a damaged one: got sha256 {digest}, "
        f"expected {same[0].sha256}. Its own world refuses it; {ANY_WORLD_ID} takes it"
    )


def examine_state(path: Path, roms: dict[str, Path], *, trial: bool = True, limit_s: float = 20.0) -> StateReport:
    """Reads the state and, where its ROM is among ``roms`` (path by sha256), runs it in a process of its own."""
    try:
        state = read_state(path)
    except StateError as error:
        return StateReport(path, None, None, str(error))
    rom = roms.get(state.rom_sha256)
    if rom is None:
        problem = (
            f"no ROM here has the sha256 {state.rom_sha256} ({state.game}) that it was made with. Give it with --rom "
            "FILE, or put it where ROMs are looked for (rtcore-rom --help)"
        )
        return StateReport(path, state, None, problem)
    if not trial:
        return StateReport(path, state, None, None)
    failure = try_rom(rom, state=path, limit_s=limit_s)
    return StateReport(path, state, failure is None, None if failure is None else f"does not run: {failure}")
