"""`RealtimeEnv`: a Gymnasium env whose `step` is clocked in real time.

The world runs in rtcore's env process, tick by tick on an absolute grid, and does not wait: `step(action)` hands an
action over and returns with the next frame. A program that takes longer than a tick finds that more than one has gone
by, and `info` says how many, and what acted in them.
"""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode

from rtcore.clock import NS_PER_MS, MonotonicClock
from rtcore.config.run import SETTINGS, RuntimeConfig, make_config
from rtcore.errors import ConfigError, PolicyError, RtcoreError, RtcoreWarning, key_of
from rtcore.loop.world import leaves_space_text
from rtcore.report.finished import write_results
from rtcore.results.out_folder import OutFolder
from rtcore.results.run_record import writing_to
from rtcore.runtime.player import Player, Seen
from rtcore.runtime.runtime import Runtime
from rtcore.runtime.step_clock import StepClock
from rtcore.scheduling.dispatch import Source
from rtcore.spaces import ActionSpec, ObservationCheck, ObservationSpec
from rtcore.spaces.image import ImageOf, image_in
from rtcore.spaces.payload import AGES, age_of, stamps_of

#: What of a `RuntimeConfig` means something where the program itself is the policy.
FIELDS = frozenset(
    {
        *("env_id", "env_args", "rom", "fps", "overrun", "on_missing", "noop_action", "on_reset", "seed", "on_late"),
        *("safe_action", "starve_ms", "limit", "info_keys", "task", "operator", "blend_ticks", "clock"),
        *("ring_slots", "startup_timeout_s", "env_timeout_s", "realtime", "env_cpu", "out", "pictures", "trace"),
        "record",
    }
)
#: Longer than any run: it ends when it is closed.
_ENDLESS_TICKS = 1 << 53


class RealtimeEnv(gymnasium.Env[Any, Any]):
    """One world in real time, stepped by one thread of this program.

        env = rtcore.RealtimeEnv("CartPole-v1", fps=50)
        obs, info = env.reset(seed=0)
        obs, reward, terminated, truncated, info = env.step(action)

    An action governs the tick `delay_ticks` after the frame it was chosen from. One that comes later governs the next
    tick that has no newer one; ticks without any are left to `on_missing`.

    Real time begins at `reset` and ends with the episode: the world then waits. `reset(seed=..., options=...)` goes
    through at any time; `options` are JSON. `reward` is the sum over all ticks since the last step.

    The constructor starts the world's process, as a Gymnasium env must know its spaces: it takes about a second.
    `close`, or leaving a `with` block, ends it. What may be wrong with the world (a rate other than its own, say) is
    warned of, as by a `Runtime`.

    Args:
        world: A Gymnasium id, `module:factory`, the factory itself, or a `RuntimeConfig`.
        delay_ticks: From a frame to the tick that an action chosen from it governs: 1 is the next tick.
        act_buf_len: As in rtgym: so many of the last actions are appended to the observation, oldest first, those on
            their way included: Tuple(obs, a, ..., a). None: plain observations.
        act_in_obs: False: the last actions are in `info["rtcore"]["past_actions"]` only.
        reset_act_buf: False: all but the newest of them outlive an episode.
        render_mode: "rgb_array": `render` returns the image that the world shows, if it shows one. "human": the world
            opens its own window, in its own process (`render_mode` among its arguments). None: neither.
        default_action: Stands in for actions that there were not; None: the world's no-op.
        progress: Deprecated, as of `Runtime`.
        fields: Settings of a `RuntimeConfig` by name, those in `FIELDS`.

    Raises:
        ConfigError: A setting is wrong.
        EnvironmentFailed: What the world raised: also by `reset`, `step` and `close`.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"]}  # noqa: RUF012 - as of gymnasium.Env

    def __init__(
        self,
        world: str | RuntimeConfig | Callable[..., gymnasium.Env[Any, Any]],
        *,
        delay_ticks: int = 1,
        act_buf_len: int | None = None,
        act_in_obs: bool = True,
        reset_act_buf: bool = True,
        render_mode: str | None = None,
        default_action: Any = None,
        progress: Callable[[str], None] | None = None,
        **fields: Any,
    ) -> None:
        if not _is_count(delay_ticks):
            raise ConfigError(
                f"delay_ticks={delay_ticks!r}: expected a whole number of ticks; an action governs the tick after its "
                "frame at the soonest: 1"
            )
        if act_buf_len is not None and not _is_count(act_buf_len):
            raise ConfigError(f"act_buf_len={act_buf_len!r}: expected at least 1, or None for plain observations")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ConfigError(f"render_mode={render_mode!r}: expected human, rgb_array or None")
        self.delay_ticks = delay_ticks
        self.render_mode = render_mode
        config = _config(world, delay_ticks, fields)
        if render_mode == "human":
            config = config.replace(env_args=config.world.env_args | {"render_mode": "human"})
        self._folder = OutFolder(config.output.out) if config.output.out is not None else None
        if self._folder is not None:
            self._folder.acquire()
        self._runtime = Runtime(config, progress=progress, played_delay_ticks=delay_ticks, folder=self._folder)
        # An env that is deleted without `close` also ends its world's process. Only a request: any thread may call it.
        weakref.finalize(self, self._runtime.stop).atexit = False
        try:
            self._runtime.start()
            self._player: Player = self._runtime.player()
            about = self._runtime.header["world"]
            self._action = ActionSpec.from_json(about["action"])
            self.action_space = self._action.to_space()
            self._noop = self._as_action(about["noop_value"])
            self.default_action = self._noop if default_action is None else self._as_action(default_action)
            self._past = deque([self.default_action] * (act_buf_len or 0), maxlen=act_buf_len or 0)
            self._act_in_obs = act_in_obs and act_buf_len is not None
            self._reset_act_buf = reset_act_buf
            self._observation = ObservationSpec.from_json(about["observation"])
            self.observation_space = self._with_actions(self._observation.to_space())
            self._image = self._image_shown() if render_mode == "rgb_array" else None
        except BaseException:
            self._runtime.close()
            self._release()
            raise
        self._out = self._runtime.config.output.out
        self._clock = MonotonicClock()
        self._watch = ObservationCheck(self._observation, self._clock, self._player.count, self._warn_leaves_space)
        self._times = StepClock()
        self._begun = self._closing_reported = False
        self.metadata = {
            **RealtimeEnv.metadata,
            "render_fps": float(self._runtime.rate_hz),
            "autoreset_mode": AutoresetMode.DISABLED,
        }
        around: dict[str, Any] = {"act_buf_len": act_buf_len, "act_in_obs": act_in_obs, "reset_act_buf": reset_act_buf}
        if render_mode is not None:
            around["render_mode"] = render_mode
        if default_action is not None:
            around["default_action"] = np.asarray(self.default_action).tolist()
        self.spec = _spec(self._runtime.config, {"delay_ticks": delay_ticks, **around})

    # -- Gymnasium -----------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode at the next tick. Allowed at any time.

        Args:
            seed: Of the world, as of any Gymnasium env.
            options: Of the world; JSON.

        Returns:
            The first observation, and info: ticks, delays, who acted.

        Raises:
            ConfigError: The options are not JSON.
            EnvironmentFailed: What the world raised.
        """
        super().reset(seed=seed)
        self._begun = False  # even if the reset is interrupted: the old episode is over
        if self._reset_act_buf:
            self._past.extend([self.default_action] * len(self._past))
        elif self._past:
            self._past[-1] = self.default_action  # as in rtgym: it acts until the first action of the episode does
        seen = self._player.reset(seed, options or None)
        self._begun = True
        self._times.begin(seen)
        return self._observe(seen), self._info(seen)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Hand an action over; returns with the next frame, at the latest a tick later if the world is on time.

        Args:
            action: An element of the action space.

        Returns:
            Observation, reward (the sum over all ticks since the last step), terminated, truncated, info.

        Raises:
            PolicyError: The action is not in the action space.
            gymnasium.error.ResetNeeded: The episode is over, or none has begun.
            EnvironmentFailed: What the world raised.
        """
        if not self._begun:
            raise gymnasium.error.ResetNeeded("no episode is under way: call reset()")
        start_ns = self._clock.now_ns()
        given = self._checked(action)
        raw = np.asarray(given, self._action.np_dtype).tobytes()
        self._past.append(given)
        seen = self._player.step(raw)
        self._begun = not seen.is_last
        self._times.add(start_ns, seen, self._player.answered_ns)
        header = seen.header
        return self._observe(seen), seen.reward, bool(header.terminated), bool(header.truncated), self._info(seen)

    def render(self) -> Any:
        """The newest image that the world shows, as it is.

        Returns:
            (height, width, 3) uint8, a copy; None unless `render_mode` is "rgb_array", and before the first reset.
        """
        seen = self._player.seen
        if self._image is None or seen is None:
            return None
        image = self._image(seen.frame)
        return np.broadcast_to(image, (*image.shape[:2], 3)).copy()

    def paused(self) -> contextlib.AbstractContextManager[None]:
        """For a block the world stands still, and real time with it: see `Runtime.paused`. Not to be stepped within."""
        return self._runtime.paused()

    def close(self) -> None:
        """End the world's process and remove its shared memory. Safe to call more than once.

        With `out`, the folder then has what one of `rtcore-run` has. RecordError if it cannot be written. Once,
        EnvironmentFailed if the world's own `close` raised, EnvironmentHung if it took longer than `env_timeout_s`.
        """
        self._runtime.close()
        if not self._runtime.is_over:
            return  # a forked child's, or a callback's
        out, self._out = self._out, None
        if out is not None and self._runtime.record is not None:
            summary = self._runtime.summary()
            try:
                self._runtime.wait()
            except RtcoreError as error:
                summary["error"] = f"{type(error).__name__}: {error}"
            with writing_to(out):
                pictures = self._runtime.config.output.pictures
                write_results(out, summary, self._runtime.stats(), self._runtime.record, pictures=pictures)
        self._release()
        failure = self._runtime.close_failure
        if failure is not None and not self._closing_reported:
            self._closing_reported = True
            raise failure

    def _release(self) -> None:
        if self._folder is not None:
            self._folder.release()

    # -- beyond Gymnasium ----------------------------------------------------------------------------------

    @property
    def runtime(self) -> Runtime:
        """The run behind it: `stats()`, `summary()`, `transitions()`."""
        return self._runtime

    @property
    def noop_action(self) -> Any:
        """What stands for doing nothing, as the world says. A copy that the caller may keep and change."""
        return self._as_action(self._noop)

    def benchmarks(self) -> dict[str, tuple[float, float]]:
        """Moving mean and mean deviation of what a step consists of [s]; names as rtgym's where they mean the same.

        time_step_duration (frame to frame), inference_duration (the program's own, step to step), step_duration,
        send_control_duration, retrieve_obs_duration (the wait for the next frame and its copy).
        """
        return self._times.to_dict()

    # -- inside --------------------------------------------------------------------------------------------

    def _image_shown(self) -> ImageOf:
        found = image_in(self._observation)
        if found is None:
            raise ConfigError(
                f'render_mode="rgb_array": the world shows {self._observation.to_space()}, which is no image, and what '
                'it draws stays in its own process; expected "human", or None'
            )
        return found

    def _with_actions(self, frame_space: spaces.Space[Any]) -> spaces.Space[Any]:
        if not self._act_in_obs:
            return frame_space
        return spaces.Tuple((frame_space, *(self._action.to_space() for _ in self._past)))

    def _checked(self, action: Any) -> Any:
        """`_as_action`; EnvironmentFailed for one that is not finite if the observation was not."""
        try:
            return self._as_action(action)
        except PolicyError:
            seen = self._player.seen
            if seen is not None and not _is_finite(action):
                self._watch.bounds.refuse_not_finite(seen.frame, f"at tick {seen.header.tick}")
            raise

    def _warn_leaves_space(self, what: str) -> None:
        if self._runtime.note_leaves_space(what):
            warnings.warn(leaves_space_text(what), RtcoreWarning, stacklevel=4)

    def _as_action(self, action: Any) -> Any:
        """Checked, and as the world gets it: an int, or an array of its own."""
        raw = np.empty(self._action.shape, self._action.np_dtype)
        self._action.encode(action, raw)
        return self._action.decode(raw)

    def _observe(self, seen: Seen) -> Any:
        self._watch.check(seen.frame, seen.header.tick)
        # Its own copy of the frame, which the caller may keep and change; a Dict's parts are views of that.
        observation = self._observation.unpack(seen.frame)
        return (observation, *map(self._as_element, self._past)) if self._act_in_obs else observation

    def _as_element(self, action: Any) -> Any:
        """A copy that the caller may keep and change; numpy's own type for Discrete, as its space samples."""
        return self._action.np_dtype.type(action) if self._action.kind == "discrete" else action.copy()

    def _info(self, seen: Seen) -> dict[str, Any]:
        """The same keys and types at every step, as `gymnasium.vector` makes one array of each.

        Numbers and words stand in it flat, as "rtcore/tick"; with actions, which may be arrays, in its "rtcore".
        """
        header = seen.header
        applied = np.frombuffer(seen.applied, self._action.np_dtype).reshape(self._action.shape)
        scalars = {
            "tick": header.tick,
            "frame_seq": header.frame_seq,
            "episode": header.episode,
            "ticks_since_last_step": seen.num_ticks,
            "acted_ticks": seen.acted_ticks,
            "missed_ticks": seen.missed_ticks,
            "lost_ticks": seen.lost_ticks,
            "skipped_ticks": header.skipped_ticks,
            "delay_ticks": header.tick - header.obs_tick if header.obs_tick >= 0 else -1,
            "action_source": key_of(Source(header.source)),
            "lateness_ns": header.start_ns - header.deadline_ns,
            "frame_age_ns": seen.seen_ns - header.publish_ns,
        }
        actions = {
            "applied_action": self._action.decode(applied),
            "past_actions": list(map(self._as_element, self._past)),
        }
        stamped = zip(self._observation.stamped, stamps_of(seen.stamps), strict=True)
        ages = {part.name: age_of(stamp_ns, header.publish_ns) / NS_PER_MS for part, stamp_ns in stamped}
        nested = scalars | actions | ({AGES: ages} if ages else {})
        return {f"rtcore/{name}": value for name, value in scalars.items()} | {"rtcore": nested}


def _is_count(value: Any) -> bool:
    """Whether it is a whole number of 1 or more."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= 1


def _is_finite(action: Any) -> bool:
    """Whether all of it are numbers; True where that cannot be said."""
    try:
        return bool(np.isfinite(action).all())
    except TypeError:
        return True


def _config(world: Any, delay_ticks: int, fields: dict[str, Any]) -> RuntimeConfig:
    """The run of a world whose policy is this program. ConfigError for a field that has no meaning then."""
    given = world.given if isinstance(world, RuntimeConfig) else {"env_id": world}
    given |= fields
    foreign = sorted(given.keys() - FIELDS)
    unknown = [name for name in foreign if name not in SETTINGS]
    if foreign and not unknown:
        raise ConfigError(
            f"{', '.join(foreign)}: has no meaning for a RealtimeEnv, whose program chooses the actions; "
            f"it takes {', '.join(sorted(FIELDS))}"
        )
    if given.get("clock") == "virtual":
        raise ConfigError("clock=virtual: a RealtimeEnv is in real time; expected wall or world. See rtcore.virtual")
    own = {"stagger": "max-time", "workers": delay_ticks, "chunk": 1, "ticks": _ENDLESS_TICKS, "live": False}
    return make_config(**given | own)


def _spec(config: RuntimeConfig, around: dict[str, Any]) -> EnvSpec:
    """What `gymnasium.make(env.spec)` makes another one from. Real time is not deterministic."""
    kwargs = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in config.given.items()
        if name in FIELDS and name != "env_id"
    }
    return EnvSpec(
        id="rtcore/RealtimeEnv-v0",
        entry_point="rtcore.runtime.realtime_env:RealtimeEnv",
        nondeterministic=True,
        kwargs={"world": config.world.env_id, **kwargs, **around},
    )
