"""A Gymnasium environment as the runtime sees it: checked at every step, with a stand-in for missing actions."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import load_env_creator

from rtcore.clock import NS_PER_MS
from rtcore.config.factories import is_missing
from rtcore.errors import ConfigError, EnvironmentFailed
from rtcore.loop.gymapi import OLD_API, flag_of, raise_named, reset_results, reward_of, step_results
from rtcore.loop.part_stamps import STAMPS, PartStamps
from rtcore.scheduling.dispatch import Source
from rtcore.scheduling.limits import ActionLimits, parse_limit
from rtcore.scheduling.on_missing import OnMissing, StandIn, Starvation
from rtcore.spaces import ActionSpec, Block, DeclaredBounds, FramePacker, ObservationSpec
from rtcore.spaces.action import attribute_of
from rtcore.spaces.bounds import OutOfBounds
from rtcore.spaces.parts import aligned
from rtcore.spaces.payload import REQUESTED, kept_by_world
from rtcore.spaces.task import TaskSpec

#: Rates that differ by less are the same: 59.73 Hz and 60 Hz are not.
_SAME_SPEED = 0.002
#: Package to import for a Gymnasium namespace.
_PACKAGES = {"rtcore": "rtcore_envs", "ALE": "ale_py"}


class StepResult(NamedTuple):
    """What a tick made of the world. `frame` may be the world's own array; valid until the next call.

    `applied`: what was done in the place of the action that was asked for; None: that. `source`: who chose it, if that
    is another one.
    """

    frame: npt.NDArray[Any]
    reward: float
    terminated: bool
    truncated: bool
    applied: bytes | None = None
    source: Source | None = None


class World(Protocol):
    """What the tick loop drives. An action is `encode`d before `step` gets it, so that the record has what the world
    was given, even if the world changes it."""

    def reset(self) -> StepResult: ...
    def hold(self) -> StepResult: ...
    def step(self, action: Any, *, is_free: bool = False) -> StepResult: ...
    def stand_in(self) -> tuple[Any, Source]: ...
    def encode(self, action: Any) -> bytes: ...
    def decode(self, payload: bytes, index: int) -> Any: ...


#: Who chose what the world applied, by what it says.
_SOURCES = {"human": Source.HUMAN, "shield": Source.SHIELD}


def world_seed(seed: int, ticks_before: int) -> int:
    """What the world is seeded with: the run's seed; of a resumed run another one, or it would learn from the same
    episodes again."""
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
        raise ConfigError(f"env-id {env_id!r}: {str(error).rstrip('.')}. {_did_you_mean(env_id)}") from error
    except gymnasium.error.Error as error:
        raise ConfigError(f"env-id {env_id!r}: {error}") from error
    except ModuleNotFoundError as error:
        package, colon, _ = env_id.partition(":")
        if not colon or importlib.util.find_spec(package.partition(".")[0]) is not None:
            raise  # what is missing is something that the world needs
        # Gymnasium's text goes on about registration; what is missing is its first sentence.
        why = str(error).partition(". ")[0]
        raise ConfigError(f"env-id {env_id!r}: {why}; expected module:id of a package that is installed") from error
    return env


def _call_factory(path: str, env_args: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not is_missing(module_name, error):
            raise  # what is missing is something that the world needs
        raise ConfigError(f"env-id {path!r}: {error}; expected module:factory or a Gymnasium id") from error
    try:
        factory = getattr(module, attribute)
    except AttributeError as error:
        raise ConfigError(f"env-id {path!r}: {error}; expected module:factory or a Gymnasium id") from error
    env = factory(**env_args)
    if not isinstance(env, gymnasium.Env):
        raise ConfigError(f"env-id {path!r} returned {type(env).__name__}; expected a gymnasium.Env{_advice(env)}")
    return env


def refused_setting(error: BaseException | None, env_id: str, env_args: dict[str, Any]) -> str | None:
    """What to tell the user if a world refuses one of its arguments; None for any other error.

    The worlds that come with rtcore say so by a type of their own (`rtcore_envs.errors`); an argument that a world
    does not have is a TypeError that names it.
    """
    if isinstance(error, ValueError) and type(error).__module__ == "rtcore_envs.errors":
        return f"env-id {env_id}: {error}"
    if not isinstance(error, TypeError):
        return None
    known = _parameters(env_id)
    given = {*env_args, *(gymnasium.registry[env_id].kwargs if env_id in gymnasium.registry else ())}
    missing = [each.name for each in known if each.default is each.empty and each.name not in given]
    if "missing" in str(error) and missing:
        return f"env-args: {env_id} needs {' and '.join(missing)}, as in --env-args {missing[0]}=..."
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if unknown is None or unknown[1] not in env_args:
        return None
    if unknown[1] == "rom":
        return f"rom: {env_id} takes no ROM; leave --rom out"
    # Gymnasium's own comes on top of what the world takes.
    names = [each.name for each in known] + (["max_episode_steps"] if env_id in gymnasium.registry else [])
    close = difflib.get_close_matches(unknown[1], names, n=2)
    advice = f"Did you mean {' or '.join(close)}?" if close else f"It takes {', '.join(names) or 'none'}"
    return f"env-args: {env_id} has no argument {unknown[1]!r}. {advice}"


def _parameters(env_id: str) -> list[inspect.Parameter]:
    """What a world's factory takes by name; [] where that cannot be known."""
    try:
        if env_id in gymnasium.registry:
            creator: Any = gymnasium.registry[env_id].entry_point
            entry = load_env_creator(creator) if isinstance(creator, str) else creator
        else:
            module_name, _, attribute = env_id.partition(":")
            entry = getattr(importlib.import_module(module_name), attribute)
        parameters = inspect.signature(entry).parameters.values()
        return [each for each in parameters if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]
    except (ImportError, AttributeError, TypeError, ValueError):
        return []


def _advice(made: object) -> str:
    """What to do about something that is no `gymnasium.Env`."""
    if made is None:
        return ": does the function return what it makes?"
    if isinstance(made, gymnasium.vector.VectorEnv):
        return ", one world: leave the vector out, and start a run for each world"
    if hasattr(made, "step") and hasattr(made, "reset"):
        return f". If it is an environment of the old package gym: {OLD_API}"
    return ""


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
    `safe_action`, as of the setting: what the env is stepped with before it is closed. `info_keys`: dtype of each
    number of its `info` that stays with the tick, by name. `task`: what it is to do at first; empty: it has no task.
    `virtual_now_ns`: tells the time of the virtual clock; None: that of its `info` is CLOCK_MONOTONIC.

    The env gets an array of its own at every step: it may keep it and write to it, and neither the no-op nor the
    record changes. `count` is called with "altered_actions" each time it did write to it: such an env (a clipping or
    scaling one, mostly) acts on other numbers than those that are recorded.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        *,
        seed: int,
        on_missing: OnMissing = "noop",
        noop_action: int | None = None,
        safe_action: str | None = None,
        info_keys: Mapping[str, str] | None = None,
        task: Mapping[str, Any] | None = None,
        virtual_now_ns: Callable[[], int] | None = None,
    ) -> None:
        self.env = env
        self.observation = ObservationSpec.from_space(env.observation_space)
        self._frame_of: Callable[[object], npt.NDArray[Any]] = self.observation.check
        self._packer: FramePacker | None = None
        if isinstance(env.observation_space, gymnasium.spaces.Dict):
            self._packer = FramePacker(self.observation, env.observation_space)
            self._frame_of = self._packer.pack
        self.action = ActionSpec.from_space(env.action_space)
        self.on_missing = on_missing
        self.noop, self.noop_source = self.action.noop(env)
        if noop_action is not None:
            if not env.action_space.contains(np.int64(noop_action)):
                raise ConfigError(f"noop-action: got {noop_action}, which is not in {env.action_space}")
            self.noop, self.noop_source = noop_action, "--noop-action"
        #: None: there is none.
        self.safe = self._safe_of(safe_action) if safe_action is not None else None
        #: The env was reset, and not stepped with the safe action since: it is to be made safe before it is closed.
        self._is_unsafe = False
        self._stand_in = StandIn(on_missing, self.noop, self.action.sample, seed)
        #: It says what it applied (`info["rtcore"]`): it has the attribute, or has done so before tick 0.
        self.reports_applied = bool(attribute_of(env, "reports_applied_action"))
        self._info_spec = Block.of("info_keys", {name: ((), dtype) for name, dtype in (info_keys or {}).items()})
        self._keeps: Block | None = None
        #: Somebody may step in: the action asked for is kept beside the one that is applied. Before `keeps` is asked.
        self.keeps_requests = False
        self._info = bytearray(self._info_spec.nbytes)
        self._info_views = self._info_spec.views(self._info)
        self._stamps = PartStamps(env, virtual_now_ns)
        self.task_spec = TaskSpec(task or {})
        #: That governs, as a block.
        self.task = b""
        self.begin_task(1, self.task_spec.first)
        self._limits: ActionLimits | None = None
        self._seed: int | None = seed
        self.seed = seed
        self._options: dict[str, Any] | None = None
        self._ordered = False
        self._last_action = self.noop
        self._last: StepResult | None = None
        self._stepped = False
        self.count: Callable[[str], object] = _count_nothing
        self.has_altered_actions = False
        self._bounds = DeclaredBounds(self.observation)
        self._inspected = self._outside = 0
        self._breach: OutOfBounds | None = None
        #: What a run was found to return outside the declared space: see `ObservationCheck`.
        self.left_later = ""

    def _safe_of(self, text: str) -> Any:
        if text == "noop":
            return self.noop
        try:
            return self.action.from_numbers(json.loads(text))
        except ValueError as error:
            raise ConfigError(f"safe-action: {text} {error}; expected an element of {self.env.action_space}") from error

    def limit_actions(self, limits: Sequence[str], rate_hz: Fraction) -> None:
        """From now on actions change no faster than that; the safe action, and a person's, as they are.

        Args:
            limits: As of the setting.
            rate_hz: At which it is stepped.

        Raises:
            ConfigError: Its actions are not of a Box.
        """
        if not limits:
            return
        if self.action.kind != "box":
            raise ConfigError(
                f"limit: {', '.join(limits)} is about how far an action lies from the last one, which "
                f"{self.env.action_space} does not say; expected a Box"
            )
        bounds = self.action.low_array, self.action.high_array
        self._limits = ActionLimits([parse_limit(text) for text in limits], float(rate_hz), *bounds)

    def starvation(self, starve_ms: float | None) -> Starvation | None:
        """When its safe action acts in a run, as of the setting; None: never."""
        return None if starve_ms is None else Starvation(round(starve_ms * NS_PER_MS), self.safe)

    def begin_task(self, version: int, task: bytes) -> None:
        """From now on it has this task: as `rtcore_task` and `rtcore_task_version` of the env, and with each tick. The
        tick loop is to be told as well.

        Args:
            version: 1 for the first one.
            task: A block of its `task_spec`; empty: nothing is done.
        """
        self.task = task
        if not task:
            return
        values = self.task_spec.unpack(task)
        try:
            self.env.unwrapped.rtcore_task_version = version  # type: ignore[attr-defined]
            self.env.unwrapped.rtcore_task = values  # type: ignore[attr-defined]
        except BaseException as error:
            raise_named(f"rtcore_task = {values!r:.200}", error)

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
        self._is_unsafe = True
        if self._limits is not None:
            self._limits.reset()
        options = {} if self._options is None else {"options": self._options}
        try:
            returned = self.env.reset(seed=self._seed, **options)
        except BaseException as error:
            raise_named("reset()", error)
        observation, info = reset_results(returned)
        if self._info_spec:
            self._keep_info(info, is_reset=True)
        if self._last is None:
            self.observation = self._stamps.begin(info, self.observation)
        elif self._stamps.names:
            self._stamps.take(info, "reset()")
        self._seed = self._options = None
        self._last_action = self.noop
        frame = self._frame_of(observation)
        # A copy: a world that is held shows this frame at several ticks, and may write to its own array meanwhile.
        self._last = StepResult(frame if self._packer is not None else frame.copy(), 0.0, False, False)
        return self._last

    def inspect(self) -> None:
        """Check whether the newest observation is in the declared space. Before the run, where that costs no tick."""
        breach = self._bounds.breach(self.hold().frame)
        self._inspected += 1
        self._outside += breach is not None
        self._breach = self._breach or breach

    @property
    def leaves_space(self) -> str:
        """What in the first observation outside the declared space is; "": none was."""
        if self._breach is None:
            return self.left_later
        return f"{self._breach}, in {self._outside} of {self._inspected} observations before tick 0"

    def restart(self) -> StepResult:
        """As new: the first episode again, from the seed."""
        self._seed = self.seed
        self._stand_in.begin(self.seed)
        self._stepped = True
        return self.reset()

    def order_reset(self, seed: int | None, options: dict[str, Any] | None) -> None:
        """A program asks for the next `reset`: it is done even if no step was made since the last one.

        Except the first one without seed and options: the world has been reset with the run's own seed already.
        """
        if seed is not None:
            self._seed = seed
            self._stand_in.begin(seed)
        self._options = options
        self._stepped = self._stepped or self._ordered or seed is not None or options is not None
        self._ordered = True

    def hold(self) -> StepResult:
        """The same frame again, without a step."""
        if self._last is None:
            return self.reset()
        return self._last

    def step(self, action: Any, *, is_free: bool = False) -> StepResult:
        """One step with a copy of `action`, which stays the caller's and unchanged. Allocates that copy.

        `is_free`: it is not limited: a person's, as the safe action never is.
        """
        self._stepped = self._is_unsafe = True
        limits, asked, is_by_hand = self._limits, action, is_free
        if limits is not None:
            is_free = is_free or action is self.safe
            if not is_free:
                action, was_cut = limits.limited(action)
                if was_cut:
                    self.count("limited_actions")
        given = action.copy() if isinstance(action, np.ndarray) else action
        try:
            returned = self.env.step(given)
        except BaseException as error:
            raise_named(f"step({action!r:.200})", error)
        observation, reward, terminated, truncated, info = step_results(returned)
        result = StepResult(
            self._frame_of(observation),
            reward_of(reward),
            flag_of(terminated, "terminated"),
            flag_of(truncated, "truncated"),
        )
        self._last, self._last_action = result, action
        if given is not action and not np.array_equal(given, action):
            self.has_altered_actions = True
            self.count("altered_actions")
        if limits is not None:
            limits.follow(action, hand_over=is_free)
            if action is not asked and not np.array_equal(action, asked):
                result = result._replace(applied=self.encode(action))
        if self._info_spec:
            self._keep_info(info)
        if self._stamps.names:
            self._stamps.take(info, "step()")
        if type(info) is dict and "rtcore" in info:
            said = info["rtcore"]
            if not self._stamps.names or len(said) > 1:
                return self._as_applied(result, said)
        if is_by_hand:
            self._lose_request()
        return result

    def _as_applied(self, result: StepResult, said: Any) -> StepResult:
        """What the world says of the action that it applied in this step. What is repeated later is that one."""
        try:
            if not self._stamps.names and STAMPS in said:
                raise ValueError(f"it has {STAMPS!r}, which that of its first reset() did not have")
            value, source = self.action.from_numbers(said["applied_action"]), _SOURCES[said["source"]]
        except (KeyError, TypeError, ValueError) as error:
            raise EnvironmentFailed(
                f'the world returned info["rtcore"] = {said!r:.200} from step() ({type(error).__name__}: {error}); '
                f'expected {{"applied_action": an element of {self.env.action_space}, "source": '
                f"{' or '.join(map(repr, _SOURCES))}}}"
            ) from error
        self._last_action = value
        if self._limits is not None:
            self._limits.follow(np.asarray(value), hand_over=source is Source.HUMAN)
        if self._keeps is None:
            self.reports_applied = True
        else:
            self._lose_request()
        return result._replace(applied=self.encode(value), source=source)

    def _keep_info(self, info: Mapping[str, Any], *, is_reset: bool = False) -> None:
        for name, view in self._info_views.items():
            value = info.get(name, self)
            if value is self:
                if view.dtype.kind != "f" and not is_reset:
                    raise EnvironmentFailed(
                        f"info_keys: the world returned an info without {name!r} from step(); expected one number of "
                        f"dtype {view.dtype} at each. Give it a float dtype: there a missing one is NaN"
                    )
                view[...] = math.nan if view.dtype.kind == "f" else 0
                continue
            try:
                with np.errstate(over="raise"):
                    view[...] = value
            except (TypeError, ValueError, OverflowError, FloatingPointError) as error:
                raise EnvironmentFailed(
                    f"info_keys: the world returned info[{name!r}] = {value!r:.80} ({error}); expected one number of "
                    f"dtype {view.dtype}"
                ) from error

    def _lose_request(self) -> None:
        """Another action is applied than was asked for: counted where there is no room for both."""
        if REQUESTED not in self.keeps.names:
            self.count("lost_requests")

    @property
    def keeps(self) -> Block:
        """What it leaves with each tick. From the first call on it is what it was then."""
        if self._keeps is None:
            changes = self.reports_applied or self._limits is not None or self.keeps_requests
            self._keeps = kept_by_world(
                self.action,
                self._info_spec,
                requested=changes,
                stamps=self._stamps.block,
                task=self.task_spec.block,
            )
        return self._keeps

    def kept_with(self, requested: bytes) -> bytes:
        """What it leaves with the tick of its last step: a block of `keeps`. Allocates that."""
        if REQUESTED not in self.keeps.names:
            return bytes(self._info) + self._stamps.raw + self.task
        return requested.ljust(aligned(len(requested)), b"\0") + self._info + self._stamps.raw + self.task

    def stand_in(self) -> tuple[Any, Source]:
        """What acts at a tick without a policy action."""
        return self._stand_in.choose(self._last_action)

    def encode(self, action: Any) -> bytes:
        """The action's bytes as the ring keeps them (`ActionSpec.nbytes`)."""
        return np.asarray(action, dtype=self.action.np_dtype).tobytes()

    def decode(self, payload: bytes, index: int) -> Any:
        """Action `index` of a chunk."""
        size = self.action.nbytes
        raw = np.frombuffer(payload, self.action.np_dtype, self.action.num_elements, index * size)
        return self.action.decode(raw.reshape(self.action.shape))

    @property
    def can_pause(self) -> bool:
        """Whether it may be left standing in the middle of an episode: its attribute `can_pause`, if it has one."""
        said = attribute_of(self.env, "can_pause")
        return said is None or bool(said)

    def pause(self, paused: bool) -> None:
        """It is not stepped for a while, or goes on: its `pause()` and `resume()` are called, if it has them."""
        name = "pause" if paused else "resume"
        call = attribute_of(self.env, name)
        if callable(call):
            try:
                call()
            except BaseException as error:
                raise_named(f"{name}()", error)

    def make_safe(self) -> None:
        """One more step, with the safe action, unless it was the last that the env got; nothing without one.

        What the step returns is nobody's: no tick, no frame, no reward. EnvironmentFailed if it raises.
        """
        safe = self.safe
        if safe is None or not self._is_unsafe:
            return
        try:
            self.env.step(safe.copy() if isinstance(safe, np.ndarray) else safe)
        except BaseException as error:
            raise_named(f"step({safe!r:.200}), the safe action", error)
        self._is_unsafe = False

    def close(self) -> None:
        """Make it safe, then close it, whatever the first comes to. EnvironmentFailed if one of them raises."""
        try:
            self.make_safe()
        finally:
            self._is_unsafe = False  # it was tried
            try:
                self.env.close()
            except BaseException as error:
                raise_named("close()", error)

    def notes(self, rate_hz: Fraction) -> list[str]:
        """What a run's header says of this world that its user may not know. `rate_hz`: at which it is stepped."""
        found = []
        own_hz, source = own_rate_hz(self.env)
        factor = float(rate_hz) / own_hz if own_hz else 1.0
        if abs(factor - 1) > _SAME_SPEED:
            found.append(
                f"WARNING: the world runs at {factor:.4g} times its own speed: a step is {1 / own_hz:.4g} s of its "
                f"time ({source}), and there are {float(rate_hz):.4g} a second"
            )
        names = ", ".join(type(wrapper).__name__ for wrapper in _action_wrappers(self.env))
        if names and not self.reports_applied:
            found.append(
                f"{names} changes actions within the world: record, transitions and replay have what was handed to it "
                '(unless info["rtcore"] says what was applied: docs/robots.md)'
            )
        if self.leaves_space:
            found.append(f"WARNING: {leaves_space_text(self.leaves_space)}")
        if self.has_altered_actions and not self.reports_applied:
            found.append(
                "WARNING: the world writes to the action that it is given: record, transitions and replay have what "
                "was handed to it, not what it made of that"
            )
        return found


def leaves_space_text(what: str) -> str:
    """The warning about observations that are not as declared. `what`: see `ObservationCheck`."""
    return (
        f"the world's observations leave the space that it declares: {what}. Whatever scales by that space is wrong "
        "then: declare what is returned, or clip it in a wrapper"
    )


def own_rate_hz(env: gymnasium.Env[Any, Any]) -> tuple[float, str]:
    """Steps that make a second of the world's own time, and who says so; 0.0 where nothing does.

    Simulators that have `dt` (MuJoCo's, in seconds a step) mean that; else it is the metadata's `render_fps`.
    """
    for value, source in ((getattr(env.unwrapped, "dt", None), "its dt"), (env.metadata.get("render_fps"), "")):
        number = value if isinstance(value, (int, float)) and value > 0 else None
        if number is not None:
            return (1 / float(number), source) if source else (float(number), f"render_fps {number:g} of its metadata")
    return 0.0, ""


def _action_wrappers(env: gymnasium.Env[Any, Any]) -> Iterator[gymnasium.Env[Any, Any]]:
    """From the outside in."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, gymnasium.ActionWrapper):
            yield env
        env = env.env


def _count_nothing(name: str) -> None:
    """Where nobody keeps books."""


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

    def step(self, action: Any, *, is_free: bool = False) -> StepResult:
        return self._world.hold()

    def stand_in(self) -> tuple[Any, Source]:
        return self._stand_in

    def encode(self, action: Any) -> bytes:
        return self._world.encode(action)

    def decode(self, payload: bytes, index: int) -> Any:
        return self._world.decode(payload, index)
