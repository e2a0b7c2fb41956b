"""An agent for the virtual clock: the policy with its weights in a private parameter store, and learners over it.

The same network, exploration, store and algorithm as in a real run, in one process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rtcore.clock import Clock
from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError
from rtcore.learn.checkpoint import Arrays
from rtcore.learn.exploration import EpsilonSchedule
from rtcore.learn.replay_memory import TransitionReader
from rtcore.loop.teacher import TeacherAnswers
from rtcore.memory.master import Floats, MasterState
from rtcore.memory.tensors import ParamManifest
from rtcore.memory.weights import ParamStore
from rtcore.spaces import ActionSpec, ObservationSpec, PolicyNeeds
from rtcore_workers.malloc import keep_freed_memory
from rtcore_workers.policies import PaddedPolicy, Policy, as_played, network_of, policy_of

if TYPE_CHECKING:
    from torch import nn

    from rtcore_workers.dqn import DqnLearner
    from rtcore_workers.weights.shared import SharedWeights


@dataclass
class Agent:
    """A policy in one process, with learners if the config has some. `weights`, `store`: None without a network.

    `head`: the fast part of a policy with two speeds, which plays from the same store; else None.
    """

    policy: Policy
    name: str
    action: ActionSpec
    epsilon: Callable[[int], float]
    config: RuntimeConfig
    observation: ObservationSpec
    weights: SharedWeights | None = None
    store: ParamStore | None = None
    head: Policy | None = None
    head_weights: SharedWeights | None = None

    @property
    def needs(self) -> PolicyNeeds:
        """What the policy takes and gives beside frame and action."""
        return self.policy.needs

    @property
    def notes(self) -> list[str]:
        """What the run's header is to say of the policy, of both parts of one with two speeds."""
        return [note for part in (self.policy, self.head) if part is not None for note in part.info.notes]

    def learners(
        self, master: MasterState, replay: TransitionReader, teacher: TeacherAnswers | None = None
    ) -> list[DqnLearner]:
        """One learner per place in the master. `teacher`: for learn=imitate."""
        return [self._learner(master, replay, teacher, index) for index in range(len(master.status))]

    def _learner(
        self, master: MasterState, replay: TransitionReader, teacher: TeacherAnswers | None, index: int
    ) -> DqnLearner:
        from rtcore_workers.dqn import DqnLearner  # noqa: PLC0415 - imports torch
        from rtcore_workers.imitation import Imitator  # noqa: PLC0415 - imports torch

        config, store = self.config, self.store
        if store is None:
            raise RuntimeError("a policy without a network has no learners")
        manifest = store.manifest()

        def publish(weights: Floats, updates: int) -> int | None:
            def write(buffer: memoryview) -> None:
                manifest.trainable_array(buffer)[:] = weights

            version = store.publish(write, updates=updates)
            return version.version if version is not None else None

        make = DqnLearner if teacher is None else partial(Imitator, teacher.at)
        return make(
            module=network_of(config, self.observation, self.action),
            target_module=network_of(config, self.observation, self.action),
            manifest=manifest,
            master=master,
            replay=replay,
            settings=config.learning,
            action=self.action,
            seed=config.world.seed,
            index=index,
            publish=publish,
        )


def build_agent(
    config: RuntimeConfig,
    observation: ObservationSpec,
    action: ActionSpec,
    clock: Clock,
    *,
    has_latency: bool,
    initial: Arrays | None = None,
    what: str = "the weights",
    noop: object = 0,
    ticks_before: int = 0,
) -> Agent:
    """The policy of a simulated run, exploring if the config says so. Sets torch's threads of this process to 1.

    Args:
        config: Of the run.
        observation: The world's, of one frame.
        action: The world's.
        clock: The policy's own: a padded or synthetic one moves it on.
        has_latency: A model says how long an inference takes, so that an exploring policy need not be run.
        initial: Weights to begin with; None: those of the seed.
        what: Names `initial` in errors.
        noop: The world's action for doing nothing.
        ticks_before: Of the runs that this one goes on from.

    Returns:
        The policy with its weights.

    Raises:
        ConfigError: As for workers; or there are initial weights and no network.
        PolicyError: As for workers.
    """
    keep_freed_memory()

    def load(*, is_head: bool) -> Policy:
        return policy_of(
            config, observation, action, worker_index=0, device=config.agent.device, clock=clock, is_head=is_head
        )

    policy = load(is_head=False)
    head = load(is_head=True) if policy.needs.has_head else None
    head_weights = None
    module = _network_of(policy)
    store, weights = None, None
    if module is not None:
        store, weights = _share(module, policy.info.name, initial, what)
        if head is not None and (head_module := _network_of(head)) is not None:
            head_weights = _join(head_module, head.info.name, store)
    elif initial is not None:
        raise ConfigError(f"{what}: policy {config.agent.policy} has no network to play the weights with")
    played = partial(
        as_played, config=config, action=action, noop=noop, ticks_before=ticks_before, always_infer=not has_latency
    )
    policy = played(policy)
    return Agent(
        policy=policy,
        name=policy.info.describe(),
        action=action,
        epsilon=EpsilonSchedule.of(config.exploration, ticks_before).epsilon,
        config=config,
        observation=observation,
        weights=weights,
        store=store,
        head=played(head, is_head=True) if head is not None else None,
        head_weights=head_weights,
    )


def _share(module: nn.Module, title: str, initial: Arrays | None, what: str) -> tuple[ParamStore, SharedWeights]:
    """Version 1 in a store of private memory, and the module bound to it."""
    from rtcore_workers.weights.shared import connect  # noqa: PLC0415 - imports torch

    def make_store(manifest: ParamManifest | None) -> ParamStore:
        if manifest is None:
            raise RuntimeError("the first to connect makes the store")
        return ParamStore.private(manifest)

    _, _, weights = connect(lambda: (module, title), make_store, initial=initial, what=what, is_first=True)
    return weights.store, weights


def _join(module: nn.Module, title: str, store: ParamStore) -> SharedWeights:
    """Another module bound to that store."""
    from rtcore_workers.weights.shared import connect  # noqa: PLC0415 - imports torch

    return connect(lambda: (module, title), lambda manifest: store, is_first=False, plain=True)[2]


def _network_of(policy: Policy) -> nn.Module | None:
    """The network that a policy runs, None if there is none."""
    inner = policy.inner if isinstance(policy, PaddedPolicy) else policy
    return getattr(inner, "module", None)
