"""Policies by name: the built-in ones, or anyone's `module:factory` that returns an nn.Module.

Importing this package does not import torch; loading a policy with a network does.
"""

from __future__ import annotations

from rtcore.clock import Clock
from rtcore.errors import PolicyError
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.policies.base import (
    InferenceTiming,
    PaddedPolicy,
    Policy,
    PolicyInfo,
    number,
    positive_int,
    refuse_unknown,
    suggestion,
)
from rtcore_workers.policies.random import RandomPolicy
from rtcore_workers.policies.synthetic import LatencyModel, SyntheticPolicy, draw_latency_ns

__all__ = [
    "BUILTIN_POLICIES",
    "InferenceTiming",
    "LatencyModel",
    "PaddedPolicy",
    "Policy",
    "PolicyInfo",
    "RandomPolicy",
    "SyntheticPolicy",
    "draw_latency_ns",
    "load_policy",
]

_WITHOUT_NETWORK = ("random", "synthetic")
_NETWORKS = {
    "impala": "rtcore_workers.policies.impala:impala",
    "nature": "rtcore_workers.policies.nature:nature",
    "mlp": "rtcore_workers.policies.mlp:mlp",
}
BUILTIN_POLICIES = (*_NETWORKS, *_WITHOUT_NETWORK)


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
) -> Policy:
    """Build a policy and, if it has a network, run it once, so that a wrong one fails here and not at a tick.

    `name` is one of BUILTIN_POLICIES or "module:factory"; the factory is called as
    factory(observation_space, action_space, **args) and returns an nn.Module that maps a batch of one raw
    observation, shape (1, *observation_shape), to what `ActionSpec.from_policy_output` accepts. `args` may
    hold `pad_ms` for any policy: each inference then takes at least that long. Weights drawn at construction
    depend on `seed` alone, so that all workers hold the same ones; `worker_index` only chooses the GPU.

    PolicyError says what is wrong with the name, the arguments or the network; ConfigError with the device.
    """
    rest = dict(args)
    pad_ms = None
    if "pad_ms" in rest:
        pad_ms = number(name, rest, "pad_ms")
        if pad_ms == 0:
            raise PolicyError(f"policy {name!r} got pad_ms={args['pad_ms']!r}; expected a number above 0")
        del rest["pad_ms"]
    positive_int(name, "chunk", chunk)
    policy: Policy
    if name == "random":
        refuse_unknown(name, rest, ())
        policy = RandomPolicy(observation, action, seed=seed, clock=clock)
    elif name == "synthetic":
        policy = SyntheticPolicy(observation, action, LatencyModel.from_args(rest), seed=seed, clock=clock)
    elif name in _NETWORKS or ":" in name:
        from rtcore_workers.policies import network  # noqa: PLC0415 - imports torch

        built_in = _NETWORKS.get(name)
        module, title = network.build_module(name, built_in, rest, observation, action, seed=seed, chunk=chunk)
        policy = network.NetworkPolicy(
            title,
            module,
            observation,
            action,
            device=device,
            worker_index=worker_index,
            chunk=chunk,
            clock=clock,
        )
    else:
        raise PolicyError(
            f"there is no policy {name!r}{suggestion(name, BUILTIN_POLICIES)}; expected one of "
            f"{', '.join(BUILTIN_POLICIES)}, or module:factory for your own"
        )
    return policy if pad_ms is None else PaddedPolicy(policy, pad_ms, clock)
