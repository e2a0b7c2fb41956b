"""A world with processes of its own, which it never ends itself. What becomes of it is noted in the folder `notes`.

When it is closed it writes into `closed` what it was stepped with last.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np


def _sleep() -> None:
    time.sleep(3600)


class _Dropping:
    """Ended by an order to end: what that raises in a finalizer is dropped, as in an emulator's compiled code."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)


def _be_ended_within_compiled_code() -> None:
    """Ended by an order to end, of which code that is compiled makes an error of its own."""
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)
    except BaseException:
        raise SystemError("the emulator was interrupted") from None


class Family(gymnasium.Env[Any, Any]):
    metadata = {"render_fps": 50}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    #: So many that nothing is drawn twice.
    action_space = gymnasium.spaces.Discrete(1 << 40)

    def __init__(
        self,
        notes: str,
        hang_at: int = 0,
        raise_at: int = 0,
        ended_at: int = 0,
        failing_at: int = 0,
        how_closing: str = "",
        ended_with_new_daemon: bool = False,
    ) -> None:
        self._notes, self._hang_at, self._raise_at, self._how_closing = Path(notes), hang_at, raise_at, how_closing
        self._ended_at, self._failing_at = ended_at, failing_at
        self._steps, self._last = 0, -1
        self._child = subprocess.Popen(["sleep", "3600"])
        self._session = subprocess.Popen(["sleep", "3600"], start_new_session=True)
        daemon = multiprocessing.get_context("fork").Process(target=_sleep, daemon=True)
        daemon.start()
        if ended_with_new_daemon:
            os.kill(os.getpid(), signal.SIGTERM)
        # As daemons do: the middle one ends, and the grandchild is nobody's.
        subprocess.run("setsid sleep 3600 & echo $! > grandchild", shell=True, check=True, cwd=notes)
        pids = (self._child.pid, self._session.pid, daemon.pid, int((self._notes / "grandchild").read_text()))
        (self._notes / "pids").write_text(" ".join(map(str, pids)))
        ignored = subprocess.run(["grep", "SigIgn", "/proc/self/status"], check=True, capture_output=True, text=True)
        (self._notes / "ignored_signals").write_text(ignored.stdout.split()[1])
        atexit.register((self._notes / "atexit").touch)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps, self._last = self._steps + 1, action
        if self._steps == self._raise_at:
            raise OSError("the arm does not answer")
        if self._steps == self._ended_at:
            _Dropping()
        if self._steps == self._failing_at:
            _be_ended_within_compiled_code()
        if self._steps == self._hang_at:
            time.sleep(3600)
        return np.zeros(2, np.float32), 0.0, False, False, {}

    def close(self) -> None:
        if self._how_closing == "raise":
            raise OSError("the video cannot be written")
        if self._how_closing == "hang":
            time.sleep(3600)
        if self._how_closing == "die":
            os.kill(os.getpid(), signal.SIGHUP)
        if self._how_closing == "half a second":
            (self._notes / "closing").touch()
            time.sleep(0.5)
        if self._how_closing == "slow":
            time.sleep(3)  # longer than the runtime's own patience with processes that have nothing to save
        (self._notes / "closed").write_text(str(self._last))


def make(**kwargs: Any) -> Family:
    return Family(**kwargs)
