"""DQN as an algorithm: targets, loss, gradient, Adam, and the learner that puts them together.

No process, no clock: the learner process, the sequential modes' worker and the virtual clock all drive the same
`DqnLearner`. Rewards are used as they are. Under delay a step of learning is a decision (docs/transitions.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from rtcore.config.groups import LearningSettings
from rtcore.errors import ConfigError, PolicyError
from rtcore.learn.learnable import check_actions
from rtcore.learn.replay_memory import Batch
from rtcore.memory.history import History
from rtcore.memory.master import STOPPED_BY, Commit, MasterState, Slot
from rtcore.memory.tensors import ParamManifest
from rtcore.memory.weights import ParamStore
from rtcore.spaces import ActionSpec
from rtcore_workers.policies.calling import ModulePart, advance_of, asked_for
from rtcore_workers.weights.shared import view_of

Floats = npt.NDArray[np.float32]
#: Adam's constants, those of torch.optim.Adam and of the paper.
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


class Replay(Protocol):
    """Source of transitions: `rtcore.learn.replay_memory.TransitionReader`."""

    history: History

    def __len__(self) -> int: ...
    def sample(self, batch_size: int, rng: np.random.Generator, *, n_step: int = 1) -> Batch: ...
    def digest_with(self, digest: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> None: ...


#: Publishes weights to the workers: (all trained weights, flat, in the manifest's order; number of updates). Returns
#: their version, None if it could not be done now.
Publish = Callable[[Floats, int], int | None]


class Gradient(NamedTuple):
    """The results of one batch, before they are applied. The gradient itself stays in the learner."""

    commit: Commit  #: of the weights it was computed with
    loss: float
    td_error: float  #: mean absolute
    q_mean: float  #: of the actions that were taken
    grad_norm: float  #: before clipping
    policy_versions: npt.NDArray[np.int64]  #: that chose the actions, (batch_size,)
    saw_numbers: bool = True  #: False: observations of the batch were not finite

    @property
    def flaw(self) -> str:
        """Which number is not finite, a name of `STOPPED_BY`; "" if all are."""
        if not np.isfinite(self.loss):
            return STOPPED_BY[1 if self.saw_numbers else 3][0]
        return "" if np.isfinite(self.grad_norm) else STOPPED_BY[2][0]


class Update(NamedTuple):
    """One update that was made."""

    commit: Commit
    gradient: Gradient
    version_diff: int  #: updates by others since this one's weights were read
    version: int | None  #: published with it; None: none was due, or it was skipped
    publish_skipped: bool


def _is_finite(observations: Any) -> bool:
    """Of a batch: one array, or a dict of the parts."""
    parts = observations.values() if isinstance(observations, dict) else (observations,)
    return all(bool(np.isfinite(part).all()) for part in parts)


def bootstrap_values(next_q_target: Tensor, next_q_online: Tensor | None = None) -> Tensor:
    """Value of the best next action, (B,): by the target network alone, or chosen by the online one (double DQN)."""
    if next_q_online is None:
        return next_q_target.max(dim=1).values
    return next_q_target.gather(1, next_q_online.argmax(dim=1, keepdim=True)).squeeze(1)


def td_targets(reward: Tensor, discount: Tensor, terminated: Tensor, next_values: Tensor) -> Tensor:
    """reward + discount * next value, (B,) float32; a terminated episode has no next value, a truncated one has.

    `where`, not a product: 0 * inf would be NaN.
    """
    return reward + torch.where(terminated, torch.zeros_like(next_values), discount * next_values)


def copy_untrained(module: nn.Module, store: ParamStore) -> None:
    """Copy what is not trained (frozen parameters, buffers) from the newest weights of the store."""
    memory = store.buffer(store.newest().buffer)
    present = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    with torch.no_grad():
        for tensor in store.manifest().tensors:
            if not tensor.trainable and tensor.kind != "private":
                for name in tensor.names:
                    present[name].copy_(view_of(memory, tensor))


@torch.no_grad()
def _digested(digest: Callable[[Tensor], Tensor], frames: Tensor) -> npt.NDArray[Any]:
    return digest(frames).cpu().numpy()


class DecisionInputs(NamedTuple):
    """What decisions saw, of a batch of B: as `Batch` has it, in tensors."""

    obs: Any
    past_actions: Tensor | None = None
    trunk_obs: Any = None
    features_age: Tensor | None = None
    actions_since: Tensor | None = None


def refuse_what_carries(module: nn.Module, settings: LearningSettings, has_past_actions: bool) -> None:
    """ConfigError for a policy whose values depend on more than a learner of this package gives it."""
    what = "a carried state (initial_state())" if callable(getattr(module, "initial_state", None)) else ""
    has_two_speeds = callable(getattr(module, "think", None))
    parts: tuple[ModulePart, ...] = ("trunk", "head") if has_two_speeds else ("whole",)
    if any("context" in asked_for(module, part) for part in parts):
        what = "a context"
    if advance_of(module, "trunk")[0] is not None:
        what = "advance(), which rolls its observation forward"
    if has_two_speeds and (settings.learn == "imitate" or has_past_actions):
        what = "two speeds, with " + ("learn=imitate" if settings.learn == "imitate" else "act_history")
    if what:
        raise ConfigError(
            f"learn={settings.learn}: the policy has {what}, which this learner does not train; expected one that "
            "takes the observation, and with act_history the past actions. Learn it with a trainer of your own, from "
            "Runtime.sample or Runtime.take (docs/embedding.md)"
        )


class FlatModule:
    """A network whose trainable parameters are views of one flat float32 tensor, and its gradients of another.

    `weights` and `grads` are (trainable_bytes / 4,), in the order of the manifest; each parameter keeps its strides.
    """

    def __init__(self, module: nn.Module, manifest: ParamManifest, *, with_grads: bool, device: str = "cpu") -> None:
        # Evaluation mode, as in the workers: both must compute the same.
        self.module = module.to(device).eval()
        parts: tuple[ModulePart, ...] = ("whole", "head")
        self._asked_for = {part: asked_for(module, part) for part in parts}
        count = manifest.trainable_bytes // 4
        self.weights = torch.zeros(count, device=device)
        self.grads = torch.zeros(count if with_grads else 0, device=device)
        parameters = dict(self.module.named_parameters(remove_duplicate=False))
        # Tied weights: one parameter under several names, or several parameters that share memory.
        trainable = {name: tensor for tensor in manifest.trainable() for name in tensor.names}
        for name, tensor in trainable.items():
            place = (tensor.shape, tensor.strides, tensor.offset // 4)
            parameter = parameters.get(name)
            if parameter is None or tuple(parameter.shape) != tensor.shape:
                raise PolicyError(
                    f"the learner's network has no parameter {name!r} of shape {tensor.shape}, which the "
                    "workers' has; expected the factory to build the same network each time"
                )
            parameter.data = self.weights.as_strided(*place)
            parameter.requires_grad_(with_grads)
            if with_grads:
                parameter.grad = self.grads.as_strided(*place)
        for name, parameter in parameters.items():
            if name not in trainable:
                parameter.requires_grad_(False)

    def values(self, seen: DecisionInputs) -> tuple[Tensor, Tensor | None]:
        """Values of the actions, (B, num_actions) float32, and of two speeds those of the trunk's base action.

        Those of a head where it acted, of the trunk where its base action was applied.
        """
        if seen.features_age is None:
            by_name = self._given("whole", past_actions=seen.past_actions)
            past = () if seen.past_actions is None or by_name else (seen.past_actions,)
            output: Any = self.module(seen.obs, *past, **by_name)
            # Extras come behind it.
            return (output[0] if isinstance(output, tuple) else output).float(), None
        module: Any = self.module
        features, base = module.think(seen.trunk_obs)[:2]
        age_ticks = seen.features_age.clamp(min=0)
        given = self._given("head", features=features, age_ticks=age_ticks, past_actions=seen.actions_since)
        acted = module.act(seen.obs, **given)
        acted = acted[0] if isinstance(acted, tuple) else acted
        return torch.where(seen.features_age.unsqueeze(1) < 0, base, acted).float(), base.float()

    def _given(self, part: ModulePart, **given: Any) -> dict[str, Any]:
        """Those of the arguments that the policy asks for by their names, as in the workers."""
        return {name: value for name, value in given.items() if name in self._asked_for[part] and value is not None}


class DqnLearner:
    """One update at a time: sample, gradient, apply, publish.

    Call `compute`, then `apply`; or `update` for both. Random numbers depend on (`seed`, `index`, updates made so far)
    alone, so that a resumed run goes on with the same ones.

    Args:
        module: A network of the manifest's, which becomes the learner's own.
        target_module: Another one.
        manifest: Where each tensor lies in the master.
        master: The weights, optimizer and target network that all learners share.
        replay: Where transitions are sampled from.
        settings: Of the run.
        action: The world's.
        seed: Of the run.
        index: Of this learner.
        publish: Publishes weights to the workers; None: nobody plays with them.
        waiting: Called now and then while others hold the master.
        device: Where the networks compute.

    Raises:
        ConfigError: The actions are not Discrete, or the policy has what this learner does not train.
    """

    def __init__(
        self,
        module: nn.Module,
        target_module: nn.Module,
        manifest: ParamManifest,
        master: MasterState,
        replay: Replay,
        settings: LearningSettings,
        action: ActionSpec,
        *,
        seed: int,
        index: int = 0,
        publish: Publish | None = None,
        waiting: Callable[[], None] | None = None,
        device: str = "cpu",
    ) -> None:
        check_actions(str(settings.learn), action)
        refuse_what_carries(module, settings, replay.history.act_history > 0)
        self.settings = settings
        self.master = master
        self._replay = replay
        self._first_action = int(action.low[0])
        self._num_actions = action.num_choices[0]
        self._seed, self._index = seed, index
        self._publish = publish
        self._waiting = waiting
        self._device = device
        self._online = FlatModule(module, manifest, with_grads=True, device=device)
        self._target = FlatModule(target_module, manifest, with_grads=False, device=device)
        self._host_weights = _host_view(self._online.weights)
        self._host_target = _host_view(self._target.weights)
        self._adam = Adam(settings.learning_rate)
        digest = getattr(self._online.module, "digest", None)
        if digest is not None:
            replay.digest_with(lambda frames: _digested(digest, torch.from_numpy(frames).to(device)))
        self._read = Commit(-1, 0, 0)
        self._target_read = -1

    def update(self) -> tuple[Gradient, Update | None]:
        """Compute and apply. No update where the loss or the gradient is not finite."""
        gradient = self.compute()
        return gradient, self.apply(gradient) if not gradient.flaw else None

    # -- the gradient --------------------------------------------------------------------------------------

    def compute(self) -> Gradient:
        """The clipped gradient of one batch, with the master's present weights. ValueError without transitions."""
        self._read_master()
        updates = self._read.updates
        batch = self._replay.sample(self.settings.batch_size, self._rng(updates), n_step=self.settings.n_step)
        self._online.grads.zero_()
        loss, errors, values = self._loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_(self._online.grads, self.settings.max_grad_norm)
        saw_numbers = math.isfinite(loss.item()) or (_is_finite(batch.obs) and _is_finite(batch.next_obs))
        numbers = loss.item(), errors.mean().item(), values.mean().item(), norm
        return Gradient(self._read, *numbers, batch.policy_version, saw_numbers)

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, with a gradient; TD error and value of the action of each row, (B,) each."""
        taken, base_taken, targets = self._forward(batch)
        loss = functional.smooth_l1_loss(taken, targets)
        if base_taken is not None:
            # The trunk learns the same targets, because its base action acts where the head is late.
            loss = loss + functional.smooth_l1_loss(base_taken, targets)
        return loss, (taken - targets).abs().detach(), taken.detach()

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor]:
        """Values of the actions taken and those of the trunk alone, with a gradient, and their targets: (B,) each."""
        following = self._seen(batch, "next_")
        with torch.no_grad():
            chooser = self._online.values(following)[0] if self.settings.double_dqn else None
            next_values = bootstrap_values(self._target.values(following)[0], chooser)
            targets = td_targets(
                self._tensor(batch.reward), self._tensor(batch.discount), self._tensor(batch.terminated), next_values
            )
        values, base = self._values_of(batch)
        index = (self._tensor(batch.action).long() - self._first_action).reshape(-1, 1)
        base_taken = None if base is None else base.gather(1, index).squeeze(1)
        return values.gather(1, index).squeeze(1), base_taken, targets

    def _seen(self, batch: Batch, which: str) -> DecisionInputs:
        """What the decisions of a batch saw, or (`which` = "next_") those after them."""
        return DecisionInputs(*(self._tensor(getattr(batch, f"{which}{name}")) for name in DecisionInputs._fields))

    def _values_of(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Values for what the decisions saw, (B, num_actions), with a gradient: as `FlatModule.values`."""
        values, base = self._online.values(self._seen(batch, ""))
        if values.shape != (len(batch.reward), self._num_actions):
            raise PolicyError(
                f"the policy's module returned shape {tuple(values.shape)} for a batch of {len(batch.reward)}; "
                f"expected {(len(batch.reward), self._num_actions)}. It has to keep the batch dimension"
            )
        return values, base

    def _tensor(self, array: npt.NDArray[Any] | dict[str, npt.NDArray[Any]] | None) -> Any:
        """On this learner's device; frames of a Dict world part by part."""
        if array is None:
            return None
        if isinstance(array, dict):
            return {name: self._tensor(part) for name, part in array.items()}
        tensor = torch.from_numpy(array)
        return tensor if self._device == "cpu" else tensor.to(self._device, non_blocking=True)

    def _read_master(self) -> None:
        """Copy the current weights and target from the master, if they have changed."""
        if self.master.commit.updates != self._read.updates:
            self._read = self.master.read_weights(self._host_weights, self._waiting)
            _to_device(self._host_weights, self._online.weights)
        target = self._read.updates // self.settings.target_every
        if target != self._target_read:
            self.master.read_target(self._host_target, self._waiting)
            _to_device(self._host_target, self._target.weights)
            self._target_read = target

    def _rng(self, updates: int) -> np.random.Generator:
        """A generator for one update. Philox counts in the first word of its counter, which is 0 for each update."""
        return np.random.Generator(np.random.Philox(key=[self._seed, self._index], counter=[0, updates, 0, 0]))

    # -- the update ----------------------------------------------------------------------------------------

    def apply(self, gradient: Gradient, inside: Callable[[], None] | None = None) -> Update:
        """Make the last `compute`'s gradient an update of the master, and publish where it is due.

        Published are the weights that the gradient was computed with: their loss was finite, so weights that have
        just diverged never play. A sequential agent, which learns and acts in turn, gets the new ones instead.
        `inside` is called with the lock held, after the update.
        """
        grads = self._online.grads.cpu()
        with self.master.locked(self._waiting):
            commit = self.master.apply(lambda now, then, step: self._adam(grads, now, then, step), self._target_every)
            due = self._publish is not None and commit.updates % self.settings.publish_every == 0
            weights, updates = self._host_weights, gradient.commit.updates
            if due and self.settings.mode != "async":
                weights, updates = self.master.slots[commit.slot].weights.copy(), commit.updates
            if inside is not None:
                inside()
        version = None
        # An update may overflow although its gradient did not: do not publish. The next loss will not be finite.
        if self._publish is not None and due and np.isfinite(weights).all():
            version = self._publish(weights, updates)
        diff = commit.updates - 1 - gradient.commit.updates
        return Update(commit, gradient, diff, version, due and version is None)

    @property
    def _target_every(self) -> int:
        return self.settings.target_every


class Adam:
    """torch.optim.Adam over flat tensors, out of place: reads one slot, writes the other. Nothing else is kept.

    The same operations in the same order as torch's single-tensor form, so that the numbers are its numbers.
    """

    def __init__(self, learning_rate: float) -> None:
        self._learning_rate = learning_rate
        self._tensors: dict[int, Mapping[str, Tensor]] = {}
        self._scratch = torch.empty(0)

    def __call__(self, grads: Tensor, now: Slot, then: Slot, step: int) -> None:
        """Update number `step` (from 1) with `grads`, (n,) float32."""
        old, new = self._of(now), self._of(then)
        if self._scratch.shape != grads.shape:
            self._scratch = torch.empty_like(grads)
        with torch.no_grad():
            torch.lerp(old["exp_avg"], grads, 1 - BETA1, out=new["exp_avg"])
            torch.mul(old["exp_avg_sq"], BETA2, out=new["exp_avg_sq"]).addcmul_(grads, grads, value=1 - BETA2)
            root = torch.sqrt(new["exp_avg_sq"], out=self._scratch)
            root.div_((1 - BETA2**step) ** 0.5).add_(EPS)
            size = self._learning_rate / (1 - BETA1**step)
            torch.addcdiv(old["weights"], new["exp_avg"], root, value=-size, out=new["weights"])

    def _of(self, slot: Slot) -> Mapping[str, Tensor]:
        key = slot.weights.ctypes.data
        if key not in self._tensors:
            self._tensors[key] = {name: torch.from_numpy(array) for name, array in slot._asdict().items()}
        return self._tensors[key]


def clip_(grads: Tensor, max_norm: float) -> float:
    """Scale all gradients down together if their norm is above `max_norm`; returns the norm they had."""
    norm = float(torch.linalg.vector_norm(grads))
    if norm > max_norm:
        grads.mul_(max_norm / norm)
    return norm


def _host_view(tensor: Tensor) -> Floats:
    """A NumPy view of a CPU tensor; for a tensor on a GPU, a host buffer to copy through."""
    array: Floats = tensor.numpy() if tensor.device.type == "cpu" else torch.empty_like(tensor, device="cpu").numpy()
    return array


def _to_device(array: Floats, tensor: Tensor) -> None:
    if tensor.device.type != "cpu":
        tensor.copy_(torch.from_numpy(array))
