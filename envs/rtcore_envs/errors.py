"""Errors of the worlds.

ValueError
  RomError    a ROM file cannot be used: missing, not a file, damaged, another game, or refused by the emulator
  StateError  a start state cannot be used: missing, damaged, of another ROM, or there is none
"""

from pathlib import Path


class _FileError(ValueError):
    """A file that cannot be used. ``path`` is the file; the message says what was got and what to do."""

    noun = "file"

    def __init__(self, path: Path, got: str, expected: str, advice: str) -> None:
        super().__init__(f"cannot use the {self.noun} {path}: got {got}, expected {expected}. {advice}")
        self.path = path
        self.got = got
        self.expected = expected
        self._arguments = (path, got, expected, advice)

    @classmethod
    def read(cls, path: Path, expected: str) -> bytes:
        """The file's bytes; this error, in words, if it cannot be read. ``expected`` as in "a Game Boy ROM"."""
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise cls(path, "no such file", expected, "Check the path.") from None
        except IsADirectoryError:
            raise cls(path, "a folder", expected, "Give the file inside it.") from None
        except OSError as error:
            raise cls(path, str(error), "a readable file", "Check its permissions.") from error

    def __reduce__(self) -> tuple[type["_FileError"], tuple[Path, str, str, str]]:
        """The default would call ``RomError(message)``; errors cross process borders by pickle."""
        return type(self), self._arguments


class RomError(_FileError):
    """A ROM file that cannot be used."""

    noun = "ROM"


class StateError(_FileError):
    """A start state, or a folder of them, that cannot be used."""

    noun = "start state"
