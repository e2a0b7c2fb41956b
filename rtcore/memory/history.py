"""What a policy sees beside the newest frame: older frames and the last applied actions. One rule, used by all.

A decision that saw frame s sees with `obs_history` h and `obs_every` k the frames s-hk, .., s-2k, s-k,
s, and with `act_history` m the actions that were applied at the ticks of the frames s-m+1 .. s, each oldest first.
Numbers before the first frame of the episode are that first frame's: it is repeated, and the action of its tick, at
which the world is reset, is the no-op. By frame, not by tick: where ticks were skipped there are no frames. Workers,
the virtual clock and learners all use this module, so that a network acts on exactly what it was trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rtcore.errors import ConfigError
from rtcore.memory.layout import FrameHeader
from rtcore.memory.ring import FrameRing
from rtcore.scheduling.dispatch import TickKind
from rtcore.spaces import ActionSpec, ObservationSpec

Seqs = npt.NDArray[np.int64]


class _Lengths(Protocol):
    """The settings of a run that say so (`rtcore.config.groups.HistorySettings`)."""

    @property
    def obs_history(self) -> int: ...
    @property
    def act_history(self) -> int: ...
    @property
    def obs_every(self) -> int: ...


@dataclass(frozen=True)
class History:
    """How many older frames and past actions belong to an observation. Both 0: the frame alone."""

    obs_history: int = 0  #: older frames beside the newest one
    act_history: int = 0  #: last applied actions
    obs_every: int = 1  #: frames from one of the older frames to the next

    def __post_init__(self) -> None:
        if self.obs_history < 0 or self.act_history < 0:
            raise ConfigError(f"obs_history={self.obs_history}, act_history={self.act_history}: both must be 0 or more")
        if self.obs_every < 1:
            raise ConfigError(f"obs_every={self.obs_every} must be at least 1")

    @classmethod
    def of(cls, history: _Lengths) -> History:
        """From the settings of a run."""
        return cls(history.obs_history, history.act_history, history.obs_every)

    @property
    def obs_depth_frames(self) -> int:
        """How many frames back the oldest frame is."""
        return self.obs_history * self.obs_every

    @property
    def depth_frames(self) -> int:
        """How many frames back the oldest frame or header is that is needed."""
        return max(self.obs_depth_frames, self.act_history - 1, 0)

    def require_room(self, ring_slots: int) -> None:
        """ConfigError unless a ring of `ring_slots` keeps a history long enough to be copied."""
        if self.depth_frames + 2 > ring_slots // 2:
            raise ConfigError(
                f"obs_history={self.obs_history}, obs_every={self.obs_every}, act_history={self.act_history} reach "
                f"{self.depth_frames} frames back, too far for ring_slots={ring_slots}; expected at most "
                f"{max(0, ring_slots // 2 - 2)}. Raise --ring-slots, or look back less far"
            )

    def frame_seqs(self, seqs: Seqs, first_seqs: Seqs) -> Seqs:
        """(N, h+1): the frames that belong to the frames `seqs` (N,) of episodes that begin with `first_seqs` (N,)."""
        return _window(seqs, first_seqs, self.obs_history + 1, self.obs_every)

    def action_seqs(self, seqs: Seqs, first_seqs: Seqs) -> Seqs:
        """(N, m): the frames at whose ticks the past actions were applied."""
        return _window(seqs, first_seqs, self.act_history)

    def stacked(self, observation: ObservationSpec) -> ObservationSpec:
        """The observation of a network: (h+1, *shape) if there are older frames, else unchanged."""
        if self.obs_history == 0:
            return observation
        count = self.obs_history + 1
        low, high = (bounds if len(bounds) == 1 else bounds * count for bounds in (observation.low, observation.high))
        return replace(observation, shape=(count, *observation.shape), low=low, high=high)

    def empty_past_actions(self, action: ActionSpec) -> npt.NDArray[Any] | None:
        """Memory for (m, *action_shape), as near to zero as the space allows; None if no past action is asked for."""
        if self.act_history == 0:
            return None
        zeros = np.zeros((self.act_history, *action.shape), action.np_dtype)
        return np.clip(zeros, action.low_array, action.high_array)


def _window(seqs: Seqs, first_seqs: Seqs, length: int, every: int = 1) -> Seqs:
    back = np.arange(1 - length, 1) * every
    window: Seqs = np.maximum(seqs[:, None] + back, first_seqs[:, None])
    return window


class HistoryReader:
    """Reads a frame with its history from the ring into a policy's staging memory.

    `observation` is (h+1, *shape) or, without older frames, (*shape); `past_actions` is (m, *action_shape) or None.
    `newest` is the part of `observation` that is the newest frame. `with_stamps`: when the parts of that one were
    measured is wanted, too, in `stamps`. Used by one thread. Allocates little. Also for the simulator, over a ring of
    its own (`FrameRing.private`).
    """

    def __init__(
        self,
        ring: FrameRing,
        history: History,
        observation: npt.NDArray[Any],
        past_actions: npt.NDArray[Any] | None = None,
        *,
        with_stamps: bool = False,
    ) -> None:
        if history.depth_frames:
            history.require_room(ring.sequence.num_slots)
        self._ring = ring
        self._depth, self._obs_depth, self._every = history.depth_frames, history.obs_depth_frames, history.obs_every
        self.newest = observation
        self._older: list[npt.NDArray[Any]] = []
        if history.obs_history:
            self.newest = observation[-1, ...]
            self._older = [observation[place, ...] for place in range(history.obs_history)]
        self._actions: list[memoryview] = []
        if past_actions is not None:
            self._actions = [past_actions[place, ...].reshape(-1).data.cast("B") for place in range(len(past_actions))]
        #: Reads frame `seq` with its history; of a frame that is not there yet, spins for it until a time [ns].
        self.read: Callable[..., FrameHeader | None] = self._read_all
        if not self._older and not self._actions:
            self.read = self._read_frame
        #: As `FrameRing.read_stamps` gave them for the frame that was read last.
        self.stamps = b""
        if with_stamps:
            self._read_unstamped, self.read = self.read, self._read_stamped

    def _read_stamped(self, seq: int, until_ns: int = 0) -> FrameHeader | None:
        header = self._read_unstamped(seq, until_ns)
        stamps = self._ring.read_stamps(seq) if header is not None else None
        if stamps is None:
            return None
        self.stamps = stamps
        return header

    def _read_frame(self, seq: int, until_ns: int = 0) -> FrameHeader | None:
        """Read the frame alone, at the cost of `FrameRing.read_with_header`."""
        return self._ring.read_with_header(seq, self.newest, until_ns)[1]

    def _read_all(self, seq: int, until_ns: int = 0) -> FrameHeader | None:
        """Frame `seq` with its history; its header, or None if any of it was overwritten (nothing is to be used)."""
        ring = self._ring
        _, header = ring.read_with_header(seq, self.newest, until_ns)
        if header is None:
            return None
        first = self._first_needed(seq)
        oldest = seq - self._obs_depth
        for place, out in enumerate(self._older):
            ring.read(max(oldest + place * self._every, first), out)
        oldest = seq - len(self._actions) + 1
        for place, target in enumerate(self._actions):
            target[:] = ring.read_action(max(oldest + place, first)) or bytes(len(target))
        # Check after the copies. The oldest frame is overwritten first: if it is intact, all are.
        return header if ring.is_there(first) else None

    def _first_needed(self, seq: int) -> int:
        """The first frame of the episode of `seq`, or the oldest that the history needs, whichever is newer."""
        last = max(0, seq - self._depth)
        while seq > last and self._ring.kind_of(seq) != TickKind.RESET:
            seq -= 1
        return seq
