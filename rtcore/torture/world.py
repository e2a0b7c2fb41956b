"""Worlds that are watched: another one, which writes down when it is made and closed, with a child of its own.

`rtcore-run --env-id rtcore.torture.world:make --env-args env_id=CartPole-v1,note=FILE`: the campaign of real runs plays
in these, because a promise is that `close()` is called however a run ends, and that what a world started ends with it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import gymnasium

from rtcore.loop.world import make_environment

MADE, CLOSED = "made", "closed"
#: How the child is named in the kernel; it does nothing.
SIMULATOR = ("sleep", "86400")


class WatchedWorld(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Plays like the world inside. The file stays open, so that a process without free descriptors can write, too."""

    def __init__(self, env: gymnasium.Env[Any, Any], note: Path, *, simulator: bool) -> None:
        super().__init__(env)
        self._note = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if simulator:
            self._simulator = subprocess.Popen(SIMULATOR, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self._write(MADE)

    def close(self) -> None:
        """The child is left to rtcore."""
        super().close()
        self._write(CLOSED)

    def _write(self, what: str) -> None:
        os.write(self._note, f"{what} {os.getpid()}\n".encode())


def make(env_id: str, note: str, simulator: bool = False, **env_args: Any) -> WatchedWorld:
    """The world `env_id`, watched.

    Args:
        env_id: As of `rtcore-run`.
        note: The file that it writes to: a line when it was made, one when it was closed.
        simulator: Start a child that does nothing.
        env_args: Of the world.
    """
    return WatchedWorld(make_environment(env_id, env_args), Path(note), simulator=simulator)


def notes(file: Path) -> list[str]:
    """What it wrote: `MADE` and `CLOSED`, in order."""
    return [line.partition(" ")[0] for line in file.read_text().splitlines()] if file.exists() else []
