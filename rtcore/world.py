"""A Gymnasium environment as the runtime sees it: checked at every step, with a stand-in for missing actions."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import math
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Literal, NamedTuple, Protocol

import gymnasium
import numpy as np
import numpy.typing as npt

from rtcore.errors import ConfigError, EnvironmentFailed
from rtcore.spaces import ActionSpec, FramePacker, ObservationSpec

OnMissing = Literal["noop", "repeat", "random"]

#: Package to import for a Gymnasium namespace.
_PACKAGES = {"rtcore": "rtcore_envs", "ALE": "ale_py"}


class Source(IntEnum):
    """Who chose the action that was applied at a tick."""

    POLICY = 0
    NOOP = 1
    REPEAT = 2
    RANDOM = 3
    HELD = 4  #: no action: the world was held or reset


class StepResult(NamedTuple):
    """What a tick made of the world. `frame` belongs to the world; valid until the next call."""

    frame: npt.NDArray[Any]
    reward: float
    terminated: bool
    truncated: bool


class World(Protocol):
    """What the tick loop drives."""

    def reset(self) -> StepResult: ...
    def hold(self) -> StepResult: ...
    def step(self, action: Any) -> StepResult: ...
    def stand_in(self) -> tuple[Any, Source]: ...
    def encode(self, action: Any) -> bytes: ...
    def decode(self, payload: bytes, index: int) -> Any: ...


def world_seed(seed: int, ticks_before: int) -> int:
    """What the world is seeded with: the run's seed, or one of its own for each place that a run is resumed at.

    The same episodes again would be learned from twice.
    """
    if not ticks_before:
        return seed
    return int(np.random.SeedSequence([seed, 3, ticks_before]).generate_state(1)[0])


def make_environment(env_id: str, env_args: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """`gymnasium.make`, or `module:factory` called with `env_args`; a clear error names what is wrong."""
    if ":" in env_id and env_id.partition(":")[2].isidentifier():
        return _call_factory(env_id, env_args)
    # Gymnasium 1.x registers an id when its package is imported: these are known by their namespace.
    package = _PACKAGES.get(env_id.partition("/")[0])
    if package is not None and importlib.util.find_spec(package) is not None:
        importlib.import_module(package)
    try:
        env: gymnasium.Env[Any, Any] = gymnasium.make(env_id, **env_args)
    except gymnasium.error.UnregisteredEnv as error:
        raise ConfigError(f"env-id {env_id!r}: {error}. {_did_you_mean(env_id)}") from error
    except gymnasium.error.DependencyNotInstalled as error:
        raise ConfigError(f"env-id {env_id!r}: {error}") from error
    return env


def _call_factory(path: str, env_args: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    module_name, _, attribute = path.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"env-id {path!r}: {error}; expected module:factory or a Gymnasium id") from error
    env = factory(**env_args)
    if not isinstance(env, gymnasium.Env):
        raise ConfigError(f"env-id {path!r} returned {type(env).__name__}; expected a gymnasium.Env")
    return env


def _did_you_mean(env_id: str) -> str:
    close = difflib.get_close_matches(env_id, list(gymnasium.registry), n=3)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return (
        "`python -c 'import gymnasium; gymnasium.pprint_registry()'` lists what is installed. If your program "
        "registers it: the world's process does not import that; give module:factory, or module:id of a module that "
        "registers it"
    )


class GymnasiumWorld:
    """Drives a Gymnasium env and checks what it returns: dtype, shape, a finite reward.

    The frame of a Box is the array that the env returned; a Dict of Boxes is packed into one array of this object's.
    `on_missing` is what acts when no policy action is there. `noop_action` overrides the env's own no-op.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        *,
        seed: int,
        on_missing: OnMissing = "noop",
        noop_action: int | None = None,
    ) -> None:
        self.env = env
        self.observation = ObservationSpec.from_space(env.observation_space)
        self._frame_of: Callable[[object], npt.NDArray[Any]] = self.observation.check
        if isinstance(env.observation_space, gymnasium.spaces.Dict):
            self._frame_of = FramePacker(self.observation, env.observation_space).pack
        self.action = ActionSpec.from_space(env.action_space)
        self.on_missing = on_missing
        self.noop, self.noop_source = self.action.noop(env)
        if noop_action is not None:
            if not env.action_space.contains(np.int64(noop_action)):
                raise ConfigError(f"noop-action: got {noop_action}, which is not in {env.action_space}")
            self.noop, self.noop_source = noop_action, "--noop-action"
        self._rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
        self._seed: int | None = seed
        self.seed = seed
        self._options: dict[str, Any] | None = None
        self._ordered = False
        self._last_action = self.noop
        self._last: StepResult | None = None
        self._stepped = False

    @property
    def action_meanings(self) -> list[str]:
        """What the world calls its actions, by number; [] where it has no `get_action_meanings`, as Atari has."""
        try:
            found = self.env.get_wrapper_attr("get_action_meanings")()
        except AttributeError:
            return []
        return [str(meaning) for meaning in found]

    def reset(self) -> StepResult:
        """A new episode. The seed goes in once, at the first reset; a reset before any step changes nothing."""
        if self._last is not None and not self._stepped:
            return self._last
        self._stepped = False
        options = {} if self._options is None else {"options": self._options}
        try:
            observation, _ = self.env.reset(seed=self._seed, **options)
        except Exception as error:
            raise EnvironmentFailed(f"the world raised in reset(): {type(error).__name__}: {error}") from error
        self._seed = self._options = None
        self._last_action = self.noop
        self._last = StepResult(self._frame_of(observation), 0.0, False, False)
        return self._last

    def restart(self) -> StepResult:
        """As new: the first episode again, from the seed."""
        self._seed = self.seed
        self._rng = np.random.default_rng(np.random.SeedSequence([self.seed, 1]))
        self._stepped = True
        return self.reset()

    def order_reset(self, seed: int | None, options: dict[str, Any] | None) -> None:
        """The next `reset` is one that somebody asked for: it is done even if no step was made since the last.

        Only the very first without seed and options finds what it asks for already there: the run's own seed.
        """
        if seed is not None:
            self._seed = seed
            self._rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
        self._options = options
        self._stepped = self._stepped or self._ordered or seed is not None or options is not None
        self._ordered = True

    def hold(self) -> StepResult:
        """The same frame again, without a step."""
        if self._last is None:
            return self.reset()
        return self._last

    def step(self, action: Any) -> StepResult:
        self._stepped = True
        try:
            observation, reward, terminated, truncated, _ = self.env.step(action)
        except Exception as error:
            raise EnvironmentFailed(f"the world raised in step({action!r}): {type(error).__name__}: {error}") from error
        frame = self._frame_of(observation)
        reward = float(reward)
        if not math.isfinite(reward):
            raise EnvironmentFailed(f"the world returned reward {reward}; expected a finite number")
        self._last_action = action
        self._last = StepResult(frame, reward, bool(terminated), bool(truncated))
        return self._last

    def stand_in(self) -> tuple[Any, Source]:
        """What acts at a tick without a policy action."""
        if self.on_missing == "repeat":
            return self._last_action, Source.REPEAT
        if self.on_missing == "random":
            return self.action.sample(self._rng), Source.RANDOM
        return self.noop, Source.NOOP

    def encode(self, action: Any) -> bytes:
        """The action's bytes as the ring keeps them (`ActionSpec.nbytes`)."""
        return np.asarray(action, dtype=self.action.np_dtype).tobytes()

    def decode(self, payload: bytes, index: int) -> Any:
        """Action `index` of a chunk."""
        size = self.action.nbytes
        raw = np.frombuffer(payload, self.action.np_dtype, self.action.num_elements, index * size)
        return self.action.decode(raw.reshape(self.action.shape))

    def close(self) -> None:
        self.env.close()


class HeldWorld:
    """A world that stands still on its first frame: for rehearsing the workers before tick 0."""

    def __init__(self, world: World) -> None:
        self._world = world
        no_action = getattr(world, "noop", None)
        #: What stands in: the same each time, so that rehearsing draws none of the run's random actions.
        self._stand_in = world.stand_in() if no_action is None else (no_action, Source.NOOP)

    def reset(self) -> StepResult:
        return self._world.hold()

    def hold(self) -> StepResult:
        return self._world.hold()

    def step(self, action: Any) -> StepResult:
        return self._world.hold()

    def stand_in(self) -> tuple[Any, Source]:
        return self._stand_in

    def encode(self, action: Any) -> bytes:
        return self._world.encode(action)

    def decode(self, payload: bytes, index: int) -> Any:
        return self._world.decode(payload, index)
