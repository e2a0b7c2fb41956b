"""A world that cannot be paused: a thing swings along a line by itself, and the agent steers after it.

    cd examples
    rtcore-run --env-id own_world:make_world --policy own_policy:make_policy --duration 5

A thread moves it on, as a robot or another program would: `step` sets the command and reads where things are, `reset`
cannot stop them. Nothing here knows rtcore. Worth having: `render_fps` (the tick rate, else `--fps`), `noop_action`
(for ticks without a policy action, else `--noop-action`), and a `step` that is short against the tick.
"""

import math
import threading
from typing import Any

import gymnasium
import numpy as np

STAY, EPISODE_TICKS = 1, 200  # actions: 0 left, 1 stay, 2 right; an episode takes 4 s at 50 Hz
MOVE_S, AGENT_SPEED, THING_HZ = 0.005, 2.0, 0.15  # a move every 5 ms, lengths a second, swings a second at speed=1


class Chase(gymnasium.Env[np.ndarray, np.int64]):
    """Observation: where the thing is, and where the agent is. Reward: minus their distance."""

    metadata = {"render_modes": [], "render_fps": 50}  # noqa: RUF012 - Gymnasium's own form
    noop_action = STAY

    def __init__(self, *, speed: float = 1.0, fps: float = 50) -> None:
        self.metadata = Chase.metadata | {"render_fps": fps}  # it moves by itself: any rate is its own
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)
        self._command, self._ticks, self._over = STAY, 0, threading.Event()
        self._state = (0.0, 0.0)  # always replaced as a whole: a reader sees both of one moment
        self._mover = threading.Thread(target=self._move_on, args=(speed,), daemon=True)
        self._mover.start()

    def _move_on(self, speed: float) -> None:
        phase = agent = 0.0
        while not self._over.wait(MOVE_S):
            phase += 2 * math.pi * THING_HZ * speed * MOVE_S
            agent = min(1.0, max(-1.0, agent + AGENT_SPEED * MOVE_S * (self._command - STAY)))
            self._state = (math.sin(phase), agent)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._command, self._ticks = STAY, 0  # an episode begins wherever things are
        return np.array(self._state, np.float32), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._command, self._ticks = int(action), self._ticks + 1
        thing, agent = self._state
        return np.array((thing, agent), np.float32), -abs(thing - agent), False, self._ticks >= EPISODE_TICKS, {}

    def close(self) -> None:
        self._over.set()
        self._mover.join()


def make_world(**kwargs: Any) -> Chase:
    return Chase(**kwargs)  # `--env-args speed=2` comes in here
