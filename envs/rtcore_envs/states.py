"""Start states: moments of a game that episodes begin with, each tied to the exact ROM it was made with.

PyBoy loads the state of another ROM without an error, and then hangs. So a start state is a file of our own around
PyBoy's: one line with a checksum of the rest, one line of JSON, the compressed state. Whatever is cut off or changed
is noticed before an emulator sees it.
"""

import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rtcore_envs.errors import StateError
from rtcore_envs.library import files_below, own_folder

STATE_DIR_VARIABLE = "RTCORE_STATE_DIR"
SUFFIX = ".rtstate"

_MAGIC = b"rtcore-state-1 "
_HEADER_KEYS = {"rom_sha256", "game", "world", "pyboy"}
#: PyBoy's states are 150 kB, up to 300 kB with a cartridge's own RAM.
_MAX_STATE_BYTES = 4 * 1024 * 1024
_MAX_HEADER_TEXT = 200

_MAKE_NEW = "Make it anew: `rtcore-rom play` or `rtcore-rom states new`."


class StartState(NamedTuple):
    """A start state that was read whole. ``world`` is what it was made for, such as ``battles``."""

    path: Path
    rom_sha256: str
    game: str
    world: str
    pyboy: str
    packed: bytes

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(SUFFIX)

    def unpack(self) -> bytes:
        """PyBoy's state; 0.2 ms. Raises `zlib.error` if it is not whole, or larger than any."""
        unpacking = zlib.decompressobj()
        state = unpacking.decompress(self.packed, _MAX_STATE_BYTES)
        if not unpacking.eof:
            raise zlib.error(f"not whole, or more than {_MAX_STATE_BYTES} bytes")
        return state


def state_folder() -> Path:
    """``RTCORE_STATE_DIR`` if it is set, else the user's own folder. Raises `StateError` if there is neither."""
    given = os.environ.get(STATE_DIR_VARIABLE)
    own = Path(given) if given else own_folder("states")
    if own is None:
        expected = "a folder to keep them in"
        raise StateError(Path(STATE_DIR_VARIABLE), "neither that variable nor a home folder", expected, "Set one.")
    return own


def write_state(path: Path, state: bytes, *, rom_sha256: str, game: str, world: str, pyboy: str) -> None:
    """Write a start state, whole or not at all; folders are made.

    Args:
        path: the file to be.
        state: what PyBoy's ``save_state`` wrote.
        rom_sha256: of the ROM that it was saved with, in hex.
        world: Gymnasium id of the world that it was saved in.
        game: key of the game, such as ``pokemon-red``.
        pyboy: version of PyBoy that saved it.

    Raises:
        FileExistsError: there is a file of that name.
        OSError: it cannot be written.
    """
    header = {"rom_sha256": rom_sha256, "game": game, "world": world, "pyboy": pyboy}
    rest = json.dumps(header, sort_keys=True).encode() + b"\n" + zlib.compress(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with draft.open("xb") as file:
            file.write(_MAGIC + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # unlike a rename, refuses to replace a file
    finally:
        draft.unlink(missing_ok=True)


def read_state(path: Path) -> StartState:
    """Read a start state and check it as far as that goes without an emulator. Raises `StateError`."""
    content = StateError.read(path, "a start state", _MAX_STATE_BYTES)
    if not content:
        raise StateError(path, "an empty file", "a start state", _MAKE_NEW)
    first, _, rest = content.partition(b"\n")
    if not first.startswith(_MAGIC):
        advice = f"Turn a state of PyBoy's own into one: `rtcore-rom states new NAME --from {path}`."
        raise StateError(path, "another kind of file", f"a start state of rtcore (*{SUFFIX})", advice)
    if hashlib.sha256(rest).hexdigest().encode() != first.removeprefix(_MAGIC):
        raise StateError(path, f"{len(content)} bytes with a wrong checksum", "what was written", _MAKE_NEW)
    line, _, packed = rest.partition(b"\n")
    try:
        header = json.loads(line)
        if set(header) != _HEADER_KEYS or not all(isinstance(text, str) for text in header.values()):
            raise ValueError(f"keys {sorted(header)}, expected {sorted(_HEADER_KEYS)}")
        if not all(text.isprintable() and len(text) <= _MAX_HEADER_TEXT for text in header.values()):
            raise ValueError("text that is not printable, or too long")  # it goes to the terminal
        state = StartState(
            path=path,
            rom_sha256=header["rom_sha256"],
            game=header["game"],
            world=header["world"],
            pyboy=header["pyboy"],
            packed=packed,
        )
        state.unpack()
    except (ValueError, TypeError, RecursionError, zlib.error) as error:
        raise StateError(path, f"a header or state that cannot be read ({error})", "a start state", _MAKE_NEW) from None
    return state


def is_start_state(path: Path) -> bool:
    """Whether a file begins like one of ours; PyBoy's own states do not. `StateError` if it cannot be read."""
    return StateError.read(path, "a state", _MAX_STATE_BYTES).startswith(_MAGIC)


def load_any_state(emulator: Any, path: Path) -> None:
    """Load a start state, or a state as PyBoy itself saves it, unchecked: the emulator may hang afterwards."""
    ours = is_start_state(path)
    state = read_state(path).unpack() if ours else StateError.read(path, "a state", _MAX_STATE_BYTES)
    emulator.load_state(io.BytesIO(state))


def require_rom(state: StartState, rom_sha256: str, rom: Path) -> None:
    """Raises `StateError` unless the state was made with exactly this ROM."""
    if state.rom_sha256 != rom_sha256:
        raise StateError(
            state.path,
            f"a state of {state.game} (ROM sha256 {state.rom_sha256})",
            f"one of the ROM {rom} (sha256 {rom_sha256})",
            "An emulator would load it and hang. Give that ROM, or a state that was made with this one.",
        )


def state_files(folder: Path) -> Iterator[Path]:
    """Every start state in a folder and its subfolders, by name; none if the folder is not there.

    Raises:
        StateError: the folder cannot be read.
    """
    try:
        yield from (path for path in files_below(folder) if path.name.endswith(SUFFIX))
    except FileNotFoundError:
        return
    except OSError as error:
        raise StateError(folder, str(error), "a readable folder of start states", "Check its permissions.") from error
