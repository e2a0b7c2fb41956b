"""A run's ticks in order, as they happen: frame, applied action and header of each."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rtcore.learn.replay_memory import Ages, Observations, ages_ms_of, kept_arrays
from rtcore.memory.ring import FrameRing
from rtcore.spaces import ActionSpec


class Ticks(NamedTuple):
    """Ticks one after another, as arrays of one row each. Copies.

    frames (N, *frame_shape), of a Dict world a dict of the parts; rows (N,): a structured array with the fields of
    `FrameHeader` (`rows["tick"]`, `rows["reward"]`, `rows["kind"]`, ...) and `rows["action"]`, what was applied.
    extras: what the policy gave with that action, by name, or None. lost: ticks before these that were overwritten
    before they were read. info: numbers of the world's info after each (`info_keys`), by name, or None. requested: the
    actions asked for, where a person, a shield or a limit may have changed them, or None. task: the run's task at each,
    by name (`TaskSpec`), or None. ages_ms: by a part's name how old it was when its frame was published, (N,) float32
    [ms], or None where the world does not say when parts were measured.
    """

    frames: Observations
    rows: npt.NDArray[Any]
    extras: dict[str, npt.NDArray[Any]] | None
    lost: int
    info: dict[str, npt.NDArray[Any]] | None = None
    requested: npt.NDArray[Any] | None = None
    task: dict[str, npt.NDArray[Any]] | None = None
    ages_ms: Ages | None = None


class TickReader:
    """Reads the ticks of a run's ring, each once. For one thread; it only reads, so it delays nobody.

    Args:
        ring: The run's frames.
        action: The world's action space as bytes.
        first_frame: Number of the first frame to read.
    """

    def __init__(self, ring: FrameRing, action: ActionSpec, first_frame: int = 0) -> None:
        self._ring = ring
        self._row = ring.row_dtype(np.dtype((action.np_dtype, action.shape)))
        self._next = first_frame

    def take(self, most: int | None = None) -> Ticks | None:
        """All ticks since the last call.

        Args:
            most: At most so many, the oldest of them; None: no limit.

        Returns:
            The ticks; None if there are none.
        """
        ring, lost = self._ring, 0
        while (count := ring.sequence.newest() + 1 - self._next) > 0:
            count = min(count, ring.sequence.num_slots, most or count)
            rows, frames = np.empty(count, self._row), ring.empty_frames(count)
            kept = np.empty(count, ring.kept.dtype) if ring.kept else None
            if not ring.copy_rows(self._next, rows, frames, kept):
                self._next += count
                asked = kept_arrays(kept, "requested")
                return Ticks(
                    ring.unpack(frames),
                    rows,
                    kept_arrays(kept, "extras"),
                    lost,
                    info=kept_arrays(kept, "info"),
                    requested=None if asked is None else asked["action"],
                    task=kept_arrays(kept, "task"),
                    ages_ms=ages_ms_of(kept, rows["publish_ns"]),
                )
            resume = ring.sequence.resume_at()
            lost += resume - self._next
            self._next = resume
        return None
