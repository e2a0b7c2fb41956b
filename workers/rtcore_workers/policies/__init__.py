"""Policies by name: the built-in ones, or anyone's `module:factory` that returns an nn.Module.

Importing this package does not import torch; loading a policy with a network does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtcore.clock import Clock
from rtcore.config.groups import POLICY_SERVER
from rtcore.errors import PolicyConfigError, PolicyError
from rtcore.files.outside import is_there
from rtcore.learn.exploration import EpsilonSchedule
from rtcore.learn.policy import WITHOUT_NETWORK, has_network
from rtcore.memory.history import History
from rtcore.scheduling.dispatch import COMMITTED_TICKS
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore.spaces.task import TaskSpec
from rtcore_workers.policies.base import (
    InferenceTiming,
    PaddedPolicy,
    Policy,
    PolicyInfo,
    fill_chunks,
    number,
    positive_int,
    refuse_unknown,
    suggestion,
)
from rtcore_workers.policies.exploring import ExploringPolicy
from rtcore_workers.policies.random import RandomPolicy
from rtcore_workers.policies.synthetic import LatencyModel, SyntheticPolicy, draw_latency_ns

if TYPE_CHECKING:
    from torch import nn

    from rtcore.config.run import RuntimeConfig
    from rtcore_workers.weights.shared import Weights

    Build = Callable[[], tuple[nn.Module, str]]
    #: (build, plain): the module, its title, and where its weights come from.
    Share = Callable[[Build, bool], tuple[nn.Module, str, Weights]]

__all__ = [
    "BUILTIN_POLICIES",
    "ExploringPolicy",
    "InferenceTiming",
    "LatencyModel",
    "PaddedPolicy",
    "Policy",
    "PolicyInfo",
    "RandomPolicy",
    "SyntheticPolicy",
    "as_played",
    "build_network",
    "draw_latency_ns",
    "fill_chunks",
    "load_policy",
    "network_of",
    "policy_of",
]

#: Built-in policies with a network: their factories, by name.
NETWORKS = {
    "impala": "rtcore_workers.policies.impala:impala",
    "nature": "rtcore_workers.policies.nature:nature",
    "mlp": "rtcore_workers.policies.mlp:mlp",
    "dqn": "rtcore_workers.policies.dqn:dqn",
    "two-speed": "rtcore_workers.policies.two_speed:two_speed",
    "tiles": "rtcore_workers.policies.tiles:tiles",
    "trained": "rtcore_workers.policies.trained:trained",
}
BUILTIN_POLICIES = (*NETWORKS, *WITHOUT_NETWORK)
#: A policy of this name is a model that Stable-Baselines3 saved: sb3:FILE.zip.
_SAVED, _SAVED_END = "sb3:", ".zip"


def built_in(name: str) -> str | None:
    """The factory behind a policy that is not one of the user's; None for one that is."""
    return "rtcore_workers.policies.sb3:saved" if saved_file(name) else NETWORKS.get(name)


def saved_file(name: str) -> Path | None:
    """The saved model that a policy's name means; None for any other name."""
    is_saved = name.startswith(_SAVED) and name.endswith(_SAVED_END)
    return Path(name.removeprefix(_SAVED)) if is_saved else None


def check_named(name: str, args: Mapping[str, object]) -> tuple[dict[str, object], float | None]:
    """Check what can be checked without importing a network: PolicyConfigError for a wrong name or wrong `args`.

    Returns the arguments of the policy itself, and `pad_ms`.
    """
    rest, pad_ms = dict(args), None
    if "pad_ms" in rest:
        pad_ms = number(name, rest, "pad_ms")
        if pad_ms == 0:
            raise PolicyConfigError(f"policy {name!r} got pad_ms={args['pad_ms']!r}; expected a number above 0")
        del rest["pad_ms"]
    file, colon, _ = name.partition(":")
    if name not in BUILTIN_POLICIES and not colon:
        raise PolicyConfigError(
            f"there is no policy {name!r}{suggestion(name, BUILTIN_POLICIES)}; expected one of "
            f"{', '.join(BUILTIN_POLICIES)}, sb3:FILE.zip for a model that Stable-Baselines3 saved, or module:factory "
            "for your own"
        )
    saved = saved_file(name)
    if saved is not None and not (is_there(saved, "policy") and saved.is_file()):
        raise PolicyConfigError(f"policy {name!r}: there is no file {saved.resolve()}; expected sb3:FILE.zip")
    if saved is not None:
        rest["sb3_file"] = str(saved)
    if file.endswith(".py") and not (is_there(Path(file), "policy") and Path(file).is_file()):
        raise PolicyConfigError(f"policy {name!r}: there is no file {Path(file).resolve()}; expected file.py:factory")
    if name == "random":
        refuse_unknown(name, rest, ())
    elif name == "synthetic":
        LatencyModel.from_args(rest)
    return rest, pad_ms


def policy_of(config: RuntimeConfig, observation: ObservationSpec, action: ActionSpec, **place: Any) -> Policy:
    """The policy that a run's settings name. `place`: arguments of `load_policy` that differ by worker."""
    return load_policy(
        config.agent.policy,
        dict(config.agent.policy_args),
        observation,
        action,
        seed=config.world.seed,
        chunk=config.agent.policy_chunk,
        history=History.of(config.history),
        extras=config.agent.policy_extras,
        committed_ticks=config.agent.context_ticks,
        task=TaskSpec(config.world.task),
        **place,
    )


def as_played(
    policy: Policy,
    config: RuntimeConfig,
    action: ActionSpec,
    *,
    noop: object,
    ticks_before: int,
    is_head: bool = False,
    always_infer: bool = True,
) -> Policy:
    """A policy as a run plays it: with random actions if the run explores, its chunks filled as `chunk_rest` says.

    Args:
        policy: What `policy_of` gave.
        config: Of the run.
        action: Of its world.
        noop: The world's action for doing nothing.
        ticks_before: Of the runs that this one goes on from: exploration counts them too.
        is_head: It gives one action at a time, and no chunks.
        always_infer: See `ExploringPolicy`.

    Returns:
        The policy itself, or others around it.
    """
    if config.explores:
        schedule, ticks = EpsilonSchedule.of(config.exploration, ticks_before), config.exploration.explore_ticks
        policy = ExploringPolicy(policy, action, config.world.seed, schedule, ticks, always_infer=always_infer)
    return policy if is_head else fill_chunks(policy, config.agent.chunk_rest, noop)


def network_of(config: RuntimeConfig, observation: ObservationSpec, action: ActionSpec) -> nn.Module:
    """The network of that policy, to learn with."""
    return build_network(
        config.agent.policy,
        dict(config.agent.policy_args),
        observation,
        action,
        seed=config.world.seed,
        history=History.of(config.history),
    )


def load_policy(
    name: str,
    args: dict[str, object],
    observation: ObservationSpec,
    action: ActionSpec,
    *,
    seed: int,
    worker_index: int,
    device: str,
    chunk: int = 1,
    clock: Clock | None = None,
    history: History | None = None,
    share: Share | None = None,
    extras: Mapping[str, Any] | None = None,
    committed_ticks: int = COMMITTED_TICKS,
    task: TaskSpec | None = None,
    is_head: bool = False,
) -> Policy:
    """Build a policy and, if it has a network, run it once, so that a wrong one fails here and not at a tick.

    A factory is called as factory(observation_space, action_space, **args). It returns an nn.Module, or any callable,
    that maps a batch of one raw observation, (1, *observation_shape), or of a Dict space a dict of such parts, to what
    `ActionSpec.from_policy_output` accepts.

    Args:
        name: One of BUILTIN_POLICIES, or "module:factory".
        args: For the factory. For any policy they may hold `pad_ms`: each inference then takes at least that long.
        observation: Of one frame.
        action: Of one action.
        seed: What weights drawn at construction depend on, and nothing else: all workers draw the same.
        worker_index: Chooses the GPU.
        device: "cpu", "cuda", "cuda:i", "auto", or a list.
        chunk: Actions of an answer.
        clock: What inferences are timed by.
        history: Older frames and past actions. The observation space is that of stacked frames then,
            (h+1, *observation_shape); with past actions the factory gets `act_history=m`, if it has such an argument,
            and the module gets them, (1, m, *action_shape), as its second argument.
        share: `share(build, plain)` builds the network with `build` and says where its weights come from. It may be
            called a second time with plain=True, to build it without the meta device. None: the weights are its own.
        extras: The setting `policy_extras`.
        committed_ticks: The setting `context_ticks`.
        task: Of the run.
        is_head: The fast part of a policy with two speeds, which `pad_ms` does not slow down.

    Returns:
        The policy, not exploring yet (`as_played`).

    Raises:
        PolicyConfigError: The name or the arguments are wrong.
        PolicyError: The network is.
        ConfigError: The device is.
    """
    rest, pad_ms = check_named(name, args)
    positive_int(name, "chunk", chunk)
    history = history or History()
    observation, past_actions = history.stacked(observation), history.empty_past_actions(action)
    if not has_network(name) and (extras or is_head):
        raise PolicyConfigError(f"policy {name!r} gives no {'extras' if extras else 'features'}: it computes nothing")
    policy: Policy
    if name == "random":
        policy = RandomPolicy(observation, action, seed=seed, clock=clock, past_actions=past_actions)
    elif name == "synthetic":
        model = LatencyModel.from_args(rest)
        policy = SyntheticPolicy(observation, action, model, seed=seed, clock=clock, past_actions=past_actions)
    elif name.startswith(POLICY_SERVER):
        from rtcore_workers.policies.openpi import OpenPiPolicy  # noqa: PLC0415 - one kind of policy of many

        policy = OpenPiPolicy(
            name, rest, observation, action, chunk=chunk, clock=clock, past_actions=past_actions, task=task
        )
    else:
        from rtcore_workers.policies import network  # noqa: PLC0415 - imports torch

        # Its module is imported here: within `build`, which may run on the meta device, constants would have no memory.
        network.find_factory(name, built_in(name))

        def build() -> tuple[nn.Module, str]:
            return network.build_module(
                name,
                built_in(name),
                rest,
                observation,
                action,
                seed=seed,
                chunk=chunk,
                act_history=history.act_history,
            )

        def run(module: nn.Module, title: str, weights: Weights | None) -> Policy:
            return network.NetworkPolicy(
                title,
                module,
                observation,
                action,
                device=device,
                worker_index=worker_index,
                chunk=chunk,
                clock=clock,
                past_actions=past_actions,
                weights=weights,
                extras=extras,
                committed_ticks=committed_ticks,
                task=task,
                is_head=is_head,
            )

        policy = run(*build(), None) if share is None else _share_weights(share, build, run)
    return policy if pad_ms is None or is_head else PaddedPolicy(policy, pad_ms, clock)


def _share_weights(share: Share, build: Build, run: Callable[[nn.Module, str, Weights | None], Policy]) -> Policy:
    """A policy whose first inference is made with the weights held."""

    module, title, weights = share(build, False)
    try:
        return _first_run(run, module, title, weights)
    except PolicyError:
        if weights.is_plain:
            raise
    # Built without memory, it may lack a tensor that it keeps where none is looked for.
    return _first_run(run, *share(build, True))


def _first_run(
    run: Callable[[nn.Module, str, Weights | None], Policy], module: nn.Module, title: str, weights: Weights
) -> Policy:
    weights.switch()
    try:
        policy = run(module, title, weights)
        weights.refuse_changes()
        return policy
    finally:
        weights.release()


def build_network(
    name: str,
    args: dict[str, object],
    observation: ObservationSpec,
    action: ActionSpec,
    *,
    seed: int,
    history: History | None = None,
) -> nn.Module:
    """The network of a policy alone, as `load_policy` builds it: for who trains it. Imports torch.

    PolicyError for a policy without a network, and as for `load_policy`.
    """
    from rtcore_workers.policies import network  # noqa: PLC0415 - imports torch

    if name not in NETWORKS and ":" not in name:
        raise PolicyConfigError(
            f"policy {name!r} has no network to train; expected {', '.join(NETWORKS)} or module:factory"
        )
    rest, _ = check_named(name, args)
    history = history or History()
    module, _ = network.build_module(
        name,
        built_in(name),
        rest,
        history.stacked(observation),
        action,
        seed=seed,
        chunk=1,
        act_history=history.act_history,
    )
    return module
