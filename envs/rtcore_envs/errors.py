"""Errors of the worlds.

ValueError
  RomError    a ROM file cannot be used: missing, not a file, damaged, or refused by the emulator
"""

from pathlib import Path


class RomError(ValueError):
    """A ROM file that cannot be used. ``path`` is the file; the message says what was got and what to
    do."""

    def __init__(self, path: Path, got: str, expected: str, advice: str) -> None:
        super().__init__(f"cannot use the ROM {path}: got {got}, expected {expected}. {advice}")
        self.path = path
        self._arguments = (path, got, expected, advice)

    def __reduce__(self) -> tuple[type["RomError"], tuple[Path, str, str, str]]:
        """The default would call ``RomError(message)``; errors cross process borders by pickle."""
        return type(self), self._arguments
