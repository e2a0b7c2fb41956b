"""A world that now and then takes several ticks for a step, and a program that writes a recording until it is ended."""

from __future__ import annotations

import resource
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from rtcore.errors import RecordError
from rtcore.memory.ring import FrameRing
from rtcore.recording.writer import RecordingWriter
from rtcore.spaces import ActionSpec, ObservationSpec

OBSERVATION = ObservationSpec.from_space(gymnasium.spaces.Box(0, 255, (8, 8), np.uint8))
ACTION = ActionSpec.from_space(gymnasium.spaces.Discrete(3))
FRAMES = np.random.default_rng(0).integers(0, 256, (5000, 8, 8)).astype(np.uint8)


class Stumbling(gymnasium.Env[Any, Any]):
    """Episodes of 50 steps; each 23rd step takes 70 ms. What is seen and paid follows from all actions so far."""

    metadata = {"render_fps": 60}  # noqa: RUF012 - Gymnasium's own convention
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self) -> None:
        self._steps = 0
        self._state = np.zeros(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._state = self.np_random.normal(size=4)
        return self._state.copy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        if self._steps % 23 == 0:
            time.sleep(0.07)
        self._state = np.tanh(self._state * 1.1 + action * self.np_random.normal(size=4))
        return self._state.copy(), float(self._state.sum()), self._steps % 50 == 0, False, {}


class Arm(gymnasium.ObservationWrapper[Any, Any, Any]):
    """What is seen of `Stumbling`, as a Dict in which every number follows from the state's first one."""

    angles = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
    camera = gymnasium.spaces.Box(0, 255, (16, 16), np.uint8)
    observation_space: gymnasium.Space[Any] = gymnasium.spaces.Dict(
        {"arm": gymnasium.spaces.Dict({"angles": angles}), "camera": camera}
    )

    def __init__(self) -> None:
        super().__init__(Stumbling())

    def observation(self, observation: Any) -> dict[str, Any]:
        return {"arm": {"angles": observation}, "camera": Arm.seen(observation)}

    @staticmethod
    def seen(angles: Any) -> Any:
        """The camera's pictures (..., 16, 16) at angles (..., 4)."""
        level = (np.abs(angles[..., :1, np.newaxis]) * 1000).astype(np.int64)
        return ((level + np.arange(256).reshape(16, 16)) % 256).astype(np.uint8)


def write(folder: Path, room_bytes: int | None) -> None:
    """Row after row, for as long as the program lives; after 200 rows the file may grow by `room_bytes` at most."""
    ring = FrameRing.private(OBSERVATION, ACTION.nbytes, 4)
    about = {
        "config": {"env_id": "some/World-v0"},
        "world": {"observation": OBSERVATION.to_json(), "action": ACTION.to_json()},
        "rate_hz": "60",
        "first_frame_seq": 0,
        "first_log_seq": 0,
    }
    row = ring.row_dtype(np.dtype((ACTION.np_dtype, ACTION.shape)))
    writer = RecordingWriter(folder, OBSERVATION, ACTION, Fraction(60), row, about)
    try:
        for number, frame in enumerate(FRAMES):
            if number == 200 and room_bytes is not None:
                limit = writer.path.stat().st_size + room_bytes
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            for table, took in ((writer.ticks, writer.took_ticks), (writer.jobs, writer.took_jobs)):
                at = table.room[0]
                for name in table.rows.dtype.names or ():
                    table.rows[name][at] = number
                writer.frames[writer.ticks.room[0]] = frame
                took(1)
            writer.flush()
            print(number, flush=True)
    except RecordError as error:
        print(error, flush=True)
        writer.abandon()


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
