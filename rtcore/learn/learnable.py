"""Whether a world can be learned with a run's settings, or gone on with: asked before any network is built."""

from __future__ import annotations

from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError
from rtcore.learn.checkpoint import SavedState
from rtcore.spaces import ActionSpec, ObservationSpec


def check_learnable(
    config: RuntimeConfig, observation: ObservationSpec, action: ActionSpec, ring_slots: int, saved: SavedState | None
) -> None:
    """ConfigError if this world cannot be learned with these settings, or is not the one that `saved` is of."""
    learn, batch_size = config.learning.learn, config.learning.batch_size
    check_actions(str(learn), action)
    if batch_size > ring_slots // 2:
        raise ConfigError(
            f"batch_size={batch_size} is more than half of ring_slots={ring_slots}, which is the replay memory; raise "
            "--ring-slots or lower --batch-size"
        )
    if saved is not None:
        _check_same_world(config.world.env_id, observation, action, saved)


def check_actions(learn: str, action: ActionSpec) -> None:
    """ConfigError unless the learners that come with rtcore can choose among these actions."""
    if action.kind != "discrete":
        raise ConfigError(
            f"learn={learn}: the world's actions are {action.to_space()}; expected Discrete, as a value of each action "
            "is learned. Wrap the world to offer a few fixed actions, or learn with a trainer of your own "
            "(Runtime.transitions)"
        )


def _check_same_world(env_id: str, observation: ObservationSpec, action: ActionSpec, saved: SavedState) -> None:
    trained_on = saved.state["world"]
    for name, spec in (("observation", observation), ("action", action)):
        was, now = trained_on.get(name), spec.to_json()
        if was != now:
            raise ConfigError(
                f"resume: {saved.folder} was trained on {trained_on.get('env_id')}, {name}s {was}; {env_id} has {now}. "
                "Resume with the same world, or play the weights with --policy-checkpoint"
            )
