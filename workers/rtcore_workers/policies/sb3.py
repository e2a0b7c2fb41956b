"""Models of Stable-Baselines3 as policies: what they see of a world, how they play in it, and reading saved ones.

A model sees, beside what a world shows, past actions as a part of a Dict, images with their channels first, and acts
between -1 and 1 where the world's actions have other bounds. `ModelView` and `ModelPolicy` are the two translations,
used by workers and by trainers (`rtcore.sb3`) alike.
"""

from __future__ import annotations

import importlib
import inspect
import io
import lzma
import math
import pickle
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rtcore.errors import ConfigError, PolicyConfigError
from rtcore.files.outside import MOST_TEXT_BYTES, parse_object, read_bytes
from rtcore_workers.policies.base import number

#: Name of the past actions among the parts that a model sees, and of the frames if they have no parts themselves.
PAST_ACTIONS, OBSERVATION = "past_actions", "observation"
_MAX_CHANNELS_LAST = 4
#: Largest saved model [bytes].
_MOST_FILE_BYTES = 4 << 30


class ModelView(nn.Module):
    """What a model sees: its spaces, and raw batches of a run turned into theirs. No parameters.

    Args:
        observation_space: The run's: of one frame, or with older ones (h+1, *shape).
        action_space: The world's.
        act_history: How many past actions a frame comes with. Then the model's space is a Dict of the frame
            ("observation", or the world's own parts) and "past_actions": its policy is SB3's "MultiInputPolicy".

    Raises:
        PolicyConfigError: Past actions of a kind that a model cannot be shown.
    """

    #: Bounds of the world's actions, for a Box.
    low: Tensor
    high: Tensor

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], act_history: int = 0):
        super().__init__()
        if isinstance(action_space, spaces.Box):
            # Buffers: they go where the module goes, and a CUDA graph finds them there.
            self.register_buffer("low", torch.as_tensor(action_space.low.astype(np.float32)))
            self.register_buffer("high", torch.as_tensor(action_space.high.astype(np.float32)))
        self.action_space = action_space
        self.act_history = act_history
        self._is_dict = isinstance(observation_space, spaces.Dict)
        parts = dict(observation_space.spaces) if isinstance(observation_space, spaces.Dict) else {}
        seen = {name: _channels_first(part) for name, part in (parts or {OBSERVATION: observation_space}).items()}
        if act_history:
            if PAST_ACTIONS in seen:
                raise PolicyConfigError(f"act_history={act_history}: the world has a part {PAST_ACTIONS!r} of its own")
            seen[PAST_ACTIONS] = _past_space(action_space, act_history)
        self.observation_space = spaces.Dict(seen) if self._is_dict or act_history else seen[OBSERVATION]

    def forward(self, frames: Any, past_actions: Tensor | None = None) -> Any:
        """Tensors (N, ...) of a run as the model takes them."""
        if not self._is_dict and past_actions is None:
            return _reshaped(frames, self.observation_space)
        raw = dict(frames) if self._is_dict else {OBSERVATION: frames}
        known = self.observation_space
        seen = {name: _reshaped(part, known[name]) for name, part in raw.items()}  # type: ignore[index]
        if past_actions is not None:
            seen[PAST_ACTIONS] = self.scaled(past_actions)
        return seen

    def scaled(self, actions: Tensor) -> Tensor:
        """The world's actions as a model has them: from -1 to 1 for a Box, numbered from 0 for Discrete."""
        if isinstance(self.action_space, spaces.Box):
            return (2 * (actions - self.low) / (self.high - self.low) - 1).to(torch.float32)
        if isinstance(self.action_space, spaces.Discrete):
            return actions - int(self.action_space.start)
        return actions

    def unscaled(self, actions: Tensor) -> Tensor:
        """The inverse, for a Box: (N, action size) from -1 to 1 within the world's bounds, (N, *action_shape)."""
        shaped = actions.reshape(-1, *(self.action_space.shape or ()))
        return self.low + 0.5 * (shaped + 1) * (self.high - self.low)


class ModelPolicy(nn.Module):
    """A model's acting part, as a policy of rtcore: raw frames in, actions of the world (or their values) out.

    How it explores stands in buffers, so that a trainer publishes it with the weights: all zero, it does not explore.

    Args:
        model: Of SB3; its acting part is taken, not copied.
        view: What the model sees.
        make_model: For a trainer: makes the whole model again.

    Raises:
        PolicyConfigError: A kind of model that acts in a way that is not known here.
    """

    #: Share of actions that are drawn uniformly from the action space.
    random_share: Tensor
    #: 1: actions are drawn from the policy's own distribution; 0: its mean.
    spread: Tensor
    #: Standard deviation of Gaussian noise that is added, (action size,), in units of the model's -1 to 1.
    noise: Tensor
    #: Makes the whole model, with what is given in place of arguments that were not; None for one that only plays.
    make_model: Callable[..., Any] | None
    #: What a saved one was trained on, where that is known.
    observation_space: spaces.Box | None = None

    def __init__(self, model: Any, view: ModelView, make_model: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.make_model = make_model
        policy = getattr(model, "policy", model)
        self.view = view
        self.kind, acting = _acting_part(policy)
        self.acting: Any = acting
        self.squashes = bool(getattr(self.acting, "squash_output", False))
        space = view.action_space
        self._shape = space.shape or ()
        self.register_buffer("random_share", torch.zeros(()))
        self.register_buffer("spread", torch.zeros(()))
        self.register_buffer("noise", torch.zeros(math.prod(self._shape)))

    def forward(self, frames: Any, past_actions: Tensor | None = None) -> Tensor:
        """As any policy: (1, *observation_shape) to (1, n) action values, or (1, *action_shape)."""
        seen = self.view(frames, past_actions)
        if self.kind == "values":
            values: Tensor = self.acting(seen)
            return torch.where(torch.rand_like(self.random_share) < self.random_share, torch.rand_like(values), values)
        if self.kind == "distribution" and not isinstance(self.view.action_space, spaces.Box):
            return _logits(self.acting.get_distribution(seen).distribution)
        action = self._box_action(seen)
        if not self.squashes:
            return action.reshape(-1, *self._shape)
        drawn = 2 * torch.rand_like(action) - 1
        action = torch.where(torch.rand_like(self.random_share) < self.random_share, drawn, action)
        return self.view.unscaled(action)

    def _box_action(self, seen: Any) -> Tensor:
        """(N, action size), from -1 to 1 if the model squashes."""
        if self.kind == "distribution":
            distribution = self.acting.get_distribution(seen)
            mean: Tensor = distribution.distribution.mean
            return torch.tanh(mean) if self.squashes else mean
        if self.kind == "gaussian":
            mean, log_std, _ = self.acting.get_action_dist_params(seen)
            if self.acting.use_sde:
                return torch.tanh(mean)
            action = torch.tanh(mean + self.spread * log_std.exp() * torch.randn_like(mean))
        else:
            action = self.acting(seen)
        return torch.clamp(action + self.noise * torch.randn_like(action), -1, 1)


def _acting_part(policy: Any) -> tuple[str, Any]:
    """How a policy of SB3 acts, and the part of it that does."""
    if hasattr(policy, "q_net"):
        return "values", policy.q_net
    actor = getattr(policy, "actor", None)
    if hasattr(actor, "get_action_dist_params"):
        return "gaussian", actor
    if hasattr(actor, "mu"):
        return "deterministic", actor
    if hasattr(policy, "get_distribution"):
        return "distribution", policy
    raise PolicyConfigError(
        f"{type(policy).__name__}: expected a policy of Stable-Baselines3's DQN, SAC, TD3, DDPG, PPO or A2C. Wrap "
        "another one in a module of your own"
    )


def _logits(distribution: Any) -> Tensor:
    """Of one categorical or Bernoulli distribution, or of several side by side: (N, choices)."""
    several = distribution if isinstance(distribution, list) else [distribution]
    return torch.cat([each.logits for each in several], dim=1)


def _past_space(space: spaces.Space[Any], act_history: int) -> spaces.Space[Any]:
    if isinstance(space, spaces.Box):
        return spaces.Box(-1, 1, (act_history, *space.shape))
    if isinstance(space, spaces.Discrete):
        return spaces.MultiDiscrete([int(space.n)] * act_history)
    raise PolicyConfigError(
        f"act_history={act_history} with actions {space}; expected Box or Discrete for an SB3 model"
    )


def _channels_first(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """Images as SB3's own wrapper makes them, and a stack of K images as one of K * C channels; the rest as it is."""
    shape = space.shape or ()
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or len(shape) not in (2, 3, 4):
        return space
    if len(shape) == 2:
        shape = (1, *shape)
    elif shape[-1] <= _MAX_CHANNELS_LAST:
        stacked = shape[0] if len(shape) == 4 else 1
        shape = (stacked * shape[-1], *shape[-3:-1])
    elif len(shape) == 4:
        shape = (shape[0] * shape[1], *shape[2:])
    return spaces.Box(0, 255, shape, np.uint8)


def _reshaped(frames: Tensor, space: spaces.Space[Any]) -> Tensor:
    """What `_channels_first` did to the space, to a batch."""
    if space.dtype == np.uint8 and frames.ndim > 3 and frames.shape[-1] <= _MAX_CHANNELS_LAST:
        frames = frames.movedim(-1, -3)
    return frames.reshape(len(frames), *(space.shape or ()))


# -- saved models --------------------------------------------------------------------------------------------------


def saved(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    sb3_file: str,
    spread: float = 0.0,
    act_history: int = 0,
) -> ModelPolicy:
    """The policy of a model that SB3 saved, with its weights. Reads the file as data: nothing in it is run.

    Args:
        observation_space: The run's.
        action_space: The world's.
        sb3_file: What `model.save` wrote.
        spread: 1: actions are drawn from SAC's distribution; 0: its mean, as of SB3's `predict(deterministic=True)`.
        act_history: How many past actions a frame comes with.

    Returns:
        The module.

    Raises:
        PolicyConfigError: It is no such file, it needs code, or it is of another world.
    """
    scale = number(f"sb3:{sb3_file}", {"spread": spread}, "spread")
    path = Path(sb3_file)
    view = ModelView(observation_space, action_space, act_history)
    plain, weights = _read(path)
    _refuse_other_actions(path, plain, action_space)
    policy_class, arguments = _architecture(path, plain, weights)
    try:
        policy = policy_class(view.observation_space, action_space, lambda _: 0.0, **arguments)
        policy.load_state_dict(weights)
    except (RuntimeError, AssertionError, ValueError, TypeError, AttributeError) as error:
        raise PolicyConfigError(
            f"policy sb3: {path} does not fit this world, which shows {view.observation_space} and takes "
            f"{action_space}: {error}. Where the model saw older frames or past actions, give --obs-history and "
            "--act-history as in training"
        ) from error
    module = ModelPolicy(policy, view)
    if scale and module.kind != "gaussian":
        raise PolicyConfigError(
            f"policy sb3: {path} got spread={spread}, and only SAC's actions are drawn so; leave it out"
        )
    module.spread.fill_(scale)
    module.observation_space = _space_of(plain, observation_space)
    return module


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What stands in a saved model as JSON, and the weights of its policy. PolicyConfigError for anything else."""
    try:
        raw = read_bytes(path, "policy sb3", _MOST_FILE_BYTES)
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
            for name, most in (("data", MOST_TEXT_BYTES), ("policy.pth", _MOST_FILE_BYTES)):
                if sizes.get(name, most + 1) > most:
                    raise PolicyConfigError(
                        f"policy sb3: {path} has no {name}, or one of more than {most:,} bytes; expected what "
                        "Stable-Baselines3's model.save wrote"
                    )
            plain = parse_object(archive.read("data"), path, "policy sb3")
            weights = torch.load(io.BytesIO(archive.read("policy.pth")), map_location="cpu", weights_only=True)
    except PolicyConfigError:
        raise
    except (
        ConfigError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        pickle.UnpicklingError,
        OSError,  # bz2's
        RuntimeError,
        EOFError,
        ValueError,
    ) as error:
        raise PolicyConfigError(
            f"policy sb3: {path} cannot be read: {error}; expected what Stable-Baselines3's model.save wrote"
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(each, Tensor) for each in weights.values()):
        raise PolicyConfigError(f"policy sb3: policy.pth in {path} holds something else than tensors by name")
    return plain, weights


def _architecture(path: Path, plain: dict[str, Any], weights: dict[str, Tensor]) -> tuple[Any, dict[str, Any]]:
    """SB3's policy class and its arguments, from what is written in words, and from the weights' names."""
    modules = {
        "stable_baselines3.dqn.policies": "DQNPolicy",
        "stable_baselines3.sac.policies": "SACPolicy",
        "stable_baselines3.td3.policies": "TD3Policy",
        "stable_baselines3.common.policies": "ActorCriticPolicy",
    }
    policy_class = plain.get("policy_class")
    module = policy_class.get("__module__") if isinstance(policy_class, dict) else None
    if module not in modules:
        raise _needs_code(path, f"its policy is of {module}, not one of Stable-Baselines3's own")
    try:
        home = importlib.import_module(str(module))
        layers = importlib.import_module("stable_baselines3.common.torch_layers")
    except ImportError as error:
        raise PolicyConfigError(
            f"policy sb3: {path} is played with Stable-Baselines3: pip install 'rtcore[sb3]'"
        ) from error
    if plain.get("use_sde") and module == "stable_baselines3.common.policies":
        plain = plain | {"policy_kwargs": {"use_sde": True} | dict(plain.get("policy_kwargs") or {})}
    said = plain.get("policy_kwargs")
    said = {} if not isinstance(said, dict) else {name: each for name, each in said.items() if not name.startswith(":")}
    homes = {"activation_fn": nn, "features_extractor_class": layers}
    arguments: dict[str, Any] = {}
    for name, value in said.items():
        if name in homes:
            arguments[name] = _known(path, name, value, homes[name])
        elif name.startswith("optimizer_"):
            continue
        elif isinstance(value, str):
            raise _needs_code(path, f"its {name} is {value}")
        else:
            arguments[name] = value
    _refuse_larger_than(path, arguments, weights)
    if "features_extractor_class" not in arguments:
        if any(".extractors." in f".{name}" for name in weights) or _is_dict(plain):
            arguments["features_extractor_class"] = layers.CombinedExtractor
        elif any(".cnn." in name for name in weights):
            arguments["features_extractor_class"] = layers.NatureCNN
    return getattr(home, modules[module]), arguments


def _refuse_larger_than(path: Path, arguments: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Layers take memory as they are made, before anything shows that the file has no weights for them."""
    widest = max((length for each in weights.values() for length in each.shape), default=0)
    widths, left = [], [arguments.get("net_arch"), arguments.get("features_extractor_kwargs")]
    while left:
        each = left.pop()
        if isinstance(each, (dict, list)):
            left += each.values() if isinstance(each, dict) else each
        elif isinstance(each, (int, float)):
            widths.append(each)
    if max(widths, default=0) > widest or len(widths) > len(weights):
        raise PolicyConfigError(
            f"policy sb3: {path} asks for {len(widths)} layers of up to {max(widths):,} units, and has "
            f"{len(weights)} tensors with up to {widest:,}: it is damaged. Use another copy"
        )


def _is_dict(plain: dict[str, Any]) -> bool:
    space = plain.get("observation_space")
    return isinstance(space, dict) and "gymnasium.spaces.dict.Dict" in str(space.get(":type:"))


def _known(path: Path, name: str, text: Any, home: Any) -> type[nn.Module]:
    """The class of torch.nn, or of SB3's layers, that a text like "<class 'torch.nn.modules.activation.Tanh'>" means.

    Only those of `home` itself: a file does not choose what is imported.
    """
    found = re.fullmatch(r"<class '([\w.]+)\.(\w+)'>", str(text))
    kind = getattr(home, found[2], None) if found else None
    if found is None or not inspect.isclass(kind) or not issubclass(kind, nn.Module) or kind.__module__ != found[1]:
        raise _needs_code(path, f"its {name} is {text}")
    return kind


def _refuse_other_actions(path: Path, plain: dict[str, Any], action_space: spaces.Space[Any]) -> None:
    """A model that scaled its actions to other bounds would act with other forces here."""
    bounds = _bounds_of(plain.get("action_space"), action_space)
    if bounds is None or not isinstance(action_space, spaces.Box):
        return
    for name, own, trained in zip(("low", "high"), (action_space.low, action_space.high), bounds, strict=True):
        if not np.allclose(trained, own.ravel(), rtol=1e-4):
            raise PolicyConfigError(
                f"policy sb3: {path} was trained with actions whose {name} is {trained.tolist()}, the world's is "
                f"{own.ravel().tolist()}: it would act with other forces. Wrap the world as it was wrapped in training"
            )


def _space_of(plain: dict[str, Any], space: spaces.Space[Any]) -> spaces.Box | None:
    """What a model saw in training, if that is a Box of this shape and its bounds can be read."""
    bounds = _bounds_of(plain.get("observation_space"), space)
    if bounds is None or not isinstance(space, spaces.Box):
        return None
    low, high = (each.reshape(space.shape).astype(space.dtype) for each in bounds)
    return spaces.Box(low, high, dtype=space.dtype.type)


def _bounds_of(said: Any, space: spaces.Space[Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    """Lowest and highest numbers of a space told in words, if these are as many as this one has: long ones are cut."""
    if not isinstance(said, dict) or not isinstance(space, spaces.Box):
        return None
    found = [
        np.array(re.findall(r"[-+]?(?:inf|\d+\.?\d*(?:e[-+]?\d+)?)", str(said.get(name, ""))), np.float64)
        for name in ("low", "high")
    ]
    return (found[0], found[1]) if all(len(each) == space.low.size for each in found) else None


def _needs_code(path: Path, why: str) -> PolicyConfigError:
    return PolicyConfigError(
        f"policy sb3: {path} cannot be played as data: {why}, and a file does not choose what runs here. If it is your "
        "own, write it anew with rtcore.sb3.convert(SAC, FILE, OUT.zip); if its layers are of your own, too, load it "
        "in a factory of your own, --policy my_policy.py:make with `def make(observation_space, action_space): return "
        "rtcore.sb3.load(SAC, FILE, observation_space, action_space)`. Both run what is in it"
    )
