"""Errors of the worlds.

ValueError
  SettingError       an argument of a world is wrong; the message names it
    ExpressionError  what `reward`, `done` or `info` says about memory means nothing
    RomError         a ROM file cannot be used: missing, not a file, damaged, another game, or refused by the emulator
    StateError       a start state cannot be used: missing, damaged, of another ROM, or there is none
    SymbolFileError  a file of names for addresses cannot be used
ArithmeticError
  RewardError        an expression has no value in this frame: a division by zero, a number that is too large

Whoever makes a world tells a SettingError from a fault of the program: it says everything by itself.
"""

import os
import stat
from pathlib import Path


class SettingError(ValueError):
    """An argument of a world that it cannot run with."""


class ExpressionError(SettingError):
    """An expression over memory that means nothing, or more than is allowed."""


class RewardError(ArithmeticError):
    """An expression that has no finite value in this frame."""


def _open_at_once(path: str, flags: int) -> int:
    """For `open`: of a pipe, it would wait for somebody to write."""
    return os.open(path, flags | os.O_NONBLOCK)


class _FileError(SettingError):
    """A file that cannot be used. ``path`` is the file; the message says what was got and what to do."""

    noun = "file"

    def __init__(self, path: Path, got: str, expected: str, advice: str) -> None:
        super().__init__(f"cannot use the {self.noun} {path}: got {got}, expected {expected}. {advice}")
        self.path = path
        self.got = got
        self.expected = expected
        self._arguments = (path, got, expected, advice)

    @classmethod
    def read(cls, path: Path, expected: str, max_bytes: int) -> bytes:
        """The file's bytes; this error, in words, if it cannot be read. ``expected`` as in "a Game Boy ROM".

        Nothing but a plain file of at most ``max_bytes`` is read: a pipe would wait for ever, a device never end.
        """
        try:
            with open(path, "rb", opener=_open_at_once) as file:
                mode = os.fstat(file.fileno()).st_mode
                if stat.S_ISDIR(mode):
                    raise IsADirectoryError
                if not stat.S_ISREG(mode):
                    raise cls(path, "a pipe, a socket or a device", expected, "Give the path of a plain file.")
                content = file.read(max_bytes + 1)
                if len(content) > max_bytes:
                    size = os.fstat(file.fileno()).st_size
                    raise cls(path, f"{size} bytes", f"at most {max_bytes} ({expected})", "Check the path.")
                return content
        except FileNotFoundError:
            raise cls(path, "no such file", expected, "Check the path.") from None
        except IsADirectoryError:
            raise cls(path, "a folder", expected, "Give the file inside it.") from None
        except OSError as error:
            raise cls(path, str(error), "a readable file", "Check its permissions.") from error
        except ValueError as error:
            if isinstance(error, cls):
                raise
            raise cls(path, str(error), expected, "Check the path.") from error  # such as a zero byte in it

    def __reduce__(self) -> tuple[type["_FileError"], tuple[Path, str, str, str]]:
        """The default would call ``RomError(message)``; errors cross process borders by pickle."""
        return type(self), self._arguments


class RomError(_FileError):
    """A ROM file that cannot be used."""

    noun = "ROM"


class SymbolFileError(_FileError):
    """A file of names for addresses that cannot be used."""

    noun = "symbol file"


class StateError(_FileError):
    """A start state, or a folder of them, that cannot be used."""

    noun = "start state"
