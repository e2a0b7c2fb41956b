"""Stable-Baselines3 on a realtime run: its off-policy algorithms learn from a `Runtime`, and play in its workers.

    def make_policy(observation_space, action_space):
        return rtcore.sb3.policy(SAC, "MlpPolicy", observation_space, action_space, gamma=0.98)

    with rtcore.Runtime(env_id="Pendulum-v1", policy=make_policy, ring_slots=30_000, duration=600) as runtime:
        model = rtcore.sb3.learn(runtime)
    model.save("pendulum.zip")

SB3's own loop steps an env and waits for it. Here the run plays by itself: workers act with the model's policy and its
own exploration, the frame ring is the replay memory, and `learn` only updates and publishes. Needs the extra `sb3`.
"""

from __future__ import annotations

import inspect
import io
import json
import logging
import zipfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from rtcore.clock import MonotonicClock, ns_of
from rtcore.errors import ConfigError, PolicyConfigError
from rtcore.files.whole import whole_file
from rtcore.learn.replay_memory import NothingToSample, TransitionReader
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.policies import network_of
from rtcore_workers.policies.sb3 import ModelPolicy, ModelView, saved
from rtcore_workers.tensors import to_tensors

try:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.buffers import BaseBuffer
    from stable_baselines3.common.noise import NormalActionNoise
    from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
    from stable_baselines3.common.policies import ActorCriticPolicy
    from stable_baselines3.common.type_aliases import (
        DictReplayBufferSamples,
        ReplayBufferSamples,
        TrainFreq,
        TrainFrequencyUnit,
    )
    from stable_baselines3.dqn.policies import DQNPolicy
    from stable_baselines3.sac.policies import SACPolicy
    from stable_baselines3.td3.policies import TD3Policy
except ImportError as error:
    raise ImportError("rtcore.sb3 needs Stable-Baselines3: pip install 'rtcore[sb3]'") from error

if TYPE_CHECKING:
    from rtcore.runtime.runtime import Runtime

__all__ = ["convert", "learn", "load", "policy"]

_log = logging.getLogger(__name__)

#: Updates that one call of a model's `train` makes: between two of them the run's end is noticed.
_MOST_UPDATES = 8
#: Decisions wait for their updates for so long at most: a trainer that is slow makes fewer of them [s].
_MOST_WAITING_S = 2.0

Algorithm = TypeVar("Algorithm", bound=OffPolicyAlgorithm)


def policy(
    algorithm: type[OffPolicyAlgorithm],
    policy: str | type[Any],
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    act_history: int = 0,
    **arguments: Any,
) -> ModelPolicy:
    """The policy of a model that learns from a run, to be returned by a policy's factory.

    Args:
        algorithm: DQN, SAC, TD3, DDPG, or one like them.
        policy: SB3's name of it, such as "MlpPolicy", or a class. With past actions (`act_history`), and in a world
            of Dicts, it is "MultiInputPolicy".
        observation_space: What the factory got.
        action_space: What the factory got.
        act_history: What the factory got, if it takes it.
        arguments: All others of the algorithm. `seed` is the run's if it is not among them. The frame ring is the
            replay memory: its length is the run's `ring_slots`, in place of `buffer_size`.

    Returns:
        A module for the workers; `learn` makes the whole model.

    Raises:
        PolicyConfigError: An argument that has no meaning here, or exploration that a worker cannot do by itself.
    """
    view = ModelView(observation_space, action_space, act_history)
    make = partial(_make_model, algorithm, policy, view, arguments)
    # Only the acting part of this model is kept: what trains one makes it anew.
    return ModelPolicy(make(device="cpu"), view, make)


def learn(
    runtime: Runtime,
    *,
    total_timesteps: int | None = None,
    callback: Any = None,
    log_interval: int | None = 4,
    tb_log_name: str = "run",
    publish_every_s: float = 0.1,
) -> Any:
    """Let the model of a run's policy learn from it, until the run is over, or a callback or `total_timesteps` ends it.

    As in SB3, `train_freq` decisions are followed by `gradient_steps` updates, from `learning_starts` on, and workers
    act uniformly at random before that. The run does not wait: where updates take longer than the decisions that they
    are for, the rest of them is left out, and the log says so.

    Args:
        runtime: Started; its policy's factory returns what `policy` made.
        total_timesteps: Decisions to learn from, over which SB3's schedules go (learning rate, exploration); None:
            as many as the run has ticks.
        callback: As of SB3's `learn`. Called once for each decision, without its locals.
        log_interval: Episodes from one dump of SB3's logger to the next; None: never.
        tb_log_name: As of SB3's `learn`.
        publish_every_s: From one publication of weights to the next at least [s].

    Returns:
        The model.

    Raises:
        ConfigError: The run's policy or settings are not of a kind that learns so.
        RtcoreError: What ended the run.
    """
    return _Learning(runtime, total_timesteps, log_interval, publish_every_s).run(callback, tb_log_name)


def load(
    algorithm: type[BaseAlgorithm],
    file: str,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    act_history: int = 0,
) -> ModelPolicy:
    """A model that SB3 saved, to be returned by a policy's factory: for a file of your own that needs code.

    It is loaded by SB3, which unpickles what is in it: that runs whatever the file says. `--policy sb3:FILE.zip` reads
    one as data.

    Args:
        algorithm: That it was saved by.
        file: What `model.save` wrote.
        observation_space: What the factory got.
        action_space: What the factory got.
        act_history: What the factory got, if it takes it.

    Returns:
        The policy, which does not explore.

    Raises:
        PolicyConfigError: It acts in a way that is not known here, or saw or did something else.
    """
    view = ModelView(observation_space, action_space, act_history)
    model = algorithm.load(file, device="cpu", custom_objects={"buffer_size": 1})
    if (model.observation_space, model.action_space) != (view.observation_space, view.action_space):
        raise PolicyConfigError(
            f"{file} saw {model.observation_space} and did {model.action_space}; here it would see "
            f"{view.observation_space} and do {view.action_space}"
        )
    return ModelPolicy(model, view)


def convert(algorithm: type[BaseAlgorithm], file: str | Path, out: str | Path) -> None:
    """Write a model of your own anew, so that `--policy sb3:OUT.zip` can read it as data.

    For one whose policy is a class of your own around layers of SB3's and torch's: what it is made of is then written
    in words. It is loaded by SB3, as by `load`: that runs whatever the file says.

    Args:
        algorithm: That it was saved by.
        file: What `model.save` wrote.
        out: What to write.

    Raises:
        PolicyConfigError: It is made of layers of your own, which no file can say in words: use `load`.
    """
    model = algorithm.load(file, device="cpu", custom_objects={"buffer_size": 1})
    own, known = model.policy, (DQNPolicy, SACPolicy, TD3Policy, ActorCriticPolicy)
    kind = next((kind for kind in known if isinstance(own, kind)), None)
    if kind is None:
        raise PolicyConfigError(f"{file}: {type(own).__name__} is no policy of DQN, SAC, TD3, DDPG, PPO or A2C")
    taken = inspect.signature(kind).parameters.keys() - {"observation_space", "action_space", "lr_schedule"}
    settings = {name: value for name, value in own._get_constructor_parameters().items() if name in taken}
    plain = {
        "policy_class": {"__module__": kind.__module__},
        "policy_kwargs": {name: value for name, value in settings.items() if not name.startswith("optimizer_")},
        "use_sde": model.use_sde,
        "observation_space": {":type:": str(type(own.observation_space))},
        "action_space": {name: str(getattr(own.action_space, name, None)) for name in ("low", "high")},
    }
    weights = io.BytesIO()
    torch.save(own.state_dict(), weights)
    with whole_file(Path(out)) as draft, zipfile.ZipFile(draft, "w") as archive:
        archive.writestr("data", json.dumps(plain, default=str))
        archive.writestr("policy.pth", weights.getvalue())
    try:
        saved(own.observation_space, own.action_space, sb3_file=str(out))
    except PolicyConfigError:
        Path(out).unlink()
        raise


class _Learning:
    """One `learn`."""

    def __init__(
        self, runtime: Runtime, total_timesteps: int | None, log_interval: int | None, publish_every_s: float
    ) -> None:
        self._runtime = runtime
        self._log_interval = log_interval
        self._publish_every_ns = ns_of(publish_every_s)
        config, self._clock = runtime.config, MonotonicClock()
        if config.explores:
            raise ConfigError("explore=True: the model explores by itself, as its algorithm does; leave explore out")
        module = network_of(
            config,
            ObservationSpec.from_space(runtime.observation_space),
            ActionSpec.from_space(runtime.action_space),
        )
        if not isinstance(module, ModelPolicy) or module.make_model is None:
            raise ConfigError(
                f"policy {config.agent.policy!r} is no model of SB3; return rtcore.sb3.policy(...) from it"
            )
        self.model: OffPolicyAlgorithm = module.make_model(seed=config.world.seed)
        self._player = ModelPolicy(self.model, module.view).to(self.model.device)
        self._frequency, self._steps = _pace_of(self.model)
        reader = runtime.transitions(gamma=self.model.gamma)
        self._replay = self.model.replay_buffer
        if not isinstance(self._replay, RunReplay):
            raise ConfigError(f"{type(self.model).__name__} has a replay buffer of its own")
        self._replay.attach(reader, self._player.view, config.world.seed)
        self._reader = reader
        self._most_waiting = round(float(runtime.rate_hz) * _MOST_WAITING_S)
        if total_timesteps is not None and total_timesteps < 1:
            raise ConfigError(f"total_timesteps={total_timesteps}: expected at least 1")
        if total_timesteps is None and not runtime.resolved.ends_by_itself:
            raise ConfigError(
                "learn: this run goes on until it is stopped, and SB3's schedules go over a number of steps; give "
                "total_timesteps, or the run a duration"
            )
        if config.memory.ring_slots is None:
            _log.warning(
                "the replay memory is the frame ring, of %d frames: ring_slots was not given",
                runtime.resolved.ring_slots,
            )
        self._total = total_timesteps or runtime.resolved.num_ticks
        self._episodes = 0
        self._waiting = 0  #: decisions that are to be counted, and to have their updates
        self._owed = self._left_out = 0.0  #: updates
        self._published_ns = 0

    def run(self, callback: Any, tb_log_name: str) -> OffPolicyAlgorithm:
        runtime, model = self._runtime, self.model
        pause_s = min(0.02, 0.25 / float(runtime.rate_hz))
        _, steps = model._setup_learn(self._total, callback, True, tb_log_name)
        self._publish()
        steps.on_training_start(locals(), globals())
        while not runtime.wait(0):
            self._waiting += self._reader.update()
            if not self._take_in(steps):
                break
            if self._owed < 1 or not len(self._reader):
                runtime.wait(pause_s)
                continue
            num_updates = min(int(self._owed), _MOST_UPDATES)
            try:
                model.train(gradient_steps=num_updates, batch_size=model.batch_size)
            except NothingToSample:  # this process stood still, and all of it was overwritten meanwhile
                continue
            self._owed -= num_updates
            if self._clock.now_ns() - self._published_ns >= self._publish_every_ns:
                self._publish()
        self._publish()
        steps.on_training_end()
        if self._left_out >= 1:
            _log.warning(
                "%d updates were made, %d left out: they take longer than the decisions that they are for",
                model._n_updates,
                self._left_out,
            )
        return model

    def _take_in(self, callback: Any) -> bool:
        """Count decisions as SB3's own loop does, until updates are due. False: it is enough, or a callback says so."""
        model, owed = self.model, self._steps / self._frequency
        while self._waiting and self._owed < _MOST_UPDATES:
            self._waiting -= 1
            model.num_timesteps += 1
            model._update_current_progress_remaining(model.num_timesteps, self._total)
            if not callback.on_step() or model.num_timesteps >= self._total:
                return False
            model._on_step()
            if model.num_timesteps <= model.learning_starts:
                continue
            if self._waiting < self._most_waiting:
                self._owed += owed
            else:
                self._left_out += owed
        self._tell_episodes()
        return True

    def _tell_episodes(self) -> None:
        model, record = self.model, self._runtime.record
        if record is None or model.ep_info_buffer is None:
            return
        for episode in record.episodes.since(self._episodes):
            self._episodes += 1
            model._episode_num += 1
            model.ep_info_buffer.append({"r": episode.total_reward, "l": episode.num_ticks})
            if self._log_interval is not None and model._episode_num % self._log_interval == 0:
                model.dump_logs()

    def _publish(self) -> None:
        model, player = self.model, self._player
        self._published_ns = self._clock.now_ns()
        exploration = getattr(model, "exploration_rate", None)
        if exploration is None:
            exploration = float(model.num_timesteps < model.learning_starts)
        player.random_share.fill_(exploration)
        player.spread.fill_(1.0)
        if isinstance(model.action_noise, NormalActionNoise):
            player.noise.copy_(torch.as_tensor(np.broadcast_to(model.action_noise._sigma, player.noise.shape)))
        self._runtime.publish(player.state_dict(), updates=model._n_updates)


class RunReplay(BaseBuffer):
    """SB3's replay buffer, but nothing is stored twice: the run's frames are in its ring already.

    Args:
        arguments: As of SB3's buffers.
        n_steps: Chain up to so many decisions.
        optimize_memory_usage: Means nothing: it is as small as can be.
    """

    def __init__(self, *arguments: Any, n_steps: int = 1, optimize_memory_usage: bool = False, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._n_steps = n_steps

    def attach(self, reader: TransitionReader, view: ModelView, seed: int) -> None:
        self._reader, self._view = reader, view
        self._rng = np.random.default_rng(np.random.SeedSequence([seed, 3]))

    def size(self) -> int:
        """How many transitions there are to sample from."""
        return len(self._reader)

    def sample(self, batch_size: int, env: Any = None) -> ReplayBufferSamples | DictReplayBufferSamples:
        """As of SB3's buffers. NothingToSample if there is nothing in the ring."""
        batch = to_tensors(self._reader.sample(batch_size, self._rng, n_step=self._n_steps), str(self.device))
        view = self._view
        is_dict = isinstance(view.observation_space, spaces.Dict)
        kind = DictReplayBufferSamples if is_dict else ReplayBufferSamples
        # A decision that governed several ticks is discounted by all of them.
        columns = (batch.terminated.float(), batch.reward, batch.discount)
        return kind(
            view(batch.obs, batch.past_actions),
            view.scaled(batch.action).reshape(batch_size, -1),
            view(batch.next_obs, batch.next_past_actions),
            *(column[:, None] for column in columns),
        )

    def _get_samples(self, batch_inds: Any, env: Any = None) -> Any:
        raise NotImplementedError("rows are drawn by the ring's reader")


class _Spaces(gymnasium.Env[Any, Any]):
    """All that a model has to know of the world. It is never stepped: the run does that."""

    def __init__(self, view: ModelView) -> None:
        self.observation_space, self.action_space = view.observation_space, view.action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}


def _make_model(
    algorithm: type[Algorithm], policy: Any, view: ModelView, arguments: dict[str, Any], **defaults: Any
) -> Algorithm:
    """The model, around the run's replay memory. `defaults`: used for what is not given; "device" always."""
    given = defaults | arguments
    if "device" in defaults:
        given["device"] = defaults["device"]
    _refuse(algorithm, policy, view, given)
    n_steps = given.pop("n_steps", 1)
    model = algorithm(
        policy,
        _Spaces(view),
        buffer_size=1,
        replay_buffer_class=RunReplay,  # type: ignore[arg-type]
        replay_buffer_kwargs={"n_steps": n_steps},
        **given,
    )
    # A saved model is one of SB3 alone: it can be loaded, and go on learning, where there is no rtcore.
    model.replay_buffer_class, model.replay_buffer_kwargs, model.buffer_size = None, {}, 1_000_000
    model.n_steps = n_steps
    return model


def _refuse(algorithm: Any, policy: Any, view: ModelView, given: dict[str, Any]) -> None:
    """PolicyConfigError for what would be wrong without a word."""
    name = getattr(algorithm, "__name__", str(algorithm))
    if not (inspect.isclass(algorithm) and issubclass(algorithm, OffPolicyAlgorithm)):
        raise PolicyConfigError(
            f"rtcore.sb3.policy got {name}; expected an off-policy algorithm of Stable-Baselines3: DQN, SAC, TD3, DDPG"
        )
    own = {"env", "buffer_size", "replay_buffer_class", "replay_buffer_kwargs", "optimize_memory_usage"}
    if wrong := sorted(own & given.keys()):
        raise PolicyConfigError(
            f"{name}: {', '.join(wrong)} has no meaning here: the run's frame ring is the replay memory, and "
            "ring_slots of the Runtime says how far it reaches back"
        )
    if given.get("use_sde"):
        raise PolicyConfigError(
            f"{name}: use_sde keeps one noise for many steps, and each worker makes only every N-th of them"
        )
    noise = given.get("action_noise")
    if noise is not None and not isinstance(noise, NormalActionNoise):
        raise PolicyConfigError(
            f"{name}: action_noise is {type(noise).__name__}, which goes on from step to step, and each worker makes "
            "only every N-th of them; expected NormalActionNoise"
        )
    if noise is not None and np.any(noise._mu):
        raise PolicyConfigError(f"{name}: action_noise has mean {noise._mu}; expected 0")
    if isinstance(view.observation_space, spaces.Dict) and policy in ("MlpPolicy", "CnnPolicy"):
        raise PolicyConfigError(
            f"{name}: {policy} takes no Dict, and with past actions or in a world of Dicts that is what it gets: "
            f'{view.observation_space}; expected "MultiInputPolicy"'
        )


def _pace_of(model: OffPolicyAlgorithm) -> tuple[int, int]:
    """Decisions, and the updates that follow them."""
    frequency = model.train_freq
    if not isinstance(frequency, TrainFreq) or frequency.unit != TrainFrequencyUnit.STEP:
        raise ConfigError(f"train_freq={frequency}: expected a number of steps: a run does not wait at episodes' ends")
    steps = model.gradient_steps if model.gradient_steps >= 0 else frequency.frequency
    return frequency.frequency, steps
