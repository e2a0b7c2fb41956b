"""Recordings made of frames and headers that a test wants, without a run."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from rtcore.files.outside import write_sums
from rtcore.memory.layout import FrameHeader
from rtcore.memory.ring import FrameRing
from rtcore.recording.schema import FOLDER
from rtcore.recording.writer import RecordingWriter
from rtcore.scheduling.dispatch import Source, TickKind
from rtcore.spaces import ActionSpec, ObservationSpec

RATE_HZ = Fraction(262144, 4389)
KEYS = ["A", "B", "LEFT", "UP", "RIGHT", "DOWN", "NOOP"]
IMAGE = spaces.Box(0, 255, (20, 31), np.uint8)
ACTED = {"kind": TickKind.ACTED, "source": Source.POLICY, "outcome": 0}


def header(tick: int, **fields: Any) -> FrameHeader:
    """A tick with a policy action of 3 ticks before, but for `fields`."""
    values = dict.fromkeys(FrameHeader._fields, 0)
    values |= {"frame_seq": tick, "tick": tick, "obs_tick": tick - 3, "due_tick": tick}
    return FrameHeader(**(values | ACTED | fields))


def film(
    folder: Path,
    frames: Any,
    headers: Sequence[FrameHeader],
    actions: Sequence[Any],
    *,
    observation: spaces.Space[Any] = IMAGE,
    action: spaces.Space[Any] | None = None,
    meanings: Sequence[str] = (),
    rate_hz: Fraction = RATE_HZ,
    is_finished: bool = True,
) -> Path:
    """A recording in `folder`, as that of a run; its ticks.hdf5."""
    seen, done = ObservationSpec.from_space(observation), ActionSpec.from_space(action or spaces.Discrete(7))
    about = {
        "config": {"env_id": "some/World-v0", "policy": "mlp"},
        "world": {"observation": seen.to_json(), "action": done.to_json(), "action_meanings": list(meanings)},
        "rate_hz": str(rate_hz),
        "played": False,
        "rtcore_version": "0",
        "first_frame_seq": 0,
        "first_log_seq": 0,
    }
    row = FrameRing.private(seen, done.nbytes, 4).row_dtype(np.dtype((done.np_dtype, done.shape)))
    writer = RecordingWriter(folder / FOLDER, seen, done, rate_hz, row, about)
    try:
        for frame, values, applied in zip(frames, headers, actions, strict=True):
            at = writer.ticks.room[0]
            for name, value in values._asdict().items():
                writer.ticks.rows[name][at] = value
            writer.ticks.rows["action"][at] = applied
            writer.frames[at] = frame
            writer.took_ticks(1)
        if is_finished:
            writer.lost_frames = headers[-1].frame_seq + 1 - len(headers) if headers else 0
            writer.close()
            write_sums(writer.path.parent, [writer.path.name])
        else:
            writer.flush(everything=True)
    finally:
        writer.abandon()
    return writer.path
