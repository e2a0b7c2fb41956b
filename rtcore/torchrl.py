"""A run's decisions as TensorDicts, under the names that torchrl's losses and replay buffers know.

    for data in rtcore.torchrl.collect(runtime, 256):
        loss = loss_module(data)

In torchrl's words a decision is a step: "observation", "action", "next". A decision governs one tick or more, so
"steps_to_next_obs" says how many: torchrl's estimators discount by gamma to that power. Needs the extra `torchrl`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rtcore.errors import ConfigError
from rtcore.learn.replay_memory import Batch

try:
    from tensordict import TensorDict
except ImportError as error:
    raise ImportError("rtcore.torchrl needs tensordict: pip install 'rtcore[torchrl]'") from error

if TYPE_CHECKING:
    from rtcore.runtime.runtime import Runtime

__all__ = ["collect", "tensordict_of"]

#: How often it looks for decisions that are complete [s].
_LOOK_S = 0.01
#: Fields of a `Batch` that stand in a TensorDict under their own names, (N, 1) each as torchrl has numbers.
_NUMBERS = ("tick", "delay_ticks", "policy_version", "worker", "episode", "decision", "row")


def collect(runtime: Runtime, frames_per_batch: int, *, gamma: float = 0.99, device: str = "cpu") -> Iterator[Any]:
    """The decisions of a run in order, each once, until it is over: as torchrl's collectors give them.

    Args:
        runtime: Started.
        frames_per_batch: Decisions in each TensorDict.
        gamma: Discount per tick, of the rewards within a decision.
        device: Where the tensors are to be.

    Yields:
        A TensorDict as of `tensordict_of`. What was lost in between is a gap in "decision"; what is left at the end
        of the run, too few for another one, is not given.

    Raises:
        ConfigError: The ring can never hold so many.
        RtcoreError: What ended the run.
    """
    while True:
        is_over = runtime.wait(0)  # before it looks: what comes meanwhile is not missed
        while (batch := runtime.take(frames_per_batch, gamma=gamma, device=device)) is not None:
            yield tensordict_of(batch)
        if is_over:
            return
        runtime.wait(_LOOK_S)


def tensordict_of(batch: Batch) -> Any:
    """A batch of tensors (`Runtime.sample`, `Runtime.take`) as a TensorDict. Shares their memory.

    Args:
        batch: Of N decisions.

    Returns:
        A TensorDict of batch size (N,): "observation" and ("next", "observation"), or in a world of Dicts the parts by
        their own names; "action"; in "next" "reward", "done", "terminated", "truncated", (N, 1) each;
        "steps_to_next_obs"; the numbers of the batch; and what the policy gave, such as "logp".

    Raises:
        ConfigError: The policy gives something under one of these names.
    """
    taken = {name: _column(getattr(batch, name)) for name in _NUMBERS}
    taken |= {"action": batch.action, "steps_to_next_obs": _column(batch.num_ticks)}
    after = {
        "reward": _column(batch.reward),
        "done": _column(batch.terminated | batch.truncated),
        "terminated": _column(batch.terminated),
        "truncated": _column(batch.truncated),
    }
    pairs = ((taken, batch.obs, batch.past_actions), (after, batch.next_obs, batch.next_past_actions))
    for target, frames, past_actions in pairs:
        target.update(frames if isinstance(frames, dict) else {"observation": frames})
        if past_actions is not None:
            target["past_actions"] = past_actions
    for given in (batch.extras or {}, batch.state or {}):
        if twice := sorted(given.keys() & {*taken, "next"}):
            raise ConfigError(
                f"the policy gives {', '.join(twice)}, which a TensorDict has already; expected other names in its "
                "policy_extras or initial_state()"
            )
        taken |= given
    return TensorDict(
        {**taken, "next": TensorDict(after, batch_size=[len(batch.reward)])}, batch_size=[len(batch.reward)]
    )


def _column(values: Any) -> Any:
    return values[:, None]
