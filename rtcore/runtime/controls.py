"""The controls in the hands of a program: what `Runtime.take_over` and `Simulation.take_over` give."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np

from rtcore.errors import StartupError
from rtcore.spaces import ActionSpec


class Controls:
    """Whoever has them says what the world does. Any thread may use it; leaving its block gives them back.

    Example:
        ::

            with runtime.take_over() as controls:
                controls.act(action)  # acts from the next tick on, until the next `act`
    """

    def __init__(self, action: ActionSpec, write: Callable[[bytes | None], None], first: Any) -> None:
        """`write`: gets the bytes of an action, or None: hands off. `first`: what acts until the first `act`."""
        self._spec = action
        self._write = write
        self._turn = threading.Lock()
        self._is_released = False
        self.act(first)

    @property
    def is_released(self) -> bool:
        """They were given back."""
        return self._is_released

    def act(self, action: Any) -> None:
        """This acts at every tick from the next one on.

        To say the same again is to say that somebody is there: with `--starve-ms` the safe action acts in place of who
        falls silent.

        Args:
            action: An element of the action space.

        Raises:
            PolicyError: It is not in the action space.
            StartupError: The controls were given back.
        """
        raw = np.empty(self._spec.shape, self._spec.np_dtype)
        self._spec.encode(action, raw)
        with self._turn:
            if self._is_released:
                raise StartupError("the controls were given back: take over once more")
            self._write(raw.tobytes())

    def release(self) -> None:
        """Give them back: the policy's newest action acts at the next tick. Nothing the second time."""
        with self._turn:
            if not self._is_released:
                self._is_released = True
                self._write(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Steerable:
    """A run whose controls this program may take: `Runtime` in real time, `Simulation` on the virtual clock."""

    def __init__(self) -> None:
        self._controls: Controls | None = None
        self._handing_over = threading.Lock()

    def _make_controls(self, first: Any) -> Controls:
        """Whatever `first` is, it acts from the next tick on; None: the world's no-op."""
        raise NotImplementedError

    def take_over(self, action: Any = None) -> Controls:
        """A person, or whatever this program means by that, has the controls from the next tick on.

        What acts has the source `human`; what the policy would have done is kept beside it (docs/robots.md). Workers go
        on meanwhile. Any thread may.

        Args:
            action: What acts until the first `act`; None: the world's no-op.

        Returns:
            What to `act` with. Leaving it as a context, or `release`, gives the controls back.

        Raises:
            ConfigError: The run has an operator, in a process of its own, who takes the controls.
            PolicyError: The action is not in the action space.
            StartupError: Tick 0 is not there yet, the run is over, or somebody has the controls.
        """
        with self._handing_over:
            if self._controls is not None and not self._controls.is_released:
                raise StartupError("take_over: somebody has the controls; release() gives them back")
            self._controls = self._make_controls(action)
            return self._controls

    def release(self) -> None:
        """Give the controls back, whoever has taken them with `take_over`; nothing if nobody has."""
        with self._handing_over:
            if self._controls is not None:
                self._controls.release()
