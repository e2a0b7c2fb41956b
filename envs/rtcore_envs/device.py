"""A synthetic device: a world that has a clock of its own, for trying `--clock world` without a camera or a robot."""

import time
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from rtcore_envs.errors import SettingError

Observation = dict[str, Any]

_NS_PER_S = 1_000_000_000
_POLL_NS = 500_000


class SyntheticDeviceEnv(gymnasium.Env[Observation, npt.NDArray[np.float32]]):
    """Synthetic: a point on a line that is to follow a light, seen by a slow camera. Its device is made up, too: cycles
    at its own rate, whose stamps jitter, whose clock drifts, and some of which are lost.

    Observation: a Dict of ``camera``, (16, 32) uint8, the light as a bright column, a new picture every `camera_every`
    steps; and ``place``, (1,) float32, where the point is, new in each. `info` has the time stamps of both. Action (1,)
    float32: the point's speed. Reward: minus the distance to the light. No episode ends.

    `hz`: cycles a second. `drift_ppm`: by how much the device's clock is slow, in millionths. `jitter_us`: how far a
    stamp lies from its time at most. `lose_every`: each so many-th cycle does not come; 0: none is lost.
    `stops_after_s`: from then on it is silent; 0: never. `tells`: ``wait``, it has `wait_cycle`; ``stamps``, it has
    `cycle_stamp_ns`.
    """

    metadata = {"render_modes": [], "render_fps": 60}  # noqa: RUF012 - Gymnasium's own convention
    #: The run's time; on the virtual clock the run puts that here.
    rtcore_now_ns = staticmethod(time.monotonic_ns)

    def __init__(
        self,
        hz: float = 60.0,
        drift_ppm: float = 0.0,
        jitter_us: float = 200.0,
        lose_every: int = 0,
        stops_after_s: float = 0.0,
        camera_every: int = 2,
        tells: str = "wait",
    ) -> None:
        period_ns = _NS_PER_S / hz * (1 + drift_ppm / 1e6) if hz > 0 else 0.0
        if not 1e3 <= period_ns <= 1e12:
            raise SettingError(f"hz={hz!r}: expected a rate from 0.001 to 1,000,000 Hz")
        if not 0 <= jitter_us * 1e3 < period_ns / 2:
            raise SettingError(f"jitter_us={jitter_us!r}: expected 0 or more, and less than half a period")
        if lose_every < 0 or camera_every < 1:
            raise SettingError(f"lose_every={lose_every!r}, camera_every={camera_every!r}: expected 0 and 1 or more")
        if tells not in ("wait", "stamps"):
            raise SettingError(f"tells={tells!r}: expected wait or stamps")
        if tells == "wait":
            self.wait_cycle = self._wait_cycle
        else:
            self.cycle_stamp_ns = self._cycle_stamp_ns
        self._period_ns, self._jitter_ns = period_ns, jitter_us * 1e3
        self._lose_every, self._camera_every = int(lose_every), int(camera_every)
        self._begun_ns = time.monotonic_ns()
        self._last = int(stops_after_s * _NS_PER_S / period_ns) if stops_after_s > 0 else 1 << 62
        self._returned = -1
        self._place = self._light = 0.0
        self._steps = 0
        self._picture = np.zeros((16, 32), np.uint8)
        self._stamps_ns: dict[str, int] = {}
        self.part_rates_hz = {"camera": hz / camera_every, "place": hz}
        self.observation_space = spaces.Dict(
            {"camera": spaces.Box(0, 255, (16, 32), np.uint8), "place": spaces.Box(-1, 1, (1,), np.float32)}
        )
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self._place = self._light = 0.0
        return self._observation(), {"rtcore": {"stamps_ns": dict(self._stamps_ns)}}

    def step(self, action: npt.NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        self._place = float(np.clip(self._place + 0.05 * float(action[0]), -1, 1))
        self._light = float(np.clip(self._light + self.np_random.normal(0, 0.02), -1, 1))
        observation, info = self._observation(), {"rtcore": {"stamps_ns": dict(self._stamps_ns)}}
        return observation, -abs(self._light - self._place), False, False, info

    def _observation(self) -> Observation:
        self._stamps_ns["place"] = now_ns = self.rtcore_now_ns()
        if self._steps % self._camera_every == 0 or "camera" not in self._stamps_ns:
            self._stamps_ns["camera"] = now_ns
            self._picture.fill(0)
            self._picture[:, round((self._light + 1) / 2 * 31)] = 255
        return {"camera": self._picture.copy(), "place": np.array([self._place], np.float32)}

    # -- its clock -------------------------------------------------------------------------------------------

    def _wait_cycle(self, timeout_s: float) -> int | None:
        """See `rtcore.loop.world_clock.WaitsForCycles`."""
        give_up_ns = time.monotonic_ns() + int(timeout_s * _NS_PER_S)
        while (cycle := self._newest()) <= self._returned:
            left_ns = give_up_ns - time.monotonic_ns()
            if left_ns <= 0:
                return None
            next_ns = self._stamp_ns(self._returned + 1) - time.monotonic_ns()
            time.sleep(min(left_ns, next_ns if next_ns > 0 else _POLL_NS) / _NS_PER_S)
        self._returned = cycle
        return self._stamp_ns(cycle)

    def _cycle_stamp_ns(self) -> int | None:
        """See `rtcore.loop.world_clock.StampsCycles`."""
        cycle = self._newest()
        return self._stamp_ns(cycle) if cycle >= 0 else None

    def _newest(self) -> int:
        """The newest cycle that has come; -1: none."""
        now_ns = time.monotonic_ns()
        cycle = min(int((now_ns - self._begun_ns) / self._period_ns) + 1, self._last)
        while cycle >= 0 and (self._is_lost(cycle) or self._stamp_ns(cycle) > now_ns):
            cycle -= 1
        return cycle

    def _is_lost(self, cycle: int) -> bool:
        return self._lose_every > 0 and cycle % self._lose_every == self._lose_every - 1

    def _stamp_ns(self, cycle: int) -> int:
        noise = (cycle * 2654435761 % 4096) / 2048 - 1  # of the cycle alone: the same whenever it is asked for
        return self._begun_ns + round(cycle * self._period_ns + noise * self._jitter_ns)
