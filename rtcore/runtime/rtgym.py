"""rtgym's interface classes (https://github.com/yannbouteiller/rtgym) as rtcore worlds, unchanged.

    from rtcore.runtime.rtgym import realtime_env

    env = realtime_env(config)      # instead of gymnasium.make("real-time-gym-v1", config=config)

rtgym itself is not needed: an interface is any class with the methods of its `RealTimeGymInterface`. One can also be
the world of a whole run:

    rtcore-run --env-id rtcore.runtime.rtgym:make_world --env-args interface=my_robot:Mine,time_step_duration=0.05
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.wrappers import TransformObservation

from rtcore.config.factories import import_path
from rtcore.errors import ConfigError
from rtcore.runtime.realtime_env import RealtimeEnv
from rtcore.spaces import ObservationSpec

#: Keys of rtgym's configuration that the world takes.
_WORLD_KEYS = ("interface_args", "interface_kwargs", "time_step_duration", "ep_max_length", "wait_on_done")
#: Those of the env around it.
_ENV_KEYS = ("act_in_obs", "act_buf_len", "reset_act_buf")
#: Those that mean nothing here: ticks are on an absolute grid, and what steps consist of is always measured.
_IDLE_KEYS = ("interface", "start_obs_capture", "time_step_timeout_factor", "benchmark", "benchmark_polyak")
_IDLE = frozenset({*_IDLE_KEYS, "benchmark_type", "last_act_on_reset", "act_prepro_func", "obs_prepro_func"})


class InterfaceEnv(gymnasium.Env[npt.NDArray[Any], Any]):
    """An rtgym interface as a world: at each tick its control is sent, then its observation fetched.

    Observation: the interface's one Box, or its several Boxes, flattened one after another, of their common dtype.
    As in rtgym, `reset` sends the default action; with `wait_on_done` an episode's end calls `wait`.
    """

    def __init__(
        self,
        interface: Any,
        *,
        time_step_duration: float = 0.05,
        ep_max_length: float = math.inf,
        wait_on_done: bool = False,
    ) -> None:
        """As rtgym's own env.

        Args:
            interface: An instance.
            time_step_duration: The tick period [s].
            ep_max_length: Ticks after which an episode is truncated.
            wait_on_done: Whether an episode's end calls the interface's `wait`.
        """
        self._interface = interface
        self._max_steps = ep_max_length
        self._wait_on_done = wait_on_done
        self._steps = 0
        parts = interface.get_observation_space()
        self._parts = list(parts.spaces) if isinstance(parts, spaces.Tuple) else [parts]
        self.observation_space = _joined(self._parts)
        self.action_space = interface.get_action_space()
        self.noop_action = interface.get_default_action()
        self.metadata = {"render_modes": [], "render_fps": 1 / time_step_duration}
        #: For `realtime_env`, which takes an observation apart again.
        self.rtcore_info = {"parts": [ObservationSpec.from_space(part).to_json() for part in self._parts]}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        observation, info = self._interface.reset(seed=seed, options=options)
        self._interface.send_control(np.array(self.noop_action))
        return self._join(observation), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._interface.send_control(action)
        observation, reward, terminated, info = self._interface.get_obs_rew_terminated_info()
        self._steps += 1
        truncated = not terminated and self._steps >= self._max_steps
        if self._wait_on_done and (terminated or truncated):
            self._interface.wait()
        return self._join(observation), float(reward), bool(terminated), truncated, info

    def _join(self, parts: Any) -> npt.NDArray[Any]:
        arrays = [np.asarray(part, space.dtype) for part, space in zip(parts, self._parts, strict=True)]
        if len(arrays) == 1:
            return arrays[0]
        return np.concatenate([array.ravel() for array in arrays]).astype(self.observation_space.dtype)


def make_world(*, interface: str | Callable[..., Any], **config: Any) -> InterfaceEnv:
    """Make the world of an rtgym interface; called in the world's process.

    Args:
        interface: "module:Class", or the class.
        config: Keys of an rtgym configuration that the world takes.

    Returns:
        The world.

    Raises:
        ConfigError: There is no such class.
    """
    path = import_path(interface)
    module, _, name = path.partition(":")
    try:
        made = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"interface {path!r}: {error}; expected module:Class") from error
    args, kwargs = config.pop("interface_args", ()), config.pop("interface_kwargs", {})
    return InterfaceEnv(made(*args, **kwargs), **config)


def realtime_env(config: dict[str, Any], *, delay_ticks: int = 1, **fields: Any) -> gymnasium.Env[Any, Any]:
    """What `gymnasium.make("real-time-gym-v1", config=config)` is, clocked by rtcore.

    The interface lives in the world's process.

    Args:
        config: An rtgym configuration; observations, `act_buf_len`, `act_in_obs` and `reset_act_buf` are as in rtgym.
        delay_ticks: As of `RealtimeEnv`.
        fields: Those of `RealtimeEnv`; by default a control stays (`on_missing="repeat"`) and the device is not waited
            for (`on_reset="run"`).

    Returns:
        An env whose observations are tuples, as rtgym's.

    Raises:
        ConfigError: A key is unknown, or its function cannot be kept.
    """
    given = {name: config[name] for name in _WORLD_KEYS if name in config}
    _refuse_others(config)
    if given.get("ep_max_length") == math.inf:
        del given["ep_max_length"]
    around = {"act_in_obs": True, "act_buf_len": 1} | {name: config[name] for name in _ENV_KEYS if name in config}
    try:
        interface = import_path(config["interface"])
    except ValueError as error:
        raise ConfigError(f"interface: {error}") from error
    env = RealtimeEnv(
        "rtcore.runtime.rtgym:make_world",
        env_args={"interface": interface, **given},
        delay_ticks=delay_ticks,
        **around,
        **{"on_missing": "repeat", "on_reset": "run"} | fields,
    )
    parts = [ObservationSpec.from_json(part) for part in env.runtime.header["world"]["own"]["parts"]]
    actions = env.observation_space.spaces[1:] if isinstance(env.observation_space, spaces.Tuple) else ()
    space = spaces.Tuple((*(part.to_space() for part in parts), *actions))
    return TransformObservation(env, lambda observation: _taken_apart(observation, parts), space)


def _taken_apart(observation: Any, parts: list[ObservationSpec]) -> tuple[Any, ...]:
    joined, *actions = observation if isinstance(observation, tuple) else (observation,)
    begin, found = 0, []
    flat = joined.ravel()
    for part in parts:
        taken = flat[begin : begin + part.num_elements]
        found.append(taken.astype(part.np_dtype).reshape(part.shape))
        begin += part.num_elements
    return (*found, *actions)


def _joined(parts: list[Any]) -> spaces.Box:
    for part in parts:
        if not isinstance(part, spaces.Box):
            raise ConfigError(f"observation part {part!r}: expected a Box, as all parts become one array")
    if len(parts) == 1:
        only: spaces.Box = parts[0]
        return only
    dtype = np.result_type(*(part.dtype for part in parts))
    low, high = (np.concatenate([getattr(part, name).ravel() for part in parts]) for name in ("low", "high"))
    return spaces.Box(low.astype(dtype), high.astype(dtype), dtype=dtype.type)


def _refuse_others(config: dict[str, Any]) -> None:
    known = {*_WORLD_KEYS, *_ENV_KEYS, *_IDLE}
    unknown = sorted(config.keys() - known)
    if unknown:
        raise ConfigError(f"rtgym config: unknown key {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    for name in ("act_prepro_func", "obs_prepro_func", "last_act_on_reset"):
        if config.get(name):
            raise ConfigError(f"rtgym config: {name} is not supported; do the same in the interface or in a wrapper")
    capture_s, step_s = config.get("start_obs_capture"), config.get("time_step_duration")
    if capture_s is not None and step_s is not None and capture_s != step_s:
        raise ConfigError(
            f"rtgym config: start_obs_capture={capture_s} and time_step_duration={step_s}; expected the same: an "
            "observation is fetched at its tick"
        )
