"""The state that a learning run resumes from and saves: state.json, and the return that picks the best checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtcore.config.groups import WeightsSettings
from rtcore.config.run import RuntimeConfig
from rtcore.learn.checkpoint import FOLDER, CheckpointFolder, SavedState, unchecked
from rtcore.results.run_record import RunRecord
from rtcore.version import __version__

_log = logging.getLogger(__name__)

#: The best checkpoint is found by the mean return of this many newest episodes; with fewer than the second, by none.
_MEAN_EPISODES, _FEWEST_EPISODES = 50, 10
#: If one of these settings is changed, a resumed run learns something else: the user is warned.
_LEARNED_WITH = (
    *("env_id", "env_args", "fps", "seed", "policy_args", "mode", "learners"),
    *("learning_rate", "gamma", "batch_size", "n_step", "double_dqn", "target_every", "max_grad_norm"),
    *("updates_per_tick", "epsilon_start", "epsilon_end", "epsilon_ticks", "explore_ticks"),
)


def warn_of_unchecked(weights: WeightsSettings) -> None:
    """Warn of weights without checksums. They are used all the same."""
    path = weights.resume or weights.policy_checkpoint
    if path is not None and (note := unchecked(path, "resume" if weights.resume else "policy-checkpoint")):
        _log.warning(note)


def warn_of_changes(config: RuntimeConfig, saved: SavedState) -> None:
    """Resuming restores what was learned, not the settings: say which are others now."""
    was, now = saved.state.get("config") or {}, config.to_jsonable()
    others = [name for name in _LEARNED_WITH if name in was and was[name] != now[name]]
    changed = [f"{name} {now[name]} (was {was[name]})" for name in others]
    if changed:
        _log.warning(f"resumed with other settings than {saved.folder} was learned with: {', '.join(changed)}")


# -- for runs on either clock -------------------------------------------------------------------------------------


def checkpoint_folder(keep: int, out: Path, saved: SavedState | None) -> CheckpointFolder:
    """Where a run keeps its `keep` newest checkpoints: beside those it goes on from; another run's are moved away."""
    folder = CheckpointFolder(out / FOLDER, keep)
    if saved is None or not saved.is_of(out):
        aside = folder.set_aside()
        if aside is not None:
            _log.info(f"the checkpoints of an earlier run are now in {aside}")
    return folder


def judged_return(record: RunRecord) -> float | None:
    """Mean return of the newest episodes, which picks the best checkpoint; None while there are too few."""
    returns = [episode.total_reward for episode in record.episodes.newest(_MEAN_EPISODES)]
    return sum(returns) / len(returns) if len(returns) >= _FEWEST_EPISODES else None


def state_of(
    config: RuntimeConfig, env_info: Mapping[str, Any], policy_title: str, *, updates: int, ticks: int, episodes: int
) -> dict[str, Any]:
    """state.json of a checkpoint. `env_info`: the world's `observation` and `action`, as JSON; counts of all runs."""
    plain = config.to_jsonable()
    return {
        "rtcore": __version__,
        "updates": updates,
        "ticks": ticks,
        "episodes": episodes,
        "seed": config.world.seed,
        "algorithm": config.learning.learn,
        "world": {
            "env_id": config.world.env_id,
            "env_args": plain["env_args"],
            "observation": env_info["observation"],
            "action": env_info["action"],
        },
        "policy": {
            "policy": config.agent.policy,
            "policy_args": plain["policy_args"],
            "obs_history": config.history.obs_history,
            "obs_every": config.history.obs_every,
            "act_history": config.history.act_history,
            "chunk": config.agent.chunk,
            "chunk_rest": config.agent.chunk_rest,
            "policy_extras": plain["policy_extras"],
            "context_ticks": config.agent.context_ticks,
            "title": policy_title,
        },
        "config": plain,
    }
